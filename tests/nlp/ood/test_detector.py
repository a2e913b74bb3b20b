"""The detector keeps to the share of false alarms that it was set to."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck_core.errors import ConfigError, DataError
from limbeck_nlp.data import grammar_tokenizer
from limbeck_nlp.models import transformer
from limbeck_nlp.ood import GrammarOod, OutlierDetector


def detector() -> OutlierDetector:
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "vocab_size": 160}
    model = transformer("causal_lm", "gpt2", **sizes, initializer_range=0.5, bos_token_id=5, eos_token_id=6)
    return OutlierDetector(model, grammar_tokenizer(), include_bos=True)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_false_alarms_are_as_many_as_allowed(share: float) -> None:
    found, texts = detector(), GrammarOod(40).texts
    threshold = found.fit(texts, false_alarms=share)
    assert threshold in found.scores(texts)
    assert found.is_outlier(texts).sum() == round(share * 40)
    assert not found.is_outlier([texts[int(np.argmin(found.scores(texts)))]]).any()


def test_without_a_threshold_there_is_no_answer() -> None:
    with pytest.raises(ConfigError, match="no threshold yet"):
        detector().is_outlier(["Anna"])
    with pytest.raises(DataError, match="no texts to set the threshold by"):
        detector().fit([])
    with pytest.raises(ValueError, match="false_alarms"):
        detector().fit(["Anna"], false_alarms=2.0)
