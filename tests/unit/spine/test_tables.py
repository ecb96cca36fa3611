import pyarrow as pa
import pytest

from spine.errors import DataError
from spine.publish import publish_table
from spine.table_files import read_table
from spine.tables import GROUPS, IMAGES


def test_a_damaged_table_is_one_line_wherever_the_damage_lies(tmp_path):
    path = tmp_path / "groups.parquet"
    rows = {"id": range(300), "group": range(300), "group_size": [1] * 300}
    publish_table(path, pa.table(rows, schema=GROUPS))
    whole = path.read_bytes()
    found = set()
    for start in range(0, len(whole), 16):
        path.write_bytes(
            whole[:start] + bytes(byte ^ 0x5A for byte in whole[start : start + 40]) + whole[start + 40 :]
        )
        with pytest.raises(DataError, match=r"groups\.parquet") as caught:
            read_table(path, GROUPS)
        found.add(str(caught.value))
    assert len(found) > 1
    assert not [message for message in found if "\n" in message]


def test_a_table_from_before_a_column_came_reads_as_null_there(tmp_path):
    path = tmp_path / "part-00000.parquet"
    row = {"id": 7, "status": "fetched", "width": 3}
    late = ("md5", "pdq", "opt_out")
    early = pa.schema([column for column in IMAGES if column.name not in late])
    publish_table(path, pa.Table.from_pylist([row], schema=early))
    assert read_table(path, IMAGES).to_pylist() == [dict.fromkeys(IMAGES.names) | row]


def test_a_column_that_is_missing_is_named_with_those_that_are_there(tmp_path):
    path = tmp_path / "groups.parquet"
    publish_table(path, pa.table({"id": [1], "group": [1]}))
    with pytest.raises(DataError, match=r"groups\.parquet: no column group_size; found id, group"):
        read_table(path, GROUPS)
