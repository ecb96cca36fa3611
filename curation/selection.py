"""Select: a verdict for every candidate, and the rule or person that decided. Nothing else decides.

The order of who decides is that of `spine.filters.RULES`: lists beat everybody, then people, then what
could not be fetched or scored, then the filters, then near-duplicates, then one centroid a picture and
the quota. Same inputs, same selection.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.assignment import Mask, assign, fill_quotas
from curation.candidates import (
    Ints,
    Pictures,
    Reach,
    column,
    distinct,
    read_candidates,
)
from curation.decisions import read_verdicts
from curation.filtering import Filtered, filter_candidates
from curation.picture_values import PictureValues, read_values
from curation.tally import nothing_selected, remarks, selection_counts, selection_facts
from curation.verdicts import Verdicts
from spine.config import load_config
from spine.errors import DataError
from spine.filters import FILTERS, RULES
from spine.lists import BlockLists
from spine.manifest import Manifest, read_manifest
from spine.progress import SILENT, Progress
from spine.publish import publish_table
from spine.run import Run
from spine.settings import Config
from spine.stage import Stage
from spine.tables import SELECTION

_RULE = {rule: np.int8(place) for place, rule in enumerate(RULES)}
_OPEN = np.int8(-1)  # nothing decided yet
_FILTER_RULES = np.array([_RULE[name] for name in FILTERS], dtype=np.int8)


def select(run: Run, *, force: bool = False, progress: Progress = SILENT) -> Manifest:
    """Decide on every candidate within fetch's depths.

    Reads neighbours, images, scores, the curators' decisions and the lists; writes selection/.

    Raises:
        DataError: A stage before it isn't finished or not up to date, or a table is damaged.
    """
    config = load_config(run.config)
    neighbours, images, scores = (
        read_manifest(folder) for folder in (run.neighbours, run.images, run.scores)
    )
    _check_same(run.images, images.inputs.get("neighbours"), neighbours.digest, "fetch")
    _check_same(run.scores, scores.inputs.get("images"), images.digest, "score")
    lists = BlockLists.load(config.lists, run.folder)
    verdicts = read_verdicts(run)
    stage = Stage.open(
        "selection",
        run.selection,
        parameters={
            "filters": asdict(config.filters),
            "quota_per_centroid": config.select.quota_per_centroid,
            "one_centroid_per_image": config.select.one_centroid_per_image,
            **({"same_picture": config.select.same_picture} if config.select.same_picture else {}),
        },
        inputs={
            "neighbours": neighbours.digest,
            "images": images.digest,
            "scores": scores.digest,
            "lists": lists.digest,
            "decisions": verdicts.selection_digest(),
        },
        force=force,
    )
    if stage.published is not None:
        return stage.published
    reach = Reach.of(run, images).standing(verdicts)
    candidates = read_candidates(run, reach)
    progress.begin("select", candidates.num_rows, "candidates")
    pictures = distinct(candidates)
    table = decide(candidates, pictures, read_values(run, pictures, reach), config, lists, verdicts)
    publish_table(run.selection_table, table)
    counts = selection_counts(table)
    facts = selection_facts(table, config, verdicts)
    progress.advance(table.num_rows)
    for line in remarks(counts, facts, config):
        progress.say(line)
    facts["demo_models"] = any(each.facts.get("demo_models", False) for each in (neighbours, images, scores))
    manifest = stage.finish(counts, facts)
    progress.end()
    return manifest


def _check_same(folder: Path, made_from: str | None, now: str, command: str) -> None:
    """See that a stage was made from what is there now: else pictures would look unfetched or unscored."""
    if made_from != now:
        raise DataError(f"{folder}: made from an earlier state of the run; run `popfactory {command}` first")


def require_selected(run: Run) -> None:
    """See that something is selected; asked once no centroid can be filled from deeper neighbours any more.

    Raises:
        DataError: Nothing is; the message is the funnel by rule.
    """
    counts = read_manifest(run.selection).counts
    if not counts["selected"]:
        raise DataError(nothing_selected(run, counts))


@dataclass(frozen=True, slots=True)
class _Rows:
    """The candidates as arrays of shape (n,), and their pictures of shape (m,)."""

    centroid: Ints
    rank: Ints
    similarity: npt.NDArray[np.float32]
    picture: Ints
    left_out: Mask
    kept: Mask
    """Pictures that a person keeps, shape (m,)."""
    quota: Ints
    """Of each centroid id, shape (k,)."""


def decide(
    candidates: pa.Table,
    pictures: Pictures,
    values: PictureValues,
    config: Config,
    lists: BlockLists,
    verdicts: Verdicts,
) -> pa.Table:
    """A verdict for every candidate.

    Args:
        candidates: Columns centroid_id, rank, id, similarity; sorted by centroid and rank; n rows.
        pictures: Their m distinct pictures.
        values: What is known of each of these.
        config: [filters] and [select] count.
        lists: Takedown and hash lists.
        verdicts: What curators decided.

    Returns:
        Schema SELECTION, n rows in the order of the candidates.
    """
    persons = [verdicts.images.get(number) for number in pictures.ids.tolist()]
    centroid = column(candidates, "centroid_id")
    kept = np.array([person is not None and person.action == "keep" for person in persons], dtype=bool)
    rows = _Rows(
        centroid,
        column(candidates, "rank"),
        np.asarray(candidates.column("similarity").to_numpy(), dtype=np.float32),
        pictures.of_row,
        np.isin(centroid, sorted(verdicts.centroids_left_out())),
        kept,
        verdicts.quotas(int(centroid.max(initial=-1)) + 1, config.select.quota_per_centroid),
    )
    decided, details = _decide_pictures(pictures, values, lists, verdicts)
    limit = config.select.same_picture
    unlike = values.fetched & (values.pool_similarity < limit)
    for place in np.flatnonzero(unlike & (decided == _OPEN) & ~kept).tolist():
        decided[place] = _RULE["changed"]
        details[place] = f"similarity {values.pool_similarity[place]:.4g} to the pool's own, limit {limit:g}"
    own = verdicts.own_filters(config.filters)
    filtered = filter_candidates(
        values.table, rows.picture, centroid, config.filters, own, kept, values.passed_over
    )
    of_rows = _filtered(decided[rows.picture], filtered)
    # Filters that are looser by now, or a keep: the next fetch brings it in.
    of_rows[(of_rows == _OPEN) & values.passed_over[rows.picture]] = _RULE["unfetched"]
    _drop_near_duplicates(pictures, values, rows, of_rows, details)

    before_centroid = (of_rows != _OPEN) & (of_rows < _RULE["centroid_left_out"])
    of_rows = np.where(rows.left_out & ~before_centroid, _RULE["centroid_left_out"], of_rows)
    goes_to = _place(rows, of_rows, config)
    return _table(
        candidates, pictures, rows, of_rows, _told(of_rows, rows, details, filtered), goes_to, verdicts
    )


def _filtered(of_rows: npt.NDArray[np.int8], filtered: Filtered) -> npt.NDArray[np.int8]:
    """The rows, those still open decided by the filters."""
    failed = (of_rows == _OPEN) & (filtered.codes >= 0)
    return np.where(failed, _FILTER_RULES[filtered.codes], of_rows)


def _told(
    of_rows: npt.NDArray[np.int8], rows: "_Rows", details: Sequence[str | None], filtered: Filtered
) -> pa.Array:
    """The detail of each row that its picture or a filter decided; n texts."""
    of_picture = pa.array(details, pa.string()).take(pa.array(rows.picture))
    return pc.if_else(pa.array(np.isin(of_rows, _FILTER_RULES)), filtered.details, of_picture)


def _decide_pictures(
    pictures: Pictures,
    values: PictureValues,
    lists: BlockLists,
    verdicts: Verdicts,
) -> tuple[npt.NDArray[np.int8], list[str | None]]:
    """For each picture the rule that speaks against it before any filter (_OPEN for none), and the detail."""
    decided = np.full(len(pictures.ids), _OPEN, dtype=np.int8)
    details: list[str | None] = [None] * len(pictures.ids)

    def settle(place: int, rule: str, detail: str | None) -> None:
        if decided[place] == _OPEN:
            decided[place], details[place] = _RULE[rule], detail

    for place, rule in _listed(pictures, values, lists):
        settle(place, rule, None)
    for place, number in enumerate(pictures.ids.tolist()):
        person = verdicts.images.get(number)
        if person is not None and person.action == "reject":
            settle(place, "person", _said(person.curator, person.reason))
    for place in np.flatnonzero(~values.fetched & ~values.passed_over).tolist():
        settle(place, "unfetched", values.reason[place])
    for place in np.flatnonzero(values.passed_over & (decided == _OPEN)).tolist():
        details[place] = f"passed over by {values.reason[place]}; fetch again"
    for place in np.flatnonzero(values.fetched & ~values.scored).tolist():
        settle(place, "unscored", None)
    return decided, details


def _listed(pictures: Pictures, values: PictureValues, lists: BlockLists) -> list[tuple[int, str]]:
    """Places of the pictures that a list names, with the rule: by now, or when they were fetched."""
    found = [
        (place, rule)
        for place, rule in enumerate(values.reason)
        if rule is not None and rule in ("takedown", "hash_block")
    ]
    if lists.empty:
        return found
    rules = enumerate(lists.blocks_all(values.named_by))
    found += [(place, rule) for place, rule in rules if rule is not None]
    return sorted(found, key=lambda each: _RULE[each[1]])


def _said(curator: str, reason: str | None) -> str:
    return f"{curator}: {reason}" if reason else curator


def _drop_near_duplicates(
    pictures: Pictures,
    values: PictureValues,
    rows: _Rows,
    of_rows: npt.NDArray[np.int8],
    details: list[str | None],
) -> None:
    """Of each group leave one among those that are still in: a kept one, who stood for it, else the largest.

    All that a person keeps stay. Ties go to the most similar to a centroid, then to the lower id.
    """
    m = len(pictures.ids)
    similarity = np.full(m, -np.inf, dtype=np.float32)
    inside = ~rows.left_out & (of_rows == _OPEN)
    np.maximum.at(similarity, rows.picture[inside], rows.similarity[inside])
    alive = np.flatnonzero(np.isfinite(similarity))
    group = values.group[alive]
    ids = pictures.ids[alive]
    order = np.lexsort((ids, -similarity[alive], -values.area[alive], ids != group, ~rows.kept[alive], group))
    head = np.diff(group[order], prepend=group[order][:1] - 1) != 0
    stands = np.maximum.accumulate(np.where(head, np.arange(len(order)), 0)) if len(order) else order
    losers = np.flatnonzero(~head & ~rows.kept[alive][order])
    loses = np.zeros(m, dtype=bool)
    for at in losers.tolist():
        place = alive[order[at]]
        loses[place] = True
        details[place] = f"picture {ids[order[stands[at]]]}"
    of_rows[(of_rows == _OPEN) & loses[rows.picture]] = _RULE["near_duplicate"]


def _place(rows: _Rows, of_rows: npt.NDArray[np.int8], config: Config) -> Ints:
    """Decide on the rows still open, in place.

    Returns:
        For each picture the centroid it goes to, -1 for none; shape (m,).
    """
    still = np.flatnonzero(of_rows == _OPEN)
    first = rows.kept[rows.picture[still]]
    goes_to = np.full(len(rows.kept), -1, dtype=np.int64)
    if config.select.one_centroid_per_image:
        placed, refused = assign(
            picture=rows.picture[still],
            centroid=rows.centroid[still],
            rank=rows.rank[still],
            similarity=rows.similarity[still],
            first=first,
            quota=rows.quota,
        )
        of_rows[still] = _RULE["other_centroid"]
        of_rows[still[refused]] = _RULE["quota"]
        goes_to[rows.picture[still[placed]]] = rows.centroid[still[placed]]
    else:
        placed = fill_quotas(
            centroid=rows.centroid[still], rank=rows.rank[still], first=first, quota=rows.quota
        )
        of_rows[still] = _RULE["quota"]
    of_rows[still[placed]] = _RULE["selected"]
    return goes_to


def _table(
    candidates: pa.Table,
    pictures: Pictures,
    rows: _Rows,
    of_rows: npt.NDArray[np.int8],
    told: pa.Array,
    goes_to: Ints,
    verdicts: Verdicts,
) -> pa.Table:
    """The decisions as SELECTION, details written out."""
    selected = of_rows == _RULE["selected"]
    by_person = selected & rows.kept[rows.picture]
    detail = pc.if_else(
        pa.array(of_rows < _RULE["other_centroid"]),
        told,
        pa.scalar(None, pa.string()),
    )
    if rows.left_out.any():
        said = {number: _said(each.curator, each.reason) for number, each in verdicts.centroids.items()}
        texts = pa.array([said.get(each) for each in range(int(rows.centroid.max()) + 1)], pa.string())
        left_out = pa.array(of_rows == _RULE["centroid_left_out"])
        detail = pc.if_else(left_out, texts.take(pa.array(rows.centroid)), detail)
    elsewhere = of_rows == _RULE["other_centroid"]
    named = pc.binary_join_element_wise("centroid", pa.array(goes_to[rows.picture]).cast(pa.string()), " ")
    detail = pc.if_else(pa.array(elsewhere), named, detail)
    quotas = pc.binary_join_element_wise(
        pa.array(rows.quota[rows.centroid]).cast(pa.string()), "a centroid", " "
    )
    detail = pc.if_else(pa.array(of_rows == _RULE["quota"]), quotas, detail)
    if by_person.any():
        keepers = (verdicts.images.get(number) for number in pictures.ids.tolist())
        texts = pa.array(
            [_said(each.curator, each.reason) if each else None for each in keepers], pa.string()
        )
        detail = pc.if_else(pa.array(by_person), texts.take(pa.array(rows.picture)), detail)
    codes = np.where(by_person, _RULE["person"], of_rows)
    names = pa.array(list(RULES)).take(pa.array(codes))
    return pa.table(
        {
            **{name: candidates.column(name) for name in ("centroid_id", "rank", "id", "similarity")},
            "verdict": pc.if_else(pa.array(selected), "selected", "rejected"),
            "rule": names,
            "detail": detail,
        },
        schema=SELECTION,
    )
