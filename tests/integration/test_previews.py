"""Thumbnails on demand over a real server on loopback: made once, gated at every look, failures remembered."""

import functools
import hashlib
import http.server
import io
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import skimage
from PIL import Image

from curation.pdq import pdq
from curation.preview_cache import PreviewCache, _shorten, fresh_row
from curation.previews import Preview, Previews, Wanted
from spine.config import write_config
from spine.errors import ConfigError
from spine.refused import md5_of
from spine.run import Run
from spine.settings import FetchConfig
from spine.web import Web
from tests.integration.curation_runs import CONFIG, local, number_in, numbered_picture, plant, with_lists


class Site(http.server.BaseHTTPRequestHandler):
    """A drawn web for the board: /p/N is picture N, others go wrong."""

    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        Site.asked[self.path] += 1
        kind, _, rest = self.path.strip("/").partition("/")
        status, body, headers = 404, b"", {}
        if kind == "p":
            status, body = 200, numbered_picture(int(rest), 640, 480)
        elif kind == "page":
            status, body = 200, b"<html>"
        elif kind == "busy":
            status = 503
        elif kind == "noai":
            status, body, headers = 200, numbered_picture(7), {"X-Robots-Tag": "noai"}
        elif kind == "photograph":
            status, body = 200, (Path(skimage.__file__).parent / "data" / "coffee.png").read_bytes()
        elif kind == "slow":
            time.sleep(3)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def open_loopback(port: int, config: FetchConfig) -> Web:
    return Web(ports={port}, allow=("127.0.0.0/8",), timeout_s=config.timeout_s, per_host=config.per_host)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return plant(tmp_path / "run", [])


@pytest.fixture
def previews(run: Run, site: str) -> Iterator[Previews]:
    port = int(site.rsplit(":", 1)[1])
    with Previews(run, open_web=functools.partial(open_loopback, port)) as opened:
        yield opened


def shown(previews: Previews, **wanted: object) -> Preview:
    return previews.ask(Wanted(**wanted)).result(timeout=30)  # type: ignore[arg-type]


def test_every_preview_shows_its_own_picture_and_is_made_once(previews, run, site, tmp_path):
    numbers = [1, 77, 4242]
    futures = [previews.ask(Wanted(picture_id=n, url=f"{site}/p/{n}")) for n in numbers for _ in range(3)]
    answers = [future.result(timeout=30) for future in futures]

    assert [number_in(answer.clear) for answer in answers] == [n for n in numbers for _ in range(3)]
    assert all((answer.width, answer.height, answer.reason) == (640, 480, None) for answer in answers)
    assert Image.open(io.BytesIO(answers[0].clear)).size == (256, 192)
    assert Image.open(io.BytesIO(answers[0].clear)).format == "WEBP"
    assert number_in(answers[-1].blurred) != 4242
    on_disk = local(tmp_path / "pool", 99)
    here = shown(previews, picture_id=on_disk["id"], place=on_disk["image_path"], sha256=on_disk["sha256"])
    assert number_in(here.clear) == 99
    assert [Site.asked[f"/p/{n}"] for n in numbers] == [1, 1, 1]
    assert not list(run.images.rglob("*"))


def test_why_there_is_no_thumbnail_is_told_and_remembered(previews, site, tmp_path):
    reasons = {
        f"{site}/gone": "gone",
        f"{site}/page": "not_an_image",
        f"{site}/busy": "http_error",
        f"{site}/noai": "opted_out",
        "http://10.0.0.1/x.jpg": "bad_url",  # port 80 isn't among the test client's
        "file:///etc/passwd": "bad_url",
    }
    for _ in range(2):
        assert {url: shown(previews, url=url).reason for url in reasons} == reasons
    assert [Site.asked[path] for path in ("/gone", "/page", "/busy", "/noai")] == [1, 1, 1, 1]
    missing = shown(previews, place=str(tmp_path / "nothing.png"))
    assert (missing.reason, missing.clear) == ("missing", None)
    assert shown(previews).reason == "missing"


def test_a_list_that_grows_takes_what_is_shown_away_at_the_next_look(previews, run, site):
    picture = {"picture_id": 5, "url": f"{site}/photograph"}
    content = (Path(skimage.__file__).parent / "data" / "coffee.png").read_bytes()
    look = pdq(Image.open(io.BytesIO(content)).convert("RGB"))[3]
    assert shown(previews, **picture).clear is not None

    for entry in (
        hashlib.sha256(content).hexdigest(),
        f"md5:{md5_of(content)}",
        f"pdq:{look}",
        f"url:{hashlib.sha256(picture['url'].encode()).hexdigest()}",
    ):
        with_lists(run, CONFIG, hash_block=entry)
        assert (shown(previews, **picture).reason, shown(previews, **picture).clear) == ("hash_block", None)
    with_lists(run, CONFIG, takedown="5")
    assert shown(previews, **picture).reason == "takedown"
    assert shown(previews, **picture | {"picture_id": 6}).clear is not None


def test_what_a_list_names_by_its_bytes_is_kept_as_hashes_only(previews, run, site):
    content = numbered_picture(31, 640, 480)
    with_lists(run, CONFIG, hash_block=f"md5:{md5_of(content)}")
    wanted = Wanted(picture_id=1, url=f"{site}/p/31")

    assert previews.ask(wanted).result(timeout=30).reason == "hash_block"
    row = PreviewCache(run.previews).find(wanted.key)
    assert row is not None
    assert (row.md5, row.clear, row.blurred) == (md5_of(content), None, None)
    # Taken off the list it may be brought in again.
    with_lists(run, CONFIG)
    assert number_in(previews.ask(wanted).result(timeout=30).clear or b"") == 31


def test_an_unreadable_list_stops_every_preview(previews, run, site):
    assert shown(previews, url=f"{site}/p/8").clear is not None
    with_lists(run, CONFIG)
    (run.folder / "hashes.txt").unlink()

    with pytest.raises(ConfigError, match="nothing goes on without its lists"):
        previews.ask(Wanted(url=f"{site}/p/8"))


def test_pictures_taken_while_reservations_were_ignored_are_asked_for_again(previews, run, site):
    ignoring = replace(CONFIG, fetch=replace(CONFIG.fetch, honour_opt_out=False))
    write_config(run.config, ignoring)
    assert shown(previews, url=f"{site}/noai").clear is not None

    write_config(run.config, CONFIG)
    assert shown(previews, url=f"{site}/noai").reason == "opted_out"


def test_a_killed_worker_fails_who_waits_and_the_next_look_starts_another(previews, site):
    slow = previews.ask(Wanted(url=f"{site}/slow"))
    while not Site.asked["/slow"]:
        time.sleep(0.02)
    worker = previews._worker
    assert worker is not None
    assert worker._process.pid is not None
    os.kill(worker._process.pid, signal.SIGKILL)

    with pytest.raises(Exception, match="has ended; ask again"):
        slow.result(timeout=30)
    assert number_in(shown(previews, url=f"{site}/p/12").clear or b"") == 12


def test_a_damaged_or_overgrown_cache_costs_asking_again_only(run):
    run.previews.parent.mkdir(parents=True)
    run.previews.write_bytes(b"no database at all, but long enough to be looked at" * 40)
    cache = PreviewCache(run.previews)
    for number in range(100):
        cache.put(replace(fresh_row(f"{number:064x}", clear=b"x" * 20_000), asked=float(number)))

    with cache._asked() as database:
        _shorten(database, 1_000_000)

    assert cache.find(f"{10:064x}") is None
    assert cache.find(f"{11:064x}") is not None
