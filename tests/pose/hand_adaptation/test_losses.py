"""The hand task loss, the divergence of two teachers, and what it makes of an image's weight."""

from __future__ import annotations

import math

import pytest
import torch

from limbeck_core.errors import NonFiniteError, ShapeError
from limbeck_pose.hand_adaptation import HandTaskLoss, confidence, divergence, hand_task_loss


def outputs(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    heatmaps = torch.randn(count, 3, 4, 4, generator=generator, dtype=torch.float64) * 0.02
    return heatmaps, torch.randn(count, 1, 8, 8, generator=generator, dtype=torch.float64)


def test_by_hand() -> None:
    heatmaps = torch.tensor([0.004, 0.05]).double().view(1, 2, 1, 1)
    mask = torch.zeros(1, 1, 1, 1).double()
    loss = hand_task_loss(heatmaps, mask, torch.zeros_like(heatmaps), torch.ones(1, 2), torch.ones_like(mask))
    smooth = (0.5 * 0.004**2 + 0.01 * (0.05 - 0.005)) / 2
    assert loss.item() == pytest.approx(1e7 * smooth + 100 * math.log(2))


def test_a_knee_of_one_is_half_the_squared_error() -> None:
    heatmaps, mask = outputs()
    truth = torch.zeros_like(heatmaps)
    loss = hand_task_loss(heatmaps, mask, truth, torch.ones(2, 3), mask, heatmap_weight=1.0, mask_weight=0.0, knee=1.0)
    assert loss.item() == pytest.approx(heatmaps.square().mean().item() / 2)
    with pytest.raises(ValueError, match="knee"):
        HandTaskLoss(knee=0.0)


def test_only_valid_key_points_and_chosen_branches_count() -> None:
    heatmaps, mask = (tensor.requires_grad_() for tensor in outputs())
    truth, valid = torch.zeros_like(heatmaps), torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    each = hand_task_loss(heatmaps, mask, truth, valid, mask.detach().sigmoid(), mask_weight=0.0, reduction="none")
    assert each[1].item() == 0
    alone = hand_task_loss(heatmaps[:1, ::2], mask[:1], truth[:1, ::2], torch.ones(1, 2), mask[:1], mask_weight=0.0)
    assert each[0].item() == pytest.approx(alone.item())
    each.sum().backward()
    assert mask.grad is None
    assert heatmaps.grad is not None
    assert heatmaps.grad[0, 1].abs().max() == 0
    nothing = hand_task_loss(heatmaps, mask, truth, valid, mask, heatmap_weight=0.0, mask_weight=0.0)
    nothing.backward()
    assert nothing.item() == 0


def test_no_gradient_into_targets_and_an_empty_batch() -> None:
    heatmaps, mask = outputs()
    truth = torch.zeros_like(heatmaps, requires_grad=True)
    loss = HandTaskLoss()([heatmaps.requires_grad_(), mask], [truth, torch.ones(2, 3), mask.sigmoid()])
    loss.backward()
    assert truth.grad is None
    empty = HandTaskLoss()([heatmaps[:0], mask[:0]], [truth[:0], torch.ones(0, 3), mask[:0]])
    empty.backward()
    assert empty.item() == 0


def test_what_does_not_fit_is_told() -> None:
    heatmaps, mask = outputs()
    good = [torch.zeros_like(heatmaps), torch.ones(2, 3), torch.zeros_like(mask)]
    with pytest.raises(ShapeError, match=r"valid must have one value a key point, \(2, 3\), got \(2, 4\)"):
        HandTaskLoss()([heatmaps, mask], [good[0], torch.ones(2, 4), good[2]])
    with pytest.raises(ShapeError, match="got 2 and 1 tensors"):
        HandTaskLoss()([heatmaps, mask], good[:1])
    with pytest.raises(ValueError, match="mask_weight"):
        HandTaskLoss(mask_weight=-1.0)
    heatmaps[0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="heatmaps"):
        HandTaskLoss()([heatmaps, mask], good)


def test_divergence_joins_both_outputs() -> None:
    points, mask = torch.zeros(2, 4, 2), torch.zeros(2, 1, 8, 8)
    moved = points.clone()
    moved[1] += torch.tensor([4.0, 0.0])  # half of the half width of 8
    apart = divergence(points, moved, mask, mask, size=(8, 16))
    assert apart.tolist() == pytest.approx([0, 5 * 0.25 / 2])
    assert divergence(points, points, mask, mask + 0.5, size=(8, 16)).tolist() == pytest.approx([1.25, 1.25])
    with pytest.raises(ShapeError, match="first_points"):
        divergence(points, moved[:, :2], mask, mask, size=(8, 16))


def test_confidence_falls_from_exactly_one() -> None:
    weights = confidence(torch.tensor([0.0, 1.0, 2.0, 1e6]), sharpness=2.0)
    assert weights[0] == 1
    assert (weights.diff() < 0).all()
    assert weights[1].item() == pytest.approx(2 * (1 - 1 / (1 + math.exp(-2))))
    assert (confidence(torch.tensor([0.0, 3.0]), sharpness=0.0) == 1).all()
