import faiss
import numpy as np
import pytest
from faiss.contrib.inspect_tools import get_invlist
from faiss.contrib.ondisk import merge_ondisk

from index_builder.lists import inverted_lists
from index_builder.lists.inverted_lists import InvertedLists
from spine.errors import DataError

N, D, NLIST = 2_000, 16, 20


@pytest.fixture(scope="module")
def whole():
    random = np.random.default_rng(0)
    index = faiss.index_factory(D, f"IVF{NLIST},SQ8", faiss.METRIC_INNER_PRODUCT)
    vectors = random.standard_normal((N, D)).astype(np.float32)
    index.train(vectors)
    index.add(vectors[: N // 2])
    return index


def mapped(index, path):
    faiss.write_index(index, str(path))
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)


def on_disk(index, folder):
    """As clip-retrieval leaves an index that is larger than memory."""
    faiss.write_index(index, str(folder / "block"))
    empty = faiss.clone_index(index)
    empty.reset()
    merge_ondisk(empty, [str(folder / "block")], str(folder / "merged_index.ivfdata"))
    faiss.write_index(empty, str(folder / "populated.index"))
    return faiss.read_index(str(folder / "populated.index"), faiss.IO_FLAG_ONDISK_SAME_DIR)


@pytest.mark.parametrize("read_bytes", [1, 3_000, 2**23])
@pytest.mark.parametrize("way", ["memory", "mapped", "on disk"])
def test_each_list_comes_once_as_faiss_holds_it(tmp_path, whole, way, read_bytes, monkeypatch):
    monkeypatch.setattr(inverted_lists, "READ_BYTES", read_bytes)
    path = tmp_path / "index" if way == "mapped" else tmp_path
    index = {
        "memory": lambda: whole,
        "mapped": lambda: mapped(whole, path),
        "on disk": lambda: on_disk(whole, path),
    }
    opened = index[way]()
    lists = InvertedLists(opened, path)
    wanted = lists.order[[0, 1, 2, 5, 6, 11, 19]]

    found = {each.number: (each.codes.copy(), each.rows.copy()) for each in lists.read(wanted)}

    assert list(found) == wanted.tolist()
    assert lists.on_disk == (way != "memory")
    for number, (codes, rows) in found.items():
        known_rows, known_codes = get_invlist(whole.invlists, number)
        np.testing.assert_array_equal(rows, known_rows)
        np.testing.assert_array_equal(codes, known_codes)
    if lists.on_disk:  # what comes between the lists of one read is room that they left
        assert lists.bytes_of(wanted) <= lists.bytes_read <= 1.4 * lists.bytes_of(wanted)


def test_a_mapped_file_is_read_to_the_byte(tmp_path, whole):
    lists = InvertedLists(mapped(whole, tmp_path / "index"), tmp_path / "index")

    for numbers in (lists.order, lists.order[::3], lists.order[:0]):
        before = lists.bytes_read
        assert len(list(lists.read(numbers))) == len(numbers)
        assert lists.bytes_read - before == lists.bytes_of(numbers)


def test_empty_lists_are_left_out(tmp_path, whole):
    index = faiss.clone_index(whole)
    index.reset()
    lists = InvertedLists(mapped(index, tmp_path / "index"), tmp_path / "index")

    assert list(lists.read(lists.order)) == []


def test_a_file_that_changed_since_it_was_opened_is_refused(tmp_path, whole):
    path = tmp_path / "index"
    lists = InvertedLists(mapped(whole, path), path)
    other = faiss.clone_index(whole)
    other.reset()
    other.add(np.random.default_rng(7).standard_normal((N, D)).astype(np.float32))

    path.unlink()
    with pytest.raises(DataError, match="was the index moved"):
        list(lists.read(lists.order))
    faiss.write_index(other, str(path))
    with pytest.raises(DataError, match="changed since it was opened"):
        list(lists.read(lists.order))
    path.write_bytes(path.read_bytes()[:3_000])
    with pytest.raises(DataError, match="ends at byte 3,000"):
        list(lists.read(lists.order))
