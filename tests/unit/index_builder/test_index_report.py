import json
from xml.etree import ElementTree

import faiss
import numpy as np
import pyarrow as pa
import pytest

from index_builder.indexing.index_folder import IndexFolder
from index_builder.indexing.index_plot import index_plot
from index_builder.indexing.index_report import Measured, Step, measure
from index_builder.metadata.metadata_rows import write_metadata
from index_builder.numerics.stored_vectors import StoredVectors
from spine.publish import publish_array
from tests.unit.index_builder.scattered import scattered

N, D = 5_000, 32


def opened(folder, vectors, key, *, beside=False):
    folder.mkdir()
    np.save(folder / "stored.npy", vectors.astype(np.float16))
    stored = StoredVectors([folder / "stored.npy"])
    index = faiss.index_factory(vectors.shape[1], key, faiss.METRIC_INNER_PRODUCT)
    index.train(stored[:])
    index.add(stored[:])
    faiss.write_index(index, str(folder / "image.index"))
    write_metadata(folder / "metadata" / "0.arrow", pa.table({"id": np.arange(len(vectors))}))
    if beside:
        publish_array(folder / "vectors.npy", stored[:].astype(np.float16))
    return IndexFolder.open(folder, vectors_beside=beside), stored


@pytest.fixture(scope="module")
def vectors():
    return scattered(N, D, middles=50, noise=0.7, seed=3)


def recall_by_hand(index, stored, nprobe, k, over_fetch=0):
    """Pictures of the pool as queries, each without itself, by plain NumPy."""
    own = np.sort(np.random.default_rng(0).choice(N, size=256, replace=False))
    similarities = stored[own] @ stored[:].T
    similarities[np.arange(256), own] = -2
    exact = np.argsort(-similarities, axis=1)[:, :k]
    found = index.search(stored[own], 101, nprobe=nprobe, over_fetch=over_fetch)[1]
    lists = [[row for row in rows if row != me][:k] for rows, me in zip(found, own, strict=True)]
    return np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(lists, exact, strict=True)])


def test_recall_is_that_of_an_exact_search_and_nprobe_the_least_that_is_enough(tmp_path, vectors):
    index, stored = opened(tmp_path / "index", vectors, "IVF64,Flat")

    measured = measure(index, stored, 0.9)

    assert (measured.queries, measured.depth, measured.enough) == (256, 100, True)
    for step in measured.steps:
        assert step.recall_at_100 == pytest.approx(recall_by_hand(index, stored, step.nprobe, 100), abs=1e-4)
        assert step.recall_at_10 == pytest.approx(recall_by_hand(index, stored, step.nprobe, 10), abs=1e-3)
        assert step.queries_per_s > 0 and step.cpu_ms_per_query > 0
    recalls = {step.nprobe: step.recall_at_100 for step in measured.steps}
    assert recalls[measured.nprobe] >= 0.9
    assert all(recall < 0.9 for nprobe, recall in recalls.items() if nprobe < measured.nprobe)


def test_all_lists_find_everything_and_an_index_without_lists_has_one_step(tmp_path, vectors):
    lists, stored = opened(tmp_path / "lists", vectors, "IVF8,Flat")
    flat, _ = opened(tmp_path / "flat", vectors, "Flat")

    found = measure(lists, stored, 1.0)

    assert (found.nprobe, found.steps[-1].recall_at_100) == (8, 1.0)
    assert [
        (step.nprobe, step.recall_at_10, step.recall_at_100) for step in measure(flat, stored, 0.95).steps
    ] == [(0, 1.0, 1.0)]


def test_vectors_beside_coarse_codes_raise_recall(tmp_path, vectors):
    coarse, stored = opened(tmp_path / "coarse", vectors, "IVF16,RaBitQ")
    ranked, _ = opened(tmp_path / "ranked", vectors, "IVF16,RaBitQ", beside=True)

    assert measure(coarse, stored, 0.99).steps[-1].recall_at_100 < 0.9
    assert measure(ranked, stored, 0.99).steps[-1].recall_at_100 > 0.99


def test_of_lists_and_candidates_the_cheapest_pair_is_chosen_that_is_enough(tmp_path):
    everywhere = scattered(N, D, middles=1, noise=100, seed=3)  # codes tell them apart badly
    index, stored = opened(tmp_path / "index", everywhere, "IVF64,RaBitQ", beside=True)

    measured = measure(index, stored, 0.9)

    steps = [step for step in measured.steps if step.recall_at_100 >= 0.9]
    costs = [step.nprobe * (160 + N / 64) + 55 * (np.ceil(step.over_fetch * 100) + 240) for step in steps]
    cheapest = steps[int(np.argmin(costs))]
    assert (measured.nprobe, measured.over_fetch) == (cheapest.nprobe, cheapest.over_fetch)
    assert len({step.over_fetch for step in measured.steps}) > 1
    for step in measured.steps:
        by_hand = recall_by_hand(index, stored, step.nprobe, 100, step.over_fetch)
        assert step.recall_at_100 == pytest.approx(by_hand, abs=2e-4)
    for step in steps:  # with fewer candidates it isn't enough
        assert recall_by_hand(index, stored, step.nprobe, 100, step.over_fetch * 0.8) < 0.9


def test_a_recall_that_codes_do_not_reach_is_told(tmp_path, vectors):
    index, stored = opened(tmp_path / "index", vectors, "IVF16,RaBitQ")

    class Heard:
        def say(self, line):
            self.line = line

    heard = Heard()
    measured = measure(index, stored, 0.99, heard)

    assert not measured.enough and "recall = 0.99 isn't reached" in heard.line
    best = max(step.recall_at_100 for step in measured.steps)
    assert measured.steps[measured.chosen].recall_at_100 >= best - 0.002


def test_of_pictures_that_repeat_one_is_as_right_as_the_other(tmp_path, vectors):
    index, stored = opened(tmp_path / "index", np.repeat(vectors[:30], 150, axis=0), "IVF4,Flat")

    assert measure(index, stored, 0.9).steps[0].recall_at_100 == 1.0


@pytest.mark.parametrize(("n", "steps"), [(1, 0), (2, 1), (30, 1)])
def test_a_handful_of_vectors_is_measured_as_far_as_it_goes(tmp_path, vectors, n, steps):
    index, stored = opened(tmp_path / "index", vectors[:n], "Flat")

    measured = measure(index, stored, 0.95)

    assert (len(measured.steps), measured.depth) == (steps, n - 1)
    assert all(step.recall_at_100 == 1 for step in measured.steps)
    json.dumps(measured.as_json(0.95), allow_nan=False)


@pytest.mark.parametrize("steps", [0, 1, 9])
def test_the_plot_is_a_picture_with_a_point_for_each_figure(steps):
    tried = [Step(2**i, 4.0, 1 - 0.5 / 2**i, 1 - 0.6 / 2**i, 1_000 / (i + 1), 1.0) for i in range(steps)]
    measured = Measured(tried, max(0, steps - 3), True, 256, 100)
    report = {"key": "IVF<&>", "n": 10**6, "d": 768, "bytes_per_vector": 112.3, "nprobe": measured.nprobe}

    drawn = ElementTree.fromstring(index_plot(report | {"search": measured.as_json(0.95)}))

    points = drawn.findall("{http://www.w3.org/2000/svg}circle")
    assert len(points) == 3 * steps
    assert all(0 < float(p.get("cx")) < 640 and 0 < float(p.get("cy")) < 360 for p in points)
    assert sum(p.get("r") == "5" for p in points) == (3 if steps else 0)
