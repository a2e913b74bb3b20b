"""Prototypes rest in the first epochs, gradients are cut one by one, and the config trains and judges both networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from limbeck_core.engine.commands import train
from limbeck_core.weights import read_weights
from limbeck_detection.dcglr import ClippedOneByOne


def test_gradients_are_cut_one_by_one() -> None:
    long, short = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    wrapper = ClippedOneByOne(torch.optim.SGD([long, short], lr=1.0), max_norm=1.0)
    (long * torch.tensor([30.0, 40.0]) + short * torch.tensor([0.3, 0.4])).sum().backward()
    wrapper.step()
    torch.testing.assert_close(long.detach(), torch.tensor([-0.6, -0.8]))
    torch.testing.assert_close(short.detach(), torch.tensor([-0.3, -0.4]))
    with pytest.raises(ValueError, match="max_norm"):
        ClippedOneByOne(torch.optim.SGD([long], lr=1.0), max_norm=0.0)


def test_a_short_run_judges_student_and_teacher_and_keeps_both(tmp_path: Path) -> None:
    overrides = {
        "+log_level": "ERROR",
        "train_cfg.max_epochs": 2,
        "train_cfg.val_interval": 2,
        "train_dataloader.dataset.size": 16,
        "train_dataloader.batch_size": 8,
        "train_dataloader.dataset.points": 48,
        "val_dataloader.dataset.size": 16,
        "val_dataloader.dataset.points": 48,
    }
    seen = []

    def rests(run: object, *_: object) -> None:
        seen.append(bool(run.model.student.head.prototypes.requires_grad))  # type: ignore[attr-defined]

    from limbeck_detection.dcglr import training

    original = training.RestingPrototypes.before_train_epoch
    try:
        training.RestingPrototypes.before_train_epoch = lambda self, run: (original(self, run), rests(run))[0]
        runner = train("detection/dcglr/pointnet_shapes", work_dir=tmp_path, seed=0, overrides=overrides)
    finally:
        training.RestingPrototypes.before_train_epoch = original
    assert seen == [False, True]
    scalars = runner.message_hub.log_scalars
    assert all(0 <= scalars[f"val/{key}"].data[0][-1] <= 100 for key in ("linear", "teacher/linear", "teacher/knn"))
    student, teacher = (read_weights(tmp_path / f"{side}.pth") for side in ("student", "teacher"))
    assert student.keys() == teacher.keys()
    assert any(not torch.equal(student[name], teacher[name]) for name in student)
