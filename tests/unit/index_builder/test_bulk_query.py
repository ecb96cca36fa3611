import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index_builder import bulk_query as bulk_query_module
from index_builder.bulk_query import RESULTS, answers_together, bulk_query, explain, nearest
from index_builder.indexing.index_file import INDEX_FILE, VECTORS_FILE
from index_builder.indexing.index_folder import IndexFolder
from index_builder.lists import exact_ranking
from index_builder.lists.list_pass import ListPass
from index_builder.lists.search_plan import SearchPlan
from index_builder.metadata.predicates import Predicate, rows_that_pass
from index_builder.metadata.row_mask import RowMask
from index_builder.numerics.gpu import GpuIndex
from spine.errors import DataError
from spine.publish import publish_array
from spine.settings import FiltersConfig
from spine.stage import Stage
from tests.unit.index_builder.scattered import unit

N, D = 2_000, 24


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


def tables(answers):
    return [each.neighbours for each in answers]


@pytest.mark.parametrize("block", [1, 7, 70, 1_000])
def test_the_blocks_together_are_the_exact_neighbours_whatever_their_size(tmp_path, vectors, queries, block):
    blocks = tables(bulk_query(opened(tmp_path, vectors), queries, 9, columns=["url"], block=block))

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

    table = pa.concat_tables(tables(bulk_query(index, queries, 5, nprobe=4, columns=[], block=16)))

    single = np.concatenate([index.search(query[None], 5, nprobe=4)[1] for query in queries])
    assert table.column("row").to_pylist() == single.ravel().tolist()


def test_a_query_with_fewer_neighbours_has_fewer_rows(tmp_path, vectors, queries):
    index = opened(tmp_path, vectors, "IVF100,Flat")

    table = pa.concat_tables(tables(bulk_query(index, queries, 100, nprobe=1, columns=[])))

    sizes = np.bincount(table.column("query").to_numpy(), minlength=70)
    assert sizes.min() > 0 and sizes.max() < 100
    assert table.schema.equals(RESULTS)
    assert table.column("rank").to_pylist() == [rank for size in sizes for rank in range(size)]


def test_a_pools_own_columns_make_way_for_those_of_the_answer(tmp_path, vectors, queries):
    table = nearest(opened(tmp_path, vectors), queries, 2)

    assert table.column_names == ["query", "rank", "row", "similarity", "url", "alt_txt_similarity"]
    assert set(table.column("alt_txt_similarity").to_pylist()) == {0.3}


def test_no_queries_give_no_blocks_and_wrong_ones_are_refused(tmp_path, vectors, queries):
    index = opened(tmp_path, vectors)

    assert list(bulk_query(index, queries[:0], 5)) == []
    for arguments in ({"k": 0}, {"k": 5, "columns": ["hue"]}, {"k": 5, "block": 0}, {"k": 5, "nprobe": -1}):
        with pytest.raises(DataError):
            list(bulk_query(index, queries, **arguments))


def test_a_search_for_candidates_that_was_stopped_goes_on_where_it_was(
    tmp_path, vectors, queries, monkeypatch
):
    monkeypatch.setattr(bulk_query_module, "_KEPT_AFTER_S", 0)
    monkeypatch.setattr(bulk_query_module, "_CANDIDATES", 1)
    folder = tmp_path / "index"
    stage = Stage.open("index", folder, {}, {})
    opened(folder, vectors, "IVF16,RaBitQfs").close()
    publish_array(folder / VECTORS_FILE, vectors.astype(np.float16))
    stage.finish({}, {"n": N, "d": D, "nprobe": 4})
    index, asked = IndexFolder.open(folder), []
    whole = tables(bulk_query(index, queries, 5, columns=[], block=16, keep=tmp_path / "unstopped"))
    candidates = index.candidates

    def until_stopped(some, *given, **named):
        asked.append(len(some))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return candidates(some, *given, **named)

    monkeypatch.setattr(index, "candidates", until_stopped)
    with pytest.raises(KeyboardInterrupt):
        list(bulk_query(index, queries, 5, columns=[], block=16, keep=tmp_path / "kept"))
    found = tables(bulk_query(index, queries, 5, columns=[], block=16, keep=tmp_path / "kept"))

    assert asked == [16, 16, 16, 16, 16, 6]
    assert all(ours.equals(known) for ours, known in zip(found, whole, strict=True))


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """An index whose lists are worth a pass, and 400 queries."""
    random = np.random.default_rng(3)
    vectors, queries = unit(random.standard_normal((4_000, 128))), unit(random.standard_normal((400, 128)))
    folder = tmp_path_factory.mktemp("wide")
    index = faiss.index_factory(128, "IVF16,SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    (folder / "metadata").mkdir(parents=True)
    faiss.write_index(index, str(folder / INDEX_FILE))
    pq.write_table(pa.table({"number": range(4_000)}), folder / "metadata" / "0.parquet")
    return folder, queries


@pytest.mark.parametrize("memory_map", [True, False])
@pytest.mark.parametrize(
    ("k", "block", "pass_results"), [(7, 64, 10**6), (50, 100, 10_000), (5_000, 256, 10**6)]
)
def test_one_pass_over_the_lists_gives_what_single_searches_give(
    wide, memory_map, k, block, pass_results, monkeypatch
):
    monkeypatch.setattr(bulk_query_module, "PASS_RESULTS", pass_results)
    folder, queries = wide
    index = IndexFolder.open(folder, memory_map=memory_map)
    assert answers_together(index, 400, k, 8)

    blocks = tables(bulk_query(index, queries, k, nprobe=8, block=block))

    assert [np.unique(table.column("query")).tolist() for table in blocks] == [
        list(range(start, min(start + block, 400))) for start in range(0, 400, block)
    ]
    table = pa.concat_tables(blocks)
    single = [index.search(query[None], k, nprobe=8) for query in queries]
    known = np.concatenate([rows for _, rows in single])
    similarities = np.concatenate([found for found, _ in single])[known >= 0]
    there = np.nonzero(known >= 0)
    assert table.column("query").to_pylist() == there[0].tolist()
    assert table.column("rank").to_pylist() == there[1].tolist()
    assert (table.column("row").to_numpy() == known[known >= 0]).mean() > 0.999  # rounding may swap two
    np.testing.assert_allclose(table.column("similarity").to_numpy(), similarities, atol=2e-6)
    assert table.column("number").to_pylist() == table.column("row").to_pylist()


def test_blocks_that_are_done_are_not_answered_and_a_pass_of_them_alone_not_made(wide, monkeypatch):
    monkeypatch.setattr(bulk_query_module, "PASS_RESULTS", 1_000)  # two blocks a pass
    folder, queries = wide
    index, passes, search = IndexFolder.open(folder), [], ListPass.search
    whole = tables(bulk_query(index, queries, 5, nprobe=8, block=100))
    monkeypatch.setattr(
        ListPass, "search", lambda self, some, *given: passes.append(len(some)) or search(self, some, *given)
    )

    found = tables(bulk_query(index, queries, 5, nprobe=8, block=100, done={0, 1, 3}))

    assert passes == [200]
    assert len(found) == 1 and found[0].equals(whole[2])


def test_where_gpus_have_a_copy_of_the_index_they_are_asked(wide, monkeypatch):
    folder, queries = wide
    index, asked = IndexFolder.open(folder, memory_map=False), []
    known = tables(bulk_query(index, queries, 5, nprobe=8, block=100))
    copies = GpuIndex([faiss.clone_index(index.faiss_index())])  # as FAISS puts on a GPU
    monkeypatch.setattr(index._search, "_on_gpus", copies)
    search = copies.search
    monkeypatch.setattr(
        copies, "search", lambda some, *given: asked.append(len(some)) or search(some, *given)
    )

    found = tables(bulk_query(index, queries, 5, nprobe=8, block=100))

    assert asked == [100] * 4 and "on GPUs" in explain(index, 400, 5, 8)
    assert answers_together(index, 400, 2_049, 8), "more than GPUs take"
    for ours, theirs in zip(found, known, strict=True):
        assert (ours.column("row").to_numpy() == theirs.column("row").to_numpy()).mean() > 0.999
        np.testing.assert_allclose(ours.column("similarity"), theirs.column("similarity"), atol=2e-6)


def test_explain_tells_the_way_and_what_each_would_cost(tmp_path, wide, vectors):
    lists = IndexFolder.open(wide[0])

    assert "list-major" in explain(lists, 10_000, 100, 8)
    assert "10,000 queries × 8 of 16 lists on disk" in explain(lists, 10_000, 100, 8)
    assert "1 pass for" in explain(lists, 10_000, 3_000, 8)
    assert "2 passes for" in explain(lists, 20_000, 3_000, 8)
    alone = IndexFolder.open(wide[0], memory_map=False)
    assert "FAISS's batch search: 1 queries" in explain(alone, 1, 100, 8)
    assert not answers_together(alone, 1, 5, 8)
    assert "no lists" in explain(opened(tmp_path, vectors), 10_000, 100)


def test_a_query_that_is_not_finite_is_named_by_its_row(wide):
    folder, queries = wide
    wrong = queries.copy()
    wrong[[7, 11], 3] = np.nan

    with pytest.raises(DataError, match="query 7 holds NaN or infinity, and 2 of 400 do"):
        list(bulk_query(IndexFolder.open(folder), wrong, 5))


@pytest.mark.parametrize(
    ("k", "block", "pass_results", "rows"), [(5, 32, 10**7, 7), (40, 100, 20_000, 64), (900, 256, 1, 4_096)]
)
def test_coarse_candidates_ranked_in_one_pass_give_what_single_searches_give(
    tmp_path, vectors, queries, k, block, pass_results, rows, monkeypatch
):
    monkeypatch.setattr(bulk_query_module, "PASS_RESULTS", pass_results)
    monkeypatch.setattr(exact_ranking, "_ROWS", rows)
    monkeypatch.setattr(bulk_query_module, "memory_bytes", lambda: 0)  # it doesn't hold the vectors
    stage = Stage.open("index", tmp_path, {}, {})
    opened(tmp_path, vectors, "IVF16,RaBitQfs").close()
    publish_array(tmp_path / VECTORS_FILE, vectors.astype(np.float16))
    stage.finish({}, {"n": N, "d": D, "nprobe": 4})
    index = IndexFolder.open(tmp_path)
    assert answers_together(index, 70, k) and "sorted by row" in explain(index, 70, k)

    table = pa.concat_tables(tables(bulk_query(index, queries, k, columns=[], block=block)))

    # FAISS rounds a query among others as it does alone: the candidates are the same.
    single = [index.search(query[None], k) for query in queries]
    known = np.concatenate([found for _, found in single])
    assert table.column("query").to_pylist() == np.nonzero(known >= 0)[0].tolist()
    assert (table.column("row").to_numpy() == known[known >= 0]).mean() > 0.999  # rounding may swap two
    np.testing.assert_allclose(
        table.column("similarity").to_numpy(),
        np.concatenate([found for found, _ in single])[known >= 0],
        atol=2e-6,
    )


@pytest.mark.parametrize("masked", [False, True])
def test_candidates_found_in_a_pass_are_those_that_faiss_finds(
    tmp_path, vectors, queries, masked, monkeypatch
):
    stage = Stage.open("index", tmp_path, {}, {})
    opened(tmp_path, vectors, "RR24,IVF16,RaBitQ").close()
    publish_array(tmp_path / VECTORS_FILE, vectors.astype(np.float16))
    stage.finish({}, {"n": N, "d": D, "nprobe": 4})
    mask = RowMask(N, [np.arange(N) % 3 > 0]) if masked else None
    answers = {}
    for in_a_pass in (True, False):
        plan = SearchPlan(in_a_pass, "asked for")
        monkeypatch.setattr(bulk_query_module, "plan_search", lambda *_, _plan=plan, **__: _plan)
        if not in_a_pass:
            monkeypatch.setattr(bulk_query_module, "open_list_pass", lambda *_: None)
        with IndexFolder.open(tmp_path) as index:
            parts = list(bulk_query(index, queries, 5, columns=[], block=32, mask=mask))
        searched = pa.concat_tables([part.searched for part in parts])
        answers[in_a_pass] = (pa.concat_tables(tables(parts)), searched)

    (ours, ours_searched), (known, known_searched) = answers[True], answers[False]
    assert ours_searched.column("found").equals(known_searched.column("found"))
    alike = (ours.column("row").to_numpy() == known.column("row").to_numpy()).mean()
    assert alike > (0.9 if masked else 0.999)
    if not masked:  # FAISS goes through as many lists as the query of a group that needs most
        np.testing.assert_allclose(ours.column("similarity"), known.column("similarity"), atol=2e-6)
        assert ours_searched.equals(known_searched)


@pytest.mark.parametrize("memory", [2 * N * D * 2, 2 * N * D * 2 - 1])
def test_candidates_are_ranked_query_by_query_where_memory_holds_the_vectors(
    tmp_path, vectors, queries, memory, monkeypatch
):
    stage = Stage.open("index", tmp_path, {}, {})
    opened(tmp_path, vectors, "IVF16,RaBitQfs").close()
    publish_array(tmp_path / VECTORS_FILE, vectors.astype(np.float16))
    stage.finish({}, {"n": N, "d": D, "nprobe": 4})
    monkeypatch.setattr(bulk_query_module, "memory_bytes", lambda: memory)
    index, by_row = IndexFolder.open(tmp_path), []
    monkeypatch.setattr(
        bulk_query_module,
        "exact_similarities",
        lambda *given: by_row.append(1) or exact_ranking.exact_similarities(*given),
    )
    assert ("sorted by row" in explain(index, 70, 5)) == (memory < 2 * N * D * 2)

    table = nearest(index, queries, 5, columns=[])

    known = np.concatenate([index.search(query[None], 5)[1][0] for query in queries])
    assert (table.column("row").to_numpy() == known).mean() > 0.99  # rounding may swap two
    assert bool(by_row) == (memory < 2 * N * D * 2)


@pytest.mark.parametrize("twice", [False, True])
def test_exact_similarities_are_those_of_the_rows_in_their_places(twice, monkeypatch):
    monkeypatch.setattr(exact_ranking, "_ROWS", 90)
    random = np.random.default_rng(4)
    stored = random.standard_normal((500, 8)).astype(np.float16)
    queries = random.standard_normal((6, 8)).astype(np.float32)
    candidates = np.stack([random.permutation(np.arange(-200, 500)) for _ in range(6)])
    candidates = np.maximum(candidates, -1)
    candidates[2] = -1
    if twice:
        candidates[4, 3] = candidates[4, 9] = 77

    found = exact_ranking.exact_similarities(queries, candidates, stored)

    known = np.take_along_axis(queries @ stored.astype(np.float32).T, np.maximum(candidates, 0), axis=1)
    np.testing.assert_allclose(found[candidates >= 0], known[candidates >= 0], atol=1e-5)
    assert np.isneginf(found[candidates < 0]).all()
    assert exact_ranking.exact_similarities(queries, candidates[:, :0], stored).shape == (6, 0)


def with_filters(folder, vectors, kind, metric, keeps_vectors):
    """An index of `kind` whose metadata hold what a predicate looks at."""
    random = np.random.default_rng(8)
    index = faiss.index_factory(D, kind, metric)
    index.train(vectors)
    index.add(vectors)
    values = {
        "hash": np.arange(N) * 11 - 500,
        "width": random.integers(200, 2_000, N),
        "height": random.integers(200, 2_000, N),
        "punsafe": np.where(random.random(N) < 0.2, np.nan, random.random(N)).astype(np.float32),
        "LANGUAGE": [None if row % 9 == 0 else ["en", "de", "nolang"][row % 3] for row in range(N)],
    }
    if keeps_vectors:
        stage = Stage.open("index", folder, {}, {})
        publish_array(folder / VECTORS_FILE, vectors.astype(np.float16))
    (folder / "metadata").mkdir(parents=True, exist_ok=True)
    faiss.write_index(index, str(folder / INDEX_FILE))
    pq.write_table(pa.table(values), folder / "metadata" / "0.parquet")
    if keeps_vectors:
        stage.finish({}, {"n": N, "d": D, "nprobe": 4})
    return IndexFolder.open(folder), values


@pytest.mark.parametrize(
    ("kind", "keeps_vectors", "tolerance"),
    [
        ("Flat", False, 1e-5),
        ("HNSW16", False, 1e-5),
        ("IVF16,Flat", False, 1e-5),
        ("RR24,IVF16,SQ8", False, 0.02),
        ("IVF16,RaBitQfs", True, 1e-3),
    ],
)
@pytest.mark.parametrize("metric", [faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2])
@pytest.mark.parametrize("share", ["few", "many"])
def test_a_predicate_finds_the_nearest_of_those_that_meet_it(
    tmp_path, vectors, queries, kind, metric, keeps_vectors, tolerance, share
):
    index, values = with_filters(tmp_path, vectors, kind, metric, keeps_vectors)
    deny = values["hash"][::7]
    side = {"few": 1_700, "many": 500}[share]
    predicate = Predicate(
        filters=FiltersConfig(min_side_px=side, pwatermark_max=None, punsafe_max=0.7, unknown="drop"),
        languages=("en", "de"),
        deny=deny,
    )
    known = np.minimum(values["width"], values["height"]) >= side
    known &= (values["punsafe"] <= 0.7) & ~np.isin(values["hash"], deny)
    known &= np.array([word in ("en", "de") for word in values["LANGUAGE"]])

    mask = rows_that_pass(index.rows, predicate)
    answers = list(bulk_query(index, queries, 12, nprobe=3, mask=mask, columns=["hash"], block=32))

    passing = np.flatnonzero(known)
    assert mask.count == len(passing) and (share == "many") == (len(passing) > 300)
    np.testing.assert_array_equal(np.flatnonzero(mask.has(np.arange(N))), passing)
    table = pa.concat_tables(tables(answers))
    k = min(12, len(passing))
    assert table.column("query").to_pylist() == np.repeat(np.arange(70), k).tolist()
    assert known[table.column("row").to_numpy()].all()
    assert table.column("hash").to_pylist() == values["hash"][table.column("row").to_numpy()].tolist()
    searched = pa.concat_tables([answer.searched for answer in answers])
    assert searched.column("found").to_pylist() == [k] * 70
    if kind.startswith(("Flat", "HNSW")):
        assert searched.column("lists").null_count == 70
    else:
        lists = searched.column("lists").to_numpy()
        assert lists.min() >= 3 and lists.max() <= 16
        if share == "many":
            return  # the nearest of some lists
    exact = -np.sort(-(queries @ vectors[passing].T), axis=1)[:, :k]
    found = table.column("similarity").to_numpy().reshape(70, k)
    assert (found >= exact - 0.2).all() and np.abs(found - exact).mean() < 0.01 + tolerance


def test_a_row_below_the_similarity_asked_for_is_left_out(tmp_path, vectors, queries):
    index = opened(tmp_path, vectors)

    answers = list(bulk_query(index, queries, 30, columns=[], similarity_min=0.55))

    known = -np.sort(-(queries @ vectors.T), axis=1)[:, :30]
    assert pa.concat_tables(tables(answers)).num_rows == (known >= 0.55).sum() > 0
    found = pa.concat_tables([answer.searched for answer in answers]).column("found").to_pylist()
    assert found == (known >= 0.55).sum(axis=1).tolist()


def test_no_row_may_meet_the_predicate(tmp_path, vectors, queries):
    for kind in ("Flat", "IVF16,SQ8", "IVF16,RaBitQfs"):
        index = opened(tmp_path / kind, vectors, kind)

        found = nearest(index, queries, 5, columns=[], mask=RowMask(N, [np.zeros(N, dtype=bool)]))

        assert found.num_rows == 0 and found.schema.equals(RESULTS)
