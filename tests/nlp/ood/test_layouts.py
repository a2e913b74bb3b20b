"""The layouts of the data sets, from files that the tests write."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from limbeck_core.errors import ConfigError, DataError
from limbeck_nlp.data import grammar_tokenizer
from limbeck_nlp.ood import GrammarOod, OodText, read_ood


def lines(folder: Path, **files: list[str]) -> None:
    for name, texts in files.items():
        (folder / f"{name}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")


def test_lines(tmp_path: Path) -> None:
    lines(tmp_path, train=["a b", "", "c"], test=["d"], ood=["x", "y"])
    assert read_ood(tmp_path, "lines", "train") == [("a b", False), ("c", False)]
    assert read_ood(tmp_path, "lines", "test") == [("d", False), ("x", True), ("y", True)]


@pytest.mark.parametrize("packed", [False, True])
def test_clinc150(tmp_path: Path, packed: bool) -> None:
    parts = {"train": [["pay a bill", "pay_bill"]], "test": [["hello", "greeting"]], "oos_test": [["why", "oos"]]}
    text = json.dumps({**parts, "oos_train": [["never read", "oos"]]}).encode()
    name = "data_full.json.gz" if packed else "data_full.json"
    (tmp_path / name).write_bytes(gzip.compress(text) if packed else text)
    assert read_ood(tmp_path, "clinc150", "train") == [("pay a bill", False)]
    assert read_ood(tmp_path, "clinc150", "test") == [("hello", False), ("why", True)]


def test_sst(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text('sentence\tlabel\na "good" film\t1\n', encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\ndull\t0\n", encoding="utf-8")
    lines(tmp_path, ood=["the court"])
    assert read_ood(tmp_path, "sst", "train") == [('a "good" film', False)]
    assert read_ood(tmp_path, "sst", "test") == [("dull", False), ("the court", True)]


def test_rostd(tmp_path: Path) -> None:
    rows = "alarm/set\t \tset an alarm\tE\noutOfDomain\tFILLER\twho owns it\tFILLER\n"
    for name in ("OODRemovedtrain.tsv", "test.tsv"):
        (tmp_path / name).write_text(rows, encoding="utf-8")
    assert read_ood(tmp_path, "rostd", "test") == [("set an alarm", False), ("who owns it", True)]
    assert read_ood(tmp_path, "rostd", "train") == [("set an alarm", False)]


def test_newsgroups(tmp_path: Path) -> None:
    post = "From: a@b\nSubject: x\n\nAnna writes:\n> quoted\nMy own words\ngo on\n--\nSignature\n"
    for part in ("train", "test"):
        for group in ("comp.graphics", "rec.autos", "alt.atheism"):
            folder = tmp_path / f"20news-bydate-{part}" / group
            folder.mkdir(parents=True)
            (folder / "1").write_text(post, encoding="latin-1")
    assert read_ood(tmp_path, "20ng", "train", inside="rel") == [("My own words go on", False)]
    assert [flag for _, flag in read_ood(tmp_path, "20ng", "test", inside="comp")] == [True, False, True]


def test_ag_news(tmp_path: Path) -> None:
    rows = '"3","Shares up","A, b ""c"""\n"2","Cup","Final"\n'
    for part in ("train", "test"):
        (tmp_path / f"{part}.csv").write_text(rows, encoding="utf-8")
    assert read_ood(tmp_path, "ag_news", "train", inside="sports") == [("Cup Final", False)]
    assert read_ood(tmp_path, "ag_news", "test", inside="business") == [
        ('Shares up A, b "c"', False),
        ("Cup Final", True),
    ]


def test_answers_of_machines_and_people(tmp_path: Path) -> None:
    entries = [
        {"question": "q", "human_answers": [f"human\n{i}"], "chatgpt_answers": [f"machine {i}", " "]} for i in range(4)
    ]
    (tmp_path / "all.jsonl").write_text("\n".join(json.dumps(entry) for entry in entries), encoding="utf-8")
    train, test = (read_ood(tmp_path, "hc3", part) for part in ("train", "test"))
    assert len(train) == 2
    assert {text for text, _ in train} | {text for text, flag in test if not flag} == {f"machine {i}" for i in range(4)}
    assert {text for text, flag in test if flag} == {f"human {i}" for i in range(4)}
    assert all(text.startswith("human") for text, _ in read_ood(tmp_path, "hc3", "train", inside="human"))


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="closest|did you mean|clinc150"):
        read_ood(tmp_path, "clinc", "train")
    with pytest.raises(ConfigError, match="part must be"):
        read_ood(tmp_path, "lines", "dev")
    with pytest.raises(ConfigError, match="inside must name"):
        read_ood(tmp_path, "20ng", "train", inside="cars")
    with pytest.raises(ConfigError, match="no classes to choose from"):
        read_ood(tmp_path, "rostd", "train", inside="comp")
    for layout, inside in (("clinc150", None), ("rostd", None), ("ag_news", "world"), ("hc3", None), ("20ng", "sci")):
        with pytest.raises(DataError, match="there is no"):
            read_ood(tmp_path, layout, "train", inside=inside)
    (tmp_path / "all.jsonl").write_text('{"human_answers": []}\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 1: expected a list 'chatgpt_answers'"):
        read_ood(tmp_path, "hc3", "train")
    (tmp_path / "test.tsv").write_text("alarm\tset an alarm\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 1: expected 3 columns or more, got 2"):
        read_ood(tmp_path, "rostd", "test")


def test_a_data_set_knows_its_outliers(tmp_path: Path) -> None:
    lines(tmp_path, train=["Anna Berg will buy the old lamp"], test=["Anna"], ood=["lamp old the"])
    train = OodText(tmp_path, "lines", grammar_tokenizer())
    test = OodText(tmp_path, "lines", grammar_tokenizer(), train=False)
    assert [sample["outlier"] for sample in (train[0], test[0], test[1])] == [False, False, True]
    assert train[0]["mask"].tolist() == [True] * (len(train[0]["targets"]) - 1) + [False]


def test_the_grammars_outliers_are_made_of_the_same_words() -> None:
    inside, outside = GrammarOod(40, seed=1), GrammarOod(40, seed=1, outliers=1.0)
    assert sum(inside.outliers) == 0
    for text, other in zip(inside.texts, outside.texts, strict=True):
        assert sorted(text.split()) == sorted(other.split())
        assert sum(a != b for a, b in zip(text.split(), other.split(), strict=True)) in (0, 2)
    assert sum(a == b for a, b in zip(inside.texts, outside.texts, strict=True)) == 0
    share = GrammarOod(40, seed=1, outliers=0.25)
    assert sum(share.outliers) == 10
    assert GrammarOod(40, seed=1, outliers=0.25).texts == share.texts
    pairs = [set(GrammarOod(300, outliers=part, kind="pairing").texts) for part in (0.0, 1.0)]
    assert pairs[0].isdisjoint(pairs[1])
    with pytest.raises(ConfigError, match="a share from 0 to 1"):
        GrammarOod(10, outliers=2.0)
    with pytest.raises(ConfigError, match="'order' or 'pairing'"):
        GrammarOod(10, kind="spelling")  # type: ignore[arg-type]
