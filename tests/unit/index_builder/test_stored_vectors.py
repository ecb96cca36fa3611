import numpy as np
import pytest

from index_builder.numerics import stored_vectors
from index_builder.numerics.stored_vectors import StoredVectors
from spine.errors import DataError
from tests.unit.index_builder.scattered import unit

D = 16


@pytest.fixture(scope="module")
def vectors():
    return unit(np.random.default_rng(0).standard_normal((1_000, D)))


@pytest.fixture
def stored(tmp_path, vectors):
    """Three files, the second without a row."""
    paths = []
    for number, rows in enumerate((slice(0, 300), slice(300, 300), slice(300, 1_000))):
        paths.append(tmp_path / f"{number}.npy")
        np.save(paths[-1], vectors[rows].astype(np.float16))
    return StoredVectors(paths)


@pytest.mark.parametrize(
    "rows",
    [
        slice(None),
        slice(250, 350),
        slice(990, 2_000),
        slice(5, 5),
        np.array([999, 0, 300, 299, 299]),
        np.arange(0, 1_000, 7),
    ],
)
def test_rows_of_many_files_come_in_the_order_asked_at_norm_one(stored, vectors, rows):
    found = stored[rows]

    assert stored.shape == (1_000, D) and found.dtype == np.float32
    np.testing.assert_allclose(found, vectors[rows], atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_blocks_are_all_rows_in_order(stored, vectors, monkeypatch):
    monkeypatch.setattr(stored_vectors, "BLOCK_BYTES", 4 * D * 256)

    blocks = list(stored.blocks())

    assert [first for first, _ in blocks] == [0, 256, 512, 768]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), stored[:])
    assert [len(block) for _, block in stored.blocks(700, 1_000)] == [256, 44]


def test_a_row_that_is_no_embedding_is_told_with_its_file(tmp_path, vectors):
    wrong = vectors.astype(np.float16)
    wrong[7, 3] = np.nan
    np.save(tmp_path / "a.npy", wrong)

    with pytest.raises(DataError, match=r"a\.npy: 1 of 10 embeddings have not norm 1, row 7"):
        StoredVectors([tmp_path / "a.npy"])[0:10]


def test_files_that_do_not_fit_each_other_are_refused(tmp_path, vectors):
    np.save(tmp_path / "a.npy", vectors)
    np.save(tmp_path / "b.npy", vectors[:, :8])
    np.save(tmp_path / "c.npy", np.arange(5))

    with pytest.raises(DataError, match=r"dimension \[8, 16\]"):
        StoredVectors([tmp_path / "a.npy", tmp_path / "b.npy"])
    with pytest.raises(DataError, match=r"c\.npy: shape \(5,\) of int64"):
        StoredVectors([tmp_path / "c.npy"])
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-100])
    with pytest.raises(DataError, match=r"a\.npy: can't be read"):
        StoredVectors([tmp_path / "a.npy"])
