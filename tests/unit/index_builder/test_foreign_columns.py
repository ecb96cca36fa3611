import hashlib

import numpy as np
import pyarrow as pa
import pytest

from index_builder.metadata.foreign_columns import as_new_metadata, as_our_metadata, our_columns
from spine.errors import DataError
from spine.ids import content_id, laion_id
from spine.tables import METADATA


def test_laions_columns_are_read_as_ours():
    laion = pa.table(
        {
            "URL": ["http://x/1", "http://x/2"],
            "TEXT": ["a cat", None],
            "WIDTH": pa.array([640.0, np.nan]),
            "HEIGHT": pa.array([480, 10_000], pa.int64()),
            "similarity": pa.array([0.31, 0.29], pa.float64()),
            "hash": pa.array([laion_id("http://x/1", "a cat"), -5], pa.int64()),
            "pwatermark": [0.1, None],
            "punsafe": [0.2, 0.3],
            "AESTHETIC_SCORE": [6.5, 5.0],
            "NSFW": ["UNLIKELY", "NSFW"],
            "LANGUAGE": ["en", "de"],
        }
    )

    table = as_our_metadata(laion)

    assert table.schema.equals(METADATA)
    first, second = table.to_pylist()
    assert (first["id"], second["id"]) == (laion_id("http://x/1", "a cat"), -5)
    assert (first["url"], first["caption"], first["width"], first["height"]) == (
        "http://x/1",
        "a cat",
        640,
        480,
    )
    assert (second["caption"], second["width"], second["height"], second["key"]) == (None, None, 10_000, None)
    assert first["alt_txt_similarity"] == pytest.approx(0.31)
    assert (first["aesthetic"], second["pwatermark"]) == (6.5, None)
    assert our_columns(laion.column_names) == [
        name for name in laion.column_names if name not in ("NSFW", "LANGUAGE")
    ]


def test_the_size_of_the_original_counts_before_that_of_a_stored_copy():
    table = as_our_metadata(
        pa.table({"id": [1, 2], "width": [256, 256], "original_width": [1024, None], "height": [256, 256]})
    )

    assert table.column("width").to_pylist() == [1024, 256]
    assert table.column("height").to_pylist() == [256, 256]


@pytest.mark.parametrize(
    ("columns", "ids"),
    [
        ({"id": [7, 8], "url": ["a", "b"]}, [7, 8]),
        ({"id": pa.array([7, None]), "hash": [3, 4], "url": ["a", "b"]}, [7, 4]),
        (
            {"id": ["x7", "x8"], "url": ["a", "b"], "caption": ["c", None]},
            [laion_id("a", "c"), laion_id("b", None)],
        ),
        ({"image_path": ["a.jpg", "b.jpg"]}, [laion_id("a.jpg", None), laion_id("b.jpg", None)]),
        ({"hash": pa.array([9, None]), "url": [None, "b"]}, [9, laion_id("b", None)]),
    ],
)
def test_an_id_is_the_pools_own_or_laions_join_key(columns, ids):
    assert as_our_metadata(pa.table(columns)).column("id").to_pylist() == ids


def test_rows_that_nothing_names_are_refused():
    with pytest.raises(DataError, match="no id, hash, url or image_path"):
        as_our_metadata(pa.table({"caption": ["a", "b"], "url": ["x", None]}))


def test_values_that_are_not_what_their_column_says_are_refused():
    with pytest.raises(DataError, match=r"column WIDTH \(string\) can't be read as int32"):
        as_our_metadata(pa.table({"id": [1], "WIDTH": ["wide"]}))


def test_our_own_metadata_stays_as_it_is():
    ours = METADATA.empty_table()

    assert as_our_metadata(ours).equals(ours)
    assert our_columns(METADATA.names) == METADATA.names


def test_datacomps_columns_are_read_as_ours():
    table = as_our_metadata(
        pa.table(
            {
                "uid": ["ab12"],
                "url": ["http://x/1"],
                "text": ["a cat"],
                "original_width": [800],
                "original_height": [600],
                "clip_b32_similarity_score": [0.1],
                "clip_l14_similarity_score": [0.25],
                "sha256": ["0" * 64],
            }
        )
    )

    (row,) = table.to_pylist()
    assert (row["key"], row["id"]) == ("ab12", laion_id("http://x/1", "a cat"))
    assert (row["width"], row["height"], row["alt_txt_similarity"]) == (800, 600, 0.25)


def test_beside_an_address_only_a_whole_path_is_a_place():
    table = as_our_metadata(
        pa.table(
            {
                "url": ["http://x/1", "http://x/2", None, "http://x/4"],
                "image_path": ["000000012", "/data/a.jpg", "b.jpg", "s3://bucket/a.tar::1.jpg"],
            }
        )
    )

    assert table["image_path"].to_pylist() == [None, "/data/a.jpg", "b.jpg", "s3://bucket/a.tar::1.jpg"]
    assert table["key"].to_pylist() == ["000000012", None, None, None]


def test_new_ids_come_from_address_hash_or_path_and_never_from_a_running_number():
    content = b"a picture"
    sha256 = hashlib.sha256(content).hexdigest()
    table = as_new_metadata(
        pa.table(
            {
                "id": [0, 1, 2, 3],
                "url": ["http://x/1", None, None, None],
                "caption": [" a cat ", "b", "c", "d"],
                "sha256": [sha256, sha256.upper(), "no hash", None],
                "image_path": [None, "/a", "/b", None],
            }
        )
    )

    assert table["id"].to_pylist() == [
        laion_id("http://x/1", " a cat "),
        content_id(content),
        laion_id("/b", "c"),
        None,
    ]
