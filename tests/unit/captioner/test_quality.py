from captioner.quality import word_count


def test_words_are_what_stands_between_white_space():
    assert word_count("one large red ring.\n\nThe light is even.") == 8
    assert word_count("") == 0
