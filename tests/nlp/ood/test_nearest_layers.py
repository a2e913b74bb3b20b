"""Each layer learns from its nearest ones: the loss contract, the hard choice, masks, the paper's form."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from limbeck_core import Distiller
from limbeck_core.calls import MappingCall
from limbeck_core.errors import ConfigError, ShapeError
from limbeck_nlp.models import transformer
from limbeck_nlp.ood import NearestLayersLoss, middle_layers, mlkd_matches, nearest_layers_loss
from loss_contract import LossContract, randn


class TestNearestLayersLoss(LossContract):
    function = nearest_layers_loss
    module = NearestLayersLoss
    sequences = True
    hyper = {"nearest": 1}

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        shape = (batch, 3, 5)
        student = {f"student_features{i}": randn(*shape, seed=i, dtype=dtype) for i in range(2)}
        teacher = {f"teacher_features{i}": randn(*shape, seed=10 + i, dtype=dtype) for i in range(2)}
        return {**student, **teacher}

    def test_reductions_agree(self) -> None:
        packed = self.pack(self.inputs())
        each = nearest_layers_loss(**packed, reduction="none")
        assert each.shape == (4, 3)
        torch.testing.assert_close(each.mean(), nearest_layers_loss(**packed))
        torch.testing.assert_close(each.sum(), nearest_layers_loss(**packed, reduction="sum"))


def by_hand(student: Any, teacher: Any, weights: Any, squared: bool) -> torch.Tensor:
    """Sort the distances of every token, layer by layer, in loops."""
    total = torch.zeros(student[0].shape[:2], dtype=torch.float64)
    for n in range(total.shape[0]):
        for i in range(total.shape[1]):
            for ours in student:
                gaps = [ours[n, i] - theirs[n, i] for theirs in teacher]
                apart = sorted(float((g**2).mean() if squared else (g**2).sum().sqrt()) for g in gaps)
                total[n, i] += sum(w * d for w, d in zip(weights, apart, strict=False))
    return total.mean()


@pytest.mark.parametrize(("distance", "weights"), [("mse", None), ("euclidean", (0.5, 0.5)), ("mse", (2.0, 0.5))])
def test_it_equals_loops_over_tokens_and_layers(distance: Any, weights: Any) -> None:
    student, teacher = [randn(2, 3, 4, seed=i) for i in (0, 1)], [randn(2, 3, 4, seed=i) for i in (2, 3, 4)]
    found = nearest_layers_loss(student, teacher, distance=distance, rank_weights=weights)
    torch.testing.assert_close(found, by_hand(student, teacher, weights or (1.0, 1.0), distance == "mse"))


def test_layers_that_are_not_chosen_do_not_teach() -> None:
    student = [randn(1, 2, 4).requires_grad_()]
    near, far = student[0].detach() + 0.1, student[0].detach() + 9.0
    maps = [torch.nn.Linear(4, 4, bias=False, dtype=torch.float64) for _ in range(3)]
    for module in maps:
        torch.nn.init.eye_(module.weight)
    nearest_layers_loss(student, [near, far, near + 0.1], project=maps, nearest=2).backward()
    assert maps[1].weight.grad is None or not maps[1].weight.grad.any()
    assert maps[0].weight.grad is not None
    assert maps[0].weight.grad.any()
    first = student[0].grad
    other = [student[0].detach().clone().requires_grad_()]
    nearest_layers_loss(other, [near, far * 3, near + 0.1], project=maps, nearest=2).backward()
    torch.testing.assert_close(first, other[0].grad)


def test_masked_tokens_have_no_influence_not_even_nan() -> None:
    student, teacher = [randn(2, 3, 4, seed=0)], [randn(2, 3, 4, seed=i) for i in (1, 2)]
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    expected = nearest_layers_loss(student, teacher, mask=mask)
    broken = [layer.masked_fill(mask.eq(0).unsqueeze(-1), float("nan")) for layer in teacher]
    leaf = student[0].clone().requires_grad_()
    found = nearest_layers_loss([leaf], broken, mask=mask)
    found.backward()
    torch.testing.assert_close(found, expected)
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    assert not leaf.grad[mask == 0].any()
    nothing = nearest_layers_loss([leaf], teacher, mask=torch.zeros(2, 3))
    nothing.backward()
    assert nothing.item() == 0.0


def test_the_projection_takes_another_width_and_learns() -> None:
    loss = NearestLayersLoss(4, 6).double()
    student, teacher = [randn(2, 3, 4)], [randn(2, 3, 6, seed=i) for i in (1, 2)]
    loss(student, teacher).backward()
    assert loss.project is not None
    assert [tuple(p.shape) for p in loss.parameters()] == [(4, 6)]
    assert all(p.grad is not None and p.grad.any() for p in loss.parameters())


def test_what_does_not_fit_is_refused() -> None:
    student, teacher = [randn(2, 3, 4)], [randn(2, 3, 6, seed=i) for i in (1, 2)]
    with pytest.raises(ShapeError, match="width 4 and teacher_features.*width 6"):
        nearest_layers_loss(student, teacher)
    with pytest.raises(ShapeError, match="nearest must be 1 to 2"):
        nearest_layers_loss(student, teacher, nearest=3)
    with pytest.raises(ShapeError, match="at least one layer"):
        nearest_layers_loss([], teacher)
    with pytest.raises(ValueError, match="rank_weights must be 2 numbers"):
        nearest_layers_loss(student, student * 2, rank_weights=(1.0,))
    with pytest.raises(ValueError, match="distance must be"):
        nearest_layers_loss(student, student * 2, distance="cosine")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="one for each of the teacher's 2 layers, got 1"):
        nearest_layers_loss(student, student * 2, project=[torch.nn.Identity()])
    with pytest.raises(ValueError, match="needs student_width"):
        NearestLayersLoss(projections=3)


def gpt2(width: int = 16, layers: int = 4) -> torch.nn.Module:
    sizes = {"n_embd": width, "n_layer": layers, "n_head": 2, "n_positions": 16, "vocab_size": 40}
    return transformer("causal_lm", "gpt2", **sizes, bos_token_id=5, eos_token_id=6, output_hidden_states=True)


def batch(*lengths: int, padding: int = 0) -> dict[str, Any]:
    longest = max(lengths) + padding
    mask = torch.tensor([[int(i < n) for i in range(longest)] for n in lengths])
    ids = torch.randint(7, 40, (len(lengths), 12), generator=torch.Generator().manual_seed(0))[:, :longest] * mask
    return {"inputs": {"input_ids": ids, "attention_mask": mask}, "targets": ids, "mask": mask.bool()}


def distilled(student: torch.nn.Module, teacher: torch.nn.Module, **options: Any) -> Distiller:
    matches = mlkd_matches(student, teacher, **options)
    return Distiller(student, teacher, matches, call=MappingCall(labels=None)).eval()


def test_a_student_equal_to_its_teacher_has_no_divergence() -> None:
    teacher, student = gpt2(), gpt2()
    student.load_state_dict(teacher.state_dict())
    found = distilled(student, teacher)(batch(4, 6))
    assert found["loss/prediction"].item() == pytest.approx(0.0, abs=1e-6)
    assert found["loss/layers"].item() > 0.0


@pytest.mark.parametrize("paper_form", [False, True])
def test_padding_has_no_influence(paper_form: bool) -> None:
    distiller = distilled(gpt2(), gpt2(24, 6), paper_form=paper_form)
    short, padded = distiller(batch(4, 6)), distiller(batch(4, 6, padding=5))
    assert short.keys() == {"loss/prediction", "loss/layers"}
    for name, loss in short.items():
        torch.testing.assert_close(padded[name], loss, rtol=1e-4, atol=1e-6)


def test_the_forms_of_code_and_paper() -> None:
    student, teacher = gpt2(), gpt2(24, 6)
    code, paper = mlkd_matches(student, teacher), mlkd_matches(student, teacher, paper_form=True, prediction_share=0.3)
    assert [len(matches["layers"].loss.project) for matches in (code, paper)] == [1, 6]
    assert [match.scale(None) for match in code.values()] == [1.0, 1.0]
    assert [match.scale(None) for match in paper.values()] == [0.3, 0.7]
    assert [tap.pick for tap in code["layers"].student] == [("hidden_states", layer) for layer in middle_layers(4)]
    assert len(code["layers"].teacher) == 6


def test_wrong_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 to 4, got \\[5\\]"):
        mlkd_matches(gpt2(), gpt2(), layers=(5,))
    with pytest.raises(ConfigError, match="Linear names no num_hidden_layers"):
        mlkd_matches(torch.nn.Linear(2, 2), gpt2())
