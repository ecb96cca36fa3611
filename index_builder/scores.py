"""The score stage: embeddings and head scores of the fetched pictures, and their near-duplicates.

Each picture stands for itself, so a deeper fetch only adds parts. A picture with the same bytes as one of
the pool, embedded by the same model, takes the pool's stored embedding: it would come out the same.
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from index_builder.clip import ClipEncoder, CropEncoding, clip_name, clip_parameters
from index_builder.decoding import Decoded, Refusal, decode
from index_builder.exemplars import exemplar_scores
from index_builder.heads import Head, Kind, head_name, load_head
from index_builder.near_duplicates import near_duplicate_groups
from spine.config import DEMO, load_config
from spine.errors import DataError
from spine.progress import SILENT, Progress
from spine.publish import publish_table
from spine.run import Run, part_path, part_paths
from spine.settings import Config, ScoreConfig
from spine.shards import read_shards
from spine.stage import Manifest, Stage, find_manifest, read_manifest
from spine.tables import (
    GROUPS,
    IMAGES,
    METADATA,
    SCORED_BYTES,
    Vectors,
    list_column,
    read_parts,
    scores_schema,
    vectors_of,
)

PART_ROWS = 2048
"""Pictures a part: what a kill may cost."""

_KINDS: tuple[Kind, ...] = ("aesthetic", "unsafe", "watermark")
_COLUMNS = ("id", "image_path", "sha256", "width", "height")


def score(run: Run, *, force: bool = False, progress: Progress = SILENT) -> Manifest:
    """Embed and score every fetched picture, and group near-duplicates among all of them.

    Reads images/, writes scores/part-*.parquet for pictures that have no row yet, and groups.parquet
    and exemplars.parquet anew. A picture that can't be opened any more has no row in the parts and a group of its own.

    Raises:
        DataError: No picture was fetched, or none could be opened.
        ModelError: CLIP or a head can't be loaded, or they don't fit together.
    """
    config = load_config(run.config)
    heads = {kind: head_name(_head_source(config.score, kind), kind) for kind in _KINDS}
    centroids = find_manifest(run.centroids)
    stage = Stage.open(
        "scores",
        run.scores,
        parameters=clip_parameters(config.clip) | heads | {"near_duplicate": config.select.near_duplicate},
        inputs={"images": read_manifest(run.images).digest}
        | ({"centroids": centroids.digest} if centroids is not None else {}),
        grows_with=("centroids", "images", "near_duplicate"),
        force=force,
    )
    if stage.published is not None:
        return stage.published
    images = _fetched(run)
    if not images.num_rows:
        raise DataError(
            f"{run.images}: no picture was fetched, so there is nothing to score; see `popfactory status`"
        )
    scorer = _Scorer(run, config)
    failures = _score_missing(run, images, scorer, progress)
    table = read_parts(run.scores, scores_schema(scorer.d), ["id", "embedding", "aesthetic"])
    groups = _groups(images, table, config.select.near_duplicate)
    publish_table(run.groups_table, groups)
    if centroids is not None:
        publish_table(run.exemplars_table, exemplar_scores(run, scorer.heads.get("unsafe")))
    scored = images.num_rows - failures.total()
    if not scored:
        raise DataError(
            f"{run.images}: none of {images.num_rows:,} pictures could be opened ({_reasons(failures)})"
        )
    counts = {"images": images.num_rows, "scored": scored, "failed": failures.total()}
    counts |= {f"failed_{reason}": failures[reason] for reason in sorted(failures)}
    counts["groups"] = len(pc.unique(groups["group"]))
    names = [_head_source(config.score, kind) for kind in _KINDS]
    demo = DEMO in (config.clip.model, *names)
    facts = {"d": scorer.d, "model": clip_name(config.clip), "demo_models": demo} | heads
    manifest = stage.finish(counts, facts)
    if failures:
        progress.say(f"{failures.total():,} fetched pictures could not be scored: {_reasons(failures)}")
    progress.end()
    return manifest


class _Scorer:
    """The models, loaded when they are first needed."""

    def __init__(self, run: Run, config: Config) -> None:
        self.config = config
        self._encoder: ClipEncoder | None = None
        pool = find_manifest(run.pool)
        ours = clip_parameters(config.clip)
        self.pool_fits = pool is not None and all(
            pool.parameters.get(key) == ours.get(key) for key in ("model", "weights")
        )
        self.d = int(pool.facts["d"]) if pool is not None and self.pool_fits else self.encoder.d
        self.heads: dict[Kind, Head] = {
            kind: load_head(source, kind, self.d)
            for kind in _KINDS
            if (source := _head_source(config.score, kind))
        }

    @property
    def encoder(self) -> ClipEncoder:
        """CLIP; loaded on first use, since with the pool's embeddings it may not be needed."""
        if self._encoder is None:
            self._encoder = ClipEncoder.load(self.config.clip)
        return self._encoder

    def rows(self, images: list["_Image"], vectors: Vectors) -> pa.Table:
        """Rows of the scores table. Heads see the values as they are stored, in float16."""
        ids = [image.id for image in images]
        stored = vectors.astype(np.float16)
        columns: dict[str, Any] = {
            "id": pa.array(ids, pa.int64()),
            "embedding": list_column(stored, pa.float16()),
        }
        for kind in _KINDS:
            head = self.heads.get(kind)
            scores = head.score(stored.astype(np.float32)) if head is not None else None
            columns[kind] = (
                pa.nulls(len(ids), pa.float32()) if scores is None else pa.array(scores, pa.float32())
            )
            columns[f"{kind}_model"] = pa.array(
                [head.name if head is not None else None] * len(ids), pa.string()
            )
        columns["sha256"] = pa.array([image.sha256 for image in images], pa.string())
        return pa.table(columns, schema=pa.unify_schemas([scores_schema(self.d), SCORED_BYTES]))


@dataclass(frozen=True, slots=True)
class _Image:
    """A fetched picture that has no score yet."""

    id: int
    place: str
    sha256: str | None
    known: Vectors | None
    """Its embedding (d,), where the pool has it."""


def _head_source(settings: ScoreConfig, kind: Kind) -> str:
    return {
        "aesthetic": settings.aesthetic_head,
        "unsafe": settings.unsafe_head,
        "watermark": settings.watermark_head,
    }[kind]


def _fetched(run: Run) -> pa.Table:
    table = read_parts(run.images, IMAGES, ["status", *_COLUMNS])
    return table.filter(pc.equal(table["status"], "fetched")).select(list(_COLUMNS))


def _score_missing(run: Run, images: pa.Table, scorer: _Scorer, progress: Progress) -> Counter[str]:
    """Write parts for the pictures without a row; gives the reasons of those that can't be opened."""
    missing = images.filter(pc.invert(pc.is_in(images["id"], _scored_ids(run, images))))
    progress.begin("score", images.num_rows, "images", images.num_rows - missing.num_rows)
    failures: Counter[str] = Counter()
    if not missing.num_rows:
        return failures
    known = _pool_vectors(run, missing) if scorer.pool_fits else {}
    waiting = [
        _Image(row["id"], row["image_path"], row["sha256"], known.get(row["sha256"]))
        for row in missing.select(["id", "image_path", "sha256"]).to_pylist()
    ]
    last = part_paths(run.scores)
    number = int(last[-1].stem.rsplit("-", 1)[1]) + 1 if last else 0
    with contextlib.closing(_pictures(waiting, scorer)) as pictures:
        while True:
            taken, images_of_part, vectors, refused = _embedded(itertools.islice(pictures, PART_ROWS), scorer)
            if not taken:
                return failures
            if images_of_part:
                publish_table(part_path(run.scores, number), scorer.rows(images_of_part, vectors))
                number += 1
            failures += refused
            progress.advance(taken, dict(refused))


def _scored_ids(run: Run, images: pa.Table) -> pa.Array:
    """Ids that have a row.

    Had a picture other bytes when it was scored (it was fetched again, or with another [fetch]
    max_side_px), all parts are made anew.
    """
    scored = read_parts(run.scores, SCORED_BYTES)
    bytes_now = dict(zip(images["id"].to_pylist(), images["sha256"].to_pylist(), strict=True))
    if any(bytes_now.get(row["id"], row["sha256"]) != row["sha256"] for row in scored.to_pylist()):
        for path in part_paths(run.scores):
            path.unlink()
        scored = SCORED_BYTES.empty_table()
    return pc.unique(scored["id"])


def _pictures(
    waiting: list[_Image], scorer: _Scorer
) -> Generator[tuple[_Image, Decoded | Refusal | None], None, None]:
    """Each picture, decoded where its embedding isn't known. All known: no model and no process is needed."""
    if all(image.known is not None for image in waiting):
        yield from ((image, None) for image in waiting)
        return
    items = ((image, image.place if image.known is None else None) for image in waiting)
    workers = scorer.config.clip.workers
    with contextlib.closing(decode(items, scorer.encoder.preprocess, workers=workers)) as pictures:
        yield from pictures


def _embedded(
    pictures: Iterator[tuple[_Image, Decoded | Refusal | None]], scorer: _Scorer
) -> tuple[int, list[_Image], Vectors, Counter[str]]:
    """Embed one part's pictures.

    Returns:
        How many there were; those that could be had, and their embeddings (n, d); reasons of the others.
    """
    taken, refused = 0, Counter[str]()
    had: list[_Image] = []
    known: dict[int, Vectors] = {}  # row to the pool's embedding
    encoding: CropEncoding | None = None
    for image, picture in pictures:
        taken += 1
        if isinstance(picture, Refusal):
            refused[picture.reason] += 1
            continue
        if picture is None:
            if image.known is None:
                raise DataError(
                    f"images/: picture {image.id} is fetched but has no place; run fetch with --force"
                )
            known[len(had)] = image.known
        else:
            encoding = encoding or CropEncoding(scorer.encoder, scorer.config.clip.batch_size)
            encoding.add(picture.crop)
        had.append(image)
    vectors = np.empty((len(had), scorer.d), dtype=np.float32)
    fresh = [row for row in range(len(had)) if row not in known]
    if encoding is not None:
        vectors[fresh] = encoding.take()
    for row, vector in known.items():
        vectors[row] = vector
    good = np.isfinite(vectors.sum(axis=1))
    refused["bad_embedding"] += int((~good).sum())
    return taken, [image for image, fine in zip(had, good, strict=True) if fine], vectors[good], +refused


def _pool_vectors(run: Run, missing: pa.Table) -> dict[str, Vectors]:
    """Embeddings (d,) of the pool's pictures with the same bytes, by SHA-256."""
    wanted = pc.unique(missing["sha256"].drop_null())
    found: dict[str, Vectors] = {}
    columns = pa.schema([METADATA.field("sha256")])
    for vectors, rows in read_shards(run.pool, columns):
        hits = np.flatnonzero(pc.is_in(rows["sha256"], wanted).to_numpy(zero_copy_only=False))
        for row, sha256 in zip(hits, rows["sha256"].take(hits).to_pylist(), strict=True):
            found[sha256] = vectors[row].copy()  # or the whole shard would stay
    return found


def _groups(images: pa.Table, table: pa.Table, threshold: float) -> pa.Table:
    """Near-duplicates among all fetched pictures; larger ones stand for smaller, then finer, then lower ids."""
    ids = images["id"].to_numpy()
    area = images["width"].to_numpy().astype(np.int64) * images["height"].to_numpy()
    places = {int(one): row for row, one in enumerate(table["id"].to_numpy())}
    rows = np.array([places.get(int(one), -1) for one in ids], dtype=np.int64)
    have = np.flatnonzero(rows >= 0)
    groups = np.arange(len(ids), dtype=np.int64)
    if len(have):
        beauty = table["aesthetic"].to_numpy(zero_copy_only=False)[rows[have]]
        vectors = vectors_of(table["embedding"])[rows[have]]
        # lexsort orders by its last key first; a score that isn't known comes after all that are.
        order = np.lexsort((ids[have], -np.nan_to_num(beauty, nan=-np.inf), -area[have]))
        groups[have] = have[near_duplicate_groups(vectors, threshold, order)]
    sizes = np.bincount(groups, minlength=len(ids))
    return pa.table(
        {"id": ids, "group": ids[groups], "group_size": sizes[groups].astype(np.int32)}, schema=GROUPS
    )


def _reasons(failures: Counter[str]) -> str:
    return ", ".join(f"{reason} {failures[reason]:,}" for reason in sorted(failures))
