"""Losses that come with edge distributions: true shifts, and the last layer as teacher of the earlier ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.build import build
from limbeck_core.errors import ShapeError
from limbeck_detection.dfine.criterion import DFINECriterion
from limbeck_detection.dfine.matcher import HungarianMatcher, Targets
from limbeck_detection.refinement.heads import EdgeRefinement, Refined


class RefinementCriterion(nn.Module):
    """What a detector with :class:`~limbeck_detection.refinement.heads.EdgeRefinement` learns besides its own losses.

    The detector's own criterion judges classes and boxes of every layer. This one adds D-FINE's terms, on the union of
    all layers' matchings:

    ==============  ====================================================================================
    term            loss
    ==============  ====================================================================================
    ``fgl``         fine-grained localization of every layer
    ``ddf``         decoupled distillation focal: the last layer teaches the earlier ones (GO-LSD)
    ``first_bbox``  absolute differences of the first layer's ordinary box
    ``first_giou``  1 - GIoU of the same
    ==============  ====================================================================================

    The last two are needed because no gradient of the refined boxes reaches the ordinary head. Terms are summed over
    layers, and over contrastive denoising queries where the detector has them. They are computed by
    :class:`~limbeck_detection.dfine.criterion.DFINECriterion`; the proposals of an encoder take no part in the union.

    Args:
        matcher: The matcher, or a config of it; default :class:`HungarianMatcher` with D-FINE's costs.
        fgl_weight: Weight of ``fgl``.
        ddf_weight: Weight of ``ddf``; 0 turns self-distillation off.
        bbox_weight: Weight of ``first_bbox``.
        giou_weight: Weight of ``first_giou``.
        temperature: Of ``ddf``: softness of both distributions.

    Raises:
        ValueError: if a weight is negative or the temperature not above 0.

    Reference: Peng et al., D-FINE, arXiv:2410.13842, section 4.2.
    """

    def __init__(
        self,
        matcher: HungarianMatcher | Mapping[str, Any] | None = None,
        *,
        fgl_weight: float = 0.15,
        ddf_weight: float = 1.5,
        bbox_weight: float = 5.0,
        giou_weight: float = 2.0,
        temperature: float = 5.0,
    ) -> None:
        super().__init__()
        self.criterion = DFINECriterion(
            build(matcher),
            vfl_weight=0.0,
            bbox_weight=bbox_weight,
            giou_weight=giou_weight,
            fgl_weight=fgl_weight,
            ddf_weight=ddf_weight,
            temperature=temperature,
        )

    def forward(
        self, refinement: EdgeRefinement, refined: Refined, logits: Tensor, targets: Targets, *, num_queries: int
    ) -> dict[str, Tensor]:
        """Compute the terms.

        Args:
            refinement: The heads, for their bins.
            refined: What they predicted in this step.
            logits: Class logits of every layer, shape ``(L, B, Q, C)``; they only decide matchings and confidence, and
                get no gradient.
            targets: ``labels`` ``(n,)``, integers, and ``boxes`` ``(n, 4)``, centre form in units of the image, for
                each image.
            num_queries: Ordinary queries, the last of each image; those before are groups of contrastive denoising
                queries: in each group as many positives as the image with most boxes has, then as many negatives.

        Returns: ``fgl``, ``ddf``, ``first_bbox`` and ``first_giou``, weighted, scalars; ``ddf`` is absent where it is
            turned off or there is one layer only.

        Raises:
            ShapeError: if the parts do not fit together.
            TargetError: if a label lies outside the classes.
            NonFiniteError: if a prediction or a loss is NaN or infinite.
        """
        layers = len(refined.boxes)
        if logits.ndim != 4 or logits.shape[:3] != (layers, *refined.first.shape[:2]):
            raise ShapeError(
                f"logits must have shape (L, B, Q, C) with {layers} layers and {tuple(refined.first.shape[:2])} "
                f"queries, got {tuple(logits.shape)}"
            )
        denoising = logits.shape[2] - num_queries
        if denoising < 0:
            raise ShapeError(
                f"num_queries is {num_queries}, but the decoder predicted {logits.shape[2]} boxes an image"
            )
        scores = logits.detach()
        ordinary = self._heads(refined, scores, slice(denoising, None))
        outputs: dict[str, Any] = {
            **ordinary["layers"][-1],
            "up": refinement.up,
            "reg_scale": refinement.reg_scale,
            "aux_outputs": ordinary["layers"][:-1],
            "pre_outputs": ordinary["first"],
        }
        most = max((len(target["labels"]) for target in targets), default=0)
        if denoising and most:
            groups = _groups(denoising, most)
            noisy = self._heads(refined, scores, slice(0, denoising))
            starts = torch.arange(groups) * 2 * most
            positives = [(starts[:, None] + torch.arange(len(t["labels"]))).flatten() for t in targets]
            outputs["dn_outputs"], outputs["dn_pre_outputs"] = noisy["layers"], noisy["first"]
            outputs["dn_meta"] = {"dn_num_group": groups, "dn_positive_idx": positives}
        terms: dict[str, list[Tensor]] = {}
        for name, loss in self.criterion(outputs, targets).items():
            term = name.split("_")[1]
            if term in ("fgl", "ddf"):
                terms.setdefault(term, []).append(loss)
            elif term in ("bbox", "giou") and name.endswith("_pre"):
                terms.setdefault(f"first_{term}", []).append(loss)
        return {term: torch.stack(found).sum() for term, found in terms.items()}

    @staticmethod
    def _heads(refined: Refined, scores: Tensor, queries: slice) -> dict[str, Any]:
        reference = refined.first[:, queries].detach()
        layers = [
            {
                "pred_logits": scores[index, :, queries],
                "pred_boxes": refined.boxes[index][:, queries],
                "pred_corners": refined.corners[index][:, queries],
                "ref_points": reference,
            }
            for index in range(len(refined.boxes))
        ]
        first = {"pred_logits": scores[0, :, queries], "pred_boxes": refined.first[:, queries]}
        return {"layers": layers, "first": first}


def _groups(denoising: int, most: int) -> int:
    groups, rest = divmod(denoising, 2 * most)
    if rest or not groups:
        raise ShapeError(
            f"{denoising} denoising queries are no groups of {most} positives and {most} negatives, as contrastive "
            "denoising has for images with so many boxes: is num_queries the detector's number of ordinary queries?"
        )
    return groups
