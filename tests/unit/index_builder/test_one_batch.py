"""Metadata of many record batches put into one, against the plain table."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from index_builder.metadata.metadata_rows import MetadataRows
from index_builder.metadata.one_batch import ONE_BATCH_FOLDER, open_metadata, write_one_batch
from spine.errors import DataError

N = 70_001  # more than is held at once, and no multiple of eight


@pytest.fixture(scope="module")
def table():
    rows = np.arange(N)
    return pa.table(
        {
            "url": [f"https://pictures.example/{row}.jpg" if row % 3 else None for row in rows],
            "caption": pa.array(["" if row % 5 else f"\u00fc {row}" for row in rows], pa.large_string()),
            "key": pa.array([None if row % 7 == 0 else row + 2**61 + 1 for row in rows.tolist()], pa.int64()),
            "width": rows.astype(np.int32),
            "punsafe": np.where(rows % 4, rows / N, np.nan).astype(np.float32),
            "bytes": pa.array(
                [bytes([row % 256]) if row % 2 else None for row in rows.tolist()], pa.binary()
            ),
            "nothing": pa.nulls(N, pa.string()),
        }
    )


@pytest.fixture
def metadata(table, tmp_path):
    """LAION-5B's layout: Arrow files in the order of their names, each of many batches."""
    folder = tmp_path / "index" / "metadata"
    folder.mkdir(parents=True)
    for name, start, end in (("2_nolang", 50_000, N), ("0_en", 0, 20_000), ("1_multi", 20_000, 50_000)):
        with pa.ipc.new_file(str(folder / f"{name}.arrow"), table.schema) as writer:
            writer.write_table(table.slice(start, end - start), max_chunksize=37)
    return folder


def batches_of(rows: MetadataRows) -> int:
    [table] = rows.blocks(["width"], N)
    return table.column(0).num_chunks


@pytest.mark.parametrize("short", [2**31 - 1, 1_000])
def test_one_batch_holds_every_value_of_the_files_in_their_order(metadata, table, short, monkeypatch):
    monkeypatch.setattr("index_builder.metadata.one_batch._SHORT", short)
    path = write_one_batch(metadata)

    file = pa.ipc.open_file(str(path))
    assert file.num_record_batches == 1
    batch = file.get_batch(0)
    batch.validate(full=True)
    assert batch.schema.field("url").type == (pa.string() if short > 1_000 else pa.large_string())
    for name in table.column_names:
        known = table[name].combine_chunks()
        assert batch[name].null_count == known.null_count
        assert str(batch[name].cast(known.type).to_pylist()) == str(known.to_pylist()), name  # NaN among them
    everywhere = np.random.default_rng(0).integers(N, size=5_000)
    found, known = open_metadata(metadata).take(everywhere), MetadataRows.open(metadata).take(everywhere)
    assert str(found.to_pylist()) == str(known.to_pylist())
    assert [path.name for path in sorted(path.parent.iterdir())] == ["0.arrow", "source.json"]


def test_what_was_put_together_is_read_only_as_long_as_the_files_stay(metadata, table, caplog):
    path = write_one_batch(metadata)
    with_batch = open_metadata(metadata)
    assert with_batch.n == N and batches_of(with_batch) == 1
    os.utime(metadata / "0_en.arrow", ns=(1, 1))
    stale = open_metadata(metadata)
    assert batches_of(stale) > 1_000
    assert "made from other files" in caplog.text
    write_one_batch(metadata)
    assert batches_of(open_metadata(metadata)) == 1
    (path.parent / "source.json").write_text("{")
    assert batches_of(open_metadata(metadata)) > 1_000


def test_one_that_was_killed_is_never_read_and_is_tidied_up(metadata):
    path = write_one_batch(metadata)
    (path.parent / "source.json").unlink()
    left = path.parent / ".columns-killed"
    left.mkdir()
    path.write_bytes(b"half")
    assert open_metadata(metadata).n == N
    write_one_batch(metadata)
    assert not left.exists()
    assert open_metadata(metadata).n == N


def test_columns_of_other_kinds_are_named(metadata):
    shutil.rmtree(metadata)
    metadata.mkdir()
    odd = pa.table({"url": ["a"], "tags": [["x"]]})
    with pa.ipc.new_file(str(metadata / "0.arrow"), odd.schema) as writer:
        writer.write_table(odd)
    with pytest.raises(DataError, match=r"tags \(list<.*: columns of texts and numbers alone"):
        write_one_batch(metadata)
    assert not (metadata.parent / ONE_BATCH_FOLDER).exists()


def test_the_command_says_where_the_batch_is(metadata):
    command = [sys.executable, "-m", "popfactory", "one-batch", str(metadata.parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "metadata-one-batch" in done.stdout
    assert open_metadata(metadata).n == N
