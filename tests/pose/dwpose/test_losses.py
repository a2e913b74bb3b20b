"""DWPose's losses: the contract of all losses, and what the method rests on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import rel_entr
from scipy.special import softmax as scipy_softmax
from torch import Tensor

from limbeck_core.errors import ShapeError
from limbeck_pose.dwpose import SimCCDivergenceLoss, SimCCTaskLoss, simcc_divergence_loss, simcc_task_loss
from limbeck_pose.dwpose.divergence import sharpened_divergence
from limbeck_pose.simcc import SimCC
from loss_contract import LossContract, randn


class TestSimCCDivergenceLoss(LossContract):
    function = simcc_divergence_loss
    module = SimCCDivergenceLoss
    hyper = {"sharpness": 2.0}

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_scores": randn(batch, 3, 6, seed=1, dtype=dtype),
            "teacher_scores": randn(batch, 3, 6, seed=2, dtype=dtype),
        }

    def test_against_scipy(self) -> None:
        s, t = self.inputs().values()
        entropy = rel_entr(scipy_softmax(10 * t.numpy(), -1), scipy_softmax(10 * s.numpy(), -1))
        expected = torch.from_numpy(entropy).sum(-1).mean()
        torch.testing.assert_close(simcc_divergence_loss(s, t), expected)

    def test_unlabelled_key_points_are_taught_unless_masked(self) -> None:
        s, t = self.inputs().values()
        s.requires_grad_()
        everything = simcc_divergence_loss(s, t, reduction="none")
        masked = simcc_divergence_loss(s, t, mask=torch.tensor([1.0, 0.0, 1.0]).expand(4, 3), reduction="none")
        (gradient,) = torch.autograd.grad(masked.sum(), s, retain_graph=True)
        assert gradient[:, 1].abs().max() == 0
        assert (torch.autograd.grad(everything.sum(), s)[0][:, 1].abs().amax(-1) > 0).all()
        assert (masked < everything).all()

    def test_all_masked_is_a_differentiable_zero(self) -> None:
        s, t = self.inputs().values()
        loss = simcc_divergence_loss(s.requires_grad_(), t, mask=torch.zeros(4, 3))
        loss.backward()
        assert float(loss.detach()) == 0

    def test_mask_of_another_shape(self) -> None:
        with pytest.raises(ShapeError, match=r"one value a key point, shape \(4, 3\), got \(4, 6\)"):
            simcc_divergence_loss(**self.inputs(), mask=torch.ones(4, 6))


def head(batch: int = 4) -> tuple[list[Tensor], list[Tensor]]:
    codec = SimCC((32, 32), sigma=(2.0, 2.0))
    points = torch.rand(batch, 3, 2, dtype=torch.float64) * 30
    targets = codec.encode(points, torch.tensor([1.0, 0.0, 1.0]).expand(batch, 3))
    scores = [randn(batch, 3, 64, seed=3), randn(batch, 3, 64, seed=4)]
    return scores, [targets.x, targets.y, targets.weight]


def test_task_loss_against_scipy() -> None:
    (x, _), (label, _, weight) = head()
    p, log_q = scipy_softmax(10 * label.numpy(), -1), scipy_log_softmax(10 * x.numpy(), -1)
    terms = torch.from_numpy(p * (scipy_log_softmax(10 * label.numpy(), -1) - log_q)).mean(-1) * weight
    torch.testing.assert_close(simcc_task_loss(x, label, weight), terms.sum() / 3 / 4)


def test_task_loss_sums_over_the_batch_only_when_asked() -> None:
    """The trap of the reference: its task loss grows with the batch, its distillation loss does not."""
    (x, _), (label, _, weight) = head()
    twice = [torch.cat([value, value]) for value in (x, label, weight)]
    one, two = simcc_task_loss(x, label, weight, reduction="sum"), simcc_task_loss(*twice, reduction="sum")
    torch.testing.assert_close(two, 2 * one)
    torch.testing.assert_close(simcc_task_loss(*twice), simcc_task_loss(x, label, weight))


def test_nothing_labelled_keeps_the_gradient_path() -> None:
    scores, (x, y, weight) = head()
    leaves = [value.requires_grad_() for value in scores]
    loss = SimCCTaskLoss()(leaves, [x, y, torch.zeros_like(weight)])
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(leaf.grad is not None for leaf in leaves)


def test_both_axes_are_added() -> None:
    (x, y), targets = head()
    parts = simcc_task_loss(x, targets[0], targets[2]) + simcc_task_loss(y, targets[1], targets[2])
    torch.testing.assert_close(SimCCTaskLoss()((x, y), targets), parts)


def test_large_scores_in_half_precision_stay_finite() -> None:
    x = torch.full((1, 1, 4), 3e4, dtype=torch.float16)
    x[0, 0, 0] = -3e4
    label, weight = torch.tensor([[[0.0, 1.0, 0.0, 0.0]]]), torch.ones(1, 1)
    assert torch.isfinite(simcc_task_loss(x, label, weight))
    assert torch.isfinite(simcc_divergence_loss(x, x.flip(-1)))


def test_pairs_and_triples_are_asked_for() -> None:
    scores, targets = head()
    with pytest.raises(ShapeError, match=r"scores \(x, y\) and targets \(x, y, weight\), got 2 and 2 tensors"):
        SimCCTaskLoss()(scores, targets[:2])
    with pytest.raises(ValueError, match="sharpness must be a finite number above 0, got 0"):
        SimCCTaskLoss(sharpness=0)


def test_another_number_of_key_points_names_both() -> None:
    with pytest.raises(ShapeError, match="student_scores are of 10 key points, teacher_scores of 17: give models"):
        simcc_divergence_loss(torch.zeros(2, 10, 8), torch.zeros(2, 17, 8))
    with pytest.raises(ShapeError, match="scores are of 10 key points, labels of 133"):
        simcc_task_loss(torch.zeros(2, 10, 8), torch.zeros(2, 133, 8), torch.ones(2, 133))


@pytest.mark.parametrize("loss", ["task", "divergence"])
def test_an_empty_batch_is_a_differentiable_zero(loss: str) -> None:
    scores = torch.zeros(0, 3, 8, requires_grad=True)
    other = torch.zeros(0, 3, 8)
    value = (
        simcc_task_loss(scores, other, torch.zeros(0, 3)) if loss == "task" else simcc_divergence_loss(scores, other)
    )
    value.backward()
    assert value.item() == 0
    assert scores.grad is not None


def test_the_gradient_worked_out_beforehand() -> None:
    scores = randn(2, 3, 6, seed=1).double().requires_grad_()
    reference = randn(2, 3, 6, seed=2).double()
    assert torch.autograd.gradcheck(lambda s: sharpened_divergence(s, reference, 3.0), (scores,))
    assert sharpened_divergence(reference, reference, 10.0).abs().max() == 0


def test_large_scores_stay_finite() -> None:
    """Ten times a score of 1e4 overflows float16, and its exponential everything."""
    scores = torch.tensor([[[1e4, 0.0, -1e4]]], dtype=torch.float16)
    other = torch.tensor([[[0.0, 1e4, -1e4]]], dtype=torch.float16)
    assert sharpened_divergence(scores, other, 10.0).item() == pytest.approx(1e5, rel=1e-3)
