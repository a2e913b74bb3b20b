"""Scores of texts: what is scored, what is not, and that batches change nothing."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from limbeck_core.errors import ConfigError, ShapeError
from limbeck_nlp.data import grammar_tokenizer
from limbeck_nlp.models import transformer
from limbeck_nlp.ood import WholeText, log_perplexity, perplexity, score_texts

TEXTS = ["Anna Berg will buy the old lamp", "Tom Field", "Anna", "", "Mara Silva will not sell the boat at noon"]


def model() -> torch.nn.Module:
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "vocab_size": 160}
    torch.manual_seed(0)
    return transformer("causal_lm", "gpt2", **sizes, initializer_range=0.5, bos_token_id=5, eos_token_id=6)


def test_uniform_logits_cost_the_log_of_the_vocabulary() -> None:
    scores = log_perplexity(torch.zeros(2, 3, 8), torch.tensor([[1, 2, -100], [-100, -100, -100]]))
    assert scores.tolist() == [pytest.approx(math.log(8)), math.inf]
    with pytest.raises(ShapeError, match="logits must have shape"):
        log_perplexity(torch.zeros(2, 3, 8), torch.zeros(2, 4, dtype=torch.int64))


def test_a_score_is_transformers_own_loss_of_the_text() -> None:
    net = model().eval()
    scores = score_texts(net, TEXTS, grammar_tokenizer())
    ids = torch.tensor([grammar_tokenizer()(TEXTS[0], add_special_tokens=False)["input_ids"]])
    assert scores[0] == pytest.approx(net(input_ids=ids, labels=ids).loss.item(), rel=1e-5)
    assert np.isinf(scores[2:4]).all()  # one token, and none: nothing is predicted


def test_batches_and_padding_change_nothing_and_the_mode_stays() -> None:
    net = model().train()
    one, all_at_once = (score_texts(net, TEXTS, grammar_tokenizer(), batch_size=size) for size in (1, 5))
    np.testing.assert_allclose(one, all_at_once, rtol=1e-5)
    assert net.training


def test_begin_and_end_are_scored_when_asked_for() -> None:
    both = WholeText(["Tom Field"], grammar_tokenizer(), include_bos=True, include_eos=True)[0]
    assert both["inputs"]["input_ids"].tolist()[0::3] == [5, 6]
    assert both["targets"].tolist() == [*both["inputs"]["input_ids"].tolist()[1:], -100]
    assert np.isfinite(score_texts(model(), TEXTS, grammar_tokenizer(), include_bos=True, include_eos=True)).all()
    cut = WholeText([TEXTS[4]], grammar_tokenizer(), include_bos=True, include_eos=True, max_length=5)[0]
    assert cut["inputs"]["input_ids"].tolist()[0::4] == [5, 6]


def test_a_missing_token_and_missing_flags_are_named() -> None:
    class Bare:
        bos_token_id = None

        def __call__(self, text: str, **options: object) -> SimpleNamespace:
            raise AssertionError(text)

        def convert_tokens_to_ids(self, token: str) -> int:
            raise AssertionError(token)

    with pytest.raises(ConfigError, match="no bos_token_id: leave out include_bos"):
        WholeText(["a"], Bare(), include_bos=True)
    with pytest.raises(ShapeError, match="one flag a text, 1, got 2"):
        WholeText(["a"], grammar_tokenizer(), outliers=[True, False])


def test_a_perplexity_that_overflows_is_infinite() -> None:
    assert perplexity([0.0, 1.0, 800.0, math.inf]).tolist() == [1.0, pytest.approx(math.e), math.inf, math.inf]
