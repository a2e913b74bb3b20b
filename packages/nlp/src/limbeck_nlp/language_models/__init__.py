"""Distillation of language models: on each token, on texts that the teacher writes, on the student's own text."""

from limbeck_nlp.language_models.completions import Filter, write_completions
from limbeck_nlp.language_models.data import (
    GrammarLines,
    PromptedText,
    RunningText,
    pad_prompted,
    shifted,
)
from limbeck_nlp.language_models.losses import (
    TokenCrossEntropyLoss,
    reverse_kl_policy_loss,
    token_cross_entropy_loss,
)

__all__ = [
    "Filter",
    "GrammarLines",
    "PromptedText",
    "RunningText",
    "TokenCrossEntropyLoss",
    "pad_prompted",
    "reverse_kl_policy_loss",
    "shifted",
    "token_cross_entropy_loss",
    "write_completions",
]
