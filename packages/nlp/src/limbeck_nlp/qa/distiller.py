"""A distiller whose teacher is the student of the epoch before, and how models of question answering are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core import Distiller
from limbeck_core.calls import TASK, MappingCall, apply_task_loss
from limbeck_core.errors import MatchError
from limbeck_core.schedules import Progress
from limbeck_nlp.language_models.past import PastModel
from limbeck_nlp.qa.losses import SpanDistillationLoss


class SpanCall(MappingCall):
    """Calls a model of transformers that answers with ``start_logits`` and ``end_logits``, each ``(N, L)``.

    The task loss and the evaluator get both in one, ``(N, 2, L)``, minus infinity where the batch's ``mask`` says that
    no answer can stand; so neither depends on how far a batch is padded. A fitting task loss is
    :class:`~limbeck_nlp.language_models.losses.TokenCrossEntropyLoss`, the mean of the two cross-entropies.

    Args:
        arguments: As in :class:`~limbeck_core.calls.MappingCall`.
    """

    def __init__(self, arguments: Any = None) -> None:
        super().__init__(arguments, labels=None)

    def loss(
        self, model: nn.Module, batch: Mapping[str, Any], view: str, task_loss: nn.Module | None
    ) -> dict[str, Any]:
        """Run the student and compare its spans with ``targets``, shape ``(N, 2)``."""
        spans = self.predict(model, batch, view)
        if task_loss is None:
            return {}
        if "targets" not in batch:
            raise MatchError(f"the task loss needs 'targets' in the batch, start and end, it has {', '.join(batch)}")
        return {TASK: apply_task_loss(task_loss, spans, batch["targets"])}

    def predict(self, model: nn.Module, batch: Mapping[str, Any], view: str) -> Tensor:
        """Return start and end, shape ``(N, 2, L)``."""
        output = self.capture(model, batch, view)
        try:
            spans = torch.stack([output["start_logits"], output["end_logits"]], dim=1)
        except (KeyError, TypeError, IndexError) as error:
            raise MatchError(
                f"{type(model).__name__} gives no start_logits and end_logits: build it with "
                "transformer('question_answering', ...)"
            ) from error
        mask = batch.get("mask")
        return spans if mask is None else spans.masked_fill(~mask.bool().unsqueeze(1), -torch.inf)


class GenerationsDistiller(Distiller):
    """Self-distillation in generations: the teacher is the student at the end of the epoch before.

    Give it the teacher :class:`~limbeck_nlp.language_models.past.PastModel`. In the first epoch that is the model
    training starts from, weights loaded with ``load_from`` included, so the divergence begins at zero but for dropout.
    It logs ``NAME_coefficient``, the trust in the teacher of each :class:`~limbeck_nlp.qa.losses.SpanDistillationLoss`:
    at full scale it rises from about 0.6 to 1 over the training.

    Reference:
        Carrino et al., arXiv:2309.17134, section 3.
    """

    def set_progress(self, progress: Progress) -> None:
        """Tell weights, and past selves of the student, where the run stands."""
        super().set_progress(progress)
        for teacher in self.teachers.values():
            if isinstance(teacher, PastModel):
                teacher.follow(self.student, progress)
                if not progress.step and not progress.epoch:
                    teacher.copy_weights(self.student)

    def compute_losses(self, batch: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Return the losses of the matches, and the trust in the teacher."""
        losses = super().compute_losses(batch, weights)
        for name, match in self.matches.items():
            loss = getattr(match, "loss", None)
            if isinstance(loss, SpanDistillationLoss) and loss.coefficient is not None:
                losses[f"{name}_coefficient"] = loss.coefficient
        return losses
