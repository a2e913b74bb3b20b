"""Edge distributions for detectors of mmdet; the only file that knows that library."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.build import build
from limbeck_core.errors import MatchError, MissingDependency
from limbeck_core.mmcv_operators import use_mmcv
from limbeck_detection.boxes import box_xyxy_to_cxcywh
from limbeck_detection.refinement.criterion import RefinementCriterion
from limbeck_detection.refinement.heads import BeginRefinement, EdgeRefinement

_DINO_EPS = 1e-3  # DINO's decoder bounds references so before it takes their logits


def refine_mmdet(
    detector: nn.Module | Mapping[str, Any],
    criterion: RefinementCriterion | Mapping[str, Any] | None = None,
    *,
    reg_max: int = 32,
    reg_scale: float = 4.0,
    up: float = 0.5,
) -> nn.Module:
    """Give Deformable DETR or DINO of mmdet edge distributions and self-distillation of its decoder layers, in place.

    The detector stays what it was to its callers: in ``mode="loss"`` its losses have the terms of the criterion as well
    (``loss_fgl``, ``loss_ddf``, ``loss_first_bbox``, ``loss_first_giou``), under OpenMMLab's runner and in a
    :class:`~limbeck_core.distiller.Distiller`. The first layer's box head is kept with its weights; those of the other
    layers go, so a trained detector needs fine-tuning. New parameters are in ``detector.refinement``.

    Args:
        detector: The detector, with its weights drawn or loaded, or a config of it: DINO, or Deformable DETR with and
            without box refinement and two stages.
        criterion: The losses, or a config of them; default: D-FINE's weights.
        reg_max: See :class:`EdgeRefinement`.
        reg_scale: See :class:`EdgeRefinement`.
        up: See :class:`EdgeRefinement`.

    Returns: The same detector.

    Raises:
        MissingDependency: if mmdet is not installed.
        MatchError: if the detector is of another kind, already refined, or its weights were not drawn.
    """
    if importlib.util.find_spec("mmdet") is None:
        raise MissingDependency("refine_mmdet needs mmdet: see the page on distilling OpenMMLab models")
    use_mmcv()
    from mmdet.models.detectors import DINO, DeformableDETR  # noqa: PLC0415  an extra

    inner: Any = build(detector)
    name = type(inner).__name__
    if hasattr(inner, "refinement"):
        raise MatchError(f"this {name} has edge distributions already")
    if type(inner) not in (DINO, DeformableDETR):
        raise MatchError(
            f"refine_mmdet fits DeformableDETR and DINO, got {name}: for another decoder put "
            "EdgeRefinement(...).branches() in the place of its box heads"
        )
    if not inner.is_init and torch.get_default_device().type != "meta":
        raise MatchError(
            f"draw the weights of this {name} first, detector.init_weights(), or build it with "
            "limbeck_core.openmmlab(...): its way of drawing them knows its own box heads only"
        )
    denoising = isinstance(inner, DINO)
    head, decoder = inner.bbox_head, inner.decoder
    branches = head.reg_branches
    refinement = EdgeRefinement(
        branches[0],
        decoder.embed_dims,
        decoder.num_layers,
        reg_max=reg_max,
        reg_scale=reg_scale,
        up=up,
        iterative=denoising or inner.with_box_refine,
        look_forward_twice=denoising,
        **({"eps": _DINO_EPS} if denoising else {}),
    )
    refinement.to(next(branches[0].parameters()).device)
    for index, branch in enumerate(refinement.branches()):
        branches[index] = branch
    inner.refinement = refinement
    inner.refinement_criterion = build(criterion) or RefinementCriterion()
    scores = _Scores()
    decoder.register_forward_pre_hook(BeginRefinement(refinement), with_kwargs=True)
    head.register_forward_hook(scores)
    inner.register_forward_hook(_AddLosses(scores), with_kwargs=True)
    refined: nn.Module = inner
    return refined


class _Scores:
    """Forward hook of a head that remembers the class logits of this forward, without their graph."""

    def __init__(self) -> None:
        self.logits: Tensor | None = None

    def __call__(self, head: nn.Module, args: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        self.logits = output[0].detach()

    def take(self) -> Tensor:
        logits, self.logits = self.logits, None
        if logits is None:
            raise MatchError("the head of the detector was not called: call the detector as a whole")
        return logits


class _AddLosses:
    """Forward hook of a detector: the criterion's terms join its own losses."""

    def __init__(self, scores: _Scores) -> None:
        self.scores = scores

    def __call__(self, detector: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        refined = detector.refinement.take()
        given = {**dict(zip(("inputs", "data_samples", "mode"), args, strict=False)), **kwargs}
        if given.get("mode", "tensor") != "loss":
            self.scores.logits = None
            return
        logits = self.scores.take()
        targets = [_target(sample, logits.device) for sample in given["data_samples"]]
        terms = detector.refinement_criterion(
            detector.refinement, refined, logits, targets, num_queries=detector.num_queries
        )
        output.update({f"loss_{name}": loss for name, loss in terms.items()})


def _target(sample: Any, device: torch.device) -> dict[str, Tensor]:
    """Boxes in units of the image without its padding, as the decoder's are."""
    height, width = sample.metainfo["img_shape"][:2]
    boxes = sample.gt_instances.bboxes
    boxes = getattr(boxes, "tensor", boxes).to(device).float()
    size = boxes.new_tensor([width, height, width, height])
    return {"labels": sample.gt_instances.labels.to(device), "boxes": box_xyxy_to_cxcywh(boxes / size)}
