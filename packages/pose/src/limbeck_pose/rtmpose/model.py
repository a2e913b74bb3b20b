"""RTMPose models in five sizes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck_pose.rtmpose.cspnext import CSPNeXt
from limbeck_pose.rtmpose.head import SimCCHead

WHOLE_BODY = 133
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of RGB values from 0 to 255


class RTMPose(nn.Module):
    """A backbone and a head that scores positions along x and y.

    Taps of interest: ``backbone`` (the last map), ``head.cls_x`` and ``head.cls_y`` (the scores).

    Args:
        width: Factor on the backbone's channels.
        depth: Factor on the backbone's blocks.
        keypoints: Number of key points K.
        input_size: Height and width of a person's crop in pixels, each divisible by 32.
        bins_per_pixel: Positions a pixel.

    Raises:
        ValueError: if a factor is not above 0.
        ShapeError: if ``input_size`` is not divisible by 32.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        width: float,
        depth: float,
        keypoints: int = WHOLE_BODY,
        input_size: tuple[int, int] = (256, 192),
        bins_per_pixel: float = 2.0,
    ) -> None:
        super().__init__()
        self.input_size = tuple(input_size)
        self.backbone = CSPNeXt(width=width, depth=depth)
        self.head = SimCCHead(
            self.backbone.out_channels, keypoints=keypoints, input_size=input_size, bins_per_pixel=bins_per_pixel
        )
        # not in the state dict: mmpose keeps them in its preprocessor, and its checkpoints must load unchanged
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores along x and y, ``(N, K, bins)`` each.

        Args:
            images: Crops of people in RGB with values from 0 to 255, ``(N, 3, H, W)``, bytes or floats. The model
                normalises them itself, so teacher and student may differ in that.

        Raises:
            ShapeError: if the crops have another size than the model was built for.
        """
        scores: tuple[Tensor, Tensor] = self.head(self.backbone((images.to(self.mean.dtype) - self.mean) / self.std))
        return scores


def rtmpose_t(*, keypoints: int = WHOLE_BODY, input_size: tuple[int, int] = (256, 192)) -> RTMPose:
    """RTMPose-t: 5.52 million parameters with 133 key points at 256 by 192."""
    return RTMPose(width=0.375, depth=0.167, keypoints=keypoints, input_size=input_size)


def rtmpose_s(*, keypoints: int = WHOLE_BODY, input_size: tuple[int, int] = (256, 192)) -> RTMPose:
    """RTMPose-s: 8.38 million parameters with 133 key points at 256 by 192."""
    return RTMPose(width=0.5, depth=0.33, keypoints=keypoints, input_size=input_size)


def rtmpose_m(*, keypoints: int = WHOLE_BODY, input_size: tuple[int, int] = (256, 192)) -> RTMPose:
    """RTMPose-m: 17.95 million parameters with 133 key points at 256 by 192."""
    return RTMPose(width=0.75, depth=0.67, keypoints=keypoints, input_size=input_size)


def rtmpose_l(*, keypoints: int = WHOLE_BODY, input_size: tuple[int, int] = (256, 192)) -> RTMPose:
    """RTMPose-l: 33.48 million parameters with 133 key points at 256 by 192; 33.61 million at 384 by 288."""
    return RTMPose(width=1.0, depth=1.0, keypoints=keypoints, input_size=input_size)


def rtmpose_x(*, keypoints: int = WHOLE_BODY, input_size: tuple[int, int] = (256, 192)) -> RTMPose:
    """RTMPose-x: 56.58 million parameters with 133 key points at 256 by 192."""
    return RTMPose(width=1.25, depth=1.33, keypoints=keypoints, input_size=input_size)
