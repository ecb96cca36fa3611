"""Concepts that curators add: a file each, numbers that stay, one table with k-means' own."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from spine.added_centroids import add_centroid, added_centroids, added_digest, read_centroids
from spine.errors import DataError
from spine.publish import publish_new
from spine.run import Run
from spine.stage import Stage
from spine.tables import vectors_of
from tests.integration.curation_runs import D, Planted, local, plant


@pytest.fixture
def run(tmp_path) -> Run:
    """Three centroids along the first three axes."""
    return plant(tmp_path / "run", [Planted(c, 0, local(tmp_path / "pool", c)) for c in range(3)])


def add(run: Run, **values) -> int:
    given = {"label": "fog", "kind": "text", "source": "fog", "curator": "ada", "model": None}
    return add_centroid(run, **{"embedding": np.full(D, 2.0, np.float32), **given, **values})


def test_an_added_concept_stands_behind_the_others_as_a_unit_vector_with_its_curator(run):
    toward_second = np.eye(1, D, 1, dtype=np.float32)[0] * 3 + 0.1
    assert add(run, embedding=toward_second) == 3
    assert add(run, label="more", kind="example", source="77", curator="bob") == 4

    table = read_centroids(run)

    assert table.column("centroid_id").to_pylist() == [0, 1, 2, 3, 4]
    assert table.column("label").to_pylist()[3:] == ["fog", "more"]
    assert table.column("added_by").to_pylist() == [None, None, None, "ada", "bob"]
    expected = toward_second / np.sqrt((toward_second**2).sum())
    np.testing.assert_allclose(vectors_of(table.column("embedding"))[3], expected, atol=1e-6)
    maps = read_centroids(run, ["map_x", "centroid_id"])
    assert maps.column_names == ["map_x", "centroid_id"]
    assert maps.column("map_x").to_pylist()[3] == maps.column("map_x").to_pylist()[1]
    assert [each.time > "2020" for each in added_centroids(run)] == [True, True]


def test_without_any_the_table_is_k_means_own(run):
    assert read_centroids(run).num_rows == 3
    assert added_centroids(run) == []


def test_many_at_once_each_get_a_number_of_their_own(run):
    with ThreadPoolExecutor(16) as threads:
        numbers = list(threads.map(lambda n: add(run, label=f"label {n}"), range(48)))

    assert sorted(numbers) == list(range(3, 51))
    labels = {each.number + 3: each.label for each in added_centroids(run)}
    assert {number: f"label {n}" for n, number in enumerate(numbers)} == labels


def test_the_digest_changes_with_every_concept(run):
    add(run)
    first = added_digest(added_centroids(run))
    assert first == added_digest(added_centroids(run))
    add(run)
    assert first != added_digest(added_centroids(run))


@pytest.mark.parametrize(
    "values",
    [
        {"embedding": np.zeros(D, np.float32)},
        {"embedding": np.full(D, np.nan, np.float32)},
        {"embedding": np.ones(D + 1, np.float32)},
        {"model": "another"},
        {"label": " "},
        {"curator": "x" * 2000},
        {"kind": "dream"},
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(run, values):
    with pytest.raises(DataError):
        add(run, **values)
    assert added_centroids(run) == []


def test_a_damaged_or_missing_concept_is_named(run):
    for _ in range(2):
        add(run)
    content = json.loads(run.added_concept(0).read_text())
    run.added_concept(0).write_text("{")
    with pytest.raises(DataError, match="concept-00000"):
        added_centroids(run)
    run.added_concept(0).unlink()
    with pytest.raises(DataError, match="concept-00001.*number 1 where 0"):
        added_centroids(run)
    assert publish_new(run.added_concept(0), json.dumps(content).encode())
    assert len(added_centroids(run)) == 2
    assert not publish_new(run.added_concept(0), b"")


def test_before_the_centroids_are_finished_there_is_nothing_to_add_to(tmp_path):
    run = Run(tmp_path)
    Stage.open("centroids", run.centroids, {}, {})
    with pytest.raises(DataError, match="not finished"):
        add(run)
