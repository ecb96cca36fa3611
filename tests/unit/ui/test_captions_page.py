"""The Captions page's answers, on planted captions."""

import numpy as np
import pyarrow as pa
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from curation.decisions import Decisions, Event
from spine.jobs import Journal
from spine.manifest import MANIFEST
from spine.prompts import PROMPTS
from spine.publish import publish_table
from spine.run import part_path, part_paths
from spine.stage import Stage
from spine.table_files import read_table
from spine.tables import AGREEMENT, CAPTIONS, SELECTION
from tests.unit.ui.planted import EACH, HOSTILE, plant
from tests.unit.ui.planted_captions import BEFORE, NOW, PART, fault_of, plant_captions, row_of
from ui import api, captions_page
from ui.caption_list import ORDERS
from ui.caption_tables import CaptionTables
from ui.captions_page import _options
from ui.desk import Desk


@pytest.fixture
def numbers(planted):
    return plant_captions(planted)


@pytest.fixture
def ask(planted):
    """`ask("captions", show="new")`: the answer, whatever its status."""
    app = FastAPI()
    desk = Desk(planted.run)
    api.add_routes(app, desk)
    captions_page.PAGE.add_routes(app, desk)
    with TestClient(app) as client:

        def answer(path, **parameters):
            return client.get(f"/api/{path}", params=parameters).json()

        yield answer
    desk.close()


def decide(run, seq, action, name, **more):
    Decisions.open(run.decisions).record(
        [
            Event(
                client="t",
                seq=seq,
                curator="ada",
                action=action,
                target="caption",
                ids=(name,),
                last_seen=99,
                **more,
            )
        ]
    )


def shown(planted, answer):
    return [planted.ids.index(int(card["id"])) for card in answer["cards"]]


def test_pictures_come_with_their_captions_in_order_of_centroid_and_rank(planted, numbers, ask):
    answer = ask("captions", limit=200)

    assert shown(planted, answer) == numbers and answer["total"] == answer["selected"] == len(numbers)
    for number, card in zip(numbers, answer["cards"], strict=True):
        own = card["captions"][0]
        assert own["own"] and own["captioner"] == NOW and own["caption"] == row_of(planted, number)["caption"]
        assert card["picture"]["sha256"] == planted.hashes[number]
        assert card["alt"] == (HOSTILE if number == 1 else f"a plain colour {number}")
        assert card["centroid"] == str(number // EACH)
    assert [each["captioner"] for each in answer["cards"][0]["captions"]] == [NOW, BEFORE]
    assert answer["cards"][0]["text"] == row_of(planted, numbers[0])["caption"] and answer["finished"]


def test_every_flag_filters_and_its_count_says_how_many(planted, numbers, ask):
    loops = [number for number in numbers if number % 10 == 3]
    guesses = [number for number in numbers if number % 10 == 6]
    cut = [number for number in numbers if number % 10 == 7]

    everything = ask("captions", limit=200)

    assert everything["flagged"]["loops"] == len(loops) and loops
    assert everything["flagged"]["any"] == len(loops) + len(guesses) + len(cut)
    assert everything["counts"] == {
        "new": len(numbers) - 1,
        "kept": 0,
        "edited": 0,
        "rejected": 0,
        "failed": 1,
        "missing": 0,
    }
    assert everything["flagged"]["none"] == len(numbers) - 1 - everything["flagged"]["any"]
    for flag, wanted in (("loops", loops), ("speculating", guesses), ("truncated", cut)):
        assert shown(planted, ask("captions", flag=flag, limit=200)) == wanted
    assert sorted(shown(planted, ask("captions", flag="any", limit=200))) == sorted([*loops, *guesses, *cut])
    assert shown(planted, ask("captions", show="failed")) == [10]
    assert ask("captions", flag="loops", centroid="1")["total"] == sum(
        EACH <= number < 2 * EACH for number in loops
    )


def test_every_order_is_that_of_numpy(planted, numbers, ask):
    rows = [row_of(planted, number) for number in numbers]
    for order in ORDERS[1:]:
        name = order.removeprefix("-")
        values = np.array([np.nan if row.get(name) is None else row[name] for row in rows], dtype=float)
        places = np.argsort(-values if order.startswith("-") else values, kind="stable")

        assert shown(planted, ask("captions", sort=order, limit=200)) == [numbers[at] for at in places], order


def test_pages_follow_each_other_by_picture_whatever_was_decided_between(planted, numbers, ask):
    first = ask("captions", show="new", limit=5)
    for seq, card in enumerate(first["cards"]):
        decide(planted.run, seq, "keep", card["captions"][0]["caption_id"])

    second = ask("captions", show="new", limit=5, after=first["cards"][-1]["id"])

    new = [number for number in numbers if number != 10]
    assert shown(planted, first) == new[:5] and shown(planted, second) == new[5:10]
    back = ask("captions", limit=3, before=second["cards"][0]["id"])
    at = numbers.index(new[5])
    assert shown(planted, back) == numbers[at - 3 : at]
    again = ask("captions", show="new", limit=2, begin=first["cards"][0]["id"])
    assert shown(planted, again) == new[5:7] and again["known"]
    stale = ask("captions", begin="12345", limit=2)
    assert not stale["known"] and shown(planted, stale) == numbers[:2]


def test_what_curators_say_changes_what_counts_and_the_raw_words_stay(planted, numbers, ask):
    names = [row_of(planted, number)["caption_id"] for number in numbers]
    earlier = row_of(planted, numbers[2], BEFORE)
    decide(planted.run, 1, "keep", names[0])
    decide(planted.run, 2, "keep", names[1], text="mine")
    decide(planted.run, 3, "keep", earlier["caption_id"])
    decide(planted.run, 4, "reject", names[3], reason="wrong")

    cards = ask("captions", limit=4)["cards"]

    assert [card["state"] for card in cards] == ["kept", "edited", "kept", "rejected"]
    assert [card["text"] for card in cards[1:]] == ["mine", earlier["caption"], None]
    assert cards[1]["edited_by"] == "ada" and cards[1]["captions"][0]["edited"] == "mine"
    assert cards[1]["captions"][0]["caption"] == row_of(planted, numbers[1])["caption"]
    assert [each["counts"] for each in cards[2]["captions"]] == [False, True]
    assert cards[3]["captions"][0]["said"] == "wrong"
    counts = ask("captions")["counts"]
    assert (counts["kept"], counts["edited"], counts["rejected"]) == (2, 1, 1)
    assert [shown(planted, ask("captions", show=state)) for state in ("edited", "rejected")] == [
        [numbers[1]],
        [numbers[3]],
    ]


def test_the_unflagged_are_those_new_without_a_fault(planted, numbers, ask):
    decide(planted.run, 1, "keep", row_of(planted, numbers[0])["caption_id"])

    answer = ask("captions/unflagged")

    wanted = [number for number in numbers[1:] if number == 1 or not fault_of(number)]
    assert answer["captions"] == [row_of(planted, number)["caption_id"] for number in wanted]
    assert answer["pictures"] == [str(planted.ids[number]) for number in wanted]


def test_captions_are_shown_while_the_captioner_is_at_work(planted, ask):
    numbers = plant_captions(planted, finished=False)

    first = ask("captions", limit=200)
    assert first["counts"]["missing"] == len(numbers) - PART and not first["finished"]
    assert sum(bool(card["captions"]) and card["captions"][0]["own"] for card in first["cards"]) == PART
    rest = sorted(numbers, key=lambda number: planted.ids[number])[PART:]
    rows = [row_of(planted, number) for number in rest]
    publish_table(part_path(planted.run.captions, 1), pa.Table.from_pylist(rows, CAPTIONS))

    assert ask("captions")["counts"]["missing"] == 0


def test_captions_that_move_to_a_shelf_are_those_of_another_captioner(planted, numbers, ask):
    shelf = planted.run.other_captions / NOW
    ask("captions")
    shelf.mkdir()
    for path in part_paths(planted.run.captions):
        path.rename(shelf / path.name)
    (planted.run.captions / MANIFEST).unlink()

    answer = ask("captions", limit=1)

    assert answer["counts"]["missing"] == len(numbers)
    assert [each["own"] for each in answer["cards"][0]["captions"]] == [False, False]


def test_captions_that_clip_finds_unlike_their_picture_are_flagged(planted, numbers, ask):
    chosen = numbers[:40]
    rows = [
        dict.fromkeys(AGREEMENT.names)
        | {"caption_id": row_of(planted, number)["caption_id"], "id": planted.ids[number]}
        | {"clip_mean": 0.2 if number in (chosen[3], chosen[9]) else 0.6, "clip_other": 0.2 + 0.001 * place}
        | {"worst_sentence": f"sentence {number}"}
        for place, number in enumerate(chosen)
    ]
    publish_table(planted.run.caption_agreement, pa.Table.from_pylist(rows, AGREEMENT))

    answer = ask("captions", flag="unlike")

    assert shown(planted, answer) == [chosen[3], chosen[9]] and answer["flagged"]["unlike"] == 2
    own = answer["cards"][0]["captions"][0]
    assert (own["clip"], own["worst"]) == (0.2, f"sentence {chosen[3]}") and "unlike" in own["flags"]
    least = ask("captions", sort="clip", limit=200)
    assert shown(planted, least)[:2] == [chosen[3], chosen[9]]
    assert shown(planted, least)[-1] not in chosen  # not measured: last


def test_a_shelved_caption_of_a_picture_that_has_changed_since_is_not_shown(planted, numbers, ask):
    path = part_path(planted.run.other_captions / BEFORE, 0)
    rows = read_table(path, CAPTIONS).to_pylist()
    rows[0] |= {"caption_id": row_of(planted, numbers[5], BEFORE)["caption_id"]}
    publish_table(path, pa.Table.from_pylist(rows, CAPTIONS))

    cards = ask("captions", limit=2)["cards"]

    assert [len(card["captions"]) for card in cards] == [1, 2]


def test_a_part_that_was_replaced_meanwhile_is_noticed(planted, numbers):
    tables = CaptionTables(planted.run)
    captions = tables.now()
    path = part_paths(planted.run.captions)[0]
    table = read_table(path, CAPTIONS)

    assert tables.rows(captions, [0, 1]) == table.slice(0, 2).to_pylist()
    publish_table(path, table.slice(1))
    assert tables.rows(captions, [0, 1]) is None
    path.unlink()
    assert tables.rows(captions, [0]) is None
    assert len(tables.now().ids) == len(captions.ids) - table.num_rows


def test_of_a_listed_picture_neither_text_nor_hash_leaves(tmp_path):
    planted = plant(tmp_path / "run")
    numbers = plant_captions(planted)
    (planted.run.folder / "takedown.txt").write_text(f"{planted.ids[numbers[0]]}\n")
    text = planted.run.config.read_text().replace("takedown = []", 'takedown = ["takedown.txt"]')
    planted.run.config.write_text(text)
    desk = Desk(planted.run)
    app = FastAPI()
    captions_page.PAGE.add_routes(app, desk)

    with TestClient(app) as client:
        card = client.get("/api/captions", params={"limit": 1}).json()["cards"][0]
    desk.close()

    assert card["state"] == "blocked" and card["captions"] == []
    assert "sha256" not in card["picture"] and "alt" not in card


def test_a_grown_selection_says_that_the_captions_are_of_an_earlier_one(planted, numbers, ask):
    assert not ask("captions")["outdated"]
    table = read_table(planted.run.selection_table, SELECTION)
    stage = Stage.open("selection", planted.run.selection, {"grown": 1}, {})
    publish_table(planted.run.selection_table, table)
    stage.finish({"candidates": table.num_rows})

    assert ask("captions")["outdated"]


def test_previews_stand_side_by_side(planted, numbers, ask):
    folder = planted.run.caption_previews / "abc"
    stage = Stage.open("preview", folder, {}, {})
    for place, captioner in enumerate((NOW, BEFORE)):
        rows = [row_of(planted, number, captioner) for number in numbers[:3]]
        publish_table(part_path(folder, place), pa.Table.from_pylist(rows, CAPTIONS))
    captioners = [
        {
            "captioner": each,
            "model": "planted-llava",
            "prompt_id": prompt,
            "part": f"part-0000{place}.parquet",
        }
        for place, (each, prompt) in enumerate(((NOW, "laion-pop"), (BEFORE, "short")))
    ]
    stage.finish(
        {"pictures": 3}, {"ids": [planted.ids[each] for each in numbers[:3]], "captioners": captioners}
    )

    listed, preview = ask("captions/previews")["previews"], ask("captions/previews/abc")

    assert [(each["name"], each["pictures"]) for each in listed] == [("abc", 3)]
    assert shown(planted, preview) == numbers[:3]
    assert [each["captioner"] for each in preview["cards"][0]["captions"]] == [NOW, BEFORE]
    assert "not there any more" in ask("captions/previews/gone")["error"]


def test_an_empty_run_answers_with_nothing(planted, ask):
    for folder in (planted.run.selection, planted.run.captions):
        (folder / MANIFEST).unlink(missing_ok=True)

    answer = ask("captions")

    assert (answer["cards"], answer["selected"], answer["finished"]) == ([], 0, False)


@pytest.mark.parametrize(
    "parameters", [{"show": "x"}, {"flag": "x"}, {"sort": "x"}, {"centroid": "1e3"}, {"begin": str(2**63)}]
)
def test_an_address_with_a_word_it_can_not_have_is_told(numbers, ask, parameters):
    assert next(iter(parameters.values()))[:40] in ask("captions", **parameters)["error"]


def test_the_form_has_the_settings_the_prompts_and_models_to_choose_from(planted, ask):
    form = ask("captions/form")

    assert form["settings"]["model"] == "demo" and form["models"][0] == "demo"
    assert [each["prompt_id"] for each in form["prompts"]] == ["laion-pop", "detail", "short"]


def test_what_is_asked_for_becomes_options_of_the_command():
    assert _options({"kind": "run"}, PROMPTS) == []
    assert _options({"kind": "run", "limit": 5, "failed_only": True}, PROMPTS) == [
        "--limit",
        "5",
        "--failed-only",
    ]
    preview = {"kind": "preview", "n": 4, "prompts": ["laion-pop", "short"], "models": ["demo"]}
    assert _options(preview, PROMPTS) == [
        *("--preview", "4", "--prompt", "laion-pop", "--prompt", "short", "--model", "demo")
    ]
    again = {"kind": "again", "ids": ["-5"], "prompt": "short", "model": None}
    assert _options(again, PROMPTS) == ["--only", "-5", "--prompt", "short"]


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        {"kind": "all"},
        {"kind": "run", "limit": "5; rm"},
        {"kind": "run", "limit": 0},
        {"kind": "preview", "n": 51, "prompts": [], "models": []},
        {"kind": "preview", "n": 2, "prompts": ["mine"], "models": []},
        {"kind": "preview", "n": 2, "prompts": "short", "models": []},
        {"kind": "preview", "n": 2, "prompts": [], "models": ["--force"]},
        {"kind": "again", "ids": []},
        {"kind": "again", "ids": ["--force"]},
        {"kind": "again", "ids": [5]},
        {"kind": "again", "ids": ["5"] * 201},
    ],
)
def test_nothing_else_becomes_a_command(content):
    with pytest.raises(captions_page.DataError):
        _options(content, PROMPTS)


def test_what_is_kept_in_a_centroid_is_counted_with_what_lacks_a_caption_by_the_prompt(planted, numbers, ask):
    kept = [0, 3, 10, 28]  # captioned, captioned, failed, never fetched
    event = {"client": "t", "curator": "ada", "action": "keep", "target": "image", "last_seen": 99}
    ids = tuple(planted.ids[number] for number in [*kept, EACH])  # the last in the next centroid
    Decisions.open(planted.run.decisions).record([Event(seq=1, ids=ids, **event)])

    found = ask("captions/kept", centroid=0, prompt="laion-pop")
    other = ask("captions/kept", centroid=0, prompt="detail")

    assert (found["kept"], found["to_ask"], found["rate"]) == (4, 2, None)
    assert (other["kept"], other["to_ask"]) == (4, 4)
    assert "is unknown" in ask("captions/kept", centroid=0, prompt="none such")["error"]
    journal = Journal(planted.run, ["caption"])
    journal.begin("caption", 40, "pictures")
    journal.advance(20)
    journal.close("done")
    timed = ask("captions/kept", centroid=0, prompt="laion-pop")
    assert timed["seconds"] == pytest.approx(2 / timed["rate"])
