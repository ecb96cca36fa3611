import hashlib

import pytest

from captioner.engine import Wanted
from captioner.worklist import captioner_id, narrowed, read_units
from spine.errors import DataError
from spine.ids import caption_id
from spine.prompts import PROMPTS
from tests.unit.captioner.runs import picture_id, publish_selection

LAION = PROMPTS["laion-pop"]


def test_a_caption_id_changes_with_everything_that_shapes_the_caption():
    plain = caption_id("aa", captioner_id(LAION, "f", 8, True))
    others = [
        caption_id("ab", captioner_id(LAION, "f", 8, True)),
        caption_id("aa", captioner_id(PROMPTS["detail"], "f", 8, True)),
        caption_id("aa", captioner_id(LAION, "g", 8, True)),
        caption_id("aa", captioner_id(LAION, "f", 9, True)),
        caption_id("aa", captioner_id(LAION, "f", 8, False)),
    ]

    assert plain == caption_id("aa", captioner_id(LAION, "f", 8, True))
    assert len(plain) == 32 and int(plain, 16) >= 0
    assert len({plain, *others}) == 6


def test_selected_pictures_come_by_id_and_equal_ones_together(make_run, pictures):
    pictures[5].write_bytes(pictures[2].read_bytes())
    run = make_run(pictures, not_selected=1)

    units = read_units(run, "c")

    selected = pictures[:6]
    expected = {}
    for file in sorted(selected, key=picture_id):
        expected.setdefault(hashlib.sha256(file.read_bytes()).hexdigest(), []).append(file)
    assert [unit.ids for unit in units] == [tuple(map(picture_id, files)) for files in expected.values()]
    assert [unit.wanted for unit in units] == [Wanted(str(files[0]), sha) for sha, files in expected.items()]
    assert len(units) == 5


def test_an_empty_selection_says_so(make_run, pictures):
    run = make_run(pictures, not_selected=7)

    with pytest.raises(DataError, match="none of 7 candidates is selected"):
        read_units(run, "c")


def test_a_selected_picture_that_was_not_fetched_has_no_place(make_run, pictures, tmp_path):
    run = make_run(pictures[:2])
    publish_selection(run, [*pictures[:2], tmp_path / "never.png"])

    units = read_units(run, "c")

    assert {unit.ids: unit.wanted is None for unit in units}[(picture_id(tmp_path / "never.png"),)]
    assert sum(unit.wanted is None for unit in units) == 1


def test_only_selected_pictures_can_be_asked_for(make_run, pictures):
    units = read_units(make_run(pictures, not_selected=1), "c")
    known, unknown = picture_id(pictures[0]), picture_id(pictures[6])

    assert [unit.ids for unit in narrowed(units, [known])] == [(known,)]
    assert narrowed(units, None) == units
    with pytest.raises(DataError, match=f"1 of the pictures asked for are not selected, {unknown}"):
        narrowed(units, [known, unknown])
