"""How unsafe the centroids' exemplars are: concept pictures, which no fetch brings in and no score judges."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from index_builder.scoring.heads import Head
from spine.run import Run
from spine.shards import read_shards
from spine.table_files import read_table
from spine.tables import EXEMPLARS, METADATA


def exemplar_scores(run: Run, head: Head | None) -> pa.Table:
    """The unsafe score of every exemplar, from its stored embedding.

    Args:
        run: With finished concepts and centroids.
        head: The NSFW head; None leaves the scores unknown.

    Returns:
        Schema EXEMPLARS, in order of id.
    """
    lists = read_table(run.centroids_table, pa.schema([("exemplar_ids", pa.list_(pa.int64()))]))
    wanted = pc.unique(pc.list_flatten(lists["exemplar_ids"]))
    parts = [EXEMPLARS.empty_table()]
    for vectors, rows in read_shards(run.concepts, pa.schema([METADATA.field("id")])):
        hits = np.flatnonzero(pc.is_in(rows["id"], wanted).to_numpy(zero_copy_only=False))
        if not len(hits):
            continue
        scores = (
            pa.nulls(len(hits), pa.float32())
            if head is None
            else pa.array(head.score(vectors[hits]), pa.float32())
        )
        names = pa.array([None if head is None else head.name] * len(hits), pa.string())
        columns = [rows["id"].take(hits).combine_chunks(), scores, names]
        parts.append(pa.Table.from_arrays(columns, schema=EXEMPLARS))
    return pa.concat_tables(parts).sort_by("id")
