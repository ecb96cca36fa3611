"""A server that answers for long keeps the memory it has."""

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from retrieval_server.indices import resident_bytes
from retrieval_server.settings import IndexSettings, ServerSettings
from tests.integration.server_index import draw_pool, running, write_index

POOL = draw_pool(600)
WARM_UP = 500


@pytest.mark.parametrize("requests", [500, pytest.param(100_000, marks=pytest.mark.soak)])
def test_memory_stays_flat_over_many_requests(tmp_path: Path, requests: int):
    folder = write_index(tmp_path / "i", POOL, "IVF8,Flat")
    with running(ServerSettings(indices=(IndexSettings(name="pool", folder=folder),))) as address:
        with httpx.Client(base_url=address, timeout=60) as client, ThreadPoolExecutor(8) as threads:

            def ask(number: int) -> int:
                body = {"embedding_input": POOL.vectors[number % 600].tolist(), "num_images": 40}
                return client.post("/knn-service", json=body | {"deduplicate": number % 2 == 0}).status_code

            assert set(threads.map(ask, range(WARM_UP))) == {200}
            gc.collect()
            before = resident_bytes()
            for start in range(0, requests, WARM_UP):  # all at once they would wait as 100 MB of futures
                assert set(threads.map(ask, range(start, start + WARM_UP))) == {200}
            gc.collect()
            assert resident_bytes() - before < 40_000_000  # clients of this process included
