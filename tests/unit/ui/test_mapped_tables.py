import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ui import mapped_tables
from ui.lookups import ById, Pictures
from ui.mapped_tables import TableCache

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("sha256", pa.string()),
        ("image_path", pa.string()),
        ("url", pa.string()),
    ]
)


@pytest.fixture
def table() -> pa.Table:
    """1,000 rows of 700 ids, some twice, in no order; some without a hash or a place."""
    generator = np.random.default_rng(6)
    ids = generator.choice(generator.integers(-(2**62), 2**62, 700), 1_000)
    hashes = [generator.bytes(32).hex() if number % 7 else None for number in range(1_000)]
    hashes[31] = hashes[30][:16] + "f" * 48  # the same first digits
    places = [f"place {number}" if number % 11 else None for number in range(1_000)]
    return pa.table([ids, hashes, places, [f"é {n}" for n in range(1_000)]], schema=SCHEMA)


@pytest.fixture
def mapped(table, tmp_path, monkeypatch) -> pa.Table:
    monkeypatch.setattr(mapped_tables, "_BATCH_ROWS", 130)
    parts = [table.slice(first, 60) for first in range(0, 1_000, 60)]
    return TableCache(tmp_path).table("pictures", "one", SCHEMA, lambda: parts)


def test_a_mapped_table_is_the_table_in_several_batches(table, mapped):
    assert mapped.num_rows == 1_000 and len(mapped.to_batches()) == 6
    assert mapped.combine_chunks().equals(table.combine_chunks())


def test_rows_come_by_id_in_the_order_asked_for_as_a_dictionary_says(table, mapped):
    known = {row["id"]: row for row in table.to_pylist()}  # of several the last
    nothing = dict.fromkeys(SCHEMA.names)
    generator = np.random.default_rng(7)
    for count in (0, 1, 300):
        wanted = generator.choice([*known, 5, -9], count).astype(np.int64)

        assert ById(mapped).rows(wanted).to_pylist() == [known.get(int(each), nothing) for each in wanted]

    assert ById(SCHEMA.empty_table()).rows(np.array([5], np.int64)).to_pylist() == [nothing]


def test_pictures_are_found_by_their_hash_where_their_place_is_known(table, mapped):
    pictures = Pictures(mapped)

    for row in table.to_pylist():
        if row["sha256"]:
            found = pictures.find(row["sha256"])
            assert (found and (found.picture_id, found.place, found.url)) == (
                (row["id"], row["image_path"], row["url"]) if row["image_path"] else None
            )
    assert pictures.find("0" * 64) is None


def test_a_table_is_made_once_and_again_when_it_is_of_something_else_or_damaged(tmp_path):
    cache, made = TableCache(tmp_path), []

    def parts(number: int):
        made.append(number)
        return [pa.table([[number], [None], [None], [None]], schema=SCHEMA)]

    first = cache.table("pictures", 1, SCHEMA, lambda: parts(1))
    assert TableCache(tmp_path).table("pictures", 1, SCHEMA, lambda: parts(2)).equals(first)
    (old,) = tmp_path.glob("*.arrow")
    second = cache.table("pictures", 2, SCHEMA, lambda: parts(3))
    assert not old.exists() and len(list(tmp_path.glob("*.arrow"))) == 1
    assert pc.sum(first.column("id")).as_py() == 1  # what is mapped stays
    assert second.column("id").to_pylist() == [3]

    (path,) = tmp_path.glob("*.arrow")
    path.unlink()
    path.write_bytes(b"no table")
    assert cache.table("pictures", 2, SCHEMA, lambda: parts(4)).column("id").to_pylist() == [4]
    assert made == [1, 3, 4]


def test_a_part_that_cannot_be_read_leaves_no_table(tmp_path):
    def parts():
        yield pa.table([[1], [None], [None], [None]], schema=SCHEMA)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        TableCache(tmp_path).table("pictures", 1, SCHEMA, parts)

    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
