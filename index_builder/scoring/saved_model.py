"""CLIP-based-NSFW-Detector's zip files, read without TensorFlow: weights and vocabularies as plain arrays.

A SavedModel keeps its weights in variables.data, one after the other, with an index that is a table of LevelDB's
format; the words of its look-ups stand as constants in the graph of saved_model.pb. Both are protocol buffers, of
which only the few fields needed are read. Nothing is executed, and every length is checked against what is there.

Sources: TensorFlow, core/protobuf/tensor_bundle.proto, saved_model.proto and core/framework/*.proto; LevelDB,
doc/table_format.md.
"""

import io
import math
import re
import struct
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

_LARGEST = 50_000_000  # bytes of a file in the zip
_TABLE_END = struct.Struct("<Q")
_TABLE_MAGIC = 0xDB4775248B80FB57
_FLOAT, _STRING = 1, 7
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def read_detector(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """The detector's arrays: norm_mean, norm_var, dense_0_kernel and on, cat_columns, vocab_COLUMN.

    Args:
        content: The zip's bytes.

    Raises:
        ValueError, KeyError, IndexError, zipfile.BadZipFile: It is no such model.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name.rsplit("/", 1)[-1]: name for name in archive.namelist() if not name.endswith("/")}
        index, data, graph = (
            _member(archive, files[name])
            for name in ("variables.index", "variables.data-00000-of-00001", "saved_model.pb")
        )
    variables = {key: value for key, value in _table(index) if key.endswith(_VALUE)}
    layers = sorted(
        {int(found[1]) for key in variables if (found := re.match(r"layer_with_weights-(\d+)/kernel", key))}
    )
    arrays: dict[str, npt.NDArray[Any]] = {}
    for number, layer in enumerate(layers):
        for part in ("kernel", "bias"):
            entry = variables[f"layer_with_weights-{layer}/{part}{_VALUE}"]
            arrays[f"dense_{number}_{part}"] = _tensor(entry, data)
    for ours, theirs in (("norm_mean", "mean"), ("norm_var", "variance")):
        arrays[ours] = _tensor(variables[f"layer_with_weights-1/{theirs}{_VALUE}"], data)
    columns = sorted(
        {int(found[1]) for key, _ in _table(index) if (found := re.search(r"/encoding_layers/(\d+)/", key))}
    )
    words = list(_vocabularies(graph))
    if len(words) != len(columns):
        raise ValueError(f"{len(words)} vocabularies for {len(columns)} columns of categories")
    arrays["cat_columns"] = np.array(columns, dtype=np.int32)
    return arrays | {
        f"vocab_{column}": np.array(vocabulary) for column, vocabulary in zip(columns, words, strict=True)
    }


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _LARGEST:
        raise ValueError(f"{name} is larger than {_LARGEST:,} bytes")
    return archive.read(name)


def _vocabularies(saved_model: bytes) -> Iterator[list[str]]:
    """The lists of words of the graph, each as numbers from 1 follow it; in the order of the columns."""
    graph = _first(_first(saved_model, 2), 2)  # meta_graphs, graph_def
    words: list[bytes] = []
    for node in _all(graph, 1):
        if _first(node, 2) != b"Const":
            continue
        value = next((_first(each, 2) for each in _all(node, 5) if _first(each, 1) == b"value"), b"")
        tensor = _first(value, 8)
        kind = _first_number(tensor, 1)
        if kind == _STRING:
            words = list(_all(tensor, 8))
        elif len(words) > 1:
            numbers = np.frombuffer(_first(tensor, 4), dtype="<i8")
            if numbers.tolist() == list(range(1, len(words) + 1)):
                yield [word.decode("utf-8") for word in words]
            words = []


def _tensor(entry: bytes, data: bytes) -> npt.NDArray[np.float32]:
    """A tensor by its BundleEntryProto."""
    if _first_number(entry, 1) != _FLOAT:
        raise ValueError("a weight is not float32")
    shape = [_first_number(size, 1) for size in _all(_first(entry, 2), 2)]
    start, size = _first_number(entry, 4), _first_number(entry, 5)
    if size != 4 * math.prod(shape) or start + size > len(data):
        raise ValueError(f"a weight of shape {shape} has {size:,} bytes at {start:,} of {len(data):,}")
    return np.frombuffer(data, dtype="<f4", count=size // 4, offset=start).reshape(shape).copy()


def _table(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Keys and values of a table of LevelDB's format, uncompressed."""
    if len(content) < 48 or _TABLE_END.unpack(content[-8:])[0] != _TABLE_MAGIC:
        raise ValueError("variables.index is no table")
    footer = content[-48:]
    at = 0
    for _ in range(2):  # the handle of the index of metadata, which nobody needs
        _, at = _number(footer, at)
    start, at = _number(footer, at)
    size, _ = _number(footer, at)
    for _, handle in _block(content, start, size):
        begin, at = _number(handle, 0)
        length, _ = _number(handle, at)
        for key, value in _block(content, begin, length):
            yield key.decode("utf-8"), value


def _block(content: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    if start + size + 1 > len(content) or size < 4:
        raise ValueError("a block of variables.index lies outside it")
    if content[start + size]:
        raise ValueError("variables.index is compressed")
    block = content[start : start + size]
    (restarts,) = struct.unpack("<I", block[-4:])
    end = size - 4 - 4 * restarts
    at, key = 0, b""
    while at < end:
        shared, at = _number(block, at)
        fresh, at = _number(block, at)
        length, at = _number(block, at)
        key = key[:shared] + block[at : at + fresh]
        yield key, block[at + fresh : at + fresh + length]
        at += fresh + length


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protocol buffer's message."""
    at = 0
    while at < len(message):
        tag, at = _number(message, at)
        kind = tag & 7
        if kind == 0:
            number, at = _number(message, at)
            yield tag >> 3, number
            continue
        if kind == 2:
            size, at = _number(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if at + size > len(message):
            raise ValueError("a message breaks off")
        yield tag >> 3, message[at : at + size]
        at += size


def _all(message: bytes, field: int) -> Iterator[bytes]:
    return (value for number, value in _fields(message) if number == field and isinstance(value, bytes))


def _first(message: bytes, field: int) -> bytes:
    return next(_all(message, field), b"")


def _first_number(message: bytes, field: int) -> int:
    """0 where it is missing, as protocol buffers have it."""
    found = (value for number, value in _fields(message) if number == field and isinstance(value, int))
    return next(found, 0)


def _number(content: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and where the next thing begins."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number doesn't end")
