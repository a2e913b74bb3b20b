"""Load the checkpoints that RepDistiller published, and others of its names, into the models here.

Only names differ; the functions are the same. Its ``mobile_half``, ``ShuffleV1``, ``ShuffleV2`` and ``ResNet50`` are
:func:`~limbeck_vision.models.mobilenet_v2`, ``shufflenet_v1``, ``shufflenet_v2`` and ``resnet50`` here. The teachers of
mdistiller are the same files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from limbeck_core.build import build
from limbeck_core.errors import CheckpointError
from limbeck_core.weights import load_weights, read_weights
from limbeck_vision.models.mobilenet import MobileNetV2
from limbeck_vision.models.resnet import ResNet
from limbeck_vision.models.shufflenet import ShuffleNetV1, ShuffleNetV2
from limbeck_vision.models.stages import StagedModel
from limbeck_vision.models.vgg import VGG
from limbeck_vision.models.wrn import WideResNet

_STEM_AND_CLASSIFIER = {r"^conv1\.": "stem.conv.", r"^bn1\.": "stem.bn.", r"^linear\.": "fc."}
_HEAD = {r"^conv2\.": "head.conv.", r"^bn2\.": "head.bn."}

# Pattern -> replacement; the first pattern that fits a name renames it.
_RENAMES: dict[type[StagedModel], dict[str, str]] = {
    ResNet: {**_STEM_AND_CLASSIFIER, r"^(layer\d\.\d+)\.shortcut\.": r"\1.downsample."},
    WideResNet: {
        r"^conv1\.": "stem.conv.",
        r"^block2\.layer\.0\.bn1\.": "layer1.preact.",
        r"^block3\.layer\.0\.bn1\.": "layer2.preact.",
        r"^bn1\.": "layer3.preact.",
        r"^block(\d)\.layer\.(\d+)\.convShortcut\.": r"layer\1.\2.shortcut.",
        r"^block(\d)\.layer\.": r"layer\1.",
    },
    ShuffleNetV1: _STEM_AND_CLASSIFIER,
    ShuffleNetV2: {**_STEM_AND_CLASSIFIER, **_HEAD},
    MobileNetV2: {
        r"^conv1\.0\.": "stem.conv.",
        r"^conv1\.1\.": "stem.bn.",
        r"^conv2\.0\.": "head.conv.",
        r"^conv2\.1\.": "head.bn.",
        r"^classifier\.0\.": "fc.",
    },
    VGG: {r"^classifier\.": "fc."},
}
_MOBILENET_LAYERS = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2", "6": "conv3", "7": "bn3"}
# Where the groups of inverted residuals went: stage, and number of its first block there.
_MOBILENET_GROUPS = {"0": (1, 0), "1": (1, 1), "2": (2, 0), "3": (3, 0), "4": (3, 4), "5": (4, 0), "6": (4, 3)}


def load_repdistiller(model: StagedModel | Mapping[str, Any], checkpoint: str | Path) -> StagedModel:
    """Load a checkpoint of RepDistiller, without running any code in the file.

    Args:
        model: The architecture, or a config of it. In a config, this function stands where the model would.
        checkpoint: File such as ``resnet56_vanilla/ckpt_epoch_240.pth``. On the meta device, where a config is only
            looked at, nothing is read.

    Returns:
        The model, with its weights loaded.

    Raises:
        CheckpointError: if the file is missing, damaged, unsafe, or holds another model's weights.
    """
    built: Any = build(model)
    if not isinstance(built, StagedModel):
        raise CheckpointError(
            f"RepDistiller has no {type(built).__name__}: expected one of limbeck_vision.models' CIFAR models; load "
            "checkpoints of others with limbeck_core.pretrained"
        )
    if torch.get_default_device().type == "meta":
        return built
    path = Path(checkpoint)
    report = load_weights(built, renamed(built, read_weights(path)), what=str(path))
    if report.unexpected:
        raise CheckpointError(f"{path} belongs to another model than {type(built).__name__}: {report}")
    return built


def renamed(model: StagedModel, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return RepDistiller's weights under the names that ``model`` uses; a name that no rule fits stays as it is."""
    rules = [(re.compile(pattern), text) for pattern, text in _RENAMES[type(model)].items()]
    special = {VGG: _rename_vgg, MobileNetV2: _rename_mobilenet}.get(type(model))
    result = {}
    for name, value in weights.items():
        new = special(name) if special else name
        for pattern, text in rules:
            new, count = pattern.subn(text, new)
            if count:
                break
        result[new] = value
    return result


def _rename_vgg(name: str) -> str:
    found = re.fullmatch(r"block(\d)\.(\d+)\.(\w+)", name)
    if not found:
        return name
    group, position = found[1], int(found[2])
    owner = "stem" if group == "0" else f"layer{group}"
    # convolution, batch norm and ReLU follow each other
    return f"{owner}.{position // 3}.{'bn' if position % 3 else 'conv'}.{found[3]}"


def _rename_mobilenet(name: str) -> str:
    found = re.fullmatch(r"blocks\.(\d)\.(\d+)\.conv\.(\d)\.(\w+)", name)
    if not found:
        return name
    stage, first = _MOBILENET_GROUPS[found[1]]
    return f"layer{stage}.{first + int(found[2])}.{_MOBILENET_LAYERS[found[3]]}.{found[4]}"
