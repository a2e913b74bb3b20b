"""Samples of text and their batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from limbeck_core.engine.sampler import build_dataloader
from limbeck_core.errors import ConfigError, DataError, ShapeError
from limbeck_nlp.data import ClassifiedText, Grammar, GrammarIntents, grammar_tokenizer, pad_batch


def test_a_sample_has_inputs_target_and_id() -> None:
    data = GrammarIntents(size=10)
    sample = data[3]
    assert sample.keys() == {"inputs", "targets", "ids"}
    assert sample["ids"] == 3
    assert sample["targets"] == data.sentences[3].intent
    assert data.tokenizer.decode(sample["inputs"]["input_ids"], skip_special_tokens=True) == data.sentences[3].text
    assert data[-1]["ids"] == 9
    with pytest.raises(IndexError):
        data[10]


def test_training_and_test_sentences_differ() -> None:
    train, test = GrammarIntents(True, size=50), GrammarIntents(False, size=50)
    assert [s.text for s in train.sentences] != [s.text for s in test.sentences]
    assert [s.text for s in train.sentences] == [s.text for s in Grammar(0).sentences(50)]


def test_label_noise_spoils_the_share_it_says() -> None:
    clean, noisy = GrammarIntents(size=200), GrammarIntents(size=200, label_noise=0.25)
    assert (clean.targets != noisy.targets).sum() == 50
    assert noisy.targets.max() < noisy.num_classes
    with pytest.raises(ConfigError, match="label_noise is for training"):
        GrammarIntents(False, label_noise=0.1)


def test_padding_stands_where_it_should() -> None:
    samples = [
        {
            "inputs": {"input_ids": torch.tensor([5, 6]), "attention_mask": torch.tensor([1, 1])},
            "targets": torch.tensor([1, 2]),
        },
        {"inputs": {"input_ids": torch.tensor([7]), "attention_mask": torch.tensor([1])}, "targets": torch.tensor([3])},
    ]
    batch = pad_batch(samples, pad_token=9, multiple_of=4)
    assert batch["inputs"]["input_ids"].tolist() == [[5, 6, 9, 9], [7, 9, 9, 9]]
    assert batch["inputs"]["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]
    assert batch["targets"].tolist() == [[1, 2, -100, -100], [3, -100, -100, -100]]
    left = pad_batch(samples, side="left")
    assert left["inputs"]["input_ids"].tolist() == [[5, 6], [0, 7]]


def test_numbers_stack_and_other_things_stay_lists() -> None:
    batch = pad_batch([{"targets": 1, "name": "a", "scores": torch.zeros(2, 3)}] * 2)
    assert batch["targets"].tolist() == [1, 1]
    assert batch["name"] == ["a", "a"]
    assert batch["scores"].shape == (2, 2, 3)


def test_unlike_samples_are_refused() -> None:
    with pytest.raises(ShapeError, match="must have the same names"):
        pad_batch([{"targets": 1}, {"labels": 1}])
    with pytest.raises(ShapeError, match="'scores' cannot be stacked"):
        pad_batch([{"scores": torch.zeros(1, 2)}, {"scores": torch.zeros(2, 2)}])
    with pytest.raises(ConfigError, match="side must be"):
        pad_batch([{"targets": 1}], side="top")  # type: ignore[arg-type]


def test_the_loader_makes_batches_of_it() -> None:
    loader = {"dataset": {"type": GrammarIntents, "size": 6}, "batch_size": 4, "collate_fn": {"type": pad_batch}}
    batch = next(iter(build_dataloader(loader, seed=0, training=False)))
    assert batch["inputs"]["input_ids"].shape == batch["inputs"]["attention_mask"].shape
    assert batch["ids"].tolist() == [0, 1, 2, 3]


def test_tables_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('sentence\tlabel\nTom will "buy\tyes\nRuth will sell\tno\n', encoding="utf-8")
    data = ClassifiedText(tmp_path, "a.tsv", grammar_tokenizer())
    assert data.classes == ("no", "yes")
    assert [data[i]["targets"] for i in range(2)] == [1, 0]
    (tmp_path / "b.csv").write_text('one,two,label\n"Tom, Ruth",sell,1\n', encoding="utf-8")
    pairs = ClassifiedText(tmp_path, "b.csv", grammar_tokenizer(), text="one", pair="two", classes=("0", "1"))
    assert pairs[0]["targets"] == 1
    assert pairs[0]["inputs"]["input_ids"].tolist().count(grammar_tokenizer().sep_token_id) == 2
    (tmp_path / "c.jsonl").write_text('{"text": "Tom will buy"}\n\n', encoding="utf-8")
    bare = ClassifiedText(tmp_path, "c.jsonl", grammar_tokenizer(), text="text", label=None)
    assert bare[0].keys() == {"inputs", "ids"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "sentence\tlable\nx\ty\n", "has no column 'label': did you mean 'lable'"),
        ("a.tsv", "sentence\tlabel\nx\n", "line 2: expected 2 columns, got 1"),
        ("a.tsv", "sentence\tlabel\n", "holds no text"),
        ("a.txt", "x", "must be a .tsv, .csv or .jsonl"),
        ("a.jsonl", "{", "must hold one JSON object a line"),
        ("a.jsonl", '{"sentence": "x"}', "line 1: there is no 'label'"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        ClassifiedText(tmp_path, name, grammar_tokenizer())


def test_missing_files_and_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("sentence\tlabel\nx\tyes\n", encoding="utf-8")
    with pytest.raises(DataError, match="did you mean 'train.tsv'"):
        ClassifiedText(tmp_path, "trian.tsv", grammar_tokenizer())
    with pytest.raises(DataError, match="holds the class 'yes', which is not in classes"):
        ClassifiedText(tmp_path, "train.tsv", grammar_tokenizer(), classes=("no", "yeah"))
