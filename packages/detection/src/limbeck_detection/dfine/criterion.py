"""D-FINE's training criterion: every head's losses, and the last decoder layer as teacher of the earlier ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.build import build
from limbeck_core.checks import check_non_negative, check_positive
from limbeck_core.errors import ShapeError, closest
from limbeck_core.functional.precision import at_least_float32, without_autocast
from limbeck_core.gather import all_sum, world_size
from limbeck_detection.boxes import box_cxcywh_to_xyxy, paired_giou, paired_iou
from limbeck_detection.dfine.losses import (
    Balance,
    decoupled_distillation_focal_loss,
    fine_grained_localization_loss,
    square_root_balance,
    varifocal_loss,
)
from limbeck_detection.dfine.matcher import HungarianMatcher, Pairs, Targets, union_of_matches
from limbeck_detection.dfine.regression import BinTarget, bbox2distance

Head = Mapping[str, Any]


@dataclass(frozen=True)
class _Assigned:
    """Matched pairs of a batch: positions of the queries, and the truth of each."""

    images: Tensor
    queries: Tensor
    labels: Tensor
    boxes: Tensor

    @classmethod
    def of(cls, pairs: Sequence[Pairs], targets: Targets, device: torch.device) -> _Assigned:
        images = [torch.full_like(found.queries, image) for image, found in enumerate(pairs)]
        chosen = [found.targets.to(device) for found in pairs]
        labels = [target["labels"][index] for target, index in zip(targets, chosen, strict=True)]
        boxes = [target["boxes"][index] for target, index in zip(targets, chosen, strict=True)]
        queries = torch.cat([found.queries for found in pairs])
        return cls(torch.cat(images).to(device), queries.to(device), torch.cat(labels), torch.cat(boxes))

    def at(self, values: Tensor) -> Tensor:
        """Values ``(B, Q, ...)`` of the matched queries, shape ``(n, ...)``."""
        return values[self.images, self.queries]

    def iou(self, boxes: Tensor) -> Tensor:
        """IoU of each matched query's box with its truth, without gradient."""
        predicted = box_cxcywh_to_xyxy(self.at(boxes).detach())
        return paired_iou(predicted, box_cxcywh_to_xyxy(self.boxes.to(predicted.dtype)))

    def mask(self, boxes: Tensor) -> Tensor:
        """Whether a query is matched, shape ``(B, Q)``."""
        found = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
        found[self.images, self.queries] = True
        return found


class DFINECriterion(nn.Module):
    r"""All losses of D-FINE on one batch, weighted; their plain sum is what to differentiate.

    Class scores learn from each head's own one-to-one matching; boxes and edge distributions from the union of all
    heads' matchings (:func:`~limbeck_detection.dfine.matcher.union_of_matches`); denoising queries from the truth that
    they were made of. The last decoder layer teaches the earlier ones (``ddf``), on all queries.

    ============  ==================================================  =========================================
    term          loss                                                heads
    ============  ==================================================  =========================================
    ``vfl``       varifocal, summed, over the number of boxes          all
    ``bbox``      absolute differences, over the number of pairs      all
    ``giou``      1 - GIoU, over the number of pairs                  all
    ``fgl``       fine-grained localization, over the same            decoder layers, ordinary and denoising
    ``ddf``       decoupled distillation focal                        decoder layers but the last
    ============  ==================================================  =========================================

    Nothing is kept between calls. The denoising queries' distillation takes the balance of the ordinary ones, as the
    reference does; in an image batch where no ordinary query is matched it therefore weighs only the unmatched.
    A loss that is not finite is an error here (the reference puts 0 in its place, which hides the cause).

    Args:
        matcher: The matcher, or a config of it; default :class:`HungarianMatcher` with the paper's costs.
        vfl_weight: Weight of ``vfl``.
        bbox_weight: Weight of ``bbox``.
        giou_weight: Weight of ``giou``.
        fgl_weight: Weight of ``fgl``.
        ddf_weight: Weight of ``ddf``; 0 turns self-distillation off and computes nothing of it.
        alpha: Of ``vfl``: weight of the negatives.
        gamma: Of ``vfl``: how much easy negatives are weighed down.
        temperature: Of ``ddf``: softness of both distributions.

    Raises:
        ValueError: if a weight is negative or the temperature not above 0.

    Reference: Peng et al., D-FINE, arXiv:2410.13842, sections 4.1 and 4.2.
    """

    def __init__(
        self,
        matcher: HungarianMatcher | Mapping[str, Any] | None = None,
        *,
        vfl_weight: float = 1.0,
        bbox_weight: float = 5.0,
        giou_weight: float = 2.0,
        fgl_weight: float = 0.15,
        ddf_weight: float = 1.5,
        alpha: float = 0.75,
        gamma: float = 2.0,
        temperature: float = 5.0,
    ) -> None:
        super().__init__()
        weights = {"vfl": vfl_weight, "bbox": bbox_weight, "giou": giou_weight, "fgl": fgl_weight, "ddf": ddf_weight}
        for name, value in (*((f"{term}_weight", weight) for term, weight in weights.items()), ("alpha", alpha)):
            check_non_negative(value, name)
        check_non_negative(gamma, "gamma")
        check_positive(temperature, "temperature")
        self.matcher: HungarianMatcher = build(matcher) or HungarianMatcher()
        self.weights = weights
        self.alpha = alpha
        self.gamma = gamma
        self.temperature = temperature

    def forward(self, outputs: Mapping[str, Any], targets: Targets) -> dict[str, Tensor]:
        """Compute every loss.

        Args:
            outputs: What :class:`~limbeck_detection.dfine.decoder.DFINETransformer` returns in training:
                ``pred_logits`` ``(B, Q, C)``, ``pred_boxes`` ``(B, Q, 4)``, ``pred_corners`` ``(B, Q, 4 * bins)``,
                ``ref_points`` ``(B, Q, 4)``, ``up``, ``reg_scale``, and the heads ``aux_outputs``, ``pre_outputs``,
                ``enc_aux_outputs``, ``dn_outputs``, ``dn_pre_outputs`` with ``dn_meta``; any head may be absent.
            targets: ``labels`` ``(n,)``, integers, and ``boxes`` ``(n, 4)``, centre form in units of the image, for
                each image.

        Returns: ``loss_<term>``, with ``_aux_<i>``, ``_pre``, ``_enc_<i>``, ``_dn_<i>`` or ``_dn_pre`` after it for the
            other heads; scalars.

        Raises:
            ShapeError: if a part that the losses need is missing, or shapes do not fit.
            TargetError: if a label lies outside the classes.
            NonFiniteError: if a prediction or a loss is NaN or infinite.
        """
        for name in ("pred_logits", "pred_boxes", "pred_corners", "ref_points", "up", "reg_scale"):
            if name not in outputs:
                raise ShapeError(
                    f"the criterion needs {name!r} of the detector: {closest(name, outputs)}; is it in training mode?"
                )
        with without_autocast(outputs["pred_logits"]):
            return self._losses(outputs, targets)

    def _losses(self, outputs: Mapping[str, Any], targets: Targets) -> dict[str, Tensor]:
        device = outputs["pred_logits"].device
        layers: list[tuple[str, Head]] = [("", outputs)]
        layers += [(f"_aux_{i}", head) for i, head in enumerate(outputs.get("aux_outputs", ()))]
        plain: list[tuple[str, Head]] = [("_pre", outputs["pre_outputs"])] if "pre_outputs" in outputs else []
        encoder = [(f"_enc_{i}", head) for i, head in enumerate(outputs.get("enc_aux_outputs", ()))]
        truth = _class_agnostic(targets) if encoder and _is_class_agnostic(outputs) else targets

        matches = self.matcher.match([head for _, head in (*layers, *plain)], targets)
        matches += self.matcher.match([head for _, head in encoder], truth)
        union = _Assigned.of(union_of_matches(matches), targets, device)
        boxes = _mean_count(sum(len(target["labels"]) for target in targets), device)
        pairs = _mean_count(len(union.queries), device)

        found: dict[str, Tensor] = {}
        for (name, head), match in zip((*layers, *plain, *encoder), matches, strict=True):
            own = _Assigned.of(match, truth if name.startswith("_enc") else targets, device)
            found[f"loss_vfl{name}"] = self._scores(head, own) / boxes
            self._boxes(found, name, head, union, pairs)
        bins = _bin_targets(outputs, outputs, union)
        for name, head in layers:
            found[f"loss_fgl{name}"] = self._edges(head, union, bins) / pairs
        balance = square_root_balance(union.mask(outputs["pred_boxes"]))
        self._distil(found, layers[1:], outputs, union, balance)
        if "dn_outputs" in outputs:
            self._denoising(found, outputs, targets, balance)
        return {name: loss * self.weights[name.split("_")[1]] for name, loss in found.items()}

    def _denoising(
        self, found: dict[str, Tensor], outputs: Mapping[str, Any], targets: Targets, balance: Balance
    ) -> None:
        meta, device = outputs["dn_meta"], outputs["pred_logits"].device
        groups = int(meta["dn_num_group"])
        matches = []
        for target, queries in zip(targets, meta["dn_positive_idx"], strict=True):
            index = torch.arange(len(target["labels"])).repeat(groups)
            matches.append(Pairs(queries.cpu(), index))
        own = _Assigned.of(matches, targets, device)
        boxes = _mean_count(sum(len(target["labels"]) for target in targets), device) * groups
        layers = [(f"_dn_{i}", head) for i, head in enumerate(outputs["dn_outputs"])]
        plain = [("_dn_pre", outputs["dn_pre_outputs"])] if "dn_pre_outputs" in outputs else []
        for name, head in (*layers, *plain):
            found[f"loss_vfl{name}"] = self._scores(head, own) / boxes
            self._boxes(found, name, head, own, boxes)
        last = layers[-1][1]
        bins = _bin_targets(last, outputs, own)
        for name, head in layers:
            found[f"loss_fgl{name}"] = self._edges(head, own, bins) / boxes
        self._distil(found, layers[:-1], last, own, balance)

    def _scores(self, head: Head, own: _Assigned) -> Tensor:
        logits = head["pred_logits"]
        target = torch.full(logits.shape[:2], logits.shape[-1], dtype=torch.int64, device=logits.device)
        target[own.images, own.queries] = own.labels
        boxes = at_least_float32(head["pred_boxes"].detach())
        quality = torch.zeros_like(boxes[..., 0])
        quality[own.images, own.queries] = own.iou(boxes)
        return varifocal_loss(logits, target, quality, alpha=self.alpha, gamma=self.gamma, reduction="sum")

    @staticmethod
    def _boxes(found: dict[str, Tensor], name: str, head: Head, assigned: _Assigned, count: Tensor) -> None:
        predicted = at_least_float32(assigned.at(head["pred_boxes"]))
        truth = assigned.boxes.to(predicted.dtype)
        overlap = paired_giou(box_cxcywh_to_xyxy(predicted), box_cxcywh_to_xyxy(truth))
        found[f"loss_bbox{name}"] = (predicted - truth).abs().sum() / count
        found[f"loss_giou{name}"] = (1 - overlap).sum() / count

    @staticmethod
    def _edges(head: Head, assigned: _Assigned, bins: BinTarget) -> Tensor:
        corners = assigned.at(_by_edge(head["pred_corners"])).flatten(0, 1)
        weight = assigned.iou(at_least_float32(head["pred_boxes"])).repeat_interleave(4)
        return fine_grained_localization_loss(corners, bins, weight=weight, reduction="sum")

    def _distil(
        self,
        found: dict[str, Tensor],
        layers: Sequence[tuple[str, Head]],
        teacher: Head,
        assigned: _Assigned,
        balance: Balance,
    ) -> None:
        if not self.weights["ddf"]:
            return
        confidence = at_least_float32(teacher["pred_logits"].detach()).sigmoid().amax(-1)
        for name, head in layers:
            boxes = at_least_float32(head["pred_boxes"])
            weight = confidence.to(boxes.dtype).clone()
            weight[assigned.images, assigned.queries] = assigned.iou(boxes)
            corners = _by_edge(head["pred_corners"])
            edges = corners.shape[:-1]
            found[f"loss_ddf{name}"] = decoupled_distillation_focal_loss(
                corners,
                _by_edge(teacher["pred_corners"]),
                matched=assigned.mask(boxes)[..., None].expand(edges),
                weight=weight[..., None].expand(edges),
                temperature=self.temperature,
                balance=balance,
            )


def _by_edge(corners: Tensor) -> Tensor:
    """Reshape ``(B, Q, 4 * bins)`` to ``(B, Q, 4, bins)``."""
    return corners.reshape(*corners.shape[:-1], 4, -1)


def _bin_targets(head: Head, outputs: Mapping[str, Any], assigned: _Assigned) -> BinTarget:
    """Targets of the edges; reference boxes and pairs are the same for all layers, so once is enough."""
    reference = at_least_float32(assigned.at(head["ref_points"]).detach())
    truth = box_cxcywh_to_xyxy(assigned.boxes.to(reference.dtype))
    reg_max = head["pred_corners"].shape[-1] // 4 - 1
    up, reg_scale = (outputs[name].detach().to(reference.dtype) for name in ("up", "reg_scale"))
    return bbox2distance(reference, truth, reg_max, reg_scale, up)


def _mean_count(count: int, device: torch.device) -> Tensor:
    """Mean over ranks, 1 at least."""
    total = all_sum(torch.tensor(float(count), dtype=torch.float64, device=device))
    # single precision, so that dividing by it leaves a single-precision loss what it is
    return (total / world_size()).clamp(min=1.0).float()


def _is_class_agnostic(outputs: Mapping[str, Any]) -> bool:
    return bool(outputs.get("enc_meta", {}).get("class_agnostic", False))


def _class_agnostic(targets: Targets) -> list[dict[str, Tensor]]:
    return [{"labels": torch.zeros_like(target["labels"]), "boxes": target["boxes"]} for target in targets]
