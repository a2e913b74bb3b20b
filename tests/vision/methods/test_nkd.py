"""NKD as its configs put it together: what the teacher's part depends on, and what training leaves behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import log_softmax, softmax

from limbeck_core import Distiller, Match
from limbeck_core.engine.config import load_config
from limbeck_core.errors import MatchError
from limbeck_core.functional import normalized_kd_loss
from limbeck_core.losses import NormalizedKDLoss
from limbeck_vision.models import ImageCall, resnet8, resnet8_quarter


def pair(classes: int = 10) -> Distiller:
    torch.manual_seed(0)
    teacher = resnet8(num_classes=classes, normalization=None)
    matches = {"nkd": Match(NormalizedKDLoss(), "fc", "fc")}
    return Distiller(resnet8_quarter(), teacher, matches, task_loss=nn.CrossEntropyLoss(), call=ImageCall())


def test_decomposition_that_it_starts_from() -> None:
    """Cross-entropy of two softmaxes = target part + what NKD drops + (1 - p_y) of NKD's non-target part."""
    student, teacher = torch.randn(2, 6, 5, dtype=torch.float64)
    target = torch.arange(6) % 5
    p, log_s = softmax(teacher, 1), log_softmax(student, 1)
    own, other = p[range(6), target], log_s.exp()[range(6), target]
    whole = -(p * log_s).sum(1)
    parts = [
        normalized_kd_loss(student, teacher, target, non_target_weight=weight, reduction="none")
        for weight in (0.0, 1.0)
    ]
    non_target = parts[1] - parts[0]
    torch.testing.assert_close(whole, parts[0] - (1 - own) * torch.log(1 - other) + (1 - own) * non_target)


def test_non_target_part_ignores_the_target_logit_and_shifts() -> None:
    student, teacher = torch.randn(2, 6, 5, dtype=torch.float64)
    target = torch.arange(6) % 5

    def non_target(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with_part, without = (normalized_kd_loss(s, t, target, non_target_weight=w) for w in (1.0, 0.0))
        return with_part - without

    expected = non_target(student, teacher)
    torch.testing.assert_close(non_target(student + 3, teacher - 2), expected)
    changed = student.clone()
    changed[range(6), target] += 4
    torch.testing.assert_close(non_target(changed, teacher), expected)


def test_trains_the_student_alone_at_full_task_weight() -> None:
    distiller = pair().train()
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    losses = distiller(images, labels)
    torch.testing.assert_close(
        losses["loss/task"], nn.functional.cross_entropy(distiller(images, mode="tensor"), labels)
    )
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in distiller.student.parameters())
    assert all(p.grad is None for p in distiller.teacher.parameters())
    assert all(name.startswith("student.") for name in distiller.state_dict())


def test_classes_that_differ_are_refused_before_training() -> None:
    with pytest.raises(MatchError, match="the student scores 10 classes .* the teacher 7"):
        pair(classes=7)


@pytest.mark.parametrize(
    ("config", "temperature", "weight"),
    [("vision/nkd/resnet34_resnet18_cifar100", 3.0, 3.5), ("vision/nkd/digits", 1.0, 1.5)],
)
def test_configs_hold_the_papers_numbers(config: str, temperature: float, weight: float) -> None:
    loss = load_config(config).model.matches.nkd.loss
    assert (loss.temperature, loss.non_target_weight) == (temperature, weight)
