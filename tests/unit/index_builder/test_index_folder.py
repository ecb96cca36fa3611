import threading

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faiss.contrib.ondisk import merge_ondisk

from index_builder.bulk_query import nearest
from index_builder.indexing import index_file
from index_builder.indexing.index_file import INDEX_FILE, VECTORS_FILE
from index_builder.indexing.index_folder import IndexFolder
from index_builder.metadata.metadata_rows import MetadataRows, write_metadata
from index_builder.numerics.sign_blocks import takes
from spine.errors import DataError
from spine.publish import publish_array
from spine.stage import Stage
from tests.unit.index_builder.scattered import near, scattered, unit

N, D = 3_000, 32


@pytest.fixture(scope="module")
def vectors():
    return scattered(N, D)


@pytest.fixture(scope="module")
def queries(vectors):
    return near(vectors, 50)


def exact(vectors, queries, k):
    similarities = queries @ vectors.T
    rows = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarities, rows, axis=1), rows


def foreign(folder, vectors, kind="Flat", metric=faiss.METRIC_INNER_PRODUCT, parts=1):
    """A folder as clip-retrieval makes it: Parquet metadata, no manifest."""
    index = faiss.index_factory(vectors.shape[1], kind, metric)
    index.train(vectors)
    index.add(vectors)
    (folder / "metadata").mkdir(parents=True)
    faiss.write_index(index, str(folder / INDEX_FILE))
    for part, rows in enumerate(np.array_split(np.arange(len(vectors)), parts)):
        table = pa.table(
            {"url": [f"http://x/{row}" for row in rows], "NSFW": ["UNLIKELY"] * len(rows), "WIDTH": rows}
        )
        pq.write_table(table, folder / "metadata" / f"metadata_{part}.parquet", row_group_size=97)
    return folder


def ours(folder, vectors, kind="IVF16,RaBitQfs", *, said=(N, D), sidecar=True, **facts):
    """A folder with manifest, Arrow metadata and exact vectors."""
    stage = Stage.open("index", folder, {}, {})
    index = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(folder / INDEX_FILE))
    write_metadata(folder / "metadata" / "0.arrow", pa.table({"id": np.arange(len(vectors)) * 7}))
    if sidecar:
        publish_array(folder / VECTORS_FILE, vectors.astype(np.float16))
    facts |= {"n": said[0], "d": said[1], "nprobe": 16, "model": "some model", "demo_models": True}
    stage.finish({}, facts)
    return folder


@pytest.mark.parametrize("memory_map", [True, False])
@pytest.mark.parametrize("metric", [faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2])
def test_a_flat_index_gives_the_exact_neighbours(tmp_path, vectors, queries, metric, memory_map):
    index = IndexFolder.open(foreign(tmp_path, vectors, metric=metric), memory_map=memory_map)

    similarities, rows = index.search(queries, 10)

    known, known_rows = exact(vectors, queries, 10)
    np.testing.assert_allclose(similarities, known, atol=2e-6)
    assert (rows == known_rows).mean() > 0.99  # rounding may swap two equal ones
    assert (index.n, index.d, index.nprobe, index.model) == (N, D, 0, None)


@pytest.mark.parametrize("kind", ["IVF32,SQ8", "RR32,IVF32,SQ8", "IVF32,Flat", "IVF32_HNSW16,SQ8"])
def test_nprobe_travels_with_each_search_through_every_kind_of_lists(tmp_path, vectors, kind):
    queries = unit(np.random.default_rng(6).standard_normal((50, D)))  # between the lists
    index = IndexFolder.open(foreign(tmp_path, vectors, kind))
    known = exact(vectors, queries, 10)[1]

    recalls = {
        nprobe: np.mean(
            [
                len(np.intersect1d(a, b)) / 10
                for a, b in zip(index.search(queries, 10, nprobe=nprobe)[1], known, strict=True)
            ]
        )
        for nprobe in (1, 4, 32, 10_000)
    }

    assert recalls[1] < recalls[4] < recalls[32] == recalls[10_000]
    assert recalls[32] > 0.9
    assert index.nprobe == 1
    np.testing.assert_array_equal(index.search(queries, 10)[1], index.search(queries, 10, nprobe=1)[1])


@pytest.mark.parametrize("metric", [faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2])
@pytest.mark.parametrize("kind", ["Flat", "HNSW8", "IVF32,SQ8", "RR32,IVF32_HNSW8,SQ8"])
def test_rows_and_vectors_found_at_once_are_those_found_one_after_the_other(
    tmp_path, vectors, queries, kind, metric
):
    index = IndexFolder.open(foreign(tmp_path, vectors, kind, metric=metric))

    together = index.search_with_vectors(queries[:5], 30, nprobe=3)

    known, known_rows = index.search(queries[:5], 30, nprobe=3)
    for q, (similarities, rows, found) in enumerate(together):
        there = known_rows[q] >= 0
        np.testing.assert_array_equal(rows, known_rows[q][there])
        np.testing.assert_allclose(similarities, known[q][there], atol=1e-6)
        np.testing.assert_allclose(found, index.reconstruct(rows), atol=1e-6)


def test_codes_that_give_no_vectors_back_say_so(tmp_path, vectors):
    index = IndexFolder.open(foreign(tmp_path, vectors, "IVF32,PQ8x4fs"))
    with pytest.raises(DataError, match="fast-scan codes give no vectors back"):
        index.reconstruct(np.array([0, 1]))
    with pytest.raises(DataError, match="fast-scan codes give no vectors back"):
        index.search_with_vectors(vectors[:1], 5)


def test_product_codes_open_however_small_their_file_is(tmp_path, vectors):
    """Their tables for L2 may be larger than the file, which is FAISS's limit while it reads."""
    for metric in (faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2):
        folder = foreign(tmp_path / str(metric), vectors, "IVF32,PQ8x8", metric=metric)
        file = folder / INDEX_FILE
        assert file.stat().st_size < 32 * 8 * 256 * 4
        known = faiss.read_index(str(file)).search(vectors[:20], 5)[1]
        assert (IndexFolder.open(folder).search(vectors[:20], 5)[1] == known).mean() > 0.9  # but for equals


def test_lists_that_memory_holds_are_searched_without_threads_that_read_ahead(tmp_path, vectors, monkeypatch):
    folder = foreign(tmp_path, vectors, "IVF32,SQ8")
    threads = []
    for memory in (1 << 40, 1_000):
        monkeypatch.setattr("index_builder.indexing.index_file.memory_bytes", lambda memory=memory: memory)
        opened = IndexFolder.open(folder)
        lists = faiss.downcast_InvertedLists(faiss.extract_index_ivf(opened.faiss_index()).invlists)
        threads.append(lists.prefetch_nthread)
    assert threads[0] == 0 < threads[1]


def test_searches_with_different_nprobe_do_not_disturb_each_other(tmp_path, vectors, queries):
    index = IndexFolder.open(foreign(tmp_path, vectors, "IVF32,SQ8"))
    alone = {nprobe: index.search(queries, 10, nprobe=nprobe)[1] for nprobe in (1, 2, 8, 32)}
    wrong = []

    def search(nprobe):
        for _ in range(30):
            if not np.array_equal(index.search(queries, 10, nprobe=nprobe)[1], alone[nprobe]):
                wrong.append(nprobe)

    threads = [threading.Thread(target=search, args=(nprobe,)) for nprobe in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_coarse_codes_are_ranked_on_the_vectors_beside_them(tmp_path, vectors, queries):
    known_similarities, known = exact(vectors, queries, 10)
    recall = {}
    for sidecar in (True, False):
        index = IndexFolder.open(ours(tmp_path / str(sidecar), vectors, sidecar=sidecar))
        similarities, rows = index.search(queries, 10)
        recall[sidecar] = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(rows, known, strict=True)])
        assert (np.diff(similarities, axis=1) <= 0).all()
        if sidecar:
            np.testing.assert_allclose(similarities, (queries[:, None] * vectors[rows]).sum(2), atol=2e-3)
            np.testing.assert_allclose(index.reconstruct(rows[0]), vectors[rows[0]], atol=1e-3)
            assert (index.model, index.demo_models, index.nprobe) == ("some model", True, 16)

    assert recall[True] > 0.97
    assert recall[True] > recall[False] + 0.1
    assert similarities.shape == known_similarities.shape


def test_as_many_candidates_are_ranked_as_the_index_says_one_by_one_and_in_bulk(tmp_path, vectors, queries):
    index = IndexFolder.open(ours(tmp_path / "new", vectors, over_fetch=1.5))
    before = IndexFolder.open(ours(tmp_path / "older", vectors))
    stored = vectors.astype(np.float16).astype(np.float32)

    for folder, over_fetch, depth in ((index, 1.5, 255), (before, 4, 280), (index, 2, 260)):
        asked = 0 if over_fetch == folder.over_fetch else over_fetch
        _, candidates = folder.candidates(queries, 10, over_fetch=asked)
        assert candidates.shape == (len(queries), depth)
        near = (queries[:, None] * stored[candidates]).sum(2)
        known = np.take_along_axis(candidates, np.argsort(-near, axis=1), axis=1)[:, :10]
        np.testing.assert_array_equal(folder.search(queries, 10, over_fetch=asked)[1], known)
        if not asked:
            together = nearest(folder, queries, 10, columns=())
            np.testing.assert_array_equal(together["row"].to_numpy().reshape(-1, 10), known)


def test_more_neighbours_than_there_are_end_in_row_minus_one(tmp_path, vectors, queries):
    for folder in (
        foreign(tmp_path / "flat", vectors[:30]),
        ours(tmp_path / "ivf", vectors[:30], "IVF1,RaBitQfs", said=(30, D)),
    ):
        similarities, rows = IndexFolder.open(folder).search(queries[:2], 50)

        assert [sorted(found) for found in rows[:, :30]] == [list(range(30))] * 2
        assert (rows[:, 30:] == -1).all() and np.isneginf(similarities[:, 30:]).all()


def test_equal_similarities_come_in_order_of_their_rows(tmp_path, vectors):
    index = IndexFolder.open(foreign(tmp_path, np.repeat(vectors[:20], 5, axis=0)))

    _, rows = index.search(vectors[:20], 5)

    np.testing.assert_array_equal(rows, np.arange(100).reshape(20, 5))


@pytest.mark.parametrize(
    ("change", "k", "nprobe"),
    [
        (lambda queries: queries[:, :16], 5, 0),
        (lambda queries: queries[0], 5, 0),
        (lambda queries: np.where(np.arange(D) == 3, np.nan, queries), 5, 0),
        (lambda queries: np.where(np.arange(D) == 3, np.inf, queries), 5, 0),
        (lambda queries: queries, 0, 0),
        (lambda queries: queries, 1_000_001, 0),
        (lambda queries: queries, 5, -1),
    ],
)
def test_a_search_that_can_not_be_right_is_refused(tmp_path, vectors, queries, change, k, nprobe):
    index = IndexFolder.open(foreign(tmp_path, vectors[:100]))

    with pytest.raises(DataError, match=r"was needed|were needed"):
        index.search(change(queries), k, nprobe=nprobe)


def test_no_queries_find_nothing(tmp_path, vectors, queries):
    similarities, rows = IndexFolder.open(foreign(tmp_path, vectors[:100])).search(queries[:0], 5)

    assert similarities.shape == rows.shape == (0, 5)


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("Flat", 1e-6), ("IVF16,SQ8", 0.01), ("RR32,IVF16,SQ8", 0.01), ("SQ8", 0.01)]
)
def test_reconstruct_gives_unit_vectors_of_the_rows_asked_for(tmp_path, vectors, kind, tolerance):
    index = IndexFolder.open(foreign(tmp_path, vectors, kind))
    rows = np.array([7, 2_999, 0, 7])

    found = index.reconstruct(rows)

    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert ((found * vectors[rows]).sum(axis=1) > 1 - tolerance).all()
    assert index.reconstruct(np.empty(0, dtype=np.int64)).shape == (0, D)
    for wrong in ([-1], [N]):
        with pytest.raises(DataError, match="rows from 0"):
            index.reconstruct(np.array(wrong))


@pytest.mark.parametrize("parts", [1, 3])
def test_foreign_parquet_metadata_comes_row_for_row_in_the_order_asked(tmp_path, vectors, parts):
    index = IndexFolder.open(foreign(tmp_path, vectors, parts=parts))
    rows = np.random.default_rng(1).integers(N, size=200)

    table = index.metadata(rows, ["WIDTH", "url"])

    assert index.columns == ["url", "NSFW", "WIDTH"]
    assert table.column("WIDTH").to_pylist() == rows.tolist()
    assert table.column("url").to_pylist() == [f"http://x/{row}" for row in rows]
    assert index.metadata(rows[:0]).column_names == index.columns
    for wrong in (-1, N):
        with pytest.raises(DataError, match="there is no row"):
            index.metadata(np.array([0, wrong]))
    with pytest.raises(DataError, match="no column hue"):
        index.metadata(rows, ["hue"])


def test_foreign_arrow_files_count_in_order_of_their_paths_whatever_they_are_called(tmp_path):
    for name, start in (("0_en", 0), ("1_multi", 10), ("2_nolang", 20)):
        schema = pa.schema([("row", pa.int64()), ("text", pa.large_string())])
        with pa.ipc.new_file(tmp_path / name, schema) as writer:
            for first in (start, start + 5):
                numbers = range(first, first + 5)
                writer.write_table(
                    pa.table({"row": numbers, "text": [f"t{i}" for i in numbers]}, schema=schema)
                )

    rows = MetadataRows.open(tmp_path)

    assert rows.n == 30
    taken = rows.take(np.array([29, 0, 13, 13, 4, 5]))
    assert taken.column("row").to_pylist() == [29, 0, 13, 13, 4, 5]
    assert taken.column("text").to_pylist() == ["t29", "t0", "t13", "t13", "t4", "t5"]
    assert taken.schema.field("text").type == pa.string()


def test_our_metadata_is_one_record_batch(tmp_path):
    table = pa.concat_tables(
        [pa.table({"id": [1, 2], "url": ["a", None]}), pa.table({"id": [3], "url": ["c"]})]
    )
    path = tmp_path / "0.arrow"

    write_metadata(path, table)

    with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
        assert reader.num_record_batches == 1
    assert MetadataRows.open(tmp_path).take(np.arange(3)).to_pylist() == table.to_pylist()


def test_an_index_that_stays_on_disk_in_a_folder_is_opened_where_it_lies(tmp_path, vectors, queries):
    folder = foreign(tmp_path / "one", vectors, "IVF16,Flat")
    whole = faiss.read_index(str(folder / INDEX_FILE))
    (folder / INDEX_FILE).unlink()
    target = folder / INDEX_FILE
    target.mkdir()
    faiss.write_index(whole, str(tmp_path / "block"))
    empty = faiss.clone_index(whole)
    empty.reset()
    merge_ondisk(empty, [str(tmp_path / "block")], str(target / "merged_index.ivfdata"))
    faiss.write_index(empty, str(target / "populated.index"))

    _, rows = IndexFolder.open(folder).search(queries, 10, nprobe=16)

    assert (rows == exact(vectors, queries, 10)[1]).mean() > 0.99


def damage_bit(folder):
    path = folder / INDEX_FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(folder):
    path = folder / INDEX_FILE
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (damage_bit, "content differs"),
        (cut, "published with"),
        (lambda folder: (folder / INDEX_FILE).unlink(), "missing"),
        (lambda folder: (folder / "metadata" / "0.arrow").write_bytes(b"no arrow"), "0.arrow"),
    ],
)
def test_a_folder_of_ours_that_is_not_as_published_is_refused(tmp_path, vectors, break_it, message):
    folder = ours(tmp_path, vectors)
    break_it(folder)

    with pytest.raises(DataError, match=message):
        IndexFolder.open(folder)


def turn_vectors(folder):
    publish_array(folder / VECTORS_FILE, np.load(folder / VECTORS_FILE)[::-1].copy())


def turn_metadata(folder):
    write_metadata(folder / "metadata" / "0.arrow", pa.table({"id": np.arange(N)[::-1] * 7}))


def add_in_another_order(folder):
    index = faiss.read_index(str(folder / INDEX_FILE))
    vectors = np.load(folder / VECTORS_FILE).astype(np.float32)
    index.reset()
    index.add(vectors[::-1].copy())
    faiss.write_index(index, str(folder / INDEX_FILE))


@pytest.mark.parametrize(
    ("made_wrong", "named"),
    [
        (turn_vectors, "vectors.npy"),
        (turn_metadata, "0.arrow"),
        (add_in_another_order, "image.index"),
        (lambda folder: write_metadata(folder / "metadata" / "1.arrow", pa.table({"id": [1]})), "3,001 rows"),
    ],
)
def test_rows_that_changed_places_are_refused_though_there_are_as_many(tmp_path, vectors, made_wrong, named):
    folder = ours(tmp_path, vectors, "Flat")
    IndexFolder.open(folder).close()
    made_wrong(folder)

    with pytest.raises(DataError, match=named):
        IndexFolder.open(folder)


def test_a_manifest_that_does_not_fit_the_index_is_refused(tmp_path, vectors):
    with pytest.raises(DataError, match="in its manifest"):
        IndexFolder.open(ours(tmp_path, vectors, said=(N, D + 1)))


@pytest.mark.parametrize("cut_bytes", [1, 5_000])
def test_a_damaged_foreign_file_is_refused(tmp_path, vectors, cut_bytes):
    folder = foreign(tmp_path, vectors)
    path = folder / INDEX_FILE
    path.write_bytes(path.read_bytes()[:-cut_bytes])

    with pytest.raises(DataError, match="can't read it"):
        IndexFolder.open(folder, memory_map=False)


def test_vectors_and_metadata_of_different_length_are_refused(tmp_path, vectors):
    folder = foreign(tmp_path, vectors, parts=3)
    (folder / "metadata" / "metadata_1.parquet").unlink()

    with pytest.raises(DataError, match=r"3,000 vectors in image.index, 2,000 rows"):
        IndexFolder.open(folder)


def test_a_closed_index_says_so(tmp_path, vectors, queries):
    with IndexFolder.open(foreign(tmp_path, vectors[:100])) as index:
        index.search(queries, 1)

    with pytest.raises(ValueError, match="closed"):
        index.search(queries, 1)


def test_a_search_that_runs_when_the_index_is_closed_ends_well(tmp_path, vectors, queries):
    index = IndexFolder.open(ours(tmp_path, vectors))
    known, check = index.search(queries, 10)[1], index._checked

    def check_and_close(given):
        index.close()  # as another thread may, once the search has begun
        return check(given)

    index._checked = check_and_close

    np.testing.assert_array_equal(index.search(queries, 10)[1], known)


@pytest.mark.parametrize(
    ("groups", "limits", "known"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "700\n"}, [700]),
        ("0::/\n", {"memory.max": "900\n"}, [900]),
        (
            "8:pids:/\n7:memory:/a\n0::/\n",
            {"memory/a/memory.limit_in_bytes": "500", "memory/memory.limit_in_bytes": "9223372036854771712"},
            [500, 9223372036854771712],
        ),
        ("7:memory:/of/the/machine\n", {"memory/memory.limit_in_bytes": "600"}, [600]),
        ("no such form", {}, []),
        (None, {}, []),
    ],
)
def test_memory_is_what_control_groups_leave_of_it(tmp_path, groups, limits, known):
    for name, limit in limits.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(limit)
    if groups is not None:
        (tmp_path / "cgroup").write_text(groups)

    assert index_file._group_limits(tmp_path / "cgroup", tmp_path / "fs") == known


@pytest.mark.parametrize("kind", ["HNSW16", "IVF16,RaBitQ"])
def test_what_is_found_does_not_depend_on_the_memory_for_copies(tmp_path, vectors, queries, kind):
    folder = foreign(tmp_path, vectors, kind)

    with IndexFolder.open(folder) as index, IndexFolder.open(folder, copies_bytes=0) as other:
        found, known = index.search(queries, 10), other.search(queries, 10)
        copied, without = (
            each._search._graph or (each._search._scan and each._search._scan._takes_blocks)
            for each in (index, other)
        )

    assert (found[1] == known[1]).mean() > 0.99, "but for equals"
    np.testing.assert_allclose(found[0], known[0], atol=1e-5)
    assert copied or not takes(1)
    assert not without
