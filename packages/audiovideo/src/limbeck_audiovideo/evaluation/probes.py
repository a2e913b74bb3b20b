"""What frozen features know: nearest neighbours, a linear probe, and retrieval of one modality by another.

Features are compared as they come from a model; nothing here trains the model. Targets are class indices ``(N,)`` or,
for several labels a sample, zeros and ones ``(N, C)``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from limbeck_core.checks import explain_non_finite
from limbeck_core.errors import ShapeError, TargetError

STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # inverse weights of the penalty among which a linear probe chooses
_SMALLEST_CLASS = 5  # samples that the rarest class needs before a fifth is held out
_CHUNK = 1024  # rows compared at once
_Predict = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Probed:
    """What a linear probe says of test samples.

    Args:
        probabilities: Of each class, float64, ``(N, C)``; rows sum to one unless samples have several labels.
        strength: Inverse weight of the penalty that was used.
    """

    probabilities: Tensor
    strength: float


def nearest_neighbours(
    train: Tensor,
    targets: Tensor,
    test: Tensor,
    *,
    neighbours: int = 20,
    temperature: float = 0.07,
    classes: int | None = None,
) -> Tensor:
    r"""Class scores of test samples by the votes of their nearest training samples.

    .. math:: s_c(x) = \sum_{i \in N_k(x)} w_i y_{ic}, \quad w_i \propto \exp(\cos(x, x_i) / \tau)

    Args:
        train: Features of training samples, ``(M, D)``.
        targets: Their class indices ``(M,)``, or zeros and ones ``(M, C)``.
        test: Features of test samples, ``(N, D)``.
        neighbours: How many vote; all training samples if there are fewer.
        temperature: Softness of the votes; large values count every neighbour alike.
        classes: Number of classes C; by default one more than the largest index.

    Returns:
        Shares of the vote, float64, ``(N, C)``.

    Raises:
        ShapeError: if features do not fit, or there is no training sample.
        TargetError: if targets do not fit the training samples or the classes.
        NonFiniteError: if features hold NaN or infinity.
        ValueError: if ``neighbours`` or ``temperature`` is not above zero.

    Reference:
        Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, arXiv:1805.01978, section
        3.4; the defaults are those of DINO (arXiv:2104.14294) and DISCOVR.
    """
    if neighbours < 1 or not temperature > 0:
        raise ValueError(f"neighbours must be 1 or more and temperature above 0, got {neighbours} and {temperature}")
    _check_features(train, test)
    votes = _as_rows(targets, len(train), classes).to(train.device)
    bank, asked = normalize(train.detach().double(), dim=1), normalize(test.detach().double(), dim=1)
    scores = []
    for rows in torch.split(asked, _CHUNK):
        similarity, index = (rows @ bank.T).topk(min(neighbours, len(bank)), dim=1)
        weights = torch.softmax(similarity / temperature, dim=1)
        scores.append((weights.unsqueeze(-1) * votes[index]).sum(1))
    return torch.cat(scores) if scores else votes.new_zeros((0, votes.shape[1]))


def linear_probe(
    train: Tensor,
    targets: Tensor,
    test: Tensor,
    *,
    classes: int | None = None,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> Probed:
    """Train a linear classifier on frozen features and ask it about test samples.

    Logistic regression on standardised features (mean and spread of the training samples), one against the rest where
    a sample has several labels. The penalty is chosen on a fifth of the *training* samples, then all of them train; the
    test samples have no say. With fewer than five training samples of some class nothing can be held out, and the
    strength is the one of ``strengths`` nearest to 1.

    Args:
        train: Features of training samples, ``(M, D)``.
        targets: Their class indices ``(M,)``, or zeros and ones ``(M, C)``.
        test: Features of test samples, ``(N, D)``.
        classes: Number of classes C; by default one more than the largest index. A class without a training sample has
            probability zero.
        strengths: Inverse weights of the penalty to choose among.
        seed: Draws the fifth.

    Raises:
        ShapeError: if features do not fit, or there is no training sample.
        TargetError: if targets do not fit, or name one class alone.
        NonFiniteError: if features hold NaN or infinity.
        ValueError: if a strength is not above zero, or none is given.
    """
    if not strengths or min(strengths) <= 0:
        raise ValueError(f"strengths must be numbers above 0, at least one, got {tuple(strengths)}")
    _check_features(train, test)
    rows = _as_rows(targets, len(train), classes)
    several = targets.ndim == 2
    known = np.unique(targets.cpu().numpy()) if not several else np.arange(rows.shape[1])
    if len(known) < 2 and not several:
        raise TargetError(f"a probe tells classes apart, and all {len(train)} training samples are of class {known}")
    x, y = train.detach().double().cpu().numpy(), targets.cpu().numpy()
    strength = _choose(x, y, tuple(strengths), several=several, seed=seed)
    found = np.zeros((len(test), rows.shape[1]))
    if len(test):
        found[:, known] = _fit(x, y, strength, several=several)(test.detach().double().cpu().numpy())
    return Probed(torch.from_numpy(found), strength)


def retrieval_recall(
    queries: Tensor,
    gallery: Tensor,
    *,
    at: Sequence[int] = (1, 5, 10),
    relevant: Tensor | None = None,
) -> Mapping[str, float]:
    """Return how often the right gallery entry is among the nearest to a query, by cosine similarity.

    Ties count against the model: features that are all alike retrieve nothing.

    Args:
        queries: Features that search, ``(Q, D)``.
        gallery: Features that are searched, ``(G, D)``.
        at: Numbers of nearest entries to look at.
        relevant: Which entries are right for which query, boolean ``(Q, G)``; by default entry i for query i. Queries
            without a right entry are left out.

    Returns:
        ``recall@k`` in per cent for every k, and ``median_rank`` of the best right entry, from 1.

    Raises:
        ShapeError: if features do not fit, ``relevant`` has another shape, or no query has a right entry.
        NonFiniteError: if features hold NaN or infinity.
        ValueError: if a number of ``at`` is below 1.
    """
    if not at or min(at) < 1:
        raise ValueError(f"at must hold numbers of 1 or more, at least one, got {tuple(at)}")
    _check_features(gallery, queries, names=("gallery", "queries"))
    if relevant is None and len(queries) != len(gallery):
        raise ShapeError(
            f"without relevant, entry i of the gallery belongs to query i: got {len(queries)} queries and "
            f"{len(gallery)} entries"
        )
    if relevant is not None and relevant.shape != (len(queries), len(gallery)):
        raise ShapeError(
            f"relevant must have the shape {(len(queries), len(gallery))} of queries and gallery, got "
            f"{tuple(relevant.shape)}"
        )
    bank, asked = normalize(gallery.detach().double(), dim=1), normalize(queries.detach().double(), dim=1)
    ranks = []
    for start in range(0, len(asked), _CHUNK):
        similarity = asked[start : start + _CHUNK] @ bank.T
        if relevant is None:
            right = torch.zeros_like(similarity, dtype=torch.bool)
            right[torch.arange(len(right)), torch.arange(start, start + len(right))] = True
        else:
            right = relevant[start : start + _CHUNK].to(similarity.device, torch.bool)
        best = similarity.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
        # equal up to rounding is equal: the same vector must not win by the last bit
        ahead = ((similarity >= best - 1e-12) & ~right).sum(1)
        ranks.append(ahead[right.any(1)] + 1)
    rank = torch.cat(ranks).double() if ranks else torch.zeros(0, dtype=torch.float64)
    if not rank.numel():
        raise ShapeError(f"none of the {len(queries)} queries has a right entry in the gallery: nothing to retrieve")
    recall = {f"recall@{k}": 100 * float((rank <= k).double().mean()) for k in at}
    return {**recall, "median_rank": float(rank.quantile(0.5))}


def _check_features(train: Tensor, test: Tensor, *, names: tuple[str, str] = ("train", "test")) -> None:
    for name, features in zip(names, (train, test), strict=True):
        if features.ndim != 2 or not features.is_floating_point():
            raise ShapeError(
                f"{name} must be floating-point features (samples, width), got {features.dtype} "
                f"{tuple(features.shape)}: pool over time and space first"
            )
        explain_non_finite(features, name)
    if not len(train):
        raise ShapeError(f"{names[0]} holds no sample")
    if train.shape[1] != test.shape[1]:
        raise ShapeError(f"{names[0]} has {train.shape[1]} features a sample and {names[1]} {test.shape[1]}")


def _as_rows(targets: Tensor, samples: int, classes: int | None) -> Tensor:
    """Targets as float64 ``(samples, classes)``, after checking them."""
    if targets.ndim not in (1, 2) or len(targets) != samples:
        raise TargetError(
            f"targets must be class indices ({samples},) or zeros and ones ({samples}, C), got {tuple(targets.shape)}"
        )
    if targets.ndim == 2:
        if classes is not None and targets.shape[1] != classes:
            raise TargetError(f"targets have {targets.shape[1]} columns for {classes} classes")
        if not bool(((targets == 0) | (targets == 1)).all()):
            raise TargetError("targets of several labels a sample must be zeros and ones")
        return targets.double()
    if targets.is_floating_point():
        raise TargetError(f"class indices must be whole numbers, got {targets.dtype}")
    low, high = int(targets.min()), int(targets.max())
    count = high + 1 if classes is None else classes
    if low < 0 or high >= count:
        raise TargetError(f"class indices must lie in [0, {count - 1}], got {low} to {high}")
    return one_hot(targets.long(), count).double()


def _choose(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.int64], strengths: tuple[float, ...], *, several: bool, seed: int
) -> float:
    fallback = min(strengths, key=lambda strength: abs(np.log(strength)))
    rarest = len(x) if several else int(np.unique(y, return_counts=True)[1].min())
    if len(strengths) == 1 or rarest < _SMALLEST_CLASS:
        return fallback
    fit_x, held_x, fit_y, held_y = train_test_split(
        x, y, test_size=max(0.2, len(np.unique(y)) / len(y)), random_state=seed, stratify=None if several else y
    )
    losses = {}
    for strength in strengths:
        found = np.clip(_fit(fit_x, fit_y, strength, several=several)(held_x), 1e-12, 1 - 1e-12)
        if several:
            losses[strength] = -float((held_y * np.log(found) + (1 - held_y) * np.log(1 - found)).mean())
        else:
            columns = np.searchsorted(np.unique(fit_y), held_y)
            losses[strength] = -float(np.log(found[np.arange(len(held_y)), columns]).mean())
    return min(losses, key=lambda strength: losses[strength])


def _fit(x: npt.NDArray[np.float64], y: npt.NDArray[np.int64], strength: float, *, several: bool) -> _Predict:
    classifier = LogisticRegression(C=strength, max_iter=500)
    model = make_pipeline(StandardScaler(), OneVsRestClassifier(classifier) if several else classifier)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 500 steps leave a loss that no table would show
        warnings.filterwarnings("ignore", message="Label .* is present in all training examples")
        warnings.filterwarnings("ignore", message="Label not .* is present in all training examples")
        model.fit(x, y)
    predict: _Predict = model.predict_proba
    return predict
