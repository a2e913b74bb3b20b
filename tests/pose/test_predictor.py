"""limbeck predict and limbeck export for poses."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from limbeck_core.cli import main
from limbeck_core.errors import ConfigError, DataError, ShapeError
from limbeck_pose.calls import Decoded
from limbeck_pose.figures import FigurePose
from limbeck_pose.keypoints import BODY
from limbeck_pose.predictor import PersonPredictor
from limbeck_pose.rendered import CHAIN
from limbeck_pose.simcc import SimCC

CODEC = SimCC((64, 64), sigma=(3.0, 3.0))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a@b.png"  # the mark of a box may stand in a name
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (80, 120, 3)).astype(np.uint8))
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Weights that say something, as trained ones would: scores far apart, so that no maximum is a toss-up."""
    torch.manual_seed(0)
    student = FigurePose(8)
    for layer in (student.head.final_layer, student.head.mlp[1], student.head.cls_x, student.head.cls_y):
        nn.init.normal_(layer.weight, std=0.3)
    torch.save(student.state_dict(), tmp_path / "student.pth")
    return tmp_path / "student.pth"


def words(checkpoint: Path) -> list[str]:
    return ["pose/figures/plain", "--checkpoint", str(checkpoint)]


def test_key_points_in_pixels_of_the_image(
    image: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["model.student.width=8", f"+predictor.out={tmp_path / 'drawn'}"]
    inputs = [str(image), f"{image}@30,10,40,40"]
    assert main(["predict", *words(checkpoint), *inputs, "--cfg-options", *out]) == 0
    whole, part = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert whole["box"] == [0, 0, 120, 80]
    assert part["box"] == [30, 10, 40, 40]
    assert len(part["keypoints"]) == 10
    student = FigurePose(8).eval()
    student.load_state_dict(torch.load(checkpoint, weights_only=True))
    crop = PersonPredictor(CODEC, layout=CHAIN).read(inputs[1])["inputs"]
    with torch.no_grad():
        points, scores = CODEC.decode(*student(crop[None]))
    # a box of 40 pixels, padded to 50, fills a crop of 64
    expected = points[0].numpy() * 50 / 64 + [25, 5]
    assert np.allclose(np.array(part["keypoints"])[:, :2], expected, atol=1e-3)
    assert np.allclose(np.array(part["keypoints"])[:, 2], scores[0], atol=1e-5)
    assert cv2.imread(part["picture"]).shape == (80, 120, 3)


def test_onnx_with_decoding(image: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decoding = f"+model.call.type={Decoded.__module__}.Decoded"
    shape = ["--input-shape", "1,3,64,64"]
    options = ["--cfg-options", "model.student.width=8", decoding]
    assert main(["export", *words(checkpoint), "--format", "onnx", *shape, *options]) == 0, capsys.readouterr()
    session = onnxruntime.InferenceSession(str(checkpoint.with_suffix(".onnx")))
    crops = torch.stack([PersonPredictor(CODEC).read(f"{image}@{x},10,40,40")["inputs"] for x in (0, 30)]).float()
    points, scores = session.run(None, {session.get_inputs()[0].name: crops.numpy()})
    student = FigurePose(8).eval()
    student.load_state_dict(torch.load(checkpoint, weights_only=True))
    with torch.no_grad():
        expected, expected_scores = CODEC.decode(*student(crops))
    assert points.shape == (2, 10, 2)
    assert np.allclose(points, expected, atol=1e-4)
    assert np.allclose(scores, expected_scores, atol=1e-4)


def test_what_does_not_fit_is_told(image: Path) -> None:
    predictor = PersonPredictor(CODEC)
    with pytest.raises(DataError, match="a person's box is X,Y,WIDTH,HEIGHT with sides above 0, got '1,2,3'"):
        predictor.read(f"{image}@1,2,3")
    with pytest.raises(DataError, match="sides above 0, got '1,2,0,9'"):
        predictor.read(f"{image}@1,2,0,9")
    with pytest.raises(DataError, match="sides above 0, got 'nan,2,5,9'"):
        predictor.read(f"{image}@nan,2,5,9")
    with pytest.raises(DataError, match="no part of the box lies inside of the image of 120 by 80 pixels"):
        predictor.read(f"{image}@130,2,20,20")
    with pytest.raises(DataError, match="is missing"):
        predictor.read(f"{image.parent / 'none.png'}@1,2,20,20")
    with pytest.raises(ShapeError, match="the model has 5 key points, PersonPredictor's layout 17"):
        PersonPredictor(CODEC, layout=BODY).describe(str(image), [torch.zeros(1, 5, 128)] * 2)
    with pytest.raises(ConfigError, match="padding of PersonPredictor must be above 0, got 0"):
        PersonPredictor(CODEC, padding=0)
