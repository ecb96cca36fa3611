import numpy as np
import pyarrow as pa
import pytest

from captioner.agreement import measure_agreement
from spine.publish import publish_table
from spine.run import Run, part_path
from spine.stage import Stage
from spine.table_files import read_table
from spine.tables import AGREEMENT, list_column, scores_schema

D = 16


class Planted:
    """Embeds a sentence "of N" near the axis N, and counts what it is asked."""

    def __init__(self):
        self.asked = []

    def encode_texts(self, texts):
        self.asked += texts
        vectors = 0.05 + np.array([np.eye(D)[int(text.rsplit(" ", 1)[1].rstrip("."))] for text in texts])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def run(tmp_path):
    """Twelve scored pictures: number N lies on the axis N, at twice the unit length."""
    made = Run(tmp_path)
    stage = Stage.open("scores", made.scores, {}, {})
    columns = {name: pa.nulls(12) for name in scores_schema(D).names}
    columns |= {"id": pa.array(range(12)), "embedding": list_column(2 * np.eye(12, D), pa.float16())}
    publish_table(part_path(made.scores, 0), pa.table(columns).cast(scores_schema(D)))
    stage.finish({}, {"d": D, "model": "planted"})
    return made


def captions(texts, ids=None):
    ids = list(range(len(texts))) if ids is None else ids
    return pa.table({"id": ids, "caption_id": [f"c{number}" for number in ids], "caption": texts})


def test_similarities_are_those_of_plain_numpy_and_the_worst_sentence_is_named(run):
    encoder = Planted()
    texts = [f"This is of {number}. That too is of {number}." for number in range(12)]
    texts[4] = "This is of 4. A lie of 9."

    summed = measure_agreement(run, captions(texts), 100, lambda: encoder)

    rows = {row["id"]: row for row in read_table(run.caption_agreement, AGREEMENT).to_pylist()}
    near, far = (np.array(1.05 if same else 0.05) / np.sqrt(1.05**2 + 15 * 0.05**2) for same in (True, False))
    assert rows[3]["clip_mean"] == pytest.approx(near, abs=1e-3)
    assert rows[4]["clip_mean"] == pytest.approx((near + far) / 2, abs=1e-3)
    assert rows[4]["clip_min"] == pytest.approx(far, abs=1e-3)
    assert (rows[4]["worst_sentence"], rows[4]["sentences"]) == ("A lie of 9.", 2)
    assert all(row["other_id"] != row["id"] and row["clip_model"] == "planted" for row in rows.values())
    assert {row["other_id"] for row in rows.values()} == set(range(12))
    own = [row["clip_mean"] for row in rows.values()]
    other = [row["clip_other"] for row in rows.values()]
    wins = np.mean([(a > b) + (a == b) / 2 for a in own for b in other])
    assert summed["auc"] == pytest.approx(wins, abs=1e-4)
    assert (summed["captions"], summed["clip_model"]) == (12, "planted")
    assert len(encoder.asked) == len(set(encoder.asked)), "a sentence is encoded once"


def test_captions_of_other_pictures_are_told_from_true_ones(run):
    true = measure_agreement(run, captions([f"of {number}" for number in range(12)]), 100, Planted)
    mixed = measure_agreement(
        run, captions([f"of {(number + 5) % 12}" for number in range(12)]), 100, Planted
    )

    assert true["auc"] == 1 and true["unlike"] == 0 and true["matched"] > true["shuffled"]
    assert mixed["auc"] < 0.6 and mixed["unlike"] > 6


def test_what_is_measured_is_not_measured_again_and_a_new_caption_is(run):
    texts = [f"of {number}" for number in range(12)]
    measure_agreement(run, captions(texts[:11]), 100, Planted)
    before = {row["id"]: row for row in read_table(run.caption_agreement, AGREEMENT).to_pylist()}
    again, more = Planted(), Planted()

    measure_agreement(run, captions(texts[:11]), 100, lambda: again)
    measure_agreement(run, captions(texts), 100, lambda: more)

    after = {row["id"]: row for row in read_table(run.caption_agreement, AGREEMENT).to_pylist()}
    assert again.asked == [] and set(more.asked) < set(texts) and "of 11" in more.asked
    changed = [number for number in before if before[number] != after[number]]
    assert len(changed) == 1, "the one whose neighbour in the order of hashes is the new one"


def test_a_sample_is_the_same_each_time_and_unscored_pictures_are_left_out(run):
    texts = [f"of {number}" for number in range(12)]

    assert measure_agreement(run, captions(texts), 5, Planted)["captions"] == 5
    five = set(read_table(run.caption_agreement, AGREEMENT)["id"].to_pylist())
    assert measure_agreement(run, captions(texts), 8, Planted)["captions"] == 8
    assert five < set(read_table(run.caption_agreement, AGREEMENT)["id"].to_pylist())
    assert measure_agreement(run, captions(["of 1", "of 2"], [1, 500]), 5, Planted) is None
    assert measure_agreement(Run(run.folder / "none"), captions(texts), 5, Planted) is None
