"""Every column of a release is explained."""

from curation.columns import MEANINGS
from spine.tables import DATASET


def test_every_column_has_its_meaning_in_its_order_on_one_line_of_a_table():
    assert list(MEANINGS) == DATASET.names
    assert all(text and "|" not in text and "\n" not in text for text in MEANINGS.values())
