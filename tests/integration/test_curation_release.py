"""From neighbours to a release on planted runs: rows belong together, counts add up, nothing hostile gets through."""

import base64
import csv
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from curation.decisions import Decisions, Event
from curation.fetched_images import fetch
from curation.funnel import funnel
from curation.release import draft, release
from curation.release_diff import blocked_rows, difference
from curation.revisions import newest, revisions
from curation.samples import small_picture
from curation.selection import select
from curation.story import why
from popfactory.cli import cli
from spine.config import load_config, write_config
from spine.errors import ConfigError, DataError
from spine.lists import BlockLists
from spine.manifest import read_manifest, verify
from spine.publish import publish_table, sha256_of
from spine.run import Run, part_path
from spine.settings import AestheticMin, ReleaseConfig, SelectConfig
from spine.sources import read_bytes
from spine.table_files import read_parts, read_table
from spine.tables import CAPTIONS, DATASET, SELECTION
from spine.tar_members import key_of
from tests.integration.curation_runs import (
    CONFIG,
    Planted,
    caption_all,
    edit_caption,
    local,
    number_in,
    numbered_picture,
    plant,
    score_all,
    with_lists,
)

LAION_POP = [
    "url",
    "key",
    "cogvlm_caption",
    "llava_caption",
    "nsfw_prediction",
    "alt_txt",
    "alt_txt_similarity",
    "width",
    "height",
    "original_width",
    "original_height",
    "exif",
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return selected_run(tmp_path_factory.mktemp("template"))


@pytest.fixture
def run(template: Run, tmp_path: Path) -> Run:
    """A copy of its own of a selected run; the pictures, which are referenced, are shared."""
    shutil.copytree(template.folder, tmp_path / "run")
    return Run(tmp_path / "run")


def selected_run(tmp_path: Path) -> Run:
    """Two centroids that share one picture; nothing captioned yet."""
    pool = tmp_path / "pool"
    shared = local(pool, 500)
    rows = [Planted(0, rank, local(pool, rank)) for rank in range(4)]
    rows += [Planted(0, 4, shared), Planted(1, 0, shared)]
    rows += [Planted(1, rank, local(pool, 100 + rank)) for rank in range(1, 3)]
    planted = plant(tmp_path / "run", rows)
    fetch(planted, depths=[5, 3])
    score_all(planted)
    select(planted)
    return planted


def dataset(run: Run) -> list[dict]:
    return pq.read_table(newest(run, "pop", "1.0") / "dataset.parquet").to_pylist()


def number(run: Run, key: str) -> int:
    """The id of the picture with this key."""
    rows = pq.read_table(run.neighbours / "part-00000.parquet", columns=["id", "key"]).to_pylist()
    return next(row["id"] for row in rows if row["key"] == key)


def test_ids_pixels_captions_and_alt_texts_stay_together(run):
    caption_all(run)

    manifest = release(run)

    rows = dataset(run)
    assert [(row["centroid_id"], row["key"]) for row in rows] == [
        (0, "0"),
        (0, "1"),
        (0, "2"),
        (1, "500"),
        (1, "101"),
        (1, "102"),
    ]
    for row in rows:
        content = read_bytes(row["image_path"])
        assert str(number_in(content)) == row["key"]
        assert row["alt_txt"] == f"number {row['key']}"
        assert row["caption"] == row["llava_caption"] == f"a picture of number {row['key']}"
        assert row["raw_caption"] == f"This image showcases {row['caption']}"
        assert (row["cogvlm_caption"], row["centroid_label"]) == (None, f"concept {row['centroid_id']}")
        assert (row["punsafe_model"], row["caption_model"], row["prompt_id"]) == (
            "planted-nsfw",
            "planted-llava",
            "laion-pop",
        )
    assert manifest.counts == {"selected": 6, "released": 6}
    assert verify(run.release("pop", "1.0")) == []


def test_the_first_twelve_columns_are_laion_pops_in_their_order(run):
    caption_all(run)
    release(run)

    schema = pq.read_schema(run.release("pop", "1.0") / "dataset.parquet")

    assert schema.names[:12] == LAION_POP
    assert schema.equals(DATASET, check_metadata=False)


def test_a_second_release_of_the_same_does_nothing_and_gives_the_same_bytes_when_forced(run):
    caption_all(run)
    first = release(run)
    written = {
        path.name: sha256_of(path) for path in run.release("pop", "1.0").iterdir() if path.suffix != ".json"
    }

    assert release(run) == first
    again = release(run, force=True)

    assert again.digest == first.digest
    assert written == {
        path.name: sha256_of(path) for path in run.release("pop", "1.0").iterdir() if path.suffix != ".json"
    }


def test_a_lost_selection_and_release_are_made_again_with_equal_digests(run):
    write_config(run.config, replace(CONFIG, release=ReleaseConfig(pixels=True)))
    chosen = select(run)
    caption_all(run)
    first = release(run)
    shutil.rmtree(run.selection)
    shutil.rmtree(run.releases)

    assert select(run).digest == chosen.digest
    again = release(run)

    assert {file.path: file.sha256 for file in again.files} == {
        file.path: file.sha256 for file in first.files
    }
    assert {"dataset.parquet", "README.md", "report.json", "webdataset/00000.tar"} < {
        f.path for f in again.files
    }
    assert again.digest == first.digest


def test_the_same_pictures_give_the_same_selection_however_they_were_fetched(tmp_path):
    """At once; and in two goes, the second deeper, whose tables have other parts in another order."""
    rows = [Planted(c, rank, local(tmp_path / "pool", 30 * c + rank)) for c in (0, 1) for rank in range(12)]
    rows += [Planted(1, 12 + rank, rows[rank].values) for rank in range(4)]
    groups = {rows[1].values["id"]: rows[0].values["id"]}
    tables = []
    for name, depths in (("once", [[12, 16]]), ("twice", [[9, 2], [12, 16]])):
        run = plant(tmp_path / name, rows)
        for each in depths:
            fetch(run, depths=each)
            score_all(run, groups, watermark={rows[14].values["id"]: 0.9})
            select(run)
        tables.append(read_table(run.selection_table, SELECTION))
        kept = run.selection_table.read_bytes()
        select(run, force=True)
        assert run.selection_table.read_bytes() == kept

    assert tables[0].equals(tables[1])
    assert {"near_duplicate", "pwatermark_max", "quota"} < set(tables[0]["rule"].to_pylist())


def test_what_a_threshold_does_is_said_by_the_command_and_the_funnel_by_status(tmp_path):
    config = replace(CONFIG, filters=replace(CONFIG.filters, min_side_px=4, pwatermark_max=0.5))
    rows = [Planted(0, rank, local(tmp_path / "pool", rank)) for rank in range(120)]
    run = plant(tmp_path / "run", rows, config)
    fetch(run, depths=[120])
    score_all(run, watermark={row.values["id"]: 0.9 for row in rows})

    told = CliRunner().invoke(cli, ["select", str(run.folder)])
    status = CliRunner().invoke(cli, ["status", str(run.folder)])

    assert "min_side_px = 4 has no effect: it keeps 120 of 120 pictures" in told.output
    assert "pwatermark_max = 0.5 drops all 120 pictures that it meets" in told.output
    assert "1 of 1 centroids are short of their quota of 3, by 3 pictures" in told.output
    assert re.search(r"fetched +120\n", status.output)
    assert re.search(r"selected +0   lost: pwatermark_max 120\n", status.output)


def test_a_picture_without_a_caption_is_left_out_and_counted(run):
    caption_all(run, failed={number(run, "1"): "timeout", number(run, "500"): "empty"})

    manifest = release(run)

    assert manifest.counts == {
        "selected": 6,
        "released": 4,
        "left_out_uncaptioned_empty": 1,
        "left_out_uncaptioned_timeout": 1,
    }
    assert {row["key"] for row in dataset(run)} == {"0", "2", "101", "102"}


def test_curators_captions_win_and_the_models_words_stay(run):
    caption_all(run)
    ids = {key: number(run, key) for key in ("0", "1")}
    names = {key: f"{each % 2**64:032x}" for key, each in ids.items()}
    edit_caption(run, names["0"], "mine")
    Decisions.open(run.decisions).record(
        [Event(client="t", seq=2, curator="bob", action="reject", target="caption", ids=(names["1"],))]
    )

    manifest = release(run)

    assert manifest.counts["left_out_uncaptioned_rejected"] == 1
    row = next(row for row in dataset(run) if row["key"] == "0")
    assert (row["caption"], row["caption_edited_by"]) == ("mine", "ada")
    assert row["llava_caption"] == "a picture of number 0"
    assert row["raw_caption"] == "This image showcases a picture of number 0"


def test_an_edited_caption_stands_when_another_captioner_is_asked(run):
    caption_all(run)
    rows = read_parts(run.captions, CAPTIONS).to_pylist()
    earlier = [row | {"caption_id": f"e{row['caption_id'][1:]}", "caption": "earlier words"} for row in rows]
    publish_table(
        part_path(run.other_captions / "an-earlier-one", 0), pa.Table.from_pylist(earlier, CAPTIONS)
    )
    names = {row["id"]: row["caption_id"] for row in earlier}
    edited, chosen = number(run, "0"), number(run, "1")
    keep = {"client": "t", "curator": "ada", "action": "keep", "target": "caption"}
    Decisions.open(run.decisions).record(
        [Event(seq=1, ids=(names[edited],), text="mine", **keep), Event(seq=2, ids=(names[chosen],), **keep)]
    )

    release(run)

    found = {row["key"]: (row["caption"], row["caption_edited_by"]) for row in dataset(run)}
    assert (found["0"], found["1"]) == (("mine", "ada"), ("earlier words", None))
    assert found["2"] == ("a picture of number 2", None)
    assert any("earlier words" in line for line in why(run, chosen))


def test_a_takedown_after_captioning_leaves_nothing_of_the_picture(run):
    caption_all(run)
    release(run)
    victim = next(row for row in dataset(run) if row["key"] == "2")
    with_lists(run, CONFIG, hash_block=victim["sha256"] + "\n", takedown=f"{number(run, '101')}\n")

    manifest = release(run)

    assert (manifest.counts["left_out_hash_block"], manifest.counts["left_out_takedown"]) == (1, 1)
    folder = newest(run, "pop", "1.0")
    assert folder.name == "pop-1.0+1"
    for path in folder.iterdir():
        content = path.read_bytes()
        for trace in (victim["sha256"], "number 2", "number 101", str(victim["id"])):
            assert trace.encode() not in content
    assert {row["key"] for row in dataset(run)} == {"0", "1", "500", "102"}
    lists = BlockLists.load(load_config(run.config).lists, run.folder)
    assert {(row.release, row.id, row.rule) for row in blocked_rows(run, lists)} == {
        ("pop-1.0", victim["id"], "hash_block"),
        ("pop-1.0", number(run, "101"), "takedown"),
    }
    told = difference(run, "pop-1.0", "pop-1.0+1")
    assert {(each.kind, each.id, each.reason) for each in told.changes} == {
        ("removed", victim["id"], "hash_block: its hash is on a block list"),
        ("removed", number(run, "101"), "takedown: on a takedown list"),
    }
    assert told.same == 4
    assert "pop-1.0 to pop-1.0+1: 0 added, 2 removed, 0 changed, 4 the same" in told.lines()[0]
    shutil.rmtree(run.release("pop", "1.0"))
    assert blocked_rows(run, lists) == []


def test_a_published_release_stays_and_what_differs_becomes_its_next_revision(run):
    caption_all(run)
    first = release(run)
    before = {path: path.read_bytes() for path in run.release("pop", "1.0").iterdir()}
    Decisions.open(run.decisions).record(
        [
            Event(client="t", seq=1, curator="ada", action="reject", target="image", ids=(number(run, "2"),)),
            Event(client="t", seq=2, curator="ada", action="keep", target="image", ids=(number(run, "0"),)),
        ]
    )
    select(run)
    caption_all(run)

    second = release(run)

    assert {path: path.read_bytes() for path in run.release("pop", "1.0").iterdir()} == before
    assert second.facts["folder"] == "release/pop-1.0+1"
    assert "# pop 1.0+1" in (newest(run, "pop", "1.0") / "README.md").read_text()
    assert release(run) == second
    told = {(each.kind, each.id): each.reason for each in difference(run, "pop-1.0", "pop-1.0+1").changes}
    assert told == {
        ("removed", number(run, "2")): "person: a curator decided: ada",
        ("added", number(run, "3")): "selected, centroid 0, rank 3",
        ("changed", number(run, "0")): "selected_by",
    }
    assert release(run, force=True).digest == second.digest
    assert [each.number for each in revisions(run, "pop", "1.0")] == [0, 1]
    assert release(run, version="2").facts["folder"] == "release/pop-2"
    with pytest.raises(DataError, match=r"no release pop-9; published are: pop-1\.0, pop-1\.0\+1, pop-2"):
        difference(run, "pop-1.0", "pop-9")
    assert read_manifest(run.release("pop", "1.0")) == first


def test_the_command_tells_what_differs_and_fails_where_a_list_names_a_released_row(run):
    caption_all(run)
    release(run)
    first = CliRunner().invoke(cli, ["release", str(run.folder), "--check"])
    assert (first.exit_code, "no list names a row of pop-1.0" in first.output) == (0, True)
    victim = number(run, "2")
    with_lists(run, CONFIG, takedown=f"{victim}\n")
    assert CliRunner().invoke(cli, ["release", str(run.folder), "--quiet"]).exit_code == 0

    told = CliRunner().invoke(cli, ["release", str(run.folder), "--diff", "pop-1.0", "pop-1.0+1", "--json"])
    of_newest = CliRunner().invoke(cli, ["release", str(run.folder), "--diff", "pop-1.0"])
    alone = CliRunner().invoke(cli, ["release", str(run.folder), "pop-1.0"])
    checked = CliRunner().invoke(cli, ["release", str(run.folder), "--check"])
    as_json = CliRunner().invoke(cli, ["release", str(run.folder), "--check", "--json"])

    assert json.loads(told.output)["changes"] == [
        {"kind": "removed", "id": victim, "reason": "takedown: on a takedown list"}
    ]
    assert of_newest.output.splitlines() == [
        "pop-1.0 to pop-1.0+1: 0 added, 1 removed, 0 changed, 5 the same",
        f"removed {victim}: takedown: on a takedown list",
    ]
    assert (alone.exit_code, "only with --diff" in alone.output) == (2, True)
    assert isinstance(checked.exception, DataError)
    assert f"pop-1.0: {victim}: on a takedown list" in str(checked.exception)
    blocked = [{"release": "pop-1.0", "id": victim, "rule": "takedown"}]
    assert (as_json.exit_code, json.loads(as_json.output)["blocked"]) == (1, blocked)


def test_a_dry_run_tells_what_the_next_release_then_is_and_writes_nothing(run):
    caption_all(run)
    first = draft(run)
    assert (first.name, first.stands, first.difference, run.releases.exists()) == (
        "pop-1.0",
        False,
        None,
        False,
    )
    release(run)
    assert dataset(run) == first.dataset.table.to_pylist()
    assert (newest(run, "pop", "1.0") / "README.md").read_text() == first.card
    assert draft(run).stands
    events = [("reject", number(run, "2")), ("keep", number(run, "0"))]
    Decisions.open(run.decisions).record(
        [
            Event(client="t", seq=at, curator="ada", action=action, target="image", ids=(picture,))
            for at, (action, picture) in enumerate(events)
        ]
    )
    assert "curators have decided since" in draft(run).outdated[0]
    select(run)
    caption_all(run)

    command = ["release", str(run.folder), "--dry-run"]
    told = json.loads(CliRunner().invoke(cli, [*command, "--json"]).output)
    lines = CliRunner().invoke(cli, command).output.splitlines()

    assert [folder.name for folder in run.releases.iterdir()] == ["pop-1.0"]
    release(run)
    after = difference(run, "pop-1.0", "pop-1.0+1")
    assert (told["name"], told["stands"], told["released"]) == ("pop-1.0+1", False, len(dataset(run)))
    assert told["difference"]["changes"] == [asdict(change) for change in after.changes]
    assert [told["difference"][kind] for kind in ("added", "removed", "changed", "same")] == [1, 1, 1, 4]
    assert told["card"] == (newest(run, "pop", "1.0") / "README.md").read_text()
    known = {row["id"]: row["caption"] for row in dataset(run)}
    assert {row["id"]: row["caption"] for row in told["rows"]} == known  # all, where there are few
    assert lines[0].endswith(f"pop-1.0+1 would have {len(known)} rows") and lines[1:] == after.lines()


def test_a_change_that_leaves_the_rows_as_they_were_makes_no_revision(run):
    caption_all(run)
    first = release(run)
    with_lists(run, CONFIG, takedown="12345\n")
    fetch(run)
    score_all(run)
    select(run)
    caption_all(run)

    assert release(run) == first
    assert [each.number for each in revisions(run, "pop", "1.0")] == [0]


def test_pixels_go_into_tars_that_are_the_same_each_time_and_read_back_by_key(tmp_path):
    run = selected_run(tmp_path)
    write_config(run.config, replace(CONFIG, release=ReleaseConfig(pixels=True)))
    caption_all(run)
    (tmp_path / "pool" / "1.png").unlink()
    (tmp_path / "pool" / "2.png").write_bytes(numbered_picture(9))

    manifest = release(run)

    folder = run.release("pop", "1.0")
    (path,) = (folder / "webdataset").glob("*.tar")
    first = path.read_bytes()
    with tarfile.open(path) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
    rows = {key_of(row["id"]): row for row in dataset(run)}
    assert (manifest.counts["released"], manifest.counts["pixels"], len(members)) == (6, 4, 12)
    assert manifest.counts["pixels_missing_changed"] == manifest.counts["pixels_missing_missing"] == 1
    for key in {name.partition(".")[0] for name in members}:
        row = rows[key]
        assert str(number_in(members[f"{key}.png"])) == row["key"]
        assert members[f"{key}.txt"].decode() == row["caption"]
        told = json.loads(members[f"{key}.json"])
        assert (told["id"], told["sha256"]) == (row["id"], row["sha256"])
        assert "image_path" not in told
    release(run, force=True)
    assert path.read_bytes() == first
    content = json.loads((folder / "croissant.json").read_text())
    assert content["distribution"][1]["sha256"] == sha256_of(path)
    assert "not the pictures" not in (folder / "README.md").read_text()
    assert verify(folder) == []


def test_a_picture_that_two_concepts_have_is_in_two_rows_and_once_in_the_tars(tmp_path):
    from webdataset import WebDataset

    run = selected_run(tmp_path)
    select_both = replace(CONFIG.select, one_centroid_per_image=False, quota_per_centroid=9)
    write_config(run.config, replace(CONFIG, select=select_both, release=ReleaseConfig(pixels=True)))
    select(run)
    caption_all(run)
    manifest = release(run)

    rows = dataset(run)
    assert [row["centroid_id"] for row in rows if row["key"] == "500"] == [0, 1]
    (tar,) = (run.release("pop", "1.0") / "webdataset").glob("*.tar")
    keys = [sample["__key__"] for sample in WebDataset(str(tar), shardshuffle=False)]
    assert sorted(keys) == sorted({key_of(row["id"]) for row in rows})
    assert (manifest.counts["released"], manifest.counts["pixels"]) == (len(rows), len(rows) - 1)


def test_tars_by_shape_hold_one_shape_each_and_every_picture_once(tmp_path):
    sizes = [(48, 32), (32, 48), (32, 32), (64, 32), (50, 32), (33, 32)]
    rows = [
        Planted(0, rank, local(tmp_path / "pool", rank, width=width, height=height))
        for rank, (width, height) in enumerate(sizes)
    ]
    config = replace(
        CONFIG,
        select=SelectConfig(quota_per_centroid=9),
        release=ReleaseConfig(pixels=True, aspect_buckets=True),
    )
    run = plant(tmp_path / "run", rows, config)
    fetch(run, depths=[9])
    score_all(run)
    select(run)
    caption_all(run)
    release(run)

    found = {}
    for path in (run.release("pop", "1.0") / "webdataset").glob("*.tar"):
        with tarfile.open(path) as tar:
            members = [member for member in tar.getmembers() if member.name.endswith(".png")]
            found[path.name] = sorted(number_in(tar.extractfile(member).read()) for member in members)
    assert found == {
        "3x2-00000.tar": [0, 4],
        "2x3-00000.tar": [1],
        "1x1-00000.tar": [2, 5],
        "2x1-00000.tar": [3],
    }


def test_the_file_for_fiftyone_names_every_picture_with_its_own_caption(run):
    caption_all(run, text='a "quoted",\nbroken caption of {key}')
    release(run)

    with (run.release("pop", "1.0") / "fiftyone.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert len(rows) == len(dataset(run))
    for row in rows:
        assert str(number_in(Path(row["filepath"]).read_bytes())) == row["key"]
        assert row["caption"] == f'a "quoted",\nbroken caption of {row["key"]}'


def test_nothing_to_release_is_an_error_that_prints_the_funnel(run):
    ids = [number(run, key) for key in ("0", "1", "2", "500", "101", "102")]
    caption_all(run, failed=dict.fromkeys(ids, "timeout"))

    with pytest.raises(
        DataError, match=r"no row to release.*selected 6.*released 0 \(uncaptioned_timeout 6 lost\)"
    ):
        release(run)
    with pytest.raises(DataError):
        read_manifest(run.release("pop", "1.0"))


def test_the_card_tells_models_settings_funnel_and_demo_and_quotes_nothing_from_the_pool(run):
    caption_all(run, text="<script>alert(1)</script> ${{7*7}} {key}")
    release(run)

    card = (run.release("pop", "1.0") / "README.md").read_text()

    assert card.startswith("---\n")
    assert "**Made with demo models.**" in card
    for part in (
        "| selected | 6 |",
        '"min_side_px": 16',
        "| released | 6 |",
        "laion-pop",
    ):
        assert part in card
    assert "Every centroid has its quota" in card
    assert str(run.folder) not in card
    assert "<script>" not in card
    for manifest in ("neighbours", "captions"):
        assert read_manifest(run.folder / manifest).digest in card


def test_a_release_of_real_models_is_not_called_a_demo(run, monkeypatch):
    caption_all(run)
    for folder in (run.neighbours, run.images, run.scores, run.captions, run.selection):
        path = folder / "manifest.json"
        content = json.loads(path.read_text().replace('"demo_models": true', '"demo_models": false'))
        del content["checksum"]  # it is of what stood there before
        path.write_text(json.dumps(content))

    manifest = release(run)

    assert manifest.facts["demo_models"] is False
    assert "demo" not in (run.release("pop", "1.0") / "README.md").read_text().lower()
    assert "demo" not in (run.release("pop", "1.0") / "samples.html").read_text().lower()


def test_croissant_names_the_parquet_by_its_hash_and_every_column(run):
    caption_all(run)
    release(run)
    folder = run.release("pop", "1.0")

    content = json.loads((folder / "croissant.json").read_text())

    (file,) = content["distribution"]
    assert file["sha256"] == sha256_of(folder / file["contentUrl"])
    (rows,) = content["recordSet"]
    assert [field["source"]["extract"]["column"] for field in rows["field"]] == DATASET.names


def test_the_samples_page_escapes_what_it_is_given_and_blurs_what_may_be_unsafe(run, tmp_path, chromium_page):
    score_all_again = {number(run, "2"): 0.9}
    read = read_manifest(run.scores)
    for path in run.scores.glob("*"):
        path.unlink()
    score_all(run, unsafe=score_all_again)
    assert read_manifest(run.scores).digest != read.digest
    select(run)
    caption_all(run, text='<img src=x onerror="document.title=1"> <b>bold</b> {key} &amp;')
    release(run)

    page = chromium_page((run.release("pop", "1.0") / "samples.html").as_uri())

    assert page.title() == "pop 1.0: samples"
    assert page.locator("article").count() == page.locator("img").count() == 6
    assert page.locator("b").count() == 0
    assert '<img src=x onerror="document.title=1"> <b>bold</b> 0 &amp;' in page.inner_text("body")
    shown = (run.release("pop", "1.0") / "samples.html").read_text()
    for row in dataset(run):
        clear = base64.b64encode(small_picture(row["image_path"], False)).decode()
        assert (clear in shown) == (row["key"] != "2")


@pytest.fixture
def chromium_page(chromium) -> Callable:
    """Open an address in a fresh page."""
    pages = []

    def go(url: str):
        page = chromium.new_page()
        pages.append(page)
        page.goto(url)
        return page

    yield go
    for page in pages:
        page.close()


def test_a_release_named_like_a_path_is_refused(run):
    caption_all(run)
    for name in ("../out", "a/b", ".hidden", "-x"):
        with pytest.raises(ConfigError):
            release(run, name=name)
    assert release(run, name="other", version="2").facts["folder"] == "release/other-2"


def test_the_funnel_grows_with_the_run_and_its_losses_add_up(tmp_path, run):
    labels = [step.label for step in funnel(run)]
    assert labels[-1] == "selected"
    caption_all(run)
    release(run)

    steps = {step.label: step for step in funnel(run)}

    assert (steps["centroids"].count, steps["neighbours"].count, steps["fetched"].count) == (2, 8, 7)
    assert (steps["selected"].count, steps["captioned"].count, steps["released"].count) == (6, 6, 6)
    candidates = steps["candidates (a centroid and a picture)"].count
    assert candidates == steps["selected"].count + sum(steps["selected"].losses.values()) == 8


def test_why_tells_the_whole_story_and_knows_when_there_is_none(run):
    caption_all(run)
    shared = number(run, "500")
    Decisions.open(run.decisions).record(
        [Event(client="t", seq=1, curator="ada", action="keep", target="image", ids=(shared,), centroid_id=1)]
    )
    release(run)

    story = "\n".join(why(run, shared))

    for part in (
        "500.png",
        "alt text: number 500",
        "centroid 1 (concept 1): rank 0, similarity 0.9500: selected: nothing speaks against it",
        "centroid 0 (concept 0): rank 4, similarity 0.9100: rejected by rule other_centroid",
        "32 x 24 pixels",
        "score: watermark 0.1000 by planted-mark, at most 0.8 wanted",
        "decision 1: ada",
        "a picture of number 500",
        "release pop-1.0: in it",
    ):
        assert part in story
    printed = CliRunner().invoke(cli, ["why", str(run.folder), str(shared), "--json"])
    assert json.loads(printed.output) == {"id": shared, "story": story.split("\n")}
    assert "lists:" not in story
    with_lists(run, CONFIG, takedown=f"{shared}\n")
    told = why(run, shared)
    assert "lists: on a takedown list; its texts are not told" in told
    assert not any("number 500" in line for line in told)
    with pytest.raises(DataError, match="12345"):
        why(run, 12345)


def test_why_names_no_folder_of_the_machine_to_who_looks_from_elsewhere(run):
    shared = number(run, "500")
    assert any(line.startswith("source: /") for line in why(run, shared))

    elsewhere = why(run, shared, places=False)

    assert "source: 500.png" in elsewhere and "  kept at: 500.png" in elsewhere
    assert [line for line in elsewhere if ": /" in line] == []


def test_select_folds_what_curators_decide_and_does_nothing_when_nothing_changed(run):
    first = read_manifest(run.selection)
    assert select(run) == first
    decisions = Decisions.open(run.decisions)
    decisions.record(
        [
            Event(client="t", seq=1, curator="ada", action="reject", target="image", ids=(number(run, "0"),)),
            Event(
                client="t", seq=2, curator="ada", action="reject", target="centroid", ids=(1,), reason="dull"
            ),
        ]
    )

    changed = select(run)

    assert changed.counts["rejected_person"] == 1
    assert changed.counts["rejected_centroid_left_out"] == 3
    assert changed.facts["centroids_left_out"] == [1]
    assert changed.counts["selected"] == 3
    decisions.undo(1, client="t", seq=3, curator="ada")
    decisions.undo(2, client="t", seq=4, curator="ada")
    assert select(run).digest == first.digest


def test_a_licence_and_name_from_the_settings_stand_in_card_and_folder(run):
    write_config(
        run.config, replace(CONFIG, release=ReleaseConfig(name="stars", version="2.1", licence="CC0: mine"))
    )
    caption_all(run)
    release(run)

    assert 'license_name: "CC0: mine"' in (run.release("stars", "2.1") / "README.md").read_text()


def test_a_picture_that_vanished_since_is_released_as_metadata_and_missing_on_the_page(tmp_path):
    run = selected_run(tmp_path)
    caption_all(run)
    (tmp_path / "pool" / "0.png").unlink()
    (tmp_path / "pool" / "1.png").write_bytes(numbered_picture(1)[:50])

    release(run)

    page = (run.release("pop", "1.0") / "samples.html").read_text()
    assert page.count("no picture here any more") == 2
    assert len(dataset(run)) == 6


def test_what_was_measured_counts_before_what_the_pool_says(tmp_path):
    """Picture 0: the pool calls it unsafe and tiny, measured it is neither. 1: the reverse. 2: only the pool knows."""
    said = {"width": 4, "height": 4, "punsafe": 0.9}
    rows = [
        Planted(0, 0, local(tmp_path / "pool", 0) | said),
        Planted(0, 1, local(tmp_path / "pool", 1, width=16, height=8) | {"width": 900, "height": 900}),
        Planted(0, 2, local(tmp_path / "pool", 2) | {"aesthetic": 1.0}),
    ]
    config = replace(
        CONFIG,
        filters=replace(CONFIG.filters, punsafe_max=0.5, aesthetic_min=AestheticMin(head="", value=3.0)),
        select=replace(CONFIG.select, quota_per_centroid=5),
    )
    open_to_all = replace(CONFIG, filters=replace(CONFIG.filters, min_side_px=0))
    run = plant(tmp_path / "run", rows, open_to_all)
    fetch(run, depths=[3])  # before the filters were as tight as to pass picture 0 over
    write_config(run.config, config)
    score_all(run, aesthetic={rows[2].values["id"]: None})
    select(run)

    table = read_table(run.selection_table, SELECTION).to_pylist()

    assert [(row["rule"], row["detail"]) for row in table] == [
        ("selected", None),
        ("min_side_px", "8, limit 16"),
        ("aesthetic_min", "1, limit 3"),
    ]


def test_a_violent_picture_is_dropped_where_that_is_asked_for_and_its_score_is_told(tmp_path):
    rows = [Planted(0, rank, local(tmp_path / "pool", rank)) for rank in range(3)]
    ids = [row.values["id"] for row in rows]
    run = plant(tmp_path / "run", rows)
    fetch(run, depths=[3])
    score_all(run, violence={ids[0]: 0.02, ids[1]: -0.03})  # the last has no such score
    assert select(run).counts["selected"] == 3, "off by default"

    write_config(run.config, replace(CONFIG, filters=replace(CONFIG.filters, violence_max=0.0)))
    select(run)
    caption_all(run)
    release(run)

    table = read_table(run.selection_table, SELECTION).to_pylist()
    assert [(row["rule"], row["detail"]) for row in table] == [
        ("violence_max", "0.02, limit 0"),
        ("selected", None),
        ("selected", None),
    ]
    released = [(row["id"], row["violence"], row["violence_model"]) for row in dataset(run)]
    assert released == [(ids[1], pytest.approx(-0.03), "planted-violence"), (ids[2], None, None)]
    told = "\n".join(why(run, ids[0]) + why(run, ids[2]))
    assert "score: violence 0.0200 by planted-violence, at most 0 wanted" in told
    assert "score: violence unknown, no head was given, at most 0 wanted; unknown ones are kept" in told
