"""The dataset's rows: what was selected, joined with all that is known of it, each with a caption."""

from collections import Counter
from collections.abc import Mapping
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
from spine.tables import DATASET, IMAGES, SELECTION, read_parts, read_table

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
    urls, hashes = pool.column("url").to_pylist(), images.select(["sha256", "md5", "pdq"]).to_pylist()
    for row, (number, url, known) in enumerate(zip(ids.tolist(), urls, hashes, strict=True)):
        caption = captions.get(number, NO_CAPTION)
        rule = lists.blocks(picture_id=number, url=url, **known)
        if rule is not None:
            left_out[rule] += 1
        elif caption.text is None:
            left_out[f"uncaptioned_{caption.reason}"] += 1
        else:
            keeps[row] = True
    families = {family: captions_of_family(run, family, verdicts.captions) for family in ("cogvlm", "llava")}
    chosen = [captions.get(each, NO_CAPTION) for each in ids.tolist()]
    table = _joined(run, selected, images, pool, chosen, families)
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
    families: Mapping[str, Mapping[int, str]],
) -> pa.Table:
    scores = rows_of(read_scores(run), column(selected, "id"))
    labels = read_centroids(run, ["centroid_id", "label"])
    at = pc.index_in(selected.column("centroid_id"), value_set=labels.column("centroid_id").combine_chunks())
    by_person = pc.equal(selected.column("rule"), "person")
    rows = [caption.row or {} for caption in captions]

    def of_caption(name: str) -> list[Any]:
        return [row.get(name) for row in rows]

    def of_family(family: str) -> list[Any]:
        """Of the caption that counts what its model said; of a family that it isn't of, another captioner's."""
        pairs = zip(selected.column("id").to_pylist(), rows, strict=True)
        return [
            row.get("caption") if row.get("family") == family else families[family].get(number)
            for number, row in pairs
        ]

    unsafe = pc.coalesce(scores.column("unsafe"), pool.column("punsafe"))
    columns = {
        "url": pool.column("url"),
        "key": pool.column("key"),
        "cogvlm_caption": pa.array(of_family("cogvlm"), pa.string()),
        "llava_caption": pa.array(of_family("llava"), pa.string()),
        "nsfw_prediction": unsafe,
        "alt_txt": pool.column("caption"),
        "alt_txt_similarity": pool.column("alt_txt_similarity"),
        **{name: images.column(name) for name in ("width", "height", "original_width", "original_height")},
        "exif": images.column("exif"),
        "id": selected.column("id"),
        "caption": pa.array([caption.text for caption in captions], pa.string()),
        "raw_caption": pa.array(of_caption("raw_caption"), pa.string()),
        "caption_edited_by": pa.array([caption.edited_by for caption in captions], pa.string()),
        "centroid_id": selected.column("centroid_id"),
        "centroid_label": labels.column("label").take(at),
        "rank": selected.column("rank"),
        "similarity": selected.column("similarity"),
        "selected_by": pc.if_else(by_person, selected.column("detail"), pa.scalar(None, pa.string())),
        "aesthetic": pc.coalesce(scores.column("aesthetic"), pool.column("aesthetic")),
        "aesthetic_model": _model(scores, "aesthetic"),
        "pwatermark": pc.coalesce(scores.column("watermark"), pool.column("pwatermark")),
        "watermark_model": _model(scores, "watermark"),
        "punsafe": unsafe,
        "punsafe_model": _model(scores, "unsafe"),
        "sha256": images.column("sha256"),
        "image_path": images.column("image_path"),
        "caption_id": pa.array(of_caption("caption_id"), pa.string()),
        "caption_model": pa.array(of_caption("model"), pa.string()),
        "prompt_id": pa.array(of_caption("prompt_id"), pa.string()),
        "finish_reason": pa.array(of_caption("finish_reason"), pa.string()),
        **{name: images.column(name) for name in ("md5", "pdq", "opt_out")},
        "clean_caption": pa.array(
            [None if caption.edited_by else (caption.row or {}).get("clean_caption") for caption in captions],
            pa.string(),
        ),
    }
    return pa.table(columns, schema=DATASET)


def _model(scores: pa.Table, name: str) -> pa.ChunkedArray:
    """Who gave the score; null where it is the pool's own."""
    return pc.if_else(
        scores.column(name).is_valid(), scores.column(f"{name}_model"), pa.scalar(None, pa.string())
    )
