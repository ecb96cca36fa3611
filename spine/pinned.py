"""Connections to public addresses only, each to the very address that was checked, each step under a deadline.

What `spine.web` connects through. A look-up, a check and a second look-up by the connecting library
would let a name answer differently the second time; here the checked address is the one connected to.
What a name answered is remembered for a minute, and checked at every use.
"""

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import httpcore

CONNECT_S = 5.0
"""Seconds for a look-up, and for connecting to one address."""

KNOWN_S = 60.0
"""Seconds for which a name's addresses are remembered."""

KNOWN_HOSTS = 10_000
"""Names whose addresses are remembered at most."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: _Address) -> bool:
    """Whether an address is on the public network, also inside an IPv6 form that carries an IPv4 address.

    `ipaddress` alone calls 64:ff9b::7f00:1, 2002:7f00:1:: and ::7f00:1 global, though they may lead to
    127.0.0.1, and multicast too.
    """
    plain = _unwrap(address)
    if isinstance(plain, ipaddress.IPv6Address) and plain not in _GLOBAL_UNICAST:
        return False
    return plain.is_global and not plain.is_multicast and not plain.is_reserved


def _unwrap(address: _Address) -> _Address:
    """The IPv4 address that an IPv6 address stands for (mapped, 6to4, NAT64), else itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return inner or address


class Clock:
    """The deadline of the request that this thread works on."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def start(self, seconds: float) -> None:
        """This thread's request may take so long from now."""
        self._of_thread.deadline = time.monotonic() + seconds

    def forget_connecting(self) -> None:
        """From here on `connected` tells of what comes."""
        self._of_thread.connected = False

    def connecting(self) -> None:
        """This thread's request opens a connection of its own."""
        self._of_thread.connected = True

    @property
    def connected(self) -> bool:
        """Whether this thread's request opened a connection, and did not take one that stood idle."""
        return bool(self._of_thread.connected)

    def left_s(self) -> float:
        """Seconds left, more than 0.

        Raises:
            httpcore.ReadTimeout: None are.
        """
        left = float(self._of_thread.deadline) - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("took longer than allowed")
        return left


class NotPublic(Exception):
    """A host has an address that is not public."""


class NoAddress(Exception):
    """A host name has no address."""


class _Addresses:
    """The addresses of names; those that were looked up longest ago are forgotten. May be asked from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, list[str]]] = {}

    def find(self, host: str) -> list[str] | None:
        """Those of a name, None where they aren't known any more."""
        with self._lock:
            until, texts = self._known.get(host, (0.0, []))
        return texts if time.monotonic() < until else None

    def keep(self, host: str, texts: list[str]) -> None:
        """Remember those of a name."""
        with self._lock:
            self._known.pop(host, None)
            if len(self._known) >= KNOWN_HOSTS:
                del self._known[next(iter(self._known))]
            self._known[host] = (time.monotonic() + KNOWN_S, texts)

    def forget(self, host: str) -> None:
        """Look this name up anew the next time."""
        with self._lock:
            self._known.pop(host, None)


class PinnedBackend(httpcore.NetworkBackend):
    """Connects to the very address that was checked."""

    def __init__(self, clock: Clock, allow: Sequence[_Network], lookups: int) -> None:
        self._clock, self._allow = clock, allow
        self._sync, self._known = httpcore.SyncBackend(), _Addresses()
        # The system's look-up can't be given a deadline, so it runs in a thread that is left behind.
        self._lookups = ThreadPoolExecutor(lookups, thread_name_prefix="dns")

    def close(self) -> None:
        """Wait for no look-up any more."""
        self._lookups.shutdown(wait=False, cancel_futures=True)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Look the host up, check every address, connect to the first that answers."""
        self._clock.connecting()
        failure: Exception = httpcore.ConnectError(f"{host}: no address")
        for address in self._addresses(host, port):
            try:
                stream = self._sync.connect_tcp(address, port, min(CONNECT_S, self._clock.left_s()))
                return _BoundedStream(stream, self._clock)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        self._known.forget(host)  # it may have moved
        raise failure

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        """Refused: no address of the web is a socket on this machine."""
        raise NotPublic(path)

    def _addresses(self, host: str, port: int) -> list[str]:
        """All of a host's addresses, in the order of preference.

        Raises:
            NotPublic: One of them is not public.
            NoAddress: It has none.
        """
        texts = self._known.find(host)
        if texts is None:
            texts = self._looked_up(host, port)
            self._known.keep(host, texts)
        for text in texts:
            address = ipaddress.ip_address(text)
            if not is_public(address) and not self._allowed(address):
                raise NotPublic(f"{host} is {text}")
        return texts

    def _looked_up(self, host: str, port: int) -> list[str]:
        looking = self._lookups.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            found = looking.result(timeout=min(CONNECT_S, self._clock.left_s()))
        except (OSError, UnicodeError, FutureTimeout) as error:
            raise NoAddress(f"{host}: {str(error) or 'no answer in time'}") from None
        # The text of an IPv6 address may carry a zone ("%eth0"): link-local, and refused above.
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def _allowed(self, address: _Address) -> bool:
        plain = _unwrap(address)
        return any(plain.version == network.version and plain in network for network in self._allow)


class _BoundedStream(httpcore.NetworkStream):
    """A connection whose every step ends at the request's deadline, also one that sends a byte at a time."""

    def __init__(self, stream: httpcore.NetworkStream, clock: Clock) -> None:
        self._stream, self._clock = stream, clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._clock.left_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._clock.left_s())

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            safe = self._stream.start_tls(ssl_context, server_hostname, self._clock.left_s())
        except httpcore.ConnectTimeout as error:  # connected it is: this is the deadline
            raise httpcore.ReadTimeout(str(error)) from None
        except httpcore.ConnectError as error:
            raise ssl.SSLError(str(error)) from None
        return _BoundedStream(safe, self._clock)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
