"""Fetch in two steps over real HTTP: small copies of all, the full size of what select takes."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from curation.fetch_plan import selected_ids, wanting_full_size
from curation.fetched_images import fetch
from curation.opening import SMALL_SIDE_PX
from curation.refill import deeper
from curation.selection import select
from spine.config import write_config
from spine.errors import DataError
from spine.manifest import find_manifest, verify
from spine.publish import sha256_of
from spine.run import Run, part_paths
from spine.settings import TWO_STEP, Config
from spine.sources import read_bytes
from spine.table_files import read_table
from spine.tables import SELECTION
from spine.web import Web
from tests.integration.curation_runs import CONFIG, Planted, by_address, number_in, plant, score_all
from tests.integration.test_centroid_settings import decide
from tests.integration.test_curation_fetch import Site, digests, loopback, rows_by_id, site

__all__ = ["site"]

STEPS = replace(CONFIG, fetch=replace(CONFIG.fetch, mode=TWO_STEP))


def planted(folder: Path, address: str, paths: list[str], config: Config = STEPS) -> Run:
    rows = [Planted(0, rank, by_address(f"{address}/{path}", rank)) for rank, path in enumerate(paths)]
    return plant(folder, rows, config)


def fill(run: Run, web: Web, full_size: list[int] | None = None) -> dict[int, str]:
    """Fetch, score and select until nothing can be gained, as the pipeline does; the selected ranks with their rule."""
    depths = None
    while True:
        manifest = fetch(run, depths=depths, full_size=full_size, web=web)
        score_all(run)
        select(run)
        depths = deeper(run, CONFIG, manifest.parameters["depths"])
        full_size = None if depths is not None else wanting_full_size(run)
        if depths is None and full_size is None:
            table = read_table(run.selection_table, SELECTION).to_pylist()
            return {row["rank"]: row["rule"] for row in table if row["verdict"] == "selected"}


def stored(run: Run) -> set[str]:
    return {path.name for path in run.originals.rglob("*.*")}


def test_small_copies_come_first_and_only_what_is_selected_is_kept_in_full(tmp_path, site):
    paths = [f"large/{number}" for number in range(6)]
    steps, whole = planted(tmp_path / "steps", site, paths), planted(tmp_path / "whole", site, paths, CONFIG)

    with loopback(site) as web:
        fetch(steps, depths=[6], web=web)
        first = rows_by_id(steps)
        chosen = fill(steps, web)
        fetch(whole, depths=[6], web=web)

    assert list(chosen) == [0, 1, 2]
    plain = rows_by_id(whole)
    names = set()
    for number, row in first.items():
        small = read_bytes(row["small_path"])
        assert row["image_path"] == row["small_path"]
        assert row | {"image_path": None, "small_path": None} == plain[number] | {"image_path": None}
        assert (row["width"], row["height"]) == (1200, 900), "the filters judge the full size"
        assert min(Image.open(Path(row["small_path"])).size) == SMALL_SIDE_PX
        assert number_in(small) == int(row["url"].rsplit("/", 1)[1])
        names.add(Path(row["small_path"]).name)
    taken = set(selected_ids(steps).tolist())
    for number, row in rows_by_id(steps).items():
        full = number in taken
        assert (Path(row["image_path"]).stem == row["sha256"]) == full
        assert row["small_path"] == first[number]["small_path"]
        names |= {Path(row["image_path"]).name} if full else set()
    assert len(taken) == 3
    assert stored(steps) == names, "nothing else takes up disk"
    assert verify(steps.images) == []


def test_what_left_or_changed_between_the_steps_gives_its_place_to_the_next(tmp_path, site, monkeypatch):
    monkeypatch.setattr(Site, "up", False)
    run = planted(
        tmp_path / "run", site, ["changing/10", "large/1", "leaving/2", "large/3", "large/4", "p/5"]
    )

    with loopback(site) as web:
        fetch(run, depths=[6], web=web)
        score_all(run)
        select(run)
        before = set(selected_ids(run).tolist())
        monkeypatch.setattr(Site, "up", True)
        chosen = fill(run, web, full_size=sorted(before))

    reasons = {row["url"].removeprefix(f"{site}/"): row["reason"] for row in rows_by_id(run).values()}
    assert reasons["changing/10"] == "unstable"
    assert reasons["leaving/2"] == "gone"
    assert list(chosen) == [1, 3, 4]
    manifest = find_manifest(run.images)
    assert (manifest.counts["fetched"], manifest.counts["failed"]) == (4, 2)
    for number in selected_ids(run).tolist():
        row = rows_by_id(run)[number]
        assert sha256_of(Path(row["image_path"])) == row["sha256"]


def test_a_second_step_that_stops_goes_on_to_the_same_rows(tmp_path, site, monkeypatch):
    monkeypatch.setattr("curation.fetched_images.PART_ROWS", 1)
    paths = [f"large/{number}" for number in range(6)]
    whole, broken = planted(tmp_path / "whole", site, paths), planted(tmp_path / "broken", site, paths)
    slow = replace(STEPS.fetch, concurrency=1, per_host=1)
    with loopback(site) as web:
        fill(whole, web)
        fetch(broken, web=web)
        score_all(broken)
        select(broken)
        used = sum(path.stat().st_size for path in broken.images.rglob("*") if path.is_file())
        large = Path(rows_by_id(whole)[selected_ids(whole)[0]]["image_path"]).stat().st_size
        write_config(
            broken.config, replace(STEPS, fetch=replace(slow, disk_budget=f"{used + large * 3 // 2}B"))
        )
        with pytest.raises(DataError, match="disk_budget"):
            fetch(broken, full_size=wanting_full_size(broken), web=web)
        assert find_manifest(broken.images) is None
        assert any(Path(row["image_path"]).stem == row["sha256"] for row in rows_by_id(broken).values())
        write_config(broken.config, STEPS)
        assert fill(broken, web) == fill(whole, web)

    assert list(digests(broken)) and rows_by_id(broken).keys() == rows_by_id(whole).keys()
    for number, row in rows_by_id(broken).items():
        other = rows_by_id(whole)[number]
        assert {name: _named(value) for name, value in row.items()} == {
            name: _named(value) for name, value in other.items()
        }
    assert stored(broken) == stored(whole)
    assert len(part_paths(broken.images)) == 1


def _named(value: object) -> object:
    return value.rpartition("/")[2] if isinstance(value, str) else value


def test_a_picture_that_is_selected_no_more_leaves_its_small_copy_and_modes_can_be_changed(tmp_path, site):
    run = planted(tmp_path / "run", site, [f"large/{number}" for number in range(5)])
    with loopback(site) as web:
        fill(run, web)
        gone = int(selected_ids(run)[0])
        small = {name for row in rows_by_id(run).values() for name in [Path(row["small_path"]).name]}
        decide(run, "reject", "image", gone)
        chosen = fill(run, web)
        taken = {f"{rows_by_id(run)[number]['sha256']}.png" for number in selected_ids(run).tolist()}
        assert len(chosen) == 3
        assert stored(run) == small | taken

        Site.asked.clear()
        write_config(run.config, CONFIG)
        one_step = fetch(run, web=web)
        assert one_step.counts["fetched"] == len(rows_by_id(run))
        assert {path for path in Site.asked if "large" in path} == {
            row["url"].removeprefix(site)
            for row in rows_by_id(run).values()
            if f"{row['sha256']}.png" not in taken
        }
        Site.asked.clear()
        write_config(run.config, STEPS)
        fetch(run, web=web)
        assert not Site.asked, "what is there in full needs no small copy"
