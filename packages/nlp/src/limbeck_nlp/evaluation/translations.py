"""The evaluator of a run that translates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from limbeck_core.errors import DataError, ShapeError
from limbeck_nlp.evaluation.bleu import corpus_bleu
from limbeck_nlp.evaluation.tokens import TokenMetric
from limbeck_nlp.tokenization import as_tokenizer


class TranslationMetric(TokenMetric):
    """BLEU, chrF and length of what the model writes, beside :class:`TokenMetric` on the data's own targets.

    Keys: ``bleu``, ``chrf``, ``length_ratio``, and those of :class:`TokenMetric`. It takes the predictions of
    :class:`~limbeck_nlp.translation.TranslationCall` and the batch's ``reference``. ``translations`` holds what was
    written in the last evaluation, ``signature`` sacrebleu's description of how it was judged.

    Args:
        tokenizer: That of the target, by which ids become text.
        bleu_tokenizer: See :func:`~limbeck_nlp.evaluation.bleu.corpus_bleu`.
        results: File to which translations are written, one a line; none by default.
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange predictions.
        prefix: Put before each key with a slash.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        bleu_tokenizer: str = "13a",
        results: str | Path | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.tokenizer = as_tokenizer(tokenizer)
        self.bleu_tokenizer = bleu_tokenizer
        self.file = None if results is None else Path(results)
        self.translations: list[str] = []
        self.signature = ""

    def process(self, data_batch: Mapping[str, Any], data_samples: Any) -> None:
        """Take one batch.

        Args:
            data_batch: The batch with ``targets`` and ``reference``.
            data_samples: For each sample ``logits`` and ``tokens``.

        Raises:
            DataError: if the batch has no ``reference``.
            ShapeError: if predictions are not those of ``TranslationCall``.
        """
        if "reference" not in data_batch:
            raise DataError(f"BLEU needs 'reference' in the batch, it has {', '.join(data_batch)}")
        if not all(isinstance(sample, Mapping) and {"logits", "tokens"} <= sample.keys() for sample in data_samples):
            raise ShapeError("predictions must hold logits and tokens: give the distiller call=TranslationCall()")
        before = len(self.results)
        super().process(data_batch, torch.stack([sample["logits"] for sample in data_samples]))
        written = self.tokenizer.batch_decode(
            [sample["tokens"].tolist() for sample in data_samples], skip_special_tokens=True
        )
        for index, (text, reference) in enumerate(zip(written, data_batch["reference"], strict=True)):
            self.results[before + index] = (*self.results[before + index], text.strip(), reference)

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Return the measures over all sentences."""
        self.translations = [entry[-2] for entry in results]
        judged = corpus_bleu(self.translations, [entry[-1] for entry in results], tokenize=self.bleu_tokenizer)
        self.signature = str(judged["signature"])
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text("".join(f"{line}\n" for line in self.translations), encoding="utf-8")
        shown = {name: float(judged[name]) for name in ("bleu", "chrf", "length_ratio")}
        return {**shown, **super().compute_metrics(results)}
