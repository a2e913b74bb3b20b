"""Tokenizers that are learnt here, read back, and held against each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck_core.errors import ConfigError, DataError
from limbeck_nlp.data import corpus
from limbeck_nlp.tokenization import (
    SPECIAL,
    as_tokenizer,
    check_same_vocabulary,
    same_vocabulary,
    tokenizer_from,
    train_tokenizer,
    vocabulary_hash,
)

TEXT = corpus(200)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram", "words"])
def test_text_survives(kind: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXT, kind=kind, vocabulary_size=350)  # type: ignore[arg-type]
    assert [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL] == list(range(len(SPECIAL)))
    ids = tokenizer(TEXT[0])["input_ids"]
    assert ids[0] == tokenizer.cls_token_id
    assert ids[-1] == tokenizer.sep_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == TEXT[0]
    tokenizer.save_pretrained(tmp_path)
    again = as_tokenizer(tmp_path)
    assert again(TEXT[1], TEXT[2])["input_ids"] == tokenizer(TEXT[1], TEXT[2])["input_ids"]
    assert vocabulary_hash(again) == vocabulary_hash(tokenizer)


@pytest.mark.parametrize("kind", ["bpe", "words"])
def test_the_same_text_gives_the_same_tokenizer(kind: str) -> None:
    hashes = {vocabulary_hash(train_tokenizer(TEXT, kind=kind, vocabulary_size=320)) for _ in range(3)}  # type: ignore[arg-type]
    assert len(hashes) == 1


def test_segments_only_where_asked_for() -> None:
    pair = ("Tom will buy", "a boat")
    assert "token_type_ids" not in train_tokenizer(TEXT, kind="words")(*pair)
    segments = train_tokenizer(TEXT, kind="words", segments=True)(*pair)["token_type_ids"]
    assert segments == [0, 0, 0, 0, 0, 1, 1, 1]


def test_case_is_folded_where_asked_for() -> None:
    for kind in ("wordpiece", "unigram"):
        tokenizer = train_tokenizer(TEXT, kind=kind, lowercase=True, vocabulary_size=300)  # type: ignore[arg-type]
        assert tokenizer("ANNA will")["input_ids"] == tokenizer("anna will")["input_ids"]


def test_vocabularies_are_held_against_each_other() -> None:
    words, pieces = train_tokenizer(TEXT, kind="words"), train_tokenizer(TEXT, vocabulary_size=150)
    assert same_vocabulary(words, words)
    assert not same_vocabulary(words, pieces)
    with pytest.raises(ConfigError, match=r"different vocabularies: id \d+ is the token"):
        check_same_vocabulary(words, pieces)


def test_a_padded_vocabulary_is_the_same() -> None:
    words, padded = (train_tokenizer(TEXT, kind="words") for _ in range(2))
    padded.add_tokens(["<padding>"])
    assert same_vocabulary(words, padded)
    check_same_vocabulary(padded, words)


def test_what_cannot_be_learnt_or_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text"):
        train_tokenizer(["", "  "])
    with pytest.raises(DataError, match="got one string"):
        train_tokenizer("a text")
    with pytest.raises(ConfigError, match="vocabulary_size must be above 7"):
        train_tokenizer(TEXT, vocabulary_size=7)
    with pytest.raises(ConfigError, match="kind must be one of"):
        train_tokenizer(TEXT, kind="letters")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="names of a hub are not looked up"):
        tokenizer_from("bert-base-uncased")
    with pytest.raises(DataError, match="holds no tokenizer"):
        tokenizer_from(tmp_path)
    with pytest.raises(ConfigError, match="tokenizer must be one of transformers"):
        as_tokenizer(3)
