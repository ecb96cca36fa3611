"""`popfactory retrieve --centroids`: any vectors, an index folder or a server, killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index_builder import centroid_query
from index_builder.centroid_query import explain_centroids, retrieve_centroids
from index_builder.indexing.index_folder import IndexFolder
from index_builder.metadata.metadata_rows import write_metadata
from index_builder.metadata.predicates import Predicate
from index_builder.retrieval.pools import Question, ServerPool
from retrieval_server.settings import IndexSettings, ServerSettings
from spine.errors import ConfigError, DataError, ServiceError
from spine.publish import sole_writer
from spine.settings import AestheticQuery, FiltersConfig
from tests.integration.server_index import SCHEMA, D, draw_pool, running, write_index
from tests.small_disk import small_disk

N, K = 600, 30


@pytest.fixture(scope="module")
def pool():
    return draw_pool(N)


@pytest.fixture(scope="module")
def index(tmp_path_factory, pool):
    return write_index(tmp_path_factory.mktemp("pool") / "index", pool, "IVF12,Flat")


@pytest.fixture(scope="module")
def centroids(tmp_path_factory):
    """A file of 40 vectors, and the ids they have in it."""
    vectors = np.random.default_rng(5).standard_normal((40, D))
    path = tmp_path_factory.mktemp("centroids") / "c.parquet"
    ids = [number * 10 for number in range(40)]
    pq.write_table(pa.table({"centroid_id": ids, "embedding": vectors.tolist()}), path)
    return path, ids, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(centroid_query, "BLOCK", 7)


def read(out):
    return pa.concat_tables(pq.read_table(path) for path in sorted(out.glob("part-*.parquet")))


def test_each_centroid_of_a_file_gets_its_exact_neighbours(tmp_path, pool, index, centroids):
    path, ids, vectors = centroids
    out = tmp_path / "found"

    manifest = retrieve_centroids(path, out, Question(k=K, nprobe=12, columns=("url", "height")), index=index)

    table = read(out)
    similarities = vectors @ pool.vectors.T
    known = np.argsort(-similarities, axis=1, kind="stable")[:, :K]
    assert table.column_names == ["centroid_id", "rank", "id", "similarity", "url", "height"]
    assert table.column("centroid_id").to_pylist() == np.repeat(ids, K).tolist()
    assert table.column("rank").to_pylist() == np.tile(np.arange(K), 40).tolist()
    rows = [pool.metadata[row] for row in known.ravel()]
    assert table.column("id").to_pylist() == [row["id"] for row in rows]
    assert table.column("url").to_pylist() == [row["url"] for row in rows]
    assert table.column("height").null_count == table.num_rows, "the pool has no heights"
    found = table.column("similarity").to_numpy()
    np.testing.assert_allclose(found, np.take_along_axis(similarities, known, axis=1).ravel(), atol=1e-6)
    assert manifest.counts == {"centroids": 40, "neighbours": 40 * K, "short": 0}
    searched = pa.concat_tables(pq.read_table(path) for path in sorted((out / "searched").iterdir()))
    assert searched.to_pydict() == {"centroid_id": ids, "lists": [12] * 40, "found": [K] * 40}
    assert len(list(out.glob("part-*"))) == 6


def test_a_predicate_and_a_least_similarity_hold_for_every_row(tmp_path, pool, index, centroids):
    path, _, vectors = centroids
    predicate = Predicate(
        filters=FiltersConfig(min_side_px=0, pwatermark_max=None, punsafe_max=0.1, unknown="drop")
    )
    question = Question(k=K, nprobe=2, predicate=predicate, similarity_min=0.2, columns=("punsafe",))

    counts = retrieve_centroids(path, tmp_path / "out", question, index=index).counts

    table = read(tmp_path / "out")
    unsafe = np.array([row["punsafe"] for row in pool.metadata], dtype=np.float32)
    passing = np.flatnonzero(unsafe <= 0.1)
    similarities = vectors @ pool.vectors[passing].T
    best = -np.sort(-similarities, axis=1)[:, :K]
    assert 0.05 < len(passing) / N < 0.2
    assert table.column("punsafe").to_numpy().max() <= np.float32(0.1)
    assert counts["neighbours"] == table.num_rows == (best >= 0.2).sum()
    assert counts["short"] == ((best >= 0.2).sum(axis=1) < K).sum()
    np.testing.assert_allclose(table.column("similarity").to_numpy(), best[best >= 0.2], atol=1e-6)


def test_an_aesthetic_query_pulls_the_centroids_towards_the_rating(tmp_path, pool, index, centroids):
    path, _, vectors = centroids
    rating = np.random.default_rng(9).standard_normal(D).astype(np.float32)
    rating /= np.linalg.norm(rating)
    np.save(tmp_path / "rating9.npy", rating)
    pull = {"aesthetic_query": AestheticQuery(rating=9, weight=0.5), "rating_vectors": str(tmp_path)}

    retrieve_centroids(path, tmp_path / "out", Question(k=K, nprobe=12), index=index, **pull)

    moved = vectors + 0.5 * rating
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    known = -np.sort(-(moved @ pool.vectors.T), axis=1)[:, :K]
    np.testing.assert_allclose(
        read(tmp_path / "out").column("similarity").to_numpy(), known.ravel(), atol=1e-6
    )
    np.save(tmp_path / "rating9.npy", -rating)
    with pytest.raises(DataError, match="other options gave"):
        retrieve_centroids(path, tmp_path / "out", Question(k=K, nprobe=12), index=index, **pull)


def test_finished_it_does_nothing_and_other_work_is_never_written_over(tmp_path, index, centroids):
    path, _, _ = centroids
    out = tmp_path / "out"
    first = retrieve_centroids(path, out, Question(k=3), index=index)
    written = (out / "part-00000.parquet").stat().st_mtime_ns

    assert retrieve_centroids(path, out, Question(k=3), index=index).digest == first.digest
    assert (out / "part-00000.parquet").stat().st_mtime_ns == written
    with pytest.raises(
        DataError, match="other options gave; name another folder, or start over with --force"
    ):
        retrieve_centroids(path, out, Question(k=4), index=index)
    assert retrieve_centroids(path, out, Question(k=4), index=index, force=True).counts["neighbours"] == 160
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    for force in (False, True):
        with pytest.raises(DataError, match="holds other files; name a new or empty folder"):
            retrieve_centroids(path, mine, Question(k=4), index=index, force=force)
    with pytest.raises(DataError, match=r"letter.txt: is a file"):
        retrieve_centroids(path, mine / "letter.txt", Question(k=4), index=index)
    assert (mine / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize(
    ("question", "error", "words"),
    [
        (Question(k=0), DataError, "k = 0, 1 to 1,000,000 was needed"),
        (Question(k=3, nprobe=-1), DataError, "nprobe = -1, .* has 12 lists"),
        (Question(k=3, nprobe=13), DataError, "nprobe = 13, .* has 12 lists; 0 to so many"),
        (Question(k=3, columns=("hue",)), DataError, "says nothing of hue; it has: id, url"),
        (
            Question(k=3, predicate=Predicate(languages=("en",))),
            DataError,
            "says nothing of language",
        ),
    ],
)
def test_what_the_index_has_no_answer_to_is_refused_before_anything_is_written(
    tmp_path, index, centroids, question, error, words
):
    with pytest.raises(error, match=words):
        retrieve_centroids(centroids[0], tmp_path / "out", question, index=index)

    assert not (tmp_path / "out").exists()


def test_vectors_of_another_model_and_an_index_without_vectors_are_refused(tmp_path, index, centroids):
    np.save(tmp_path / "c.npy", np.ones((3, 5)))
    with pytest.raises(DataError, match=r"c.npy: d = 5, the index has d = 32"):
        retrieve_centroids(tmp_path / "c.npy", tmp_path / "out", Question(k=3), index=index)
    empty = write_index(tmp_path / "empty", draw_pool(N), "IVF12,Flat")
    whole = IndexFolder.open(empty, memory_map=False)
    whole.faiss_index().reset()
    import faiss

    faiss.write_index(whole.faiss_index(), str(empty / "image.index"))
    pq.write_table(pa.table({"id": pa.array([], pa.int64())}), empty / "metadata" / "0.parquet")
    (empty / "metadata" / "0.arrow").unlink()
    with pytest.raises(DataError, match="holds no vectors"):
        retrieve_centroids(centroids[0], tmp_path / "out", Question(k=3), index=empty)


def test_a_server_gives_row_for_row_what_its_index_gives(tmp_path, index, centroids):
    path, _, _ = centroids
    question = Question(k=K, nprobe=5, columns=("url", "caption", "width", "punsafe", "alt_txt_similarity"))
    retrieve_centroids(path, tmp_path / "local", question, index=index)

    with running(ServerSettings(indices=(IndexSettings(name="pool", folder=index),))) as address:
        manifest = retrieve_centroids(path, tmp_path / "remote", question, server=address, indice_name="pool")
        with pytest.raises(ConfigError, match="isn't sent lists of ids"):
            predicate = Predicate(deny=np.array([5]))
            retrieve_centroids(path, tmp_path / "more", Question(k=3, predicate=predicate), server=address)
        with pytest.raises(ConfigError, match="a server gives 1 to 10,000"):
            retrieve_centroids(path, tmp_path / "deep", Question(k=10_001), server=address)
        assert "how it searches is its own choice" in explain_centroids(path, question, server=address)

    assert manifest.counts == {"centroids": 40, "neighbours": 40 * K, "short": 0}
    remote, local = read(tmp_path / "remote"), read(tmp_path / "local")
    assert remote.drop("similarity").equals(local.drop("similarity"))
    # One was asked in one go, the other in parts: a product's last bit depends on what it is multiplied with.
    np.testing.assert_allclose(remote.column("similarity"), local.column("similarity"), atol=2e-7)


@pytest.mark.parametrize(
    "predicate",
    [
        Predicate(
            filters=FiltersConfig(min_side_px=0, pwatermark_max=None, punsafe_max=0.03, unknown="drop"),
            alt_txt_similarity_min=0.02,
        ),
        Predicate(
            filters=FiltersConfig(min_side_px=0, pwatermark_max=None, punsafe_max=0.03, unknown="keep")
        ),
        Predicate(
            filters=FiltersConfig(min_side_px=0, pwatermark_max=None, unknown="drop"), languages=("de", "fr")
        ),
    ],
    ids=["few", "unknown kept", "languages"],
)
def test_a_server_is_sent_the_predicate_and_finds_the_same_rows(tmp_path, pool, centroids, predicate):
    path, _, _ = centroids
    folder = write_index(tmp_path / "index", pool, "IVF12,Flat")
    table = pa.Table.from_pylist(pool.metadata, schema=SCHEMA)
    words = [None if row % 7 == 0 else ("en", "de", "fr")[row % 3] for row in range(N)]
    write_metadata(folder / "metadata" / "0.arrow", table.append_column("LANGUAGE", pa.array(words)))
    question = Question(k=K, nprobe=2, predicate=predicate, similarity_min=-0.1, columns=("url", "punsafe"))
    local = retrieve_centroids(path, tmp_path / "local", question, index=folder)

    with running(ServerSettings(indices=(IndexSettings(name="pool", folder=folder),))) as address:
        remote = retrieve_centroids(path, tmp_path / "remote", question, server=address)

    assert remote.counts == local.counts and local.counts["neighbours"] > 100
    found, known = read(tmp_path / "remote"), read(tmp_path / "local")
    assert found.drop("similarity").equals(known.drop("similarity"))
    np.testing.assert_allclose(found.column("similarity"), known.column("similarity"), atol=2e-7)


def test_a_server_that_stops_in_mid_run_costs_only_what_it_did_not_answer(
    tmp_path, index, centroids, monkeypatch
):
    path, _, _ = centroids
    settings = ServerSettings(indices=(IndexSettings(name="pool", folder=index),))
    question = Question(k=K, nprobe=12, columns=("url",))
    asked, search = [], ServerPool.search
    with running(settings) as address:
        retrieve_centroids(path, tmp_path / "whole", question, server=address)

        def until_it_stops(self, queries, *given):
            asked.append(len(queries))
            if len(asked) == 4:  # the connection breaks from here on
                self._client._client.base_url = "http://127.0.0.1:9"
                self._client._retries = 0
            return search(self, queries, *given)

        with monkeypatch.context() as patch:
            patch.setattr(ServerPool, "search", until_it_stops)
            with pytest.raises(ServiceError, match="is the server running"):
                retrieve_centroids(path, tmp_path / "out", question, server=address)
        assert len(list((tmp_path / "out").glob("part-*"))) == 3
        monkeypatch.setattr(
            ServerPool,
            "search",
            lambda self, queries, *given: asked.append(0) or search(self, queries, *given),
        )
        counts = retrieve_centroids(path, tmp_path / "out", question, server=address).counts

    assert asked == [7, 7, 7, 7, 0, 0, 0]
    assert counts["neighbours"] == 40 * K
    assert read(tmp_path / "out").equals(read(tmp_path / "whole"))


def test_without_room_it_says_so_and_with_room_it_ends_as_ever(tmp_path, index, centroids):
    path, _, _ = centroids
    whole = retrieve_centroids(path, tmp_path / "whole", Question(k=K), index=index)
    with small_disk(tmp_path / "disk", "60k") as disk:
        out = disk / "out"
        with pytest.raises(OSError, match="No space left on device"):
            retrieve_centroids(path, out, Question(k=K), index=index)
        parts = sorted(out.glob("part-*.parquet"))
        assert 0 < len(parts) < 6 and not (out / "manifest.json").exists()
        written = [part.stat().st_mtime_ns for part in parts]
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)

        manifest = retrieve_centroids(path, out, Question(k=K), index=index)

        assert manifest.counts == whole.counts
        assert read(out).equals(read(tmp_path / "whole"))
        assert [part.stat().st_mtime_ns for part in parts] == written, "what was written is kept"


STAGE = """
import os, signal, sys
from pathlib import Path
from index_builder import centroid_query
from index_builder.lists import list_pass
from index_builder.lists.kept_arrays import KeptArrays
from index_builder.retrieval import block_search
from index_builder.retrieval.pools import Question
if sys.argv[4] == "apart":  # as an index that answers block by block
    centroid_query.IndexPool.answers_together = lambda self, n, question: False
if sys.argv[4].isdigit():  # a pass in pieces, killed when so many are done
    list_pass.SEGMENT_PRODUCTS, write, left = 5_000, KeptArrays.write, [int(sys.argv[4])]

    def written(self, **arrays):
        write(self, **arrays)
        left[0] -= 1
        print(arrays["reached"][1], flush=True)
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    KeptArrays.write = written
centroid_query.BLOCK = 3
centroid_query.retrieve_centroids(Path(sys.argv[1]), Path(sys.argv[2]), Question(k=30), index=Path(sys.argv[3]))
"""


def work(path, out, index, how):
    return subprocess.Popen([sys.executable, "-c", STAGE, str(path), str(out), str(index), how])


def test_a_folder_that_another_command_writes_to_is_left_to_it(tmp_path, index, centroids):
    path, _, _ = centroids
    out = tmp_path / "found"
    for _ in ("not begun", "begun"):
        with sole_writer(out), pytest.raises(DataError, match="another command writes to it; wait for it"):
            retrieve_centroids(path, out, Question(k=5), index=index)
        retrieve_centroids(path, out, Question(k=5), index=index)
        (out / "manifest.json").unlink()


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize("how", ["together", "apart"])
def test_killed_again_and_again_it_ends_as_if_never_stopped(tmp_path, index, centroids, how):
    path, _, _ = centroids
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert work(path, whole, index, how).wait(120) == 0

    killed = 0
    for moment in ("plan.json", "searched/part-00003.parquet", "part-00007.parquet"):
        process = work(path, out, index, how)
        deadline = time.monotonic() + 120
        while not (out / moment).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert work(path, out, index, how).wait(120) == 0

    assert killed >= 2, "the kills came too late to test anything"
    names = sorted(file.relative_to(whole) for file in whole.rglob("*.parquet"))
    assert names == sorted(file.relative_to(out) for file in out.rglob("*.parquet"))
    assert all((whole / name).read_bytes() == (out / name).read_bytes() for name in names)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_within_a_pass_it_goes_on_where_it_was(tmp_path, index, centroids):
    path, _, _ = centroids
    reached = []
    for out, how in (("whole", "1000"), ("out", "2"), ("out", "3"), ("out", "1000")):
        given = [sys.executable, "-c", STAGE, str(path), str(tmp_path / out), str(index), how]
        done = subprocess.run(given, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == (0 if how == "1000" else -signal.SIGKILL), done.stderr
        reached.append([int(line) for line in done.stdout.split()])

    whole, out = tmp_path / "whole", tmp_path / "out"
    assert reached[1] + reached[2] + reached[3] == reached[0] and len(reached[0]) > 6
    names = sorted(file.relative_to(whole) for file in whole.rglob("*.parquet"))
    assert names == sorted(file.relative_to(out) for file in out.rglob("*.parquet"))
    assert all((whole / name).read_bytes() == (out / name).read_bytes() for name in names)
    assert not list(out.rglob(".pass*")), "what was kept on the way is gone at the end"


def command(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "popfactory", "retrieve", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_explains_searches_and_refuses_in_one_line(tmp_path, index, centroids):
    path, _, _ = centroids
    (tmp_path / "deny.txt").write_text("5\n")
    asked = [
        "--centroids",
        path,
        "--index",
        index,
        "--k",
        9,
        "--punsafe-max",
        0.2,
        "--deny",
        tmp_path / "deny.txt",
    ]

    code, out, _ = command(*asked, "--explain")
    assert code == 0 and "rows meet the predicate" in out and "lists" in out
    code, out, err = command(*asked, "--out", tmp_path / "found", "--columns", "url, punsafe", "--json")
    assert code == 0 and json.loads(out)["counts"]["centroids"] == 40, err
    assert read(tmp_path / "found").column_names[4:] == ["url", "punsafe"]
    for wrong, expected, words in (
        ([], 2, "either RUN or --centroids was needed"),
        ([tmp_path, "--k", 5], 2, "--k goes with --centroids; a run has its settings"),
        (["--centroids", path], 2, "--index FOLDER or --server URL"),
        (["--centroids", path, "--index", index], 2, "needs --out FOLDER"),
        (["--centroids", path, "--index", tmp_path / "none", "--out", tmp_path / "o"], 1, "no such folder"),
        ([*asked, "--out", tmp_path / "found"], 1, "name another folder"),
        (
            ["--centroids", path, "--server", "http://127.0.0.1:9", "--out", tmp_path / "o"],
            1,
            "can't be reached",
        ),
    ):
        code, _, err = command(*wrong)
        assert code == expected and words in err and "Traceback" not in err, err
