"""Sliding windows: sizes that fit, sizes that do not, and what an export says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch import nn

from limbeck_core import Distiller
from limbeck_core.cli import main as limbeck
from limbeck_core.engine import export_student
from limbeck_core.errors import ShapeError
from limbeck_medical.call import SlidingWindowCall
from limbeck_medical.dsd import find_levels
from limbeck_medical.sizes import next_good_sides


def network() -> UNet:
    return UNet(3, 1, 3, (4, 8, 8, 16), (2, 2, 2))


def test_the_next_size_that_fits() -> None:
    assert next_good_sides(network(), (1, 18, 16, 9)) == (24, 16, 16)
    assert next_good_sides(network(), (1, 16, 16, 16)) is None
    assert next_good_sides(network(), (2, 18, 16, 9)) is None, "no size helps against another number of channels"


def test_sizes_that_cannot_be_halved_are_told_with_the_next() -> None:
    call = SlidingWindowCall((18, 16, 16))
    volume = {"inputs": torch.zeros(1, 1, 20, 20, 20), "targets": torch.zeros(1, 1, 20, 20, 20).long()}
    with pytest.raises(ShapeError, match="UNet does not take windows of 18 x 16 x 16 .* takes is 24 x 16 x 16"):
        call.predict(network(), volume, "inputs")
    distiller = Distiller(network(), task_loss=DiceCELoss(softmax=True, to_onehot_y=True), call=call)
    with pytest.raises(ShapeError, match="UNet does not take crops of 20 x 20 x 20 .* takes is 24 x 24 x 24"):
        distiller(volume)
    with pytest.raises(ShapeError, match="the next that it takes are 24 x 24 x 24"):
        find_levels(network(), (1, 20, 20, 20))


def test_other_faults_keep_their_own_words() -> None:
    with pytest.raises(RuntimeError, match="channels"):
        SlidingWindowCall((16, 16, 16)).predict(network(), {"inputs": torch.zeros(1, 2, 16, 16, 16)}, "inputs")


def test_windows_and_whole_volumes_agree_where_one_window_covers_all() -> None:
    model, call = network().eval(), SlidingWindowCall((16, 16, 16))
    batch = {"inputs": torch.randn(1, 1, 16, 16, 16)}
    served = call.serve(model, batch, "inputs")
    torch.testing.assert_close(served["scores"], model(batch["inputs"]))
    torch.testing.assert_close(served["scores"], call.predict(model, batch, "inputs"), rtol=1e-4, atol=1e-5)
    assert call.difference(served, served) == 0.0
    larger = {"inputs": torch.randn(1, 1, 20, 18, 16)}
    assert call.serve(model, larger, "inputs")["scores"].shape == (1, 3, 20, 18, 16)


def test_an_export_is_one_window_and_says_how_to_slide_it(tmp_path: Path) -> None:
    model, call = network(), SlidingWindowCall((16, 16, 16), overlap=0.5, windows=2)
    batch = {"inputs": torch.randn(3, 1, 16, 16, 16)}
    settings = {"window": [16, 16, 16], "overlap": 0.5, "windows": 2, "mode": "gaussian"}
    path = tmp_path / "student.onnx"
    exported = export_student(model, path, "onnx", batch=batch, call=call)
    assert exported.check.relative is not None
    assert exported.check.relative < 1e-4

    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    found = json.loads(session.get_modelmeta().custom_metadata_map["limbeck"])
    assert found["call_settings"] == settings

    class InOnnx(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            (scores,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
            return torch.from_numpy(scores)

    # slid over a volume by what the file says, the graph gives what the student gives
    again = SlidingWindowCall(**{**found["call_settings"], "window": tuple(found["call_settings"]["window"])})
    volume = {"inputs": torch.randn(1, 1, 24, 20, 16)}
    torch.testing.assert_close(
        again.predict(InOnnx(), volume, "inputs"), call.predict(model.eval(), volume, "inputs"), rtol=1e-3, atol=1e-4
    )


def test_from_nifti_to_nifti_by_command(ellipsoids: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config: Any = "medical/hippocampus/unet"
    run = tmp_path / "run"
    quick = ["train_cfg.max_epochs=1", "param_scheduler.T_max=1", "train_cfg.val_interval=1"]
    arguments = ["train", config, "--data-root", str(ellipsoids), "--work-dir", str(run), "--seed", "0"]
    assert limbeck([*arguments, "--cfg-options", *quick]) == 0
    source = sorted((ellipsoids / "imagesTs").iterdir())[0]
    out = tmp_path / "out"
    arguments = ["predict", config, "--checkpoint", str(run / "student.pth"), str(source)]
    assert limbeck([*arguments, "--cfg-options", f"+predictor.out={out}"]) == 0
    written: Any = nibabel.load(next(out.iterdir()))
    image: Any = nibabel.load(source)
    assert written.shape == image.shape
    np.testing.assert_allclose(written.affine, image.affine, atol=1e-4)
    assert set(np.unique(np.asarray(written.dataobj))) <= {0, 1, 2}
    assert str(source) in capsys.readouterr().out
