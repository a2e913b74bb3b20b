"""The paired bootstrap: sees a real gain, stays silent at none, and covers zero as often as it claims."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck_core.errors import ShapeError
from limbeck_core.report import paired_bootstrap


def runs(rate: float, seeds: int, n: int, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [100.0 * (generator.random(n) < rate) for _ in range(seeds)]


def test_a_clear_gain_is_significant() -> None:
    found = paired_bootstrap(runs(0.8, 3, 600, 1), runs(0.95, 3, 600, 2), resamples=500)
    assert found.significant
    assert found.low < found.mean < found.high
    assert found.wins == (3, 3)
    assert "not significant" not in found.sentence()


def test_the_same_runs_differ_by_nothing() -> None:
    same = runs(0.8, 1, 300, 1)
    found = paired_bootstrap(same, same, resamples=200)
    assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)
    assert "not significant" in found.sentence()


def test_interval_covers_zero_about_as_often_as_it_says() -> None:
    """Two methods of one quality, 60 times: a 95 % interval misses zero seldom (at one half it would miss 30 times)."""
    missed = sum(
        paired_bootstrap(runs(0.8, 3, 150, 2 * i), runs(0.8, 3, 150, 2 * i + 1), resamples=150).significant
        for i in range(60)
    )
    assert missed <= 9


def test_pairing_takes_the_hardness_of_samples_out() -> None:
    """Both fail on the same hard half; unpaired resampling would see a spread of several points."""
    hard = np.tile([0.0, 100.0], 200)
    better = hard.copy()
    better[:8:2] = 100.0
    found = paired_bootstrap([hard], [better], resamples=400)
    assert found.mean == pytest.approx(1.0)
    assert found.high - found.low < 2.5


def test_other_test_sets_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"arrays \(1, 3\) and \(1, 4\): evaluate both methods on one test set"):
        paired_bootstrap([[1, 0, 1]], [[1, 0, 1, 1]])
