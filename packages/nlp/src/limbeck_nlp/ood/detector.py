"""A model, its tokenizer and a threshold: is this text of the kind that the model knows?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from limbeck_core.checks import check_between
from limbeck_core.errors import ConfigError, DataError
from limbeck_nlp.ood.scoring import score_texts


class OutlierDetector:
    """Tells outliers by a language model's perplexity; it needs no outlier to learn from.

    To detect texts of a machine, train the model on that machine's texts: then an outlier is a text of somebody else,
    such as a human being (MLKD on HC3). A high perplexity says that a text is unusual for the model, not who wrote it:
    another machine, another topic or another language is unusual too.

    Args:
        model: A causal model of transformers, trained on texts inside.
        tokenizer: Its tokenizer.
        max_length: See :class:`~limbeck_nlp.ood.data.WholeText`; use the values of the training.
        include_bos: See there.
        include_eos: See there.
        batch_size: Texts at once.

    The threshold is ``None`` until :meth:`fit`; it may also be set by hand.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        max_length: int = 128,
        include_bos: bool = False,
        include_eos: bool = False,
        batch_size: int = 32,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.options: dict[str, Any] = {
            "max_length": max_length,
            "include_bos": include_bos,
            "include_eos": include_eos,
            "batch_size": batch_size,
        }
        self.threshold: float | None = None

    def scores(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return the log-perplexity of each text, in nats a token; see :func:`~limbeck_nlp.ood.scoring.score_texts`."""
        return score_texts(self.model, texts, self.tokenizer, **self.options)

    def fit(self, texts: Sequence[str], *, false_alarms: float = 0.05) -> float:
        """Set the threshold such that of these texts at most this share is taken for outliers.

        Args:
            texts: Texts inside that the model was not trained on: it knows its own too well.
            false_alarms: The share, from 0 to below 1.

        Returns:
            The threshold: a text is an outlier if its score is above it. Infinite if the texts have more scores that
            are infinite than the share allows; then nothing is found.

        Raises:
            DataError: if there is no text.
            ValueError: if ``false_alarms`` is no share.
        """
        check_between(false_alarms, "false_alarms", 0.0, 1.0)
        if not len(texts):
            raise DataError("there are no texts to set the threshold by: give held-out texts of the kind inside")
        ordered = np.sort(self.scores(texts))
        above = min(int(false_alarms * len(ordered) + 1e-9), len(ordered) - 1)
        self.threshold = float(ordered[len(ordered) - 1 - above])
        return self.threshold

    def is_outlier(self, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Return whether each text is an outlier.

        Raises:
            ConfigError: if there is no threshold yet.
        """
        if self.threshold is None:
            raise ConfigError("the detector has no threshold yet: call fit with held-out texts, or set threshold")
        return self.scores(texts) > self.threshold
