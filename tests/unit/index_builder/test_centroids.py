import json

import numpy as np
import pyarrow as pa
import pytest

from index_builder.centroids import centroids, flat_map
from spine.config import write_config
from spine.errors import DataError
from spine.manifest import verify
from spine.run import Run
from spine.settings import CentroidsConfig, Config
from spine.shards import write_shard
from spine.stage import Stage
from spine.table_files import read_table
from spine.tables import METADATA, centroids_schema, vectors_of

D = 32
COLOURS = ["red", "green", "blue", "white", "black"]


class Heard:
    """A listener that remembers."""

    def __init__(self):
        self.lines, self.total, self.done, self.ended = [], None, 0, False

    def begin(self, stage, total, unit, done=0):
        self.total, self.done = total, done

    def advance(self, units, failures=None):
        self.done += units

    def say(self, line):
        self.lines.append(line)

    def end(self):
        self.ended = True


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def concept_run(folder, vectors, captions=None, *, k=5, shards=2, keys=None, vocabulary="", **settings):
    """A run whose concepts/ is finished, with these vectors."""
    run = Run(folder)
    folder.mkdir(exist_ok=True)
    write_config(run.config, Config(centroids=CentroidsConfig(k=k, vocabulary=vocabulary, **settings)))
    stage = Stage.open("concepts", run.concepts, {}, {"source": str(len(vectors))})
    for number, rows in enumerate(np.array_split(np.arange(len(vectors)), shards)):
        table = pa.table(
            {
                "id": rows * 10 + 1,
                "caption": [captions[row] if captions else None for row in rows],
                "key": [keys[row] if keys else f"{row:08d}" for row in rows],
            }
        )
        for column in METADATA:
            if column.name not in table.column_names:
                table = table.append_column(column, pa.nulls(len(rows), column.type))
        write_shard(run.concepts, number, vectors[rows], table.select(METADATA.names).cast(METADATA))
    stage.finish({"embedded": len(vectors)}, {"d": D, "model": "tiny", "demo_models": True})
    return run


@pytest.fixture(scope="module")
def planted():
    """400, 200, 100, 50 and 25 embeddings around five orthogonal concepts."""
    random = np.random.default_rng(0)
    concepts = np.linalg.qr(random.standard_normal((D, 5)))[0].T
    labels = random.permutation(np.repeat(np.arange(5), [400, 200, 100, 50, 25]))
    return concepts, unit(concepts[labels] + 0.05 * random.standard_normal((len(labels), D))), labels


def read(run):
    return read_table(run.centroids_table, centroids_schema(D))


def test_the_table_describes_the_planted_concepts_largest_first(tmp_path, planted):
    concepts, vectors, labels = planted
    captions = [f"a {COLOURS[label]} shape number {row} on paper" for row, label in enumerate(labels)]
    run = concept_run(tmp_path / "run", vectors, captions, seed=4)

    manifest = centroids(run)

    table, found = read(run), vectors_of(read(run).column("embedding"))
    nearest = (found @ concepts.T).argmax(axis=1)
    assert sorted(nearest) == [0, 1, 2, 3, 4], "this seed finds all five"
    assert table.column("size").to_pylist() == [400, 200, 100, 50, 25]
    assert nearest.tolist() == [0, 1, 2, 3, 4]
    assert [label.split(", ")[0] for label in table.column("label").to_pylist()] == [
        f"{c} shape" for c in COLOURS
    ]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    similarities = unit(vectors.astype(np.float16).astype(np.float32)) @ found.T
    for centroid, exemplars in enumerate(table.column("exemplar_ids").to_pylist()):
        assert exemplars == (np.argsort(-similarities[:, centroid], kind="stable")[:9] * 10 + 1).tolist()
    spread = np.bincount(nearest[similarities.argmax(axis=1)], weights=1 - similarities.max(axis=1))
    np.testing.assert_allclose(table.column("inertia_share").to_numpy(), spread / spread.sum(), atol=1e-4)
    assert manifest.counts == {"pictures": 775, "centroids": 5}
    assert manifest.facts == {"k": 5, "d": D, "model": "tiny", "demo_models": True}
    report = json.loads((run.centroids / "report.json").read_text())
    assert report["empty"] == 0 and report["sizes"]["max"] == 400
    bars = [(bar["from"], bar["to"], bar["centroids"]) for bar in report["histogram"] if bar["centroids"]]
    assert bars == [(16, 31, 1), (32, 63, 1), (64, 127, 1), (128, 255, 1), (256, 511, 1)]
    assert 1 <= report["iterations"] <= report["iterations_asked"] == 20 and report["method"] == "auto"
    assert report["objective"] == pytest.approx(similarities.max(axis=1).mean(), abs=1e-5)
    assert verify(run.centroids) == []


def test_a_second_start_does_nothing_and_a_forced_one_gives_the_same(tmp_path, planted):
    run = concept_run(tmp_path / "run", planted[1])
    first = centroids(run)
    written = run.centroids_table.stat().st_mtime_ns

    assert centroids(run).digest == first.digest
    assert run.centroids_table.stat().st_mtime_ns == written
    assert centroids(run, force=True).digest == first.digest
    assert run.centroids_table.stat().st_mtime_ns != written


def test_a_changed_setting_starts_over(tmp_path, planted):
    run = concept_run(tmp_path / "run", planted[1])
    centroids(run)
    write_config(run.config, Config(centroids=CentroidsConfig(k=3)))

    assert centroids(run).counts["centroids"] == 3


@pytest.mark.parametrize(
    ("n", "distinct", "found", "said"),
    [(3, 3, 3, "no more pictures"), (40, 4, 4, "that differ"), (1, 1, 1, "")],
)
def test_k_is_lowered_and_said_where_there_are_fewer_pictures(tmp_path, planted, n, distinct, found, said):
    vectors = np.resize(planted[1][:distinct], (n, D))
    run = concept_run(tmp_path / "run", vectors, k=10, shards=1)
    heard = Heard()

    manifest = centroids(run, progress=heard)

    assert manifest.counts == {"pictures": n, "centroids": found}
    assert (
        len(heard.lines) == 1 and f"k lowered from 10 to {found}" in heard.lines[0] and said in heard.lines[0]
    )
    assert (heard.total, heard.done, heard.ended) == (20, 20, True)
    assert read(run).column("size").to_pylist() == sorted([n // distinct] * distinct, reverse=True)


def test_enough_pictures_are_nothing_to_speak_of(tmp_path, planted):
    heard = Heard()

    centroids(concept_run(tmp_path / "run", planted[1]), progress=heard)

    assert heard.lines == []


def test_without_captions_the_label_is_the_exemplars_name_or_the_centroids_number(tmp_path, planted):
    keys = [f"holiday/beach {row}.jpg" if label else f"{row:08d}" for row, label in enumerate(planted[2])]

    unnamed = concept_run(tmp_path / "unnamed", planted[1], seed=4)
    named = concept_run(tmp_path / "named", planted[1], keys=keys, seed=4)
    centroids(unnamed)
    centroids(named)

    assert read(unnamed).column("label").to_pylist() == [f"centroid {number}" for number in range(5)]
    labels = read(named).column("label").to_pylist()
    exemplars = [(ids[0].as_py() - 1) // 10 for ids in read(named).column("exemplar_ids")]
    assert labels == ["centroid 0", *(f"beach {row}" for row in exemplars[1:])]


def test_another_models_embeddings_get_no_names_from_a_vocabulary_and_it_is_told(tmp_path, planted):
    heard = Heard()

    centroids(concept_run(tmp_path / "run", planted[1], vocabulary="builtin", seed=4), progress=heard)

    assert heard.lines == ["no names from a vocabulary: embeddings are of tiny, [clip] names ViT-L-14/openai"]


@pytest.mark.parametrize("content", [None, "# nothing but a remark\n"])
def test_a_vocabulary_that_can_not_be_read_stops_before_the_work(tmp_path, planted, content):
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_text(content)

    with pytest.raises(DataError, match=r"words\.txt.*(can't be read|0 entries)"):
        centroids(concept_run(tmp_path / "run", planted[1], vocabulary=str(path)))


@pytest.mark.parametrize("method", ["exact", "neighbours", "faiss-kmeans", "faiss-superkmeans"])
def test_every_method_finds_the_planted_concepts_and_counts_each_picture_once(tmp_path, planted, method):
    concepts, vectors, labels = planted

    centroids(concept_run(tmp_path / "run", vectors, k=12, method=method, exact_assignment=True))

    run = Run(tmp_path / "run")
    table = read(run)
    found = vectors_of(table.column("embedding"))
    assert (concepts @ found.T).max(axis=1).min() > 0.95
    nearest = (vectors @ found.T).argmax(axis=1)
    np.testing.assert_allclose(table.column("size"), np.bincount(nearest, minlength=len(found)), atol=2)
    assert sum(table.column("size").to_pylist()) == len(labels)
    assert verify(run.centroids) == []


def test_no_picture_or_no_finished_stage_is_one_clear_line(tmp_path, planted):
    with pytest.raises(DataError, match="no picture could be embedded"):
        centroids(concept_run(tmp_path / "run", planted[1][:0], shards=1))
    run = Run(tmp_path / "other")
    run.folder.mkdir()
    write_config(run.config, Config())
    with pytest.raises(DataError, match="not finished"):
        centroids(run)


def test_vectors_that_are_no_embeddings_are_refused(tmp_path, planted):
    wrong = planted[1].copy()
    wrong[5] = np.nan

    with pytest.raises(DataError, match="have not norm 1"):
        centroids(concept_run(tmp_path / "run", wrong))


def test_the_map_keeps_what_is_near_together_and_fills_its_square():
    random = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], 20)
    vectors = unit(np.eye(8)[group] + 0.05 * random.standard_normal((60, 8)))

    places = flat_map(vectors)

    np.testing.assert_allclose([places.min(axis=0), places.max(axis=0)], [[0, 0], [1, 1]], atol=1e-6)
    middles = np.array([places[group == i].mean(axis=0) for i in range(3)])
    assert (np.linalg.norm(places[:, None] - middles, axis=2).argmin(axis=1) == group).all()
    np.testing.assert_array_equal(flat_map(vectors), places)


@pytest.mark.parametrize(
    "vectors", [np.eye(4)[:1], np.tile(np.eye(4)[:1], (3, 1)), np.eye(4)[:2], np.ones((3, 1))]
)
def test_a_map_of_few_or_equal_vectors_is_in_its_middle(vectors):
    places = flat_map(vectors.astype(np.float32))

    assert places.shape == (len(vectors), 2) and np.isfinite(places).all()
    assert (places[:, 1] == 0.5).all()
    assert ((places >= 0) & (places <= 1)).all()
