"""The dataset's rows: what was selected, joined with all that is known of it, each with a caption."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.candidates import column, fetched_reach, read_candidates, rows_of
from curation.caption_choice import NO_CAPTION, Choice, captions_of_family, chosen_captions
from curation.picture_values import read_scores
from curation.verdicts import Verdicts
from spine.added_centroids import read_centroids
from spine.lists import BlockLists
from spine.run import Run
from spine.table_files import read_parts, read_table
from spine.tables import DATASET, IMAGES, SELECTION

_POOL = (
    "id",
    "url",
    "caption",
    "key",
    "alt_txt_similarity",
    "aesthetic",
    "pwatermark",
    "punsafe",
)
_IMAGE = (
    *("width", "height", "original_width", "original_height", "exif"),
    *("sha256", "md5", "pdq", "image_path", "opt_out"),
)
_CAPTION = ("raw_caption", "prompt_id", "model", "family", "finish_reason", "clean_caption")


@dataclass(frozen=True, slots=True)
class Dataset:
    """The rows to be released, and those left out."""

    table: pa.Table
    """Schema DATASET, sorted by centroid and rank."""
    left_out: dict[str, int]
    """Selected rows without a place in it, by reason: uncaptioned_REASON, takedown, hash_block."""


def assemble(run: Run, lists: BlockLists, verdicts: Verdicts) -> Dataset:
    """Join the selected rows with pictures, scores, captions and what the pool says.

    A row without a caption, or on a list by now, is left out and counted. A curator's caption stands in
    `caption`; what the model said stays in `raw_caption` and its own column.

    Args:
        run: With finished captions.
        lists: As they are now.
        verdicts: What curators decided.

    Raises:
        DataError: A table is damaged.
    """
    selection = read_table(run.selection_table, SELECTION)
    selected = selection.filter(pc.equal(selection.column("verdict"), "selected"))
    ids = column(selected, "id")
    images = rows_of(read_parts(run.images, IMAGES), ids)
    pool = _pool_rows(run, ids)
    captions = chosen_captions(run, verdicts.captions, _CAPTION)
    left_out: Counter[str] = Counter()
    keeps = np.zeros(len(ids), dtype=bool)
    known = images.select(["sha256", "md5", "pdq"]).append_column("url", pool.column("url"))
    rules = lists.blocks_all(known.append_column("id", pa.array(ids)))
    for row, (number, rule) in enumerate(zip(ids.tolist(), rules, strict=True)):
        caption = captions.get(number, NO_CAPTION)
        if rule is not None:
            left_out[rule] += 1
        elif caption.text is None:
            left_out[f"uncaptioned_{caption.reason}"] += 1
        else:
            keeps[row] = True
    table = _joined(
        run, selected, images, pool, [captions.get(each, NO_CAPTION) for each in ids.tolist()], verdicts
    )
    return Dataset(table.filter(pa.array(keeps)), dict(sorted(left_out.items())))


def _pool_rows(run: Run, ids: Any) -> pa.Table:
    """What the pool says of each of these pictures."""
    candidates = read_candidates(run, fetched_reach(run), _POOL)
    _, first = np.unique(column(candidates, "id"), return_index=True)
    return rows_of(candidates.take(pa.array(first)), ids)


def _joined(
    run: Run,
    selected: pa.Table,
    images: pa.Table,
    pool: pa.Table,
    captions: list[Choice],
    verdicts: Verdicts,
) -> pa.Table:
    """Schema DATASET: all that is known of each selected row, in their order."""
    labels = read_centroids(run, ["centroid_id", "label"])
    at = pc.index_in(selected.column("centroid_id"), value_set=labels.column("centroid_id").combine_chunks())
    by_person = pc.equal(selected.column("rule"), "person")
    columns = {
        **{name: pool.column(name) for name in ("url", "key", "alt_txt_similarity")},
        "alt_txt": pool.column("caption"),
        **{name: images.column(name) for name in _IMAGE},
        **{name: selected.column(name) for name in ("id", "centroid_id", "rank", "similarity")},
        "centroid_label": labels.column("label").take(at),
        "selected_by": pc.if_else(by_person, selected.column("detail"), pa.scalar(None, pa.string())),
        **_scores(rows_of(read_scores(run), column(selected, "id")), pool),
        **_captions(run, selected.column("id").to_pylist(), captions, verdicts),
    }
    return pa.table(columns, schema=DATASET)


def _scores(scores: pa.Table, pool: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Each score with who gave it: that of the pictures themselves, else the pool's own, which names nobody."""
    columns = {}
    for ours, name in (("aesthetic", "aesthetic"), ("watermark", "pwatermark"), ("unsafe", "punsafe")):
        own = scores.column(ours)
        columns[name] = pc.coalesce(own, pool.column(name))
        model = "punsafe_model" if ours == "unsafe" else f"{ours}_model"
        columns[model] = pc.if_else(
            own.is_valid(), scores.column(f"{ours}_model"), pa.scalar(None, pa.string())
        )
    columns |= {name: scores.column(name) for name in ("violence", "violence_model")}
    return columns | {"nsfw_prediction": columns["punsafe"]}


def _captions(
    run: Run, ids: Sequence[int], captions: Sequence[Choice], verdicts: Verdicts
) -> dict[str, pa.Array]:
    """What was said of each picture: the caption that counts, the model's own, and LAION-POP's two side by side."""
    rows = [caption.row or {} for caption in captions]

    def of_caption(name: str) -> pa.Array:
        return pa.array([row.get(name) for row in rows], pa.string())

    def of_family(family: str) -> pa.Array:
        """Of the caption that counts what its model said; of a family that it isn't of, another captioner's."""
        others = captions_of_family(run, family, verdicts.captions)
        said = (
            row.get("caption") if row.get("family") == family else others.get(number)
            for number, row in zip(ids, rows, strict=True)
        )
        return pa.array(list(said), pa.string())

    cleaned = [
        None if caption.edited_by else row.get("clean_caption")
        for caption, row in zip(captions, rows, strict=True)
    ]
    return {
        "cogvlm_caption": of_family("cogvlm"),
        "llava_caption": of_family("llava"),
        "caption": pa.array([caption.text for caption in captions], pa.string()),
        "caption_edited_by": pa.array([caption.edited_by for caption in captions], pa.string()),
        "clean_caption": pa.array(cleaned, pa.string()),
        "caption_model": of_caption("model"),
        **{name: of_caption(name) for name in ("raw_caption", "caption_id", "prompt_id", "finish_reason")},
    }
