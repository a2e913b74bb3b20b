"""Parallel text: two files, what is left out of them, and what is said of files that do not fit."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck_core.errors import ConfigError, DataError
from limbeck_nlp.data import pad_batch
from limbeck_nlp.tokenization import main as learn
from limbeck_nlp.tokenization import tokenizer_from, train_tokenizer
from limbeck_nlp.translation import GrammarTranslations, ParallelText

ENGLISH = ["a man rides", "", "two dogs run in the grass", "a cat\u2028sleeps"]
GERMAN = ["ein Mann fährt", "nichts", "zwei Hunde laufen im Gras", "eine Katze schläft"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.en").write_text("\n".join(ENGLISH) + "\n", encoding="utf-8")
    (tmp_path / "train.de.gz").write_bytes(gzip.compress(("\n".join(GERMAN) + "\n").encode()))
    return tmp_path


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer([*ENGLISH, *GERMAN], kind="words", vocabulary_size=100)


def test_a_pair(folder: Path, tokenizer: Any) -> None:
    data = ParallelText("train.en", "train.de.gz", tokenizer, root=folder)
    assert len(data) == 3
    assert data.left_out == {"empty": 1, "long": 0}
    sample = data[0]
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    source, target = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (ENGLISH[0], GERMAN[0]))
    assert sample["inputs"]["input_ids"].tolist() == [*source, end]
    assert sample["inputs"]["decoder_input_ids"].tolist() == [pad, *target]
    assert sample["targets"].tolist() == [*target, end]
    assert sample["reference"] == GERMAN[0]
    assert data.references[2] == "eine Katze schläft"  # a separator of Unicode inside of a line is no new line
    assert data.lengths == [4, 7, 4]


def test_long_pairs_are_left_out_or_cut(folder: Path, tokenizer: Any) -> None:
    files = (folder / "train.en", folder / "train.de.gz")
    short = ParallelText(*files, tokenizer, max_length=5)
    assert (len(short), short.left_out["long"]) == (2, 1)
    cut = ParallelText(*files, tokenizer, max_length=5, long="cut")
    assert len(cut) == 3
    assert len(cut[1]["targets"]) == 5
    assert int(cut[1]["targets"][-1]) == tokenizer.eos_token_id
    assert cut[1]["reference"] == GERMAN[2]  # judged by the whole text


def test_a_batch_pads_what_the_decoder_reads(folder: Path, tokenizer: Any) -> None:
    data = ParallelText("train.en", "train.de.gz", tokenizer, root=folder, start_token=2)
    batch = pad_batch([data[i] for i in range(3)], pad_token=9)
    assert batch["inputs"]["decoder_input_ids"][0].tolist()[0] == 2
    assert batch["inputs"]["decoder_input_ids"][0, 4:].eq(9).all()
    assert batch["targets"][0, 4:].eq(-100).all()
    assert not batch["mask"][0, 4:].any()
    assert batch["reference"] == list(data.references)


def test_what_does_not_fit_is_said(folder: Path, tokenizer: Any) -> None:
    def read(source: str, target: str = "train.de.gz", **options: Any) -> ParallelText:
        return ParallelText(source, target, options.pop("reader", tokenizer), root=folder, **options)

    (folder / "fewer.en").write_text("one\ntwo\n")
    with pytest.raises(DataError, match=r"fewer\.en has 2 lines and .*train\.de\.gz has 4"):
        read("fewer.en")
    with pytest.raises(DataError, match=r"there is no file .*train\.eng; .*train\.en"):
        read("train.eng")
    (folder / "bad.de.gz").write_bytes(gzip.compress(b"text")[:-6])
    with pytest.raises(DataError, match="damaged"):
        read("train.en", "bad.de.gz")
    (folder / "latin.en").write_bytes("fährt\n".encode("latin-1"))
    with pytest.raises(DataError, match="no UTF-8"):
        read("latin.en")
    (folder / "empty.en").write_text("\n\n")
    with pytest.raises(DataError, match="holds no text"):
        read("empty.en")
    with pytest.raises(ConfigError, match="long must be"):
        read("train.en", long="keep")
    (folder / "long.en").write_text("two dogs run in the grass\n")
    with pytest.raises(DataError, match="all 1 pairs are longer than max_length=5"):
        read("long.en", "long.en", max_length=5)
    endless = train_tokenizer(ENGLISH, kind="words", vocabulary_size=50)
    endless.eos_token = None
    with pytest.raises(ConfigError, match="no end token"):
        read("train.en", reader=endless)


def test_translations_of_the_grammar() -> None:
    data, again = GrammarTranslations(50, seed=3), GrammarTranslations(50, seed=3)
    assert data.targets == again.targets
    usual = GrammarTranslations(50, seed=3, ambiguity=0.0)
    assert usual.targets == usual.references == data.references
    assert data.targets != data.references
    words = [len(text.split()) for text in data.sources]
    assert words == [len(text.split()) for text in data.references]
    assert not any(torch.any(data[i]["targets"] == data.tokenizer.unk_token_id) for i in range(50))
    share = sum(
        a != b
        for text, reference in zip(data.targets, data.references, strict=True)
        for a, b in zip(text.split(), reference.split(), strict=True)
    ) / sum(words)
    assert 0.15 < share < 0.3  # names are the same in both


def test_a_tokenizer_is_learnt_from_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(folder / "train.en"), str(folder / "train.de.gz")]
    assert learn([*files, "--out", str(folder / "t"), "--size", "300", "--kind", "bpe"]) == 0
    assert "tokens from 7 lines" in capsys.readouterr().out
    tokenizer = tokenizer_from(folder / "t")
    assert tokenizer.decode(tokenizer("zwei Hunde fährt", add_special_tokens=False)["input_ids"]) == "zwei Hunde fährt"
    assert learn([str(folder / "none.txt"), "--out", str(folder / "t")]) == 2
    assert "there is no file" in capsys.readouterr().err
