"""Distillers of models that predict tokens: vocabularies are compared; the student may learn from its own text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from limbeck_core import Distiller
from limbeck_core.checks import check_between
from limbeck_core.errors import MatchError
from limbeck_core.schedules import Progress
from limbeck_nlp.data.dataset import IGNORED
from limbeck_nlp.language_models.generation import complete, sequences
from limbeck_nlp.language_models.past import PastModel
from limbeck_nlp.models import pad_token_of
from limbeck_nlp.tokenization import as_tokenizer, check_same_vocabulary


class TokenDistiller(Distiller):
    """The core's distiller for models that predict tokens: vocabularies are compared, and past selves follow.

    Args:
        args: As in :class:`~limbeck_core.distiller.Distiller`.
        student_tokenizer: With ``teacher_tokenizer``: they are held against each other before anything runs.
        teacher_tokenizer: See there.
        options: As in :class:`~limbeck_core.distiller.Distiller`.

    Raises:
        ConfigError: if the vocabularies differ.
    """

    def __init__(
        self, *args: Any, student_tokenizer: Any = None, teacher_tokenizer: Any = None, **options: Any
    ) -> None:
        if student_tokenizer is not None and teacher_tokenizer is not None:
            check_same_vocabulary(as_tokenizer(student_tokenizer), as_tokenizer(teacher_tokenizer))
        super().__init__(*args, **options)

    def set_progress(self, progress: Progress) -> None:
        """Tell weights, and past selves of the student, where the run stands."""
        super().set_progress(progress)
        for teacher in self.teachers.values():
            if isinstance(teacher, PastModel):
                teacher.follow(self.student, progress)


class LanguageModelDistiller(TokenDistiller):
    """The distiller for a causal model of transformers, with on-policy batches (GKD).

    With the chance ``on_policy`` a training batch is replaced by what the student itself writes after the batch's
    ``prompts``: matches then compare teacher and student on the student's own text, while the task loss, which would
    only teach the student what it does anyway, counts nothing. The draw and the sampling use PyTorch's global
    generator, which a resumed run restores.

    Args:
        args: As in :class:`TokenDistiller`.
        on_policy: Share of batches that the student writes; 0 is distillation on the data, 1 purely on-policy.
        temperature: Of the student's sampling (from the whole distribution). It is not that of the losses.
        max_new_tokens: Longest text that it writes.
        end_token: The id that ends a text. Default: the model's own ``eos_token_id``.
        options: As in :class:`TokenDistiller`.

    Raises:
        ConfigError: if the vocabularies differ.
        MatchError: if a batch has no ``prompts`` where the student is to write.
        ValueError: if ``on_policy`` is no share.

    Reference:
        Agarwal et al., On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes,
        arXiv:2306.13649, algorithm 1. The choice is made per batch, as there; the defaults are those of TRL's trainer.
    """

    def __init__(
        self,
        *args: Any,
        on_policy: float = 0.0,
        temperature: float = 0.9,
        max_new_tokens: int = 128,
        end_token: int | None = None,
        **options: Any,
    ) -> None:
        check_between(on_policy, "on_policy", 0.0, 1.0)
        super().__init__(*args, **options)
        self.on_policy = on_policy
        self.temperature = temperature
        self.max_new_tokens = max_new_tokens
        configured = getattr(getattr(self.student, "config", None), "eos_token_id", None)
        self.end_token = end_token if end_token is not None else configured

    def forward(self, *args: Any, mode: str = "loss", **fields: Any) -> Any:
        """Run one batch, in training perhaps on the student's own text; otherwise as the core's distiller."""
        if mode != "loss" or not self.training or not self.on_policy:
            return super().forward(*args, mode=mode, **fields)
        batch = self._as_batch(args, fields)
        if torch.rand(()).item() < self.on_policy:
            batch = self.rewritten(batch)
        return super().forward(batch, mode=mode)

    def rewritten(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the batch with the student's own completions in place of the data's.

        Args:
            batch: A batch with ``prompts``.
        """
        if "prompts" not in batch:
            raise MatchError(
                "on_policy needs 'prompts' in the batch, from which the student goes on: use PromptedText with "
                f"pad_prompted; the batch has {', '.join(batch)}"
            )
        pad = pad_token_of(self.student)
        written = complete(
            self.student,
            batch["prompts"],
            end_token=self.end_token,
            pad_token=pad,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
        )
        made = sequences(batch["prompts"], written, end_token=self.end_token, pad_token=pad)
        made["written"] = made["targets"]
        made["targets"] = torch.full_like(made["targets"], IGNORED)
        return {**batch, **made}
