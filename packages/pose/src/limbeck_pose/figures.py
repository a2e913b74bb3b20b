"""Models for drawn figures: five convolutions under a SimCC or a heatmap head, trained on a CPU in a minute."""

from __future__ import annotations

from torch import Tensor, nn

from limbeck_core.errors import ShapeError
from limbeck_pose.heatmap import HeatmapHead
from limbeck_pose.rendered import COUNT
from limbeck_pose.rtmpose.cspnext import ConvBlock
from limbeck_pose.rtmpose.head import SimCCHead

SIZE = (64, 64)  # of a crop: height and width in pixels
_STRIDES = (2, 1, 2, 1, 2)


class FigurePose(nn.Module):
    """Five 3x3 convolutions, one cell of the map for 8 by 8 pixels, and a SimCC head.

    Taps of interest are those of RTMPose: ``backbone``, ``head.cls_x`` and ``head.cls_y``.

    Args:
        width: Channels of the last map; the first two convolutions have half of them.

    Raises:
        ShapeError: if ``width`` is odd or below 2.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone = _backbone(width)
        self.head = SimCCHead(width, keypoints=COUNT, input_size=SIZE, hidden_dim=4 * width, stride=8)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores along x and y, ``(N, 10, 128)`` each.

        Args:
            images: RGB from 0 to 255, ``(N, 3, 64, 64)``.

        Raises:
            ShapeError: if the crops have another size.
        """
        weight = self.head.final_layer.weight
        scores: tuple[Tensor, Tensor] = self.head(self.backbone(images.to(weight.dtype) / 127.5 - 1))
        return scores


class FigureHeatmaps(nn.Module):
    """The same convolutions under a heatmap head, one cell for 4 by 4 pixels.

    Taps of interest: ``backbone`` and ``head`` (the heatmaps).

    Args:
        width: Channels of the last map and of the head.

    Raises:
        ShapeError: if ``width`` is odd or below 2.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone = _backbone(width)
        self.head = HeatmapHead(width, keypoints=COUNT, hidden_dims=(width,))

    def forward(self, images: Tensor) -> Tensor:
        """Return heatmaps, ``(N, 10, H / 4, W / 4)``.

        Args:
            images: RGB from 0 to 255, ``(N, 3, H, W)``.
        """
        weight = self.head.final_layer.weight
        heatmaps: Tensor = self.head(self.backbone(images.to(weight.dtype) / 127.5 - 1))
        return heatmaps


def _backbone(width: int) -> nn.Sequential:
    if width < 2 or width % 2:
        raise ShapeError(f"width must be even and 2 or more, got {width}")
    widths = (3, width // 2, width // 2, width, width, width)
    return nn.Sequential(
        *(
            ConvBlock(below, above, 3, stride=stride)
            for below, above, stride in zip(widths[:-1], widths[1:], _STRIDES, strict=True)
        )
    )
