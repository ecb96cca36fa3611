"""Indices that others wrote: any kind of FAISS's, LAION-5B's layout, and files that are none."""

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faiss.contrib.ondisk import merge_ondisk

from index_builder.indexing.index_folder import IndexFolder
from spine.errors import DataError
from tests.unit.index_builder.scattered import scattered

N, D = 1_600, 32


@pytest.fixture(scope="module")
def vectors():
    return scattered(N, D)


def metadata(folder, n=N):
    (folder / "metadata").mkdir(parents=True)
    pq.write_table(
        pa.table({"url": [f"http://x/{row}" for row in range(n)]}), folder / "metadata" / "0.parquet"
    )
    return folder


KINDS = [
    "Flat",
    "SQ8",
    "PQ8x4",
    "HNSW8",
    "HNSW8,SQ8",
    "NSG8",
    "PCA16,Flat",
    "IVF16,Flat",
    "IVF16,SQ4",
    "IVF16,SQfp16",
    "IVF16,PQ8x4",
    "IVF16,PQ8x4fs",
    "IVF16,PQ8x4,RFlat",
    "IVF16_HNSW8,SQ8",
    "RR32,IVF16,RaBitQ",
    "IVF16,RaBitQfs",
    "OPQ8_16,IVF16,PQ8x4",
    "LSH",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory_map", [True, False])
def test_an_index_of_any_kind_finds_what_faiss_itself_finds(tmp_path, vectors, kind, memory_map):
    metric = faiss.METRIC_L2 if kind == "LSH" else faiss.METRIC_INNER_PRODUCT
    index = faiss.index_factory(D, kind, metric)
    if kind.startswith("OPQ"):
        rotation = faiss.downcast_VectorTransform(index.chain.at(0))
        rotation.niter = rotation.niter_pq = rotation.niter_pq_0 = 2
    index.train(vectors)
    index.add(vectors)
    folder = metadata(tmp_path / "index")
    faiss.write_index(index, str(folder / "image.index"))
    again = faiss.read_index(str(folder / "image.index"))

    with IndexFolder.open(folder, memory_map=memory_map) as opened:
        similarities, rows = opened.search(vectors[:50], 5)

    distances, known = again.search(vectors[:50], 5)
    known_near = 1 - distances / 2 if again.metric_type == faiss.METRIC_L2 else distances
    np.testing.assert_allclose(similarities, -np.sort(-known_near, axis=1), atol=1e-5)
    assert (np.sort(rows, axis=1) == np.sort(known, axis=1)).mean() > 0.95  # of equals FAISS takes any


def test_eighty_parts_merged_on_disk_as_for_laion5b_are_one_index_wherever_they_lie(tmp_path, vectors):
    folder = metadata(tmp_path / "built")
    (folder / "image.index").mkdir()
    trained = faiss.index_factory(D, "IVF32_HNSW8,PQ8x4", faiss.METRIC_INNER_PRODUCT)
    trained.train(vectors)
    whole, files = faiss.clone_index(trained), []
    whole.add(vectors)
    for number, rows in enumerate(np.array_split(np.arange(N), 80)):
        part = faiss.clone_index(trained)
        part.add_with_ids(vectors[rows], rows)
        files.append(str(tmp_path / f"{number:02d}.index"))
        faiss.write_index(part, files[-1])
    merge_ondisk(trained, files, str(folder / "image.index" / "merged_index.ivfdata"))
    faiss.write_index(trained, str(folder / "image.index" / "populated.index"))
    moved = folder.rename(tmp_path / "moved")

    with IndexFolder.open(moved) as opened:
        similarities, rows = opened.search(vectors[:100], 10, nprobe=8)

    known = whole.search(vectors[:100], 10, params=faiss.SearchParametersIVF(nprobe=8))
    np.testing.assert_allclose(similarities, known[0], atol=1e-6)
    assert (rows == known[1]).mean() > 0.95


@pytest.mark.parametrize(
    "content",
    [b"", b"IxFI", b"not an index at all\n" * 100, b"\x00" * 4_096, b"PAR1" + bytes(range(256)) * 8],
)
@pytest.mark.parametrize("memory_map", [True, False])
def test_a_file_that_is_no_index_is_refused_in_one_line(tmp_path, content, memory_map):
    folder = metadata(tmp_path / "index")
    (folder / "image.index").write_bytes(content)

    with pytest.raises(DataError, match=r"image\.index: (FAISS can't read it|empty)") as caught:
        IndexFolder.open(folder, memory_map=memory_map)
    told = str(caught.value).replace(str(folder), "")
    assert "\n" not in told and len(told) < 300


@pytest.mark.parametrize("kind", ["Flat", "IVF16,SQ8", "HNSW8", "RR32,IVF16,RaBitQ", "IVF16,RaBitQfs"])
@pytest.mark.parametrize("memory_map", [True, False])
def test_an_index_cut_anywhere_is_refused_in_one_line(tmp_path, vectors, kind, memory_map):
    index = faiss.index_factory(D, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    folder = metadata(tmp_path / "index")
    faiss.write_index(index, str(tmp_path / "whole"))
    content = (tmp_path / "whole").read_bytes()
    for share in (0.001, 0.1, 0.5, 0.9, 0.999):
        (folder / "image.index").write_bytes(content[: int(len(content) * share)])

        with pytest.raises(DataError, match=r"image\.index") as caught:
            IndexFolder.open(folder, memory_map=memory_map)
        assert "\n" not in str(caught.value) and "/project/" not in str(caught.value)
