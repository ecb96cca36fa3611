from retrieval_server.indices import _wire_columns


def test_no_metadata_column_hides_the_kNNs_own():
    assert _wire_columns(["id", "url", "similarity"], None) == {
        "hash": "id",
        "url": "url",
        "alt_txt_similarity": "similarity",
    }


def test_a_column_that_has_the_other_name_already_keeps_it():
    names = _wire_columns(["id", "hash", "similarity", "alt_txt_similarity", "rank"], None)
    assert names == {
        "metadata_id": "id",
        "hash": "hash",
        "metadata_similarity": "similarity",
        "alt_txt_similarity": "alt_txt_similarity",
        "metadata_rank": "rank",
    }


def test_a_column_is_served_by_its_own_name_or_the_wires():
    present = ["id", "url", "caption", "similarity"]
    assert _wire_columns(present, ("url", "similarity", "NSFW")) == {
        "url": "url",
        "alt_txt_similarity": "similarity",
    }
    assert _wire_columns(present, ("hash", "caption")) == {"hash": "id", "caption": "caption"}
