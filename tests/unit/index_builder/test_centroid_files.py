import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index_builder.retrieval.centroid_files import read_centroids
from spine.errors import DataError

VECTORS = np.random.default_rng(0).standard_normal((5, 4))
UNIT = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_rows_of_an_npy_file_are_scaled_to_norm_1_and_numbered(tmp_path, dtype):
    np.save(tmp_path / "c.npy", VECTORS.astype(dtype))

    found = read_centroids(tmp_path / "c.npy")

    assert found.ids.tolist() == [0, 1, 2, 3, 4] and found.vectors.dtype == np.float32
    np.testing.assert_allclose(found.vectors, UNIT, atol=1e-3 if dtype is np.float16 else 1e-6)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.list_(pa.float16(), 4), pa.large_list(pa.float64())]
)
def test_parquet_gives_embeddings_and_ids(tmp_path, kind):
    embeddings = pa.array(VECTORS.astype(np.float16).tolist(), pa.list_(pa.float64())).cast(kind)
    table = pa.table({"name": list("abcde"), "embedding": embeddings, "centroid_id": [9, 3, 70, -1, 2**40]})
    pq.write_table(table, tmp_path / "c.parquet")

    found = read_centroids(tmp_path / "c.parquet")

    assert found.ids.tolist() == [9, 3, 70, -1, 2**40]
    np.testing.assert_allclose(found.vectors, UNIT, atol=1e-3)


def changed(row, value):
    vectors = VECTORS.copy()
    vectors[row] = value
    return vectors


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (changed(3, np.nan), "row 3 holds NaN or infinity; finite numbers were needed; 1 of 5 rows"),
        (changed([1, 4], np.inf), "row 1 holds NaN or infinity; finite numbers were needed; 2 of 5 rows"),
        (changed(2, 0), "row 2 holds nothing but zeros; a direction was needed; 1 of 5 rows"),
        (VECTORS[0], r"float64 of shape \(4,\), numbers of shape \(centroids, dimension\)"),
        (VECTORS[:0], r"shape \(0, 4\)"),
        (np.array([["a", "b"]]), "<U1 of shape"),
        (np.array([[{}]], dtype=object), "can't be read as .npy"),
    ],
)
def test_what_is_wrong_with_an_array_is_said(tmp_path, array, words):
    np.save(tmp_path / "c.npy", array, allow_pickle=True)

    with pytest.raises(DataError, match=words):
        read_centroids(tmp_path / "c.npy")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"vector": [[1.0]]}, "columns vector; embedding was needed"),
        ({"embedding": [1.0]}, "embedding is double, lists"),
        ({"embedding": [[1.0, 2.0], [3.0]]}, r"embeddings of \[1, 2\] numbers; one length"),
        ({"embedding": [[1.0, 2.0], None]}, "one length for all"),
        ({"embedding": [[1.0, None]]}, "holds nulls"),
        ({"embedding": [["a"]]}, "embedding is list<"),
        ({"embedding": [[1.0], [2.0]], "centroid_id": [5, 5]}, "centroid_id 5 comes twice"),
        ({"embedding": [[1.0]], "centroid_id": ["a"]}, "whole numbers were needed"),
        ({"embedding": [[np.nan]]}, "row 0 holds NaN"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path, columns, words):
    pq.write_table(pa.table(columns), tmp_path / "c.parquet")

    with pytest.raises(DataError, match=words):
        read_centroids(tmp_path / "c.parquet")


def test_files_that_are_not_what_their_name_says(tmp_path):
    for name in ("c.npy", "c.parquet", "c.txt"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(DataError, match="can't be read as"):
            read_centroids(tmp_path / name)
    with pytest.raises(DataError, match="no such file"):
        read_centroids(tmp_path / "nowhere.npy")
