import numpy as np
import pytest

from training.evaluate import area_under_curve


def test_area_under_curve_counts_the_pairs_in_order():
    rng = np.random.default_rng(0)
    scores, truth = rng.random(200), rng.random(200) < 0.3

    wanted = (scores[truth][:, None] > scores[~truth][None]).mean()

    assert area_under_curve(scores, truth) == pytest.approx(wanted)
