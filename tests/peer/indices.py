"""Small true index folders that clip-retrieval and our server both open, from one indices_paths.json."""

import json
import shutil
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = ["url", "caption", "width", "NSFW", "punsafe", "similarity", "key"]

KINDS = {
    "hnsw": "HNSW8",
    "ivfpq": "IVF16_HNSW8,PQ{m}x8",
    "ivfsq": "IVF16,SQ8",
    "flat": "Flat",
    "text": "Flat",
}
"""File of the data folder to FAISS's key for it; text is of other vectors of the same rows."""

INDICES = ("hnsw", "ivfpq", "ivfsq", "flat")
"""Served, in this order; flat has a text index too."""

ARROW = ("ivfpq", "flat")
"""Those with Arrow metadata; the others have Parquet."""


def draw(folder: Path, n: int, d: int, seed: int = 0) -> None:
    """Write n rows: an index of every kind, metadata, queries and the vectors of the filters."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((20, d))
    vectors = _clustered(generator, centres, n, with_duplicates=True)
    texts = _clustered(generator, centres, n, with_duplicates=True)
    faiss.omp_set_num_threads(1)
    for name, kind in KINDS.items():
        index = faiss.index_factory(d, kind.format(m=min(16, d // 2)), faiss.METRIC_INNER_PRODUCT)
        rows = texts if name == "text" else vectors
        index.train(rows)
        index.add(rows)
        lists = faiss.try_extract_index_ivf(index)
        if lists is not None:
            lists.nprobe = 6
        faiss.write_index(index, str(folder / f"{name}.index"))
    pq.write_table(_metadata(generator, n), folder / "metadata.parquet", compression="zstd")
    np.savez_compressed(
        folder / "vectors.npz",
        queries=_clustered(generator, centres, 8, with_duplicates=False),
        ratings=_unit(generator.standard_normal((10, d))),
        violence=generator.standard_normal((2, d)).astype(np.float32),
        unsafe=(0.6 * generator.standard_normal(d)).astype(np.float32),
    )


def lay_out(data: Path, folder: Path, *, clip_model: str = "") -> Path:
    """Make the index folders of drawn data, in every layout that clip-retrieval reads.

    Returns:
        indices_paths.json. Keys that only one of the two servers knows are in it as well.
    """
    table = pq.read_table(data / "metadata.parquet")
    models = folder / "models"
    models.mkdir(parents=True)
    vectors = np.load(data / "vectors.npz")
    for rating in range(10):
        np.save(models / f"rating{rating}.npy", vectors["ratings"][rating])
    np.save(models / "violence.npy", vectors["violence"])
    np.savez(models / "unsafe.npz", weight=vectors["unsafe"], bias=np.zeros(1, np.float32))
    entries = {}
    for name in INDICES:
        (folder / name).mkdir()
        shutil.copy(data / f"{name}.index", folder / name / "image.index")
        arrow = name in ARROW
        (_write_arrow if arrow else _write_parquet)(folder / name / "metadata", table)
        entries[name] = {
            "indice_folder": str(folder / name),
            "clip_model": clip_model,
            "enable_hdf5": False,
            "enable_faiss_memory_mapping": name == "ivfsq",
            "columns_to_return": [*COLUMNS, "no such column"],
            "reorder_metadata_by_ivf_index": False,
            "enable_mclip_option": False,
            "use_jit": False,
            "use_arrow": arrow,
            "provide_safety_model": name != "flat",
            "provide_violence_detector": name != "flat",
            "provide_aesthetic_embeddings": True,
            "safety_model": str(models / "unsafe.npz") if name != "flat" else "",
            "violence_vectors": str(models / "violence.npy") if name != "flat" else "",
            "aesthetic_vectors": str(models),
        }
    shutil.copy(data / "text.index", folder / "flat" / "text.index")
    path = folder / "indices_paths.json"
    path.write_text(json.dumps(entries))
    return path


def stored_vectors(data: Path) -> dict[str, np.ndarray]:
    """By file: every row's vector as the index keeps it."""
    found = {}
    for name in KINDS:
        index = faiss.read_index(str(data / f"{name}.index"))
        lists = faiss.try_extract_index_ivf(index)
        if lists is not None:
            lists.make_direct_map()
        found[name] = index.reconstruct_n(0, index.ntotal)
    return found


def _clustered(
    generator: np.random.Generator, centres: np.ndarray, n: int, *, with_duplicates: bool
) -> np.ndarray:
    rows = centres[generator.integers(len(centres), size=n)]
    rows = _unit(rows + 0.7 * generator.standard_normal(rows.shape))
    if with_duplicates:
        for row in range(0, n - 4, 16):  # chains: each near the one before, the last far from the first
            for link in range(1, 4):
                step = 0.06 * generator.standard_normal(rows.shape[1])
                rows[row + link] = _unit((rows[row + link - 1] + step)[None])[0]
        rows[5::200] = rows[4::200][: len(rows[5::200])]  # the very same vector
    return rows.astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    unit: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _metadata(generator: np.random.Generator, n: int) -> pa.Table:
    captions = [f"Bild {row}, \u201cschön\u201d <b>&" if row % 7 else "" for row in range(n)]
    return pa.table(
        {
            "url": [f"https://pictures.example/{row}.jpg" for row in range(n)],
            "caption": captions,
            "width": (300 + np.arange(n) % 700).astype(np.int32),
            "NSFW": np.array(["UNLIKELY", "UNSURE", "NSFW"])[generator.integers(3, size=n)],
            "punsafe": np.where(np.arange(n) % 5, generator.random(n).round(3), np.nan).astype(np.float32),
            "similarity": generator.random(n).round(3).astype(np.float32),
            "key": np.arange(n) + 2**61 + 1,
        }
    )


def _write_parquet(folder: Path, table: pa.Table) -> None:
    folder.mkdir()
    half = table.num_rows // 2
    pq.write_table(table.slice(0, half), folder / "metadata_0.parquet")
    pq.write_table(table.slice(half), folder / "metadata_1.parquet")


def _write_arrow(folder: Path, table: pa.Table) -> None:
    """Three files of many batches, named as LAION-5B's are: their order is that of their names."""
    folder.mkdir()
    third = -(-table.num_rows // 3)
    for number, name in enumerate(("0_en", "1_multi", "2_nolang")):
        with pa.ipc.new_file(str(folder / f"{name}.arrow"), table.schema) as writer:
            writer.write_table(table.slice(number * third, third), max_chunksize=50)
