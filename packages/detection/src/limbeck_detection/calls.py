"""How the distiller calls a detector: targets go in with the images, many losses and boxes in pixels come out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.errors import MatchError, closest
from limbeck_detection.dfine.postprocess import PostProcess

_TIE = 1e-4  # scores closer than this may be listed either way


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
        found = self.serve(model, batch, view)
        return [{name: tensor[i] for name, tensor in found.items()} for i in range(len(found["labels"]))]

    def serve(self, model: nn.Module, batch: Mapping[str, Any], view: str) -> dict[str, Tensor]:
        """Return the same for exports: ``labels`` ``(B, K)``, ``boxes`` ``(B, K, 4)``, ``scores`` ``(B, K)``."""
        images = _field(batch, view)
        outputs = model(images)
        logits = outputs["pred_logits"]
        size = torch.tensor([images.shape[-1], images.shape[-2]], device=logits.device)
        sizes = batch["sizes"].to(logits.device) if "sizes" in batch else size.expand(images.shape[0], 2)
        top = min(self.num_top, logits.shape[1] * logits.shape[2])
        labels, boxes, scores = PostProcess(top)(outputs, sizes)
        return {"labels": labels, "boxes": boxes, "scores": scores}

    def difference(self, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
        """Largest difference of two predictions of the same images, whichever way nearly tied detections are listed.

        Scores are compared in order. Each expected detection that is clearly among the kept ones must have one of its
        label, score and box on the other side; boxes count as a share of the largest coordinate.
        """
        if not expected["scores"].numel():
            return 0.0
        worst = float((found["scores"].double() - expected["scores"].double()).abs().max())
        scale = max(float(expected["boxes"].abs().max()), 1e-12)
        for image in range(len(expected["scores"])):
            mine = [found[name][image] for name in ("labels", "boxes", "scores")]
            theirs = [expected[name][image] for name in ("labels", "boxes", "scores")]
            sure = theirs[2] > theirs[2][-1:] + _TIE  # what ties with the last one may have been left out over there
            apart = torch.cdist(theirs[1][sure].double(), mine[1].double(), p=float("inf")) / scale
            apart = apart + (theirs[2][sure, None] - mine[2][None]).abs().double()
            apart = apart.masked_fill(theirs[0][sure, None] != mine[0][None], float("inf"))
            if apart.numel():
                nearest = float(apart.amin(1).max())
                worst = worst if nearest <= worst else nearest
        return worst


def _field(batch: Mapping[str, Any], name: str) -> Any:
    if name not in batch:
        raise MatchError(f"a detector needs {name!r} of the batch: {closest(name, [str(key) for key in batch])}")
    return batch[name]
