"""clip-retrieval's HDF5 metadata, and ids that count along the inverted lists."""

import json
import shutil
from pathlib import Path

import faiss
import h5py
import httpx
import numpy as np
import pytest

from retrieval_server.indices import open_index
from retrieval_server.settings import IndexSettings, load_indices_paths
from spine.errors import DataError
from spine.protocol import RetrievalClient
from tests.integration.server_index import Pool, draw_pool, running, write_index

POOL = draw_pool(300)
QUERY = draw_pool(1, seed=5).vectors[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_index(tmp_path / "i", POOL, "IVF8,Flat")


def numbers(folder: Path) -> list[int]:
    """By row its place, counted list by list."""
    index = faiss.read_index(str(folder / "image.index"))
    lists = faiss.extract_index_ivf(index).invlists
    places: dict[int, int] = {}
    for number in range(8):
        for place in range(lists.list_size(number)):
            places[int(faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number))[place])] = len(
                places
            )
    return [places[row] for row in range(300)]


def write_hdf5(path: Path, rows: list[dict[str, object]]) -> None:
    """As clip-retrieval's Hdf5Sink does: no null, a dataset a column."""
    with h5py.File(path, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset(
            "url", data=[row["url"] or "" for row in rows], maxshape=(None,), compression="gzip"
        )
        group.create_dataset("caption", data=[str(row["caption"]) for row in rows])
        group.create_dataset(
            "width", data=np.array([row["width"] for row in rows], np.int64), compression="gzip"
        )


def served(folder: Path, **options: object) -> Path:
    entry = {"indice_folder": str(folder), "clip_model": "", "columns_to_return": ["url", "caption", "width"]}
    path = folder.parent / "indices_paths.json"
    path.write_text(json.dumps({"pool": entry | options}))
    return path


def ask(indices: Path) -> tuple[list[dict], list[dict], list[int]]:
    """Results of a search, their metadata asked by id, and the ids of a batch."""
    with running(load_indices_paths(indices)) as address:
        body = {
            "embedding_input": QUERY.tolist(),
            "num_images": 30,
            "modality": "image",
            "indice_name": "pool",
        }
        found = httpx.post(f"{address}/knn-service", json=body).json()
        ids = [result["id"] for result in found]
        metadata = httpx.post(f"{address}/metadata", json={"ids": ids, "indice_name": "pool"}).json()
        with RetrievalClient(address) as client:
            batch = client.knn_batch(QUERY[None], 30, columns=["width"])
    return found, metadata, batch["row"].to_pylist()


def check(
    found: list[dict], metadata: list[dict], batch: list[int], number_of: list[int], folder: Path
) -> None:
    index = faiss.read_index(str(folder / "image.index"))
    similarities, rows = index.search(QUERY[None], 30)
    assert [result["id"] for result in found] == batch == [number_of[row] for row in rows[0]]
    assert [result["similarity"] for result in found] == pytest.approx(similarities[0], abs=1e-5)
    for result, entry, row in zip(found, metadata, rows[0].tolist(), strict=True):
        known = POOL.metadata[row]
        assert (result["url"] or "") == (known["url"] or "")
        assert (result["caption"], result["width"]) == (known["caption"], known["width"])
        assert entry == {
            "id": number_of[row],
            "metadata": {name: result[name] for name in ("url", "caption", "width")},
        }


def test_hdf5_metadata_is_served(folder: Path):
    shutil.rmtree(folder / "metadata")
    write_hdf5(folder / "metadata.hdf5", POOL.metadata)
    check(*ask(served(folder, enable_hdf5=True)), list(range(300)), folder)


@pytest.mark.parametrize("kept", ["metadata", "metadata and numbers", "hdf5"])
def test_ids_count_along_the_inverted_lists_where_metadata_is_reordered(folder: Path, kept: str):
    number_of = numbers(folder)
    assert number_of != list(range(300))
    if kept != "metadata":
        np.array(number_of, np.int64).tofile(folder / "ivf_old_to_new_mapping.npy")
    if kept == "hdf5":
        shutil.rmtree(folder / "metadata")
        row_of = np.argsort(number_of)
        write_hdf5(folder / "metadata_reordered.hdf5", [POOL.metadata[row] for row in row_of])
    check(*ask(served(folder, enable_hdf5=True, reorder_metadata_by_ivf_index=True)), number_of, folder)


def test_numbers_that_do_not_fit_are_refused(folder: Path, tmp_path: Path):
    def refused(match: str, folder: Path = folder) -> None:
        with pytest.raises(DataError, match=match):
            open_index(IndexSettings(name="pool", folder=folder, reordered=True))

    np.arange(299).tofile(folder / "ivf_old_to_new_mapping.npy")
    refused("299 numbers, 300 were needed")
    np.zeros(300, np.int64).tofile(folder / "ivf_old_to_new_mapping.npy")
    refused("not each number from 0 to 299 once")
    flat = write_index(tmp_path / "flat", Pool(POOL.vectors, POOL.metadata))
    refused("this index has none", flat)
    shutil.rmtree(flat / "metadata")
    (flat / "metadata.hdf5").write_bytes(b"no HDF5")
    refused(r"metadata\.hdf5: can't be read", flat)
