"""Classes of clips: accuracy for one label a clip, mean average precision and d-prime for several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import norm
from sklearn.metrics import average_precision_score, confusion_matrix, f1_score, roc_auc_score
from torch import Tensor

from limbeck_core.checks import explain_non_finite
from limbeck_core.errors import ShapeError, TargetError


def classify(scores: Tensor, targets: Tensor, *, top: Sequence[int] = (1, 5)) -> dict[str, float]:
    """Measures of clips with one label.

    Args:
        scores: Of each class, ``(N, C)``; the largest is the answer.
        targets: Class indices, ``(N,)``.
        top: Numbers of answers that are looked at; those of C or more are left out, but for 1.

    Returns:
        In per cent: ``accuracy`` and ``top<k>``, ``balanced_accuracy`` (mean over the classes that occur of each one's
        accuracy), and ``macro_f1``.

    Raises:
        ShapeError: if scores and targets do not fit, or there is no clip.
        TargetError: if a target is no class.
        NonFiniteError: if scores hold NaN or infinity.
    """
    _check(scores, targets, one=True)
    truth = targets.long().cpu()
    rank = (scores.cpu() > scores.cpu().gather(1, truth.unsqueeze(1))).sum(1)
    found = scores.argmax(1).cpu()
    measures = {"accuracy": 100 * float((found == truth).double().mean())}
    measures |= {f"top{k}": 100 * float((rank < k).double().mean()) for k in top if 1 < k < scores.shape[1]}
    known = truth.unique()  # type: ignore[no-untyped-call]
    shares = torch.stack([(found[truth == label] == label).double().mean() for label in known])
    measures["balanced_accuracy"] = 100 * float(shares.mean())
    measures["macro_f1"] = 100 * float(f1_score(truth.numpy(), found.numpy(), average="macro", zero_division=0))
    return measures


def tag(scores: Tensor, targets: Tensor) -> dict[str, float]:
    r"""Measures of clips with several labels, as AudioSet is judged.

    .. math:: d' = \sqrt{2} \, \Phi^{-1}(\overline{AUC})

    Args:
        scores: Of each class, ``(N, C)``; logits or probabilities.
        targets: Zeros and ones, ``(N, C)``.

    Returns:
        ``map``, the mean over classes of average precision, and ``auc``, the mean area under the receiver operating
        characteristic, in per cent; ``d_prime``, infinite for a perfect ranking. Classes without a clip, or with every
        clip, are left out of the means that they have no value in.

    Raises:
        ShapeError: if scores and targets do not fit, or there is no clip.
        TargetError: if a target is neither 0 nor 1, or no class has a clip.
        NonFiniteError: if scores hold NaN or infinity.

    Reference:
        Gemmeke et al., Audio Set, ICASSP 2017, section 5.
    """
    _check(scores, targets, one=False)
    found, truth = scores.double().cpu().numpy(), targets.cpu().numpy()
    positive = truth.sum(0)
    if not (positive > 0).any():
        raise TargetError("no class has a clip, so there is nothing to rank")
    precision = [average_precision_score(truth[:, c], found[:, c]) for c in np.flatnonzero(positive)]
    measures = {"map": 100 * float(np.mean(precision))}
    told_apart = np.flatnonzero((positive > 0) & (positive < len(truth)))
    if len(told_apart):
        area = float(np.mean([roc_auc_score(truth[:, c], found[:, c]) for c in told_apart]))
        measures |= {"auc": 100 * area, "d_prime": math.sqrt(2) * float(norm.ppf(area))}
    return measures


def confusion(scores: Tensor, targets: Tensor) -> npt.NDArray[np.int64]:
    """Count clips by true class (rows) and answer (columns), ``(C, C)``; arguments as :func:`classify`."""
    _check(scores, targets, one=True)
    table: npt.NDArray[np.int64] = confusion_matrix(
        targets.cpu().numpy(), scores.argmax(1).cpu().numpy(), labels=range(scores.shape[1])
    )
    return table


def _check(scores: Tensor, targets: Tensor, *, one: bool) -> None:
    if scores.ndim != 2 or not len(scores) or len(scores) != len(targets):
        raise ShapeError(
            f"scores (clips, classes) and targets must belong to the same clips, at least one, got "
            f"{tuple(scores.shape)} and {tuple(targets.shape)}"
        )
    explain_non_finite(scores, "scores")
    if one:
        if targets.ndim != 1 or targets.is_floating_point():
            raise TargetError(
                f"clips with one label have class indices (N,), got {targets.dtype} {tuple(targets.shape)}"
            )
        if int(targets.min()) < 0 or int(targets.max()) >= scores.shape[1]:
            low, high = int(targets.min()), int(targets.max())
            raise TargetError(f"class indices must lie in [0, {scores.shape[1] - 1}], got {low} to {high}")
    elif targets.shape != scores.shape or not bool(((targets == 0) | (targets == 1)).all()):
        raise TargetError(
            f"clips with several labels have zeros and ones {tuple(scores.shape)}, got {tuple(targets.shape)}"
        )


def table(measures: Mapping[str, float]) -> str:
    """Measures as text, one a line."""
    width = max((len(name) for name in measures), default=0)
    return "\n".join(f"{name.ljust(width)}  {value:8.2f}" for name, value in measures.items())
