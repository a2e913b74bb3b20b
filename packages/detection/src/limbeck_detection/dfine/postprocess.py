"""From D-FINE's raw outputs to detections in pixels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from limbeck_core.checks import check_positive
from limbeck_core.errors import ShapeError
from limbeck_detection.boxes import box_cxcywh_to_xyxy


class PostProcess(nn.Module):
    """Best scores over queries and classes, with boxes in pixels of the original image; no suppression of duplicates.

    A query appears once for each of its classes that is among the best.

    Args:
        num_top: Number of detections kept for each image.

    Raises:
        ValueError: if ``num_top`` is not above 0.

    Reference: Peng et al., D-FINE, arXiv:2410.13842 (as RT-DETR, arXiv:2304.08069).
    """

    def __init__(self, num_top: int = 300) -> None:
        super().__init__()
        check_positive(num_top, "num_top")
        self.num_top = num_top

    def forward(self, outputs: Mapping[str, Tensor], sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Choose and scale.

        Args:
            outputs: ``pred_logits`` ``(B, Q, C)`` and ``pred_boxes`` ``(B, Q, 4)``, as the model returns them.
            sizes: Width and height of each original image in pixels, in this order, shape ``(B, 2)``.

        Returns: Labels int64 ``(B, num_top)``, boxes ``(x1, y1, x2, y2)`` in pixels ``(B, num_top, 4)`` and scores in
            [0, 1] ``(B, num_top)``, best first.

        Raises:
            ShapeError: if there are fewer than ``num_top`` pairs of query and class, or ``sizes`` has another shape.
        """
        logits, boxes = outputs["pred_logits"], outputs["pred_boxes"]
        batch, queries, classes = logits.shape
        if sizes.shape != (batch, 2):
            raise ShapeError(f"sizes must hold width and height of {batch} images, got shape {tuple(sizes.shape)}")
        if queries * classes < self.num_top:
            raise ShapeError(
                f"the best {self.num_top} of {queries} queries x {classes} classes do not exist: lower num_top to "
                f"{queries * classes}"
            )
        scores, index = torch.sigmoid(logits).flatten(1).topk(self.num_top, dim=1)
        corners = box_cxcywh_to_xyxy(boxes) * sizes.to(boxes.dtype).repeat(1, 2)[:, None]
        chosen = corners.gather(1, (index // classes)[..., None].expand(-1, -1, 4))
        return index % classes, chosen, scores
