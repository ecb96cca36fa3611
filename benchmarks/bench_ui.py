"""The board under a curator's hands: python -m benchmarks ui; python -m benchmarks.bench_ui --run RUN.

A real Chromium on the board of a planted run of 10,000 centroids with 200 neighbours each, or of a copy of RUN; with
--mounted by `popfactory serve --ui`, which needs the index of RUN. Times are taken in the page, from the key or click
to the frame that shows it; a screen is there when every picture on it is decoded. Chromium, the board and the
benchmark share the cores.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.planted_run import plant_run
from benchmarks.report import report
from curation.decisions import Decisions
from spine.run import Run

DEEP = 1_000
EACH = 200
CURATORS = 10
HELPERS = Path(__file__).with_suffix(".js")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--run", type=Path, help="a finished run, such as the demo's, instead of a planted one"
    )
    parser.add_argument("--mounted", action="store_true", help="under /ui of the run's retrieval server")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        if arguments.run:
            run = _copy(arguments.run, Path(folder) / "run")
        else:
            count = 1_000 if arguments.quick else 10_000
            run = plant_run(Path(folder) / "run", count, EACH, deep=DEEP)
        print(f"the run is there after {time.perf_counter() - started:.0f} s", file=sys.stderr)
        with _served(run, mounted=arguments.mounted) as (address, server):
            # Others on the machine show in every time: what they took of it is told beside.
            size = {
                "run": arguments.run.name if arguments.run else "planted",
                "base": "/ui" if arguments.mounted else "/",
                "centroids": len(_get(f"{address}/api/centroids")["centroids"]),
                "neighbours_each": len(_get(f"{address}/api/neighbours?centroid=1")["rows"]),
                "load_before": round(os.getloadavg()[0], 1),
            }
            # Of a real run what nobody fetched is not shown: it would be fetched while one waits.
            view = "/?show=passing" if arguments.run else "/?show=all"
            _measure(address, run, size, view, server.pid, arguments.quick)


def _measure(address: str, run: Run, size: dict[str, Any], view: str, pid: int, quick: bool) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        _measure_page(browser.new_page(viewport={"width": 1600, "height": 1000}), address, run, size, quick)
        _measure_whole(browser.new_page(viewport={"width": 1600, "height": 6000}), address, view, size)
        _measure_gallery(browser, address, view, size, count=5 if quick else 12)
        browser.close()
    _measure_curators(address, run, size)
    _measure_memory(address, pid, size, opened=200 if quick else 1_000)


@contextlib.contextmanager
def _served(run: Run, *, mounted: bool) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The board on a run: its address, and the process that has it."""
    port = _free_port()
    what = ["serve", "--run", str(run.folder), "--ui"] if mounted else ["ui", str(run.folder)]
    command = [sys.executable, "-m", "popfactory", *what, "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}{'/ui' if mounted else ''}"
    try:
        _wait(address, server)
        yield address, server
    finally:
        server.terminate()
        server.wait()


def _copy(given: Path, folder: Path) -> Run:
    """A finished run without what curators and the board left in it."""
    left = shutil.ignore_patterns("drawings", "thumbnails", "decisions.sqlite*")
    shutil.copytree(given, folder, ignore=left)
    return Run(folder)


def _measure_page(page: Page, address: str, run: Run, size: dict[str, Any], quick: bool) -> None:
    random = np.random.default_rng(3)
    started = time.perf_counter()
    _open(page, address)
    report("ui_page_open_cold_ms", (time.perf_counter() - started) * 1000, "ms", **size)
    count = 10 if quick else 30
    numbers = random.integers(1, size["centroids"], count)
    opened = [page.evaluate(f"bench.open({number}, false)") for number in numbers]
    report("ui_centroid_to_screen_p50_ms", statistics.median(opened), "ms", at_most=300, n=count, **size)
    report("ui_centroid_to_screen_p95_ms", _p95(opened), "ms", n=count, **size)
    page.evaluate("bench.clear()")
    foreseen = []
    for _ in range(count):
        page.wait_for_timeout(700)  # a curator looks at a screen for longer
        foreseen.append(page.evaluate("bench.next()"))
    report(
        "ui_next_centroid_to_screen_p50_ms", statistics.median(foreseen), "ms", at_most=100, n=count, **size
    )
    report("ui_next_centroid_to_screen_p95_ms", _p95(foreseen), "ms", n=count, **size)
    verdicts = [page.evaluate("bench.verdict()") for _ in range(20)]
    report("ui_key_to_verdict_p50_ms", statistics.median(verdicts), "ms", at_most=50, n=20, **size)
    _measure_burst(page, run, size)
    report("ui_list_filter_ms", max(page.evaluate("bench.filterList()")), "ms", at_most=10, **size)
    drawn = [page.evaluate("bench.drawMap()") for _ in range(10)]
    report("ui_map_to_frame_p50_ms", statistics.median(drawn), "ms", at_most=300, n=10, **size)
    _measure_lasso(page, size)
    _measure_slider(page, address, 1, 60, size)
    _measure_slider(page, address, 0, 150, size)
    page.close()


def _measure_lasso(page: Page, size: dict[str, Any]) -> None:
    box = page.locator(".pf-map-canvas").bounding_box()
    assert box is not None
    times = []
    for share in np.linspace(0.3, 0.9, 10):
        page.evaluate("() => { window.lassoed = bench.lassoed(); }")
        page.keyboard.down("Shift")
        page.mouse.move(box["x"] + 2, box["y"] + 2)
        page.mouse.down()
        for right, down in ((share, 0.0), (share, share), (0.0, share)):
            page.mouse.move(
                box["x"] + 2 + right * (box["width"] - 4), box["y"] + 2 + down * (box["height"] - 4)
            )
        page.mouse.up()
        page.keyboard.up("Shift")
        times.append(page.evaluate("window.lassoed"))
    listed = page.evaluate("bench.listed()")
    report("ui_lasso_to_list_p50_ms", statistics.median(times), "ms", at_most=50, n=10, listed=listed, **size)
    page.get_by_role("button", name="clear the lasso").click()


def _measure_gallery(browser: Browser, address: str, view: str, size: dict[str, Any], count: int) -> None:
    """The first screen of a centroid on the board, and of the same thumbnails in Gradio's own gallery."""
    numbers = np.random.default_rng(7).integers(1, size["centroids"], count).tolist()
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            _keep_thumbnails(address, number, Path(folder) / str(number))
        with _gallery(Path(folder)) as other:
            # One after the other on each, so that what else the machine does falls on both.
            board, gallery = (browser.new_page(viewport={"width": 1600, "height": 1000}) for _ in range(2))
            _open(board, address, view)
            gallery.goto(other)
            gallery.get_by_role("button", name="Open").wait_for()
            gallery.add_script_tag(path=HELPERS)
            times: tuple[list[float], list[float]] = ([], [])
            for number in numbers:
                board.bring_to_front()
                times[0].append(board.evaluate(f"bench.open({number}, false)"))
                gallery.bring_to_front()
                gallery.get_by_label("Number").fill(str(number))
                gallery.get_by_label("Number").press("Tab")
                times[1].append(gallery.evaluate("bench.gallery()"))
            ours, theirs = (
                statistics.median(each[1:]) for each in times
            )  # the first of each is the page getting warm
            report(
                "ui_centroid_to_screen_against_gallery",
                ours / theirs,
                "x gr.Gallery of file paths",
                at_most=0.6,
                board_p50_ms=round(ours),
                gallery_p50_ms=round(theirs),
                n=count - 1,
                **size,
            )
            board.close()
            gallery.close()


def _keep_thumbnails(address: str, number: int, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    rows = _get(f"{address}/api/neighbours?centroid={number}")["rows"]
    for row in rows:
        if row["state"] == "ready":
            (folder / f"{row['rank']:05d}.webp").write_bytes(_read(f"{address}/thumb/{row['sha256']}.webp"))


@contextlib.contextmanager
def _gallery(folder: Path) -> Iterator[str]:
    port = _free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gallery_page", str(folder), str(port)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "GRADIO_TEMP_DIR": str(folder / "gradio")},
    )
    try:
        _wait(f"http://127.0.0.1:{port}", server, path="/")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _measure_slider(page: Page, address: str, centroid: int, at_most: float, size: dict[str, Any]) -> None:
    page.get_by_label("Which pictures to show").select_option("all")
    page.evaluate(f"bench.open({centroid}, false)")
    while page.locator(".pf-more").is_visible():
        page.locator(".pf-more").click()
    page.get_by_label("Which pictures to show").select_option("passing")
    rows = len(_get(f"{address}/api/neighbours?centroid={centroid}")["rows"])
    slid = page.evaluate("bench.slide()")
    report("ui_slider_to_counts_p50_ms", statistics.median(slid), "ms", at_most=at_most, rows=rows, **size)
    report("ui_slider_to_counts_max_ms", max(slid), "ms", rows=rows, **size)


def _measure_burst(page: Page, run: Run, size: dict[str, Any]) -> None:
    """60 verdicts in a second: all stored, in order."""
    page.get_by_label("Which pictures to show").select_option("all")
    page.evaluate("bench.next()")
    page.wait_for_timeout(1_500)
    before = Decisions.open(run.decisions).last_event()
    shown = page.evaluate("bench.ids(60)")
    keys = len(shown)  # of a small run a centroid may have fewer pictures
    took = page.evaluate(f"bench.burst({keys})")
    page.get_by_label("Which pictures to show").select_option("passing")
    until = time.monotonic() + 20
    stored: list[tuple[str, str]] = []
    while time.monotonic() < until and len(stored) < keys:
        time.sleep(0.05)
        events = Decisions.open(run.decisions).history(since=before)
        stored = [(str(event.ids[0]), event.action) for event in events]
    wanted = [(picture, "reject" if place % 2 else "keep") for place, picture in enumerate(shown)]
    right = sum(one == other for one, other in zip(stored, wanted, strict=False))
    report("ui_burst_verdicts_in_order", right, f"of {keys}", at_least=keys, keys_took_ms=round(took), **size)


def _measure_whole(page: Page, address: str, view: str, size: dict[str, Any]) -> None:
    _open(page, address, view)
    random = np.random.default_rng(5)
    times = [
        page.evaluate(f"bench.open({number}, true)") for number in random.integers(1, size["centroids"], 8)
    ]
    report("ui_all_200_painted_p50_ms", statistics.median(times), "ms", at_most=500, n=8, **size)
    page.close()


def _measure_curators(address: str, run: Run, size: dict[str, Any], each: int = 40) -> None:
    """Curators at once, each opening centroids and deciding; every decision is looked for afterwards."""
    before = Decisions.open(run.decisions).last_event()
    times: list[float] = []
    lock = threading.Lock()

    def curate(number: int) -> None:
        seen = 0
        for place in range(each):
            # Each opens centroids of its own, as far as there are enough.
            centroid = (100 + number * each + place) % size["centroids"]
            started = time.perf_counter()
            content = _read(f"{address}/api/neighbours?centroid={centroid}")
            opened = time.perf_counter()
            answer = json.loads(content)
            ids = [row["id"] for row in answer["rows"][:5]]
            event = {
                "seq": place + 1,
                "action": "keep",
                "ids": ids,
                "centroid_id": str(centroid),
                "last_seen": seen,
            }
            sent = {"client": f"bench{number}", "curator": f"curator {number}", "events": [event]}
            decided = time.perf_counter()
            told = _post(f"{address}/api/decisions", sent)
            seen = told["last_event"]
            with lock:
                times.append(opened - started)
                stored.append(time.perf_counter() - decided)
                left_alone.extend(
                    told["conflicts"]
                )  # another decided on the picture first: told, so not lost
                pictures.extend(ids)

    stored: list[float] = []
    left_alone: list[object] = []
    pictures: list[str] = []
    with ThreadPoolExecutor(CURATORS) as threads:
        list(threads.map(curate, range(CURATORS)))  # raises what one of them raised
    kept = sum(len(event.ids) for event in Decisions.open(run.decisions).history(since=before))
    lost = len(pictures) - len(left_alone) - kept
    report(
        "ui_curators_lost_decisions",
        lost,
        "decisions",
        at_most=0,
        curators=CURATORS,
        decisions=len(pictures),
        left_to_another=len(left_alone),
        **size,
    )
    report("ui_curators_neighbours_p95_ms", _p95(times) * 1000, "ms", at_most=150, curators=CURATORS, **size)
    report("ui_curators_decision_p95_ms", _p95(stored) * 1000, "ms", curators=CURATORS, **size)


def _measure_memory(address: str, pid: int, size: dict[str, Any], opened: int) -> None:
    """Memory of the board's process as centroids are opened one after another.

    Its own: pages of mapped files are the system's, which takes them back when another asks.
    """
    at = []
    for number in range(opened):
        rows = _get(f"{address}/api/neighbours?centroid={number % size['centroids']}")["rows"]
        for row in rows[:20]:
            if row["state"] == "ready":
                _read(f"{address}/thumb/{row['sha256']}.webp")
        if number % (opened // 10) == 0:
            at.append(_held_mb(pid))
    half = len(at) // 2
    growth = statistics.mean(at[half:]) - statistics.mean(at[1:half])
    mapped = round(_status_mb(pid, "RssFile"))
    report("ui_server_memory_mb", at[-1], "MB of its own", mapped_files_mb=mapped, opened=opened, **size)
    report(
        "ui_server_memory_growth_mb",
        growth,
        "MB from the first half to the second",
        at_most=20,
        opened=opened,
        **size,
    )


def _open(page: Page, address: str, path: str = "/") -> None:
    page.goto(f"{address}{path}")
    page.wait_for_selector(".pf-tile img")
    page.add_script_tag(path=HELPERS)


def _get(address: str) -> Any:
    return json.loads(_read(address))


def _read(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=60) as reply:
        content: bytes = reply.read()
    return content


def _post(address: str, content: object) -> Any:
    headers = {"Content-Type": "application/json", "X-Popfactory": "1"}
    request = urllib.request.Request(address, json.dumps(content).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        if error.code != 409:  # some of it was another curator's first
            raise
        return json.load(error)


def _p95(times: list[float]) -> float:
    return float(np.quantile(times, 0.95))


def _held_mb(pid: int) -> float:
    return _status_mb(pid, "RssAnon")


def _status_mb(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(f"{name}:"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(address: str, server: "subprocess.Popen[bytes]", path: str = "/api/run") -> None:
    for _ in range(600):
        try:
            _read(f"{address}{path}")
            return
        except OSError:
            if server.poll() is not None:
                raise SystemExit("the server ended") from None
            time.sleep(0.1)
    raise SystemExit("the server did not come up")


if __name__ == "__main__":
    main()
