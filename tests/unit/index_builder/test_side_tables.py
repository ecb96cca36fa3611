"""Side tables of LAION's forms, joined by hash; the answer known by a plain dictionary."""

import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index_builder.metadata import side_tables as module
from index_builder.metadata.side_tables import SIDE_VALUES, filled, read_side_values, side_tables, told
from spine.errors import DataError
from spine.ids import laion_id


@pytest.fixture(autouse=True)
def few_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 7)


def test_values_are_found_by_hash_in_parquet_in_records_and_by_address_and_text(tmp_path):
    rng = np.random.default_rng(3)
    everything = np.unique(rng.integers(-(2**63), 2**63 - 1, 300))
    ids = np.sort(rng.choice(everything, 60, replace=False))
    unsafe = {int(key): float(rng.random(dtype=np.float32)) for key in everything[::2]}
    pq.write_table(
        pa.table({"hash": list(unsafe), "punsafe": pa.array(list(unsafe.values()), pa.float32())}),
        tmp_path / "laion2B-en-punsafe.parquet",
        row_group_size=11,
    )
    marks = {int(key): (rng.random(), rng.random()) for key in everything[1::3]}
    records = tmp_path / "laion5B-watermark-safety-ordered"
    records.write_bytes(b"".join(struct.pack("<qee", key, *values) for key, values in sorted(marks.items())))
    beauty = {int(key): 5 + rng.random() for key in everything[::4]}
    (tmp_path / "laion5B-aesthetic-tags-kv").write_bytes(
        b"".join(struct.pack("<qe", key, value) for key, value in sorted(beauty.items()))
    )
    texts = [(f"http://x/{row}", None if row % 3 == 0 else f" text {row} ") for row in range(40)]
    named = np.array([laion_id(*text) for text in texts[:10]])
    sizes = pa.table(
        {
            "URL": [url for url, _ in texts],
            "TEXT": [text for _, text in texts],
            "WIDTH": pa.array([1000.0 + row for row in range(40)]),
            "HEIGHT": [None if row == 2 else 700 for row in range(40)],
        }
    )
    pq.write_table(sizes, tmp_path / "sizes.parquet")
    ids = np.sort(np.concatenate([ids, named]))
    names = ["laion2B-en-punsafe.parquet", records.name, "laion5B-aesthetic-tags-kv", "sizes.parquet"]

    side = read_side_values(side_tables([str(tmp_path / name) for name in names]), ids)

    assert side.schema.equals(SIDE_VALUES)
    assert side["id"].to_pylist() == ids.tolist()
    wide = {int(key): 1000 + row for row, key in enumerate(named)}
    for row in side.to_pylist():
        key = row["id"]
        wanted = unsafe.get(key, marks.get(key, (None, None))[1])
        assert row["punsafe"] == (None if wanted is None else pytest.approx(wanted, abs=1e-3))
        for name, expected in (("pwatermark", marks.get(key, (None,))[0]), ("aesthetic", beauty.get(key))):
            assert row[name] == (None if expected is None else pytest.approx(expected, abs=5e-3))
        assert row["width"] == wide.get(key)
        assert row["height"] == (700 if key in wide and wide[key] != 1002 else None)
    counts = told(side)
    assert (counts["pictures"], counts["width"], counts["height"]) == (70, 10, 9)
    known = set(unsafe) | set(marks) | set(beauty) | set(wide)
    assert counts["matched"] == sum(int(key) in known for key in ids)


def test_the_first_value_counts_and_what_is_no_number_is_none(tmp_path):
    first = pa.table(
        {"hash": [5, 5, 6, None, 7], "punsafe": pa.array([None, 0.25, np.nan, 0.5, np.inf], pa.float64())}
    )
    second = pa.table({"hash": [5, 6, 6, 9], "PUNSAFE": [0.9, 0.125, 0.9, 0.75]})
    for number, table in enumerate((first, second)):
        (tmp_path / "tables").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "tables" / f"{number}.parquet")

    side = read_side_values(side_tables([str(tmp_path / "tables")]), np.array([0, 5, 6, 7, 9]))

    assert side["punsafe"].to_pylist() == [None, 0.25, 0.125, None, 0.75]


def test_only_what_is_not_known_is_filled():
    side = pa.table(
        {"id": [1, 2, 3], "width": [10, 20, 30], "height": [1, 2, 3]}
        | {name: [0.5, None, 0.25] for name in ("aesthetic", "pwatermark")}
        | {"punsafe": [None] * 3}
    ).cast(SIDE_VALUES)
    table = pa.table(
        {"id": [3, 1, 3, 2], "width": [None, 7, None, None], "pwatermark": [0.75, None, None, None]}
    )
    table = table.cast(pa.schema([("id", pa.int64()), ("width", pa.int32()), ("pwatermark", pa.float32())]))

    found = filled(table, side)

    assert found.schema.equals(table.schema)
    assert found["width"].to_pylist() == [30, 7, 30, 20]
    assert found["pwatermark"].to_pylist() == [0.75, 0.5, 0.25, None]
    assert filled(table, None) is table


def test_what_cannot_be_joined_is_refused_with_one_line(tmp_path):
    def refusal(name, table=None, content=b""):
        path = tmp_path / name
        if table is not None:
            pq.write_table(pa.table(table), path)
        elif content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            side_tables([str(path)])
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        return str(caught.value)

    assert "neither a hash nor an address" in refusal("a.parquet", {"text": ["a"], "punsafe": [0.1]})
    assert "its hash is string" in refusal("b.parquet", {"hash": ["a"], "punsafe": [0.1]})
    assert "none of width, height" in refusal("c.parquet", {"hash": [1], "prediction": [0.1]})
    assert "can't be read" in refusal("d.parquet", content=b"damaged")
    assert "neither .parquet nor LAION's sorted records" in refusal("e.csv", content=b"1,2")
    assert "13 bytes are not records of 12" in refusal("a-watermark-safety-b", content=b"x" * 13)
    assert "no such file" in refusal("gone", content=None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no .parquet in it"):
        side_tables([str(tmp_path / "empty")])
