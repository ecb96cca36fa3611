import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spine.publish import publish_bytes, publish_json, publish_table, publishing, sha256_of, sweep


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.bin"
    publish_bytes(path, b"old")

    with pytest.raises(OSError, match="disk"), publishing(path) as temporary:
        temporary.write_bytes(b"half of the n")
        raise OSError("disk is full")

    assert path.read_bytes() == b"old"
    assert [left.name for left in tmp_path.iterdir()] == ["table.bin"]


def test_a_reader_with_the_old_file_open_keeps_it(tmp_path):
    path = tmp_path / "mapped.bin"
    publish_bytes(path, b"old content")
    with path.open("rb") as reader:
        publish_bytes(path, b"new")
        assert reader.read() == b"old content"
    assert path.read_bytes() == b"new"


def test_sweep_takes_what_a_killed_writer_left(tmp_path):
    code = (
        "import os, sys, pathlib; from spine.publish import publishing\n"
        "with publishing(pathlib.Path(sys.argv[1])) as t:\n"
        "    t.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "sub" / "a.bin")], check=False)
    left = list((tmp_path / "sub").iterdir())
    assert len(left) == 1 and left[0].name != "a.bin"

    sweep(tmp_path)

    assert list((tmp_path / "sub").iterdir()) == []


def test_a_flipped_byte_in_a_table_is_noticed(tmp_path):
    path = tmp_path / "t.parquet"
    publish_table(path, pa.table({"text": ["abcdefgh" * 50] * 20, "n": list(range(20))}))
    before, content = sha256_of(path), bytearray(path.read_bytes())
    content[40] ^= 4
    path.write_bytes(content)

    assert sha256_of(path) != before
    with pytest.raises((pa.ArrowInvalid, OSError)):
        pq.read_table(path, page_checksum_verification=True)


def test_json_is_sorted_and_refuses_nan(tmp_path):
    publish_json(tmp_path / "a.json", {"b": 1, "a": "é"})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": "é",\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        publish_json(tmp_path / "b.json", {"a": float("nan")})
    assert not (tmp_path / "b.json").exists()
