"""What a collection held before its source changed: a picture with the same bytes needs no model again.

A new or changed file makes a finished collection stale as a whole, since which picture is the first of its kind may
change anywhere. Its vectors are put aside, beside the collection, and looked up by the SHA-256 of each picture that
is read; they go when the new collection is finished. So the result is that of a fresh start, and a few new pictures
cost a few steps of the model and one reading of the others.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from index_builder.encoding.encoding_choice import KEPT
from spine.errors import DataError
from spine.manifest import MANIFEST, find_manifest
from spine.publish import publish_json
from spine.shards import Shard, shards
from spine.tables import METADATA, Vectors

_PARTS = ("img_emb", "metadata", KEPT)
_MODEL = "model.json"

Numbers = npt.NDArray[np.int64]


def put_aside(folder: Path, model: Mapping[str, str], digest: str) -> None:
    """Keep the vectors of a finished collection that is about to be made anew from a changed source.

    Args:
        folder: The collection's folder.
        model: What makes embeddings comparable: those of another model are of no use.
        digest: Of the source as it is now; an unchanged one leaves all as it is.
    """
    try:
        manifest = find_manifest(folder)
    except DataError:
        return
    if manifest is None or manifest.facts.get("vectors_given") or manifest.inputs.get("source") == digest:
        return
    if any(manifest.parameters.get(name) != value for name, value in model.items()):
        return
    forget_aside(folder)
    aside = _aside(folder)
    publish_json(aside / _MODEL, dict(model))
    (folder / MANIFEST).unlink()  # from here on the collection is unfinished, whatever comes
    for part in _PARTS:
        if (folder / part).exists():
            (folder / part).rename(aside / part)


def forget_aside(folder: Path) -> None:
    """Remove what was put aside."""
    shutil.rmtree(_aside(folder), ignore_errors=True)


class EarlierEmbeddings:
    """Vectors put aside, by the hash of their pictures: 16 bytes of memory each, the vectors stay on disk."""

    def __init__(self, found: list[Shard], keys: Numbers, places: Numbers) -> None:
        self._shards, self._keys, self._places = found, keys, places
        self._open: tuple[int, npt.NDArray[np.float16]] | None = None

    @classmethod
    def of(cls, folder: Path, model: Mapping[str, str]) -> "EarlierEmbeddings":
        """Those put aside for a collection; none where there are none of this model, or they can't be read.

        They are to be embedded with as these were: the choice of precision and step is taken over.

        Args:
            folder: The collection's folder, opened for work.
            model: As in put_aside.
        """
        none = np.empty(0, dtype=np.int64)
        aside = _aside(folder)
        try:
            if json.loads((aside / _MODEL).read_text(encoding="utf-8")) != dict(model):
                return cls([], none, none)
            found = shards(aside)
            keys, places = [none], [none]
            for number, shard in enumerate(found):
                column = shard.metadata(pa.schema([METADATA.field("sha256")])).column("sha256")
                keys.append(np.array([_key(sha256) for sha256 in column.to_pylist()], dtype=np.int64))
                places.append((number << 32) + np.arange(len(column), dtype=np.int64))
        except (OSError, ValueError, DataError):  # nothing, or half of it: then the model does it all
            return cls([], none, none)
        if (aside / KEPT).exists() and not (folder / KEPT).exists():
            shutil.copyfile(aside / KEPT, folder / KEPT)
        every, of_each = np.concatenate(keys), np.concatenate(places)
        order = np.argsort(every, kind="stable")
        return cls(found, every[order], of_each[order])

    def __len__(self) -> int:
        """Vectors that can be found."""
        return len(self._keys)

    def find(self, sha256: str) -> Vectors | None:
        """The embedding of a picture, shape (d,); None where it isn't there."""
        key = _key(sha256)
        at = int(np.searchsorted(self._keys, key))
        if at == len(self._keys) or self._keys[at] != key:
            return None
        number, row = divmod(int(self._places[at]), 1 << 32)
        if self._open is None or self._open[0] != number:
            path = self._shards[number].vectors_path
            self._open = number, np.load(path, mmap_mode="r", allow_pickle=False)
        return np.asarray(self._open[1][row], dtype=np.float32)


def _aside(folder: Path) -> Path:
    return folder.parent / f".{folder.name}-before"


def _key(sha256: str | None) -> int:
    """0 for none: no picture has it."""
    return int.from_bytes(bytes.fromhex(sha256[:16]), "big", signed=True) if sha256 else 0
