r"""LELP: classes are split along directions of the teacher's last embeddings, and the student learns the parts.

.. math:: q(c, s | x) = p(c | x) \, \frac{\exp(z_{cs} / \beta)}{\sum_j \exp(z_{cj} / \beta)}, \quad
    z_{cs} = v_{cs}^\top (h - \mu_c)

Source: Linear Projections of Teacher Embeddings for Few-Class Distillation, arXiv:2409.20449, sections 3.1 to 4.1,
known here from reviews that quote its equations. Unknown there and chosen here: embeddings are centred by class, z is
scaled to unit mean standard deviation over its own class so that beta = 1 is a fair start, and the rotation is drawn
once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from limbeck_core.build import build
from limbeck_core.checks import check_finite, check_ndim, check_positive
from limbeck_core.errors import ConfigError, DataError, MatchError, ShapeError
from limbeck_core.functional.precision import at_least_float32
from limbeck_core.weights import load_weights

Directions = Literal["principal", "random"]
_SMALLEST = 1e-6  # of the largest singular value: below it a direction is noise


class SubclassTargets(nn.Module):
    """The teacher's embeddings and logits to probabilities of subclasses: the ``teacher_adapter`` of a match.

    The match's loss is the core's ``SoftTargetCrossEntropyLoss``, its student's side the subclass scores.

    It learns nothing by gradient. :meth:`fit` takes the teacher's embeddings of the training set once;
    ``state_dict()`` holds the result, and ``checkpoint`` reads it in a config.

    Args:
        num_classes: Number of classes C.
        directions: Number S of subclasses of each class.
        width: Width D of the embeddings.
        beta: Softness of the split: a large one splits evenly (distillation as usual), a small one hard.
        temperature: Softness of the teacher's class probabilities.
        checkpoint: A file with the state of a fitted one. On the meta device nothing is read.

    Raises:
        ConfigError: if a number is out of range.

    Reference:
        arXiv:2409.20449, eq. 5; see the module.
    """

    def __init__(
        self,
        num_classes: int,
        directions: int,
        width: int,
        *,
        beta: float = 1.0,
        temperature: float = 1.0,
        checkpoint: str | Path | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 2 or not 1 <= directions <= width:
            raise ConfigError(
                f"LELP needs at least 2 classes and 1 to {width} directions (the width), got {num_classes} and "
                f"{directions}"
            )
        check_positive(beta, "beta")
        check_positive(temperature, "temperature")
        self.beta = beta
        self.temperature = temperature
        self.register_buffer("projection", torch.zeros(num_classes, width, directions))
        self.register_buffer("offset", torch.zeros(num_classes, directions))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.projection: Tensor
        self.offset: Tensor
        self.fitted: Tensor
        if checkpoint is not None and torch.get_default_device().type != "meta":
            load_weights(self, Path(checkpoint))

    @torch.no_grad()
    def fit(
        self,
        embeddings: Tensor,
        target: Tensor,
        classifier_weight: Tensor | None = None,
        *,
        kind: Directions = "principal",
        seed: int = 0,
    ) -> SubclassTargets:
        """Find the directions of each class.

        Args:
            embeddings: What goes into the teacher's classifier, over the training set, shape ``(N, D)``; at most 20,000
                samples a class are used.
            target: Class of each sample, shape ``(N,)``.
            classifier_weight: The classifier's weight ``(C, D)``. What lies along its rows is removed first, since the
                logits say it already; ``None``, or a classifier that spans everything but less than S directions,
                leaves that out, the latter with an error.
            kind: ``"principal"`` as in the paper, or ``"random"``, its control.
            seed: Of the rotation (or of the random directions).

        Returns:
            This module.

        Raises:
            ShapeError: if shapes do not fit.
            DataError: if a class has no sample.
            ConfigError: if the classifier leaves less than S directions, or ``kind`` is unknown.
        """
        classes, width, directions = self.projection.shape
        check_ndim(embeddings, "embeddings", "(N, D)", at_least=2, at_most=2)
        if embeddings.shape[1] != width or target.shape != embeddings.shape[:1]:
            raise ShapeError(
                f"fit expects embeddings (N, {width}) and target (N,), got {tuple(embeddings.shape)} and "
                f"{tuple(target.shape)}"
            )
        if kind not in get_args(Directions):
            raise ConfigError(f"kind must be 'principal' or 'random', got {kind!r}")
        check_finite(embeddings.sum(), embeddings=embeddings)
        states = embeddings.double().cpu()
        remove = torch.zeros(width, width, dtype=torch.float64)
        if classifier_weight is not None:
            remove = _span(classifier_weight, width, directions)
        generator = torch.Generator().manual_seed(seed)
        projection, offset = [], []
        for label in range(classes):
            rows = states[(target == label).cpu()][:20000]
            if not len(rows):
                raise DataError(f"class {label} has no sample to find directions from: fit on all of the training set")
            mean = rows.mean(0)
            centred = (rows - mean) - (rows - mean) @ remove
            vectors = _directions(centred, directions, kind, generator)
            vectors = vectors - remove @ vectors
            scores = centred @ vectors
            spread = scores.std(0, correction=0).mean()
            # embeddings that are all alike have no directions but rounding's: their class is split evenly
            alike = spread <= _SMALLEST * rows.abs().max()
            vectors = torch.zeros_like(vectors) if alike else vectors / spread
            projection.append(vectors)
            offset.append(mean @ vectors)
        self.projection.copy_(torch.stack(projection))
        self.offset.copy_(torch.stack(offset))
        self.fitted.fill_(True)
        return self

    @torch.no_grad()
    def forward(self, teacher: Sequence[Tensor]) -> Tensor:
        """Return probabilities of the subclasses, shape ``(N, C * S)``, class by class.

        Args:
            teacher: Embeddings ``(N, D)`` and logits ``(N, C)``; of embeddings ``(N, L, D)`` the first token counts.

        Raises:
            MatchError: if it was never fitted.
            ShapeError: if shapes do not fit.
        """
        if not bool(self.fitted):
            raise MatchError(
                "SubclassTargets was never fitted: call fit(...) on the teacher's embeddings, or name its file"
            )
        classes, width = self.projection.shape[:2]
        shapes = [tuple(part.shape) for part in teacher]
        if len(teacher) == 2 and teacher[0].ndim == 3:
            teacher = (teacher[0][:, 0], teacher[1])
        if len(teacher) != 2 or teacher[0].shape[1:] != (width,) or teacher[1].shape != (len(teacher[0]), classes):
            raise ShapeError(f"SubclassTargets expects embeddings (N, {width}) and logits (N, {classes}), got {shapes}")
        embeddings, logits = (at_least_float32(part.detach()) for part in teacher)
        z = torch.einsum("nd,cds->ncs", embeddings, self.projection.to(embeddings)) - self.offset.to(embeddings)
        within = (z / self.beta).softmax(-1)
        return ((logits / self.temperature).softmax(-1).unsqueeze(-1) * within).flatten(1)

    def extra_repr(self) -> str:
        """Show the options in ``repr``."""
        classes, width, directions = self.projection.shape
        return f"{classes} classes x {directions} directions of {width}, beta={self.beta}"


def _span(classifier_weight: Tensor, width: int, directions: int) -> Tensor:
    """Projection onto what the classifier reads, shape ``(D, D)``."""
    if classifier_weight.ndim != 2 or classifier_weight.shape[1] != width:
        raise ShapeError(f"classifier_weight must have shape (C, {width}), got {tuple(classifier_weight.shape)}")
    _, sizes, rows = torch.linalg.svd(classifier_weight.detach().double().cpu(), full_matrices=False)
    basis = rows[sizes > _SMALLEST * sizes.max().clamp_min(1e-30)]
    if width - len(basis) < directions:
        raise ConfigError(
            f"the classifier reads {len(basis)} of {width} directions and leaves {width - len(basis)}, less than the "
            f"{directions} asked for: take fewer directions, or leave classifier_weight out"
        )
    projector: Tensor = basis.T @ basis
    return projector


def _directions(centred: Tensor, count: int, kind: Directions, generator: torch.Generator) -> Tensor:
    """Orthonormal directions (D, S): the principal ones, rotated so that their variances are alike; or random ones."""
    width = centred.shape[1]
    if kind == "random":
        drawn = torch.randn(width, count, dtype=torch.float64, generator=generator)
        basis: Tensor = torch.linalg.qr(drawn).Q
        return basis
    _, _, rows = torch.linalg.svd(centred, full_matrices=False)
    vectors = torch.zeros(width, count, dtype=torch.float64)
    found = rows[:count].T  # a class of few samples has fewer: the rest is zero, which splits evenly
    # a singular vector's sign is arbitrary: the largest entry is made positive, so that runs repeat
    signs = torch.gather(found, 0, found.abs().argmax(0, keepdim=True)).sign()
    vectors[:, : found.shape[1]] = found * torch.where(signs == 0, torch.ones_like(signs), signs)
    rotation: Tensor = torch.linalg.qr(torch.randn(count, count, dtype=torch.float64, generator=generator)).Q
    return vectors @ rotation


def merge_subclasses(scores: Tensor, num_classes: int) -> Tensor:
    """Return class scores, the log of the summed exponentials of each class's subclass scores.

    Args:
        scores: Shape ``(N, C * S)``, class by class.
        num_classes: C.

    Raises:
        ShapeError: if C does not divide the number of scores.

    >>> merge_subclasses(torch.zeros(1, 4), 2).exp()
    tensor([[2.0000, 2.0000]])
    """
    if scores.ndim != 2 or scores.shape[1] % num_classes:
        raise ShapeError(f"scores must have shape (N, {num_classes} * S), got {tuple(scores.shape)}")
    return scores.unflatten(1, (num_classes, -1)).logsumexp(-1)  # type: ignore[no-untyped-call, no-any-return]


class WithSubclasses(nn.Module):
    """A classifier of transformers whose scores are subclasses; it gives ``logits`` of the classes and the scores.

    Args:
        model: A model, or a config of one, with ``num_labels`` = classes times directions.
        num_classes: Number of classes.
    """

    def __init__(self, model: nn.Module | Mapping[str, Any], num_classes: int) -> None:
        super().__init__()
        self.model: nn.Module = build(model)
        self.num_classes = num_classes
        self.config = getattr(self.model, "config", None)

    def forward(self, **inputs: Any) -> dict[str, Tensor]:
        """Return ``logits`` ``(N, C)`` and ``subclass_scores`` ``(N, C * S)``."""
        scores: Tensor = self.model(**inputs).logits
        return {"logits": merge_subclasses(scores, self.num_classes), "subclass_scores": scores}
