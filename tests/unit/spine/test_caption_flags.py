import pyarrow as pa

from spine.caption_flags import COLUMNS, FLAGS, LOOP_REPETITION, flags
from spine.tables import CAPTIONS

GOOD = {
    "prefix_found": True,
    "truncated": False,
    "repetition": LOOP_REPETITION,
    "speculation": 0,
    "interpretation": 0,
    "refusal": False,
    "language": "en",
    "retried_for": None,
}
FAULTS = {
    "prefix_missing": {"prefix_found": False},
    "truncated": {"truncated": True},
    "loops": {"repetition": LOOP_REPETITION + 0.01},
    "speculating": {"speculation": 1},
    "interpreting": {"interpretation": 2},
    "refusals": {"refusal": True},
    "not_english": {"language": "de"},
    "retried": {"retried_for": "loop"},
}


def test_each_fault_raises_its_own_flag_and_no_other():
    assert list(FAULTS) == list(FLAGS) and set(GOOD) == set(COLUMNS)
    schema = pa.schema([CAPTIONS.field(name) for name in COLUMNS])
    rows = [GOOD | {"language": "und"}, *(GOOD | fault for fault in FAULTS.values()), dict.fromkeys(COLUMNS)]

    found = flags(pa.Table.from_pylist(rows, schema))

    for number, name in enumerate(FLAGS, 1):
        assert [place for place, on in enumerate(found[name].to_pylist()) if on] == [number]
