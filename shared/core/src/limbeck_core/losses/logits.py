"""Module twins of :mod:`limbeck_core.functional.logits`."""

from __future__ import annotations

from torch import Tensor, nn

from limbeck_core.checks import check_ndim, check_non_negative, check_positive
from limbeck_core.errors import ShapeError
from limbeck_core.functional import logits as functional
from limbeck_core.functional.reduction import Reduction, check_reduction


class KLDivergenceLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.kl_divergence_loss`.

    Args:
        temperature: Softness of both distributions, above 0.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, temperature: float = 1.0, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_positive(temperature, "temperature")
        check_reduction(reduction)
        self.temperature = temperature
        self.reduction = reduction

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.kl_divergence_loss(
            student_logits, teacher_logits, temperature=self.temperature, mask=mask, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"temperature={self.temperature}, reduction={self.reduction!r}"


class SoftTargetCrossEntropyLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.soft_target_cross_entropy_loss`.

    Args:
        temperature: Softness of the student's distribution, above 0.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, temperature: float = 1.0, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_positive(temperature, "temperature")
        check_reduction(reduction)
        self.temperature = temperature
        self.reduction = reduction

    def forward(self, student_logits: Tensor, teacher_probabilities: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.soft_target_cross_entropy_loss(
            student_logits, teacher_probabilities, temperature=self.temperature, mask=mask, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"temperature={self.temperature}, reduction={self.reduction!r}"


class DecoupledKDLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.decoupled_kd_loss` (DKD).

    Args:
        temperature: Softness of both distributions, above 0.
        target_weight: Weight of the target part, zero or above. Paper: ``alpha``.
        non_target_weight: Weight of the non-target part, zero or above. Paper: ``beta``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        temperature: float = 4.0,
        *,
        target_weight: float = 1.0,
        non_target_weight: float = 8.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_positive(temperature, "temperature")
        check_non_negative(target_weight, "target_weight")
        check_non_negative(non_target_weight, "non_target_weight")
        check_reduction(reduction)
        self.temperature = temperature
        self.target_weight = target_weight
        self.non_target_weight = non_target_weight
        self.reduction = reduction

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.decoupled_kd_loss(
            student_logits,
            teacher_logits,
            target,
            temperature=self.temperature,
            target_weight=self.target_weight,
            non_target_weight=self.non_target_weight,
            mask=mask,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return (
            f"temperature={self.temperature}, target_weight={self.target_weight}, "
            f"non_target_weight={self.non_target_weight}, reduction={self.reduction!r}"
        )


class NormalizedKDLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.normalized_kd_loss` (NKD).

    Args:
        temperature: Softness of the non-target distributions, above 0. Paper: ``lambda``.
        non_target_weight: Weight of the non-target part, zero or above. Paper: ``gamma``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self, temperature: float = 1.0, *, non_target_weight: float = 1.5, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        check_positive(temperature, "temperature")
        check_non_negative(non_target_weight, "non_target_weight")
        check_reduction(reduction)
        self.temperature = temperature
        self.non_target_weight = non_target_weight
        self.reduction = reduction

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.normalized_kd_loss(
            student_logits,
            teacher_logits,
            target,
            temperature=self.temperature,
            non_target_weight=self.non_target_weight,
            mask=mask,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return (
            f"temperature={self.temperature}, non_target_weight={self.non_target_weight}, reduction={self.reduction!r}"
        )


class CustomizedSoftLabelLoss(nn.Module):
    """USKD: :func:`limbeck_core.functional.customized_soft_label_loss` with its weak head.

    The weak head is a linear layer on the pooled features of a middle stage. It learns with the student and is not
    needed at inference. As a match it reads the student twice: ``Match(loss, "fc", Tap("layer3", of="student"))``.

    Args:
        feature_channels: Width D of the features, for example 256 for the third stage of ResNet-18.
        num_classes: Number of classes C.
        target_weight: Weight of the target part, zero or above. Paper: ``alpha``.
        non_target_weight: Weight of the non-target part, zero or above. Paper: ``beta``.
        weak_weight: Weight of the weak head's own loss, zero or above. Paper: ``mu``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if an argument is out of range.
    """

    relational = True  # soft labels are relative to the mean of the batch

    def __init__(
        self,
        feature_channels: int,
        num_classes: int,
        *,
        target_weight: float = 1.0,
        non_target_weight: float = 0.1,
        weak_weight: float = 0.005,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_positive(feature_channels, "feature_channels")
        check_positive(num_classes, "num_classes")
        check_non_negative(target_weight, "target_weight")
        check_non_negative(non_target_weight, "non_target_weight")
        check_non_negative(weak_weight, "weak_weight")
        check_reduction(reduction)
        self.weak_head = nn.Linear(feature_channels, num_classes)
        self.target_weight = target_weight
        self.non_target_weight = non_target_weight
        self.weak_weight = weak_weight
        self.reduction = reduction

    def forward(self, student_logits: Tensor, student_features: Tensor, target: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            student_logits: Raw scores, shape ``(N, C)``.
            student_features: Maps ``(N, D, ...)``, averaged over their trailing axes here, or embeddings ``(N, D)``.
                Not detached: the weak head's loss reaches the layers below.
            target: Class indices ``(N,)``, or soft labels ``(N, C)``.

        Raises:
            ShapeError: if the features are not of the width given at construction, or as in the function.
        """
        check_ndim(student_features, "student_features", "(N, D) or (N, D, ...)", at_least=2)
        if student_features.shape[1] != self.weak_head.in_features:
            raise ShapeError(
                f"student_features must have feature_channels={self.weak_head.in_features} channels on axis 1, got "
                f"shape {tuple(student_features.shape)}: tap the stage before the last, or its class token"
            )
        pooled = student_features if student_features.ndim == 2 else student_features.flatten(2).mean(2)
        return functional.customized_soft_label_loss(
            student_logits,
            self.weak_head(pooled.to(self.weak_head.weight.dtype)),
            target,
            target_weight=self.target_weight,
            non_target_weight=self.non_target_weight,
            weak_weight=self.weak_weight,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return (
            f"target_weight={self.target_weight}, non_target_weight={self.non_target_weight}, "
            f"weak_weight={self.weak_weight}, reduction={self.reduction!r}"
        )


class WeightedSoftLabelLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.weighted_soft_label_loss` (WSLD).

    Args:
        temperature: Softness of both distributions, above 0.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, temperature: float = 2.0, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_positive(temperature, "temperature")
        check_reduction(reduction)
        self.temperature = temperature
        self.reduction = reduction

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.weighted_soft_label_loss(
            student_logits,
            teacher_logits,
            target,
            temperature=self.temperature,
            mask=mask,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"temperature={self.temperature}, reduction={self.reduction!r}"


class DISTLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.dist_loss`.

    Args:
        temperature: Softness of both distributions, above 0.
        inter_weight: Weight of the correlation over classes, zero or above. Paper: ``beta``.
        intra_weight: Weight of the correlation over samples, zero or above. Paper: ``gamma``.

    Raises:
        ValueError: if an argument is out of range.
    """

    relational = True  # correlates each class over the samples of the batch

    def __init__(self, temperature: float = 1.0, *, inter_weight: float = 1.0, intra_weight: float = 1.0) -> None:
        super().__init__()
        check_positive(temperature, "temperature")
        check_non_negative(inter_weight, "inter_weight")
        check_non_negative(intra_weight, "intra_weight")
        self.temperature = temperature
        self.inter_weight = inter_weight
        self.intra_weight = intra_weight

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.dist_loss(
            student_logits,
            teacher_logits,
            temperature=self.temperature,
            inter_weight=self.inter_weight,
            intra_weight=self.intra_weight,
            mask=mask,
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"temperature={self.temperature}, inter_weight={self.inter_weight}, intra_weight={self.intra_weight}"
