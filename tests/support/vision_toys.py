"""Tiny made data in the layouts that vision's configs read, and their models with random weights in place of files."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import limbeck_vision
from limbeck_core.build import build
from limbeck_core.distiller import Distiller
from limbeck_core.engine.batches import first_batches
from limbeck_core.engine.config import load_config
from limbeck_core.schedules import Progress
from limbeck_vision.data import CIFAR10, CIFAR100

IMAGES_PER_CLASS = 2
# the same architecture with fewer classes, where the config's own size asks for gigabytes
SMALLER = {
    "vision/knowledge_concentration/inception_100k": {
        "model.student.head.sizes": [2, 2],
        "model.student.head.first_width": 16,
        "model.student.head.second_width": 8,
        "model.teacher.sizes": [2, 2],
    }
}


def make_data(root: Path) -> Path:
    """Write CIFAR-10, CIFAR-100, a folder of images by class (two each) and one of unlabelled images."""
    draw = np.random.RandomState(0)
    for kind in (CIFAR10, CIFAR100):
        folder = root / kind.folder
        folder.mkdir(parents=True)
        labels = list(range(kind.number_of_classes)) * IMAGES_PER_CLASS
        for name in (*kind.train_files, *kind.test_files):
            data = draw.randint(0, 256, (len(labels), 3072)).astype(np.uint8)
            (folder / name).write_bytes(pickle.dumps({"data": data, kind.labels_key: labels}, protocol=2))
        names = {kind.names_key: [f"class {label}" for label in range(kind.number_of_classes)]}
        (folder / kind.names_file).write_bytes(pickle.dumps(names, protocol=2))
    for part in ("train", "val"):
        for label in range(2):
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True)
            pixels = draw.randint(0, 256, (40, 48, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "image.png")
    pool = root / "pool"
    pool.mkdir()
    for number in range(3):
        Image.fromarray(draw.randint(0, 256, (40, 48, 3)).astype(np.uint8)).save(pool / f"{number}.png")
    (pool / "selection.txt").write_text("0\n2\n", encoding="utf-8")
    return root


def leave_weights(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Let teachers keep their random weights, whichever file their config names.

    Args:
        replace: How to set an attribute of a module; monkeypatch's in tests.
    """
    for info in pkgutil.walk_packages(limbeck_vision.__path__, "limbeck_vision."):
        if ".configs" not in info.name:
            importlib.import_module(info.name)
    for name, module in list(sys.modules.items()):
        if name.startswith("limbeck_") and name != "limbeck_core.weights" and hasattr(module, "load_weights"):
            replace(module, "load_weights", _loads_nothing)


def _loads_nothing(model: nn.Module, path: Path, *, partial: bool = False) -> None:
    """Stand-in of ``load_weights``; branches weigh less, since nothing normalises an untrained deep network's maps."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.3)


def distiller_and_batches(config: str, *, batch_size: int, count: int) -> tuple[Distiller, list[dict[str, Any]]]:
    """Build a config's model and read its first training batches, at the start of a run."""
    torch.manual_seed(0)
    settings = load_config(config, overrides=SMALLER.get(config, {}))
    model: Distiller = build(settings.model)
    epochs = int((settings.get("train_cfg") or {}).get("max_epochs") or 1)
    model.set_progress(Progress(step=0, epoch=0, max_steps=100, max_epochs=epochs))
    loader = {**settings.train_dataloader, "batch_size": batch_size}
    return model.train(), first_batches(loader, count, seed=0, training=True)
