"""Files: predictions keep the geometry of their input, evaluation refuses other grids, pictures are written."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from PIL import Image
from torch import nn

from limbeck_core.errors import ConfigError, DataError, ShapeError
from limbeck_medical.data import SegmentationDataset, picture_preprocessing, read_cases, volume_preprocessing
from limbeck_medical.evaluation import evaluate_files, pair_files
from limbeck_medical.geometry import labels_on_input_grid
from limbeck_medical.inference import predict_cases
from limbeck_medical.nifti import write_nifti
from limbeck_medical.predictor import VolumePredictor

CLASSES = ("background", "head", "body")


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = Path(__file__).parents[3] / "tools" / "eval_medical.py"
    spec = importlib.util.spec_from_file_location("eval_medical", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Oracle(nn.Module):
    """Says what the label map says, from the label map as its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 50 * nn.functional.one_hot(x[:, 0].round().long(), 3).movedim(-1, 1).float()


def labels_as_images(root: Path, out: Path) -> Path:
    for case in read_cases(root).labelled[:3]:
        volume: Any = nibabel.load(str(case.label))
        for folder in ("images", "labels"):
            write_nifti(np.asarray(volume.dataobj), volume.affine, out / folder / f"{case.name}.nii.gz")
    return out


def test_predictions_lie_on_the_grid_of_their_input(ellipsoids: Path, tmp_path: Path) -> None:
    """Without resampling, turning there and back loses nothing, and every affine is the input's."""
    root = labels_as_images(ellipsoids, tmp_path)
    chain = volume_preprocessing(spacing=None, intensity="none")
    data = SegmentationDataset(root, part="all", preprocess=chain)
    paths = predict_cases(Oracle(), data, tmp_path / "out")
    for case, path in zip(data.cases, paths, strict=True):
        written, truth = (nibabel.load(str(file)) for file in (path, case.label))
        assert np.array_equal(np.asarray(written.dataobj), np.asarray(truth.dataobj))  # type: ignore[attr-defined]
        np.testing.assert_allclose(written.affine, truth.affine, atol=1e-5)  # type: ignore[attr-defined]
        assert written.header.get_zooms() == truth.header.get_zooms()  # type: ignore[attr-defined]
    result = evaluate_files(pair_files(tmp_path / "out", root / "labels"), CLASSES)
    assert result["structures"]["mean"]["dice"]["mean"] == 100.0
    assert result["structures"]["mean"]["hd95"]["mean"] == 0.0


def test_resampled_predictions_come_back_close(ellipsoids: Path, tmp_path: Path) -> None:
    root = labels_as_images(ellipsoids, tmp_path)
    chain = Compose(volume_preprocessing(spacing=(0.8, 0.8, 0.8), intensity="none"))
    label = read_cases(root).labelled[1].label
    image = chain({"inputs": str(label)})["inputs"]
    found = labels_on_input_grid(Oracle()(image.as_tensor()[None])[0], image, chain)
    truth = np.asarray(nibabel.load(str(label)).dataobj)  # type: ignore[attr-defined]
    assert found.shape == (1, *truth.shape)
    agreement = (found.numpy()[0] == truth)[truth > 0].mean()
    assert agreement > 0.8
    with pytest.raises(ShapeError, match="scores .3, 2, 2, 2. and image .* must be on one grid"):
        labels_on_input_grid(torch.zeros(3, 2, 2, 2), image, chain)


def test_predictor_of_volumes_and_pictures(ellipsoids: Path, tmp_path: Path) -> None:
    root = labels_as_images(ellipsoids, tmp_path)
    source = str(read_cases(root).labelled[0].images[0])
    predictor = VolumePredictor(
        volume_preprocessing(spacing=None, intensity="none"), out=tmp_path / "p", classes=CLASSES
    )
    sample = predictor.read(source)
    assert type(sample["inputs"]) is torch.Tensor
    found = predictor.describe(source, Oracle()(sample["inputs"][None]))
    volume: Any = nibabel.load(source)
    voxels = np.bincount(np.asarray(volume.dataobj).ravel(), minlength=3)
    size = float(np.prod(volume.header.get_zooms())) / 1000
    assert found["ml"] == pytest.approx({"head": voxels[1] * size, "body": voxels[2] * size}, abs=1e-3)
    assert Path(found["labels"]).is_file()
    with pytest.raises(ConfigError, match="VolumePredictor has 3 class names, the model scores 2 classes"):
        predictor.describe(source, torch.zeros(1, 2, *sample["inputs"].shape[1:]))
    with pytest.raises(DataError, match="there is no file"):
        predictor.read(str(tmp_path / "none.nii.gz"))

    mask = np.zeros((6, 9), dtype=np.uint8)
    mask[2, 3:8] = 1
    Image.fromarray(mask).save(tmp_path / "picture.png")
    pictures = VolumePredictor(picture_preprocessing(intensity="none"), out=tmp_path / "p")
    scores = Oracle()(pictures.read(str(tmp_path / "picture.png"))["inputs"][None])
    described = pictures.describe(str(tmp_path / "picture.png"), scores)
    assert described["mm2"]["1"] == 5.0
    assert np.array_equal(np.asarray(Image.open(described["labels"])), mask)


def test_other_grids_are_refused(ellipsoids: Path, tmp_path: Path) -> None:
    case = read_cases(ellipsoids).labelled[0]
    volume: Any = nibabel.load(str(case.label))
    values, name = np.asarray(volume.dataobj), f"{case.name}.nii.gz"
    moved = volume.affine.copy()
    moved[0, 3] += 5
    labels = ellipsoids / "labelsTr"
    write_nifti(values, moved, tmp_path / "moved" / name)
    with pytest.raises(DataError, match="lie differently in space, their affines differ by up to 5 mm"):
        evaluate_files(pair_files(tmp_path / "moved", labels), CLASSES)
    write_nifti(values[1:], volume.affine, tmp_path / "cut" / name)
    with pytest.raises(DataError, match="write predictions on the grid of the input"):
        evaluate_files(pair_files(tmp_path / "cut", labels), CLASSES)
    write_nifti(values, volume.affine, tmp_path / "named" / f"x{name}")
    with pytest.raises(DataError, match="has no label of its name in .*: did you mean"):
        pair_files(tmp_path / "named", labels)
    with pytest.raises(DataError, match="holds no label maps"):
        pair_files(tmp_path, labels)
    write_nifti(values * 3, volume.affine, tmp_path / "wrong" / name)
    with pytest.raises(ValueError, match=f"case {case.name}: prediction must hold classes from 0 to 2, got 0 to 6"):
        evaluate_files(pair_files(tmp_path / "wrong", labels), CLASSES)


def test_tool_on_folders(
    ellipsoids: Path, tmp_path: Path, tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = tmp_path / "out"
    for case in read_cases(ellipsoids).labelled[:3]:
        volume: Any = nibabel.load(str(case.label))
        values = np.asarray(volume.dataobj).copy()
        values[values == 2] = 0
        write_nifti(values, volume.affine, predictions / f"{case.name}.nii.gz")
    words = ["--predictions", str(predictions), "--labels", str(ellipsoids / "labelsTr"), "--classes", *CLASSES]
    more = [
        "--images",
        str(ellipsoids / "imagesTr"),
        "--json",
        str(tmp_path / "r.json"),
        "--pictures",
        str(tmp_path / "p"),
    ]
    assert tool.main([*words, *more]) == 0
    printed = capsys.readouterr().out
    assert "3 times a structure was missed" in printed
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["structures"]["head"]["dice"]["mean"] == 100.0
    assert result["structures"]["body"]["dice"]["mean"] == 0.0
    assert result["structures"]["mean"]["dice"] == {"mean": 50.0, "low": 50.0, "high": 50.0, "cases": 3}
    pictures = sorted(path.name for path in (tmp_path / "p").iterdir())
    assert pictures == [f"ellipsoids_{number:03d}.png" for number in range(3)]
    assert all(np.asarray(Image.open(tmp_path / "p" / name)).std() > 5 for name in pictures)
    assert tool.main(words[:4]) == 1
    assert "give --classes" in capsys.readouterr().err


def test_tool_predicts_with_a_checkpoint(
    ellipsoids: Path, tmp_path: Path, tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    from limbeck_core.build import build
    from limbeck_core.engine.config import load_config

    config = "medical/hippocampus/unet_dsd"
    torch.manual_seed(0)
    torch.save(build(load_config(config).model.student).state_dict(), tmp_path / "student.pth")
    words = ["--config", config, "--checkpoint", str(tmp_path / "student.pth"), "--data-root", str(ellipsoids)]
    assert tool.main([*words, "--predictions", str(tmp_path / "out")]) == 0
    assert "head" in capsys.readouterr().out
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    tested = SegmentationDataset(ellipsoids, part="test")
    assert files == [f"{case.name}.nii.gz" for case in tested.cases]


def test_metadata_of_a_written_map_is_small(tmp_path: Path) -> None:
    labels = MetaTensor(torch.ones(1, 2, 3, 4), affine=torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0])))
    from limbeck_medical.geometry import write_labels

    path = write_labels(labels, tmp_path / "deep" / "case")
    volume: Any = nibabel.load(str(path))
    assert volume.header.get_zooms() == (2.0, 3.0, 4.0)
    assert volume.get_data_dtype() == np.uint8
