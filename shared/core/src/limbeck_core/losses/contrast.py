"""Module twins of :mod:`limbeck_core.functional.contrast`, which own what the methods remember."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from limbeck_core.checks import check_between, check_ndim, check_positive
from limbeck_core.errors import ShapeError, TargetError
from limbeck_core.functional import contrast as functional
from limbeck_core.functional.precision import without_autocast
from limbeck_core.functional.reduction import Reduction, check_reduction
from limbeck_core.gather import gather
from limbeck_core.schedules import Progress, Schedule, as_schedule

Negatives = Literal["exact", "relax"]


class NormalizedMSELoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.normalized_mse_loss` (BYOL, ATST).

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over positions.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_embeddings: Tensor, teacher_embeddings: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.normalized_mse_loss(
            student_embeddings, teacher_embeddings, mask=mask, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"


class DINOLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.dino_loss`; owns the centre.

    While the module trains, the centre moves after each call by what all ranks' teachers said. A forward with gradient
    checkpointing or a second call on the same batch moves it again.

    Args:
        num_prototypes: Width K of both heads.
        student_temperature: Softness of the student's distribution, above 0.
        teacher_temperature: Softness of the teacher's, above 0; a number or a schedule, for example
            ``Linear(0.04, 0.07, until=30, by="epoch")``. Whoever drives the training outside of a distiller calls
            :meth:`set_progress`.
        center_momentum: Momentum of the centre, in [0, 1].
        teacher_views: Number of views that the teacher sees.
        skip_same_view: Leave out pairs in which both see the same view.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over images.

    Raises:
        ValueError: if an argument is out of range.
    """

    center: Tensor

    def __init__(
        self,
        num_prototypes: int,
        *,
        student_temperature: float = 0.1,
        teacher_temperature: float | Schedule = 0.04,
        center_momentum: float = 0.9,
        teacher_views: int = 2,
        skip_same_view: bool = True,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        self.teacher_temperature = as_schedule(teacher_temperature)
        constant = isinstance(teacher_temperature, (int, float))
        functional.check_dino(student_temperature, teacher_temperature if constant else 1.0, teacher_views)  # type: ignore[arg-type]
        check_between(center_momentum, "center_momentum", 0.0, 1.0)
        check_reduction(reduction)
        self.student_temperature = student_temperature
        self.center_momentum = center_momentum
        self.teacher_views = teacher_views
        self.skip_same_view = skip_same_view
        self.reduction = reduction
        self._progress = Progress()
        self.register_buffer("center", torch.zeros(num_prototypes))

    def set_progress(self, progress: Progress) -> None:
        """Tell a scheduled teacher temperature where the run stands."""
        self._progress = progress

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Compute the loss, then move the centre; shapes as in the function."""
        loss = functional.dino_loss(
            student_logits,
            teacher_logits,
            center=self.center,
            student_temperature=self.student_temperature,
            teacher_temperature=self.teacher_temperature(self._progress),
            teacher_views=self.teacher_views,
            skip_same_view=self.skip_same_view,
            reduction=self.reduction,
        )
        if self.training:
            # in place: data parallelism keeps hold of the buffer; no gradient needs the old centre
            center = functional.moving_center(self.center, teacher_logits, momentum=self.center_momentum)
            self.center.copy_(center)
        return loss

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return (
            f"num_prototypes={len(self.center)}, student_temperature={self.student_temperature}, "
            f"teacher_temperature={self.teacher_temperature}, center_momentum={self.center_momentum}, "
            f"teacher_views={self.teacher_views}, skip_same_view={self.skip_same_view}, reduction={self.reduction!r}"
        )


class ContrastiveRepresentationLoss(nn.Module):
    """CRD: owns the embeddings of both sides, the two memories, their normalisers and the count of draws.

    The loss is :func:`limbeck_core.functional.contrastive_representation_loss`. While the module trains, each call
    scores the batch against the memories as they are and then moves the rows that were seen; the normalisers are
    estimated on the first batch and kept. Rows, labels and normalisers come from the samples of all ranks, and
    negatives are a function of the seed, the number of the call and the sample, so that several ranks remember what
    one process would. Equal on all ranks, the memories need no broadcast: set ``broadcast_buffers=False`` in data
    parallelism.

    Gradients reach the embedding on the teacher's side, which is trained like the student's; the teacher itself gets
    none. In evaluation mode nothing is remembered, and the negatives are those of the next draw.

    Memory: two arrays of ``num_samples * embedding_dim`` numbers, 1.2 GiB for ImageNet and 128 dimensions.

    Args:
        student_dim: Numbers per sample of the student's features, once flattened.
        teacher_dim: The teacher's.
        num_samples: Size of the data set; ``ids`` lie below it.
        embedding_dim: Width of both embeddings.
        num_negatives: Negatives per sample and direction, drawn with replacement.
        temperature: Softness of the products, above 0.
        momentum: Share of a memory's row that stays when its sample is seen, in [0, 1].
        negatives: ``"exact"`` draws from the other classes, ``"relax"`` from all other samples.
        labels: Class of each sample of the data set, integers ``(num_samples,)``, for ``"exact"``. Without it classes
            are learned from ``target`` as batches come; a sample not seen yet, whose row is random, may be drawn.
        seed: Seed of the negatives.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if an argument is out of range.
        ShapeError: if ``labels`` does not have one entry per sample.
    """

    student_memory: Tensor
    teacher_memory: Tensor
    student_normalizer: Tensor
    teacher_normalizer: Tensor
    labels: Tensor
    draws: Tensor

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        num_samples: int,
        *,
        embedding_dim: int = 128,
        num_negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        negatives: Negatives = "exact",
        labels: Tensor | None = None,
        seed: int = 0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        for name, size, least in (
            ("student_dim", student_dim, 1),
            ("teacher_dim", teacher_dim, 1),
            ("num_samples", num_samples, 2),
            ("embedding_dim", embedding_dim, 1),
            ("num_negatives", num_negatives, 1),
        ):
            if size < least:
                raise ValueError(f"{name} must be {least} or more, got {size!r}")
        check_positive(temperature, "temperature")
        check_between(momentum, "momentum", 0.0, 1.0)
        if negatives not in get_args(Negatives):
            raise ValueError(f"negatives must be 'exact' or 'relax', got {negatives!r}")
        check_reduction(reduction)
        self.num_samples = num_samples
        self.num_negatives = num_negatives
        self.temperature = temperature
        self.momentum = momentum
        self.negatives = negatives
        self.seed = seed
        self.reduction = reduction
        self.student_embedding = nn.Linear(student_dim, embedding_dim)
        self.teacher_embedding = nn.Linear(teacher_dim, embedding_dim)
        bound = math.sqrt(3 / embedding_dim)  # variance 1 / embedding_dim: rows of length 1 on average
        for side in ("student", "teacher"):
            self.register_buffer(f"{side}_memory", torch.empty(num_samples, embedding_dim).uniform_(-bound, bound))
            self.register_buffer(f"{side}_normalizer", torch.zeros(()))
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))
        self._knows_labels = labels is not None
        if negatives == "exact":
            known = torch.full((num_samples,), -1) if labels is None else labels.detach().clone().long()
            if known.shape != (num_samples,):
                raise ShapeError(
                    f"labels must have one class per sample, shape ({num_samples},), got {tuple(known.shape)}"
                )
            self.register_buffer("labels", known)
        self._is_calibrated: bool | None = None  # not read yet

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._is_calibrated = None

    def forward(
        self, student_embeddings: Tensor, teacher_embeddings: Tensor, ids: Tensor, target: Tensor | None = None
    ) -> Tensor:
        """Score the batch, then remember it.

        Args:
            student_embeddings: Features of the student, shape ``(N, ...)``, ``student_dim`` numbers per sample.
            teacher_embeddings: Features of the teacher, shape ``(N, ...)``, ``teacher_dim`` numbers per sample.
            ids: Position of each sample in the data set, integers ``(N,)``.
            target: Class of each sample, integers ``(N,)``; needed for exact negatives unless ``labels`` was given.

        Returns:
            The loss, see the function.

        Raises:
            ShapeError: if shapes do not fit.
            TargetError: if ``ids`` lie outside the data set, or ``target`` is missing or no class index.
            NonFiniteError: if the loss is not finite (CPU), naming the embedded features that hold NaN or infinity.
        """
        with without_autocast(student_embeddings):
            student = self._embed(student_embeddings, "student")
            teacher = self._embed(teacher_embeddings.detach(), "teacher")
        self._check_ids(ids, len(student))
        if len(student) != len(teacher):
            raise ShapeError(
                "student_embeddings and teacher_embeddings must hold the same samples on axis 0, got "
                f"{tuple(student_embeddings.shape)} and {tuple(teacher_embeddings.shape)}: feed both models one batch"
            )
        everyone = gather(ids)
        if self.negatives == "exact" and not self._knows_labels:
            self._learn(everyone, target, ids)
        indices = functional.contrast_negatives(
            ids,
            self.num_samples,
            self.num_negatives,
            draw=self.draws,
            seed=self.seed,
            labels=self.labels if self.negatives == "exact" else None,
        )
        student_normalizer, teacher_normalizer = self._normalizers(student, teacher, indices)
        loss = functional.contrastive_representation_loss(
            student,
            teacher,
            self.student_memory,
            self.teacher_memory,
            indices,
            student_normalizer=student_normalizer,
            teacher_normalizer=teacher_normalizer,
            temperature=self.temperature,
            reduction=self.reduction,
        )
        if self.training:
            self._remember(everyone, student, teacher)
        return loss

    def _embed(self, features: Tensor, side: str) -> Tensor:
        layer: nn.Linear = self.get_submodule(f"{side}_embedding")  # type: ignore[assignment]
        check_ndim(features, f"{side}_embeddings", "(N, D) or (N, ...)", at_least=2)
        flat = features.flatten(1)
        if flat.shape[1] != layer.in_features:
            raise ShapeError(
                f"{side}_embeddings must hold {side}_dim={layer.in_features} numbers per sample, got "
                f"{flat.shape[1]} (shape {tuple(features.shape)}): tap a pooled vector, or set {side}_dim"
            )
        return linear(flat.to(layer.weight.dtype), layer.weight, layer.bias)

    def _check_ids(self, ids: Tensor, count: int) -> None:
        if ids.shape != (count,):
            raise ShapeError(f"ids must have one entry per sample, shape ({count},), got {tuple(ids.shape)}")
        functional.check_rows(ids, self.num_samples, "ids")

    def _learn(self, everyone: Tensor, target: Tensor | None, ids: Tensor) -> None:
        """Note the classes of the batch, of all ranks."""
        if target is None:
            raise TargetError(
                "exact negatives come from other classes and need target, class indices of shape (N,), or labels of "
                "the whole data set at construction: give one, or set negatives='relax'"
            )
        if target.shape != ids.shape or target.is_floating_point() or target.dtype == torch.bool:
            raise TargetError(
                f"target must hold integer class indices of shape {tuple(ids.shape)}, got {target.dtype} of shape "
                f"{tuple(target.shape)}: mixed-up labels have no one class; set negatives='relax' for them"
            )
        self.labels[everyone] = gather(target.long())

    @torch.no_grad()
    def _normalizers(self, student: Tensor, teacher: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The constants, estimated on the first batch that is trained on."""
        if self._is_calibrated is None:
            self._is_calibrated = float(self.student_normalizer) > 0
        if self._is_calibrated:
            return self.student_normalizer, self.teacher_normalizer
        estimates = [
            functional.contrast_normalizer(
                functional.contrast_logits(vectors, memory, indices, temperature=self.temperature, name=name),
                num_samples=self.num_samples,
            )
            for vectors, memory, name in (
                (student, self.teacher_memory, "student_embeddings"),
                (teacher, self.student_memory, "teacher_embeddings"),
            )
        ]
        if self.training:
            self.student_normalizer.copy_(estimates[0])
            self.teacher_normalizer.copy_(estimates[1])
            self._is_calibrated = None
        return estimates[0], estimates[1]

    @torch.no_grad()
    def _remember(self, everyone: Tensor, student: Tensor, teacher: Tensor) -> None:
        for memory, vectors in ((self.student_memory, student), (self.teacher_memory, teacher)):
            rows = functional.moving_memory(memory, everyone, gather(vectors.detach()), momentum=self.momentum)
            memory.index_copy_(0, everyone, rows)
        self.draws += 1

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return (
            f"num_samples={self.num_samples}, num_negatives={self.num_negatives}, temperature={self.temperature}, "
            f"momentum={self.momentum}, negatives={self.negatives!r}, seed={self.seed}, reduction={self.reduction!r}"
        )
