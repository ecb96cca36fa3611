"""Scores of a whole embedding set by the heads, streamed: what can be known of a pool before anything is downloaded.

The same heads as `score` asks, over the vectors as they are stored. `retrieve` fills what the pool doesn't say from
these scores as from a side table; the fetched pictures are scored again, on their own embeddings.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from index_builder.scoring.heads import Head
from index_builder.scoring.scorers import head_sources, load_scorer, model_names
from index_builder.scoring.watermarks import ZERO_SHOT, WatermarkClassifier
from spine.config import load_config
from spine.errors import ConfigError, DataError
from spine.manifest import Manifest, read_manifest
from spine.progress import SILENT, Progress
from spine.publish import publish_table
from spine.run import Run, part_path, part_paths
from spine.settings import Config
from spine.shards import published_shards
from spine.stage import Stage
from spine.tables import METADATA, Vectors

_COLUMNS = {"aesthetic": "aesthetic", "unsafe": "punsafe", "watermark": "pwatermark", "violence": "violence"}
"""Our scores to what a pool's metadata calls them."""

_ROWS = 65_536  # scored at a time


def score_pool(run: Run, *, force: bool = False, progress: Progress = SILENT) -> Manifest:
    """Score every embedding of the pool by the heads on embeddings that [score] names.

    Reads pool/, writes pool-scores/part-*.parquet, one part a shard: hash, and aesthetic, punsafe, pwatermark and
    violence as far as there are heads. Neither CLIP's guess of watermarks nor the classifier on pixels takes part:
    the one would pass for what the pool says, the other needs the pictures.

    Raises:
        ConfigError: [score] names no head on embeddings.
        DataError: pool/ isn't finished or is damaged.
        ModelError: A head can't be loaded, or doesn't fit the embeddings.
    """
    config = load_config(run.config)
    pool = read_manifest(run.pool)
    heads = _heads(config, int(pool.facts["d"]))
    names = {kind: name for kind, name in model_names(config).items() if kind in heads}
    stage = Stage.open("pool_scores", run.pool_scores, names, {"pool": pool.digest}, force=force)
    if stage.published is not None:
        return stage.published
    done = len(part_paths(run.pool_scores))
    progress.begin("score pool", pool.counts["embedded"], "embeddings")
    scored = 0
    for number, shard in enumerate(published_shards(run.pool)):
        ids = shard.metadata(pa.schema([METADATA.field("id")])).column("id")
        if number >= done:
            vectors = shard.vectors()
            if len(vectors) != len(ids):
                raise DataError(
                    f"{shard.vectors_path}: {len(vectors):,} vectors, {len(ids):,} rows of metadata"
                )
            publish_table(part_path(run.pool_scores, number), _table(ids, vectors, heads))
        scored += len(ids)
        progress.advance(len(ids))
    facts = names | {"scales": {kind: head.scale for kind, head in heads.items()}}
    manifest = stage.finish({"scored": scored}, facts)
    progress.end()
    return manifest


def score_embeddings(vectors: Vectors, head: Head) -> Iterator[np.ndarray]:
    """Scores of many embeddings, a bounded number at a time.

    Args:
        vectors: Shape (n, d), float32, values as stored in float16.
        head: Scores them.

    Yields:
        Shape (rows,), float32, in order.
    """
    for start in range(0, len(vectors), _ROWS):
        yield head.score(vectors[start : start + _ROWS])


def _heads(config: Config, d: int) -> dict[str, Head]:
    heads: dict[str, Head] = {}
    for kind, source in head_sources(config.score).items():
        if not source or (kind == "watermark" and source == ZERO_SHOT):
            continue
        loaded = load_scorer(source, kind, d, "cpu")
        if not isinstance(loaded, WatermarkClassifier):
            heads[kind] = loaded
    if not heads:
        raise ConfigError(
            "[score] names no head on embeddings to score the pool by; name one as aesthetic_head or unsafe_head"
        )
    return heads


def _table(ids: pa.ChunkedArray, vectors: Vectors, heads: dict[str, Head]) -> pa.Table:
    columns = {"hash": ids}
    fields = [pa.field("hash", pa.int64())]
    for kind, head in heads.items():
        scores = [np.empty(0, dtype=np.float32), *score_embeddings(vectors, head)]
        columns[_COLUMNS[kind]] = pa.array(np.concatenate(scores), pa.float32())
        about = {"model": head.name, "scale": head.scale}
        fields.append(pa.field(_COLUMNS[kind], pa.float32(), metadata=about))
    return pa.table(columns, schema=pa.schema(fields))
