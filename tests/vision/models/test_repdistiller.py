"""Checkpoints under RepDistiller's names: same logits and same features as its own models gave, to 1e-9."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from limbeck_core.errors import CheckpointError
from limbeck_vision import models
from limbeck_vision.models import load_repdistiller

GOLDEN = Path(__file__).parents[1] / "golden" / "repdistiller.npz"
NAMES = ["resnet8", "resnet8x4", "wrn_16_1", "wrn_16_2", "vgg8", "vgg11", "mobilenet_v2", "shufflenet_v1"]
NAMES += ["shufflenet_v2", "resnet50"]


def fill(name: str, shape: list[int]) -> Tensor:
    """Numbers that depend on the name alone; RandomState's stream is frozen across numpy's versions."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    numbers = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1:
        numbers = numbers * (2 / np.prod(shape[1:])) ** 0.5
    elif name.endswith("running_var"):
        numbers = 1 + 0.1 * abs(numbers)
    else:
        numbers = 0.1 * numbers + (1 if name.endswith("weight") else 0)
    return torch.from_numpy(numbers)


def state_dict(golden: dict[str, np.ndarray], name: str) -> dict[str, Tensor]:
    shapes = [json.loads(text) for text in golden[f"{name}/shapes"]]
    return {str(key): fill(key, shape) for key, shape in zip(golden[f"{name}/names"], shapes, strict=True)}


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", NAMES)
def test_same_function_under_other_names(golden: dict[str, np.ndarray], name: str, tmp_path: Path) -> None:
    path = tmp_path / "ckpt_epoch_240.pth"
    # the layout that RepDistiller's training scripts write
    torch.save({"epoch": 240, "model": state_dict(golden, name), "best_acc": torch.tensor(70.0)}, path)
    model = load_repdistiller(getattr(models, name)(num_classes=10).double(), path).eval()
    seen: dict[str, Tensor] = {}
    for tap, module in model.named_modules():
        module.register_forward_hook(lambda _m, _i, out, tap=tap: seen.__setitem__(tap, out))
    images = torch.from_numpy(np.random.RandomState(0).uniform(size=(2, 3, 32, 32)))
    with torch.no_grad():
        logits = model(images)
    torch.testing.assert_close(logits, torch.from_numpy(golden[f"{name}/logits"]), rtol=1e-9, atol=1e-9)

    stage = "{}.sum" if name.startswith("wrn") else "{}"
    features = ["stem", *(stage.format(layer) for layer in model.stages), "pool"]
    preact = [f"{layer}.preact" for layer in model.stages]
    for places, expected in ((features, golden[f"{name}/features"]), (preact, golden[f"{name}/preact"])):
        got = [[float(seen[place].mean()), float(seen[place].std())] for place in places]
        np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_in_a_config(golden: dict[str, np.ndarray], tmp_path: Path) -> None:
    torch.save(state_dict(golden, "resnet8"), tmp_path / "weights.pth")
    model = load_repdistiller({"type": models.resnet8, "num_classes": 10}, str(tmp_path / "weights.pth"))
    assert float(model.stem.bn.running_mean[0]) == pytest.approx(float(fill("bn1.running_mean", [16])[0]), rel=1e-6)


def test_nothing_is_read_on_the_meta_device(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = load_repdistiller({"type": models.resnet8}, tmp_path / "absent.pth")
    assert model.fc.weight.is_meta


def test_weights_of_another_model_are_refused(golden: dict[str, np.ndarray], tmp_path: Path) -> None:
    torch.save(state_dict(golden, "resnet8"), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"does not fill ResNet: .*missing"):
        load_repdistiller(models.resnet14(num_classes=10), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"weights.pth does not fill ResNet: .*100, 64\) in the model"):
        load_repdistiller(models.resnet8(), tmp_path / "weights.pth")


def test_a_deeper_models_file_is_refused(tmp_path: Path) -> None:
    deeper = models.resnet14().state_dict()
    torch.save({name.replace("stem.conv", "conv1").replace("stem.bn", "bn1"): t for name, t in deeper.items()},
               tmp_path / "weights.pth")  # fmt: skip
    with pytest.raises(CheckpointError, match="belongs to another model than ResNet"):
        load_repdistiller(models.resnet8(), tmp_path / "weights.pth")


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="RepDistiller has no Linear"):
        load_repdistiller({"type": torch.nn.Linear, "in_features": 1, "out_features": 1}, tmp_path / "x.pth")
