"""Adaptation without labels: a network that believes itself, and a student between two teachers.

Ohkawa et al., Domain Adaptive Hand Keypoint and Pixel Localization in the Wild, arXiv:2203.08344.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from limbeck_core import Distiller
from limbeck_core.build import build
from limbeck_core.checks import check_non_negative
from limbeck_core.errors import MatchError, closest
from limbeck_core.teacher import Peers
from limbeck_pose.hand_adaptation.losses import BRANCHES, HandTaskLoss, confidence, divergence, hand_task_loss
from limbeck_pose.hand_adaptation.views import inside, move_masks, move_points
from limbeck_pose.heatmap import Heatmap

PEERS = ("student", "first", "second")


@dataclass(frozen=True)
class PseudoLabels:
    """What is believed of a batch of plain target crops.

    Args:
        points: Key points in pixels, ``(N, K, 2)``.
        found: Which of them a heatmap really shows, ``(N, K)``.
        mask: Probabilities, ``(N, 1, H, W)``.
    """

    points: Tensor
    found: Tensor
    mask: Tensor


class SelfTraining(Distiller):
    """Train on labelled source hands, and on target hands by the network's own predictions (the paper's GAC).

    The network predicts on the plain target crop, in evaluation mode and without gradient; the same predictions,
    carried into an augmented view, are its labels there. Masks stay probabilities; key points are drawn as
    heatmaps anew, and those that leave the view, or that no heatmap shows, do not count (the released code lets them
    draw empty heatmaps, which pulls predictions towards nothing).

    Args:
        student: The network, or a config of one; outputs are heatmaps and logits of a mask.
        codec: Heatmap codec, or its config.
        task_loss: :class:`~limbeck_pose.hand_adaptation.losses.HandTaskLoss`, or its config; its factors serve the
            target too.
        consistency: Factor of the loss on target hands. Paper's code: 0.1.
        branches: Which outputs the target trains: the paper's first round is ``("keypoints",)``, its second both.
        options: Further arguments of :class:`~limbeck_core.distiller.Distiller`.

    The batch is that of :class:`~limbeck_pose.hand_adaptation.data.HandPairs`.

    Raises:
        MatchError: if a branch is unknown, there is none, or ``task_loss`` is another.
        ValueError: if ``consistency`` is negative.

    Reference:
        The released code of the paper.
    """

    def __init__(
        self,
        student: nn.Module | Mapping[str, Any],
        *,
        codec: Heatmap | Mapping[str, Any],
        task_loss: nn.Module | Mapping[str, Any],
        consistency: float = 0.1,
        branches: Sequence[str] = BRANCHES,
        **options: Any,
    ) -> None:
        super().__init__(student, task_loss=task_loss, **options)
        check_non_negative(consistency, "consistency")
        if not isinstance(self.task_loss, HandTaskLoss):
            raise MatchError(f"task_loss must be a HandTaskLoss, got {type(self.task_loss).__name__}")
        for branch in branches:
            if branch not in BRANCHES:
                raise MatchError(f"branches names {branch!r}: {closest(branch, BRANCHES)}")
        if not branches:
            raise MatchError(f"branches names nothing to train on the target: give one or both of {BRANCHES}")
        self.codec: Heatmap = build(codec) if isinstance(codec, Mapping) else codec
        self.consistency = consistency
        self.branches = tuple(branches)

    def compute_losses(self, batch: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Return the loss on the target, beside those of matches."""
        losses = super().compute_losses(batch, weights)
        labels = self.predict_labels(self.student, batch["target"])
        losses["loss/consistency"] = self.consistency * self.loss_on(self.student, batch["views"]["student"], labels)
        return losses

    def predict_labels(self, model: nn.Module, crops: Tensor) -> PseudoLabels:
        """Predict on plain crops, in evaluation mode and without gradient."""
        with torch.no_grad(), _evaluating(model):
            heatmaps, mask = model(crops)
        points, scores = self.codec.decode(heatmaps)
        return PseudoLabels(points, scores > 0, mask.sigmoid())

    def loss_on(
        self, model: nn.Module, view: Mapping[str, Tensor], labels: PseudoLabels, *, weight: Tensor | None = None
    ) -> Tensor:
        """Return the loss of a model on a view, against labels of the plain crop.

        Args:
            model: The network.
            view: ``inputs``, ``matrix`` and ``keep``.
            labels: What is believed of the plain crop.
            weight: Factor of each image, ``(N,)``.
        """
        points = move_points(labels.points, view["matrix"])
        seen = labels.found & inside(points, self.codec.input_size)
        encoded = self.codec.encode(points, seen.to(points))
        task = cast("HandTaskLoss", self.task_loss)  # checked at construction
        heatmaps, mask = model(view["inputs"])
        each = hand_task_loss(
            heatmaps,
            mask,
            encoded.heatmaps,
            encoded.weight,
            move_masks(labels.mask, view["matrix"], view["keep"]),
            heatmap_weight=task.heatmap_weight if "keypoints" in self.branches else 0.0,
            mask_weight=task.mask_weight if "mask" in self.branches else 0.0,
            knee=task.knee,
            reduction="none",
        )
        each = each if weight is None else each * weight
        return each.sum() / max(len(each), 1)


class TwoTeachers(SelfTraining):
    """A student on the target by two teachers, each image weighted by how far they agree (the paper's C-GAC).

    The teachers predict on the plain target crop; the mean of their predictions, carried into the student's view, is
    its label, and its weight is the same for key points and mask. Each teacher learns from the student's prediction in
    return, on a view of its own, and like the student from the source. The student alone predicts and is exported.

    The paper says that the teachers learn by distillation from the student, not by which loss: it is the task loss on
    the student's predictions here. Neither paper nor code give the sharpness of the weight: by default it follows the
    divergences seen so far, so that the median image weighs ``usual_confidence``.

    Args:
        student: Three networks as :class:`~limbeck_core.teacher.Peers` named ``student``, ``first`` and ``second``,
            trained on the source from different seeds; or a config of them.
        usual_confidence: Weight of the median image, above 0 and below 1.
        sharpness: A fixed sharpness instead; 0 weighs every image alike (the control).
        options: Further arguments of :class:`SelfTraining`.

    Logged beside the losses: ``confidence`` and ``divergence``, the means over the batch. A divergence that falls to 0
    says that the teachers have become one.

    Raises:
        MatchError: as :class:`SelfTraining`, and if ``student`` is not those three networks.
        ValueError: if ``usual_confidence`` or ``sharpness`` is out of range.
    """

    usual_divergence: Tensor

    def __init__(
        self,
        student: nn.Module | Mapping[str, Any],
        *,
        usual_confidence: float = 0.6,
        sharpness: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(student, **options)
        names = tuple(name for name, _ in self.student.named_children())
        if not isinstance(self.student, Peers) or names != PEERS:
            raise MatchError(
                f"TwoTeachers needs Peers(student=..., first=..., second=...), got {type(self.student).__name__} with "
                f"{', '.join(names[:5])}"
            )
        if not 0 < usual_confidence < 1:
            raise ValueError(f"usual_confidence must be above 0 and below 1, got {usual_confidence}")
        if sharpness is not None:
            check_non_negative(sharpness, "sharpness")
        self.usual_confidence, self.sharpness = usual_confidence, sharpness
        self.register_buffer("usual_divergence", torch.zeros(()))

    def compute_losses(self, batch: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Return the losses on the target of the student and of both teachers, beside those of matches."""
        losses = Distiller.compute_losses(self, batch, weights)
        student, first, second = (self.student.get_submodule(name) for name in PEERS)
        crops, views = batch["target"], batch["views"]
        one, other = (self.predict_labels(teacher, crops) for teacher in (first, second))
        apart = divergence(one.points, other.points, one.mask, other.mask, size=self.codec.input_size)
        believed = PseudoLabels((one.points + other.points) / 2, one.found & other.found, (one.mask + other.mask) / 2)
        weight = confidence(apart, sharpness=self._sharpness(apart))
        own = self.predict_labels(student, crops)
        losses["loss/consistency"] = self.consistency * self.loss_on(student, views["student"], believed, weight=weight)
        for name, teacher in (("first", first), ("second", second)):
            losses[f"loss/{name}"] = self.consistency * self.loss_on(teacher, views[name], own)
        return losses | {"confidence": _mean(weight), "divergence": _mean(apart)}

    def _sharpness(self, apart: Tensor) -> float | Tensor:
        if self.sharpness is not None:
            return self.sharpness
        if self.training and len(apart):
            median = apart.median()
            known = self.usual_divergence > 0
            self.usual_divergence.copy_(torch.where(known, 0.9 * self.usual_divergence + 0.1 * median, median))
        # 2 (1 - sigmoid(x)) is the usual confidence at this x
        at_median = math.log(2 / self.usual_confidence - 1)
        usual = self.usual_divergence
        return torch.where(usual > 0, at_median / usual.clamp(min=torch.finfo(usual.dtype).tiny), usual)


def _mean(values: Tensor) -> Tensor:
    return values.sum() / max(len(values), 1)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every module gets its own mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
