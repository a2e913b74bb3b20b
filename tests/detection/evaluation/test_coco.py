"""Average precision with known answers, from files and from a run's batches; pictures; the command."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck_core.errors import DataError
from limbeck_detection.evaluation import CocoMetric, average_precision, draw_detections, evaluate, table

TOOL = Path(__file__).parents[3] / "tools" / "eval_detection.py"


def truth() -> dict[str, Any]:
    """Two images; a small and a medium object of category 4, a crowd, and one object of category 9."""
    return {
        "images": [{"id": i, "width": 100, "height": 100, "file_name": f"{i}.png"} for i in (1, 2)],
        "categories": [{"id": 4, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [
            {"id": 0, "image_id": 1, "category_id": 4, "bbox": [10, 10, 20, 20], "area": 400.0, "iscrowd": 0},
            {"id": 1, "image_id": 1, "category_id": 4, "bbox": [40, 40, 50, 50]},
            {"id": 2, "image_id": 2, "category_id": 4, "bbox": [0, 0, 90, 90], "area": 8100.0, "iscrowd": 1},
            {"id": 3, "image_id": 2, "category_id": 9, "bbox": [10, 10, 40, 40], "area": 1600.0, "iscrowd": 0},
        ],
    }


def found(image: int, category: int, box: list[float], score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


PERFECT = [
    found(1, 4, [10, 10, 20, 20], 0.9),
    found(1, 4, [40, 40, 50, 50], 0.8),
    found(2, 9, [10, 10, 40, 40], 0.7),
]


def test_perfect_boxes() -> None:
    result = average_precision(truth(), PERFECT)
    assert result["AP"] == result["AP50"] == result["AP75"] == result["AR100"] == pytest.approx(100.0)
    assert result["AP_small"] == result["AP_medium"] == pytest.approx(100.0)
    assert result["AP_large"] is None
    assert result["per_class"] == {"cat": pytest.approx(100.0), "dog": pytest.approx(100.0)}


def test_a_box_with_iou_of_0_6_counts_up_to_that_threshold() -> None:
    result = average_precision(truth(), [*PERFECT[:2], found(2, 9, [10, 10, 40, 24], 0.7)])
    # of ten thresholds 0.50, 0.55 and 0.60 are met
    assert result["per_class"] == {"cat": pytest.approx(100.0), "dog": pytest.approx(30.0)}
    assert result["AP"] == pytest.approx(65.0)
    assert result["AP75"] == pytest.approx(50.0)


def test_detections_on_a_crowd_cost_nothing_and_a_false_one_does() -> None:
    on_crowd = average_precision(truth(), [*PERFECT, found(2, 4, [5, 5, 20, 20], 0.99)])
    assert on_crowd["AP"] == pytest.approx(100.0)
    false = average_precision(truth(), [*PERFECT, found(1, 9, [5, 5, 20, 20], 0.99)])
    assert false["per_class"]["dog"] == pytest.approx(50.0)


def test_nothing_found_is_nothing_not_an_error() -> None:
    result = average_precision(truth(), [])
    assert result["AP"] == result["AP_small"] == result["AR1"] == 0.0
    assert result["AP_large"] is None
    assert result["per_class"] == {"cat": 0.0, "dog": 0.0}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_id": 1, "category_id": 4, "bbox": [1, 2, 3, 4]}, "prediction 0 lacks score"),
        (found(7, 4, [1, 2, 3, 4], 0.5), "prediction 0 is of image 7, which the annotations lack"),
        (found(1, 0, [1, 2, 3, 4], 0.5), r"category 0, which the annotations lack \(they have \[4, 9\]\)"),
        (found(1, 4, [1, 2, 3], 0.5), "bbox of prediction 0 must be"),
    ],
)
def test_predictions_of_another_data_set(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        average_precision(truth(), [wrong])


def files(folder: Path, predictions: Any = PERFECT) -> tuple[Path, Path]:
    (folder / "truth.json").write_text(json.dumps(truth()), encoding="utf-8")
    (folder / "found.json").write_text(json.dumps(predictions), encoding="utf-8")
    return folder / "found.json", folder / "truth.json"


def test_files(tmp_path: Path) -> None:
    result = evaluate(*files(tmp_path))
    assert (result["images"], result["detections"]) == (2, 3)
    lines = table(result).splitlines()
    assert lines[0].split() == ["AP", "100.0"]
    assert ["AP_large", "-"] in [line.split() for line in lines]
    with pytest.raises(DataError, match="must be a list of mappings"):
        evaluate(*files(tmp_path, {"a": 1}))


def batch() -> dict[str, Any]:
    crowd = {"labels": torch.tensor([0]), "area": torch.tensor([8100.0]), "crowd": torch.tensor([True])}
    marks = [
        {
            "boxes": torch.tensor([[10.0, 10, 30, 30], [40, 40, 90, 90]]),
            "labels": torch.tensor([0, 0]),
            "area": torch.tensor([400.0, 2500.0]),
            "crowd": torch.tensor([False, False]),
        },
        {"boxes": torch.tensor([[0.0, 0, 90, 90]]), **crowd},
    ]
    sizes = torch.tensor([[100, 100], [100, 100]])
    return {"truth": marks, "ids": torch.tensor([1, 2]), "sizes": sizes}


def test_the_metric_of_a_run_agrees_and_writes_what_the_tool_reads(tmp_path: Path) -> None:
    metric = CocoMetric(classes=["cat", "dog"], category_ids=[4, 9], predictions=tmp_path / "found.json")
    boxes = [torch.tensor([[10.0, 10, 30, 30], [40, 40, 90, 60]]), torch.tensor([[1.0, 1, 5, 5]])]
    labels, scores = [torch.tensor([0, 0]), torch.tensor([0])], [torch.tensor([0.9, 0.8]), torch.tensor([0.99])]
    rows = [{"boxes": b, "labels": n, "scores": s} for b, n, s in zip(boxes, labels, scores, strict=True)]
    metric.process(batch(), rows)
    numbers = metric.evaluate(2)
    marks = [mark for mark in truth()["annotations"] if mark["category_id"] == 4]
    (tmp_path / "truth.json").write_text(json.dumps({**truth(), "annotations": marks}), encoding="utf-8")
    again = evaluate(tmp_path / "found.json", tmp_path / "truth.json")
    assert 0 < numbers["AP50"] < 100
    assert {name: again[name] for name in numbers} == pytest.approx(numbers)
    assert "AP_large" not in numbers


def test_the_metric_needs_the_truth() -> None:
    with pytest.raises(DataError, match="give the data set truth=True"):
        CocoMetric().process({"ids": torch.tensor([1])}, [])


def test_pictures(tmp_path: Path) -> None:
    image, boxes = torch.rand(3, 32, 48), torch.tensor([[2.0, 3, 20, 30]])
    there = {"boxes": boxes, "labels": torch.tensor([1])}
    path = draw_detections(
        [image],
        {"truth": [there], "found": [{**there, "scores": torch.tensor([0.9])}]},
        tmp_path / "a.png",
        classes="ab",
    )
    assert path.read_bytes().startswith(b"\x89PNG")


def run_tool(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", [str(TOOL), *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(TOOL), run_name="__main__")
    return int(ended.value.code or 0)


def test_the_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    predictions, annotations = map(str, files(tmp_path))
    out = tmp_path / "result.json"
    words = ("--predictions", predictions, "--annotations", annotations, "--json", str(out))
    assert run_tool(monkeypatch, *words) == 0
    assert capsys.readouterr().out.split()[:2] == ["AP", "100.0"]
    assert json.loads(out.read_text())["AP"] == pytest.approx(100.0)
    assert run_tool(monkeypatch, "--predictions", predictions, "--annotations", str(tmp_path / "none.json")) == 1
    assert "none.json cannot be read" in capsys.readouterr().err
    assert run_tool(monkeypatch, "--predictions", predictions) == 2
