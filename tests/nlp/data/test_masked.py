"""Hidden words: which, how many, and that special tokens stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from limbeck_core.engine.sampler import Key, SeededDataset
from limbeck_core.errors import ConfigError, DataError
from limbeck_nlp.data import GrammarText, MaskedText, TextLines, grammar_tokenizer, hide


def test_the_shares_are_those_of_bert() -> None:
    tokenizer = grammar_tokenizer()
    ids = torch.tensor([tokenizer.cls_token_id, *([50] * 20000), tokenizer.sep_token_id])
    hidden, targets = hide(ids, tokenizer, share=0.15)
    chosen = targets != -100
    assert chosen.float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert not chosen[0]
    assert not chosen[-1]
    assert torch.equal(hidden[~chosen], ids[~chosen])
    assert torch.equal(targets[chosen], ids[chosen])
    masked = (hidden[chosen] == tokenizer.mask_token_id).float().mean().item()
    kept = (hidden[chosen] == 50).float().mean().item()
    assert masked == pytest.approx(0.8, abs=0.02)
    assert kept == pytest.approx(0.1, abs=0.02)


def test_a_sample_follows_from_its_key() -> None:
    data = SeededDataset(GrammarText(20, share=0.5), seed=0)
    first, again, later = data[Key(3, 0)], data[Key(3, 0)], data[Key(3, 1)]
    assert torch.equal(first["inputs"]["input_ids"], again["inputs"]["input_ids"])
    assert not torch.equal(first["targets"], later["targets"])
    assert torch.equal(first["mask"], first["targets"] != -100)


def test_nothing_is_hidden_where_nothing_is_asked_for() -> None:
    assert GrammarText(3, share=0)[0].keys() == {"inputs", "ids"}


def test_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Tom will buy\n\n  Ruth will sell \n", encoding="utf-8")
    data = TextLines(tmp_path, "a.txt", grammar_tokenizer())
    assert list(data.texts) == ["Tom will buy", "Ruth will sell"]
    with pytest.raises(DataError, match="did you mean 'a.txt'"):
        TextLines(tmp_path, "b.txt", grammar_tokenizer())
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="holds no text"):
        TextLines(tmp_path, "empty.txt", grammar_tokenizer())
    (tmp_path / "latin.txt").write_bytes(b"\xe9t\xe9")
    with pytest.raises(DataError, match="no UTF-8"):
        TextLines(tmp_path, "latin.txt", grammar_tokenizer())


def test_a_tokenizer_without_a_mask_token_is_refused() -> None:
    from limbeck_nlp.tokenization import train_tokenizer

    tokenizer = train_tokenizer(["a b"], kind="words")
    tokenizer.mask_token = None
    with pytest.raises(ConfigError, match="has no mask token"):
        MaskedText(["a b"], tokenizer)
