"""All measures at once: from memory, from files, as a table, as pictures, and on the command line."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from limbeck_core.errors import DataError
from limbeck_vision.evaluation import (
    Predictions,
    draw_reliability,
    draw_risk_coverage,
    evaluate,
    plots,
    reliability,
    risk_coverage,
    table,
    top_k_accuracy,
)

DRAW = np.random.RandomState(3)
TARGETS = DRAW.randint(0, 8, 120)
LOGITS = DRAW.standard_normal((120, 8)) + 2 * np.eye(8)[TARGETS]
COUNTS = [500, 200, 101, 100, 50, 20, 19, 2]
NUMBERS = ("top1", "top5", "nll", "ece", "aurc", "eaurc", "many", "medium", "few")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "student.npz"
    np.savez(path, logits=LOGITS, targets=TARGETS, train_counts=COUNTS, class_names=[f"kind {i}" for i in range(8)])
    return path


def test_file_mapping_and_probabilities_agree(file: Path) -> None:
    from_file = evaluate(file)
    from_memory = evaluate({"logits": LOGITS, "targets": TARGETS}, train_counts=COUNTS)
    probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    from_probabilities = evaluate({"probabilities": probabilities, "targets": TARGETS}, train_counts=COUNTS)
    checked = evaluate(Predictions.from_logits(LOGITS, TARGETS), train_counts=COUNTS)
    for name in NUMBERS:
        for other in (from_memory, from_probabilities, checked):
            assert other[name] == pytest.approx(from_file[name]), name
    assert from_file["per_class"][3]["name"] == "kind 3"
    assert from_memory["per_class"][3]["name"] == "3"
    assert (from_file["samples"], from_file["classes"]) == (120, 8)
    json.dumps(from_file, allow_nan=False)


def test_top5_needs_more_than_five_classes() -> None:
    assert "top5" not in evaluate({"logits": LOGITS[:, :5], "targets": TARGETS % 5})
    assert "many" not in evaluate({"logits": LOGITS, "targets": TARGETS})


def test_table_shows_every_number_and_the_worst_classes() -> None:
    result = evaluate({"logits": LOGITS, "targets": np.minimum(TARGETS, 6)}, train_counts=[500] * 7 + [30])
    text = table(result)
    assert "120 samples, 8 classes" in text
    for title in ("top-1 accuracy", "top-5", "likelihood", "ECE", "AURC", "E-AURC", "many-shot", "few-shot"):
        assert title in text
    assert f"{result['top1']:.3f} %" in text
    assert "few-shot accuracy                  -" in text
    assert "1 classes have no sample: 7" in text
    worst = min((row for row in result["per_class"] if row["samples"]), key=lambda row: row["accuracy"])
    assert f"{worst['accuracy']:.3f} % of {worst['samples']}" in text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"logits": LOGITS}, "must hold targets and one of logits and probabilities, got logits"),
        ({"targets": TARGETS}, "got targets"),
        ({"logits": LOGITS, "probabilities": LOGITS, "targets": TARGETS}, "got logits, probabilities, targets"),
        ({}, "got nothing"),
    ],
)
def test_missing_arrays_are_named(fields: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(fields)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file of predictions .*absent.npz"):
        evaluate(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(DataError, match=r"text.npz is no readable .npz file of plain arrays"):
        evaluate(str(tmp_path / "text.npz"))
    np.savez(tmp_path / "objects.npz", logits=np.array([object()], dtype=object), targets=[0])
    with pytest.raises(DataError, match=r"objects.npz is no readable .npz file .*numpy.savez"):
        evaluate(tmp_path / "objects.npz")
    np.save(tmp_path / "array.npy", LOGITS)
    with pytest.raises(DataError, match="is no readable .npz file"):
        evaluate(tmp_path / "array.npy")


# ---------------------------------------------------------------------- pictures


def test_pictures_have_titles_labels_and_a_legend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    save = plots._save
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure) or save(figure, path))
    predictions = Predictions.from_logits(LOGITS, TARGETS)
    softer = Predictions.from_logits(LOGITS / 4, TARGETS)
    diagrams = {"student": reliability(predictions), "teacher": reliability(softer)}
    first = draw_reliability(diagrams, tmp_path / "new" / "reliability.png", title="Digits")
    curves = {"student": risk_coverage(predictions), "teacher": risk_coverage(softer)}
    second = draw_risk_coverage(curves, tmp_path / "risk.png")
    for path in (first, second):
        content = path.read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert min(struct.unpack(">II", content[16:24])) > 400
    upper, lower = figures[0].axes
    assert (upper.get_title(), upper.get_ylabel(), lower.get_xlabel()) == ("Digits", "accuracy", "confidence")
    assert lower.get_ylabel() == "share of samples"
    (axes,) = figures[1].axes
    assert axes.get_title() == "Risk and coverage"
    assert axes.get_xlabel().startswith("coverage")
    assert axes.get_ylabel().startswith("risk")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["student", "teacher"]
    assert len({line.get_color() for line in axes.lines}) == len({line.get_linestyle() for line in axes.lines}) == 2
    np.testing.assert_allclose(axes.lines[0].get_ydata(), curves["student"].risk)


# ---------------------------------------------------------------------- command line


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = Path(__file__).parents[3] / "tools" / "eval_vision.py"
    spec = importlib.util.spec_from_file_location("eval_vision", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tool_prints_a_table_and_writes_json_and_pictures(
    tool: ModuleType, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, pictures = tmp_path / "deep" / "result.json", tmp_path / "pictures"
    assert tool.main(["--predictions", str(file), "--json", str(out), "--plots", str(pictures)]) == 0
    written = json.loads(out.read_text())
    assert written["top1"] == pytest.approx(top_k_accuracy(Predictions.from_logits(LOGITS, TARGETS)))
    assert f"{written['ece']:.3f} %" in capsys.readouterr().out
    assert sorted(path.name for path in pictures.iterdir()) == ["reliability.png", "risk_coverage.png"]


def test_tool_writes_infinity_as_null(tool: ModuleType, tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", probabilities=[[1.0, 0.0]], targets=[1])
    assert tool.main(["--predictions", str(tmp_path / "p.npz"), "--json", str(tmp_path / "r.json")]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["nll"] is None


def test_tool_reports_errors_in_one_line(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["--predictions", str(tmp_path / "absent.npz")]) == 1
    assert capsys.readouterr().err.startswith("error: there is no file of predictions")


def test_tool_takes_counts(tool: ModuleType, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["--predictions", str(file), "--bins", "5", "--train-counts", *map(str, [1] * 8)]) == 0
    assert "many-shot accuracy                 -" in capsys.readouterr().out
