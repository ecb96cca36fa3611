"""Requests that schemathesis makes up from the server's own OpenAPI: none of them makes it fail."""

import io
from collections.abc import Iterator
from pathlib import Path

import faiss
import httpx
import numpy as np
import pyarrow as pa
import pytest
import schemathesis
import schemathesis.specs.openapi.schemas  # here, where no thread compiles beside it: CPython 3.11 may fail at that
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from index_builder.metadata.metadata_rows import write_metadata
from retrieval_server.settings import IndexSettings, ServerSettings
from spine.protocol import NPY
from spine.settings import ClipConfig
from tests.integration.server_index import running

D, N = 128, 200


@schemathesis.serializer(NPY)
def as_npy(_: object, value: object) -> bytes:
    """What was made up as it is, or, for every other length, an array of so many rows."""
    content = value if isinstance(value, bytes) else str(value).encode()
    if len(content) % 2:
        return content
    file = io.BytesIO()
    np.save(file, np.random.default_rng(len(content)).standard_normal((len(content) % 5, D)))
    return file.getvalue()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("openapi") / "i"
    folder.mkdir()
    vectors = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)
    index = faiss.IndexFlatIP(D)
    index.add(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    faiss.write_index(index, str(folder / "image.index"))
    write_metadata(folder / "metadata" / "0.arrow", pa.table({"caption": [f"row {row}" for row in range(N)]}))
    demo = ClipConfig(model="demo", pretrained="", device="cpu")
    with running(ServerSettings(indices=(IndexSettings(name="pool", folder=folder, clip=demo),))) as address:
        yield address


@pytest.mark.parametrize("examples", [30, pytest.param(400, marks=pytest.mark.soak)])
@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("route", ["/knn-service", "/metadata", "/knn-batch", "/embed"])
def test_no_made_up_request_makes_the_server_fail(address, route, mode, examples):
    statuses = []

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(
        case=schemathesis.openapi.from_url(f"{address}/openapi.json")[route]["POST"].as_strategy(
            generation_mode=mode
        )
    )
    def ask(case: schemathesis.Case) -> None:
        answer = case.call()
        statuses.append(answer.status_code)
        assert answer.status_code < 500, (answer.status_code, answer.text)
        if answer.status_code != 200:
            assert {"message", "code"} <= set(answer.json())

    ask()
    assert len(statuses) >= examples
    assert httpx.get(f"{address}/ready").status_code == 200
