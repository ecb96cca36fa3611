"""Fetch in several processes over real HTTP: the same rows, and each host asked as one process would ask it."""

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import pytest

from curation.fetched_images import fetch
from curation.fetchers import Task, divided, fetch_divided
from spine.config import write_config
from spine.errors import DataError
from spine.manifest import find_manifest
from spine.web import Web
from tests.integration.curation_runs import CONFIG, Planted, by_address, local, plant
from tests.integration.test_curation_fetch import Site, _Server, rows_by_id

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
SEVERAL = replace(CONFIG, fetch=replace(CONFIG.fetch, processes=2, per_host=2, concurrency=16))


class _Watched(Site):
    """Counts who is asked, and how much at the same time."""

    lock = threading.Lock()
    at_work: ClassVar[Counter[str]] = Counter()
    most: ClassVar[Counter[str]] = Counter()
    paths: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        host = self.headers["Host"].partition(":")[0]
        with _Watched.lock:
            _Watched.at_work[host] += 1
            _Watched.most[host] = max(_Watched.most[host], _Watched.at_work[host])
            _Watched.paths[f"{host}{self.path}"] += 1
        time.sleep(0.01)
        with _Watched.lock:
            _Watched.at_work[host] -= 1
        super().do_GET()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    first = _Server((HOSTS[0], 0), _Watched)
    servers = [first, *(_Server((host, first.server_address[1]), _Watched) for host in HOSTS[1:])]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield first.server_address[1]
    for server in servers:
        server.shutdown()
        server.server_close()


def loopback(port: int) -> Web:
    return Web(ports={port}, allow=("127.0.0.0/8",), timeout_s=5, max_bytes=200_000, per_host=8)


def planted(port: int, tmp_path, name: str, config=SEVERAL):
    paths = ["p", "gone", "p", "page", "large"]
    rows = [
        Planted(0, rank, by_address(f"http://{HOSTS[rank % 4]}:{port}/{paths[rank % 5]}/{rank}", rank))
        for rank in range(60)
    ]
    rows += [Planted(0, 60 + number, local(tmp_path / "pool", number)) for number in range(5)]
    return plant(tmp_path / name, rows, config)


def test_several_processes_leave_the_rows_of_one_and_ask_no_host_more_than_one_would(port, tmp_path):
    alone = replace(CONFIG, fetch=replace(CONFIG.fetch, processes=1))
    several, one = planted(port, tmp_path, "several"), planted(port, tmp_path, "one", alone)
    _Watched.most.clear()
    _Watched.paths.clear()

    with loopback(port) as web:
        manifest = fetch(several, depths=[65], web=web)
        most, paths = dict(_Watched.most), dict(_Watched.paths)
        expected = fetch(one, depths=[65], web=web)

    assert manifest.counts == expected.counts
    assert expected.counts["fetched"] == 41
    for number, row in rows_by_id(several).items():
        other = rows_by_id(one)[number]
        assert {name: value for name, value in row.items() if name != "image_path"} == {
            name: value for name, value in other.items() if name != "image_path"
        }
    assert set(most) == set(HOSTS)
    assert max(most.values()) <= 2, "per_host, whichever processes there are"
    assert max(paths.values()) == 1, "robots.txt too is asked for once a host"


def test_the_disk_budget_is_one_for_all_processes_and_a_larger_one_goes_on(port, tmp_path):
    tight = replace(SEVERAL, fetch=replace(SEVERAL.fetch, disk_budget="20kB"))
    run = planted(port, tmp_path, "run", tight)

    with loopback(port) as web:
        with pytest.raises(DataError, match="disk_budget"):
            fetch(run, depths=[65], web=web)
        assert sum(path.stat().st_size for path in run.originals.rglob("*.*")) <= 20_000
        write_config(run.config, SEVERAL)
        assert fetch(run, web=web).counts["fetched"] == 41


def test_a_process_that_is_killed_ends_the_fetch_with_its_reason_and_the_next_goes_on(port, tmp_path):
    run = planted(port, tmp_path, "run")
    with loopback(port) as web:
        task = Task(run.folder, SEVERAL, web, None)
        wanted = [
            {
                "id": number,
                "url": f"http://{HOSTS[number % 4]}:{port}/p/{number}",
                "image_path": None,
                "sha256": None,
            }
            for number in range(400)
        ]
        rows = fetch_divided(task, wanted, 2)
        next(rows)
        victim = next(each for each in multiprocessing.active_children() if each.name == "fetch")
        os.kill(victim.pid or 0, signal.SIGKILL)
        with pytest.raises(DataError, match="ended with code -9"):
            list(rows)
        assert not [each for each in multiprocessing.active_children() if each.name == "fetch"]
        assert fetch(run, depths=[65], web=web).counts["fetched"] == 41
    assert find_manifest(run.images) is not None


def test_all_addresses_of_a_domain_go_to_one_process_and_each_has_about_as_many():
    counts = {
        "a.example.org": 50,
        "cdn.example.org": 30,
        "b.net": 40,
        "c.net": 35,
        "10.1.2.3": 5,
        "10.1.2.4": 5,
    }
    rows = [
        {"id": f"{host}/{number}", "url": f"https://{host}/{number}", "image_path": None}
        for host, count in counts.items()
        for number in range(count)
    ]
    rows += [{"id": f"here {number}", "url": None, "image_path": "/x.png"} for number in range(10)]

    shares = divided(rows, 2)

    assert sorted(row["id"] for share in shares for row in share) == sorted(row["id"] for row in rows)
    assert [len(share) for share in shares] == [90, 85]
    domains = [
        {".".join(row["url"].split("/")[2].split(".")[-2:]) for row in share if row["url"]}
        for share in shares
    ]
    assert domains[0] & {"example.org"} and not domains[1] & {"example.org"}
    assert divided(rows[:3], 4) == [rows[:3]], "no process without work"
