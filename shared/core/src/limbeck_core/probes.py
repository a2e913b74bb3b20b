"""What frozen features know: nearest neighbours, a linear probe, and retrieval of one modality by another.

Features are taken as they came from a model; nothing here trains it. Targets are class indices ``(M,)`` or, where a
sample has several labels, zeros and ones ``(M, C)``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize, one_hot

from limbeck_core.checks import check_positive, explain_non_finite
from limbeck_core.errors import ShapeError, TargetError

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
_ROWS = 1024  # compared at once: 8 MB of float64 for 1024 training samples
_STEPS = 500  # of L-BFGS, which stops by itself long before on standardised features
_HELD_OUT = 5  # every fifth sample of a class
_SAME = 1e-12  # similarities that differ by less are equal


@dataclass(frozen=True)
class Probed:
    """What a linear probe says of test samples.

    Args:
        probabilities: Of each class, float64, ``(N, C)``. Rows sum to 1 unless samples have several labels.
        strength: The inverse weight of the penalty that was taken.
    """

    probabilities: Tensor
    strength: float


@torch.no_grad()
def nearest_neighbours(
    train: Tensor,
    targets: Tensor,
    test: Tensor,
    *,
    neighbours: int = 20,
    temperature: float = 0.07,
    classes: int | None = None,
) -> Tensor:
    r"""Class scores of test samples by the votes of the training samples most like them.

    .. math:: s_c(x) = \frac{\sum_{i \in N_k(x)} y_{ic} \, e^{\cos(x, x_i) / \tau}}
        {\sum_{i \in N_k(x)} e^{\cos(x, x_i) / \tau}}

    Args:
        train: Features of training samples, ``(M, D)``.
        targets: Their class indices ``(M,)``, or zeros and ones ``(M, C)``.
        test: Features of test samples, ``(N, D)``.
        neighbours: How many vote; all training samples where there are fewer.
        temperature: Softness :math:`\tau > 0` of the votes; a large one lets all neighbours count alike.
        classes: Number of classes C; by default one more than the largest index.

    Returns:
        Shares of the vote, float64, ``(N, C)``.

    Raises:
        ShapeError: if features do not fit together, or there is no training sample.
        TargetError: if targets do not fit the training samples or the classes.
        NonFiniteError: if features hold NaN or infinity (CPU).
        ValueError: if ``neighbours`` is below 1 or ``temperature`` not above 0.

    Reference:
        Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, arXiv:1805.01978, section
        3.4; with the numbers of DINO, arXiv:2104.14294.

    >>> nearest_neighbours(torch.eye(2), torch.tensor([0, 1]), torch.tensor([[1.0, 0.1]]), neighbours=1)
    tensor([[1., 0.]], dtype=torch.float64)
    """
    if neighbours < 1:
        raise ValueError(f"neighbours must be 1 or more, got {neighbours}")
    check_positive(temperature, "temperature")
    _check_features(train, test)
    votes = _votes(targets, len(train), classes).to(train.device)
    bank, asked = normalize(train.double(), dim=1), normalize(test.double(), dim=1)
    scores = [votes.new_zeros((0, votes.shape[1]))]
    for start in range(0, len(asked), _ROWS):
        rows = asked[start : start + _ROWS]
        similarity, index = (rows @ bank.T).topk(min(neighbours, len(bank)), dim=1)
        weights = (similarity / temperature).softmax(1)
        scores.append((weights[..., None] * votes[index]).sum(1))
    return torch.cat(scores)


def linear_probe(
    train: Tensor,
    targets: Tensor,
    test: Tensor,
    *,
    classes: int | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> Probed:
    r"""Train a linear classifier on frozen features and ask it about test samples.

    Logistic regression by L-BFGS in float64 on features standardised by mean and spread of the training samples:

    .. math:: \min_{W, b} \; \sum_i CE(W x_i + b, y_i) + \tfrac1{2 s} \|W\|^2

    with one against the rest where a sample has several labels. The strength :math:`s` is chosen on every fifth
    training sample of each class, in the order given; then all of them train. Test samples have no say. Where a class
    has fewer than five samples nothing is held out, and the strength nearest to 1 is taken.

    Args:
        train: Features of training samples, ``(M, D)``.
        targets: Their class indices ``(M,)``, or zeros and ones ``(M, C)``.
        test: Features of test samples, ``(N, D)``.
        classes: Number of classes C; by default one more than the largest index. A class without a training sample has
            probability 0, unless samples have several labels.
        strengths: Inverse weights of the penalty to choose among.

    Raises:
        ShapeError: if features do not fit together, or there is no training sample.
        TargetError: if targets do not fit, or all are of one class.
        NonFiniteError: if features hold NaN or infinity (CPU).
        ValueError: if no strength is given, or one is not above 0.
    """
    if not strengths or min(strengths) <= 0:
        raise ValueError(f"strengths must be numbers above 0, one or more, got {tuple(strengths)}")
    _check_features(train, test)
    votes = _votes(targets, len(train), classes)
    several = targets.ndim == 2
    known = torch.arange(votes.shape[1]) if several else votes.sum(0).nonzero().flatten().cpu()
    if len(known) < 2 and not several:
        raise TargetError(
            f"a probe tells classes apart, and all {len(train)} training samples are of class {known.tolist()}"
        )
    x, y = train.detach().double(), votes[:, known.to(votes.device)].to(train.device)
    strength = _choose(x, y, tuple(strengths), several)
    probabilities = torch.zeros(len(test), votes.shape[1], dtype=torch.float64, device=train.device)
    logits = _Linear(x, y, strength, several)(test.detach().double())
    probabilities[:, known] = logits.sigmoid() if several else logits.softmax(1)
    return Probed(probabilities, strength)


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
    _check_features(gallery, queries, ("gallery", "queries"))
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
    for start in range(0, len(asked), _ROWS):
        similarity = asked[start : start + _ROWS] @ bank.T
        if relevant is None:
            right = torch.zeros_like(similarity, dtype=torch.bool)
            right[torch.arange(len(right)), torch.arange(start, start + len(right))] = True
        else:
            right = relevant[start : start + _ROWS].to(similarity.device, torch.bool)
        best = similarity.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
        # equal up to rounding is equal: the same vector must not win by the last bit
        ahead = ((similarity >= best - _SAME) & ~right).sum(1)
        ranks.append(ahead[right.any(1)] + 1)
    rank = torch.cat(ranks).double() if ranks else torch.zeros(0, dtype=torch.float64)
    if not rank.numel():
        raise ShapeError(f"none of the {len(queries)} queries has a right entry in the gallery: nothing to retrieve")
    recall = {f"recall@{k}": 100 * float((rank <= k).double().mean()) for k in at}
    return {**recall, "median_rank": float(rank.quantile(0.5))}


class _Linear:
    """A linear classifier on standardised features."""

    def __init__(self, x: Tensor, y: Tensor, strength: float, several: bool) -> None:
        self.mean = x.mean(0)
        spread = x.std(0, correction=0)
        self.scale = torch.where(spread > _SAME, spread, torch.ones_like(spread))  # a constant says nothing
        z = (x - self.mean) / self.scale
        self.weight = z.new_zeros(y.shape[1], x.shape[1]).requires_grad_()
        self.bias = z.new_zeros(y.shape[1]).requires_grad_()
        optimizer = torch.optim.LBFGS(
            [self.weight, self.bias],
            max_iter=_STEPS,
            line_search_fn="strong_wolfe",
            tolerance_grad=1e-7,
            tolerance_change=1e-12,
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = _loss(z @ self.weight.T + self.bias, y, several)
            loss = loss + self.weight.square().sum() / (2 * strength * len(z))
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        with torch.enable_grad():
            optimizer.step(closure)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale @ self.weight.T + self.bias


def _loss(logits: Tensor, y: Tensor, several: bool) -> Tensor:
    """The mean over samples; of several labels the sum over classes, since each is a problem of its own."""
    if several:
        return binary_cross_entropy_with_logits(logits, y, reduction="none").sum(1).mean()
    return cross_entropy(logits, y)


def _choose(x: Tensor, y: Tensor, strengths: tuple[float, ...], several: bool) -> float:
    fallback = min(strengths, key=lambda strength: abs(math.log(strength)))
    if len(strengths) == 1 or (not several and int(y.sum(0).min()) < _HELD_OUT) or len(y) < _HELD_OUT:
        return fallback
    place = torch.arange(len(y), device=y.device) if several else ((y.cumsum(0) - 1) * y).sum(1)
    held = place % _HELD_OUT == _HELD_OUT - 1
    losses = {s: float(_loss(_Linear(x[~held], y[~held], s, several)(x[held]), y[held], several)) for s in strengths}
    return min(losses, key=losses.__getitem__)


def _check_features(train: Tensor, test: Tensor, names: tuple[str, str] = ("train", "test")) -> None:
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


def _votes(targets: Tensor, samples: int, classes: int | None) -> Tensor:
    """Targets as float64 ``(samples, classes)``."""
    if targets.ndim not in (1, 2) or len(targets) != samples:
        raise TargetError(
            f"targets must be class indices ({samples},) or zeros and ones ({samples}, C), got {tuple(targets.shape)}"
        )
    if targets.ndim == 2:
        if classes is not None and targets.shape[1] != classes:
            raise TargetError(f"targets have {targets.shape[1]} columns for {classes} classes")
        if not bool(((targets == 0) | (targets == 1)).all()):
            raise TargetError("targets of samples with several labels must be zeros and ones")
        return targets.double()
    if targets.is_floating_point():
        raise TargetError(f"class indices must be whole numbers, got {targets.dtype}")
    low, high = int(targets.min()), int(targets.max())
    count = high + 1 if classes is None else classes
    if low < 0 or high >= count:
        raise TargetError(f"class indices must lie in 0 to {count - 1}, got {low} to {high}")
    return one_hot(targets.long(), count).double()


__all__ = ["STRENGTHS", "Probed", "linear_probe", "nearest_neighbours", "retrieval_recall"]
