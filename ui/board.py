"""What is on the screen: rows of centroids and neighbours, counts and the funnel, from tables alone.

Nothing here reads a file. Ids leave as decimal text, since a browser's numbers hold 53 bits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.funnel import FunnelStep
from curation.passed_over import STATUS
from curation.verdicts import Verdict
from spine.filters import RULES
from spine.settings import Config, FiltersConfig

UNSAFE_LIMIT = 0.5
"""Unsafe score from which a picture is blurred where [filters] punsafe_max is not set."""

READY, GONE, PENDING, BLOCKED, PASSED_OVER = "ready", "gone", "pending", "blocked", "passed_over"
"""States of a tile: there; could not be had; not asked for yet; kept out by a list; not asked for, as a filter rejects
it by what the pool says."""

# All that a row is made of: each further column of a few hundred rows takes time that ten curators wait for.
_FOUND = ["id", "rank", "similarity", "url", "key", "sha256", "caption", "best_centroid", "duplicate_of"]
_IMAGE = ["status", "reason", "message", "url", "sha256", "md5", "pdq"]
_GROUP, _CAPTION = ["group", "group_size"], ["caption"]
_CENTROID_STATES = {"keep": "done", "reject": "out"}

Row = dict[str, Any]
Blocks = Callable[[int, str | None, Row], str | None]
"""Picture id, address and what was measured of it (sha256, md5, pdq) to the list rule that keeps it out, or None."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Tables about the neighbours of one centroid, each with one row a neighbour, nulls where unknown."""

    images: pa.Table
    scores: pa.Table
    groups: pa.Table
    captions: pa.Table
    scored: bool = False
    """Whether the score stage is finished: what it has no row of gave no embedding."""
    pool_similarities: pa.Table | None = None
    """None where they decide nothing: see `[select] same_picture`."""


def unsafe_limit(config: FiltersConfig) -> float:
    """The unsafe score above which a picture is blurred until it is revealed."""
    return UNSAFE_LIMIT if config.punsafe_max is None else config.punsafe_max


def centroid_rows(
    centroids: pa.Table,
    neighbour_counts: Mapping[int, int],
    selection: pa.Table,
    decided: Mapping[int, tuple[int, int]],
    verdicts: Mapping[int, Verdict],
    exemplars: pa.Table,
    limit: float,
) -> list[Row]:
    """The list of centroids, in order of id.

    Args:
        centroids: centroid_id, size, label, exemplar_ids, map_x, map_y, added_by.
        neighbour_counts: Neighbours by centroid.
        selection: Every candidate with its verdict; may be empty.
        decided: Pictures kept and rejected by people, by centroid.
        verdicts: Centroids that are done (keep) or left out (reject).
        exemplars: id, sha256 and punsafe of concept pictures.
        limit: Unsafe score above which a picture is blurred. A concept picture without a score is shown
            clear, unlike a neighbour: its owner chose it.
    """
    pictures = {row["id"]: row for row in exemplars.to_pylist() if row["sha256"]}
    chosen = _counts(selection, "selected")
    rows = []
    for row in centroids.to_pylist():
        number = row["centroid_id"]
        kept, rejected = decided.get(number, (0, 0))
        verdict = verdicts.get(number)
        shown = [pictures[picture] for picture in row["exemplar_ids"] or [] if picture in pictures]
        rows.append(
            {
                "centroid": str(number),
                "label": row["label"] or f"centroid {number}",
                "size": row["size"],
                "neighbours": neighbour_counts.get(number, 0),
                "selected": chosen.get(number, 0),
                "kept": kept,
                "rejected": rejected,
                "state": _CENTROID_STATES[verdict.action] if verdict is not None else None,
                "by": verdict.curator if verdict is not None else None,
                "reason": verdict.reason if verdict is not None else None,
                "added_by": row["added_by"],
                "map": [_short(row["map_x"]), _short(row["map_y"])],
                "exemplars": [
                    {"sha256": picture["sha256"], "blurred": (picture["punsafe"] or 0.0) > limit}
                    for picture in shown[:3]
                ],
            }
        )
    return rows


def judged_values(neighbours: pa.Table, measured: Measured) -> pa.Table:
    """What the filters judge, columns as `spine.filters.judge` reads them.

    As in `curation.picture_values`: what was measured counts before what the pool says.
    """
    own = measured.scores.column("aesthetic")
    return pa.table(
        {
            "width": pc.coalesce(measured.images.column("width"), neighbours.column("width")),
            "height": pc.coalesce(measured.images.column("height"), neighbours.column("height")),
            "pwatermark": pc.coalesce(measured.scores.column("watermark"), neighbours.column("pwatermark")),
            "punsafe": pc.coalesce(measured.scores.column("unsafe"), neighbours.column("punsafe")),
            "violence": measured.scores.column("violence"),
            "aesthetic": pc.coalesce(own, neighbours.column("aesthetic")),
            "aesthetic_model": pc.if_else(own.is_valid(), measured.scores.column("aesthetic_model"), None),
        }
    )


def unusable(measured: Measured, same_picture: float) -> list[str | None]:
    """The rule by which `select` leaves a fetched picture out before any filter; None where there is none.

    Args:
        measured: What is known of the neighbours.
        same_picture: The setting of that name.
    """
    rules: list[str | None] = [None] * measured.images.num_rows
    if measured.pool_similarities is not None:
        for place, similarity in enumerate(measured.pool_similarities.column("similarity").to_pylist()):
            if similarity is not None and similarity < same_picture:
                rules[place] = "changed"
    if measured.scored:
        for place, scored in enumerate(measured.scores.column("id").is_valid().to_pylist()):
            rules[place] = rules[place] if scored else "unscored"
    return rules


def neighbour_rows(
    neighbours: pa.Table,
    measured: Measured,
    selection: pa.Table,
    verdicts: Mapping[int, Verdict],
    config: Config,
    blocks: Blocks,
) -> list[Row]:
    """The neighbours of one centroid as the grid shows them, in order of rank.

    Args:
        neighbours: Its rows of spine.tables.NEIGHBOURS.
        measured: What the stages after found out about them.
        selection: Its rows of spine.tables.SELECTION; may be empty.
        verdicts: What people said, by picture id.
        config: The settings; the filters' head and the limit of blurring come from there.
        blocks: Tells which pictures a list keeps out: their address, text and hash don't leave.
    """
    limit = unsafe_limit(config.filters)
    decided = {row["id"]: row for row in selection.to_pylist()}
    values = judged_values(neighbours, measured).to_pylist()
    head = config.filters.aesthetic_min.head
    rows = []
    rules = unusable(measured, config.select.same_picture)
    for found, image, value, group, caption, out_by in zip(
        neighbours.select(_FOUND).to_pylist(),
        measured.images.select(_IMAGE).to_pylist(),
        values,
        measured.groups.select(_GROUP).to_pylist(),
        measured.captions.select(_CAPTION).to_pylist(),
        rules,
        strict=True,
    ):
        picture = found["id"]
        row: Row = {"id": str(picture), "rank": found["rank"], "similarity": _number(found["similarity"])}
        row |= _verdict_of(decided.get(picture), verdicts.get(picture))
        hashes = image | {"sha256": image["sha256"] or found["sha256"]}
        rule = blocks(picture, found["url"] or image["url"], hashes)
        if rule is not None:
            row |= {"state": BLOCKED, "reason": RULES[rule]}
        else:
            row |= state_of_image(image) | _about(found, group, caption)
            row |= _values_of(value, head, config.filters)
            row["unusable"] = out_by if row["state"] == READY else None
            unsafe = row["punsafe"]
            row["blurred"] = unsafe is None or unsafe > limit
        rows.append(row)
    return rows


def state_of_image(image: Row) -> Row:
    """State of a picture's tile with the reason why it isn't there.

    Args:
        image: Its row of IMAGES, nulls where it was not asked for.
    """
    if image["status"] is None:
        return {"state": PENDING, "reason": "not fetched yet", "sha256": None}
    if image["status"] == STATUS:
        reason = RULES.get(image["reason"], image["reason"])
        return {"state": PASSED_OVER, "reason": reason, "message": image["message"], "sha256": None}
    if image["status"] != "fetched":
        reason = image["reason"] or "failed"
        return {"state": GONE, "reason": reason, "message": image["message"], "sha256": None}
    return {"state": READY, "reason": None, "sha256": image["sha256"]}


def filter_settings(config: FiltersConfig) -> Row:
    """The [filters] as the page's controls begin with them."""
    return {
        "side_px": config.min_side_px or None,
        "pwatermark": config.pwatermark_max,
        "punsafe": config.punsafe_max,
        "violence": config.violence_max,
        "aesthetic": config.aesthetic_min.value,
        "unknown": config.unknown,
        "unsafe_limit": unsafe_limit(config),
    }


def funnel_rows(steps: Sequence[FunnelStep]) -> list[Row]:
    """The run's funnel, each step with what was lost on the way to it, most first."""
    return [
        {
            "label": step.label,
            "count": step.count,
            "losses": [
                {"reason": reason, "meaning": RULES.get(reason, ""), "count": count}
                for reason, count in sorted(step.losses.items(), key=lambda pair: -pair[1])
            ],
        }
        for step in steps
    ]


def _counts(selection: pa.Table, verdict: str) -> dict[int, int]:
    chosen = selection.column("centroid_id").filter(pc.equal(selection.column("verdict"), verdict))
    return {pair["values"]: pair["counts"] for pair in chosen.value_counts().to_pylist()}


def _verdict_of(selected: Row | None, verdict: Verdict | None) -> Row:
    row: Row = {"verdict": None, "rule": None, "detail": None, "decision": None, "curator": None}
    if selected is not None:
        row |= {name: selected[name] for name in ("verdict", "rule", "detail")}
        row["meaning"] = RULES.get(selected["rule"] or "", "")
    if verdict is not None:
        row |= {"decision": verdict.action, "curator": verdict.curator}
    return row


def _about(found: Row, group: Row, caption: Row) -> Row:
    stands_for_it = group["group"] if group["group"] is not None else found["duplicate_of"]
    return {
        "group": str(stands_for_it) if stands_for_it is not None else None,
        "best": found["best_centroid"],
        "duplicate_of": str(stands_for_it) if stands_for_it not in (None, found["id"]) else None,
        "group_size": group["group_size"] or 1,
        "text": found["caption"],
        "caption": caption["caption"],
        "address": found["url"] or found["key"],
        "link": found["url"] is not None,
    }


def _values_of(value: Row, head: str, filters: FiltersConfig) -> Row:
    known = value["aesthetic"] if not head or value["aesthetic_model"] == head else None
    return {
        "width": value["width"],
        "height": value["height"],
        "aesthetic": _number(known),
        "pwatermark": _number(value["pwatermark"]),
        "punsafe": _number(value["punsafe"]),
        "violence": _number(value["violence"]),
    }


def _short(place: float | None) -> float:
    return round(place, 4) if place is not None and place == place else 0.5


def _number(value: float | None) -> float | None:
    """As it is, so that the browser compares what Python compares; NaN is unknown."""
    return None if value is None or value != value else float(value)
