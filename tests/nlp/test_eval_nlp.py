"""tools/eval_nlp.py: tables, files, pictures, and what it says of what does not fit."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck_core.build import build
from limbeck_core.engine.config import load_config
from source_tree import ROOT


@pytest.fixture(scope="module")
def main() -> Any:
    return runpy.run_path(str(ROOT / "tools" / "eval_nlp.py"))["main"]


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def scores(folder: Path, name: str = "a.jsonl", sign: int = 1) -> str:
    rows = [{"score": sign * (number + 2 * (number % 2)), "outlier": number % 2 == 1} for number in range(20)]
    return written(folder, name, "\n".join(json.dumps(row) for row in rows))


def test_answers(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [{"text": "the old lamp", "answer_start": 15}]
    question = {"id": "q1", "question": "What?", "answers": answers}
    paragraph = {"context": "Anna will sell the old lamp", "qas": [question, {**question, "id": "q2"}]}
    squad = {"version": "1.1", "data": [{"title": "t", "paragraphs": [paragraph]}]}
    truth = written(tmp_path, "squad.json", json.dumps(squad))
    found = written(tmp_path, "answers.json", json.dumps({"q1": "old lamp", "q2": "boat"}))
    out = tmp_path / "r.json"
    asked = ["qa", "--predictions", found, "--truth", truth, "--language", "en", "--json", str(out)]
    assert main(asked) == 0
    assert json.loads(out.read_text())["exact_match"] == pytest.approx(50.0)
    assert "exact_match  50.00" in capsys.readouterr().out
    assert main(["qa", "--predictions", written(tmp_path, "bad.json", "[]"), "--truth", truth]) == 1
    assert "must hold an object of answers" in capsys.readouterr().err


def test_entities(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = written(tmp_path, "t.conll", "Anna B-PER\nBerg I-PER\nin O\nParis B-LOC\n\n")
    found = written(tmp_path, "f.conll", "Anna B-PER\nBerg I-PER\nin O\nParis O\n\n")
    assert main(["ner", "--predictions", found, "--truth", truth]) == 0
    printed = capsys.readouterr().out
    assert "66.67" in printed
    assert "PER" in printed
    with pytest.raises(SystemExit):
        main(["ner", "--predictions", found])


def test_outliers_with_pictures(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = tmp_path / "pictures"
    first, second = scores(tmp_path), scores(tmp_path, "b.jsonl", -1)
    assert main(["ood", "--predictions", first, second, "--pictures", str(pictures)]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("auroc", "fpr95", str(tmp_path / "a"), str(tmp_path / "b")))
    assert {path.name for path in pictures.iterdir()} == {"roc.png", "scores_1.png", "scores_2.png"}
    assert main(["ood", "--predictions", first]) == 0
    assert "auroc" in capsys.readouterr().out
    assert main(["ood", "--predictions", str(tmp_path / "none.jsonl")]) == 1
    assert "there is no file" in capsys.readouterr().err


def test_classes(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = written(tmp_path, "table.tsv", "prediction\tlabel\nyes\tyes\nno\tyes\nno\tno\nno\tno\n")
    assert main(["classification", "--predictions", table]) == 0
    printed = capsys.readouterr().out
    assert "accuracy  75.00" in printed
    assert "73.33" in printed  # macro F1: 2/3 for yes, 4/5 for no


def test_translations(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = written(tmp_path, "t.de", "ein Mann fährt heute Rad\nzwei Hunde laufen im Gras\n")
    assert main(["translation", "--predictions", truth, "--truth", truth, "--json", str(tmp_path / "r.json")]) == 0
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["bleu"] == pytest.approx(100)
    assert "tok:13a" in found["signature"]
    assert "signature" in capsys.readouterr().out
    short = written(tmp_path, "s.de", "ein Mann\n")
    assert main(["translation", "--predictions", short, "--truth", truth]) == 1
    assert "has 1 lines" in capsys.readouterr().err
    assert main(["translation", "--predictions", truth, "--truth", truth, "--tokenize", "none-such"]) == 1
    assert "no tokenizer 'none-such'" in capsys.readouterr().err


def test_a_checkpoint(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = "nlp/ood/grammar_scratch"
    torch.save(build(load_config(config).model.student).state_dict(), tmp_path / "s.pth")
    less = ["test_dataloader.dataset.size=40", f"+work_dir={tmp_path / 'runs'}"]
    asked = ["ood", "--config", config, "--checkpoint", str(tmp_path / "s.pth"), "--cfg-options", *less]
    assert main([*asked, "--pictures", str(tmp_path / "p"), "--json", str(tmp_path / "r.json")]) == 0
    found = json.loads((tmp_path / "r.json").read_text())
    assert (found["inside"], found["outside"]) == (20, 20)
    assert 0 <= found["auroc"] <= 100
    assert len((tmp_path / "p" / "scores.jsonl").read_text().splitlines()) == 40
    assert {path.name for path in (tmp_path / "p").glob("*.png")} == {"roc.png", "scores.png"}
    assert "fpr95" in capsys.readouterr().out


def test_one_source_is_wanted(main: Any, tmp_path: Path) -> None:
    for arguments in ([], ["--predictions", scores(tmp_path), "--config", "c", "--checkpoint", "f"]):
        with pytest.raises(SystemExit):
            main(["ood", *arguments])
