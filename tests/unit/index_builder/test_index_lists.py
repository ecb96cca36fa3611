import faiss
import numpy as np
import pytest

from index_builder.indexing.index_lists import part_rows, put_together, set_nprobe, write_parts
from index_builder.numerics.stored_vectors import StoredVectors
from spine.errors import DataError
from spine.progress import SILENT

N, D = 12_000, 32


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors")
    vectors = np.random.default_rng(0).standard_normal((N, D))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for number, rows in enumerate(np.array_split(vectors, 3)):
        np.save(folder / f"{number}.npy", rows.astype(np.float16))
    return StoredVectors(sorted(folder.glob("*.npy")))


def trained(stored, key):
    index = faiss.index_factory(D, key, faiss.METRIC_INNER_PRODUCT)
    index.train(stored[:])
    return index


def written_in_parts(stored, index, folder, rows=5_000):
    parts = [folder / f"part-{number}" for number in range(-(-N // rows))]
    write_parts(index, stored, parts, rows, SILENT)
    return parts


@pytest.mark.parametrize(
    "key",
    [
        "IVF16,Flat",
        "IVF16,SQ8",
        "RR32,IVF16,RaBitQ",
        "RR32,IVF16,RaBitQ2",
        "PCA16,IVF32_HNSW8,PQ8x4",
    ],
)
def test_parts_put_together_are_the_index_built_at_once_byte_for_byte(tmp_path, stored, key):
    index = trained(stored, key)
    whole = faiss.clone_index(index)
    for start in range(0, N, 5_000):  # a matrix product's last bits depend on how many rows it has
        for _, block in stored.blocks(start, min(start + 5_000, N)):
            whole.add(block)
    faiss.write_index(whole, str(tmp_path / "at once"))

    put_together(index, N, written_in_parts(stored, index, tmp_path), tmp_path / "put together")

    assert (tmp_path / "put together").read_bytes() == (tmp_path / "at once").read_bytes()
    assert index.ntotal == 0


def test_lists_that_are_mostly_empty_are_written_as_faiss_writes_them(tmp_path, stored):
    index = faiss.index_factory(D, "IVF200,Flat", faiss.METRIC_INNER_PRODUCT)
    # Far away from all vectors, but for the first three middles.
    middles = np.concatenate(
        [stored[:3], np.tile(-stored[:1] * 50, (197, 1)) - np.arange(197)[:, None] * stored[:1]]
    )
    index.quantizer.add(middles.astype(np.float32))
    index.is_trained = True
    whole = faiss.clone_index(index)
    whole.add(stored[:])
    faiss.write_index(whole, str(tmp_path / "at once"))

    put_together(index, N, written_in_parts(stored, index, tmp_path), tmp_path / "put together")

    assert sum(whole.invlists.list_size(i) > 0 for i in range(200)) < 100
    assert (tmp_path / "put together").read_bytes() == (tmp_path / "at once").read_bytes()


def test_parts_that_are_there_are_not_written_again(tmp_path, stored):
    index = trained(stored, "IVF16,SQ8")
    parts = written_in_parts(stored, index, tmp_path)
    times = [part.stat().st_mtime_ns for part in parts]
    parts[1].unlink()

    written_in_parts(stored, index, tmp_path)

    assert [part.stat().st_mtime_ns == time for part, time in zip(parts, times, strict=True)] == [
        True,
        False,
        True,
    ]


def test_a_cut_or_missing_part_is_told(tmp_path, stored):
    index = trained(stored, "IVF16,SQ8")
    parts = written_in_parts(stored, index, tmp_path)
    with pytest.raises(DataError, match="10,000 rows in the parts, 12,000 were needed"):
        put_together(index, N, parts[:2], tmp_path / "index")
    parts[2].write_bytes(parts[2].read_bytes()[:-1_000])

    with pytest.raises(DataError, match="a part is damaged"):
        put_together(index, N, parts, tmp_path / "index")
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("key", ["IVF16,SQ8", "PCA16,IVF32_HNSW8,PQ8x4", "IVF16,PQ16x4fs", "IVF16,RaBitQfs"])
def test_nprobe_is_written_for_other_readers_and_nothing_else_changes(tmp_path, stored, key):
    whole = trained(stored, key)
    whole.add(stored[:])
    for name, nprobe in (("before", 1), ("wanted", 7)):
        faiss.extract_index_ivf(whole).nprobe = nprobe
        faiss.write_index(whole, str(tmp_path / name))

    set_nprobe(tmp_path / "before", 7)

    assert (tmp_path / "before").read_bytes() == (tmp_path / "wanted").read_bytes()


def test_a_part_takes_a_quarter_of_the_memory_at_most(stored):
    index = trained(stored, "IVF16,SQ8")  # 32 bytes a vector, and 8 for its row number

    assert part_rows(index, 400 * 10**6) == 2_500_000
    assert part_rows(index, 10**12) == 2**28 // 40
    assert part_rows(index, 1_000) == 2**20 // 40
