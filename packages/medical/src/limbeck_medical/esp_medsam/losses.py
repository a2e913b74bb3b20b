"""What the medical teacher and the assembled model learn from masks: the mask itself, and which patches it touches."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, max_pool2d

from limbeck_core.checks import check_between, check_finite, check_non_negative, check_positive, check_same_shape
from limbeck_core.errors import ShapeError, TargetError
from limbeck_core.functional.precision import at_least_float32


def batch_mask_loss(
    logits: Tensor,
    target: Tensor,
    *,
    dice_share: float = 0.8,
    focal_alpha: float = 0.8,
    focal_gamma: float = 2.0,
    smooth: float = 1.0,
) -> Tensor:
    r"""Dice over the whole batch, and a focal term of the batch's mean cross-entropy.

    .. math:: L = s \Big(1 - \frac{2 \sum p y + \epsilon}{\sum p + \sum y + \epsilon}\Big) + (1 - s) \, F, \qquad
              F = \alpha (1 - e^{-b})^\gamma \, b

    with :math:`p = \sigma(z)` and :math:`b` the mean binary cross-entropy. The focal factor is one number for the
    batch, not one a pixel. All sums are over the batch, so a rank's loss is that of its own share.

    Args:
        logits: Raw scores of the foreground, any shape.
        target: 0 or 1, same shape.
        dice_share: Share :math:`s` of Dice.
        focal_alpha: :math:`\alpha`.
        focal_gamma: :math:`\gamma`.
        smooth: :math:`\epsilon` in pixels; with it the Dice of two empty masks is 1.

    Returns:
        A scalar; 0 for an empty batch.

    Raises:
        ShapeError: if shapes differ.
        NonFiniteError: if the loss is not finite (CPU).

    Reference:
        The loss that the released scripts of ESP-MedSAM (arXiv:2407.14153) call by name is missing there; this is the
        one of the same name and argument in UN-SAM, by authors of both.
    """
    check_same_shape(logits, target, "logits", "target")
    scores, truth = at_least_float32(logits), at_least_float32(target.to(logits.dtype))
    if not scores.numel():
        return scores.sum()
    probabilities = scores.sigmoid()
    overlap = 2 * (probabilities * truth).sum() + smooth
    dice = 1 - overlap / (probabilities.sum() + truth.sum() + smooth)
    entropy = binary_cross_entropy_with_logits(scores, truth)
    focal = focal_alpha * (1 - (-entropy).exp()) ** focal_gamma * entropy
    loss = dice_share * dice + (1 - dice_share) * focal
    check_finite(loss, logits=logits)
    return loss


def patch_target(target: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return which patches hold any foreground, ``(N, 1, *grid)``, of masks ``(N, 1, H, W)`` of 0 and 1.

    Args:
        target: The masks.
        grid: Rows and columns of patches. Paper: patches of 32 pixels.

    Raises:
        ShapeError: if the masks do not divide into the grid.
    """
    height, width = target.shape[-2:]
    if target.ndim != 4 or height % grid[0] or width % grid[1]:
        raise ShapeError(f"masks must be (N, 1, H, W) that divide into {grid} patches, got {tuple(target.shape)}")
    size = (height // grid[0], width // grid[1])
    if not len(target):
        return target.new_zeros((0, target.shape[1], *grid), dtype=torch.float32)
    return max_pool2d(target.float(), size, stride=size)


class SelfPromptingLoss(nn.Module):
    """Loss of :class:`~limbeck_medical.esp_medsam.model.ESPMedSAM`'s output: its masks, and its patches.

    The mask counts by :func:`batch_mask_loss`, the patches by binary cross-entropy.

    Args:
        patch_weight: Weight of the patches' term. Not known for ESP-MedSAM; UN-SAM's coarse term has 0.5.
        dice_share: See :func:`batch_mask_loss`.
        focal_alpha: See there.
        focal_gamma: See there.
        smooth: See there.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        *,
        patch_weight: float = 0.5,
        dice_share: float = 0.8,
        focal_alpha: float = 0.8,
        focal_gamma: float = 2.0,
        smooth: float = 1.0,
    ) -> None:
        super().__init__()
        check_non_negative(patch_weight, "patch_weight")
        check_between(dice_share, "dice_share", 0.0, 1.0)
        check_non_negative(focal_alpha, "focal_alpha")
        check_non_negative(focal_gamma, "focal_gamma")
        check_positive(smooth, "smooth")
        self.patch_weight = patch_weight
        self.dice_share = dice_share
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.smooth = smooth

    def forward(self, outputs: Mapping[str, Tensor], target: Tensor) -> Tensor:
        """Return a scalar.

        Args:
            outputs: ``masks`` ``(N, 1, H, W)`` and ``patches`` ``(N, 1, rows, columns)``, raw scores.
            target: Masks of 0 and 1, ``(N, 1, H, W)``.

        Raises:
            ShapeError: if shapes do not fit.
            TargetError: if the masks hold other values.
        """
        if target.numel() and (int(target.min()) < 0 or int(target.max()) > 1):
            raise TargetError(
                f"masks must be 0 (background) and 1, got values from {int(target.min())} to {int(target.max())}: name "
                "the values of the files with label_values=(0, 255) in the preprocessing"
            )
        mask = batch_mask_loss(
            outputs["masks"],
            target,
            dice_share=self.dice_share,
            focal_alpha=self.focal_alpha,
            focal_gamma=self.focal_gamma,
            smooth=self.smooth,
        )
        patches = at_least_float32(outputs["patches"])
        wanted = patch_target(target, (patches.shape[2], patches.shape[3])).to(patches.dtype)
        coarse = binary_cross_entropy_with_logits(patches, wanted) if patches.numel() else patches.sum()
        return mask + self.patch_weight * coarse
