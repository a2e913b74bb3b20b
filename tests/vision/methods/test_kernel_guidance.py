"""Closed forms against the iteration they replace, the limit against ridge regression, and the networks' procedure."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck_core import Match
from limbeck_core.errors import ConfigError, ShapeError, TargetError
from limbeck_vision.methods.kernel_guidance import (
    GuidedDistiller,
    LabelMSELoss,
    ProbabilityMSELoss,
    SelfDistilledRidge,
    optimal_target_weight,
    probability_mse_loss,
    procedure,
    rbf_kernel,
)
from loss_contract import LossContract, randn

# The paper's toy problem: eleven noisy points of a sine, and the squared errors of the card's table.
POINTS = torch.arange(11, dtype=torch.float64)[:, None] / 10
TARGETS = torch.tensor(
    [
        0.38476636,
        1.23339677,
        1.33233242,
        0.69201595,
        -0.29756146,
        -0.24189292,
        -0.79644858,
        -0.96164802,
        -0.49672510,
        -0.34690660,
        0.55895127,
    ],
    dtype=torch.float64,
)
GRID = torch.arange(101, dtype=torch.float64)[:, None] / 100
TABLE = {
    0.0: [0.16477, 0.15076, 0.14915, 0.15561, 0.16735, 0.18251, 0.49505],
    0.35: [0.16477, 0.15424, 0.15089, 0.14983, 0.14954, 0.14948, 0.14959],
    0.25: [0.16477, 0.15309, 0.14958, 0.14903, 0.14946, 0.15011, 0.15250],
}
RIDGE = 0.2


def toy() -> tuple[SelfDistilledRidge, Tensor, Tensor]:
    """The model, the kernel of the grid, and the truth on it."""
    model = SelfDistilledRidge(rbf_kernel(POINTS, POINTS, gamma=80.0), TARGETS, ridge=RIDGE)
    return model, rbf_kernel(GRID, POINTS, gamma=80.0), torch.sin(2 * math.pi * GRID[:, 0])


def iterated(kernel: Tensor, targets: Tensor, weight: float, steps: int, ridge: float) -> list[Tensor]:
    """Coefficients of every step by solving each step's system anew."""
    system = kernel + ridge * torch.eye(len(kernel), dtype=kernel.dtype)
    predicted, found = targets, []
    for _ in range(steps):
        found.append(torch.linalg.solve(system, weight * targets + (1 - weight) * predicted))
        predicted = kernel @ found[-1]
    return found


@pytest.mark.parametrize("weight", TABLE)
def test_the_toy_table(weight: float) -> None:
    model, kernel, truth = toy()
    steps: list[int | None] = [1, 2, 3, 4, 5, 6, None]
    errors = [(model.predict(kernel, step, target_weight=weight) - truth).square().mean().item() for step in steps]
    assert errors == pytest.approx(TABLE[weight], abs=6e-6)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("columns", [0, 3])
def test_every_step_is_the_iteration(weight: float, columns: int) -> None:
    inputs, others = randn(20, 2), randn(7, 2, seed=1)
    targets = randn(20, columns, seed=2) if columns else randn(20, seed=2)
    kernel, across = rbf_kernel(inputs, inputs, gamma=0.7), rbf_kernel(others, inputs, gamma=0.7)
    model = SelfDistilledRidge(kernel, targets, ridge=0.05)
    for step, coefficients in enumerate(iterated(kernel, targets, weight, 9, 0.05), start=1):
        torch.testing.assert_close(
            model.fitted(step, target_weight=weight), kernel @ coefficients, atol=1e-10, rtol=1e-10
        )
        predicted = model.predict(across, step, target_weight=weight)
        torch.testing.assert_close(predicted, across @ coefficients, atol=1e-10, rtol=1e-10)


def test_the_limit_is_ridge_regression_with_the_ridge_over_the_weight() -> None:
    model, across, _ = toy()
    kernel = rbf_kernel(POINTS, POINTS, gamma=80.0)
    for weight in (0.1, 0.35, 1.0):
        ridge = torch.linalg.solve(kernel + RIDGE / weight * torch.eye(11, dtype=torch.float64), TARGETS)
        limit = model.predict(across, None, target_weight=weight)
        torch.testing.assert_close(limit, across @ ridge, atol=1e-10, rtol=1e-10)
        far = iterated(kernel, TARGETS, weight, 200, RIDGE)[-1]
        torch.testing.assert_close(limit, across @ far, atol=1e-8, rtol=1e-8)


def test_without_labels_the_limit_is_zero_and_with_labels_alone_nothing_changes() -> None:
    model, kernel, _ = toy()
    assert model.predict(kernel, None, target_weight=0.0).abs().max().item() == 0.0
    first = model.predict(kernel, 1, target_weight=0.4)
    for step in (2, 7, None):
        torch.testing.assert_close(model.predict(kernel, step, target_weight=1.0), first, atol=1e-12, rtol=1e-12)


def test_without_ridge_distillation_changes_nothing() -> None:
    model = SelfDistilledRidge(rbf_kernel(POINTS, POINTS, gamma=80.0), TARGETS, ridge=0.0)
    for step in (1, 5, None):
        for weight in (0.0, 0.5):
            fitted = model.fitted(step, target_weight=weight)
            torch.testing.assert_close(fitted, TARGETS, atol=1e-9, rtol=1e-9)


def test_a_singular_kernel() -> None:
    inputs = torch.cat([POINTS, POINTS])  # every point twice
    kernel, targets = rbf_kernel(inputs, inputs, gamma=80.0), torch.cat([TARGETS, -TARGETS])
    model = SelfDistilledRidge(kernel, targets, ridge=0.3)
    for step, coefficients in enumerate(iterated(kernel, targets, 0.2, 4, 0.3), start=1):
        fitted = model.fitted(step, target_weight=0.2)
        torch.testing.assert_close(fitted, kernel @ coefficients, atol=1e-10, rtol=0)


def test_directions_shrink_with_every_step_and_weak_ones_faster() -> None:
    model, _, _ = toy()
    for weight in (0.0, 0.2):
        spectra = torch.stack([model.spectrum(step, target_weight=weight) for step in range(1, 8)])
        assert bool((spectra.diff(dim=0) < 0).all())
        ratios = spectra[:, 1:] / spectra[:, :-1]  # eigenvalues ascend
        # with labels the ratio overshoots its limit after some steps: weak directions settle before strong ones
        growing = ratios if weight == 0 else ratios[:2]
        assert bool((growing.diff(dim=0) > 0).all())
    dampened = torch.stack([model.spectrum(7, target_weight=weight) for weight in (0.0, 0.2, 0.6)])
    assert bool((dampened.diff(dim=0) > 0).all()), "labels dampen the shrinking"


def test_the_best_weight_beats_a_grid() -> None:
    model, kernel, truth = toy()
    best = model.best_target_weight(kernel, truth, step=2, previous_weight=0.35)
    assert best == pytest.approx(-0.62, abs=0.01), "the card's figure against the noiseless truth"

    def error(weight: float) -> float:
        by_targets = model.predict(kernel, 1, target_weight=1.0)
        by_predictions = model.predict(kernel, 2, target_weight=0.0)  # step 1 is the same at any weight
        return (weight * by_targets + (1 - weight) * by_predictions - truth).square().mean().item()

    assert error(best) < min(error(weight / 50) for weight in range(-100, 101) if abs(weight / 50 - best) > 1e-3)


def test_later_best_weights_are_those_of_the_card() -> None:
    model, kernel, truth = toy()
    later = [model.best_target_weight(kernel, truth, step=step, previous_weight=0.35) for step in (10, 50)]
    assert all(0.3 < weight < 0.37 for weight in later)


def test_best_weight_of_equal_fits_and_its_clip() -> None:
    same = torch.ones(3, 2)
    assert optimal_target_weight(same, same, torch.zeros(3, 2)) == 1.0
    assert optimal_target_weight(same, torch.zeros(3, 2), 2 * same) == 1.0
    assert optimal_target_weight(same, torch.zeros(3, 2), 2 * same, clip=False) == 2.0
    assert optimal_target_weight(same, torch.zeros(3, 2), -same) == 0.0
    with pytest.raises(ShapeError, match="one-hot"):
        optimal_target_weight(same, same, torch.zeros(3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, k: m.predict(k[:, :5], 1, target_weight=0.5), ShapeError, r"\(m, 11\)"),
        (lambda m, k: m.predict(k, 0, target_weight=0.5), ValueError, "step must be 1 or more"),
        (lambda m, k: m.predict(k, 1, target_weight=1.5), ValueError, "between 0.0 and 1.0"),
        (lambda m, k: m.best_target_weight(k, k[:, 0], step=1, previous_weight=0), ValueError, "2 or more"),
        (lambda m, k: SelfDistilledRidge(k, TARGETS, ridge=1), ShapeError, "Gram matrix"),
        (lambda m, k: SelfDistilledRidge(k[:11], TARGETS, ridge=1), ShapeError, "symmetric"),
        (lambda m, k: SelfDistilledRidge(-torch.eye(2), TARGETS[:2], ridge=1), ValueError, "semi-definite"),
        (lambda m, k: SelfDistilledRidge(torch.eye(2), TARGETS, ridge=1), ShapeError, r"\(2,\)"),
        (lambda m, k: SelfDistilledRidge(torch.eye(2), TARGETS[:2], ridge=-1), ValueError, "ridge"),
        (lambda m, k: rbf_kernel(TARGETS, TARGETS, gamma=1), ShapeError, r"\(N, 1\)"),
        (lambda m, k: rbf_kernel(POINTS, POINTS, gamma=0), ValueError, "gamma"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, error: type[Exception], message: str) -> None:
    model, kernel, _ = toy()
    with pytest.raises(error, match=message):
        call(model, kernel)


class TestProbabilityMSELoss(LossContract):
    function = staticmethod(probability_mse_loss)
    module = ProbabilityMSELoss

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {"student_logits": randn(batch, 5, dtype=dtype), "teacher_logits": randn(batch, 5, seed=1, dtype=dtype)}


def test_label_loss_is_the_mean_square_of_the_reference() -> None:
    logits, target = randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    truth = nn.functional.one_hot(target, 4).double()
    torch.testing.assert_close(LabelMSELoss()(logits, target), nn.functional.mse_loss(logits.softmax(1), truth))
    with pytest.raises(TargetError, match="from 0 to 3"):
        LabelMSELoss()(logits, target + 1)
    empty = LabelMSELoss()(torch.zeros(0, 4, requires_grad=True), torch.zeros(0, dtype=torch.long))
    assert empty.requires_grad
    assert empty.item() == 0.0


def test_a_label_is_a_very_sure_teacher() -> None:
    logits, target = randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    sure = 100.0 * nn.functional.one_hot(target, 4).double()
    torch.testing.assert_close(LabelMSELoss()(logits, target), probability_mse_loss(logits, sure))


def test_the_distillers_total_is_the_formula_of_the_released_code() -> None:
    torch.manual_seed(0)
    student, teacher = (nn.Sequential(nn.Linear(3, 4)).double() for _ in range(2))
    inputs, target = randn(5, 3), torch.tensor([0, 1, 2, 3, 0])
    match = Match(ProbabilityMSELoss(), "0", "0", weight=0.7)
    distiller = GuidedDistiller(
        student, copy.deepcopy(teacher), {"guidance": match}, task_loss=LabelMSELoss(), task_weight=0.3, norm_weight=0.1
    )
    losses = distiller(inputs, target)
    assert losses.keys() == {"loss/task", "loss/guidance", "loss/norms"}
    said, taught = student(inputs).softmax(1), teacher(inputs).softmax(1)
    truth = nn.functional.one_hot(target, 4).double()
    mse = nn.functional.mse_loss
    penalty = 0.1 * sum(parameter.norm(2) for parameter in student.parameters())
    expected = 0.3 * mse(said, truth) + 0.7 * mse(said, taught) + penalty
    torch.testing.assert_close(sum(losses.values()), expected)
    with pytest.raises(ValueError, match="norm_weight"):
        GuidedDistiller(student, None, norm_weight=-1.0)


def test_frozen_parts_are_not_pulled() -> None:
    student = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    distiller = GuidedDistiller(student, None, freeze=("0",), norm_weight=1.0)
    penalty = distiller(randn(2, 3, dtype=torch.float32))["loss/norms"]
    torch.testing.assert_close(penalty, student[1].weight.norm() + student[1].bias.norm())


SHORT = {"train_cfg.max_epochs": 1, "param_scheduler.T_max": 1}
CONFIGS = ("vision/kernel_guidance/digits_first", "vision/kernel_guidance/digits")


def test_the_chain_of_networks(tmp_path: Path) -> None:
    found = procedure.self_distil(*CONFIGS, steps=2, target_weight=0.4, work_dir=tmp_path, overrides=SHORT)
    assert [(step.number, step.target_weight) for step in found] == [(1, 1.0), (2, 0.4)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1", "step-2"]
    assert all(0 <= step.metrics["top1"] <= 100 for step in found)


def test_the_estimate_is_made_on_images_that_were_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = procedure.held_out_probabilities

    def watched(runner: Any) -> tuple[Tensor, Tensor]:
        trained = set(runner.train_dataloader.dataset.dataset.ids.tolist())
        judged = set(runner.val_dataloader.dataset.dataset.ids.tolist())
        seen.append((len(trained), len(judged), trained & judged))
        return original(runner)

    monkeypatch.setattr(procedure, "held_out_probabilities", watched)
    found = procedure.self_distil(*CONFIGS, steps=3, held_out=300, work_dir=tmp_path, overrides=SHORT)
    assert seen == [(900, 300, set())] * 3
    assert all(0 <= step.target_weight <= 1 for step in found)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"part-1", "part-2", "part-2-teacher-alone", "part-3-teacher-alone"} <= names


def test_the_command_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert procedure.main(["--steps", "0"]) == 2
    assert "one step or more" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        procedure.self_distil(*CONFIGS, steps=-1)
