"""Losses of hand key points and masks, and how far two teachers are to be believed.

Ohkawa et al., Domain Adaptive Hand Keypoint and Pixel Localization in the Wild, arXiv:2203.08344, and its released
code; what neither gives is said at each function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, huber_loss

from limbeck_core.checks import check_finite, check_non_negative, check_positive, check_same_shape
from limbeck_core.errors import ShapeError
from limbeck_core.functional.precision import at_least_float32
from limbeck_core.functional.reduction import Reduction, check_reduction, reduce_loss

Branch = Literal["keypoints", "mask"]
BRANCHES: tuple[Branch, ...] = ("keypoints", "mask")
HEATMAP_WEIGHT, MASK_WEIGHT = 1e7, 100.0
KNEE = 0.01  # where the squared error becomes linear
_MEAN_SQUARE_FACTOR = 5.0  # the released code keeps this constant beside its squared error


def hand_task_loss(
    heatmaps: Tensor,
    mask_logits: Tensor,
    target_heatmaps: Tensor,
    valid: Tensor,
    target_mask: Tensor,
    *,
    heatmap_weight: float = HEATMAP_WEIGHT,
    mask_weight: float = MASK_WEIGHT,
    knee: float = KNEE,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Smooth L1 error of heatmaps and cross-entropy of a mask.

    .. math:: L_n = 10^7 \, SL_1(h_n, \hat h_n) + 100 \, BCE(m_n, \hat m_n), \quad
       SL_1 = \begin{cases} z^2 / 2 & |z| < \kappa \\ \kappa (|z| - \kappa / 2) & \text{else} \end{cases}

    Means run over cells of valid key points and over pixels. The large factor undoes them. The released code's knee of
    0.01 makes it almost an absolute error, which an empty heatmap answers well for long: a small network and a short
    run learn better from a squared error, a knee of 1.

    Args:
        heatmaps: Predicted, ``(N, K, h, w)``.
        mask_logits: Predicted logits, ``(N, 1, H, W)``.
        target_heatmaps: True or pseudo heatmaps, the shape of ``heatmaps``. Gradients never flow into targets.
        valid: 1 for key points that count, ``(N, K)``.
        target_mask: True mask or probabilities from 0 to 1, the shape of ``mask_logits``.
        heatmap_weight: Factor of the first term; 0 leaves it out.
        mask_weight: Factor of the second; 0 leaves it out, with its gradient.
        knee: Error :math:`\kappa > 0` from which the first is linear.
        reduction: ``"none"`` gives ``(N,)``; ``"mean"`` and ``"sum"`` reduce over samples.

    Returns:
        The loss; zero with a gradient path for an empty batch.

    Raises:
        ShapeError: if shapes do not fit.
        ValueError: if a weight is negative, ``knee`` is not above 0, or ``reduction`` is unknown.
        NonFiniteError: if predictions hold NaN or infinity (CPU).

    Reference:
        The released code of the paper (supervised stage).
    """
    check_non_negative(heatmap_weight, "heatmap_weight")
    check_non_negative(mask_weight, "mask_weight")
    check_positive(knee, "knee")
    check_reduction(reduction)
    check_same_shape(heatmaps, target_heatmaps, "heatmaps", "target_heatmaps", "model and codec need one stride")
    check_same_shape(mask_logits, target_mask, "mask_logits", "target_mask")
    if valid.shape != heatmaps.shape[:2]:
        raise ShapeError(
            f"valid must have one value a key point, {tuple(heatmaps.shape[:2])}, got {tuple(valid.shape)}"
        )
    heatmaps, mask_logits = at_least_float32(heatmaps), at_least_float32(mask_logits)
    terms = []
    if heatmap_weight > 0:
        errors = huber_loss(heatmaps, target_heatmaps.detach().to(heatmaps), reduction="none", delta=knee)
        counted = valid.to(heatmaps)
        means = (errors.mean((2, 3)) * counted).sum(1) / counted.sum(1).clamp(min=1)
        terms.append(heatmap_weight * means)
    if mask_weight > 0:
        entropies = binary_cross_entropy_with_logits(
            mask_logits, target_mask.detach().to(mask_logits), reduction="none"
        )
        terms.append(mask_weight * entropies.mean((1, 2, 3)))
    if not terms:
        terms.append(0.0 * heatmaps.sum((1, 2, 3)))
    loss = reduce_loss(torch.stack(terms).sum(0), reduction)
    check_finite(loss, heatmaps=heatmaps, mask_logits=mask_logits)
    return loss


class HandTaskLoss(nn.Module):
    """Module twin of :func:`hand_task_loss`, as a task loss on a network's pair of outputs.

    Args:
        heatmap_weight: Factor of the heatmaps' error.
        mask_weight: Factor of the mask's cross-entropy.
        knee: Error from which that of the heatmaps is linear.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if a weight is negative, ``knee`` is not above 0, or ``reduction`` is unknown.
    """

    def __init__(
        self,
        *,
        heatmap_weight: float = HEATMAP_WEIGHT,
        mask_weight: float = MASK_WEIGHT,
        knee: float = KNEE,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_non_negative(heatmap_weight, "heatmap_weight")
        check_non_negative(mask_weight, "mask_weight")
        check_positive(knee, "knee")
        check_reduction(reduction)
        self.heatmap_weight, self.mask_weight, self.knee = heatmap_weight, mask_weight, knee
        self.reduction = reduction

    def forward(self, output: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Compute the loss.

        Args:
            output: Heatmaps and logits of the mask.
            targets: Heatmaps, which key points are valid, and the mask.

        Raises:
            ShapeError: if there are not two outputs and three targets, or a shape does not fit.
        """
        if len(output) != 2 or len(targets) != 3:
            raise ShapeError(
                "expected outputs (heatmaps, mask) and targets (heatmaps, valid, mask), got "
                f"{len(output)} and {len(targets)} tensors"
            )
        return hand_task_loss(
            *output,
            *targets,
            heatmap_weight=self.heatmap_weight,
            mask_weight=self.mask_weight,
            knee=self.knee,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return (
            f"heatmap_weight={self.heatmap_weight}, mask_weight={self.mask_weight}, knee={self.knee}, "
            f"reduction={self.reduction!r}"
        )


@torch.no_grad()
def divergence(
    first_points: Tensor, second_points: Tensor, first_mask: Tensor, second_mask: Tensor, *, size: tuple[int, int]
) -> Tensor:
    r"""How far two teachers' predictions of each image are apart, key points and masks together.

    .. math:: d = 5 \, \big( MSE(u_1, u_2) + MSE(m_1, m_2) \big)

    with key points :math:`u` from -1 to 1 over the crop and probabilities :math:`m`. The paper's own measure is not in
    its released code, which keeps a squared error and the constant 5; joining both outputs so is a choice made here.

    Args:
        first_points: Key points of the first teacher in pixels, ``(N, K, 2)``.
        second_points: Those of the second.
        first_mask: Probabilities of the first teacher, ``(N, 1, H, W)``.
        second_mask: Those of the second.
        size: Height and width of the crop.

    Returns:
        One number an image, ``(N,)``; 0 where the teachers agree. No gradient.

    Raises:
        ShapeError: if shapes differ.
    """
    check_same_shape(first_points, second_points, "first_points", "second_points")
    check_same_shape(first_mask, second_mask, "first_mask", "second_mask")
    half = first_points.new_tensor([size[1] / 2, size[0] / 2])
    points = ((first_points - second_points) / half).square().mean((1, 2))
    return _MEAN_SQUARE_FACTOR * (points + (first_mask - second_mask).square().mean((1, 2, 3)))


@torch.no_grad()
def confidence(divergence: Tensor, *, sharpness: float | Tensor) -> Tensor:
    r"""Weight of a target image, by how far its teachers are apart.

    .. math:: w = 2 \, (1 - \sigma(\lambda d)) \in (0, 1]

    Args:
        divergence: :math:`d \ge 0` of each image, ``(N,)``.
        sharpness: :math:`\lambda \ge 0`.

    Returns:
        ``(N,)``; exactly 1 where the teachers agree. No gradient.

    Reference:
        The released code of the paper.
    """
    return 2 * torch.sigmoid(-sharpness * divergence)
