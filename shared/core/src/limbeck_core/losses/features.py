"""Module twins of :mod:`limbeck_core.functional.features`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from limbeck_core.checks import check_non_negative, check_positive
from limbeck_core.errors import ShapeError
from limbeck_core.functional import features as functional
from limbeck_core.functional.features import Masking
from limbeck_core.functional.reduction import Reduction, check_reduction


class HintLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.hint_loss` (FitNet).

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over positions.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.hint_loss(student_features, teacher_features, mask=mask, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"


class SquaredDistanceLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.squared_distance_loss`.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.squared_distance_loss(student_features, teacher_features, mask=mask, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"


class AttentionTransferLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.attention_transfer_loss` (AT).

    Args:
        power: Exponent of the activations, at least 1.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, power: float = 2.0, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        functional.check_power(power)
        check_reduction(reduction)
        self.power = power
        self.reduction = reduction

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.attention_transfer_loss(
            student_features, teacher_features, power=self.power, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"power={self.power}, reduction={self.reduction!r}"


class NeuronSelectivityLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.neuron_selectivity_loss` (NST).

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.neuron_selectivity_loss(student_features, teacher_features, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"


class FactorTransferLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.factor_transfer_loss` (FT).

    Args:
        power: Exponent before the channel mean, or ``None`` for whole factors.
        order: Exponent of the difference, at least 1.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, power: int | None = 2, order: float = 1.0, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        functional.check_factor_power(power)
        functional.check_power(order, "order")
        check_reduction(reduction)
        self.power = power
        self.order = order
        self.reduction = reduction

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.factor_transfer_loss(
            student_features, teacher_features, power=self.power, order=self.order, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"power={self.power}, order={self.order}, reduction={self.reduction!r}"


class FSPLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.fsp_loss` (flow of the solution procedure).

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.fsp_loss(student_features, teacher_features, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"


class ActivationBoundaryLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.activation_boundary_loss` (AB).

    Args:
        margin: Distance from zero beyond which a response costs nothing, above 0.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, margin: float = 1.0, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_positive(margin, "margin")
        check_reduction(reduction)
        self.margin = margin
        self.reduction = reduction

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.activation_boundary_loss(
            student_features, teacher_features, margin=self.margin, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"margin={self.margin}, reduction={self.reduction!r}"


class VariationalInformationLoss(nn.Module):
    """Variational information distillation (VID): owns the regressor and the variances, both trained.

    Calls :func:`limbeck_core.functional.variational_information_loss` on the output of three 1x1 convolutions with ReLU
    between them and no bias. Student and teacher maps are brought to the smaller spatial size before the regressor.

    Args:
        student_channels: Channels of the student's maps.
        teacher_channels: Channels of the teacher's maps.
        hidden_channels: Channels between the convolutions; ``None`` takes ``teacher_channels``.
        initial_variance: Variance of every channel before training, above ``floor``.
        floor: Smallest variance, above 0.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        *,
        hidden_channels: int | None = None,
        initial_variance: float = 5.0,
        floor: float = 1e-5,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_positive(floor, "floor")
        check_reduction(reduction)
        if not (math.isfinite(initial_variance) and initial_variance > floor):
            raise ValueError(f"initial_variance must be a finite number above floor={floor}, got {initial_variance!r}")
        hidden = teacher_channels if hidden_channels is None else hidden_channels
        self.regressor = nn.Sequential(
            nn.Conv2d(student_channels, hidden, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(hidden, teacher_channels, 1, bias=False),
        )
        excess = initial_variance - floor
        # inverse of softplus, in the form that does not overflow
        self.raw_variance = nn.Parameter(torch.full((teacher_channels,), excess + math.log(-math.expm1(-excess))))
        self.student_channels = student_channels
        self.initial_variance = initial_variance
        self.floor = floor
        self.reduction = reduction

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            student_features: Maps ``(N, student_channels, H, W)``.
            teacher_features: Maps ``(N, teacher_channels, H', W')``.

        Returns:
            Loss in nats per element; see the function.

        Raises:
            ShapeError: if the maps do not have these shapes.
        """
        for features, name in ((student_features, "student_features"), (teacher_features, "teacher_features")):
            if features.ndim != 4:
                raise ShapeError(f"{name} must have shape (N, C, H, W), got {tuple(features.shape)}")
        if student_features.shape[1] != self.student_channels:
            raise ShapeError(
                f"student_features must have {self.student_channels} channels, as student_channels says, got shape "
                f"{tuple(student_features.shape)}: set student_channels={student_features.shape[1]}"
            )
        student, teacher = functional.pool_to_smaller(student_features, teacher_features)
        return functional.variational_information_loss(
            self.regressor(student), teacher, self.raw_variance, floor=self.floor, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"initial_variance={self.initial_variance}, floor={self.floor}, reduction={self.reduction!r}"


class PooledFeatureLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.pooled_feature_loss`.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.pooled_feature_loss(student_features, teacher_features, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"


class SoftmaxRegressionLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.softmax_regression_loss` (SRRL).

    Args:
        feature_weight: Weight of the feature term, 0 or above.
        logit_weight: Weight of the logit term, 0 or above.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self, feature_weight: float = 1.0, logit_weight: float = 1.0, *, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        check_non_negative(feature_weight, "feature_weight")
        check_non_negative(logit_weight, "logit_weight")
        check_reduction(reduction)
        self.feature_weight = feature_weight
        self.logit_weight = logit_weight
        self.reduction = reduction

    def forward(self, student_features: Tensor, teacher_features: Tensor, classifier_weight: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.softmax_regression_loss(
            student_features,
            teacher_features,
            classifier_weight,
            feature_weight=self.feature_weight,
            logit_weight=self.logit_weight,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"feature_weight={self.feature_weight}, logit_weight={self.logit_weight}, reduction={self.reduction!r}"


class MaskedGenerativeLoss(nn.Module):
    """Masked generative distillation (MGD): owns the generation layers, which are trained.

    Calls :func:`limbeck_core.functional.masked_generative_loss` with two 3x3 convolutions and a ReLU between them.

    Args:
        channels: Channels of the teacher's maps; an adapter brings the student there.
        mask_ratio: Share of channels or pixels that is set to zero, in ``[0, 1)``.
        masking: ``"channel"`` or ``"pixel"``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        channels: int,
        *,
        mask_ratio: float = 0.15,
        masking: Masking = "channel",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        functional.check_mask_ratio(mask_ratio)
        functional.check_masking(masking)
        check_reduction(reduction)
        self.generation = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.channels = channels
        self.mask_ratio = mask_ratio
        self.masking: Masking = masking
        self.reduction = reduction

    def forward(
        self,
        student_features: Tensor,
        teacher_features: Tensor,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            student_features: Maps ``(N, channels, H, W)``.
            teacher_features: Same shape.
            noise: Draws that decide what is masked; as in the function.
            generator: Source of the draws; as in the function.

        Returns:
            Loss in squared feature units; see the function.

        Raises:
            ShapeError: if the maps do not have these shapes.
        """
        if student_features.ndim != 4 or student_features.shape[1] != self.channels:
            raise ShapeError(
                f"student_features must have shape (N, {self.channels}, H, W), as channels says, got "
                f"{tuple(student_features.shape)}: give the match an adapter to the teacher's channels"
            )
        return functional.masked_generative_loss(
            student_features,
            teacher_features,
            self.generation,
            mask_ratio=self.mask_ratio,
            masking=self.masking,
            noise=noise,
            generator=generator,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"mask_ratio={self.mask_ratio}, masking={self.masking!r}, reduction={self.reduction!r}"


class ChannelWiseDivergenceLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.channel_wise_divergence_loss` (CWD).

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

    def forward(self, student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.channel_wise_divergence_loss(
            student_features, teacher_features, temperature=self.temperature, mask=mask, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"temperature={self.temperature}, reduction={self.reduction!r}"


class PearsonFeatureLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.pearson_feature_loss` (PKD).

    Args:
        epsilon: Added to the standard deviation of a channel, above 0.

    Raises:
        ValueError: if ``epsilon <= 0``.
    """

    relational = True  # channels are normalised over the batch

    def __init__(self, *, epsilon: float = 1e-6) -> None:
        super().__init__()
        check_positive(epsilon, "epsilon")
        self.epsilon = epsilon

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.pearson_feature_loss(student_features, teacher_features, epsilon=self.epsilon)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"epsilon={self.epsilon}"


class HierarchicalContextLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.hierarchical_context_loss` (ReviewKD's HCL).

    Args:
        levels: Pyramid sizes, largest first.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, levels: Sequence[int] = (4, 2, 1), *, reduction: Reduction = "mean") -> None:
        super().__init__()
        functional.check_levels(levels)
        check_reduction(reduction)
        self.levels = tuple(levels)
        self.reduction = reduction

    def forward(self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.hierarchical_context_loss(
            student_features, teacher_features, levels=self.levels, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"levels={self.levels}, reduction={self.reduction!r}"


class PartialL2Loss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.partial_l2_loss`.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_features: Tensor, teacher_features: Tensor, margin: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.partial_l2_loss(student_features, teacher_features, margin, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"


class FeatureOverhaulLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.feature_overhaul_loss` (OFD).

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_features: Tensor, teacher_features: Tensor, bn_weight: Tensor, bn_bias: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.feature_overhaul_loss(
            student_features, teacher_features, bn_weight, bn_bias, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"


class HiddenStateMSELoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.hidden_state_mse_loss`.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over tokens.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.hidden_state_mse_loss(student_features, teacher_features, mask=mask, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"


class HiddenStateCosineLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.hidden_state_cosine_loss` (DistilBERT).

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over tokens.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.hidden_state_cosine_loss(
            student_features, teacher_features, mask=mask, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"


class FirstTokenLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.first_token_loss` (BERT-PKD).

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.first_token_loss(student_features, teacher_features, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"
