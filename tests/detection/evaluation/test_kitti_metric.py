"""From detections in the lidar's frame to KITTI's numbers, files and pictures, in a run and by the tool."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from limbeck_core.errors import ConfigError, DataError
from limbeck_detection.data.kitti import Calibration, KittiObjects, read_objects, write_objects
from limbeck_detection.evaluation import KittiMetric, detections_to_objects, draw_scenes

SIZE = (1242, 375)
CALIBRATION = Calibration(
    np.array([[700.0, 0, 600, 0], [0, 700, 180, 0], [0, 0, 1, 0]]),
    np.eye(3),
    np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0]]),
)
ROOT = Path(__file__).resolve().parents[3]


def found(*boxes: list[float], label: int = 2, score: float = 0.5) -> dict[str, torch.Tensor]:
    rows = torch.tensor(boxes).reshape(-1, 7)
    return {
        "boxes": rows,
        "scores": torch.full((len(rows),), score),
        "labels": torch.full((len(rows),), label, dtype=torch.int64),
    }


AHEAD = [20.0, 1.0, -1.7, 4.0, 1.6, 1.5, 0.0]


def truth() -> KittiObjects:
    """What AHEAD is in a label file."""
    objects = detections_to_objects(found(AHEAD), CALIBRATION, SIZE)
    return KittiObjects(
        objects.names, *(np.zeros(1),) * 2, objects.alpha, objects.boxes_2d, objects.boxes, objects.scores
    )


def batch(frames: int = 1) -> dict[str, Any]:
    return {
        "ids": torch.arange(frames),
        "inputs": [torch.rand(50, 4) * 30] * frames,
        "targets": [{"boxes": torch.tensor([AHEAD]), "labels": torch.tensor([2])}] * frames,
        "frame": [f"{i:06d}" for i in range(frames)],
        "truth": [truth()] * frames,
        "calibration": [CALIBRATION] * frames,
        "image_size": [SIZE] * frames,
    }


def test_a_detection_in_the_camera_s_words() -> None:
    objects = detections_to_objects(found(AHEAD), CALIBRATION, SIZE)
    assert objects.names == ("Car",)
    np.testing.assert_allclose(objects.boxes[0], [-1, 1.7, 20, 4, 1.6, 1.5, -math.pi / 2], atol=1e-5)
    # it heads away from the camera and stands a little to the left
    assert objects.alpha[0] == pytest.approx(-math.pi / 2 + math.atan2(1, 20), abs=1e-5)
    left, top, right, bottom = objects.boxes_2d[0]
    assert left == pytest.approx(600 - 700 * 1.8 / 18, abs=1e-3)
    assert bottom == pytest.approx(180 + 700 * 1.7 / 18, abs=1e-3)
    assert left < 600 - 700 / 20 < right
    assert top < bottom


def test_what_the_image_or_the_range_does_not_hold_is_dropped() -> None:
    behind, aside, far = [-20.0, *AHEAD[1:]], [5.0, 30.0, *AHEAD[2:]], [75.0, *AHEAD[1:]]
    above = [20.0, 1.0, 0.5, *AHEAD[3:]]
    assert len(detections_to_objects(found(behind, aside, far, above), CALIBRATION, SIZE)) == 0
    cut = detections_to_objects(found([6.0, 4.5, *AHEAD[2:]]), CALIBRATION, SIZE)
    assert cut.boxes_2d[0, 0] == 0  # cut off at the image's edge
    assert len(detections_to_objects(found(), CALIBRATION, SIZE)) == 0


def test_metric_judges_writes_and_draws(tmp_path: Path) -> None:
    metric = KittiMetric(results=tmp_path / "found", pictures=tmp_path / "seen", num_pictures=2)
    for _ in range(2):
        metric.process(batch(21), [found(AHEAD)] * 21)
    result = metric.compute_metrics(metric.results)
    assert result["mean/3d/AP40/moderate"] == 100
    assert {key.split("/")[1] for key in result} == {"3d", "bev"}
    assert {key.split("/")[2] for key in result} == {"AP40"}
    assert read_objects(tmp_path / "found" / "000020.txt").scores.tolist() == [0.5]
    assert sorted(path.name for path in (tmp_path / "seen").iterdir())[0] == "000000.png"
    everything = KittiMetric(views=("3d", "bev", "2d", "aos"), averages=("AP40", "AP11")).compute_metrics(
        metric.results
    )
    assert len(everything) == 2 * 4 * 2 * 3


def test_metric_says_what_a_batch_lacks() -> None:
    whole = batch()
    with pytest.raises(DataError, match=r"needs truth, calibration in the batch.*truth=True"):
        KittiMetric().process({k: v for k, v in whole.items() if k not in ("truth", "calibration")}, [found(AHEAD)])
    with pytest.raises(DataError, match="1 frames were evaluated, but 2 results came"):
        KittiMetric().process(whole, [found(AHEAD)] * 2)
    with pytest.raises(ConfigError, match="views of KittiMetric must be some of 2d, bev, 3d, aos, got 4d"):
        KittiMetric(views=("4d",))


def test_pictures_show_boxes_where_they_are(tmp_path: Path) -> None:
    nothing = found()
    for name, boxes in {"with": found(AHEAD, score=0.9), "without": nothing, "faint": found(AHEAD, score=0.1)}.items():
        path = tmp_path / f"{name}.png"
        draw_scenes([torch.zeros(1, 4)], {"found": [boxes]}, path, classes=["a", "b", "c"], extent=(0, -20, 40, 20))
    seen = {
        name: np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")) for name in ("with", "without", "faint")
    }
    changed = np.argwhere((seen["with"] != seen["without"]).any(-1))
    assert len(changed) > 50
    height, width = seen["with"].shape[:2]
    assert np.abs(changed.mean(0) / [height, width] - 0.5).max() < 0.12  # the middle of the range that is shown
    assert np.array_equal(seen["faint"], seen["without"])


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("eval_kitti", ROOT / "tools" / "eval_kitti.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tool_judges_files(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(41):
        labelled = truth()
        write_objects(
            KittiObjects(
                *(getattr(labelled, n) for n in ("names", "truncation", "occlusion", "alpha", "boxes_2d", "boxes")),
                np.full(1, math.nan),
            ),
            tmp_path / "label_2" / f"{i:06d}.txt",
        )
        write_objects(detections_to_objects(found(AHEAD), CALIBRATION, SIZE), tmp_path / "found" / f"{i:06d}.txt")
    arguments = ["--labels", str(tmp_path / "label_2"), "--results", str(tmp_path / "found")]
    assert tool.main([*arguments, "--json", str(tmp_path / "out" / "r.json")]) == 0
    assert "Car   3d        100.00    100.00    100.00" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "r.json").read_text())["Car/aos/AP11/hard"] == 100
    (tmp_path / "found" / "000003.txt").unlink()
    assert tool.main(arguments) == 1
    assert "1 of 41 frames have no file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool.main(["--labels", "x"])
