"""Index folders for bench_bulk: drawn vectors in lists of one k-means, in several codes, with metadata."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.drawn_vectors import Floats, draw_vectors
from index_builder.bulk_query import bulk_query
from index_builder.clustering.kmeans import fit_centroids
from index_builder.indexing.index_folder import INDEX_FILE, METADATA_FOLDER, VECTORS_FILE, IndexFolder
from index_builder.metadata.metadata_rows import write_metadata
from index_builder.metadata.row_mask import RowMask
from index_builder.numerics.faiss_library import load_faiss
from spine.publish import publish_array
from spine.stage import Stage

COLUMNS = ("url", "caption", "width", "height")
NPROBE = 32
KINDS = ("Flat", "SQ8", "PQ", "RaBitQ")


@dataclass(frozen=True)
class Pool:
    """What is searched, and with what."""

    folder: Path
    """A folder of an index folder for each of KINDS."""
    vectors: Floats
    queries: Floats
    exact: np.ndarray
    """Of the first queries the exact neighbours' rows, shape (m, 100)."""
    nlist: int

    @property
    def sizes(self) -> dict[str, int]:
        """Conditions that every figure has."""
        n, d = self.vectors.shape
        return {"n": n, "d": d, "nlist": self.nlist, "queries": len(self.queries)}

    def open(self, kind: str, *, memory_map: bool = False) -> IndexFolder:
        """An index folder, in memory unless it is to stay on disk."""
        return IndexFolder.open(self.folder / kind, memory_map=memory_map, check_digests=False)


def build(folder: Path, n: int, d: int, q: int, nlist: int) -> Pool:
    """Draw vectors and centroids, and build every kind of index over them."""
    faiss = load_faiss()
    vectors = draw_vectors(n, d)
    queries = fit_centroids(draw_vectors(4 * q, d, seed=1), q, iterations=3)
    exact = faiss.knn(queries[:500], vectors, 100, metric=faiss.METRIC_INNER_PRODUCT)[1]
    sample = vectors[:: max(1, n // (nlist * 40))]
    middles = fit_centroids(sample, nlist, iterations=5)
    keys = {"Flat": "Flat", "SQ8": "SQ8", "PQ": f"PQ{d // 8}x8np", "RaBitQ": "RaBitQ"}
    for kind, key in keys.items():
        rotation = f"RR{d}," if kind == "RaBitQ" else ""
        index = faiss.index_factory(d, f"{rotation}IVF{len(middles)},{key}", faiss.METRIC_INNER_PRODUCT)
        if rotation:
            turn = faiss.downcast_VectorTransform(index.chain.at(0))
            turn.train(sample[:1_000])
            faiss.extract_index_ivf(index).quantizer.add(turn.apply(middles))
        else:
            index.quantizer.add(middles)
        index.train(sample[:20_000])
        index.add(vectors)
        _publish(folder / kind, index, vectors if kind == "RaBitQ" else None)
    return Pool(folder, vectors, queries, exact, len(middles))


def _publish(folder: Path, index: object, vectors: Floats | None) -> None:
    """An index folder as the stage index writes one."""
    n, d = int(index.ntotal), int(index.d)  # type: ignore[attr-defined]
    stage = Stage.open("index", folder, {}, {})
    load_faiss().write_index(index, str(folder / INDEX_FILE))
    if vectors is not None:
        publish_array(folder / VECTORS_FILE, vectors.astype(np.float16))
    random = np.random.default_rng(2)
    columns = {
        "id": np.arange(n) * 7919,
        "url": [f"https://example.org/pictures/{row:09d}.jpg" for row in range(n)],
        "caption": [
            f"a drawn caption of ordinary length for the picture with the number {row}" for row in range(n)
        ],
        "width": random.integers(200, 2_000, n).astype(np.int32),
        "height": random.integers(200, 2_000, n).astype(np.int32),
        "aesthetic": random.random(n, dtype=np.float32) * 10,
    }
    write_metadata(folder / METADATA_FOLDER / "0.arrow", pa.table(columns))
    stage.finish({"vectors": n}, {"n": n, "d": d, "nprobe": 32, "model": "drawn"})


def in_bulk(
    index: IndexFolder,
    queries: Floats,
    k: int,
    columns: tuple[str, ...] = (),
    mask: RowMask | None = None,
    nprobe: int = NPROBE,
) -> np.ndarray:
    """Rows (q, k) by the bulk call; -1 where there are fewer."""
    rows = np.full((len(queries), k), -1, dtype=np.int64)
    for answers in bulk_query(index, queries, k, nprobe=nprobe, columns=columns, mask=mask):
        table = answers.neighbours
        rows[table.column("query").to_numpy(), table.column("rank").to_numpy()] = table.column(
            "row"
        ).to_numpy()
    return rows


def for_the_peer(pool: Pool, kind: str, folder: Path) -> Path:
    """indices_paths.json that serves one of the folders by clip-retrieval; the models it asks for are never used."""
    models = folder / "models"
    models.mkdir(parents=True)
    d = pool.vectors.shape[1]
    for rating in range(10):
        np.save(models / f"rating{rating}.npy", np.eye(1, d, dtype=np.float32)[0])
    np.save(models / "violence.npy", np.eye(2, d, dtype=np.float32))
    np.savez(models / "unsafe.npz", weight=np.zeros(d, np.float32), bias=np.zeros(1, np.float32))
    entry = {
        "indice_folder": str(pool.folder / kind),
        "clip_model": "",
        "enable_hdf5": False,
        "enable_faiss_memory_mapping": False,
        "columns_to_return": ["url", "caption", "width", "height"],
        "reorder_metadata_by_ivf_index": False,
        "enable_mclip_option": False,
        "use_jit": False,
        "use_arrow": True,
        "provide_safety_model": False,
        "provide_violence_detector": False,
        "provide_aesthetic_embeddings": False,
    }
    path = folder / "indices_paths.json"
    path.write_text(json.dumps({"pool": entry}))
    return path


def evict(*paths: Path) -> None:
    """Put files out of the page cache; what is mapped at the moment stays."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
