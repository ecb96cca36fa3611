import pyarrow as pa
import pytest

from spine.errors import DataError
from spine.publish import publish_table
from spine.tables import GROUPS, read_table


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
