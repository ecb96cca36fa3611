from spine.ids import content_id, laion_id


def test_laion_id_is_the_first_half_of_murmur3_x64_128():
    published = 0xCBD8A7B341BD9B02  # of "hello", seed 0: the algorithm's well-known answer
    assert laion_id("hel", "lo") == published - 2**64


def test_a_missing_text_counts_as_empty():
    assert laion_id("http://a.example/1.jpg", None) == laion_id("http://a.example/1.jpg", "")
    assert laion_id("http://a.example/1.jpg", "a") != laion_id("http://a.example/1.jpg", "")


def test_content_id_is_the_head_of_the_sha256():
    # SHA-256 of nothing begins e3b0c442 98fc1c14
    assert content_id(b"") == 0xE3B0C44298FC1C14 - 2**64
