"""Components that the configs of the command line's tests import: points in two classes, and who reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor, nn
from torch.utils.data import Dataset

FEATURES = 4

CONFIG = """# Points on two sides of a plane.
#   limbeck train points.py
from cli_toys import Accuracy, Points, Reader, linear
from limbeck_core import Distiller, Match
from limbeck_core.engine import EpochLoop
from limbeck_core.losses import KLDivergenceLoss
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

train_dataloader = dict(batch_size=8, dataset=dict(type=Points, root="points"))
val_dataloader = dict(batch_size=8, dataset=dict(type=Points, root="points", samples=20))
train_cfg = dict(type=EpochLoop, max_epochs=2)
val_cfg = dict()
val_evaluator = dict(type=Accuracy)
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.5))
default_hooks = dict(progress_bar=None, checkpoint=dict(save_best="top1"))
model = dict(
    type=Distiller,
    student=dict(type=linear),
    teacher=dict(type=linear),
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(kd=dict(type=Match, loss=dict(type=KLDivergenceLoss), student="fc", teacher="fc", weight=0.1)),
)
predictor = dict(type=Reader)
"""


def linear() -> nn.Module:
    """One layer, called ``fc``."""
    model = nn.Sequential()
    model.add_module("fc", nn.Linear(FEATURES, 2))
    return model


def wide() -> nn.Module:
    """One layer that expects more features than there are."""
    model = nn.Sequential()
    model.add_module("fc", nn.Linear(FEATURES + 1, 2))
    return model


class Points(Dataset[Any]):
    """Class 1 where the first coordinate is above 0; the folder is only kept."""

    def __init__(self, root: str, samples: int = 32) -> None:
        self.root = root
        self.inputs = torch.randn(samples, FEATURES, generator=torch.Generator().manual_seed(5))

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"inputs": self.inputs[index], "targets": (self.inputs[index, 0] > 0).long()}


class Crooked(Points):
    """A data set with a fault of its own."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        raise ZeroDivisionError(f"sample {index}")


class Accuracy(BaseMetric):  # type: ignore[misc]
    """Share of points on the right side."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        pairs = zip(data_samples, data_batch["targets"], strict=True)
        self.results += [int(row.argmax()) == int(target) for row, target in pairs]

    def compute_metrics(self, results: list[bool]) -> dict[str, float]:
        return {"top1": sum(results) / len(results)}


class Reader:
    """Reads a point from its first coordinate."""

    def read(self, source: str) -> dict[str, Tensor]:
        return {"inputs": torch.tensor([float(source), 0, 0, 0])}

    def describe(self, source: str, output: Tensor) -> Mapping[str, Any]:
        return {"input": source, "class": int(output.argmax(1))}
