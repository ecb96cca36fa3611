"""Replies of hosts: their head, and a body that is read no further than it may be."""

import contextlib
import zlib
from collections.abc import Iterator

import httpcore
import httpx
from h2.exceptions import H2Error

from spine.errors import WebError

NO_HTTP = (httpcore.ProtocolError, H2Error, ValueError)
"""What a reply that is no HTTP makes httpcore raise; the last is an HTTP/2 status that is no number."""

_GONE = (404, 410)
_READ_OUT = 16_384  # bytes of an error's or redirect's body that cost less than another connection


class Reply:
    """A reply's head, and its body as it comes."""

    def __init__(self, reply: httpcore.Response) -> None:
        """Read nothing yet."""
        self._reply, self._ended = reply, False
        self.status, self.headers = reply.status, _headers(reply.headers)

    def chunks(self) -> Iterator[bytes]:
        """The body, to be read once."""
        yield from self._reply.iter_stream()
        self._ended = True

    def close(self) -> None:
        """Let go of it; where it wasn't read to its end, its connection ends too.

        With HTTP/1.1 httpcore does so. With HTTP/2 what still comes would be paid for by the next request there, and
        would use up the connection's window, so that at last nothing comes at all.
        """
        if not self._ended and self._reply.extensions.get("http_version") == b"HTTP/2":
            self._reply.extensions["network_stream"].close()
        self._reply.close()

    def read_out(self) -> None:
        """Read a small body that nobody wants, so that a dead link doesn't cost another connection."""
        length = self.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) <= _READ_OUT:
            with contextlib.suppress(httpcore.TimeoutException, httpcore.NetworkError, *NO_HTTP):
                for _ in self.chunks():
                    pass

    def check_status(self, url: httpx.URL) -> None:
        """See whether it says that a body follows which was asked for.

        Args:
            url: That gave it.

        Raises:
            WebError: It does not.
        """
        status = self.status
        if status in _GONE:
            raise WebError("gone", f"{url}: HTTP {status}", status=status)
        if not 200 <= status < 300:
            wait = self.headers.get("retry-after", "")
            wait_s = float(wait) if wait.isascii() and wait.isdigit() and len(wait) < 7 else None
            raise WebError("http_error", f"{url}: HTTP {status}", status=status, retry_after_s=wait_s)

    def body(self, url: httpx.URL, limit: int) -> bytes:
        """The decoded body, read no further than the limit.

        Args:
            url: That gave it.
            limit: Bytes at most, as sent and as decoded.

        Raises:
            WebError: It is longer, or damaged.
        """
        headers = self.headers
        too_large = WebError("too_many_bytes", f"{url}: more than {limit:,} bytes", status=self.status)
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) > limit:
            raise too_large
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "", "gzip", "deflate"):
            raise WebError("broken_reply", f"{url}: content encoding {encoding!r} wasn't asked for")
        inflate = zlib.decompressobj(wbits=47) if encoding in ("gzip", "deflate") else None
        chunks, size = [], 0
        try:
            for chunk in self.chunks():
                if inflate is not None:
                    chunk = inflate.decompress(chunk, limit - size + 1)
                size += len(chunk)
                if size > limit:
                    raise too_large
                chunks.append(chunk)
        except zlib.error as error:
            raise WebError("broken_reply", f"{url}: {encoding} is damaged ({error})") from None
        if inflate is not None and not inflate.eof:
            raise WebError("broken_reply", f"{url}: {encoding} breaks off")
        return b"".join(chunks)


def _headers(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        between = "\n" if key == "x-robots-tag" else ", "
        headers[key] = f"{headers[key]}{between}{text}" if key in headers else text
    return headers
