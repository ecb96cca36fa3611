"""Concepts that a curator adds by a text or an example: their vectors, made or found."""

from pathlib import PurePath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from index_builder.encoding.clip import ClipEncoder, clip_name
from spine.added_centroids import add_centroid
from spine.config import load_config
from spine.errors import ConfigError, DataError
from spine.images import open_picture
from spine.manifest import find_manifest, read_manifest
from spine.places import read_bytes
from spine.run import Run, part_paths
from spine.shards import read_shards
from spine.table_files import read_table
from spine.tables import METADATA, Vectors, scores_schema, vectors_of

_ID = pa.schema([METADATA.field("id")])


def add_concept(run: Run, *, curator: str, text: str = "", example: str = "", label: str = "") -> int:
    """Add a centroid for a text or an example.

    Args:
        run: With finished centroids.
        curator: Who adds it.
        text: What it should look like, in words; or
        example: The id of a picture of this run, whose stored embedding is taken, or a picture's place
            (a path, as spine.places knows it).
        label: What to call it; empty is the text, or the example's name.

    Returns:
        Its centroid id.

    Raises:
        ConfigError: Neither or both of text and example are given.
        DataError: The centroids aren't finished, or the run has no such picture.
        ImageError: The example can't be opened.
        ModelError: The CLIP model can't be loaded.
    """
    if bool(text) == bool(example):
        raise ConfigError("a concept is made of a text or of an example: give one of the two")
    model = read_manifest(run.centroids).facts.get("model")
    if text:
        kind, vector = "text", _encoder(run, model).encode_texts([text])[0]
    elif example.lstrip("-").isdecimal():
        kind, vector = "example", _stored_vector(run, int(example))
    else:
        encoder = _encoder(run, model)
        crop = encoder.preprocess(open_picture(read_bytes(example)).image)
        kind, vector = "example", encoder.encode_images(crop[None])[0]
    by_id = example.lstrip("-").isdecimal()
    name = label or text or (f"like picture {example}" if by_id else PurePath(example).stem)
    return add_centroid(
        run,
        label=name,
        kind=kind,
        source=text or example,
        embedding=vector,
        curator=curator,
        model=model,
    )


def _encoder(run: Run, model: str | None) -> ClipEncoder:
    config = load_config(run.config).clip
    if clip_name(config) != model:
        raise ConfigError(
            f"{run.config}: [clip] is {clip_name(config)}, the centroids are of {model}; name that model"
        )
    return ClipEncoder.load(config)


def _stored_vector(run: Run, picture_id: int) -> Vectors:
    """The embedding of a picture that was scored, or is in one of the collections."""
    manifest = find_manifest(run.scores)
    if manifest is not None:
        schema = scores_schema(int(manifest.facts["d"]))
        wanted = pa.schema([schema.field(name) for name in ("id", "embedding")])
        for path in part_paths(run.scores):
            table = read_table(path, wanted)
            rows = table.filter(pc.equal(table.column("id"), picture_id))
            if rows.num_rows:
                scored: Vectors = vectors_of(rows.column("embedding"))[0]
                return scored
    for folder in (run.concepts, run.pool):
        if find_manifest(folder) is None:
            continue
        for vectors, metadata in read_shards(folder, _ID):
            places = np.flatnonzero(metadata.column("id").to_numpy() == picture_id)
            if len(places):
                found: Vectors = np.asarray(vectors[places[0]], dtype=np.float32)
                return found
    raise DataError(
        f"{run.folder}: no embedding of a picture {picture_id} here; take one that is scored, or a file"
    )
