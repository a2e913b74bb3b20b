"""The evaluator of a run that finds names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from limbeck_core.errors import ConfigError, DataError, ShapeError
from limbeck_nlp.evaluation.ner import entity_scores
from limbeck_nlp.ner.conll import TaggedSentence, to_bio
from limbeck_nlp.ner.decoding import viterbi_tags

_NEEDED = ("mask", "word", "sentence")


class EntityMetric(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """Precision, recall and F1 of entities (exact span and type, micro), in MMEngine's evaluator, in per cent.

    Keys: ``f1``, ``precision``, ``recall``, and ``repaired``, the predicted tags that were no BIO. Words beyond the
    model's longest input count as ``O``. ``predictions`` holds the sentences of the last evaluation with predicted
    tags (:func:`~limbeck_nlp.ner.conll.write_conll` writes them), ``types`` the scores by type.

    Args:
        labels: The labels in the order of the model's classes, in BIO.
        decode: ``"argmax"`` takes the likeliest label of each word and repairs what is no BIO; ``"viterbi"`` takes the
            likeliest BIO tags of the sentence.
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange predictions.
        prefix: Put before each key with a slash.

    Raises:
        ConfigError: if ``decode`` is unknown.
    """

    default_prefix = ""

    def __init__(
        self,
        labels: Sequence[str],
        *,
        decode: Literal["argmax", "viterbi"] = "argmax",
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if decode not in ("argmax", "viterbi"):
            raise ConfigError(f"decode must be 'argmax' or 'viterbi', got {decode!r}")
        self.labels = tuple(labels)
        self.decode = decode
        self.predictions: list[TaggedSentence] = []
        self.types: dict[str, Any] = {}

    def process(self, data_batch: Mapping[str, Any], data_samples: Tensor | Sequence[Tensor]) -> None:
        """Take one batch.

        Args:
            data_batch: The batch of a :class:`~limbeck_nlp.ner.data.TaggedText`.
            data_samples: Logits, shape ``(N, L, C)``, or N of ``(L, C)``.

        Raises:
            DataError: if the batch lacks what the data set gives.
            ShapeError: if the shapes do not fit.
        """
        lacking = [name for name in _NEEDED if name not in data_batch]
        if lacking:
            raise DataError(
                f"evaluation needs {lacking[0]!r} in the batch, it has {', '.join(data_batch)}: use TaggedText"
            )
        logits = data_samples if isinstance(data_samples, Tensor) else torch.stack(list(data_samples))
        mask = torch.as_tensor(data_batch["mask"]).bool()
        if logits.shape != (*mask.shape, len(self.labels)):
            raise ShapeError(
                f"predictions must be logits of shape {(*mask.shape, len(self.labels))}, got {tuple(logits.shape)}"
            )
        for scores, kept, word, sentence in zip(logits, mask, data_batch["word"], data_batch["sentence"], strict=True):
            rows = scores[kept.to(scores.device)]
            if self.decode == "viterbi":
                found = viterbi_tags(rows, self.labels)
            else:
                found = [self.labels[index] for index in rows.argmax(-1).tolist()]
            tags = ["O"] * len(sentence.words)
            for place, tag in zip(word[kept.to(word.device)].tolist(), found, strict=True):
                tags[place] = tag
            fitting, changed = to_bio(tags)
            self.results.append((sentence, tuple(fitting), changed))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Return the scores over all sentences."""
        self.predictions = [TaggedSentence(sentence.words, tags) for sentence, tags, _ in results]
        scores = entity_scores([tags for _, tags, _ in results], [sentence.tags for sentence, _, _ in results])
        self.types = scores["types"]
        repaired = float(sum(changed for _, _, changed in results))
        return {**{name: scores[name] for name in ("f1", "precision", "recall")}, "repaired": repaired}
