"""What is known of each candidate picture: measured where it was fetched, else as the pool says."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.assignment import Mask
from curation.candidates import Ints, Pictures, Reach, read_candidates, rows_of
from curation.passed_over import STATUS
from spine.run import Run, part_paths
from spine.table_files import read_parts, read_table
from spine.tables import GROUPS, IMAGES, POOL_SIMILARITIES

_POOL = ("id", "url", "sha256", "width", "height", "aesthetic", "pwatermark", "punsafe")
_IMAGE = ("id", "status", "reason", "sha256", "md5", "pdq", "width", "height")
SCORES = pa.schema(
    [
        ("id", pa.int64()),
        ("aesthetic", pa.float32()),
        ("aesthetic_model", pa.string()),
        ("unsafe", pa.float32()),
        ("unsafe_model", pa.string()),
        ("watermark", pa.float32()),
        ("watermark_model", pa.string()),
        ("violence", pa.float32()),
        ("violence_model", pa.string()),
    ]
)
"""Columns of spine.tables.scores_schema but the embedding, which is not needed to decide."""


@dataclass(frozen=True, slots=True)
class PictureValues:
    """One entry a picture, in the order of their ids."""

    table: pa.Table
    """What spine.filters.judge reads, m rows: width, height, pwatermark, punsafe, violence, aesthetic and
    aesthetic_model."""
    fetched: Mask
    passed_over: Mask
    """Not fetched for what the pool says of it; `reason` is the filter."""
    reason: Sequence[str | None]
    """Why it could not be fetched."""
    scored: Mask
    pool_similarity: npt.NDArray[np.float32]
    """To the pool's own embedding of it; NaN where it has none."""
    group: Ints
    """Id that stands for its near-duplicates; its own where it has none."""
    area: Ints
    """Pixels, 0 where unknown."""
    named_by: pa.Table
    """What lists know them by, as spine.tables.IMAGES has it: id, url, sha256, md5, pdq."""


def read_values(run: Run, pictures: Pictures, reach: Reach) -> PictureValues:
    """Join the pool's columns, the fetched pictures and their scores.

    A score of the pictures themselves counts before the pool's own; a measured size likewise.

    Args:
        run: With finished neighbours, images and scores.
        pictures: Of the candidates within reach.
        reach: That reach.
    """
    pool = read_candidates(run, reach, _POOL).take(pa.array(pictures.first_row))
    image = rows_of(read_parts(run.images, IMAGES, _IMAGE), pictures.ids)
    score = rows_of(read_scores(run), pictures.ids)
    group = rows_of(read_table(run.groups_table, GROUPS), pictures.ids).column("group")
    fetched, rejected = (
        np.asarray(pc.equal(image.column("status"), status).fill_null(False).to_numpy(), dtype=bool)
        for status in ("fetched", STATUS)
    )
    width, height = (pc.coalesce(image.column(name), pool.column(name)) for name in ("width", "height"))
    own = score.column("aesthetic")
    table = pa.table(
        {
            "width": width,
            "height": height,
            "aesthetic": pc.coalesce(own, pool.column("aesthetic")),
            # The pool doesn't say whose its own score is.
            "aesthetic_model": pc.if_else(own.is_valid(), score.column("aesthetic_model"), None),
            "pwatermark": pc.coalesce(score.column("watermark"), pool.column("pwatermark")),
            "punsafe": pc.coalesce(score.column("unsafe"), pool.column("punsafe")),
            "violence": score.column("violence"),
        }
    )
    area = pc.multiply(width.cast(pa.int64()), height.cast(pa.int64())).fill_null(0)
    return PictureValues(
        table=table,
        fetched=fetched,
        passed_over=rejected,
        reason=pc.coalesce(image.column("reason"), pa.scalar("not asked for")).to_pylist(),
        scored=np.asarray(score.column("id").is_valid().to_numpy(), dtype=bool),
        pool_similarity=np.asarray(
            rows_of(read_pool_similarities(run), pictures.ids).column("similarity").to_numpy(),
            dtype=np.float32,
        ),
        group=np.asarray(pc.coalesce(group, pa.chunked_array([pictures.ids])).to_numpy(), dtype=np.int64),
        area=np.asarray(area.to_numpy(), dtype=np.int64),
        named_by=pa.table(
            {
                "id": pictures.ids,
                "url": pool.column("url"),
                "sha256": pc.coalesce(image.column("sha256"), pool.column("sha256")),
                **{name: image.column(name) for name in ("md5", "pdq")},
            }
        ),
    )


def read_scores(run: Run) -> pa.Table:
    """Scores of the fetched pictures, without their embeddings."""
    parts = [read_table(path, SCORES) for path in part_paths(run.scores)]
    return pa.concat_tables(parts) if parts else SCORES.empty_table()


def read_pool_similarities(run: Run) -> pa.Table:
    """Schema POOL_SIMILARITIES; empty where the scores are from before there was such a table."""
    if not run.pool_similarities_table.is_file():
        return POOL_SIMILARITIES.empty_table()
    return read_table(run.pool_similarities_table, POOL_SIMILARITIES)
