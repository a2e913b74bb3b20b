"""tools/eval_pose.py: tables, files, pictures, and what it says of what does not fit."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from limbeck_pose.figures import FigurePose
from limbeck_pose.rendered import render
from source_tree import ROOT


@pytest.fixture(scope="module")
def main() -> Any:
    return runpy.run_path(str(ROOT / "tools" / "eval_pose.py"))["main"]


def write(folder: Path) -> dict[str, str]:
    table = np.column_stack([np.random.default_rng(0).uniform(5, 55, (17, 2)), np.full(17, 2)]).ravel().tolist()
    person = {"id": 1, "image_id": 3, "category_id": 1, "iscrowd": 0, "bbox": [0, 0, 60, 60], "area": 3600}
    truth = {"images": [{"id": 3, "file_name": "3.png"}], "annotations": [{**person, "keypoints": table}]}
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps([{"image_id": 3, "score": 0.7, "keypoints": table}]))
    cv2.imwrite(str(folder / "3.png"), np.zeros((64, 64, 3), np.uint8))
    return {"truth": str(folder / "truth.json"), "found": str(folder / "found.json")}


def test_files_of_anyone(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write(tmp_path)
    words = ["--predictions", files["found"], "--annotations", files["truth"], "--layout", "body"]
    out = ["--json", str(tmp_path / "out" / "r.json"), "--images", str(tmp_path), "--pictures", str(tmp_path / "drawn")]
    assert main([*words, *out]) == 0
    shown = capsys.readouterr().out
    assert "body           100.0   100.0   100.0   100.0   100.0     0.0" in shown
    assert "100.0 % of the true people have a found one" in shown
    assert json.loads((tmp_path / "out" / "r.json").read_text())["body/AP"] == pytest.approx(100)
    assert cv2.imread(str(tmp_path / "drawn" / "3.png")).max() == 255


def test_a_checkpoint(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    render(tmp_path / "figures", train=2, val=3)
    student = FigurePose(16)
    torch.save(student.state_dict(), tmp_path / "student.pth")
    words = ["--config", "pose/figures/plain", "--checkpoint", str(tmp_path / "student.pth")]
    assert main([*words, "--data-root", str(tmp_path / "figures")]) == 0
    assert "pck/never_labelled" in capsys.readouterr().out
    assert main([*words, "--data-root", str(tmp_path / "figures"), "--flip-test"]) == 1
    assert "a layout of 133 key points, the model has 10" in capsys.readouterr().err


def test_what_does_not_fit(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write(tmp_path)
    assert main(["--predictions", files["found"], "--annotations", files["truth"]]) == 1
    assert "must have 'foot_kpts' with 6 triples" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--predictions", files["found"]])
    assert "give --predictions and --annotations, or --config and --checkpoint" in capsys.readouterr().err
