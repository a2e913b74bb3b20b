"""How the distiller calls a detector: targets go in with the images, many losses and boxes in pixels come out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.errors import MatchError, closest
from limbeck_detection.dfine.postprocess import PostProcess


class DetectionCall:
    """Detectors of the DETR family that take ``(images, targets)`` and return a mapping with many heads.

    The task loss is a criterion that returns a mapping of losses ``loss_<term>...``; they are logged by term, summed
    over the heads: ``loss/vfl``, ``loss/bbox`` and so on.

    Args:
        num_top: Detections given for each image; fewer where there are fewer pairs of query and class.
    """

    def __init__(self, num_top: int = 300) -> None:
        self.num_top = num_top

    def loss(
        self, model: nn.Module, batch: Mapping[str, Any], view: str, task_loss: nn.Module | None
    ) -> dict[str, Tensor]:
        """Run the detector with its targets and the criterion on what it returns.

        Raises:
            MatchError: if the batch lacks images or targets.
        """
        outputs = model(_field(batch, view), _field(batch, "targets"))
        if task_loss is None:
            return {}
        losses: Mapping[str, Tensor] = task_loss(outputs, batch["targets"])
        terms: dict[str, list[Tensor]] = {}
        for name, loss in losses.items():
            terms.setdefault(name.split("_")[1], []).append(loss)
        return {f"loss/{term}": torch.stack(found).sum() for term, found in terms.items()}

    def capture(self, model: nn.Module, batch: Mapping[str, Any], view: str) -> Any:
        """Run the detector on the images alone."""
        return model(_field(batch, view))

    def predict(self, model: nn.Module, batch: Mapping[str, Any], view: str) -> list[dict[str, Tensor]]:
        """Return the best detections of each image: ``labels``, ``boxes`` and ``scores``, best first.

        Boxes are ``(x1, y1, x2, y2)`` in pixels of the batch's ``sizes``, or of its images where there are none.
        """
        images = _field(batch, view)
        outputs = model(images)
        logits = outputs["pred_logits"]
        size = torch.tensor([images.shape[-1], images.shape[-2]], device=logits.device)
        sizes = batch["sizes"].to(logits.device) if "sizes" in batch else size.expand(len(images), 2)
        top = min(self.num_top, logits.shape[1] * logits.shape[2])
        labels, boxes, scores = PostProcess(top)(outputs, sizes)
        return [{"labels": labels[i], "boxes": boxes[i], "scores": scores[i]} for i in range(len(labels))]


def _field(batch: Mapping[str, Any], name: str) -> Any:
    if name not in batch:
        raise MatchError(f"a detector needs {name!r} of the batch: {closest(name, [str(key) for key in batch])}")
    return batch[name]
