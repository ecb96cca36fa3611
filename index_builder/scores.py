"""The score stage: embeddings and head scores of the fetched pictures, and their near-duplicates.

Each picture stands for itself, so a deeper fetch only adds parts. A picture with the same bytes as one of
the pool, embedded by the same model, takes the pool's stored embedding: it would come out the same.
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from index_builder.encoding.clip import clip_name, clip_parameters
from index_builder.encoding.crop_encoding import CropEncoding
from index_builder.encoding.decoding import Decoded, Refusal, decode
from index_builder.numerics.near_duplicates import near_duplicate_groups
from index_builder.scoring.exemplars import exemplar_scores
from index_builder.scoring.scorers import Scorer, model_names, scored_by_demo_models
from spine.config import load_config
from spine.errors import DataError
from spine.listed import Listed
from spine.manifest import Manifest, find_manifest, read_manifest
from spine.progress import SILENT, Progress
from spine.publish import publish_table
from spine.run import Run, part_path, part_paths
from spine.shards import read_shards
from spine.stage import Stage
from spine.table_files import read_parts, read_table
from spine.tables import (
    GROUPS,
    IMAGES,
    METADATA,
    NEIGHBOURS,
    POOL_SIMILARITIES,
    SCORED_BYTES,
    Vectors,
    scores_schema,
    vectors_of,
)

PART_ROWS = 2048
"""Pictures a part: what a kill may cost."""

_COLUMNS = ("id", "image_path", "sha256", "width", "height")
_LOOKED_AT = 64  # crops that wait for the watermark classifier


def score(run: Run, *, force: bool = False, progress: Progress = SILENT) -> Manifest:
    """Embed and score every fetched picture, and group near-duplicates among all of them.

    Reads images/, writes scores/part-*.parquet for pictures that have no row yet, and the other tables of scores/
    anew. A picture that can't be opened any more has no row in the parts and a group of its own. Where nothing was
    fetched the tables are empty: `select` then tells what took the candidates, and deeper neighbours may follow.

    Raises:
        DataError: None of the fetched pictures could be opened.
        ModelError: CLIP or a head can't be loaded, or they don't fit together.
    """
    config = load_config(run.config)
    heads = model_names(config)
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
    listed = Listed(run)
    scorer = Scorer(run, config)
    failures = _score_missing(run, images, scorer, listed, progress)
    table = read_parts(run.scores, scores_schema(scorer.d), ["id", "embedding", "aesthetic"])
    groups = _groups(images, table, config.select.near_duplicate)
    publish_table(run.groups_table, groups)
    publish_table(run.pool_similarities_table, _pool_similarities(run, table, scorer.pool_fits))
    if centroids is not None:
        publish_table(run.exemplars_table, exemplar_scores(run, scorer.heads.get("unsafe")))
    scored = images.num_rows - failures.total()
    if images.num_rows and not scored:
        raise DataError(
            f"{run.images}: none of {images.num_rows:,} pictures could be opened ({_reasons(failures)})"
        )
    counts = {"images": images.num_rows, "scored": scored, "failed": failures.total()}
    counts |= {f"failed_{reason}": failures[reason] for reason in sorted(failures)}
    counts["groups"] = len(pc.unique(groups["group"]))
    facts = {
        "d": scorer.d,
        "model": clip_name(config.clip),
        "demo_models": scored_by_demo_models(config),
        "scales": scorer.scales,
    } | heads
    manifest = stage.finish(counts, facts)
    if failures:
        progress.say(f"{failures.total():,} fetched pictures could not be scored: {_reasons(failures)}")
    progress.end()
    return manifest


@dataclass(frozen=True, slots=True)
class _Image:
    """A fetched picture that has no score yet."""

    id: int
    place: str
    sha256: str | None
    known: Vectors | None
    """Its embedding (d,), where the pool has it."""
    watermark_known: bool
    """Whether the pool says how likely it has a watermark."""

    def needs_pixels(self, scorer: Scorer) -> bool:
        """Whether the picture itself has to be opened."""
        return self.known is None or (scorer.classifier is not None and not self.watermark_known)


def _fetched(run: Run) -> pa.Table:
    table = read_parts(run.images, IMAGES, ["status", "small_path", *_COLUMNS])
    # The small copy wherever there is one: a score is the same whether the full size came since or not.
    places = pc.coalesce(table["small_path"], table["image_path"])
    table = table.set_column(table.schema.get_field_index("image_path"), "image_path", places)
    return table.filter(pc.equal(table["status"], "fetched")).select(list(_COLUMNS))


def _score_missing(
    run: Run, images: pa.Table, scorer: Scorer, listed: Listed, progress: Progress
) -> Counter[str]:
    """Write parts for the pictures without a row; gives the reasons of those that can't or may not be opened."""
    watermarked = _known_watermarks(run, images) if scorer.leaves_known_watermarks else set()
    missing = images.filter(pc.invert(pc.is_in(images["id"], _scored_ids(run, images, watermarked))))
    progress.begin("score", images.num_rows, "images", images.num_rows - missing.num_rows)
    failures: Counter[str] = Counter()
    if not missing.num_rows:
        return failures
    known = _pool_vectors(run, missing) if scorer.pool_fits else {}
    waiting = [
        _Image(
            row["id"], row["image_path"], row["sha256"], known.get(row["sha256"]), row["id"] in watermarked
        )
        for row in missing.select(["id", "image_path", "sha256"]).to_pylist()
    ]
    last = part_paths(run.scores)
    number = int(last[-1].stem.rsplit("-", 1)[1]) + 1 if last else 0
    with contextlib.closing(_pictures(waiting, scorer, listed)) as pictures:
        while True:
            part = _embedded(itertools.islice(pictures, PART_ROWS), scorer)
            if not part.taken:
                return failures
            if part.images:
                publish_table(part_path(run.scores, number), part.table(scorer))
                number += 1
            failures += part.refused
            progress.advance(part.taken, dict(part.refused))


def _known_watermarks(run: Run, images: pa.Table) -> set[int]:
    """Ids of fetched pictures of which the pool, or a side table, says how likely they have a watermark."""
    found: set[int] = set()
    columns = pa.schema([NEIGHBOURS.field("id"), NEIGHBOURS.field("pwatermark")])
    for path in part_paths(run.neighbours):
        rows = read_table(path, columns)
        ids = rows.filter(rows["pwatermark"].is_valid())["id"]
        found.update(ids.filter(pc.is_in(ids, images["id"].combine_chunks())).to_pylist())
    return found


def _scored_ids(run: Run, images: pa.Table, watermarked: set[int]) -> pa.Array:
    """Ids that have a row.

    Had a picture other bytes when it was scored (it was fetched again, or with another [fetch] max_side_px), or
    does the pool say by now what was guessed of it, all parts are made anew.
    """
    columns = pa.schema([*SCORED_BYTES, ("watermark", pa.float32())])
    scored = read_parts(run.scores, columns)
    bytes_now = dict(zip(images["id"].to_pylist(), images["sha256"].to_pylist(), strict=True))
    if any(
        bytes_now.get(row["id"], row["sha256"]) != row["sha256"]
        or (row["watermark"] is not None and row["id"] in watermarked)
        for row in scored.to_pylist()
    ):
        for path in part_paths(run.scores):
            path.unlink()
        scored = columns.empty_table()
    return pc.unique(scored["id"])


def _pictures(
    waiting: list[_Image], scorer: Scorer, listed: Listed
) -> Generator[tuple[_Image, Decoded | Refusal | None], None, None]:
    """Each picture, decoded where its pixels are needed, but for those that a list names by then."""
    with contextlib.closing(_decoded(waiting, scorer, listed)) as pictures:
        for image, picture in pictures:
            rule = listed.rules().get(image.id)
            yield image, picture if rule is None else Refusal(rule, "on a list")


def _decoded(
    waiting: list[_Image], scorer: Scorer, listed: Listed
) -> Generator[tuple[_Image, Decoded | Refusal | None], None, None]:
    """Where no picture's pixels are needed, no model and no process is."""
    if not any(image.needs_pixels(scorer) for image in waiting):
        yield from ((image, None) for image in waiting)
        return

    def place(image: _Image) -> str | None:
        opened = image.needs_pixels(scorer) and image.id not in listed.rules()
        return image.place if opened else None

    items = ((image, place(image)) for image in waiting)
    decoded = decode(
        items,
        scorer.encoder.preprocess,
        other=scorer.classifier.preprocess if scorer.classifier is not None else None,
        workers=scorer.config.clip.workers,
    )
    with contextlib.closing(decoded) as pictures:
        yield from pictures


@dataclass(frozen=True, slots=True)
class _Part:
    """What came of one part's pictures."""

    taken: int
    """How many there were."""
    images: list[_Image]
    """Those that could be had."""
    vectors: Vectors
    """Their embeddings, shape (n, d)."""
    watermarks: npt.NDArray[np.float32]
    """By the classifier, shape (n,); 0 where it wasn't asked."""
    refused: Counter[str]
    """Reasons of the others."""

    def table(self, scorer: Scorer) -> pa.Table:
        """Their rows."""
        return scorer.rows(
            [image.id for image in self.images],
            [image.sha256 for image in self.images],
            self.vectors,
            self.watermarks,
            np.array([image.watermark_known for image in self.images], dtype=bool),
        )


def _embedded(pictures: Iterator[tuple[_Image, Decoded | Refusal | None]], scorer: Scorer) -> _Part:
    """Embed one part's pictures, and have those looked at for watermarks that need it."""
    taken, refused = 0, Counter[str]()
    had: list[_Image] = []
    fresh: list[int] = []  # rows that CLIP embeds
    looked: list[int] = []  # rows that the classifier looks at
    encoding: CropEncoding | None = None
    looking = CropEncoding(scorer.classifier, _LOOKED_AT) if scorer.classifier is not None else None
    for image, picture in pictures:
        taken += 1
        if isinstance(picture, Refusal):
            refused[picture.reason] += 1
            continue
        if picture is None and image.needs_pixels(scorer):
            raise DataError(
                f"images/: picture {image.id} is fetched but has no place; run fetch with --force"
            )
        if picture is not None and image.known is None:
            encoding = encoding or CropEncoding(scorer.encoder, scorer.encoder.batch_size)
            encoding.add(picture.crop)
            fresh.append(len(had))
        if (
            looking is not None
            and picture is not None
            and picture.other is not None
            and not image.watermark_known
        ):
            looking.add(picture.other)
            looked.append(len(had))
        had.append(image)
    vectors = np.empty((len(had), scorer.d), dtype=np.float32)
    if encoding is not None:
        vectors[fresh] = encoding.take()
    for row, image in enumerate(had):
        if image.known is not None:
            vectors[row] = image.known
    watermarks = np.zeros(len(had), dtype=np.float32)
    if looking is not None:
        watermarks[looked] = looking.take()[:, 0]
    good = np.isfinite(vectors.sum(axis=1))
    refused["bad_embedding"] += int((~good).sum())
    images = [image for image, fine in zip(had, good, strict=True) if fine]
    return _Part(taken, images, vectors[good], watermarks[good], +refused)


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


def _pool_similarities(run: Run, table: pa.Table, pool_fits: bool) -> pa.Table:
    """How like each downloaded picture is to the embedding that the pool has of it; none where models differ.

    Args:
        run: With its pool, where it has one.
        table: Columns id and embedding.
        pool_fits: Whether the pool's embeddings are of the same model.
    """
    found = [POOL_SIMILARITIES.empty_table()]
    if pool_fits:
        images = read_parts(run.images, IMAGES, ["id", "http_status"])
        downloaded = images.filter(images["http_status"].is_valid())["id"].combine_chunks()
        table = table.filter(pc.is_in(table["id"], downloaded))
        ids = table["id"].combine_chunks()
        for vectors, rows in read_shards(run.pool, pa.schema([METADATA.field("id")])):
            at = pc.index_in(rows["id"].combine_chunks(), value_set=ids)
            there = np.flatnonzero(at.is_valid().to_numpy(zero_copy_only=False))
            ours = vectors_of(table["embedding"].take(at.drop_null()))
            theirs = vectors[there]
            norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)  # float16 is not quite 1
            similarity = np.einsum("ij,ij->i", ours, theirs) / norms
            columns = {"id": rows["id"].take(pa.array(there)), "similarity": similarity.astype(np.float32)}
            found.append(pa.table(columns, schema=POOL_SIMILARITIES))
    return pa.concat_tables(found).sort_by("id")


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
