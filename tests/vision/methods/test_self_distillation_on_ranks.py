"""PS-KD, USKD and LSSKD on two ranks are one process with the whole batch: gradients, and what is remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from limbeck_core import Distiller, Match, PastSelf, Tap
from limbeck_core.losses import CustomizedSoftLabelLoss, SoftTargetCrossEntropyLoss
from limbeck_core.schedules import Complement, Progress, WarmUp
from limbeck_vision.methods.lsskd import LayeredDistiller
from ranks import on_ranks

CLASSES, SAMPLES = 3, 9


class Student(nn.Module):
    """Two stages without batch norm; names as in the CIFAR models."""

    normalization = None
    num_classes = CLASSES

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2 = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 5, 3, 2, 1)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(5, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        features = self.layer2(self.layer1(images).tanh()).tanh()
        return self.fc(self.pool(features).flatten(1))


class Branch(nn.Module):
    """A branch without batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embed, self.fc = nn.Linear(channels, 5), nn.Linear(5, 4 * CLASSES)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.embed(features.mean((2, 3)))
        return self.fc(pooled), pooled


class Flat(nn.Module):
    """Drop the axes of one position."""

    def forward(self, features: Tensor) -> Tensor:
        return features.flatten(1)


def ps_kd() -> Distiller:
    match = Match(SoftTargetCrossEntropyLoss(), "fc", "", weight=WarmUp(0.8))
    weight = Complement(WarmUp(0.8))
    past = PastSelf(SAMPLES, CLASSES, logits="fc")
    return Distiller(Student(), {"past": past}, {"ps_kd": match}, task_loss=nn.CrossEntropyLoss(), task_weight=weight)


def uskd() -> Distiller:
    match = Match(CustomizedSoftLabelLoss(4, CLASSES, weak_weight=1.0), "fc", Tap("layer1", of="student"))
    return Distiller(Student(), None, {"uskd": match}, task_loss=nn.CrossEntropyLoss())


def lsskd() -> Distiller:
    student = Student()
    student.pool = nn.Sequential(student.pool, Flat())
    branches = {"layer1": Branch(4), "layer2": Branch(5)}
    return LayeredDistiller(student, SAMPLES, branches=branches, task_loss=nn.CrossEntropyLoss())


METHODS = {"ps_kd": ps_kd, "uskd": uskd, "lsskd": lsskd}


def two_epochs(name: str, rank: int | None) -> dict[str, Any]:
    torch.manual_seed(0)
    distiller = METHODS[name]().double().train()
    generator = torch.Generator().manual_seed(1)
    ids = torch.tensor([8, 1, 6, 3, 0, 5, 2])
    images = torch.rand(7, 3, 8, 8, generator=generator, dtype=torch.float64)
    data = {"inputs": images, "targets": ids % CLASSES, "ids": ids}
    model: nn.Module = distiller
    if rank is not None:
        model, data = DistributedDataParallel(distiller), {key: value[rank::2] for key, value in data.items()}
    for epoch in range(2):
        distiller.set_progress(Progress(epoch=epoch, max_epochs=2))
        distiller.zero_grad()
        sum(model(**data).values()).backward()
    return {
        "gradients": [p.grad for p in distiller.parameters()],
        "memory": {name: [t.bank, t.seen] for name, t in distiller.teachers.items()},
    }


def ranked(rank: int) -> dict[str, Any]:
    return {name: two_epochs(name, rank) for name in METHODS}


@pytest.fixture(scope="module")
def on_both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    return on_ranks(folder, ranked)


@pytest.mark.parametrize("name", METHODS)
def test_gradients(name: str, on_both: list[dict[str, Any]]) -> None:
    expected = two_epochs(name, None)["gradients"]
    for found in on_both:
        for mine, whole in zip(found[name]["gradients"], expected, strict=True):
            torch.testing.assert_close(mine, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["ps_kd", "lsskd"])
def test_every_rank_remembers_every_sample(name: str, on_both: list[dict[str, Any]]) -> None:
    expected = two_epochs(name, None)["memory"]
    for found in on_both:
        assert found[name]["memory"].keys() == expected.keys()
        for memory, (bank, seen) in expected.items():
            torch.testing.assert_close(found[name]["memory"][memory][0], bank)
            assert torch.equal(found[name]["memory"][memory][1], seen)
            assert seen.any()
