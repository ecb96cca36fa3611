import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index_builder.bulk_query import RESULTS, bulk_query
from index_builder.index_folder import INDEX_FILE, IndexFolder
from spine.errors import DataError

N, D = 2_000, 24


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors():
    return unit(np.random.default_rng(0).standard_normal((N, D)))


@pytest.fixture(scope="module")
def queries():
    return unit(np.random.default_rng(1).standard_normal((70, D)))


def opened(folder, vectors, kind="Flat"):
    index = faiss.index_factory(D, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    (folder / "metadata").mkdir(parents=True)
    faiss.write_index(index, str(folder / INDEX_FILE))
    table = pa.table(
        {"url": [f"http://x/{row}" for row in range(N)], "similarity": [0.3] * N, "row": ["theirs"] * N}
    )
    pq.write_table(table, folder / "metadata" / "0.parquet")
    return IndexFolder.open(folder)


@pytest.mark.parametrize("block", [1, 7, 70, 1_000])
def test_the_blocks_together_are_the_exact_neighbours_whatever_their_size(tmp_path, vectors, queries, block):
    blocks = list(bulk_query(opened(tmp_path, vectors), queries, 9, columns=["url"], block=block))

    assert len(blocks) == -(-70 // block)
    table = pa.concat_tables(blocks)
    known = np.argsort(-(queries @ vectors.T), axis=1)[:, :9]
    assert table.column("query").to_pylist() == np.repeat(np.arange(70), 9).tolist()
    assert table.column("rank").to_pylist() == np.tile(np.arange(9), 70).tolist()
    assert table.column("row").to_pylist() == known.ravel().tolist()
    assert table.column("url").to_pylist() == [f"http://x/{row}" for row in known.ravel()]
    np.testing.assert_allclose(
        table.column("similarity").to_numpy(),
        np.take_along_axis(queries @ vectors.T, known, 1).ravel(),
        atol=1e-6,
    )


def test_lists_searched_one_query_at_a_time_give_the_same(tmp_path, vectors, queries):
    index = opened(tmp_path, vectors, "IVF32,SQ8")

    table = pa.concat_tables(bulk_query(index, queries, 5, nprobe=4, columns=[], block=16))

    single = np.concatenate([index.search(query[None], 5, nprobe=4)[1] for query in queries])
    assert table.column("row").to_pylist() == single.ravel().tolist()


def test_a_query_with_fewer_neighbours_has_fewer_rows(tmp_path, vectors, queries):
    index = opened(tmp_path, vectors, "IVF100,Flat")

    table = pa.concat_tables(bulk_query(index, queries, 100, nprobe=1, columns=[]))

    sizes = np.bincount(table.column("query").to_numpy(), minlength=70)
    assert sizes.min() > 0 and sizes.max() < 100
    assert table.schema.equals(RESULTS)
    assert table.column("rank").to_pylist() == [rank for size in sizes for rank in range(size)]


def test_a_pools_own_columns_make_way_for_those_of_the_answer(tmp_path, vectors, queries):
    table = next(bulk_query(opened(tmp_path, vectors), queries, 2))

    assert table.column_names == ["query", "rank", "row", "similarity", "url", "alt_txt_similarity"]
    assert set(table.column("alt_txt_similarity").to_pylist()) == {0.3}


def test_no_queries_give_no_blocks_and_wrong_ones_are_refused(tmp_path, vectors, queries):
    index = opened(tmp_path, vectors)

    assert list(bulk_query(index, queries[:0], 5)) == []
    for arguments in ({"k": 0}, {"k": 5, "columns": ["hue"]}, {"k": 5, "block": 0}, {"k": 5, "nprobe": -1}):
        with pytest.raises(DataError):
            list(bulk_query(index, queries, **arguments))
