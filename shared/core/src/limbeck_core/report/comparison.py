"""Is one better than the other? The paired bootstrap, which says "not significant" when it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from limbeck_core.errors import ShapeError


@dataclass(frozen=True)
class Difference:
    """Mean difference of two sets of runs on the same samples, with its interval.

    Args:
        mean: Second minus first.
        low: Lower end of the interval.
        high: Upper end of the interval.
        confidence: Share of resamples inside the interval.
        wins: Runs of the second that beat every run of the first, and how many there are.
    """

    mean: float
    low: float
    high: float
    confidence: float
    wins: tuple[int, int]

    @property
    def significant(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def sentence(self, unit: str = "points") -> str:
        """The verdict in words."""
        verdict = "" if self.significant else ", not significant"
        return (
            f"{self.mean:+.2f} {unit} ({self.confidence:.0%} interval {self.low:+.2f} to {self.high:+.2f}{verdict}); "
            f"{self.wins[0]} of {self.wins[1]} runs beat every run of the other"
        )


def paired_bootstrap(
    first: Sequence[npt.ArrayLike],
    second: Sequence[npt.ArrayLike],
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Compare two methods on the same test samples over several seeds.

    Each resample draws test samples with replacement, the same ones for both methods, and draws each method's seeds
    with replacement; so the interval covers both which samples were tested and which seeds were lucky. With one seed
    each it covers the samples alone.

    Args:
        first: For each seed one value per test sample, such as 100 where it was right and 0 where it was wrong.
        second: The same for the other method; the numbers of seeds may differ.
        resamples: How many resamples are drawn.
        confidence: Share of them inside the interval.
        seed: Of the resampling.

    Returns:
        The difference, second minus first, in the values' unit.

    Raises:
        ShapeError: if the numbers of test samples differ, or something is empty.

    Reference:
        Efron and Tibshirani, An Introduction to the Bootstrap, Chapman and Hall, 1993, chapter 13 (percentile
        interval).
    """
    a, b = (np.asarray([np.asarray(run, dtype=float).ravel() for run in runs]) for runs in (first, second))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not a.size or not b.size:
        raise ShapeError(
            f"paired_bootstrap compares runs on the same test samples, got arrays {a.shape} and {b.shape}: evaluate "
            f"both "
            "methods on one test set in one order"
        )
    generator = np.random.default_rng(seed)
    differences = np.empty(resamples)
    for index in range(resamples):
        samples = generator.integers(a.shape[1], size=a.shape[1])
        seeds_a, seeds_b = generator.integers(len(a), size=len(a)), generator.integers(len(b), size=len(b))
        differences[index] = b[seeds_b].mean(0)[samples].mean() - a[seeds_a].mean(0)[samples].mean()
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    wins = int((b.mean(1) > a.mean(1).max()).sum())
    return Difference(float(b.mean() - a.mean()), float(low), float(high), confidence, (wins, len(b)))
