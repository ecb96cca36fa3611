"""Request bodies: read with a limit, parsed, checked. Whatever is wrong with one is a `Refusal`."""

import asyncio
import base64
import binascii
import io
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from fastapi import Request

from retrieval_server.admission import HeldBytes
from retrieval_server.refusals import Refusal
from spine.knn_query import MAX_RESULTS, MAX_TEXT_CHARACTERS, short
from spine.tables import Vectors

MAX_BODY_BYTES = 32_000_000
"""Of any request, before it is parsed."""

BODY_TIMEOUT_S = 30.0
"""For a body to come in."""

MAX_TEXTS = 1_024
"""Texts in one POST /embed."""

MAX_PICTURES = 64
"""Pictures in one POST /embed."""


async def read_body(request: Request, held: HeldBytes) -> bytes:
    """The request's body.

    Args:
        request: Whose body nobody has read.
        held: Counts its bytes among those of all requests.

    Raises:
        Refusal: It is larger than MAX_BODY_BYTES, by its header or while it comes in, takes longer than
            BODY_TIMEOUT_S, or all bodies together are more than the server takes.
    """
    too_large = Refusal(
        f"the body is larger than {MAX_BODY_BYTES // 1_000_000} MB", status=413, code="body_too_large"
    )
    said = request.headers.get("content-length", "")
    if said.isdecimal() and (len(said) > 12 or int(said) > MAX_BODY_BYTES):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise too_large
                held.add(len(chunk))
    except TimeoutError:
        words = f"the body took longer than {BODY_TIMEOUT_S:g} s"
        raise Refusal(words, status=408, code="body_too_slow") from None
    return bytes(body)


def parse_json(body: bytes) -> Any:
    """The JSON in a body, whatever its Content-Type says.

    Raises:
        Refusal: It is none. NaN and Infinity are none either.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(f"the body is no JSON: {error}", code="bad_json") from None


def parse_metadata_query(content: object, n: int) -> list[int]:
    """The row numbers in the body of POST /metadata.

    Args:
        content: The parsed body.
        n: Rows of the index.

    Raises:
        Refusal: `ids` is missing, holds something else than rows of the index, or too many.
    """
    ids = content.get("ids") if isinstance(content, dict) else None
    if not isinstance(ids, list):
        raise Refusal(f"ids is {short(ids)}, a list of row numbers was needed")
    if len(ids) > MAX_RESULTS:
        raise Refusal(f"{len(ids):,} ids, {MAX_RESULTS:,} at most in one request", code="too_many")
    for row in ids:
        if type(row) is not int or not 0 <= row < n:
            raise Refusal(f"id {short(row)} is no row of this index: 0 to {n - 1:,}", code="unknown_row")
    return ids


def parse_npy(body: bytes, d: int) -> Vectors:
    """The rows of vectors in a .npy body, without ever trusting its header for memory.

    Args:
        body: A .npy file of float16, float32 or float64, shape (n, d).
        d: The index's dimension.

    Raises:
        Refusal: It is something else, or a value isn't finite.
    """
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError("version")
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
    except (ValueError, SyntaxError, TypeError, EOFError, MemoryError, RecursionError):
        raise Refusal("the body is no .npy file; numpy.save writes one", code="bad_npy") from None
    if dtype.kind != "f" or dtype.itemsize > 8 or fortran or len(shape) != 2 or shape[1] != d:
        order = ", columns first" if fortran else ""
        raise Refusal(
            f"the array is {dtype} of shape {shape}{order}; rows of floats, shape (n, {d}), were needed",
            code="wrong_dimension",
        )
    content = memoryview(body)[file.tell() :]
    if len(content) != shape[0] * shape[1] * dtype.itemsize:
        raise Refusal(
            f"the array's header says {shape}, its content has {len(content):,} bytes", code="bad_npy"
        )
    with np.errstate(over="ignore"):
        vectors = np.frombuffer(content, dtype=dtype).reshape(shape).astype(np.float32, copy=False)
    if not np.isfinite(vectors).all():
        raise Refusal("the array holds NaN, infinity or a number too large; finite numbers were needed")
    return vectors


def arrow_stream(table: pa.Table) -> memoryview:
    """A table as an Arrow IPC stream, copied once: its size is counted before there is memory for it."""
    counted = pa.MockOutputStream()
    _write(counted, table)
    stream = pa.allocate_buffer(counted.size())
    _write(pa.FixedSizeBufferWriter(stream), table)
    return memoryview(stream)


def _write(sink: Any, table: pa.Table) -> None:
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def parse_embed(content: object) -> tuple[list[str], list[str]]:
    """The texts and the pictures (base64) in the body of POST /embed; one of the two is empty.

    Raises:
        Refusal: Neither or both are given, or one isn't what it should be.
    """
    fields = content if isinstance(content, dict) else {}
    given = {name: fields[name] for name in ("texts", "images") if fields.get(name) is not None}
    if len(given) != 1:
        raise Refusal('{"texts": [...]} or {"images": [base64, ...]} was needed')
    [(name, values)] = given.items()
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise Refusal(f"{name} is {short(values)}, a list of texts was needed")
    limit = MAX_TEXTS if name == "texts" else MAX_PICTURES
    if len(values) > limit:
        raise Refusal(f"{len(values):,} {name}, {limit:,} at most in one request", code="too_many")
    if name == "texts" and max(map(len, values)) > MAX_TEXT_CHARACTERS:
        raise Refusal(f"a text has more than {MAX_TEXT_CHARACTERS:,} characters")
    return (values, []) if name == "texts" else ([], values)


def parse_picture(encoded: str) -> bytes:
    """The picture file in a query's `image`: base64, a data: prefix or not.

    Raises:
        Refusal: It is no base64.
    """
    if encoded.startswith("data:"):
        encoded = encoded.partition(";base64,")[2]
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Refusal("image is no base64", code="bad_image") from None
