import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_server.bodies import (
    parse_embed,
    parse_json,
    parse_metadata_query,
    parse_npy,
    parse_picture,
)
from retrieval_server.refusals import Refusal


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@given(st.integers(0, 5), st.integers(1, 9), st.sampled_from([np.float16, np.float32, np.float64]))
def test_an_array_comes_through_as_float32(n, d, dtype):
    array = np.random.default_rng(n).standard_normal((n, d)).astype(dtype)
    read = parse_npy(npy(array), d)
    assert read.dtype == np.float32
    assert np.array_equal(read, array.astype(np.float32))


@given(st.binary(max_size=300))
def test_any_bytes_are_an_array_or_a_refusal(body):
    for content in (body, npy(np.ones((2, 3), np.float32))[: len(body)], b"\x93NUMPY\x01\x00" + body):
        with pytest.raises(Refusal):
            parse_npy(content, 3)


def test_a_header_that_promises_more_than_there_is_takes_no_memory():
    body = npy(np.ones((2, 3), np.float32))
    with pytest.raises(Refusal, match="content has 24 bytes"):
        parse_npy(body.replace(b"(2, 3)", b"(9, 3)"), 3)


@given(st.binary(max_size=100))
def test_any_bytes_are_json_or_a_refusal(body):
    try:
        parse_json(body)
    except Refusal as error:
        assert error.status == 400


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_any_json_is_a_list_of_rows_or_a_refusal(value):
    try:
        rows = parse_metadata_query({"ids": value}, 10)
    except Refusal:
        return
    assert rows == value and all(0 <= row < 10 for row in rows)


def test_embed_takes_texts_or_images_but_not_both():
    assert parse_embed({"texts": ["a", "b"]}) == (["a", "b"], [])
    assert parse_embed({"images": ["aGk="], "texts": None}) == ([], ["aGk="])
    for wrong in ({}, {"texts": ["a"], "images": ["b"]}, {"texts": ["a"] * 1_025}, {"texts": ["x" * 10_001]}):
        with pytest.raises(Refusal):
            parse_embed(wrong)


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_a_picture_comes_in_base64_with_line_breaks_or_a_prefix(prefix):
    content = bytes(range(256)) * 9
    assert parse_picture(prefix + base64.encodebytes(content).decode()) == content


@pytest.mark.parametrize("encoded", ["ü", "====", "abc", "a_b-"])
def test_what_is_no_base64_is_refused(encoded):
    with pytest.raises(Refusal, match="no base64"):
        parse_picture(encoded)
