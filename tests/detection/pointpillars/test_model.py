"""The network: weights' names and numbers of mmdet3d, losses by hand, sharing of pillars, training end to end."""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.errors import CheckpointError, ConfigError, MatchError, ShapeError, TargetError
from limbeck_core.losses import HintLoss
from limbeck_detection.pointpillars import (
    HeadOutput,
    LidarCall,
    PillarGrid,
    PointPillars,
    pointpillars,
    pointpillars_4x,
    pointpillars_8x,
    pointpillars_16x,
    voxelize,
)
from limbeck_detection.pointpillars.boxes import encode_boxes
from limbeck_detection.pointpillars.encoder import PillarFeatureNet

TINY: dict[str, Any] = {
    "point_range": (0.0, -6.4, -3.0, 12.8, 6.4, 1.0),
    "pillar_size": (0.32, 0.32, 4.0),
    "layer_nums": (1, 1, 1),
    "max_points": 8,
}


def tiny(width: int = 8, **options: Any) -> PointPillars:
    return pointpillars(width, **{**TINY, **options})


def points(count: int = 300, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor([12.8, 12.8, 3.0, 1.0])
    return torch.rand(count, 4, generator=generator) * spread - torch.tensor([0.0, 6.4, 2.5, 0.0])


def target(*rows: list[float], labels: tuple[int, ...] = ()) -> dict[str, Tensor]:
    return {"boxes": torch.tensor(rows).reshape(-1, 7), "labels": torch.tensor(labels, dtype=torch.int64)}


CAR = [6.0, 1.0, -1.8, 3.9, 1.6, 1.5, 0.3]
WALKER = [3.0, -4.0, -0.7, 0.8, 0.6, 1.7, 2.0]


@pytest.mark.parametrize(
    ("factory", "count"),
    [(pointpillars, 4_834_888), (pointpillars_4x, 1_217_352), (pointpillars_8x, 613_703), (pointpillars_16x, 308_680)],
)
def test_number_of_parameters(factory: Any, count: int) -> None:
    with torch.device("meta"):
        model = factory()
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_names_and_shapes_of_weights_are_those_of_mmdet3d() -> None:
    def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
        parts = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (width,))
        return {f"{name}.{part}": shape for part, shape in {**parts, "num_batches_tracked": ()}.items()}

    expected = {"voxel_encoder.pfn_layers.0.linear.weight": (64, 10), **norm("voxel_encoder.pfn_layers.0.norm", 64)}
    before = 64
    for block, (width, layers) in enumerate(((64, 3), (128, 5), (256, 5))):
        for layer in range(layers + 1):
            expected[f"backbone.blocks.{block}.{3 * layer}.weight"] = (width, before, 3, 3)
            expected |= norm(f"backbone.blocks.{block}.{3 * layer + 1}", width)
            before = width
        side = 2**block
        expected[f"neck.deblocks.{block}.0.weight"] = (width, 128, side, side)
        expected |= norm(f"neck.deblocks.{block}.1", 128)
    for name, channels in (("conv_cls", 18), ("conv_reg", 42), ("conv_dir_cls", 12)):
        expected |= {f"bbox_head.{name}.weight": (channels, 384, 1, 1), f"bbox_head.{name}.bias": (channels,)}
    with torch.device("meta"):
        state = pointpillars().state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == expected


def test_a_checkpoint_of_mmdet3d_loads_whole(tmp_path: Path) -> None:
    source = tiny()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.uniform_(-1, 1)
    # what mmengine's runner writes: weights without their modules' versions, and plain words beside them
    content = {
        "meta": {"CLASSES": ("Pedestrian", "Cyclist", "Car"), "epoch": 160},
        "state_dict": OrderedDict(source.state_dict()),
    }
    torch.save(content, tmp_path / "published.pth")
    loaded = pretrained(tiny(), tmp_path / "published.pth")
    inner = getattr(loaded, "model", loaded)
    for name, value in source.state_dict().items():
        assert torch.equal(inner.state_dict()[name], value), name
    with pytest.raises(CheckpointError, match="shape|match"):
        pretrained(tiny(16), tmp_path / "published.pth")


def test_decoration_by_hand() -> None:
    grid = PillarGrid((0.0, 0.0, -1.0, 2.0, 2.0, 1.0), (1.0, 1.0, 2.0), max_points=3)
    pillars = voxelize([torch.tensor([[1.2, 0.5, 0.4, 0.9], [1.6, 0.7, 0.0, 0.1]])], grid)
    net = PillarFeatureNet(grid, 4)
    expected = torch.tensor(
        [
            # to the centre (1.5, .5, 0), reflectance, to the mean (1.4, .6, .2), to the centre
            [-0.3, 0.0, 0.4, 0.9, -0.2, -0.1, 0.2, -0.3, 0.0, 0.4],
            [0.1, 0.2, 0.0, 0.1, 0.2, 0.1, -0.2, 0.1, 0.2, 0.0],
            [0.0] * 10,
        ]
    )
    torch.testing.assert_close(net.decorate(pillars)[0], expected, atol=1e-6, rtol=0)
    modern = PillarFeatureNet(grid, 4, legacy=False).decorate(pillars)[0]
    torch.testing.assert_close(modern[0, :3], torch.tensor([1.2, 0.5, 0.4]))
    torch.testing.assert_close(modern[:, 3:], expected[:, 3:], atol=1e-6, rtol=0)


def test_networks_that_share_pillars_leave_them_as_they_are() -> None:
    teacher, student = tiny(16).eval(), tiny(8)
    pillars = student.prepare([points(), points(seed=1)])
    before = [value.clone() for value in pillars[:3]]
    alone = teacher([points(), points(seed=1)])
    student(pillars)
    shared = teacher(pillars)
    assert all(torch.equal(a, b) for a, b in zip(pillars[:3], before, strict=True))
    torch.testing.assert_close(shared.logits, alone.logits)


def test_the_head_speaks_of_the_anchor_it_means() -> None:
    """The loss is least where the head answers with the codes of the assigned anchors, and boxes come back."""
    model = tiny()
    head = model.bbox_head
    truth = [target(CAR, WALKER, labels=(2, 0)), target([9.0, -3.0, -1.7, 3.7, 1.5, 1.6, -2.9], labels=(2,))]
    height, width = head.anchors.shape[:2]
    logits = torch.full((2, height, width, 3, 2, 3), -12.0)
    residuals, directions = torch.zeros(2, height, width, 3, 2, 7), torch.zeros(2, height, width, 3, 2, 2)
    for scene, answer in enumerate(truth):
        found = head._assign(answer)
        for place in (found >= 0).nonzero():
            y, x, label, turn = place.tolist()
            goal = answer["boxes"][found[y, x, label, turn]]
            logits[scene, y, x, label, turn, label] = 12.0
            residuals[scene, y, x, label, turn] = encode_boxes(goal, head.anchors[y, x, label, turn])
            forward = math.cos(float(goal[6])) >= 0
            directions[scene, y, x, label, turn, 0 if forward else 1] = 12.0
        assert {2} <= set((found >= 0).nonzero()[:, 2].tolist())
    output = HeadOutput(*(v.flatten(3).permute(0, 3, 1, 2) for v in (logits, residuals, directions)))
    losses = head.loss(output, truth)
    assert all(float(loss) < 1e-4 for loss in losses.values())
    for answer, detections in zip(truth, head.decode(output), strict=True):
        assert len(detections["boxes"]) == len(answer["boxes"])
        order = [int((detections["labels"] == label).nonzero()[0]) for label in answer["labels"]]
        torch.testing.assert_close(detections["boxes"][order], answer["boxes"], atol=1e-4, rtol=1e-4)


def test_losses_by_hand() -> None:
    head = tiny().bbox_head
    height, width = head.anchors.shape[:2]
    output = HeadOutput(
        torch.randn(1, 18, height, width), torch.randn(1, 42, height, width), torch.randn(1, 12, height, width)
    )
    answer = target(CAR, labels=(2,))
    found = head._assign(answer)
    losses = head.loss(output, [answer])
    logits = output.logits[0].view(3, 2, 3, height, width).permute(3, 4, 0, 1, 2)
    positive = found >= 0
    count = int(positive.sum())
    assert count > 0
    truth = torch.zeros_like(logits)
    truth[positive] = torch.tensor([0.0, 0.0, 1.0])  # only anchors of cars are positive
    p = logits.sigmoid()
    right = torch.where(truth == 1, p, 1 - p)
    alpha = torch.where(truth == 1, 0.25, 0.75)
    focal = alpha * (1 - right) ** 2 * binary_cross_entropy_with_logits(logits, truth, reduction="none")
    torch.testing.assert_close(losses["loss/cls"], focal[found != -2].sum() / count)
    residuals = output.residuals[0].view(3, 2, 7, height, width).permute(3, 4, 0, 1, 2)[positive]
    goal = encode_boxes(answer["boxes"].expand(count, 7), head.anchors[positive])
    difference = residuals - goal
    # sin a cos b - cos a sin b
    difference[:, 6] = torch.sin(residuals[:, 6] - goal[:, 6])
    size = difference.abs()
    smooth = torch.where(size < 1 / 9, size**2 * 4.5, size - 1 / 18)
    torch.testing.assert_close(losses["loss/box"], 2 * smooth.sum() / count)
    halves = output.directions[0].view(3, 2, 2, height, width).permute(3, 4, 0, 1, 2)[positive]
    torch.testing.assert_close(losses["loss/dir"], -0.2 * halves.log_softmax(1)[:, 0].sum() / count)


@pytest.mark.parametrize("scenes", [[points(), torch.zeros(0, 4)], [torch.zeros(0, 4)] * 2, [points(), points(seed=1)]])
def test_without_objects_or_points_losses_are_finite_and_have_a_gradient(scenes: list[Tensor]) -> None:
    model = tiny()
    losses = model(scenes, [target(), target()])
    assert float(losses["loss/box"]) == float(losses["loss/dir"]) == 0
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
    model.eval()
    assert len(model.predict(scenes)) == 2


def test_points_that_are_no_numbers_do_not_reach_the_network() -> None:
    model = tiny().eval()
    bad = torch.cat([points(), torch.full((5, 4), math.nan), torch.full((5, 4), 1e9)])
    assert torch.equal(model([bad]).logits, model([points()]).logits)


def test_wrong_input_is_named() -> None:
    model = tiny()
    with pytest.raises(ShapeError, match=r"takes 4 features of a point \(point_features\), the pillars have 5"):
        model([torch.rand(9, 5)])
    with pytest.raises(ShapeError, match="2 scenes need as many targets, got 1"):
        model([points(), points()], [target()])
    with pytest.raises(ShapeError, match=r"boxes \(n, 7\).*got \(1, 6\)"):
        model([points()], [{"boxes": torch.zeros(1, 6), "labels": torch.zeros(1, dtype=torch.int64)}])
    with pytest.raises(TargetError, match=r"from 0 to 2 \(Pedestrian, Cyclist, Car\), got \[3\]"):
        model([points()], [target(CAR, labels=(3,))])
    with pytest.raises(TargetError, match="not finite or has no extent"):
        model([points()], [target([*CAR[:5], 0.0, 0.3], labels=(2,))])
    with pytest.raises(TargetError, match="lacks labels; it has boxes"):
        model([points()], [{"boxes": torch.zeros(0, 7)}])
    with pytest.raises(ConfigError, match="cannot be strided by 8"):
        tiny(point_range=(0.0, -6.4, -3.0, 12.48, 6.4, 1.0))


def test_a_teacher_gets_the_pillars_of_its_student() -> None:
    teacher = tiny(16)
    state = {name: value.clone() for name, value in teacher.state_dict().items()}
    student = tiny(8, max_pillars=(50, 400))
    teacher.grid = student.grid
    distiller = Distiller(
        student,
        teacher,
        matches={"pillars": Match(HintLoss(), "voxel_encoder", "voxel_encoder", adapter=torch.nn.Linear(8, 16))},
        call=LidarCall(),
    )
    batch = {
        "ids": torch.arange(2),
        "inputs": [points(), points(seed=1)],
        "targets": [target(CAR, labels=(2,)), target()],
    }
    losses = distiller(batch)
    assert set(losses) == {"loss/cls", "loss/box", "loss/dir", "loss/pillars"}
    sum(losses.values()).backward()
    assert student.voxel_encoder.pfn_layers[0].linear.weight.grad.abs().sum() > 0
    # 50 pillars a scene, the student's number in training: the teacher in evaluation would have taken more
    assert len(distiller.call._last[2].coords) == 100
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, state[name]), name
    with pytest.raises(MatchError, match="brings its own losses"):
        Distiller(tiny(), task_loss=torch.nn.MSELoss(), call=LidarCall())(batch)
    with pytest.raises(MatchError, match="needs 'targets' of the batch"):
        Distiller(tiny(), call=LidarCall())({"inputs": [points()]})


def test_a_few_steps_find_a_box() -> None:
    """A car on a plain of noise is found where it stands, heading included, after a short training on it alone."""
    torch.manual_seed(0)
    model = tiny(norm_momentum=0.1)
    generator = torch.Generator().manual_seed(3)
    body = (torch.rand(120, 4, generator=generator) - 0.5) * torch.tensor([3.9, 1.6, 1.5, 1.0])
    turn = torch.tensor([[math.cos(0.3), math.sin(0.3)], [-math.sin(0.3), math.cos(0.3)]])
    body[:, :2] = body[:, :2] @ turn + torch.tensor(CAR[:2])
    body[:, 2] -= 1.05
    scene, answer = [torch.cat([body, points(80)])] * 2, [target(CAR, labels=(2,))] * 2
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(40):
        optimizer.zero_grad()
        sum(model(scene, answer).values()).backward()
        optimizer.step()
    model.eval()
    found = model.predict(scene)[0]
    assert found["labels"][0] == 2
    assert float(found["scores"][0]) > 0.3
    torch.testing.assert_close(found["boxes"][0], torch.tensor(CAR), atol=0.35, rtol=0)
