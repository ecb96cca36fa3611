"""Concepts by text and by example, on the small CLIP model that comes with popfactory."""

import json

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from PIL import Image

from index_builder.concepts import add_concept
from index_builder.encoding.clip import ClipEncoder
from popfactory.cli import cli
from spine.added_centroids import added_centroids
from spine.config import with_demo_models, write_config
from spine.errors import ConfigError, DataError, ImageError
from spine.publish import publish_table
from spine.run import Run
from spine.settings import Config
from spine.shards import write_shard
from spine.stage import Stage
from spine.tables import METADATA, centroids_schema, list_column


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    return ClipEncoder.load(with_demo_models(Config()).clip)


@pytest.fixture
def run(tmp_path, encoder) -> Run:
    """One centroid, and a concept picture of id 77 along the first axis."""
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    write_config(run.config, with_demo_models(Config()))
    facts = {"d": encoder.d, "model": encoder.name}
    vectors = np.eye(1, encoder.d, dtype=np.float32)
    stage = Stage.open("concepts", run.concepts, {}, {})
    row = dict.fromkeys(METADATA.names) | {"id": 77, "key": "a"}
    write_shard(run.concepts, 0, vectors, pa.Table.from_pylist([row], METADATA))
    stage.finish({"embedded": 1}, facts)
    stage = Stage.open("centroids", run.centroids, {}, {})
    schema = centroids_schema(encoder.d)
    columns = [
        list_column(vectors, pa.float32()) if f.name == "embedding" else pa.nulls(1, f.type) for f in schema
    ]
    publish_table(run.centroids_table, pa.Table.from_arrays(columns, schema=schema))
    stage.finish({"centroids": 1}, facts)
    return run


def test_a_text_a_file_and_a_picture_of_the_run_become_centroids_of_their_vectors(run, encoder, tmp_path):
    gradient = np.add.outer(np.arange(96), np.arange(128)).astype(np.uint8)
    Image.fromarray(gradient).convert("RGB").save(tmp_path / "slope.png")

    numbers = [
        add_concept(run, curator="ada", text="a red star"),
        add_concept(run, curator="bob", example=str(tmp_path / "slope.png")),
        add_concept(run, curator="bob", example="77", label="seven"),
    ]

    assert numbers == [1, 2, 3]
    added = added_centroids(run)
    assert [(each.kind, each.label, each.curator) for each in added] == [
        ("text", "a red star", "ada"),
        ("example", "slope", "bob"),
        ("example", "seven", "bob"),
    ]
    pixels = encoder.preprocess(Image.open(tmp_path / "slope.png"))
    expected = [
        encoder.encode_texts(["a red star"])[0],
        encoder.encode_images(pixels[None])[0],
        np.eye(1, encoder.d)[0],
    ]
    np.testing.assert_allclose([each.embedding for each in added], expected, atol=1e-3)


def test_a_concept_of_nothing_of_both_or_of_what_is_not_there_is_refused(run, tmp_path):
    for values in ({}, {"text": "a", "example": "77"}):
        with pytest.raises(ConfigError, match="one of the two"):
            add_concept(run, curator="ada", **values)
    with pytest.raises(DataError, match="no embedding of a picture 78"):
        add_concept(run, curator="ada", example="78")
    with pytest.raises(ImageError, match="no such file"):
        add_concept(run, curator="ada", example=str(tmp_path / "nothing.png"))
    write_config(run.config, Config())
    with pytest.raises(ConfigError, match="name that model"):
        add_concept(run, curator="ada", text="a")
    assert added_centroids(run) == []


def test_the_command_says_which_centroid_it_is(run):
    asked = ["concept", str(run.folder), "--example", "77", "--curator", "ada", "--json"]
    result = CliRunner().invoke(cli, asked, catch_exceptions=False)
    assert json.loads(result.stdout) == {"centroid_id": 1}
