"""The subset that is kept, and the weight of distillation that fits its size."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from limbeck_core.build import build
from limbeck_core.errors import DataError
from limbeck_core.schedules import Progress, Schedule
from limbeck_vision.data import ImageDataset, Subset

Keep = Literal["hardest", "easiest"]
Scores = npt.NDArray[np.float64]
_STREAM = 2


class Pruned(Subset):
    """A fraction of a data set, by chance or by a score, under the ids of the whole.

    Args:
        dataset: The whole training set, or a config of it.
        fraction: Share that is kept, in (0, 1]; the paper's pruning factor f.
        scores: ``None`` keeps by chance. Otherwise a file that :func:`write_scores` wrote (``data_pruning.scoring``
            makes one), or a mapping from sample id to score.
        keep: With scores: the samples of the highest (``"hardest"``) or the lowest scores.
        balanced: Keep the same fraction of each class, to the nearest sample; needs labels.
        seed: Which samples are kept by chance, and how equal scores are ordered.

    Raises:
        ValueError: if ``fraction`` is outside of (0, 1] or keeps nothing, or ``keep`` is unknown.
        DataError: if a sample has no score, the file is damaged, or ``balanced`` is asked of a set without labels.

    Classes of which nothing is kept are named in a warning; a teacher's soft labels still cover them.

    Reference:
        Ben-Baruch et al., Distilling the Knowledge in Data Pruning, arXiv:2403.07854, section 3. The class balance is
        optional there.
    """

    def __init__(
        self,
        dataset: ImageDataset | Mapping[str, Any],
        *,
        fraction: float,
        scores: str | Path | Mapping[int, float] | None = None,
        keep: Keep = "hardest",
        balanced: bool = True,
        seed: int = 0,
    ) -> None:
        whole: ImageDataset = build(dataset)
        check_fraction(fraction)
        if keep not in ("hardest", "easiest"):
            raise ValueError(f"keep must be 'hardest' or 'easiest', got {keep!r}")
        if balanced and whole.targets is None:
            raise DataError(f"{type(whole).__name__} has no labels to balance by: set balanced=False")
        if round(fraction * len(whole)) < 1:
            raise ValueError(f"fraction {fraction} of {len(whole)} samples keeps none: raise it")
        # a stream of its own, so that a data set's wrong labels, drawn with the same seed, are not what is kept
        order = np.random.RandomState([seed, _STREAM]).permutation(len(whole))
        if scores is not None:
            found = _scores_of(whole, scores)[order]
            order = order[np.argsort(-found if keep == "hardest" else found, kind="stable")]
        super().__init__(whole, np.sort(_first(order, fraction, whole.targets if balanced else None)))
        self.absent = tuple(name for name, count in zip(self.classes, self.class_counts, strict=False) if not count)
        if self.absent:
            warnings.warn(
                f"{len(self.absent)} of {whole.num_classes} classes have no sample left at fraction {fraction}: "
                f"{', '.join(self.absent[:10])}. Only a teacher's soft labels tell of them; raise the fraction, or set "
                "balanced=True",
                stacklevel=2,
            )


def check_fraction(fraction: float) -> None:
    """Raise ``ValueError`` unless ``fraction`` lies in (0, 1]."""
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must lie above 0 and at most at 1, got {fraction!r}")


def _first(order: npt.NDArray[np.int64], fraction: float, targets: npt.NDArray[np.int64] | None) -> Any:
    """The first samples of an order; or of each class, so that the numbers add up to the fraction of the whole."""
    count = round(fraction * len(order))
    if targets is None:
        return order[:count]
    labels = targets[order]
    sizes = np.bincount(labels)
    wanted = fraction * sizes
    kept = np.floor(wanted + 1e-9).astype(np.int64)
    # the largest remainders get what rounding left over; equal ones by label
    rest = np.argsort(-(wanted - kept), kind="stable")[: max(count - int(kept.sum()), 0)]
    kept[rest] += 1
    return np.concatenate([order[labels == label][:number] for label, number in enumerate(kept)])


def _scores_of(whole: ImageDataset, scores: str | Path | Mapping[int, float]) -> Scores:
    by_id = scores if isinstance(scores, Mapping) else read_scores(scores)
    missing = [identity for identity in whole.ids.tolist() if identity not in by_id]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(whole)} samples have no score (first: id {missing[0]}): make the scores on the "
            "same data set"
        )
    found = np.asarray([by_id[identity] for identity in whole.ids.tolist()], dtype=np.float64)
    if not np.isfinite(found).all():
        raise DataError("scores must be finite numbers: the run that made them diverged")
    return found


def write_scores(path: str | Path, ids: npt.ArrayLike, scores: npt.ArrayLike) -> None:
    """Write scores by sample id to an ``.npz`` file with the arrays ``ids`` and ``scores``.

    Raises:
        DataError: if the two differ in length.
    """
    identities, values = np.asarray(ids, dtype=np.int64), np.asarray(scores, dtype=np.float64)
    if identities.shape != values.shape or identities.ndim != 1:
        raise DataError(f"ids and scores must be rows of one length, got {identities.shape} and {values.shape}")
    with Path(path).open("wb") as file:
        np.savez(file, ids=identities, scores=values)


def read_scores(path: str | Path) -> dict[int, float]:
    """Read what :func:`write_scores` wrote.

    Raises:
        DataError: if the file is missing, damaged, or holds other arrays. Nothing in it is run.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            ids, scores = content["ids"], content["scores"]
            return dict(zip(ids.tolist(), scores.tolist(), strict=True))
    except Exception as error:  # a damaged file may raise nearly anything
        raise DataError(
            f"{path} holds no scores ({type(error).__name__}: {error}): make one with python -m "
            "limbeck_vision.methods.data_pruning.scoring"
        ) from error


@dataclass(frozen=True)
class PruningWeight(Schedule):
    r"""Weight of distillation by the fraction of the data that is kept.

    .. math:: \alpha(f) = \tfrac12 + \tfrac12 (1 - f)

    The less data, the more the teacher is heard: 1 as the fraction goes to 0, one half with all data. The labels get
    ``Complement(PruningWeight(f))``. The paper says that the best weight falls with the fraction and gives no formula;
    this straight line is a choice made here. To choose on held-out images instead, tune ``model.matches.kd.weight``.

    Args:
        fraction: Share of the data that is kept, in (0, 1].

    Raises:
        ValueError: if it is not.
    """

    fraction: float

    def __post_init__(self) -> None:
        """Refuse a fraction that is none."""
        check_fraction(self.fraction)

    def __call__(self, progress: Progress) -> float:
        """Return the weight, the same throughout the run."""
        return 0.5 + 0.5 * (1.0 - self.fraction)
