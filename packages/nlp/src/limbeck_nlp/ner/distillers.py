"""ProKD's two stages: a teacher with aligned prototypes, and a student that corrects it by prototypes of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from limbeck_core import Distiller, Tap
from limbeck_core.checks import check_between, check_non_negative
from limbeck_core.errors import MatchError
from limbeck_nlp.data.dataset import IGNORED
from limbeck_nlp.language_models.losses import token_cross_entropy_loss
from limbeck_nlp.ner.prototypes import Prototypes, class_means, prototype_contrast_loss, prototype_pseudo_labels

_FEATURES = Tap("", of="student", pick=("hidden_states", -1))
_SHARE_MOMENTUM = 0.99  # of the counts that the guard against collapse looks at


class _FromEpoch(Distiller):
    """A distiller with a loss of its own that begins after some epochs."""

    own_weight: float
    begins: int

    def _own_weight(self) -> float:
        return self.own_weight if self.progress is None or self.progress.epoch >= self.begins else 0.0


class AlignedTeacherDistiller(_FromEpoch):
    """Stage 1: a model learns from labels in one language, and its prototypes of two languages are aligned.

    No teacher: the student of this stage is stage 2's teacher. Batches are those of
    :class:`~limbeck_nlp.ner.data.SourceAndTarget`. Prototypes of the source go by its labels, those of the target by
    what the model itself is sure of. Their averages run from the first step; the loss ``loss/alignment`` begins with
    epoch ``begins``.

    Args:
        args: As in :class:`~limbeck_core.distiller.Distiller`.
        num_classes: Number of labels.
        width: Length of the model's features; it must be built with ``output_hidden_states=True``.
        alignment_weight: Factor of the alignment; 0.5 is a choice of ours, to be tuned between 0.1 and 1.
        temperature: See :func:`~limbeck_nlp.ner.prototypes.prototype_contrast_loss`.
        momentum: See :class:`~limbeck_nlp.ner.prototypes.Prototypes`.
        confidence: Words of the target count whose likeliest label has at least this probability.
        begins: Epoch, from 0, with which the alignment begins.
        options: As in :class:`~limbeck_core.distiller.Distiller`.

    Raises:
        ValueError: if an argument is out of range.
        MatchError: if a batch has no words of the other language.

    Reference:
        Ge et al., ProKD, arXiv:2301.08855, abstract; all constants are choices of ours.
    """

    def __init__(
        self,
        *args: Any,
        num_classes: int,
        width: int,
        alignment_weight: float = 0.5,
        temperature: float = 0.1,
        momentum: float = 0.99,
        confidence: float = 0.8,
        begins: int = 1,
        **options: Any,
    ) -> None:
        check_non_negative(alignment_weight, "alignment_weight")
        check_between(confidence, "confidence", 0.0, 1.0)
        super().__init__(*args, taps={"features": _FEATURES}, **options)
        self.source = Prototypes(num_classes, width, momentum=momentum)
        self.target = Prototypes(num_classes, width, momentum=momentum)
        self.num_classes = num_classes
        self.own_weight = alignment_weight
        self.temperature = temperature
        self.confidence = confidence
        self.begins = begins

    def compute_losses(self, batch: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Return the alignment of the two languages' prototypes."""
        losses = super().compute_losses(batch, weights)
        if "other" not in batch:
            raise MatchError(
                f"alignment needs 'other' in the batch, sentences of the target language, it has {', '.join(batch)}: "
                "use SourceAndTarget"
            )
        kept = batch["targets"] != IGNORED
        source = class_means(self.read("features")[kept], batch["targets"][kept], self.num_classes)
        output = self.call.capture(self.student, batch, "other")
        words = batch["other_mask"].bool()
        sure, labels = output["logits"].detach()[words].softmax(-1).max(-1)
        labels = torch.where(sure >= self.confidence, labels, torch.full_like(labels, IGNORED))
        target = class_means(output["hidden_states"][-1][words], labels, self.num_classes)
        if self.training:
            self.source.update(source)
            self.target.update(target)
        stored = (self.source.vectors.clone(), self.target.vectors.clone())
        seen = (self.source.seen.clone(), self.target.seen.clone())
        loss = prototype_contrast_loss(
            source, stored[1], stored[0], seen[1], seen[0], temperature=self.temperature
        ) + prototype_contrast_loss(target, stored[0], stored[1], seen[0], seen[1], temperature=self.temperature)
        losses["loss/alignment"] = loss * self._own_weight()
        both = seen[0] & seen[1]
        if bool(both.any()):
            losses["prototype_cosine"] = (stored[0] * stored[1]).sum(1)[both].mean()
        return losses


class ProKDDistiller(_FromEpoch):
    """Stage 2: a student of the target language learns from the teacher and from labels corrected by prototypes.

    Matches compare it with the teacher (:class:`~limbeck_nlp.ner.prototypes.ProbabilityMSELoss`); to them comes
    ``loss/self_training``, the cross-entropy to
    :func:`~limbeck_nlp.ner.prototypes.prototype_pseudo_labels`. Prototypes are a moving average of the student's own
    features by those labels (by the teacher's for a class not yet seen). ``entity_share`` in the log is the number of
    words with an entity among the pseudo-labels over that among the teacher's; where it falls below
    ``least_entity_share``, self-training rests, since it would confirm itself until everything is O.

    Args:
        args: As in :class:`~limbeck_core.distiller.Distiller`; one teacher.
        num_classes: Number of labels; label 0 is O.
        width: Length of the student's features; it must be built with ``output_hidden_states=True``.
        self_training_weight: Factor of the self-training.
        temperature: See :func:`~limbeck_nlp.ner.prototypes.prototype_pseudo_labels`.
        threshold: See there.
        momentum: See :class:`~limbeck_nlp.ner.prototypes.Prototypes`.
        least_entity_share: See above.
        begins: Epoch, from 0, with which self-training begins.
        options: As in :class:`~limbeck_core.distiller.Distiller`.

    Raises:
        ValueError: if an argument is out of range.

    Reference:
        Ge et al., ProKD, arXiv:2301.08855, abstract; all constants are choices of ours.
    """

    def __init__(
        self,
        *args: Any,
        num_classes: int,
        width: int,
        self_training_weight: float = 1.0,
        temperature: float = 0.5,
        threshold: float = 0.5,
        momentum: float = 0.99,
        least_entity_share: float = 0.3,
        begins: int = 1,
        **options: Any,
    ) -> None:
        check_non_negative(self_training_weight, "self_training_weight")
        check_between(least_entity_share, "least_entity_share", 0.0, 1.0)
        logits = {of: Tap("", of=of, pick="logits") for of in ("student", "teacher")}
        super().__init__(*args, taps={"features": _FEATURES, **logits}, **options)
        self.prototypes = Prototypes(num_classes, width, momentum=momentum)
        self.num_classes = num_classes
        self.own_weight = self_training_weight
        self.temperature = temperature
        self.threshold = threshold
        self.least_entity_share = least_entity_share
        self.begins = begins
        self.register_buffer("entities", torch.zeros(2))  # of pseudo-labels and of the teacher
        self.entities: Tensor

    def compute_losses(self, batch: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Return the losses of the matches, and the self-training."""
        losses = super().compute_losses(batch, weights)
        words = batch["mask"].bool()
        features = self.read("features")[words]
        student, teacher = self.read("student")[words], self.read("teacher")[words].detach()
        labels = prototype_pseudo_labels(
            features.detach(), teacher, self.prototypes, temperature=self.temperature, threshold=self.threshold
        )
        theirs = teacher.argmax(-1)
        if self.training:
            unseen = ~self.prototypes.seen[theirs]
            self.prototypes.update(
                class_means(features.detach(), torch.where(unseen, theirs, labels), self.num_classes)
            )
            self._count(labels, theirs)
        share = self.entities[0] / self.entities[1].clamp_min(1e-6)
        resting = self.entities[1] > 0 and share < self.least_entity_share
        loss = token_cross_entropy_loss(student, labels)
        losses["loss/self_training"] = loss * (0.0 if resting else self._own_weight())
        losses["entity_share"] = share.detach().clone()
        return losses

    @torch.no_grad()
    def _count(self, labels: Tensor, theirs: Tensor) -> None:
        if bool(self.prototypes.seen.any()) and bool((labels != IGNORED).any()):
            counts = torch.stack([(labels > 0).sum(), (theirs > 0).sum()])
            self.entities.mul_(_SHARE_MOMENTUM).add_(counts, alpha=1 - _SHARE_MOMENTUM)
