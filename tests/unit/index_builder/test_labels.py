from index_builder.clustering.labels import cluster_labels


def test_a_label_has_what_the_cluster_shares_and_the_rest_lacks():
    captions = [
        [
            "a large red star on a navy background",
            "a red star, striped, in the corner",
            "the red star with a ring",
        ],
        ["a large green circle on a navy background", "green circle with text", "one green circle, striped"],
        ["a large yellow square on a navy background", "yellow square and a dot"],
    ]

    labels = cluster_labels(captions, ["", "", ""])

    assert [label.split(", ")[0] for label in labels] == ["red star", "green circle", "yellow square"]
    assert all(len(label.split(", ")) == 3 for label in labels)


def test_no_word_comes_twice_in_a_label_and_no_stop_word():
    label = cluster_labels([["the cat and the hat of the cat", "a cat with a hat"]], ["name"])[0]

    assert sorted(label.split(", ")) == ["cat", "hat"]


def test_without_words_the_name_is_the_label():
    captions = [
        [],
        ["", "12 34 --", "https://example.org/cat.jpg"],
        ["the of and"],
        ["boat --ar 3:2 --v 4 --seed 99"],
    ]

    assert cluster_labels(captions, ["a", "b", "c", "d"]) == ["a", "b", "c", "boat"]


def test_words_of_any_script_count():
    labels = cluster_labels([["красный кот", "Красный кот"], ["Grüner Käfer"]], ["", ""])

    assert labels == ["красный кот", "grüner käfer"]


def test_labels_do_not_depend_on_the_order_of_the_captions():
    captions = ["blue moon over hills", "moon and a blue boat", "hills, boat"]

    assert cluster_labels([captions], [""]) == cluster_labels([captions[::-1]], [""])


def test_there_is_a_label_for_each_cluster_even_of_one_picture():
    assert cluster_labels([["lone tree"], ["lone wolf"]], ["", ""]) == ["lone tree", "lone wolf"]
