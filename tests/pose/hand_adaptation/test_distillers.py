"""Self-training and two teachers: who learns from whom, and what must come out equal."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limbeck_core import Peers
from limbeck_core.engine.commands import train
from limbeck_core.engine.sampler import stack
from limbeck_core.errors import MatchError, ShapeError
from limbeck_pose.hand_adaptation import HandAugmentation, HandNet, HandPairs, HandTaskLoss, SelfTraining, TwoTeachers
from limbeck_pose.hand_adaptation.rendered import render
from limbeck_pose.heatmap import Heatmap

CODEC = Heatmap((64, 64), sigma=2.0, stride=2)


def net(seed: int = 0) -> HandNet:
    torch.manual_seed(seed)
    return HandNet(width=4, stacks=1, depth=1, blocks=1, dropout=0.0)


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    hands = render(tmp_path_factory.mktemp("hands"), train=3, val=1)
    pairs = HandPairs(hands / "source/train", hands / "target/train", codec=CODEC, augmentation=HandAugmentation())
    np.random.seed(0)
    stacked: dict[str, Any] = stack([pairs[number] for number in range(3)])
    return stacked


def two(first: int = 1, second: int = 2, **options: Any) -> TwoTeachers:
    peers = Peers(student=net(0), first=net(first), second=net(second))
    return TwoTeachers(peers, codec=CODEC, task_loss=HandTaskLoss(), **options).train()


def test_the_network() -> None:
    heatmaps, mask = net()(torch.zeros(2, 3, 64, 32, dtype=torch.uint8))
    assert heatmaps.shape == (2, 21, 32, 16)
    assert mask.shape == (2, 1, 64, 32)
    with pytest.raises(ShapeError, match="sides divisible by 4, got"):
        net()(torch.zeros(1, 3, 64, 30))
    with pytest.raises(ShapeError, match="a width divisible by 4"):
        HandNet(width=6)


def test_who_learns_from_whom(batch: dict[str, Any]) -> None:
    distiller = two()
    losses = distiller(batch)
    assert set(losses) == {
        "loss/task.student", "loss/task.first", "loss/task.second", "loss/consistency", "loss/first", "loss/second",
        "confidence", "divergence",
    }  # fmt: skip
    peers = dict(distiller.student.named_children())
    for loss, learner in (("loss/consistency", "student"), ("loss/first", "first"), ("loss/second", "second")):
        for name, peer in peers.items():
            found = torch.autograd.grad(losses[loss], list(peer.parameters()), retain_graph=True, allow_unused=True)
            assert any(g is not None and g.abs().sum() > 0 for g in found) == (name == learner), (loss, name)
    assert 0 < losses["confidence"].item() <= 1
    assert losses["divergence"].item() > 0


def test_twins_weigh_every_image_alike(batch: dict[str, Any]) -> None:
    twins, unweighted = two(1, 1), two(1, 1, sharpness=0.0)
    losses, others = twins(batch), unweighted(batch)
    assert losses["confidence"] == 1
    assert losses["divergence"] == 0
    assert losses["loss/consistency"].item() == pytest.approx(others["loss/consistency"].item(), rel=1e-6)
    assert two(1, 2)(batch)["loss/consistency"] < two(1, 2, sharpness=0.0)(batch)["loss/consistency"]


def test_the_median_image_weighs_what_was_asked(batch: dict[str, Any]) -> None:
    distiller = two(usual_confidence=0.7)
    assert distiller._sharpness(torch.zeros(3)) == 0
    sharpness = distiller._sharpness(torch.tensor([0.1, 0.2, 0.9]))
    weights = 2 * torch.sigmoid(-sharpness * torch.tensor([0.1, 0.2, 0.9]))
    assert weights[1].item() == pytest.approx(0.7)
    distiller.eval()
    assert distiller._sharpness(torch.tensor([5.0])) == sharpness, "evaluation does not calibrate"


def test_pseudo_labels_leave_no_trace(batch: dict[str, Any]) -> None:
    distiller = SelfTraining(net(), codec=CODEC, task_loss=HandTaskLoss()).train()
    distiller.student.features[1].eval()
    before = copy.deepcopy(distiller.student.state_dict())
    modes = [module.training for module in distiller.student.modules()]
    labels = distiller.predict_labels(distiller.student, batch["target"])
    assert not labels.points.requires_grad
    assert not labels.mask.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in distiller.student.state_dict().items())
    assert modes == [module.training for module in distiller.student.modules()]


def test_the_first_round_leaves_the_mask_head_alone(batch: dict[str, Any]) -> None:
    distiller = SelfTraining(net(), codec=CODEC, task_loss=HandTaskLoss(), branches=("keypoints",)).train()
    head = list(distiller.student.mask_head.parameters())
    losses = distiller(batch)
    found = torch.autograd.grad(losses["loss/consistency"], head, retain_graph=True, allow_unused=True)
    assert all(gradient is None for gradient in found)
    (weight, _) = torch.autograd.grad(losses["loss/task"], head)
    assert weight.abs().sum() > 0


class Oracle(nn.Module):
    """Finds where each channel is brightest, whatever the view."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        flat = images.float().flatten(2).argmax(-1)
        points = torch.stack([flat % 64, flat // 64], -1).float()
        return CODEC.encode(points, torch.ones(points.shape[:2])).heatmaps, torch.zeros(len(images), 1, 64, 64)


def test_an_oracle_that_moves_with_the_image_has_no_consistency_loss() -> None:
    crops = torch.zeros(1, 3, 64, 64)
    for channel, (x, y) in enumerate(((10, 20), (40, 12), (33, 50))):
        crops[0, channel, y, x] = 255
    distiller = SelfTraining(Oracle(), codec=CODEC, task_loss=HandTaskLoss(), branches=("keypoints",))
    mirror = torch.tensor([[[-1.0, 0, 63], [0, 1, 0]]])
    view = {"inputs": crops.flip(-1), "matrix": mirror, "keep": torch.ones(1, 64, 64, dtype=torch.bool)}
    labels = distiller.predict_labels(distiller.student, crops)
    # cells are two pixels: what is found is up to half a pixel off, so the truth takes its place
    true = type(labels)(torch.tensor([[[10.0, 20], [40, 12], [33, 50]]]), labels.found, labels.mask)
    assert distiller.loss_on(distiller.student, view, true).item() == 0
    straight = {**view, "matrix": torch.eye(3)[None, :2]}
    assert distiller.loss_on(distiller.student, straight, true).item() > 0


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(MatchError, match="branches names 'masks'"):
        SelfTraining(net(), codec=CODEC, task_loss=HandTaskLoss(), branches=("masks",))
    with pytest.raises(MatchError, match="branches names nothing"):
        SelfTraining(net(), codec=CODEC, task_loss=HandTaskLoss(), branches=())
    with pytest.raises(MatchError, match="must be a HandTaskLoss, got MSELoss"):
        SelfTraining(net(), codec=CODEC, task_loss=nn.MSELoss())
    with pytest.raises(MatchError, match=r"needs Peers\(student=..., first=..., second=...\)"):
        TwoTeachers(Peers(net(), net()), codec=CODEC, task_loss=HandTaskLoss())
    with pytest.raises(ValueError, match="usual_confidence must be above 0 and below 1, got 1"):
        two(usual_confidence=1.0)


def test_configs_hand_their_networks_on(tmp_path: Path) -> None:
    render(tmp_path / "hands", train=2, val=1)
    short = {"train_cfg.max_epochs": 1, "train_cfg.val_interval": 1, "+log_level": "ERROR"}
    place = {"data_root": tmp_path / "hands"}
    source = tmp_path / "source"
    train("pose/hands/source", work_dir=source, seed=0, overrides=short, **place)  # type: ignore[arg-type]
    files = {f"model.student.{name}.checkpoint": str(source / "student.pth") for name in ("student", "first", "second")}
    runner = train("pose/hands/two_teachers", work_dir=tmp_path / "two", seed=0, overrides=short | files, **place)  # type: ignore[arg-type]
    assert np.isfinite(runner.message_hub.get_scalar("val/score").current())
    assert runner.message_hub.get_scalar("train/divergence").current() == 0, "three times the same network"
    assert runner.message_hub.get_scalar("train/confidence").current() == 1
    handed = torch.load(tmp_path / "two" / "student.pth", weights_only=True)
    assert any(name.endswith("mask_head.weight") for name in handed.get("state_dict", handed))
