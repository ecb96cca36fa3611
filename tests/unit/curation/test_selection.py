"""Select against plain loops: the same verdict, rule and detail for every candidate of random cases."""

from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.assignment import assign
from curation.candidates import distinct
from curation.picture_values import PictureValues
from curation.selection import decide
from curation.tally import remarks, selection_counts, selection_facts
from curation.verdicts import Setting, Verdict, Verdicts
from spine.filters import FILTERS
from spine.lists import BlockLists
from spine.settings import AestheticMin, Config, FiltersConfig, SelectConfig

NO_LISTS = BlockLists(frozenset(), frozenset(), frozenset(), frozenset(), "")


@dataclass
class Case:
    """One picture each in `pictures`, by id; and who wants it."""

    rows: list[tuple[int, int, int, float]]  # centroid, rank, id, similarity
    pictures: dict[int, dict]
    quota: int = 2
    one_centroid: bool = True
    keep: set[int] = field(default_factory=set)
    reject: set[int] = field(default_factory=set)
    left_out: set[int] = field(default_factory=set)
    taken_down: set[int] = field(default_factory=set)
    min_side: int = 10
    own_quota: dict[int, int] = field(default_factory=dict)
    own_side: dict[int, int] = field(default_factory=dict)


PICTURE = {"side": 20, "unsafe": 0.1, "reason": None, "scored": True, "group": None, "like": np.nan}


def config_of(case: Case) -> Config:
    return Config(
        filters=FiltersConfig(
            min_side_px=case.min_side, pwatermark_max=None, punsafe_max=0.5, aesthetic_min=AestheticMin()
        ),
        select=SelectConfig(
            quota_per_centroid=case.quota, same_picture=0.5, one_centroid_per_image=case.one_centroid
        ),
    )


def verdicts_of(case: Case) -> Verdicts:
    def by(curator: str, action: str) -> Verdict:
        return Verdict(action=action, curator=curator, event=1, reason=None)

    return Verdicts(
        images={each: by("ada", "keep") for each in case.keep}
        | {each: by("bob", "reject") for each in case.reject},
        centroids={each: by("cy", "reject") for each in case.left_out},
        settings={
            each: {
                name: Setting(value=own[each], curator="dee", event=2)
                for name, own in (("quota_per_centroid", case.own_quota), ("min_side_px", case.own_side))
                if each in own
            }
            for each in {*case.own_quota, *case.own_side}
        },
    )


def run_case(case: Case) -> list[tuple[str, str, str | None]]:
    candidates = pa.table(
        {
            "centroid_id": pa.array([row[0] for row in case.rows], pa.int32()),
            "rank": pa.array([row[1] for row in case.rows], pa.int32()),
            "id": pa.array([row[2] for row in case.rows], pa.int64()),
            "similarity": pa.array([row[3] for row in case.rows], pa.float32()),
        }
    )
    pictures = distinct(candidates)
    of = [PICTURE | case.pictures[number] for number in pictures.ids.tolist()]
    values = PictureValues(
        table=pa.table(
            {
                "width": pa.array([each["side"] for each in of], pa.int32()),
                "height": pa.array([each["side"] for each in of], pa.int32()),
                "punsafe": pa.array([each["unsafe"] for each in of], pa.float32()),
            }
        ),
        fetched=np.array([each["reason"] is None for each in of], dtype=bool),
        passed_over=np.array([each["reason"] in FILTERS for each in of], dtype=bool),
        reason=[each["reason"] for each in of],
        scored=np.array([each["reason"] is None and each["scored"] for each in of], dtype=bool),
        pool_similarity=np.array([each["like"] for each in of], dtype=np.float32),
        group=np.array(
            [
                number if each["group"] is None else each["group"]
                for number, each in zip(pictures.ids.tolist(), of, strict=True)
            ],
            dtype=np.int64,
        ),
        area=np.array([each["side"] ** 2 for each in of], dtype=np.int64),
        named_by=pa.table(
            {"id": pictures.ids}
            | {name: pa.nulls(len(of), pa.string()) for name in ("url", "sha256", "md5", "pdq")}
        ),
    )
    lists = BlockLists(frozenset(case.taken_down), frozenset(), frozenset(), frozenset(), "")
    table = decide(candidates, pictures, values, config_of(case), lists, verdicts_of(case))
    return list(zip(*(table.column(name).to_pylist() for name in ("verdict", "rule", "detail")), strict=True))


def by_loops(case: Case) -> list[tuple[str, str, str | None]]:
    """The same by plain loops, picture after picture and asking after asking."""
    alone: dict[int, tuple[str, str | None]] = {}
    for number, own in case.pictures.items():
        own = PICTURE | own
        if number in case.taken_down or own["reason"] == "takedown":
            alone[number] = ("takedown", None)
        elif number in case.reject:
            alone[number] = ("person", "bob")
        elif own["reason"] is not None and own["reason"] not in FILTERS:
            alone[number] = ("unfetched", own["reason"])
        elif own["reason"] is None and not own["scored"]:
            alone[number] = ("unscored", None)
        elif own["reason"] is None and own["like"] < 0.5 and number not in case.keep:
            alone[number] = ("changed", "similarity 0.25 to the pool's own, limit 0.5")

    def filtered(centroid: int, number: int) -> tuple[str, str | None] | None:
        own, side = PICTURE | case.pictures[number], case.own_side.get(centroid, case.min_side)
        if number in alone:
            return None
        passed_over = ("unfetched", f"passed over by {own['reason']}; fetch again") if own["reason"] else None
        if number in case.keep:
            return passed_over
        if side and own["side"] < side:
            return "min_side_px", f"{own['side']}, limit {side}"
        if own["unsafe"] > 0.5:
            return "punsafe_max", f"{np.float32(own['unsafe']):.4g}, limit 0.5"
        return passed_over

    failing = {(c, n): filtered(c, n) for c, _, n, _ in case.rows}
    nearest: dict[int, float] = {}
    for centroid, _, number, similarity in case.rows:
        if number not in alone and centroid not in case.left_out and not failing[centroid, number]:
            nearest[number] = max(nearest.get(number, -9.0), similarity)
    groups: dict[int, list[int]] = {}
    for number in nearest:
        group = case.pictures[number].get("group")
        groups.setdefault(number if group is None else group, []).append(number)
    for group, members in groups.items():
        side = {number: (PICTURE | case.pictures[number])["side"] for number in members}
        best = min(members, key=lambda n: (n not in case.keep, n != group, -side[n], -nearest[n], n))
        for number in members:
            if number != best and number not in case.keep:
                alone[number] = ("near_duplicate", f"picture {best}")

    outcome: dict[tuple[int, int], tuple[str, str, str | None]] = {}
    open_rows = []
    for row in case.rows:
        centroid, _, number, _ = row
        rule, detail = failing[centroid, number] or alone.get(number, ("", None))
        if centroid in case.left_out and rule not in ("takedown", "person"):
            outcome[centroid, number] = ("rejected", "centroid_left_out", "cy")
        elif rule:
            outcome[centroid, number] = ("rejected", rule, detail)
        else:
            open_rows.append(row)

    def quota(centroid: int) -> int:
        return case.own_quota.get(centroid, case.quota)

    def full(centroid: int) -> str:
        return f"{quota(centroid)} a centroid"

    rank = {(row[0], row[2]): (row[2] not in case.keep, row[1]) for row in open_rows}
    held: dict[int, list[int]] = {}
    goes_to: dict[int, int] = {}
    if case.one_centroid:
        wishes = {
            number: [row[0] for row in sorted(open_rows, key=lambda r: (-r[3], r[0])) if row[2] == number]
            for number in {row[2] for row in open_rows}
        }
        waiting = sorted(wishes)
        while waiting:
            number = waiting.pop()
            if not wishes[number]:
                continue
            centroid = wishes[number].pop(0)
            held.setdefault(centroid, []).append(number)
            others = [n for n in held[centroid] if n not in case.keep]
            if len(held[centroid]) > quota(centroid) and others:
                worst = max(others, key=lambda n: rank[centroid, n])
                held[centroid].remove(worst)
                outcome[centroid, worst] = ("rejected", "quota", full(centroid))
                waiting.append(worst)
        goes_to = {number: centroid for centroid, numbers in held.items() for number in numbers}
    else:
        for centroid in {row[0] for row in open_rows}:
            wanting = sorted((r[2] for r in open_rows if r[0] == centroid), key=lambda n: rank[centroid, n])
            kept = [n for n in wanting if n in case.keep]
            held[centroid] = wanting[: max(quota(centroid), len(kept))]
    for centroid, _, number, _ in open_rows:
        if number in held.get(centroid, []):
            kept = number in case.keep
            outcome[centroid, number] = (
                "selected",
                "person" if kept else "selected",
                "ada" if kept else None,
            )
        elif not case.one_centroid:
            outcome[centroid, number] = ("rejected", "quota", full(centroid))
        else:
            outcome.setdefault(
                (centroid, number), ("rejected", "other_centroid", f"centroid {goes_to.get(number)}")
            )
    return [outcome[row[0], row[2]] for row in case.rows]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    numbers = draw(
        st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 30), min_size=1, max_size=14, unique=True)
    )
    rows = []
    for centroid in range(draw(st.integers(1, 5))):
        members = draw(st.lists(st.sampled_from(numbers), unique=True, max_size=len(numbers)))
        similarities = draw(st.lists(st.integers(0, 8), min_size=len(members), max_size=len(members)))
        for rank, (number, eighths) in enumerate(
            zip(members, sorted(similarities, reverse=True), strict=True)
        ):
            rows.append((centroid, rank, number, eighths / 8))
    used = sorted({row[2] for row in rows})
    some = st.sets(st.sampled_from(used)) if used else st.just(set())
    groups = draw(some)
    stand_in = draw(st.sampled_from(used)) if used else None
    pictures = {
        number: {
            "side": draw(st.sampled_from([5, 20, 20, 30])),
            "unsafe": draw(st.sampled_from([0.1, 0.1, 0.9])),
            "reason": draw(st.sampled_from([None] * 5 + ["gone", "takedown", "min_side_px"])),
            "scored": draw(st.sampled_from([True, True, True, False])),
            "like": draw(st.sampled_from([np.nan, np.nan, 0.75, 0.25])),
            "group": stand_in if number in groups or number == stand_in else None,
        }
        for number in used
    }
    keep = draw(some)
    return Case(
        rows=rows,
        pictures=pictures,
        quota=draw(st.integers(1, 3)),
        one_centroid=draw(st.booleans()),
        keep=keep,
        reject=draw(some) - keep,
        left_out=draw(st.sets(st.integers(0, 4), max_size=2)),
        own_quota=draw(st.dictionaries(st.integers(0, 6), st.integers(0, 4), max_size=2)),
        own_side=draw(st.dictionaries(st.integers(0, 6), st.sampled_from([0, 10, 25]), max_size=2)),
        taken_down=draw(some) if draw(st.integers(0, 3)) == 0 else set(),
    )


@settings(max_examples=500, deadline=None)
@given(cases())
def test_select_decides_as_plain_loops_do(case):
    assert run_case(case) == by_loops(case)


def test_a_list_beats_a_person_and_a_person_beats_a_filter():
    case = Case(
        rows=[(0, rank, number, 0.5) for rank, number in enumerate([1, 2, 3])],
        pictures={1: {}, 2: {"side": 1}, 3: {"side": 1}},
        keep={1, 2},
        taken_down={1},
    )
    assert run_case(case) == [
        ("rejected", "takedown", None),
        ("selected", "person", "ada"),
        ("rejected", "min_side_px", "1, limit 10"),
    ]


def test_what_a_person_keeps_is_selected_beyond_the_quota_and_counts_towards_it():
    rows = [(0, rank, number, 0.5) for rank, number in enumerate([1, 2, 3, 4])]
    for one_centroid in (True, False):
        outcome = run_case(
            Case(rows=rows, pictures={n: {} for n in (1, 2, 3, 4)}, keep={2, 3, 4}, one_centroid=one_centroid)
        )
        assert outcome == [("rejected", "quota", "2 a centroid"), *[("selected", "person", "ada")] * 3]


def test_a_centroid_of_its_own_quota_and_threshold_takes_what_another_turns_away():
    rows = [(centroid, rank, 10 * centroid + rank, 0.5) for centroid in (0, 1) for rank in range(3)]
    sides = {0: 20, 1: 8, 2: 20, 10: 20, 11: 8, 12: 20}

    outcome = run_case(
        Case(
            rows=rows,
            pictures={number: {"side": side} for number, side in sides.items()},
            own_quota={1: 3},
            own_side={1: 8},
        )
    )

    assert [rule for _, rule, _ in outcome] == ["selected", "min_side_px", "selected", *["selected"] * 3]


def test_another_of_a_group_takes_the_place_of_one_that_a_filter_rejects():
    rows = [(0, 0, 7, 0.9), (0, 1, 8, 0.8), (0, 2, 9, 0.7)]
    pictures = {7: {"group": 7, "side": 1}, 8: {"group": 7}, 9: {"group": 7, "side": 30}}

    outcome = run_case(Case(rows=rows, pictures=pictures))

    assert outcome == [
        ("rejected", "min_side_px", "1, limit 10"),
        ("rejected", "near_duplicate", "picture 9"),  # the larger of the two that are left
        ("selected", "selected", None),
    ]


def test_a_picture_that_a_full_centroid_turns_away_goes_to_the_next_that_wants_it():
    rows = [(0, 0, 1, 0.9), (0, 1, 2, 0.8), (1, 0, 2, 0.7)]

    outcome = run_case(Case(rows=rows, pictures={1: {}, 2: {}}, quota=1))

    assert outcome == [
        ("selected", "selected", None),
        ("rejected", "quota", "1 a centroid"),
        ("selected", "selected", None),
    ]


def test_assign_is_stable_on_a_larger_random_case():
    """No picture and centroid would both rather have each other: the definition, checked pair by pair."""
    rng = np.random.default_rng(5)
    pairs = np.array([(p, c) for p in range(400) for c in rng.choice(30, size=6, replace=False)])
    similarity = rng.random(len(pairs)).astype(np.float32)
    picture, centroid = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)
    rank = np.empty(len(pairs), dtype=np.int64)
    for each in range(30):
        rows = np.flatnonzero(centroid == each)
        rank[rows[np.argsort(-similarity[rows])]] = np.arange(len(rows))
    quota = 10
    quotas = np.full(30, quota)

    placed, refused = assign(
        picture=picture,
        centroid=centroid,
        rank=rank,
        similarity=similarity,
        first=np.zeros(len(pairs), dtype=bool),
        quota=quotas,
    )

    assert not (placed & refused).any()
    held = {each: rank[placed & (centroid == each)] for each in range(30)}
    assert max(map(len, held.values())) <= quota
    own = {p: similarity[placed & (picture == p)] for p in range(400)}
    assert max(map(len, own.values())) <= 1
    for row in range(len(pairs)):
        mine = own[picture[row]]
        would = not len(mine) or similarity[row] > mine[0]
        there = held[centroid[row]]
        has_room = len(there) < quota or rank[row] < there.max()
        assert placed[row] or not (would and has_room)


def test_counts_add_up_and_name_only_rules_that_struck():
    case = Case(
        rows=[(0, rank, number, 0.5) for rank, number in enumerate([1, 2, 3, 4])],
        pictures={1: {}, 2: {"side": 1}, 3: {"reason": "gone"}, 4: {}},
        quota=1,
    )
    table = as_table(case)

    counts = selection_counts(table)

    assert counts == {
        "candidates": 4,
        "selected": 1,
        "rejected_unfetched": 1,
        "rejected_min_side_px": 1,
        "rejected_quota": 1,
        "pictures": 4,
        "pictures_selected": 1,
    }
    facts = selection_facts(table, config_of(case), Verdicts())
    assert (facts["centroids"], facts["centroids_short"], facts["missing"]) == (1, 0, 0)


def as_table(case: Case) -> pa.Table:
    outcome = run_case(case)
    return pa.table(
        {
            "centroid_id": pa.array([row[0] for row in case.rows], pa.int32()),
            "id": pa.array([row[2] for row in case.rows], pa.int64()),
            "verdict": [each[0] for each in outcome],
            "rule": [each[1] for each in outcome],
        }
    )


@pytest.mark.parametrize(("side", "said"), [(30, "has no effect: it keeps 300 of 300"), (1, "drops all 300")])
def test_a_threshold_that_changes_nothing_or_drops_all_is_said_aloud(side, said):
    case = Case(
        rows=[(0, rank, rank, 0.5) for rank in range(300)],
        pictures={number: {"side": side} for number in range(300)},
    )
    table = as_table(case)
    config = replace(config_of(case), filters=replace(config_of(case).filters, punsafe_max=None))

    lines = remarks(selection_counts(table), selection_facts(table, config, Verdicts()), config)

    assert any(f"min_side_px = 10 {said}" in line for line in lines)


@pytest.mark.parametrize(("small", "said"), [(4, True), (5, False)])
def test_a_threshold_has_no_effect_where_it_keeps_more_than_995_of_1000(small, said):
    case = Case(
        rows=[(0, rank, rank, 0.5) for rank in range(1_000)],
        pictures={number: {"side": 1 if number < small else 30} for number in range(1_000)},
    )
    table = as_table(case)

    lines = remarks(
        selection_counts(table), selection_facts(table, config_of(case), Verdicts()), config_of(case)
    )

    told = f"min_side_px = 10 has no effect: it keeps {1_000 - small:,} of 1,000"
    assert any(told in line for line in lines) == said
