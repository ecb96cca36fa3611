"""Fetch over real HTTP: pictures and replies that are out to hurt, each with its one status."""

import gzip
import http.server
import io
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from curation.fetched_images import REASONS, fetch
from spine.web import Web
from tests.integration.curation_runs import Planted, by_address, numbered_picture, plant
from tests.integration.test_curation_fetch import _Server, rows_by_id


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    kept = io.BytesIO()
    image.save(kept, kind, **options)
    return kept.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises so much, with a few bytes behind it."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("comment", "x" * 70_000_000, zip=True)
    return saved(Image.new("RGB", (40, 30), "red"), "PNG", pnginfo=notes)


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(Image.new("RGB", (40, 30), "red"), "JPEG", exif=exif)


GRADIENT = np.linspace(0, 65535, 1200).astype(np.uint16).reshape(30, 40)
FRAMES = [Image.new("P", (40, 30), colour) for colour in range(3)]
BODIES: dict[str, tuple[bytes, str | None]] = {
    "pixels": (png_of(20_000, 20_000), "too_many_pixels"),
    "side": (png_of(40_000, 10), "too_many_pixels"),
    "text": (text_bomb(), "truncated"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported_format"),
    "fits": (b"SIMPLE  =                    T" + b" " * 2850, "unsupported_format"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "unsupported_format"),
    "avif": (b"\0\0\0\x1cftypavif\0\0\0\0" + b"\0" * 40, "unsupported_format"),
    "jpeg 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 40, "unsupported_format"),
    "cut": (saved(Image.fromarray(GRADIENT), "PNG")[:-30], "truncated"),
    "deep": (saved(Image.fromarray(GRADIENT), "PNG"), None),
    "turned": (rotated(), None),
    "moving": (
        saved(Image.new("P", (40, 30)), "GIF", save_all=True, append_images=[Image.new("P", (40, 30), 3)]),
        None,
    ),
    "behind": (numbered_picture(7) + b"<script>alert(1)</script>", None),
}
"""What an address gives, and what becomes of it."""


class Odd(http.server.BaseHTTPRequestHandler):
    """Gives BODIES, and replies that are wrong in themselves."""

    protocol_version = "HTTP/1.1"
    picture: ClassVar[bytes] = numbered_picture(3)

    def do_GET(self) -> None:
        name = self.path.strip("/").replace("%20", " ")
        self.close_connection = True
        if name in BODIES:
            self._give(BODIES[name][0])
        elif name == "squeezed":
            self._give(gzip.compress(b"\0" * 30_000_000), ("Content-Encoding", "gzip"))
        elif name == "damaged":
            self._give(gzip.compress(self.picture)[:-20], ("Content-Encoding", "gzip"))
        elif name == "longer":
            self._give(self.picture, ("Content-Length", str(len(self.picture) + 1000)))
        elif name == "other":
            self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        elif name == "inside":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest/meta-data")
            self.end_headers()
        else:
            self.send_error(404)

    def _give(self, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(200)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name == "Content-Length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


REPLIES = {
    "squeezed": "too_many_bytes",
    "damaged": "broken_reply",
    "longer": "broken_reply",
    "other": "broken_reply",
    "inside": "not_public",
}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = _Server(("127.0.0.1", 0), Odd)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_each_odd_picture_and_reply_has_its_one_status(port, tmp_path, monkeypatch):
    monkeypatch.setattr("spine.polite_web._FIRST_WAIT_S", 0.01)
    expected = {f"http://127.0.0.1:{port}/{name}": reason for name, (_, reason) in BODIES.items()}
    expected |= {f"http://127.0.0.1:{port}/{name}": reason for name, reason in REPLIES.items()}
    expected |= {
        f"https://127.0.0.1:{port}/deep": "tls",
        f"http://nothing.invalid:{port}/deep": "dns",
        f"http://127.0.0.9:{port}/deep": "connect",
        f"http://10.0.0.1:{port}/deep": "not_public",
        f"http://[::ffff:10.0.0.1]:{port}/deep": "not_public",
        f"http://[64:ff9b::a00:1]:{port}/deep": "not_public",
        f"http://user:word@127.0.0.1:{port}/deep": "bad_url",
        "file:///etc/passwd": "bad_url",
        "data:image/png;base64,AAAA": "bad_url",
        "http://": "bad_url",
        "": "bad_url",
    }
    rows = [Planted(0, rank, by_address(url, rank)) for rank, url in enumerate(expected)]
    run = plant(tmp_path / "run", rows)

    with Web(ports={port, 80}, allow=("127.0.0.0/8",), timeout_s=5, max_bytes=5_000_000) as web:
        manifest = fetch(run, depths=[100], web=web)

    found = {row["url"]: row for row in rows_by_id(run).values()}
    assert {url: row["reason"] for url, row in found.items()} == expected
    assert set(filter(None, expected.values())) <= set(REASONS)
    counts = manifest.counts
    assert counts["candidates"] == counts["fetched"] + counts["failed"] == len(expected)
    assert (found[f"http://127.0.0.1:{port}/turned"]["width"], counts["fetched"]) == (30, 4)
    stored = {path.suffix for path in Path(run.originals).rglob("*.*")}
    assert stored == {".png", ".jpg", ".gif"}


@pytest.mark.parametrize(
    "host", ["127.1", "0x7f.1", "2130706433", "0177.0.0.1", "0", "[::]", "[::ffff:127.0.0.1]"]
)
def test_no_spelling_of_this_machine_is_fetched(port, tmp_path, host):
    run = plant(tmp_path / "run", [Planted(0, 0, by_address(f"http://{host}:{port}/deep", 0))])

    with Web(ports={port}, timeout_s=5) as web:
        fetch(run, depths=[1], web=web)

    (row,) = rows_by_id(run).values()
    assert row["reason"] in ("not_public", "dns", "bad_url")
    assert row["http_status"] is None
