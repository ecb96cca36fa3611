"""Small true index folders for the tests of the server, and a real server over them."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import uvicorn

from index_builder.metadata.metadata_rows import write_metadata
from retrieval_server.app import build_app
from retrieval_server.connections import BoundedConnection
from retrieval_server.settings import ServerSettings

D = 32

LAION5B_ENTRY: dict[str, object] = {
    "provide_safety_model": True,
    "enable_faiss_memory_mapping": True,
    "use_arrow": True,
    "enable_hdf5": False,
    "reorder_metadata_by_ivf_index": False,
    "columns_to_return": ["url", "caption"],
    "clip_model": "ViT-L/14",
    "enable_mclip_option": False,
}
"""LAION-5B's options in indices_paths.json, as docs/laion5b.md has them, but for the folder."""


@dataclass(frozen=True)
class Pool:
    """Vectors and metadata by row."""

    vectors: np.ndarray  # (n, D), unit
    metadata: list[dict[str, object]]


def draw_pool(n: int = 600, seed: int = 0) -> Pool:
    """Unit vectors around 12 centres, with near-duplicates and chains of them among the rows."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((12, D))
    vectors = centres[generator.integers(12, size=n)] + 0.7 * generator.standard_normal((n, D))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for row in range(0, n - 4, 20):  # a chain: each is close to the one before, the last far from the first
        for link in range(1, 4):
            step = vectors[row + link - 1] + 0.05 * generator.standard_normal(D)
            vectors[row + link] = step / np.linalg.norm(step)
    metadata = [
        {
            "id": int(generator.integers(-(2**63), 2**63)),
            "url": f"https://h.example/{row}.jpg" if row % 3 else None,
            "caption": f'picture "{row}" ü <b>',
            "similarity": row / n,  # LAION's own: of picture and alt text
            "width": 512 + row,
            "punsafe": float("nan") if row % 5 == 0 else row / (2 * n),
        }
        for row in range(n)
    ]
    return Pool(vectors.astype(np.float32), metadata)


SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("url", pa.string()),
        ("caption", pa.string()),
        ("similarity", pa.float32()),
        ("width", pa.int32()),
        ("punsafe", pa.float32()),
    ]
)


def write_index(folder: Path, pool: Pool, kind: str = "Flat") -> Path:
    """Write a clip-retrieval index folder with an index of FAISS's `kind`."""
    folder.mkdir(parents=True)
    index = faiss.index_factory(D, kind, faiss.METRIC_INNER_PRODUCT)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # on a busy machine more threads wait for each other most of the time
    index.train(pool.vectors)
    index.add(pool.vectors)
    faiss.omp_set_num_threads(threads)
    faiss.write_index(index, str(folder / "image.index"))
    write_metadata(folder / "metadata" / "0.arrow", pa.Table.from_pylist(pool.metadata, schema=SCHEMA))
    return folder


@contextlib.contextmanager
def running(settings: ServerSettings, *, token: str = "") -> Iterator[str]:
    """A real server on a free loopback port; its address."""
    app = build_app(settings, token=token)
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="error", loop="uvloop", http=BoundedConnection)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(60)
