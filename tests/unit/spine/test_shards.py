import numpy as np
import pyarrow as pa
import pytest

from spine.errors import DataError
from spine.publish import publish_array, publish_table
from spine.shards import published_shards, read_shards, shards, write_shard
from spine.stage import Stage
from spine.table_files import read_parts, read_table
from spine.tables import METADATA, list_column, vectors_of


def _rows(ids):
    return pa.table({"id": pa.array(ids, pa.int64()), "caption": [f"picture {i}" for i in ids]})


def test_shards_read_as_written_with_missing_columns_null(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float16).astype(np.float32)
    write_shard(tmp_path, 0, vectors[:3], _rows([1, 2, 3]))
    write_shard(tmp_path, 1, vectors[3:], _rows([4, 5]))

    read = list(read_shards(tmp_path, METADATA))

    assert np.array_equal(np.concatenate([part for part, _ in read]), vectors)
    assert [row for _, table in read for row in table.column("id").to_pylist()] == [1, 2, 3, 4, 5]
    assert read[0][1].schema == METADATA
    assert read[0][1].column("url").null_count == 3


def test_files_that_do_not_pair_up_are_refused(tmp_path):
    write_shard(tmp_path, 0, np.ones((1, 2), np.float32), _rows([1]))
    (tmp_path / "metadata" / "metadata_00000.parquet").rename(
        tmp_path / "metadata" / "metadata_00001.parquet"
    )
    with pytest.raises(DataError, match="pair up"):
        shards(tmp_path)


def test_a_row_too_few_is_noticed(tmp_path):
    write_shard(tmp_path, 0, np.ones((2, 2), np.float32), _rows([1, 2]))
    np.save(tmp_path / "img_emb" / "img_emb_00000.npy", np.ones((3, 2), np.float16))
    with pytest.raises(DataError, match="3 vectors, 2 rows"):
        list(read_shards(tmp_path, METADATA))


def _exchange(first, second):
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def _vectors(folder, number):
    return folder / "img_emb" / f"img_emb_{number:05d}.npy"


def _metadata(folder, number):
    return folder / "metadata" / f"metadata_{number:05d}.parquet"


def _turn_vectors(folder):
    publish_array(_vectors(folder, 1), np.load(_vectors(folder, 1))[::-1].copy())


def _turn_rows(folder):
    publish_table(_metadata(folder, 1), _rows([6, 5, 4]))


def _move_a_row_on(folder):
    """A vector less in one file, one more in the next: as many as rows in all."""
    first, second = (np.load(_vectors(folder, number)) for number in (0, 1))
    publish_array(_vectors(folder, 0), first[:-1])
    publish_array(_vectors(folder, 1), np.concatenate([first[-1:], second]))


def _take_a_pair_away(folder):
    for path in (_vectors(folder, 1), _metadata(folder, 1)):
        path.unlink()


def _exchange_pairs(folder):
    _exchange(_vectors(folder, 0), _vectors(folder, 1))
    _exchange(_metadata(folder, 0), _metadata(folder, 1))


@pytest.mark.parametrize(
    ("made_wrong", "named"),
    [
        (lambda folder: _exchange(_vectors(folder, 0), _vectors(folder, 1)), "img_emb_00000.npy: content"),
        (
            lambda folder: _exchange(_metadata(folder, 0), _metadata(folder, 1)),
            "metadata_00000.parquet: content",
        ),
        (_exchange_pairs, "img_emb_00000.npy: content"),
        (_turn_vectors, "img_emb_00001.npy: content"),
        (_turn_rows, "metadata_00001.parquet: "),
        (_move_a_row_on, "img_emb_00000.npy: .* bytes, published with"),
        (_take_a_pair_away, "img_emb_00001.npy: missing"),
        (lambda folder: _metadata(folder, 1).unlink(), "pair up"),
        (lambda folder: write_shard(folder, 2, np.ones((1, 4), np.float32), _rows([9])), "00002.*not one of"),
    ],
)
def test_rows_beside_other_vectors_than_their_own_are_refused_with_the_file(tmp_path, made_wrong, named):
    stage = Stage.open("pool", tmp_path, {}, {})
    vectors = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    write_shard(tmp_path, 0, vectors[:3], _rows([1, 2, 3]))
    write_shard(tmp_path, 1, vectors[3:], _rows([4, 5, 6]))
    stage.finish({})
    assert len(list(published_shards(tmp_path))) == len(list(read_shards(tmp_path, METADATA))) == 2

    made_wrong(tmp_path)

    for read in (published_shards, lambda folder: read_shards(folder, METADATA)):
        with pytest.raises(DataError, match=named) as refused:
            list(read(tmp_path))
        assert "\n" not in str(refused.value)


def test_a_pickle_in_place_of_vectors_is_refused(tmp_path):
    write_shard(tmp_path, 0, np.ones((1, 2), np.float32), _rows([1]))
    np.save(tmp_path / "img_emb" / "img_emb_00000.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="can't be read"):
        list(read_shards(tmp_path, METADATA))


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32()])
def test_vectors_go_into_a_column_and_back(kind):
    vectors = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float16).astype(np.float32)
    column = pa.chunked_array([list_column(vectors[:4], kind), list_column(vectors[4:], kind)])
    assert np.array_equal(vectors_of(column), vectors)
    assert vectors_of(column.slice(3, 2)).tolist() == vectors[3:5].tolist()


def test_a_table_without_parts_is_empty_with_its_columns(tmp_path):
    table = read_parts(tmp_path, METADATA, columns=["id", "url"])
    assert table.num_rows == 0 and table.column_names == ["id", "url"]


def test_a_missing_or_foreign_table_is_a_line_a_person_can_act_on(tmp_path):
    with pytest.raises(DataError, match="missing"):
        read_table(tmp_path / "none.parquet", METADATA)
    (tmp_path / "bad.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match="can't be read"):
        read_table(tmp_path / "bad.parquet", METADATA)
