"""A detector beyond training: exported with its classes, predicting from files and folders, measured and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from limbeck_core.build import build
from limbeck_core.cli import main
from limbeck_core.engine.checkpoints import save_student
from limbeck_core.engine.config import load_config
from limbeck_core.errors import ConfigError, DataError
from limbeck_detection.calls import DetectionCall
from limbeck_detection.evaluation import (
    average_precision,
    draw_precision_recall,
    judge_checkpoint,
    measure_speed,
    numbers_and_curves,
)
from limbeck_detection.predictor import DetectionPredictor
from limbeck_detection.rendered import render

CONFIG = "detection/rendered/dfine_tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few drawn images, and a tiny D-FINE with the weights it begins with."""
    out = tmp_path_factory.mktemp("serving")
    render(out, train=2, val=4)
    torch.manual_seed(0)
    save_student(build(load_config(CONFIG).model.student), out / "student.pth")
    return out


def test_the_graph_takes_any_batch_and_knows_its_classes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", CONFIG, "--checkpoint", str(folder / "student.pth"), "--data-root", str(folder)]
    assert main([*words, "--format", "onnx"]) == 0
    assert "circle, square, triangle" in capsys.readouterr().out
    path = str(folder / "student.onnx")
    facts = {prop.key: json.loads(prop.value) for prop in onnx.load(path).metadata_props}
    assert facts["classes"] == ["circle", "square", "triangle"]
    assert facts["limbeck"]["inputs"] == ["inputs float32 (batch, 3, 96, 96)"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["labels", "boxes", "scores"]
    for batch in (1, 5):
        labels, boxes, scores = session.run(None, {"inputs": np.zeros((batch, 3, 96, 96), np.float32)})
        assert (labels.shape, boxes.shape, scores.shape) == ((batch, 90), (batch, 90, 4), (batch, 90))


class TestDifference:
    def outputs(self) -> dict[str, torch.Tensor]:
        boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30], [5, 5, 9, 9]]])
        return {"labels": torch.tensor([[0, 1, 0]]), "boxes": boxes, "scores": torch.tensor([[0.9, 0.5, 0.1]])}

    def test_ties_may_be_listed_either_way(self) -> None:
        one = self.outputs()
        one["scores"] = torch.tensor([[0.9, 0.9, 0.1]])
        other = {name: value[:, [1, 0, 2]] for name, value in one.items()}
        assert DetectionCall().difference(other, one) == pytest.approx(0.0, abs=1e-7)

    @pytest.mark.parametrize(("name", "value"), [("boxes", 3.0), ("scores", 0.3), ("labels", 1)])
    def test_another_detection_is_seen(self, name: str, value: float) -> None:
        changed = {key: tensor.clone() for key, tensor in self.outputs().items()}
        changed[name][0, 0] += value
        assert DetectionCall().difference(changed, self.outputs()) > 0.09


def test_predict_takes_files_and_folders(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--cfg-options", "+predictor.threshold=0.0", f"+predictor.out={tmp_path / 'drawn'}"]
    words = ["predict", CONFIG, "--checkpoint", str(folder / "student.pth"), str(folder / "val")]
    assert main([*words, *options]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(row["input"]).parent.name for row in rows] == ["val"] * 4
    assert len(rows[0]["detections"]) == 90
    assert {row["class"] for row in rows[0]["detections"]} <= {"circle", "square", "triangle"}
    assert sorted(path.stem for path in (tmp_path / "drawn").iterdir()) == sorted(Path(r["input"]).stem for r in rows)
    assert main(["predict", CONFIG, "--checkpoint", str(folder / "student.pth"), str(tmp_path)]) == 2
    assert "is a folder without a file of .jpg" in capsys.readouterr().err


def test_boxes_are_in_pixels_of_the_file(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "wide.png")
    predictor = DetectionPredictor(32, classes=["a"])
    sample = predictor.read(str(tmp_path / "wide.png"))
    assert sample["inputs"].shape == (3, 32, 32)
    assert sample["inputs"].dtype == torch.float32
    assert sample["sizes"].tolist() == [40, 20]
    found = {
        "labels": torch.tensor([0, 0]),
        "boxes": torch.tensor([[1.0, 2, 3, 4]] * 2),
        "scores": torch.tensor([0.9, 0.4]),
    }
    assert predictor.describe("wide.png", [found]) == {
        "input": "wide.png",
        "detections": [{"class": "a", "score": 0.9, "box": [1.0, 2.0, 3.0, 4.0]}],
    }
    with pytest.raises(ConfigError, match="has 1 class names, and the model found label 3"):
        predictor.describe("wide.png", [{**found, "labels": torch.tensor([3, 0])}])


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 8, "threshold": 1.5}])
def test_a_predictor_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="size of 1 or more and a threshold in"):
        DetectionPredictor(**options)


def test_precision_over_recall(tmp_path: Path) -> None:
    truth = {
        "images": [{"id": 1, "width": 100, "height": 100, "file_name": "1"}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]},
            {"image_id": 1, "category_id": 1, "bbox": [50, 50, 10, 10]},
        ],
    }
    found = [
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.9},
        {"image_id": 1, "category_id": 1, "bbox": [80, 0, 10, 10], "score": 0.8},
    ]
    numbers, curves = numbers_and_curves(truth, found)
    assert numbers == average_precision(truth, found)
    assert curves.keys() == {"a"}  # of b there is nothing to find
    assert curves["a"][:51] == [1.0] * 51  # half of the objects at full precision, the rest never
    assert curves["a"][51:] == [0.0] * 50
    assert numbers_and_curves(truth, [])[1] == {"a": [0.0] * 101}
    assert draw_precision_recall(curves, tmp_path / "curves.png").stat().st_size > 1000
    with pytest.raises(DataError, match="no class with an object"):
        draw_precision_recall({}, tmp_path / "none.png")


def test_a_checkpoint_is_judged_shown_and_measured(folder: Path) -> None:
    judged = judge_checkpoint(CONFIG, folder / "student.pth", data_root=folder, show=3, speed=True)
    assert judged.result["images"] == 4
    assert judged.curves.keys() <= {"circle", "square", "triangle"}
    assert len(judged.shown) == 3
    seen = judged.shown[0]
    assert seen["found"]["boxes"].shape == (90, 4)
    assert float(seen["truth"]["boxes"].max()) <= 96
    assert judged.speed is not None
    assert (judged.speed.size, judged.speed.parameters) == (96, 2_333_265)
    assert "ms an image alone" in judged.speed.text()


def test_speed_counts_images() -> None:
    class Slow(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.batches: list[int] = []

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            self.batches.append(len(images))
            return {"pred_logits": torch.zeros(len(images), 2, 3), "pred_boxes": torch.zeros(len(images), 2, 4)}

    model = Slow()
    speed = measure_speed(model, DetectionCall(), size=4, batch=5, seconds=0.0)
    assert model.batches == [1] * 4 + [5] * 4  # one to warm up, three at least
    assert speed.throughput > 0
    assert not model.training
