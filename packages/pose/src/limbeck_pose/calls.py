"""Other ways to ask a pose model: its image and the mirrored one together, or key points instead of scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.calls import TensorCall
from limbeck_core.checks import check_positive
from limbeck_core.errors import MatchError, ShapeError
from limbeck_pose.keypoints import LAYOUTS, WHOLE_BODY, Layout
from limbeck_pose.simcc import SimCC


class FlipTest(TensorCall):
    """Predict by the mean of the scores of an image and of its mirrored image, turned back. Training is as ever.

    In a config, ``model.call = dict(type=FlipTest)``; ``tools/eval_pose.py --flip-test`` puts it there. It doubles the
    time of a prediction.

    Args:
        layout: Which key points the model has, for its left and right partners; or one of the names in ``LAYOUTS``.
        bins_per_pixel: Bins a pixel of a SimCC head.
        aligned: Turn scores back onto the very pixels of the image. The reference reverses the list of scores as it
            is, which puts the mirrored ones half a pixel to the right, and mmpose's heatmaps without
            ``shift_heatmap`` by a cell; ``False`` does so too.

    Raises:
        ValueError: if ``bins_per_pixel`` is not above 0, or the name is unknown.
    """

    def __init__(self, layout: Layout | str = WHOLE_BODY, *, bins_per_pixel: float = 2.0, aligned: bool = True) -> None:
        check_positive(bins_per_pixel, "bins_per_pixel")
        if isinstance(layout, str) and layout not in LAYOUTS:
            raise ValueError(f"layout must be a Layout or one of {', '.join(LAYOUTS)}, got {layout!r}")
        self.layout: Layout = LAYOUTS[layout] if isinstance(layout, str) else layout
        self.bins_per_pixel, self.aligned = bins_per_pixel, aligned

    def predict(self, model: nn.Module, batch: Mapping[str, Any], view: str) -> Any:
        """Return scores of the model's own kind: along x and y, or heatmaps."""
        plain = super().predict(model, batch, view)
        mirrored = super().predict(model, {**batch, view: batch[view].flip(-1)}, view)
        if isinstance(plain, Tensor):
            # a pixel of stride 4 mirrors to three quarters of a cell beside the mirrored cell
            return (plain + self._turned(mirrored, 1 if self.aligned else 0, reverse=True)) / 2
        shift = -(round(self.bins_per_pixel) - 1) if self.aligned else 0
        (x, y), (mirrored_x, mirrored_y) = plain, mirrored
        return (
            (x + self._turned(mirrored_x, shift, reverse=True)) / 2,
            (y + self._turned(mirrored_y, 0, reverse=False)) / 2,
        )

    def _turned(self, scores: Tensor, shift: int, *, reverse: bool) -> Tensor:
        """Exchange left and right key points, reverse the last axis, and move it by whole bins."""
        if scores.shape[1] != self.layout.count:
            raise ShapeError(
                f"FlipTest was given a layout of {self.layout.count} key points, the model has {scores.shape[1]}: give "
                "it the layout of the model, FlipTest(layout)"
            )
        scores = scores[:, self.layout.mirrored]
        if not reverse:
            return scores
        scores = scores.flip(-1)
        if shift > 0:
            return torch.cat([scores[..., :shift], scores[..., :-shift]], -1)
        if shift < 0:
            return torch.cat([scores[..., -shift:], scores[..., shift:]], -1)
        return scores


class Decoded(TensorCall):
    r"""Predict key points and their scores instead of a SimCC head's scores along the axes: for exported models.

        limbeck export pose/dwpose/l_m_stage1 --checkpoint student.pth --format onnx \
            --cfg-options +model.call.type=limbeck_pose.calls.Decoded

    Args:
        bins_per_pixel: Bins a pixel.

    Raises:
        ValueError: if ``bins_per_pixel`` is not above 0.
    """

    def __init__(self, *, bins_per_pixel: float = 2.0) -> None:
        check_positive(bins_per_pixel, "bins_per_pixel")
        self.bins_per_pixel = bins_per_pixel

    def predict(self, model: nn.Module, batch: Mapping[str, Any], view: str) -> tuple[Tensor, Tensor]:
        """Return key points in pixels of the crop ``(N, K, 2)`` and scores ``(N, K)``; see :meth:`SimCC.decode`."""
        scores = super().predict(model, batch, view)
        if isinstance(scores, Tensor):
            raise MatchError(
                f"Decoded reads scores along x and y, {type(model).__name__} gives one tensor of shape "
                f"{tuple(scores.shape)}: it is for SimCC heads"
            )
        x, y = scores
        size = (round(y.shape[-1] / self.bins_per_pixel), round(x.shape[-1] / self.bins_per_pixel))
        return SimCC(size, bins_per_pixel=self.bins_per_pixel).decode(x, y)
