"""Empty strings, rows of nothing but padding, and texts over the limit, in all data and losses of the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck_core.losses import GeneralizedJSDLoss, HiddenStateMSELoss, SelfAttentionRelationLoss
from limbeck_nlp.data import ClassifiedText, encode, grammar_tokenizer, pad_batch
from limbeck_nlp.language_models import PromptedText, TokenCrossEntropyLoss, reverse_kl_policy_loss
from limbeck_nlp.ner import ProbabilityMSELoss
from limbeck_nlp.ood import NearestLayersLoss


def test_empty_strings_are_special_tokens(tmp_path: Path) -> None:
    tokenizer = grammar_tokenizer()
    assert encode(tokenizer, "", max_length=8)["input_ids"].tolist() == [tokenizer.cls_token_id, tokenizer.sep_token_id]
    (tmp_path / "a.tsv").write_text("sentence\tlabel\n\tyes\nTom will\tno\n", encoding="utf-8")
    batch = pad_batch([ClassifiedText(tmp_path, "a.tsv", tokenizer)[i] for i in range(2)])
    assert batch["inputs"]["attention_mask"].sum(1).tolist() == [2, 4]
    rows = [{"prompt": "", "completion": ""}, {"prompt": "Tom", "completion": ""}]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = PromptedText(tmp_path, "b.jsonl", tokenizer)
    for i in range(2):
        assert int(data[i]["mask"].sum()) == 1  # the end alone


def test_texts_over_the_limit_are_cut() -> None:
    tokenizer = grammar_tokenizer()
    encoded = encode(tokenizer, "lamp " * 100, max_length=8)
    assert len(encoded["input_ids"]) == 8
    assert int(encoded["input_ids"][-1]) == tokenizer.sep_token_id
    both = encode(tokenizer, "lamp " * 100, "boat", max_length=8)
    assert tokenizer.convert_tokens_to_ids("boat") in both["input_ids"].tolist()  # the longer text is cut first


def tokens(width: int = 6) -> Tensor:
    return torch.randn(3, 5, width, generator=torch.Generator().manual_seed(width))


LOSSES: dict[str, Any] = {
    "divergence": lambda s, mask: GeneralizedJSDLoss(0.5)(s, tokens(), mask=mask),
    "relations": lambda s, mask: SelfAttentionRelationLoss(2)(s, tokens(), mask=mask),
    "hidden states": lambda s, mask: HiddenStateMSELoss()(s, tokens(), mask=mask),
    "probabilities": lambda s, mask: ProbabilityMSELoss()(s, tokens(), mask=mask),
    "layers": lambda s, mask: NearestLayersLoss(6, nearest=1)([s, s], [tokens(), tokens()], mask=mask),
    "labels": lambda s, mask: TokenCrossEntropyLoss()(s, torch.where(mask.bool(), 1, -100)),
    "policy": lambda s, mask: reverse_kl_policy_loss(s, tokens(), torch.where(mask.bool(), 1, -100)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_rows_of_padding_cost_nothing(name: str) -> None:
    loss = LOSSES[name]
    student = (tokens() + 1).requires_grad_()
    nothing = loss(student, torch.zeros(3, 5, dtype=torch.long))
    assert float(nothing.detach()) == 0
    nothing.backward()
    assert student.grad is None or not bool(student.grad.any())
    student.grad = None
    mask = torch.ones(3, 5, dtype=torch.long)
    mask[1] = 0
    some = loss(student, mask)
    assert bool(torch.isfinite(some.detach()))
    some.backward()
    assert bool(torch.isfinite(student.grad).all())
    assert not bool(student.grad[1].any())
