"""Ids remembered in sorted arrays, against a set of Python's."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from index_builder.sources.known_ids import KnownIds

IDS = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)


@given(st.lists(st.lists(IDS, max_size=12), max_size=12))
def test_the_first_of_each_is_found_as_by_a_set(shards):
    known, seen = KnownIds(), set()
    for shard in shards:
        ids = np.array(shard, dtype=np.int64)
        wanted = []
        for number in shard:
            wanted.append(number not in seen)
            seen.add(number)

        first = known.first_of_each(ids)
        known.extend(ids[first])

        assert first.tolist() == wanted
    assert all(number in known for number in seen)
    assert known.known(np.array([7, 8], dtype=np.int64)).tolist() == [7 in seen, 8 in seen]


@given(st.lists(st.tuples(st.lists(IDS, max_size=8), st.booleans()), max_size=12))
def test_one_by_one_is_the_same_and_some_can_be_taken_back(shards):
    known, kept = KnownIds(), set()
    for shard, goes_back in shards:
        fresh = {number for number in shard if number not in kept}
        added = [number for number in shard if known.add(number)]
        assert len(added) == len(set(added)) and set(added) == fresh
        back = set(added[:2]) if goes_back else set()
        known.take_back(back)
        known.keep()
        kept |= fresh - back
    assert all(number in known for number in kept)


def test_many_ids_stay_in_few_arrays():
    known = KnownIds()
    for start in range(0, 50_000, 50):
        known.extend(np.arange(start, start + 50))

    assert len(known._runs) <= 12
    assert known.known(np.arange(-10, 50_010)).sum() == 50_000
