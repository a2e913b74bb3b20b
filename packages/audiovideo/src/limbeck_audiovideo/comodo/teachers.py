"""Video teachers: a frame encoder pooled over frames, and a small net of space and time that is trained here.

All take clips ``(N, T, 3, H, W)`` of bytes, or of numbers in [0, 1], normalise them, and return embeddings ``(N, D)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from limbeck_core.build import build
from limbeck_core.checks import check_ndim
from limbeck_core.errors import ShapeError

Pool = Literal["mean", "change", "mean_and_change"]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class ClipModel(nn.Module):
    """What clip models share: the normalisation, in the model itself.

    Args:
        normalization: Mean and standard deviation of red, green and blue in [0, 1].
    """

    normalizes_input = True
    mean: Tensor
    std: Tensor

    def __init__(self, normalization: tuple[Sequence[float], Sequence[float]] = IMAGENET) -> None:
        super().__init__()
        for name, numbers in zip(("mean", "std"), normalization, strict=True):
            self.register_buffer(name, torch.tensor(numbers).view(3, 1, 1), persistent=False)

    def normalize(self, clips: Tensor) -> Tensor:
        """Return normalised clips.

        Raises:
            ShapeError: if they are not ``(N, T, 3, H, W)``.
        """
        check_ndim(clips, "clips", "(N, T, 3, H, W)", at_least=5, at_most=5)
        if clips.shape[2] != 3:
            raise ShapeError(f"clips must be (N, T, 3, H, W), red, green and blue on axis 2, got {tuple(clips.shape)}")
        scaled = clips.to(self.mean.dtype) / 255 if not clips.is_floating_point() else clips.to(self.mean.dtype)
        return (scaled - self.mean) / self.std


class FrameTeacher(ClipModel):
    """Any encoder of single frames, pooled over the frames of a clip.

    The mean alone knows what is seen, not how it moves; ``"change"`` is the mean size of the change from frame to
    frame, ``"mean_and_change"`` both.

    Args:
        encoder: Takes ``(N, 3, H, W)`` and returns ``(N, width)``, or a config of it. For timm's models see
            :func:`~limbeck_audiovideo.comodo.timm_frames`.
        pool: ``"mean"``, ``"change"``, or ``"mean_and_change"`` (twice as wide).
        normalization: Mean and standard deviation of red, green and blue; ImageNet's by default.
        frames_at_once: Frames that the encoder takes in one call, which bounds its memory.

    Raises:
        ValueError: if ``pool`` is unknown or ``frames_at_once`` below 1.
        ShapeError: when called on another shape, or the encoder returns anything but vectors.
    """

    def __init__(
        self,
        encoder: nn.Module | Mapping[str, Any],
        *,
        pool: Pool = "mean",
        normalization: tuple[Sequence[float], Sequence[float]] = IMAGENET,
        frames_at_once: int = 256,
    ) -> None:
        super().__init__(normalization)
        if pool not in get_args(Pool):
            raise ValueError(f"pool must be 'mean', 'change' or 'mean_and_change', got {pool!r}")
        if frames_at_once < 1:
            raise ValueError(f"frames_at_once must be 1 or more, got {frames_at_once}")
        self.encoder: nn.Module = build(encoder)
        self.pool, self.frames_at_once = pool, frames_at_once

    def forward(self, clips: Tensor) -> Tensor:
        """Return embeddings ``(N, D)`` of clips ``(N, T, 3, H, W)``."""
        count = clips.shape[:2]
        frames = self.normalize(clips).flatten(0, 1)
        encoded = torch.cat([self.encoder(part) for part in torch.split(frames, self.frames_at_once)])
        if encoded.ndim != 2:
            raise ShapeError(
                f"the encoder must return one vector a frame, shape (N * T, D), got {tuple(encoded.shape)}: pool its "
                "map (timm: num_classes=0)"
            )
        by_frame = encoded.reshape(*count, -1)
        mean = by_frame.mean(1)
        if self.pool == "mean":
            return mean
        steps = by_frame.diff(dim=1).abs()
        change = steps.sum(1) / max(steps.shape[1], 1)
        return change if self.pool == "change" else torch.cat([mean, change], dim=1)


class PixelGrid(nn.Module):
    """A frame as a coarse grid of brightness: nothing to train, nothing to download.

    In :class:`FrameTeacher` with ``pool="change"`` it says where something moves; on depth video that is a depth motion
    map (Yang et al., ACM MM 2012). Such maps are alike for all clips until they are centred: give the match a
    ``BatchNorm1d(..., affine=False)`` as ``teacher_adapter``.

    Args:
        cells: Rows and columns of the grid.

    Raises:
        ValueError: if ``cells`` is below 1.
    """

    def __init__(self, cells: int = 12) -> None:
        super().__init__()
        if cells < 1:
            raise ValueError(f"cells must be 1 or more, got {cells}")
        self.cells = cells

    def forward(self, frames: Tensor) -> Tensor:
        """Return ``(N, cells * cells)`` numbers of frames ``(N, 3, H, W)``."""
        return adaptive_avg_pool2d(frames.mean(1, keepdim=True), self.cells).flatten(1)


class SmallVideoNet(ClipModel):
    """Three 2D convolutions a frame, two over time, and the mean: an action classifier that trains on a CPU.

    Tap ``embed`` is the embedding, ``(N, width)``.

    Args:
        num_classes: Classes of the output; 0 returns the embedding.
        width: Channels after the last convolution.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, num_classes: int = 0, *, width: int = 64) -> None:
        super().__init__(((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))
        if num_classes < 0 or width < 4 or width % 4:
            raise ValueError(f"num_classes must be 0 or more and width a multiple of 4, got {num_classes}, {width}")
        self.out_dim = width
        widths = (3, width // 4, width // 2, width)
        self.space = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(below, above, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(above), nn.ReLU()
                )
                for below, above in pairwise(widths)
            )
        )
        self.place = nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(9 * width, width))
        self.time = nn.Sequential(
            *(
                nn.Sequential(nn.Conv1d(width, width, 5, padding=2, bias=False), nn.BatchNorm1d(width), nn.ReLU())
                for _ in range(2)
            )
        )
        self.embed = nn.Identity()
        self.fc = nn.Linear(width, num_classes) if num_classes else nn.Identity()

    def forward(self, clips: Tensor) -> Tensor:
        """Return class scores ``(N, num_classes)``, or embeddings, of clips ``(N, T, 3, H, W)``."""
        scores: Tensor = self.fc(self.embedding(clips))
        return scores

    def embedding(self, clips: Tensor) -> Tensor:
        """Return embeddings ``(N, width)`` of clips ``(N, T, 3, H, W)``."""
        count = clips.shape[:2]
        frames = self.place(self.space(self.normalize(clips).flatten(0, 1))).unflatten(0, count)
        embedded: Tensor = self.embed(self.time(frames.transpose(1, 2)).mean(2))
        return embedded


__all__ = ["IMAGENET", "ClipModel", "FrameTeacher", "PixelGrid", "SmallVideoNet"]
