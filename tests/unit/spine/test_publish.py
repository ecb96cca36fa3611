import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spine.publish import (
    publish_array,
    publish_bytes,
    publish_json,
    publish_table,
    publishing,
    sha256_of,
    sweep,
)


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


def test_an_array_that_does_not_fit_on_the_disk_is_an_error_with_its_number(tmp_path):
    """A limit on the size of files stands for the full disk: both end a write in its middle."""
    code = (
        "import errno, pathlib, resource, sys; import numpy as np; from spine.publish import publish_array\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    publish_array(pathlib.Path(sys.argv[1]), np.zeros((100, 100), dtype=np.float16))\n"
        "except OSError as error:\n"
        "    print(error.errno == errno.EFBIG)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.npy")], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("True", "")
    assert list(tmp_path.iterdir()) == []


def test_arrays_of_any_layout_are_read_back_as_they_were(tmp_path):
    for array in (np.zeros((0, 4), np.float16), np.arange(12.0).reshape(3, 4).T, np.float32([[1, 2]])):
        publish_array(tmp_path / "a.npy", array)
        assert np.array_equal(np.load(tmp_path / "a.npy"), array)
        assert np.load(tmp_path / "a.npy").dtype == array.dtype
