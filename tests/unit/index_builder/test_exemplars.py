import numpy as np
import pyarrow as pa

from index_builder.scoring.exemplars import exemplar_scores
from index_builder.scoring.heads import load_head
from spine.publish import publish_table
from spine.run import Run
from spine.shards import write_shard
from spine.tables import EXEMPLARS, centroids_schema, list_column


def _run(folder):
    run = Run(folder)
    vectors = np.random.default_rng(0).normal(size=(7, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for number, rows in enumerate((range(4), range(4, 7))):
        metadata = pa.table({"id": pa.array([10 + row for row in rows], pa.int64())})
        write_shard(run.concepts, number, vectors[list(rows)], metadata)
    centroids = {
        "centroid_id": [0, 1],
        "embedding": list_column(vectors[:2], pa.float32()),
        "exemplar_ids": [[16, 11], [11, 13]],
    }
    for field in centroids_schema(128):
        centroids.setdefault(field.name, pa.nulls(2, field.type))
    publish_table(run.centroids_table, pa.table(centroids, schema=centroids_schema(128)))
    return run, vectors.astype(np.float16).astype(np.float32)


def test_each_exemplar_is_scored_from_its_stored_embedding(tmp_path):
    run, stored = _run(tmp_path)
    head = load_head("demo", "unsafe")
    table = exemplar_scores(run, head)

    assert table.schema == EXEMPLARS
    assert table["id"].to_pylist() == [11, 13, 16]
    assert np.allclose(table["unsafe"].to_numpy(), head.score(stored[[1, 3, 6]]), atol=1e-6)
    assert set(table["unsafe_model"].to_pylist()) == {head.name}


def test_without_a_head_the_scores_are_unknown(tmp_path):
    run, _ = _run(tmp_path)
    assert exemplar_scores(run, None)["unsafe"].to_pylist() == [None, None, None]
