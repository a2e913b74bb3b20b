"""The linear layer and the divergence in one: against the divergence of whole logits, and the losses' contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn.functional import linear
from torch.utils._python_dispatch import TorchDispatchMode

from limbeck_core import functional as F
from limbeck_core import losses
from limbeck_core.errors import LimbeckError, NonFiniteError, ShapeError
from loss_contract import LossContract, randn


class LargestResult(TorchDispatchMode):
    """Remember the size of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (list, tuple)) else [result]:
            self.numel = max(self.numel, tensor.numel() if torch.is_tensor(tensor) else 0)
        return result


INF = float("inf")
BETAS = [0.0, 0.1, 0.5, 0.9, 1.0]
TOKENS, VOCABULARY, STUDENT_WIDTH, TEACHER_WIDTH = 37, 101, 16, 24


def plain(arguments: dict[str, Any], **hyper: Any) -> Tensor:
    """The same from whole logits."""
    student = linear(arguments["student_hidden"], arguments["student_weight"], arguments.get("student_bias"))
    teacher = linear(arguments["teacher_hidden"], arguments["teacher_weight"], arguments.get("teacher_bias"))
    return F.generalized_jsd_loss(student, teacher, **hyper)


def heads(*, bias: bool = True, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    arguments = {
        "student_hidden": randn(TOKENS, STUDENT_WIDTH, seed=1),
        "teacher_hidden": randn(TOKENS, TEACHER_WIDTH, seed=2),
        "student_weight": randn(VOCABULARY, STUDENT_WIDTH, seed=3),
        "teacher_weight": randn(VOCABULARY, TEACHER_WIDTH, seed=4),
    }
    if bias:
        arguments |= {"student_bias": randn(VOCABULARY, seed=5), "teacher_bias": randn(VOCABULARY, seed=6)}
    return {name: value.to(dtype) for name, value in arguments.items()}


def leaves(arguments: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.clone().requires_grad_(k.startswith("student")) for k, v in arguments.items()}


def gradients(arguments: dict[str, Tensor]) -> dict[str, Tensor | None]:
    return {k: v.grad for k, v in arguments.items() if k.startswith("student")}


class TestLinearJSDLoss(LossContract):
    function = staticmethod(F.linear_jsd_loss)
    module = losses.LinearJSDLoss
    hyper = {"beta": 0.3, "temperature": 2.0, "chunk_size": 3}

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_hidden": randn(batch, 2, 3, seed=1, dtype=dtype),
            "teacher_hidden": randn(batch, 2, 3, seed=2, dtype=dtype),
            "student_weight": randn(5, 3, seed=3, dtype=dtype),
            "teacher_weight": randn(5, 3, seed=4, dtype=dtype),
        }

    @pytest.mark.parametrize("temperature", [1.0, 2.0])
    @pytest.mark.parametrize("beta", BETAS)
    @pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
    def test_equals_the_loss_on_whole_logits(self, reduction: str, beta: float, temperature: float) -> None:
        """37 tokens in chunks of 8, 30 % of them masked."""
        hyper = {"beta": beta, "temperature": temperature, "reduction": reduction}
        mask = torch.rand(TOKENS, generator=torch.Generator().manual_seed(7)) > 0.3
        ours, theirs = leaves(heads()), leaves(heads())
        loss = F.linear_jsd_loss(**ours, **hyper, mask=mask, chunk_size=8)
        expected = plain(theirs, **hyper, mask=mask)
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-14)
        cotangent = randn(TOKENS, seed=8) if reduction == "none" else torch.tensor(-1.7)
        (loss * cotangent).sum().backward()
        (expected * cotangent).sum().backward()
        for name, gradient in gradients(theirs).items():
            torch.testing.assert_close(ours[name].grad, gradient, rtol=1e-9, atol=1e-13, msg=name)

    @pytest.mark.parametrize("chunk_size", [1, 8, 37, 1000])
    def test_chunks_do_not_matter(self, chunk_size: int) -> None:
        torch.testing.assert_close(
            F.linear_jsd_loss(**heads(), chunk_size=chunk_size), plain(heads()), rtol=1e-10, atol=0
        )

    @pytest.mark.parametrize("reduction", ["mean", "none"])
    def test_all_logits_never_exist_at_once(self, reduction: str) -> None:
        sizes = []
        for loss in (
            lambda **a: F.linear_jsd_loss(**a, chunk_size=4, reduction=reduction),
            lambda **a: plain(a, reduction=reduction),
        ):
            with LargestResult() as largest:
                loss(**leaves(heads())).sum().backward()
            sizes.append(largest.numel)
        assert sizes[0] <= VOCABULARY * TEACHER_WIDTH  # the largest input
        assert sizes[1] >= TOKENS * VOCABULARY

    @pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("reduction", ["mean", "none"])
    def test_gradcheck_of_every_input(self, beta: float, reduction: str) -> None:
        hidden, weight, bias = randn(5, 3, seed=1), randn(6, 3, seed=2), randn(6, seed=3)
        teacher_hidden, teacher_weight = randn(5, 4, seed=4), randn(6, 4, seed=5)
        weights = torch.tensor([1.0, 0.0, 0.5, 2.0, 1.0])

        def loss(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
            options = {"student_bias": b, "beta": beta, "temperature": 1.5, "chunk_size": 2}
            return F.linear_jsd_loss(h, teacher_hidden, w, teacher_weight, **options, mask=weights, reduction=reduction)

        assert gradcheck(loss, [t.requires_grad_() for t in (hidden, weight, bias)])

    @pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("larger", ["student", "teacher"])
    def test_padding_of_one_vocabulary_is_cut_off(self, larger: str, beta: float) -> None:
        arguments = heads()
        for name in (f"{larger}_weight", f"{larger}_bias"):
            arguments[name] = torch.cat([arguments[name], 1 + arguments[name][:9]])
        ours, theirs = leaves(arguments), leaves(arguments)
        loss, expected = F.linear_jsd_loss(**ours, beta=beta), plain(theirs, beta=beta)
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
        torch.testing.assert_close(loss, plain(heads(), beta=beta), rtol=1e-10, atol=0)
        loss.backward()
        expected.backward()
        for name, gradient in gradients(theirs).items():
            torch.testing.assert_close(ours[name].grad, gradient, rtol=1e-9, atol=1e-13, msg=name)

    def test_padding_of_both_vocabularies_is_cut_off_on_request(self) -> None:
        torch.testing.assert_close(F.linear_jsd_loss(**heads(), vocabulary_size=90), plain(heads(), vocabulary_size=90))

    @pytest.mark.parametrize("beta", BETAS)
    def test_an_id_banned_by_both_costs_nothing(self, beta: float) -> None:
        arguments = heads()
        arguments["student_bias"][50:60] = -INF
        arguments["teacher_bias"][50:60] = -INF
        ours, theirs = leaves(arguments), leaves(arguments)
        loss, expected = F.linear_jsd_loss(**ours, beta=beta), plain(theirs, beta=beta)
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
        loss.backward()
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients(ours).values())
        assert float(ours["student_weight"].grad[50:60].abs().sum()) == 0.0

    def test_a_ban_of_the_student_alone_is_reported(self) -> None:
        arguments = heads()
        arguments["student_bias"][50] = -INF
        with pytest.raises(NonFiniteError, match="student_bias .* infinity"):
            F.linear_jsd_loss(**arguments, beta=0.0)

    @pytest.mark.parametrize("reduction", ["mean", "none"])
    def test_masked_tokens_may_hold_anything(self, reduction: str) -> None:
        mask = torch.arange(TOKENS) % 3 > 0
        arguments = heads()
        arguments["student_hidden"][~mask] = float("nan")
        arguments["teacher_hidden"][~mask] = INF
        ours = leaves(arguments)
        loss = F.linear_jsd_loss(**ours, mask=mask, reduction=reduction)
        expected = plain(heads(), mask=mask, reduction=reduction)
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
        loss.sum().backward()
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients(ours).values())
        assert float(ours["student_hidden"].grad[~mask].abs().sum()) == 0.0

    @pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
    def test_no_token_is_a_differentiable_zero(self, reduction: str) -> None:
        ours = leaves(heads())
        loss = F.linear_jsd_loss(**ours, mask=torch.zeros(TOKENS, dtype=torch.bool), reduction=reduction).sum()
        loss.backward()
        assert loss.item() == 0.0
        assert all(float(gradient.abs().sum()) == 0.0 for gradient in gradients(ours).values())

    def test_only_what_is_asked_for_gets_a_gradient(self) -> None:
        """A frozen head under a trained body, and a trained head over frozen hidden states."""
        for trained in ("student_hidden", "student_weight", "student_bias"):
            ours, theirs = heads(), heads()
            for loss, arguments in ((F.linear_jsd_loss, ours), (lambda **a: plain(a), theirs)):
                arguments[trained].requires_grad_()
                loss(**arguments).backward()
            torch.testing.assert_close(ours[trained].grad, theirs[trained].grad, rtol=1e-9, atol=1e-13)

    def test_nothing_is_kept_without_a_graph(self) -> None:
        with torch.no_grad():
            loss = F.linear_jsd_loss(**leaves(heads()))
        assert not loss.requires_grad
        torch.testing.assert_close(loss, plain(heads()), rtol=1e-10, atol=0)

    def test_backward_twice_over_a_retained_graph_gives_the_same(self) -> None:
        for reduction in ("mean", "none"):
            ours = leaves(heads())
            loss = 3.0 * F.linear_jsd_loss(**ours, reduction=reduction).sum()
            wanted = [ours["student_hidden"], ours["student_weight"]]
            first = torch.autograd.grad(loss, wanted, retain_graph=True)
            torch.testing.assert_close(torch.autograd.grad(loss, wanted), first, rtol=0, atol=0)

    def test_differentiating_twice_is_refused(self) -> None:
        for reduction in ("mean", "none"):
            ours = leaves(heads())
            loss = F.linear_jsd_loss(**ours, reduction=reduction).sum()
            with pytest.raises(LimbeckError, match="cannot be differentiated twice: .* create_graph"):
                torch.autograd.grad(loss, ours["student_hidden"], create_graph=True)

    def test_tied_weight_sums_both_uses(self) -> None:
        """The student's weight is its embedding too."""
        ids = torch.arange(TOKENS)
        ours, theirs = leaves(heads()), leaves(heads())
        for arguments, loss in ((ours, F.linear_jsd_loss), (theirs, lambda **a: plain(a))):
            arguments["student_hidden"] = torch.tanh(arguments["student_weight"][ids])
            loss(**arguments).backward()
        torch.testing.assert_close(ours["student_weight"].grad, theirs["student_weight"].grad, rtol=1e-9, atol=1e-13)

    @pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
    def test_autocast_multiplies_low_and_adds_high(self, beta: float) -> None:
        """As the plain form under autocast; gradients come in the type of their tensors."""
        ours, theirs = leaves(heads(dtype=torch.float32)), leaves(heads(dtype=torch.float32))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, expected = F.linear_jsd_loss(**ours, beta=beta), plain(theirs, beta=beta)
        loss.backward()
        expected.backward()
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
        exact = leaves(heads())
        F.linear_jsd_loss(**exact, beta=beta).backward()
        for name, gradient in gradients(exact).items():
            assert ours[name].grad.dtype == torch.float32
            ours_off, theirs_off = ((g[name].grad - gradient).abs().max() for g in (ours, theirs))
            assert 0 < float(ours_off) < 1.1 * float(theirs_off), name

    def test_float16_gradients_survive_until_a_loss_scale_reaches_them(self) -> None:
        """Each token counts one in ten million: without the scale of 2^16 its gradient lies below float16."""
        ours, exact = leaves(heads(dtype=torch.float16)), leaves(heads())
        mask = torch.full((TOKENS,), 1e-7, dtype=torch.float64)
        for arguments in (ours, exact):
            (2.0**16 * F.linear_jsd_loss(**arguments, beta=0.0, mask=mask, reduction="sum")).backward()
        for name, gradient in gradients(exact).items():
            off = (ours[name].grad - gradient).abs().max() / gradient.abs().max()
            assert float(off) < 0.01, name

    def test_half_precision_gradients_keep_their_type(self) -> None:
        ours = leaves(heads(dtype=torch.bfloat16))
        F.linear_jsd_loss(**ours).backward()
        assert {gradient.dtype for gradient in gradients(ours).values()} == {torch.bfloat16}

    def test_a_teacher_of_another_type_is_welcome(self) -> None:
        arguments = heads(dtype=torch.float32)
        mixed = {k: v.bfloat16() if k.startswith("teacher") else v for k, v in arguments.items()}
        torch.testing.assert_close(F.linear_jsd_loss(**mixed), plain(arguments), rtol=0.02, atol=0)

    @pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("reduction", ["mean", "none"])
    def test_compiles_whole(self, reduction: str, beta: float) -> None:
        compiled = torch.compile(F.linear_jsd_loss, fullgraph=True, backend="aot_eager")
        mask = torch.arange(TOKENS) % 3 > 0
        ours, theirs = leaves(heads()), leaves(heads())
        loss = compiled(**ours, beta=beta, mask=mask, reduction=reduction, chunk_size=16)
        expected = plain(theirs, beta=beta, mask=mask, reduction=reduction)
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-14)
        loss.sum().backward()
        expected.sum().backward()
        for name, gradient in gradients(theirs).items():
            torch.testing.assert_close(ours[name].grad, gradient, rtol=1e-9, atol=1e-13, msg=name)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"student_weight": randn(VOCABULARY, 5)}, r"student_hidden and student_weight must have one width"),
            ({"teacher_weight": randn(VOCABULARY)}, r"teacher_weight must have shape \(V, H\)"),
            ({"teacher_bias": randn(4)}, r"teacher_bias must have shape \(101,\), .* got \(4,\)"),
            ({"teacher_hidden": randn(36, TEACHER_WIDTH)}, r"feed both models the same tokens"),
            ({"student_weight": heads()["student_weight"].float()}, r"convert one, or run under autocast"),
            ({"mask": torch.ones(36)}, r"mask must have one entry per value of the loss, shape \(37,\), got \(36,\)"),
        ],
    )
    def test_what_does_not_fit_is_named(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ShapeError, match=message):
            F.linear_jsd_loss(**{**heads(), **change})

    @pytest.mark.parametrize(("name", "value"), [("beta", 1.5), ("temperature", 0.0), ("chunk_size", 0)])
    def test_hyper_parameters_out_of_range_are_refused(self, name: str, value: float) -> None:
        with pytest.raises(ValueError, match=name):
            F.linear_jsd_loss(**heads(), **{name: value})
        with pytest.raises(ValueError, match=name):
            losses.LinearJSDLoss(**{name: value})
