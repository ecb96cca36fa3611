"""Metadata of many files and batches, against the plain table."""

import numpy as np
import pyarrow as pa
import pytest

from index_builder.metadata import metadata_rows
from index_builder.metadata.metadata_rows import MetadataRows
from spine.errors import DataError

N = 2000


@pytest.fixture(scope="module")
def table():
    return pa.table(
        {
            "url": [f"https://pictures.example/{row}.jpg" if row % 3 else None for row in range(N)],
            "width": np.arange(N, dtype=np.int32),
            "caption": pa.array([f"ü {row}" for row in range(N)], pa.large_string()),
        }
    )


@pytest.fixture(scope="module")
def rows(table, tmp_path_factory):
    """LAION-5B's layout: three Arrow files in the order of their names, each of many batches."""
    folder = tmp_path_factory.mktemp("laion") / "metadata"
    folder.mkdir()
    for name, start, end in (("2_nolang", 1500, N), ("0_en", 0, 700), ("1_multi", 700, 1500)):
        with pa.ipc.new_file(str(folder / f"{name}.arrow"), table.schema) as writer:
            writer.write_table(table.slice(start, end - start), max_chunksize=7)
    return MetadataRows.open(folder)


def test_rows_of_many_batches_come_in_the_order_asked(rows, table):
    generator = np.random.default_rng(1)
    for count in (1, 2, 40, 500):
        asked = generator.integers(N, size=count)
        found = rows.take(asked)
        assert found.to_pylist() == table.take(pa.array(asked)).to_pylist()
        assert all(column.num_chunks <= 1 for column in found.columns)
    edges = np.array([N - 1, 0, 0, 699, 700, 1499, 1500, 6, 7])
    assert rows.take(edges)["width"].to_pylist() == edges.tolist()


@pytest.mark.parametrize("size", [300, 700, 1_999])
@pytest.mark.parametrize("together", [64, 100_000])
def test_rows_of_a_few_large_batches_come_in_the_order_asked(size, together, table, monkeypatch):
    monkeypatch.setattr(metadata_rows, "_TOGETHER", together)
    rows, generator = (
        MetadataRows(table.to_batches(max_chunksize=size), table.schema),
        np.random.default_rng(2),
    )
    for asked in (
        generator.integers(N, size=1_000),
        generator.integers(N, size=3),
        generator.integers(200, size=90),  # all of the first batch
        np.repeat([N - 1, 0, size, size - 1], 30),
    ):
        found = rows.take(asked)
        assert found.to_pylist() == table.take(pa.array(asked)).to_pylist()
        assert all(column.num_chunks <= 1 for column in found.columns)
        few = rows.take(asked, ["width"])
        assert few.column_names == ["width"]
        assert few["width"].to_pylist() == asked.tolist()


def test_columns_come_in_the_order_asked_and_no_others(rows):
    found = rows.take(np.array([3, 1999]), ["width", "url"])
    assert found.to_pylist() == [
        {"width": 3, "url": None},
        {"width": 1999, "url": "https://pictures.example/1999.jpg"},
    ]
    assert rows.take(np.array([], dtype=np.int64), ["url"]).column_names == ["url"]
    assert rows.take(np.array([5, 9]), []).num_columns == 0


@pytest.mark.parametrize("wrong", [[-1], [N], [0, 10**12]])
def test_a_row_that_is_not_there_is_refused(rows, wrong):
    with pytest.raises(DataError, match=r"there is no row .* 0 to 1,999"):
        rows.take(np.array(wrong))


def test_columns_under_other_names_hold_what_they_held(rows, table):
    renamed, asked = rows.renamed({"text": "caption", "address": "url"}), np.array([1999, 3, 3])
    found = renamed.take(asked)
    assert found.to_pylist() == [
        {"text": f"ü {row}", "address": table["url"][row].as_py()} for row in asked.tolist()
    ]
    assert renamed.take(asked, ["address"]).column_names == ["address"]
    assert renamed.n == N and rows.renamed({}).take(asked).num_columns == 0
