from dataclasses import replace

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index_builder import neighbours
from index_builder.indexes import index
from index_builder.indexing.index_file import INDEX_FILE
from index_builder.neighbours import retrieve
from index_builder.retrieval.pools import IndexPool
from spine.added_centroids import add_centroid
from spine.config import write_config
from spine.errors import ConfigError, DataError, ServiceError
from spine.ids import laion_id
from spine.manifest import verify
from spine.publish import publish_table
from spine.run import Run, part_paths
from spine.settings import (
    AestheticMin,
    AestheticQuery,
    Config,
    FiltersConfig,
    IndexConfig,
    PoolConfig,
    RetrieveConfig,
    ScoreConfig,
    SelectConfig,
)
from spine.shards import write_shard
from spine.stage import Stage
from spine.table_files import read_parts
from spine.tables import METADATA, NEIGHBOURS, centroids_schema, list_column
from tests.unit.index_builder.scattered import unit

N, D, CENTROIDS = 900, 16, 20


@pytest.fixture(scope="module")
def pictures():
    """Unit vectors; the last hundred nearly repeat the first hundred."""
    vectors = unit(np.random.default_rng(0).standard_normal((N, D)))
    vectors[-100:] = vectors[:100] + 0.01 * np.random.default_rng(1).standard_normal((100, D))
    return unit(vectors)


@pytest.fixture(scope="module")
def queries():
    return unit(np.random.default_rng(2).standard_normal((CENTROIDS, D)))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 6)


def metadata(n):
    rows = np.arange(n)
    table = pa.table(
        {
            "id": rows * 3 + 7,
            "url": [f"http://x/{row}" for row in rows],
            "caption": [None if row % 7 == 0 else f"picture {row}" for row in rows],
            "width": rows % 5 * 100 + 500,
            "height": np.full(n, 400),
            "aesthetic": rows % 3 / 2,
        }
    )
    for column in METADATA:
        if column.name not in table.column_names:
            table = table.append_column(column, pa.nulls(n, column.type))
    return table.select(METADATA.names).cast(METADATA)


def centroid_folder(run, queries, model="tiny"):
    stage = Stage.open("centroids", run.centroids, {}, {})
    k, d = queries.shape
    columns = [
        np.arange(k, dtype=np.int32),
        list_column(queries, pa.float32()),
        np.ones(k, dtype=np.int64),
        [f"centroid {i}" for i in range(k)],
        [[i] for i in range(k)],
        *[np.zeros(k, dtype=np.float32)] * 3,
    ]
    publish_table(run.centroids_table, pa.table(columns, schema=centroids_schema(d)))
    stage.finish({"centroids": k}, {"k": k, "d": d, "model": model, "demo_models": True})


def settings(k=40, *, weight=0.0, vectors="", near_duplicate=0.94, nprobe=0, memory_budget="8GB", **pool):
    return Config(
        pool=PoolConfig(**pool),
        index=IndexConfig(memory_budget=memory_budget),
        retrieve=RetrieveConfig(k=k, nprobe=nprobe, aesthetic_query=AestheticQuery(rating=9, weight=weight)),
        score=ScoreConfig(aesthetic_query_vectors=vectors),
        select=SelectConfig(near_duplicate=near_duplicate),
    )


def indexed_run(folder, pictures, queries, config=None):
    """A run with centroids and an index, ready for retrieve."""
    run = Run(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = config or settings()
    write_config(run.config, config)
    centroid_folder(run, queries)
    if not config.pool.index and not config.pool.server:
        stage = Stage.open("pool", run.pool, {}, {})
        write_shard(run.pool, 0, pictures, metadata(len(pictures)))
        stage.finish(
            {"embedded": len(pictures)}, {"d": pictures.shape[1], "model": "tiny", "demo_models": True}
        )
        index(run)
    return run


def foreign_folder(folder, pictures):
    """As clip-retrieval makes one, with LAION's columns and no id."""
    flat = faiss.IndexFlatIP(D)
    flat.add(as_stored(pictures))
    (folder / "metadata").mkdir(parents=True)
    faiss.write_index(flat, str(folder / INDEX_FILE))
    for part, rows in enumerate(np.array_split(np.arange(len(pictures)), 3)):
        table = pa.table(
            {
                "URL": [f"http://y/{row}" for row in rows],
                "TEXT": [f"text {row}" for row in rows],
                "WIDTH": rows.astype(np.float64),
                "NSFW": ["UNLIKELY"] * len(rows),
                "similarity": np.full(len(rows), 0.33),
            }
        )
        pq.write_table(table, folder / "metadata" / f"metadata_{part}.parquet")
    return folder


def read(run):
    return read_parts(run.neighbours, NEIGHBOURS)


def as_stored(pictures):
    """With the rounding of an embedding's file."""
    return unit(pictures.astype(np.float16).astype(np.float32))


def exact(pictures, queries, k):
    similarities = queries @ as_stored(pictures).T
    return similarities, np.argsort(-similarities, axis=1, kind="stable")[:, :k]


def test_each_centroid_gets_its_exact_neighbours_with_their_metadata(tmp_path, pictures, queries):
    run = indexed_run(tmp_path / "run", pictures, queries)

    manifest = retrieve(run)

    table, (similarities, known) = read(run), exact(pictures, queries, 40)
    assert table.column("centroid_id").to_pylist() == np.repeat(np.arange(CENTROIDS), 40).tolist()
    assert table.column("rank").to_pylist() == np.tile(np.arange(40), CENTROIDS).tolist()
    assert table.column("id").to_pylist() == (known.ravel() * 3 + 7).tolist()
    found = np.take_along_axis(similarities, known, axis=1).ravel()
    np.testing.assert_allclose(table.column("similarity").to_numpy(), found, atol=1e-5)
    rows = metadata(N).take(pa.array(known.ravel()))
    assert table.select(METADATA.names).equals(rows)
    assert manifest.counts == {
        "centroids": 20,
        "neighbours": 800,
        "repeated": 0,
        "pictures": len(np.unique(known)),
        "short": 0,
    }
    assert manifest.facts == {"k": 40, "d": D, "model": "tiny", "demo_models": True}
    assert [path.name for path in part_paths(run.neighbours)] == [f"part-0000{i}.parquet" for i in range(4)]
    assert verify(run.neighbours) == []


def test_each_picture_knows_its_best_centroid_and_whom_it_repeats(tmp_path, pictures, queries):
    run = indexed_run(tmp_path / "run", pictures, queries)

    retrieve(run)

    table, (similarities, known) = read(run), exact(pictures, queries, 40)
    wanted = np.full((CENTROIDS, N), -2.0)
    np.put_along_axis(wanted, known, np.take_along_axis(similarities, known, axis=1), axis=1)
    rows = (table.column("id").to_numpy() - 7) // 3
    assert table.column("best_centroid").to_pylist() == wanted.argmax(axis=0)[rows].tolist()
    stands = table.column("duplicate_of").to_pylist()
    there = set(rows)
    # Row 800 + i nearly repeats row i; the wider stands, then the more beautiful.
    pairs = [(i, 800 + i) for i in range(100) if i in there and 800 + i in there]
    assert len(pairs) > 20
    value = {row: (row % 5 * 100 + 500, row % 3) for row in range(N)}
    better = {pair: max(pair, key=lambda row: (value[row], wanted.max(axis=0)[row])) for pair in pairs}
    expected = dict.fromkeys(there)
    for pair, keeps in better.items():
        expected[sum(pair) - keeps] = keeps * 3 + 7
    assert stands == [expected[row] for row in rows]


def test_what_was_searched_and_what_may_be_selected_is_told_for_each_centroid(tmp_path, pictures, queries):
    config = replace(
        settings(), filters=FiltersConfig(min_side_px=400, aesthetic_min=AestheticMin(value=0.4))
    )
    run = indexed_run(tmp_path / "run", pictures, queries, config)

    retrieve(run)

    table, searched = read(run).to_pydict(), pq.read_table(run.neighbours / "searched.parquet").to_pydict()
    hopeful = np.zeros(CENTROIDS)
    for row, centroid in enumerate(table["centroid_id"]):
        beautiful = table["aesthetic"][row] is None or table["aesthetic"][row] >= 0.4
        mine = table["best_centroid"][row] == centroid and table["duplicate_of"][row] is None
        hopeful[centroid] += beautiful and mine
    assert searched["centroid_id"] == list(range(CENTROIDS))
    assert searched["lists"] == [None] * CENTROIDS and searched["found"] == [40] * CENTROIDS
    np.testing.assert_allclose(searched["expected_yield"], hopeful / 40, atol=1e-6)
    assert 0 < hopeful.sum() < 800


@pytest.mark.parametrize("memory_budget", ["8GB", "25kB", "23kB"])
def test_with_the_prefilter_every_neighbour_passes_what_the_pool_knows(
    tmp_path, pictures, queries, memory_budget
):
    config = settings(30, near_duplicate=1.0, memory_budget=memory_budget)
    filters = FiltersConfig(min_side_px=400, aesthetic_min=AestheticMin(value=0.8), unknown="drop")
    config = replace(config, filters=filters, retrieve=replace(config.retrieve, prefilter=True))
    run = indexed_run(tmp_path / "run", pictures, queries, config)

    counts = retrieve(run).counts

    table = read(run)
    rows = np.arange(N)
    passing = np.flatnonzero(rows % 3 / 2 >= 0.8)  # the pool knows every side and aesthetic score
    known = passing[np.argsort(-(queries @ as_stored(pictures)[passing].T), axis=1)[:, :30]]
    found = (table.column("id").to_numpy().reshape(CENTROIDS, 30) - 7) // 3
    assert counts["short"] == 0 and np.isin(found, passing).all()
    assert np.mean([len(np.intersect1d(a, b)) / 30 for a, b in zip(found, known, strict=True)]) > (
        0.99 if memory_budget == "8GB" else 0.6
    )
    write_config(run.config, replace(config, filters=FiltersConfig(min_side_px=400)))
    assert retrieve(run).counts["pictures"] > counts["pictures"], "other filters, another search"


def test_one_and_above_switches_near_duplicates_off(tmp_path, pictures, queries):
    run = indexed_run(tmp_path / "run", pictures, queries, settings(near_duplicate=1.0))

    retrieve(run)

    assert read(run).column("duplicate_of").null_count == 800


@pytest.mark.parametrize("memory_budget", ["25kB", "23kB"])
def test_coarser_indices_find_most_of_it(tmp_path, pictures, queries, memory_budget):
    run = indexed_run(
        tmp_path / "run", pictures, queries, settings(10, memory_budget=memory_budget, nprobe=22)
    )

    retrieve(run)

    found = (read(run).column("id").to_numpy().reshape(CENTROIDS, 10) - 7) // 3
    known = exact(pictures, queries, 10)[1]
    assert np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, known, strict=True)]) > 0.9


def test_fewer_pictures_than_k_are_counted_as_short(tmp_path, pictures, queries):
    run = indexed_run(tmp_path / "run", pictures[:30], queries)

    counts = retrieve(run).counts

    assert counts == {"centroids": 20, "neighbours": 600, "repeated": 0, "pictures": 30, "short": 20}


def test_the_aesthetic_query_moves_each_query_towards_the_rating_vector(tmp_path, pictures, queries):
    ratings = tmp_path / "ratings"
    ratings.mkdir()
    beauty = unit(np.random.default_rng(9).standard_normal(D))
    np.save(ratings / "rating9.npy", beauty)
    run = indexed_run(tmp_path / "run", pictures, queries, settings(weight=0.5, vectors=str(ratings)))

    retrieve(run)

    known = exact(pictures, unit(queries + 0.5 * beauty), 40)[1]
    assert read(run).column("id").to_pylist() == (known.ravel() * 3 + 7).tolist()
    np.save(ratings / "rating9.npy", -beauty)
    retrieve(run)
    assert read(run).column("id").to_pylist() != (known.ravel() * 3 + 7).tolist(), (
        "other vectors, other result"
    )


def test_a_weight_without_rating_vectors_says_which_setting_is_missing(tmp_path, pictures, queries):
    run = indexed_run(tmp_path / "run", pictures, queries, settings(weight=0.5))

    with pytest.raises(ConfigError, match=r"\[score\] aesthetic_query_vectors"):
        retrieve(run)


def test_a_second_start_does_nothing_and_another_k_starts_over(tmp_path, pictures, queries):
    run = indexed_run(tmp_path / "run", pictures, queries)
    first = retrieve(run)
    written = part_paths(run.neighbours)[0].stat().st_mtime_ns

    assert retrieve(run).digest == first.digest
    assert part_paths(run.neighbours)[0].stat().st_mtime_ns == written
    assert retrieve(run, force=True).digest == first.digest
    write_config(run.config, settings(3))
    assert retrieve(run).counts["neighbours"] == 60


class Stopped(Exception):
    """Stands for the end of the process."""


def stop_at(call, function):
    calls = []

    def stopping(*arguments, **keywords):
        calls.append(1)
        if len(calls) == call:
            raise Stopped
        return function(*arguments, **keywords)

    return stopping


@pytest.mark.parametrize(
    ("place", "name", "call"),
    [
        (IndexPool, "search", 1),
        (IndexPool, "search", 3),
        (neighbours, "picture_facts", 1),
        (neighbours, "_part", 1),
        (neighbours, "_part", 3),
        (neighbours, "_tidy", 1),
    ],
)
def test_stopped_anywhere_and_started_again_it_is_as_if_never_stopped(
    tmp_path, pictures, queries, monkeypatch, place, name, call
):
    whole = indexed_run(tmp_path / "whole", pictures, queries)
    retrieve(whole)
    run = indexed_run(tmp_path / "run", pictures, queries)
    with monkeypatch.context() as patch:
        patch.setattr(place, name, stop_at(call, getattr(place, name)))
        with pytest.raises(Stopped):
            retrieve(run)
    searched = []
    search = IndexPool.search
    monkeypatch.setattr(IndexPool, "search", lambda *given: searched.append(1) or search(*given))

    manifest = retrieve(run)

    assert len(searched) == (4 - (call - 1) if name == "search" else 0), "blocks found are not searched again"
    assert read(run).equals(read(whole))
    assert [record.sha256 for record in manifest.files] == [record.sha256 for record in retrieve(whole).files]
    assert sorted(path.name for path in run.neighbours.iterdir()) == sorted(
        path.name for path in whole.neighbours.iterdir()
    )


def test_a_foreign_folder_is_read_by_its_own_names(tmp_path, pictures, queries):
    folder = foreign_folder(tmp_path / "laion", pictures)
    run = indexed_run(tmp_path / "run", pictures, queries, settings(index=str(folder)))
    lines = []

    class Listener:
        begin = advance = end = staticmethod(lambda *given, **named: None)
        say = staticmethod(lines.append)

    manifest = retrieve(run, progress=Listener())

    known = exact(pictures, queries, 40)[1].ravel()
    table = read(run)
    assert table.column("url").to_pylist() == [f"http://y/{row}" for row in known]
    assert table.column("id").to_pylist() == [laion_id(f"http://y/{row}", f"text {row}") for row in known]
    assert table.column("width").to_pylist() == known.tolist()
    assert set(table.column("alt_txt_similarity").to_pylist()) == {np.float32(0.33)}
    assert table.column("duplicate_of").null_count < 800
    assert lines == ["the pool doesn't say which CLIP model made its vectors; the centroids are of tiny"]
    assert manifest.counts["pictures"] == len(np.unique(known))


def test_a_foreign_folder_that_changes_is_searched_again(tmp_path, pictures, queries):
    folder = foreign_folder(tmp_path / "laion", pictures)
    run = indexed_run(tmp_path / "run", pictures, queries, settings(index=str(folder)))
    first = retrieve(run)
    flat = faiss.IndexFlatIP(D)
    flat.add(pictures[::-1].copy())
    faiss.write_index(flat, str(folder / INDEX_FILE))

    assert retrieve(run).digest != first.digest


def test_a_picture_under_one_id_in_two_rows_is_listed_once_a_centroid(tmp_path, pictures, queries):
    folder = foreign_folder(tmp_path / "laion", pictures)
    flat = faiss.IndexFlatIP(D)
    flat.add(np.repeat(pictures[: N // 3], 3, axis=0))
    faiss.write_index(flat, str(folder / INDEX_FILE))
    for path in (folder / "metadata").iterdir():
        table = pq.read_table(path)
        numbers = [int(url.rsplit("/", 1)[1]) // 3 for url in table.column("URL").to_pylist()]
        table = table.set_column(0, "URL", pa.array([f"http://y/{number}" for number in numbers]))
        pq.write_table(table.set_column(1, "TEXT", pa.array(["same"] * len(numbers))), path)
    run = indexed_run(tmp_path / "run", pictures, queries, settings(30, index=str(folder)))

    counts = retrieve(run).counts

    assert counts["neighbours"] == CENTROIDS * 10 and counts["repeated"] == CENTROIDS * 20
    assert counts["short"] == CENTROIDS
    assert read(run).column("rank").to_pylist() == np.tile(np.arange(10), CENTROIDS).tolist()


def test_an_index_of_another_model_or_dimension_is_refused(tmp_path, pictures, queries):
    run = indexed_run(tmp_path / "run", pictures, queries)
    centroid_folder(run, unit(queries[:, :8]))
    with pytest.raises(DataError, match=r"d = 16, the centroids have d = 8"):
        retrieve(run)
    other = indexed_run(tmp_path / "other", pictures, queries)
    (other.centroids / "manifest.json").unlink()
    centroid_folder(other, queries, model="huge")
    with pytest.raises(DataError, match="of CLIP model tiny, the centroids are of huge"):
        retrieve(other)


def test_what_is_missing_is_named(tmp_path, pictures, queries):
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    write_config(run.config, settings())
    with pytest.raises(DataError, match="centroids: not finished"):
        retrieve(run)
    centroid_folder(run, queries)
    with pytest.raises(DataError, match="index: not finished"):
        retrieve(run)
    write_config(run.config, settings(index=str(tmp_path / "nowhere")))
    with pytest.raises(DataError, match="no such folder"):
        retrieve(run)
    write_config(run.config, settings(server="http://127.0.0.1:9", index=str(tmp_path)))
    with pytest.raises(ConfigError, match="name one of them"):
        retrieve(run)
    write_config(run.config, settings(20_000, server="http://127.0.0.1:9"))
    with pytest.raises(ConfigError, match="a server gives 10,000 at most"):
        retrieve(run)


def test_a_server_that_is_not_there_is_one_clear_line(tmp_path, pictures, queries):
    run = indexed_run(tmp_path / "run", pictures, queries, settings(server="http://127.0.0.1:9"))

    with pytest.raises(ServiceError, match="is the server running"):
        retrieve(run)


class Said:
    """A progress that keeps what is said."""

    def __init__(self):
        self.lines = []

    def begin(self, stage, total, unit, done=0):
        pass

    def advance(self, units, failures=None):
        pass

    def say(self, line):
        self.lines.append(line)

    def end(self):
        pass


def test_side_tables_fill_what_the_pool_does_not_say(tmp_path, pictures, queries):
    ids = metadata(N)["id"].to_numpy()
    path = tmp_path / "side.parquet"
    table = pa.table(
        {"hash": ids[::2], "punsafe": ids[::2] % 10 / 10, "width": np.full(len(ids[::2]), 9, dtype=np.int32)}
    )
    pq.write_table(table, path)
    plain = indexed_run(tmp_path / "plain", pictures, queries)
    joined = indexed_run(tmp_path / "joined", pictures, queries, settings(side_tables=(str(path),)))

    without, heard = retrieve(plain), Said()
    manifest = retrieve(joined, progress=heard)

    rows = read(joined).to_pylist()
    for before, row in zip(read(plain).to_pylist(), rows, strict=True):
        known = (row["id"] - 7) // 3 % 2 == 0
        assert row["punsafe"] == (pytest.approx(row["id"] % 10 / 10) if known else None)
        assert {**row, "punsafe": None} == before  # the pool's own width stays
    found = {row["id"] for row in rows}
    matched = sum((number - 7) // 3 % 2 == 0 for number in found)
    side = manifest.facts["side_tables"]
    assert (side["pictures"], side["matched"], side["punsafe"]) == (len(found), matched, matched)
    assert f"side tables know {matched:,} of {len(found):,} pictures" in " ".join(heard.lines)
    assert "side_tables" not in without.inputs
    assert not list(joined.neighbours.glob(".side-*"))
    pq.write_table(table.slice(0, 3), path)
    assert retrieve(joined).facts["side_tables"]["punsafe"] <= 3  # other tables: found anew


def test_an_added_concept_costs_its_own_search_and_equals_a_run_that_had_it_from_the_start(
    tmp_path, pictures, queries, monkeypatch
):
    more = unit(np.random.default_rng(9).standard_normal((8, D)))
    run = indexed_run(tmp_path / "run", pictures, queries)

    def add(run, vector):
        model = "tiny"
        add_centroid(run, label="x", kind="text", source="x", embedding=vector, curator="ada", model=model)

    plain = retrieve(run)
    searched = []
    search = IndexPool.search
    monkeypatch.setattr(
        IndexPool,
        "search",
        lambda pool, asked, *given: searched.append(len(asked)) or search(pool, asked, *given),
    )
    for vector in more[:2]:
        add(run, vector)
    retrieve(run)
    for vector in more[2:]:
        add(run, vector)
    manifest = retrieve(run)

    assert searched == [2, 6, 2], "of blocks of 6"
    assert manifest.counts["centroids"] == CENTROIDS + 8
    assert manifest.digest != plain.digest
    own = read(run).filter(pa.compute.greater_equal(read(run).column("centroid_id"), CENTROIDS))
    similarities, rows = exact(pictures, more, 40)
    assert own.column("id").to_pylist() == (rows.ravel() * 3 + 7).tolist()
    expected = np.take_along_axis(similarities, rows, axis=1).ravel()
    np.testing.assert_allclose(own.column("similarity").to_numpy(), expected, atol=2e-3)
    whole = indexed_run(tmp_path / "whole", pictures, queries)
    for vector in more:
        add(whole, vector)
    retrieve(whole)
    assert read(run).equals(read(whole))
    assert sorted(path.name.count("added") for path in run.neighbours.glob(".found-*")) == [0] * 4 + [1] * 2
    assert retrieve(run).digest == manifest.digest
