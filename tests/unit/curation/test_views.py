"""Saved views in the file of the decisions."""

from dataclasses import replace

import pytest

from curation.decisions import Decisions, Event
from curation.views import View, Views
from spine.errors import DataError

MINE = View(name="open reds", owner="ada", query="centroid=3&show=open", shared=False)


def test_a_saved_view_is_seen_by_its_owner_and_by_all_once_it_is_shared(tmp_path):
    views = Views(tmp_path / "decisions.sqlite")
    assert views.of("ada") == []
    views.save(MINE)
    assert views.of("ada") == [MINE] and views.of("bob") == []

    views.save(replace(MINE, shared=True, query="centroid=4"))

    assert views.of("bob") == views.of("ada") == [replace(MINE, shared=True, query="centroid=4")]
    views.delete("bob", MINE.name)  # another's is left alone
    assert len(views.of("ada")) == 1
    views.delete("ada", MINE.name)
    assert views.of("ada") == []


@pytest.mark.parametrize("views_first", [True, False])
def test_views_and_decisions_share_a_file_whichever_comes_first(tmp_path, views_first):
    path = tmp_path / "decisions.sqlite"
    keep = Event(client="tab", seq=1, curator="ada", action="keep", target="image", ids=(5,))
    if views_first:
        Views(path).save(MINE)
    Decisions.open(path).record([keep])
    if not views_first:
        assert Views(path).of("ada") == []
        Views(path).save(MINE)

    assert set(Decisions.open(path).fold().images) == {5} and Views(path).of("ada") == [MINE]


def test_a_view_without_a_name_or_of_endless_length_is_refused(tmp_path):
    views = Views(tmp_path / "decisions.sqlite")
    for wrong in (replace(MINE, name=""), replace(MINE, name="x" * 81), replace(MINE, query="x" * 4_001)):
        with pytest.raises(DataError, match="name of 1 to 80"):
            views.save(wrong)
    assert views.of("ada") == []
