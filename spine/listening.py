"""An address to serve on, taken before anything is loaded: a port in use is told at once, in one line."""

import socket

from spine.errors import ConfigError


def bound_socket(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket on this address that doesn't listen yet, so that nobody waits in line while models load.

    Args:
        host: An address of this machine, or a name of one.
        port: 0 takes a free one.
        shared: With other such sockets of this user, among which the system deals connections out.

    Raises:
        ConfigError: The port is taken, or the address is none of this machine's.
    """
    is_v6 = ":" in host
    made = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if is_v6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise ConfigError(
            f"{host}:{port}: can't listen there ({error.strerror}); choose another with --port"
        ) from None
    return made
