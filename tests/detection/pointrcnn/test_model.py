"""The first stage of PointRCNN: shapes, coding, losses, and distillation of its points."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck_core import Distiller, Match
from limbeck_core.errors import ConfigError, ShapeError, TargetError
from limbeck_detection.pointdistiller import PointDistillationLoss
from limbeck_detection.pointpillars import LidarCall
from limbeck_detection.pointrcnn import PointRCNN, pointrcnn
from limbeck_detection.rotated import bev_iou

CAR = [10.0, 1.0, -1.8, 3.9, 1.6, 1.5, 2.3]


def tiny(ratio: float = 16.0, **options: Any) -> PointRCNN:
    small: dict[str, Any] = {
        "sampled_points": 96,
        "point_range": (0.0, -10.0, -3.0, 20.0, 10.0, 1.0),
        "num_points": (24, 8),
        "radii": ((0.5, 1.0), (2.0, 4.0)),
        "num_samples": ((4, 8),) * 2,
        "channels": (((8, 8), (8, 8)),) * 2,
        "neck_channels": ((16, 16), (int(256 / ratio),) * 2),
        "hidden": (16,),
    }
    return pointrcnn(ratio, **{**small, **options})


def scene(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    body = (torch.rand(60, 4, generator=generator) - 0.5) * torch.tensor([3.8, 1.5, 1.4, 1.0])
    cos, sin = math.cos(CAR[6]), math.sin(CAR[6])
    body[:, :2] = body[:, :2] @ torch.tensor([[cos, sin], [-sin, cos]]) + torch.tensor(CAR[:2])
    body[:, 2] += CAR[2] + CAR[5] / 2
    ground = torch.rand(60, 4, generator=generator) * torch.tensor([20.0, 20, 0.1, 1]) - torch.tensor([0, 10, 2.5, 0])
    return torch.cat([body, ground])


def target(*rows: list[float], labels: tuple[int, ...] = ()) -> dict[str, Tensor]:
    return {"boxes": torch.tensor(rows).reshape(-1, 7), "labels": torch.tensor(labels, dtype=torch.int64)}


def test_widths_of_teacher_and_students() -> None:
    with torch.device("meta"):
        teacher, student = pointrcnn(), pointrcnn(2.8)
    assert teacher.neck.out_channels == 128
    assert student.neck.out_channels == 45
    counts = [sum(p.numel() for p in model.parameters()) for model in (teacher, student)]
    assert 6 < counts[0] / counts[1] < 9


def test_coding_there_and_back() -> None:
    head = tiny().rpn_head
    boxes = torch.tensor([CAR, [3.0, -4.0, -0.7, 0.8, 0.6, 1.7, -3.0]])
    points, labels = torch.tensor([[9.0, 2.0, -1.0], [3.1, -4.1, 0.2]]), torch.tensor([2, 0])
    code = head.encode(boxes, points, labels)
    diagonal = math.hypot(3.9, 1.6)
    expected = [1 / diagonal, -1 / diagonal, (-1.05 + 1.0) / 1.56, 0, 0, math.log(1.5 / 1.56)]
    torch.testing.assert_close(code[0], torch.tensor([*expected, math.cos(2.3), math.sin(2.3)]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(head.decode(code, points, labels), boxes, atol=1e-5, rtol=1e-5)


def test_points_around_a_box_are_not_trained() -> None:
    points = torch.tensor([[10.0, 1.0, -1.0], [10.0, 1.0, -1.9], [10.0, 1.0, -2.1], [0.0, 0.0, 0.0]])
    head = tiny().rpn_head
    assert head.assign(points, torch.tensor([CAR])).tolist() == [0, -2, -1, -1]
    assert head.assign(points, torch.zeros(0, 7)).tolist() == [-1] * 4


def test_losses_reach_every_parameter() -> None:
    model = tiny()
    losses = model([scene(), scene(1)], [target(CAR, labels=(2,)), target()])
    assert set(losses) == {"loss/cls", "loss/box"}
    sum(losses.values()).backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_nothing_to_see_is_a_zero_with_a_gradient() -> None:
    model = tiny()
    losses = model([torch.zeros(0, 4), torch.full((3, 4), math.nan)], [target(), target(CAR, labels=(2,))])
    assert float(sum(losses.values())) == 0
    sum(losses.values()).backward()
    assert [len(found["boxes"]) for found in model.eval().predict([torch.zeros(0, 4)])] == [0]


def test_a_teacher_teaches_its_points() -> None:
    teacher, student = tiny(4.0), tiny(16.0)
    loss = PointDistillationLoss(16, 64, centers=12, neighbors=4)
    distiller = Distiller(
        student, teacher, matches={"points": Match(loss, "neck", "neck", weight=2.0)}, call=LidarCall()
    )
    batch = {"ids": torch.arange(2), "inputs": [scene(), scene(1)], "targets": [target(CAR, labels=(2,))] * 2}
    losses = distiller(batch)
    assert float(losses["loss/points"]) > 0
    losses["loss/points"].backward()
    assert any(float(p.grad.abs().sum()) > 0 for p in student.neck.parameters())
    assert all(p.grad is None for p in teacher.parameters())


def test_a_few_steps_find_a_car() -> None:
    torch.manual_seed(0)
    model = tiny(8.0, num_points=(96, 24))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=80)
    inputs, answers = [scene(), scene(1)], [target(CAR, labels=(2,))] * 2
    for _ in range(80):
        optimizer.zero_grad()
        sum(model(inputs, answers).values()).backward()
        optimizer.step()
        schedule.step()
    found = model.eval().predict(inputs)[0]
    assert found["labels"][0] == 2
    assert float(bev_iou(found["boxes"][:1], torch.tensor([CAR]))) > 0.4


def test_wrong_input_is_named() -> None:
    with pytest.raises(ShapeError, match="1 scenes need as many targets, got 2"):
        tiny()([scene()], [target(), target()])
    with pytest.raises(TargetError, match=r"labels of scene 0 must lie below 3, got \[3\]"):
        tiny()([scene()], [target(CAR, labels=(3,))])
    with pytest.raises(ConfigError, match=r"chooses from those of the level before, got 1 .*\(96, 24, 48\)"):
        tiny(num_points=(24, 48))
