"""A picture's whole story: where it came from, who wanted it, what was measured, who decided, what is said of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.caption_choice import shelved_parts
from curation.decisions import Decisions
from curation.found import FOUND
from curation.links import STATUSES
from curation.passed_over import STATUS
from curation.picture_values import SCORES
from curation.revisions import newest
from spine.added_centroids import read_centroids
from spine.config import load_config
from spine.errors import DataError
from spine.filters import RULES
from spine.lists import BlockLists
from spine.manifest import find_manifest
from spine.places import shown_place
from spine.run import Run, part_paths
from spine.settings import Config
from spine.shards import shards
from spine.table_files import find_rows
from spine.tables import (
    ASKED,
    CAPTIONS,
    DATASET,
    GROUPS,
    IMAGES,
    LINKS,
    METADATA,
    NEIGHBOURS,
    POOL_SIMILARITIES,
    SELECTION,
)

_MINUTE = "%Y-%m-%d %H:%M"
_OF_POOL = ("width", "height", "aesthetic", "pwatermark", "punsafe")

Told = Callable[[str], str]
"""A place, or a message that begins with one, as it is to be told."""


def why(run: Run, picture_id: int, *, places: bool = True) -> list[str]:
    """All that the run knows of one picture, a line each, in the order of the stages.

    Works on a run that isn't finished. Of a picture that a list names no text is quoted.

    Args:
        run: Finished or not.
        picture_id: Of a picture in its neighbours or its pool.
        places: Whether to name folders of this machine; not for who looks from elsewhere.

    Raises:
        DataError: No table of the run has this id.
    """
    # Labels and texts are others': signs that steer a terminal, or turn what is written behind them, are spelled out.
    return [
        "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)
        for line in _lines(run, picture_id, places)
    ]


def _lines(run: Run, picture_id: int, places: bool) -> list[str]:
    config = load_config(run.config)
    neighbours = _rows(part_paths(run.neighbours), NEIGHBOURS, picture_id)
    source = next(iter([*neighbours, *_found(run, picture_id)]), None) or _in_pool(run, picture_id)
    if source is None:
        raise DataError(
            f"{run.folder}: no picture {picture_id} in neighbours/ or pool/; take an id from one of the run's tables"
        )

    def told(text: str) -> str:
        return text if places else shown_place(text, run.folder)

    images = _rows(part_paths(run.images), IMAGES, picture_id)
    rule = _list_rule(run, config, source, images)
    lines = [f"picture {picture_id}", *_source(source, told, quotes=rule is None)]
    if rule is not None:
        lines.append(f"lists: {RULES[rule]}; its texts are not told")
    found = _found(run, picture_id) if not neighbours else []
    neighbours += found
    if not neighbours:
        return [*lines, "retrieve: no centroid has it among its neighbours"]
    lines += ["retrieve: no centroid has it; a search found it, and a person keeps it"] if found else []
    lines += _wanted_by(run, neighbours, picture_id)
    lines += _fetched(images, told)
    lines += _asked(run, picture_id)
    lines += _scored(run, config, source)
    lines += _decisions(run, "image", picture_id)
    lines += _captions(run, picture_id, told) if rule is None else []
    return lines + _released(run, config, picture_id)


def _rows(paths: list[Path], schema: pa.Schema, picture_id: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = find_rows(paths, schema, picture_id).to_pylist()
    return found


def _found(run: Run, picture_id: int) -> list[dict[str, Any]]:
    """Its row where fetch brought it in because a person keeps what a search found."""
    return _rows([run.found_table] if run.found_table.is_file() else [], NEIGHBOURS, picture_id)


def _in_pool(run: Run, picture_id: int) -> dict[str, Any] | None:
    for shard in shards(run.pool):
        table = shard.metadata(METADATA)
        rows: list[dict[str, Any]] = table.filter(pc.equal(table.column("id"), picture_id)).to_pylist()
        if rows:
            return rows[0]
    return None


def _source(row: dict[str, Any], told: Told, *, quotes: bool) -> list[str]:
    lines = [f"source: {told(row['image_path'] or row['url'] or 'neither place nor address')}"]
    if row["image_path"] and row["url"]:
        lines.append(f"  address: {row['url']}")
    if row["caption"] and quotes:
        lines.append(f"  alt text: {' '.join(row['caption'].split())}")
    own = {name: row[name] for name in _OF_POOL if row[name] is not None}
    if own:
        lines.append(f"  the pool says: {', '.join(f'{name} {value:.4g}' for name, value in own.items())}")
    return lines


def _wanted_by(run: Run, neighbours: list[dict[str, Any]], picture_id: int) -> list[str]:
    labels = {}
    if find_manifest(run.centroids) is not None:
        labels = {
            row["centroid_id"]: row["label"]
            if row["added_by"] is None
            else f"{row['label']}, added by {row['added_by']}"
            for row in read_centroids(run, ["centroid_id", "label", "added_by"]).to_pylist()
        }
    images = find_manifest(run.images)
    depths = [] if images is None else images.parameters["depths"]
    selection = [run.selection_table] if find_manifest(run.selection) is not None else []
    verdicts = {row["centroid_id"]: row for row in _rows(selection, SELECTION, picture_id)}
    lines = []
    for row in sorted(neighbours, key=lambda each: -each["similarity"]):
        number = row["centroid_id"]
        line = f"centroid {number} ({labels.get(number)}): rank {row['rank']}, similarity {row['similarity']:.4f}"
        if number in verdicts:
            line += f": {_verdict(verdicts[number])}"
        elif number < len(depths) and row["rank"] >= depths[number]:
            line += f": beyond the depth of {depths[number]} that was fetched"
        lines.append(line)
        lines += [f"  {told}" for told in _decisions(run, "centroid", number)]
    return lines


def _verdict(row: dict[str, Any]) -> str:
    if row["rule"] == row["verdict"]:
        return f"{row['verdict']}: {RULES[row['rule']]}"
    detail = f": {row['detail']}" if row["detail"] else ""
    return f"{row['verdict']} by rule {row['rule']} ({RULES.get(row['rule'], row['rule'])}){detail}"


def _fetched(rows: list[dict[str, Any]], told: Told) -> list[str]:
    if not rows:
        return ["fetch: not asked for"]
    row = rows[0]
    if row["status"] == STATUS:
        return [f"fetch: passed over by rule {row['reason']} ({RULES[row['reason']]}): {row['message']}"]
    if row["status"] != "fetched":
        return [f"fetch: failed, {row['reason']}: {told(row['message'] or '')} ({row['attempts']} attempts)"]
    return [
        f"fetch: {row['format']}, {row['width']} x {row['height']} pixels, {row['size_bytes']:,} bytes, "
        f"sha256 {row['sha256']}",
        f"  kept at: {told(row['image_path'])}",
        *([f"  its host reserves: {row['opt_out']}"] if row["opt_out"] else []),
    ]


def _asked(run: Run, picture_id: int) -> list[str]:
    """When its address was asked, and what it gave when it was asked again."""
    tables = [*part_paths(run.asked_parts), *([run.asked_table] if run.asked_table.is_file() else [])]
    times = [row["asked"] for row in _rows(tables, ASKED, picture_id)]
    lines = [f"  its address was asked at {max(times):{_MINUTE}} UTC"] if times else []
    for row in _rows(part_paths(run.links), LINKS, picture_id):
        what = STATUSES[row["status"]] if row["reason"] is None else f"{row['reason']}: {row['message']}"
        lines.append(f"link: {row['status']} when asked again at {row['asked']:{_MINUTE}} UTC: {what}")
    return lines


def _scored(run: Run, config: Config, source: dict[str, Any]) -> list[str]:
    if find_manifest(run.scores) is None:
        return []
    rows = _rows(part_paths(run.scores), SCORES, source["id"])
    if not rows:
        return ["score: none"]
    row, filters = rows[0], config.filters
    limits = {
        "aesthetic": (source["aesthetic"], "at least", filters.aesthetic_min.value),
        "unsafe": (source["punsafe"], "at most", filters.punsafe_max),
        "watermark": (source["pwatermark"], "at most", filters.pwatermark_max),
        "violence": (None, "at most", filters.violence_max),
    }
    lines = []
    for name, (of_pool, side, limit) in limits.items():
        score, model = (row[name], row[f"{name}_model"]) if row[name] is not None else (of_pool, "the pool")
        wanted = f"{side} {limit:g} wanted" if limit is not None else "no limit set"
        if score is None:
            fate = "kept" if filters.unknown == "keep" else "dropped"
            and_so = f"; unknown ones are {fate}" if limit is not None else ""
            lines.append(f"score: {name} unknown, no head was given, {wanted}{and_so}")
        else:
            lines.append(f"score: {name} {score:.4f} by {model}, {wanted}")
    known = [path for path in (run.pool_similarities_table,) if path.is_file()]
    for row in _rows(known, POOL_SIMILARITIES, source["id"]):
        lines.append(f"score: similarity {row['similarity']:.4f} to the pool's own embedding of it")
    for group in _rows([run.groups_table], GROUPS, source["id"]):
        if group["group_size"] > 1:
            lines.append(
                f"  one of {group['group_size']} near-duplicates; picture {group['group']} stands for them"
            )
    return lines


def _decisions(run: Run, target: str, subject: int | str) -> list[str]:
    history = Decisions.open(run.decisions).history(target=target, subject=subject)
    lines = []
    for event in history:
        where = f" in centroid {event.centroid_id}" if event.centroid_id is not None else ""
        what = f"undid event {event.undoes}" if event.action == "undo" else f"{event.action}{where}"
        text = "by a search" if event.tag == FOUND else event.text
        said = " ".join(each for each in (event.tag, event.reason, text) if each)
        lines.append(
            f"decision {event.event}: {event.curator}, {event.time}: {what}{': ' + said if said else ''}"
        )
    return lines


def _list_rule(run: Run, config: Config, source: dict[str, Any], images: list[dict[str, Any]]) -> str | None:
    """The rule by which a list keeps the picture out now; None if none names it."""
    row = images[0] if images else dict.fromkeys(IMAGES.names)
    return BlockLists.load(config.lists, run.folder).blocks(
        picture_id=source["id"],
        url=source["url"],
        sha256=row["sha256"] or source["sha256"],
        md5=row["md5"],
        pdq=row["pdq"],
    )


def _captions(run: Run, picture_id: int, told: Told) -> list[str]:
    lines = []
    for row in _rows([*part_paths(run.captions), *shelved_parts(run)], CAPTIONS, picture_id):
        by = f"caption {row['caption_id']} by {row['model']}, prompt {row['prompt_id']}"
        if row["status"] == "captioned":
            lines.append(f"{by}: {' '.join(row['caption'].split())}")
        else:
            lines.append(f"{by}: failed, {row['reason']}: {told(row['message'] or '')}")
        lines += [f"  {line}" for line in _decisions(run, "caption", row["caption_id"])]
    return lines


def _released(run: Run, config: Config, picture_id: int) -> list[str]:
    folder = newest(run, config.release.name, config.release.version)
    if find_manifest(folder) is None:
        return []
    inside = bool(_rows([folder / "dataset.parquet"], pa.schema([DATASET.field("id")]), picture_id))
    return [f"release {folder.name}: {'in it' if inside else 'not in it'}"]
