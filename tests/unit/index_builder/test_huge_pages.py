import mmap
from pathlib import Path

import faiss
import numpy as np
import pytest

from index_builder.numerics import huge_pages
from index_builder.numerics.huge_pages import HUGE_PAGE, index_into_huge_pages, into_huge_pages


def huge_bytes(array: np.ndarray) -> int:
    """Of the mapping that holds the array's middle, as the system counts them."""
    middle, inside = array.ctypes.data + array.nbytes // 2, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        first = line.split(maxsplit=1)[0]
        if "-" in first:
            start, end = (int(part, 16) for part in first.split("-"))
            inside = start <= middle < end
        elif inside and first == "AnonHugePages:":
            return int(line.split()[1]) * 1024
    return 0


def test_an_array_moved_to_huge_pages_is_the_same_array():
    memory = mmap.mmap(-1, 8 * HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    array = np.frombuffer(memory, dtype=np.uint8)
    array[:] = np.random.default_rng(0).integers(0, 256, size=len(array), dtype=np.uint8)
    before, address = array.copy(), array.ctypes.data
    moved = into_huge_pages(array)
    if not moved:
        pytest.skip("this system gives no huge pages at once")
    assert moved in (7 * HUGE_PAGE, 8 * HUGE_PAGE)  # as it lies
    assert huge_bytes(array) >= moved
    assert array.ctypes.data == address
    assert np.array_equal(array, before)


@pytest.mark.parametrize("kind", ["Flat", "HNSW16", "RR64,Flat", "IVF16,Flat"])
def test_an_index_finds_the_same_from_huge_pages(kind):
    vectors = np.random.default_rng(1).standard_normal((20_000, 64), dtype=np.float32)
    index = faiss.index_factory(64, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    expected = index.search(vectors[:20], 10)
    thread = index_into_huge_pages(index)
    if kind == "IVF16,Flat":  # its lists are small arrays
        assert thread is None
    elif thread is not None:
        thread.join()
    distances, rows = index.search(vectors[:20], 10)
    assert np.array_equal(distances, expected[0])
    assert np.array_equal(rows, expected[1])


def test_a_system_that_gives_none_is_left_alone(tmp_path, monkeypatch):
    index = faiss.IndexFlatIP(64)
    index.add(np.ones((20_000, 64), dtype=np.float32))
    for words in ("always madvise [never]\n", None):
        policy = tmp_path / f"policy {words}"
        if words is not None:
            policy.write_text(words, encoding="ascii")
        monkeypatch.setattr(huge_pages, "_POLICY", policy)
        assert index_into_huge_pages(index) is None
