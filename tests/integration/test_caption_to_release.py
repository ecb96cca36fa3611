"""From a captioner's words by way of a curator's decision into the release, whoever is asked again in between."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.captions import caption
from captioner.takes import retake
from curation.decisions import Decisions, Event
from curation.fetched_images import fetch
from curation.release import release
from curation.revisions import newest
from curation.selection import select
from spine.config import load_config, write_config
from spine.ids import caption_id
from spine.publish import publish_table
from spine.run import part_path, part_paths
from spine.settings import CaptionConfig
from spine.table_files import read_parts
from spine.tables import CAPTIONS, IMAGES
from tests.integration.curation_runs import CONFIG, Planted, local, plant, score_all


@pytest.fixture
def run(tmp_path):
    """Six pictures, selected and captioned by the demo model."""
    pool = tmp_path / "pool"
    planted = plant(
        tmp_path / "run",
        [
            Planted(centroid, rank, local(pool, 10 * centroid + rank))
            for centroid in range(2)
            for rank in range(3)
        ],
    )
    asked = CaptionConfig(model="demo", max_new_tokens=48, batch_size=8, device="cpu", second_try=False)
    write_config(planted.config, replace(CONFIG, caption=asked))
    fetch(planted, depths=[3, 3])
    score_all(planted)
    select(planted)
    caption(planted)
    return planted


def with_caption(run, **changes):
    config = load_config(run.config)
    write_config(run.config, replace(config, caption=replace(config.caption, **changes)))


def rows(folder):
    return {row["id"]: row for row in read_parts(folder, CAPTIONS).to_pylist()}


def released(run):
    release(run)
    return {
        row["id"]: row for row in pq.read_table(newest(run, "pop", "1.0") / "dataset.parquet").to_pylist()
    }


def decide(run, seq, name, action="keep", text=None):
    event = Event(client="t", seq=seq, curator="ada", action=action, target="caption", ids=(name,), text=text)
    Decisions.open(run.decisions).record([event])


def test_an_edit_survives_every_way_of_asking_again_and_is_released(run):
    first = rows(run.captions)
    edited, plain = sorted(first)[:2]
    decide(run, 1, first[edited]["caption_id"], text="what ada wrote")

    caption(run, force=True)
    assert released(run)[edited]["caption"] == "what ada wrote"
    with_caption(run, prompt="short")
    caption(run)
    retake(run, [edited])

    found = released(run)
    assert (found[edited]["caption"], found[edited]["caption_edited_by"]) == ("what ada wrote", "ada")
    assert found[edited]["raw_caption"] == first[edited]["raw_caption"]
    assert found[plain]["caption"] == rows(run.captions)[plain]["caption"]
    assert {row["prompt_id"] for row in rows(run.captions).values()} == {"short"}


def test_a_picture_asked_again_is_released_as_the_curator_chooses(run):
    before = released(run)
    number = sorted(before)[0]

    retake(run, [number], prompt="short")
    assert released(run)[number]["caption"] == before[number]["caption"], "nobody chose yet"
    take = rows(run.caption_takes)[number]
    decide(run, 1, take["caption_id"])

    found = released(run)[number]
    assert (found["caption"], found["prompt_id"], found["caption_edited_by"]) == (
        take["caption"],
        "short",
        None,
    )
    assert found["caption_id"] == take["caption_id"]


def test_a_choice_is_of_the_picture_it_was_made_of_and_not_of_what_took_its_place(run):
    first = rows(run.captions)
    number = sorted(first)[0]
    decide(run, 1, first[number]["caption_id"], text="of the old picture")
    with_caption(run, prompt="short")
    caption(run)
    images = read_parts(run.images, IMAGES).to_pylist()
    changed = [row | {"sha256": "0" * 64} if row["id"] == number else row for row in images]
    [part] = part_paths(run.images)
    publish_table(part, pa.Table.from_pylist(changed, IMAGES))

    assert released(run)[number]["caption"] != "of the old picture"


def test_two_families_stand_side_by_side_and_each_picture_has_its_own(run):
    images = {row["id"]: row["sha256"] for row in read_parts(run.images, IMAGES).to_pylist()}
    cogvlm = [
        row
        | {"caption": f"cogvlm of {row['id']}", "family": "cogvlm", "captioner": "c" * 16}
        | {"caption_id": caption_id(images[row["id"]], "c" * 16)}
        for row in rows(run.captions).values()
    ]
    cogvlm[0]["caption_id"] = caption_id("0" * 64, "c" * 16)  # of bytes that are no longer these
    publish_table(part_path(run.other_captions / ("c" * 16), 0), pa.Table.from_pylist(cogvlm, CAPTIONS))
    decide(run, 1, cogvlm[1]["caption_id"], action="reject")

    found = released(run)

    assert [found[row["id"]]["cogvlm_caption"] for row in cogvlm] == [
        None,
        None,
        *(f"cogvlm of {row['id']}" for row in cogvlm[2:]),
    ]
    assert all(row["llava_caption"] == row["caption"] for row in found.values())
