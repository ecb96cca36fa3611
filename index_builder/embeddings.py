"""The embed stage: every picture of a source as an embedding with its metadata, in shards.

A shard is a fixed run of inputs. It is complete once its statuses are there, which are written last; a
stage that was stopped goes on with the first shard that has none. Shards are the same whenever they are
made, but for one thing they share: the first of several equal pictures is the one that counts.
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from index_builder.encoding.clip import ClipEncoder, clip_dimension, clip_name, clip_parameters, devices_of
from index_builder.encoding.crop_encoding import CropEncoding
from index_builder.encoding.decoding import Decoded, Refusal, decode
from index_builder.encoding.device_processes import DeviceProcesses
from index_builder.encoding.encoding_choice import EncodingChoice, kept_choice
from index_builder.sources.earlier_embeddings import EarlierEmbeddings, forget_aside, put_aside
from index_builder.sources.given_embeddings import SHARD_ROWS, take_embeddings
from index_builder.sources.inputs import Downloads, Input, local_inputs
from index_builder.sources.known_ids import KnownIds
from index_builder.sources.statuses import complete_shards, counts_of, embedded_ids, reasons_of
from index_builder.sources.vector_files import VectorFiles, find_vector_files
from spine.config import DEMO, load_config
from spine.errors import DataError
from spine.lists import LOOK_EVERY_S, BlockLists, ListsInForce
from spine.manifest import Manifest, find_manifest
from spine.progress import SILENT, Progress
from spine.publish import publish_table
from spine.run import Run, part_path
from spine.settings import Config
from spine.shards import write_shard
from spine.sources import Survey, entries, survey
from spine.stage import Stage
from spine.tables import METADATA, STATUSES, Vectors
from spine.web import Web

SHARD_INPUTS = 4096
"""Inputs a shard: what a kill may cost."""

_DOWNLOAD_FIRST = "let download = true, or download the addresses first, with img2dataset for instance; "
_REPORT_EVERY = 32  # inputs between two words to the progress


def embed(
    run: Run,
    collection: str,
    source: str | None = None,
    *,
    force: bool = False,
    progress: Progress = SILENT,
    web: Web | None = None,
) -> Manifest:
    """Embed the pictures of a source.

    Writes img_emb/, metadata/ and statuses/ in the collection's folder. Every input has one status:
    embedded, duplicate of an earlier one, or failed for a reason; the manifest's counts add up to the
    inputs. Pictures that only have an address are downloaded and not kept, or fail as not_local where
    `download` is off.

    Args:
        run: The run folder.
        collection: "concepts" or "pool".
        source: Folder of pictures, .tar, .parquet, or a folder of those; or a folder of embeddings that exist
            already. None takes the one of the settings, or else the one that was embedded before.
        force: Start over.
        progress: Told of each input.
        web: The way to the network; None is the public web within the limits of [fetch].

    Raises:
        ConfigError: A setting is wrong, or a list can't be read, also one that changed meanwhile.
        DataError: The source is missing or empty, or none of its pictures could be embedded.
        ModelError: The CLIP model can't be loaded.
    """
    config = load_config(run.config)
    folder = run.collection(collection)
    settings = config.concepts if collection == "concepts" else config.pool
    named = source or _known_source(settings.source, collection, folder)
    given = find_vector_files(named, config.clip)
    found = given if given is not None else survey(named)
    stage = _opened(collection, folder, found, config, force=force, download=settings.download)
    if stage.published is not None:
        return stage.published
    if isinstance(found, VectorFiles):
        d = _fitting_dimension(found, config)
        take_embeddings(folder, found, progress)
    else:
        d = _embed_pictures(run, folder, found, config, progress, download=settings.download, web=web)
    return _finished(stage, folder, found, d, config, progress)


def _finished(
    stage: Stage, folder: Path, found: Survey | VectorFiles, d: int, config: Config, progress: Progress
) -> Manifest:
    """Publish the manifest; what failed is said."""
    counts = counts_of(folder / "statuses")
    if not counts["embedded"]:
        raise DataError(
            f"{found.source}: none of {counts['inputs']:,} inputs could be embedded ({reasons_of(counts)}); "
            + (_DOWNLOAD_FIRST if counts.get("failed_not_local") else "")
            + f"{folder / 'statuses'} says why for each"
        )
    facts = {
        "d": d,
        "model": clip_name(config.clip),
        "demo_models": config.clip.model == DEMO,
        "source": found.source,
        "vectors_given": isinstance(found, VectorFiles),
    }
    manifest = stage.finish(counts, facts)
    forget_aside(folder)
    if counts["failed"]:
        progress.say(f"{counts['failed']:,} of {counts['inputs']:,} inputs failed: {reasons_of(counts)}")
    progress.end()
    return manifest


def _opened(
    collection: str, folder: Path, found: Survey | VectorFiles, config: Config, *, force: bool, download: bool
) -> Stage:
    """The stage's folder; what a changed source leaves of use is put aside.

    The source's digest is over names, sizes and times of its files. A new or changed file makes the whole stage
    stale: which picture is the first of its kind can then be another anywhere.
    """
    given = isinstance(found, VectorFiles)
    model = clip_parameters(config.clip)
    if force or given:
        forget_aside(folder)
    else:
        put_aside(folder, model, found.digest)
    parameters = {"source": found.source, "shard_inputs": SHARD_ROWS if given else SHARD_INPUTS}
    return Stage.open(
        collection,
        folder,
        parameters=model | parameters | ({} if download else {"download": False}),
        inputs={"source": found.digest},
        force=force,
    )


def _known_source(source: str, collection: str, folder: Path) -> str:
    """The source of the settings, or of the embeddings that are there."""
    if source:
        return source
    manifest = find_manifest(folder)
    if manifest is None:
        raise DataError(
            f"[{collection}] source is empty; set it in popfactory.toml, "
            f"or give one: popfactory embed {folder.parent} {collection} SOURCE"
        )
    return str(manifest.parameters["source"])


def _fitting_dimension(found: VectorFiles, config: Config) -> int:
    """The dimension of given vectors, if [clip]'s model makes such; loads no weights."""
    d = clip_dimension(config.clip)
    if found.d != d:
        raise DataError(
            f"{found.source}: vectors of d = {found.d}, {clip_name(config.clip)} makes d = {d}; "
            "set [clip] to the model that made them"
        )
    return d


def _embed_pictures(
    run: Run,
    folder: Path,
    found: Survey,
    config: Config,
    progress: Progress,
    *,
    download: bool,
    web: Web | None,
) -> int:
    """Embed what isn't embedded yet, on all devices; returns the embeddings' dimension."""
    earlier = EarlierEmbeddings.of(folder, clip_parameters(config.clip))
    encoder = ClipEncoder.load(config.clip)
    choice = kept_choice(folder, encoder, config.clip)
    lists = ListsInForce(run, LOOK_EVERY_S)
    lists.now()  # one that can't be read stops the work before it begins
    downloads = Downloads(config.fetch, lists, web) if download else None
    with _on_all_devices(encoder, choice, config) as everywhere:
        _embed_shards(folder, found, everywhere, earlier, config, lists, downloads, progress)
    return encoder.d


@contextlib.contextmanager
def _on_all_devices(
    encoder: ClipEncoder, choice: EncodingChoice, config: Config
) -> Iterator[ClipEncoder | DeviceProcesses]:
    """The model itself on one device; a process for each of several."""
    devices = devices_of(config.clip)
    if len(devices) == 1:
        yield encoder
        return
    with DeviceProcesses(config.clip, devices, choice, encoder.preprocess, encoder.d) as processes:
        yield processes


@dataclass(slots=True)
class _Shard:
    """What one shard's inputs came to."""

    statuses: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Metadata of the pictures that are embedded."""
    known: dict[int, Vectors] = field(default_factory=dict)
    """Rows whose embedding was there before, shape (d,)."""


def _embed_shards(
    folder: Path,
    found: Survey,
    encoder: ClipEncoder | DeviceProcesses,
    earlier: EarlierEmbeddings,
    config: Config,
    lists: ListsInForce,
    downloads: Downloads | None,
    progress: Progress,
) -> None:
    done = complete_shards(folder, SHARD_INPUTS)
    seen = embedded_ids(folder / "statuses")
    progress.begin(f"embed {folder.name}", found.total, "images", done * SHARD_INPUTS)
    waiting = itertools.islice(entries(found), done * SHARD_INPUTS, None)
    items = local_inputs(waiting, lists) if downloads is None else downloads.inputs(waiting)
    encoding = CropEncoding(encoder, encoder.batch_size)
    with contextlib.ExitStack() as stack:
        pictures = decode(
            items, encoder.preprocess, workers=config.clip.workers, listed=lambda: lists.now().hashes
        )
        stack.enter_context(contextlib.closing(pictures))
        if downloads is not None:
            stack.enter_context(downloads)  # closed first: whoever waits for a download is let go
        for number in itertools.count(done):
            shard = _Shard()
            if number == done and len(earlier):
                progress.say(f"{len(earlier):,} pictures were embedded before; those still there stay so")
            for given, picture in _reported(itertools.islice(pictures, SHARD_INPUTS), progress):
                _take(shard, seen, encoding, earlier, given, picture, lists.now())
            if not shard.statuses:
                break
            _publish(folder, number, shard, encoding, seen)


def _take(
    shard: _Shard,
    seen: KnownIds,
    encoding: CropEncoding,
    earlier: EarlierEmbeddings,
    given: Input,
    picture: Decoded | Refusal | None,
    lists: BlockLists,
) -> None:
    """Give one input its status, and its picture to the model if it is the first of its kind."""
    entry = given.entry
    status: dict[str, Any] = {
        "input": entry.name,
        "status": "failed",
        "reason": None,
        "id": None,
        "message": None,
    }
    shard.statuses.append(status)
    if not isinstance(picture, Decoded):
        refusal = _known_refusal(given) if picture is None else picture
        status |= {"reason": refusal.reason, "message": refusal.message[:1000]}
        return
    # The content's id is spelled out of the hash that the decoding process made: see spine.ids.
    content = int.from_bytes(bytes.fromhex(picture.sha256)[:8], "big", signed=True)
    own = content if entry.web_id is None else entry.web_id
    rule = lists.blocks(picture_id=own, url=entry.url, sha256=picture.sha256)
    if rule is not None:
        status |= {"reason": rule, "message": f"{entry.name}: on a list"[:1000]}
        return
    fresh = seen.add(own)
    status |= {"id": own, "status": "embedded" if fresh else "duplicate"}
    if not fresh:
        return
    vector = earlier.find(picture.sha256)
    if vector is not None:
        shard.known[len(shard.rows)] = vector
    else:
        encoding.add(picture.crop)
    shard.rows.append(
        {
            "id": own,
            "url": entry.url,
            "image_path": entry.place,
            "caption": entry.caption,
            "key": entry.key,
            "width": picture.width,
            "height": picture.height,
            "sha256": picture.sha256,
            "alt_txt_similarity": entry.alt_txt_similarity,
            "aesthetic": entry.aesthetic,
            "pwatermark": entry.pwatermark,
            "punsafe": entry.punsafe,
        }
    )


def _known_refusal(given: Input) -> Refusal:
    """Why an input that nothing was decoded of was not embedded."""
    if given.refusal is None:
        raise RuntimeError(f"{given.entry.name}: neither decoded nor refused")
    return given.refusal


def _publish(folder: Path, number: int, shard: _Shard, encoding: CropEncoding, seen: KnownIds) -> None:
    fresh = encoding.take()
    vectors = np.empty((len(shard.rows), fresh.shape[1]), dtype=np.float32)
    vectors[[row for row in range(len(shard.rows)) if row not in shard.known]] = fresh
    for row, vector in shard.known.items():
        vectors[row] = vector
    finite = np.isfinite(vectors.sum(axis=1))
    if not finite.all():
        bad = {row["id"] for row, good in zip(shard.rows, finite, strict=True) if not good}
        seen.take_back(bad)
        for status in shard.statuses:
            if status["id"] in bad:
                message = "the model gave values that are no numbers"
                status |= {"status": "failed", "reason": "bad_embedding", "id": None, "message": message}
    rows = [row for row, good in zip(shard.rows, finite, strict=True) if good]
    if rows:
        write_shard(folder, number, vectors[finite], pa.Table.from_pylist(rows, schema=METADATA))
    publish_table(
        part_path(folder / "statuses", number), pa.Table.from_pylist(shard.statuses, schema=STATUSES)
    )
    seen.keep()


def _reported(
    pictures: Iterator[tuple[Input, Decoded | Refusal | None]], progress: Progress
) -> Iterator[tuple[Input, Decoded | Refusal | None]]:
    """The same pictures; the progress is told of them a few at a time."""
    units, failures = 0, Counter[str]()
    for given, picture in pictures:
        yield given, picture
        units += 1
        if not isinstance(picture, Decoded):
            failures[(_known_refusal(given) if picture is None else picture).reason] += 1
        if units == _REPORT_EVERY:
            progress.advance(units, dict(failures))
            units, failures = 0, Counter()
    if units:
        progress.advance(units, dict(failures))
