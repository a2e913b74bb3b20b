"""Losses on relations: against scipy and plain loops, invariances, edges, and the contract of every loss."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform
from scipy.special import log_softmax, rel_entr, softmax
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from limbeck_core import functional as F
from limbeck_core import losses
from limbeck_core.errors import LimbeckError, NonFiniteError, ShapeError
from limbeck_core.functional import relations
from loss_contract import LossContract, randn

BETWEEN_SAMPLES = [
    F.distance_relation_loss,
    F.angle_relation_loss,
    F.relational_loss,
    F.similarity_preserving_loss,
    F.probabilistic_transfer_loss,
    F.correlation_congruence_loss,
]
SCALE_FREE = BETWEEN_SAMPLES[:-1]
by_name = pytest.mark.parametrize("loss", BETWEEN_SAMPLES, ids=lambda f: f.__name__)


class EmbeddingsContract(LossContract):
    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_embeddings": randn(batch, 5, seed=1, dtype=dtype),
            "teacher_embeddings": randn(batch, 5, seed=2, dtype=dtype),
        }


class TestDistanceRelationLoss(EmbeddingsContract):
    function = staticmethod(F.distance_relation_loss)
    module = losses.DistanceRelationLoss

    def test_against_scipy(self) -> None:
        student, teacher = randn(6, 3, seed=3), randn(6, 9, seed=4)
        a, b = (squareform(pdist(x.numpy())) / pdist(x.numpy()).mean() for x in (student, teacher))
        gap = np.abs(a - b)
        expected = np.where(gap < 1, gap**2 / 2, gap - 0.5).mean()
        assert float(F.distance_relation_loss(student, teacher)) == pytest.approx(expected)

    def test_float32_far_from_the_origin(self) -> None:
        """Products of entries near 1000 hold a difference of 0.1 in their seventh digit only."""
        near, teacher = randn(6, 4, seed=3).mul(0.1), randn(6, 4, seed=4)
        expected = float(F.distance_relation_loss(near, teacher))
        far = (near.float() + 1000).double()
        assert float(F.distance_relation_loss((near + 1000).float(), teacher.float())) == pytest.approx(
            float(F.distance_relation_loss(far, teacher)), rel=1e-5
        )
        assert float(F.distance_relation_loss(far, teacher)) == pytest.approx(expected, rel=1e-2)


class TestAngleRelationLoss(EmbeddingsContract):
    function = staticmethod(F.angle_relation_loss)
    module = losses.AngleRelationLoss

    def test_against_loops(self) -> None:
        student, teacher = randn(5, 3, seed=3), randn(5, 4, seed=4)

        def angle(x: Tensor, i: int, j: int, k: int) -> float:
            a, b = x[j] - x[i], x[k] - x[i]
            return 0.0 if i in (j, k) else float(a @ b / (a.norm() * b.norm()))

        total = 0.0
        for i in range(5):
            for j in range(5):
                for k in range(5):
                    gap = abs(angle(student, i, j, k) - angle(teacher, i, j, k))
                    total += gap**2 / 2 if gap < 1 else gap - 0.5
        assert float(F.angle_relation_loss(student, teacher)) == pytest.approx(total / 125)

    @pytest.mark.parametrize("entries", [1, 2**18], ids=["one by one", "together"])
    def test_derivatives(self, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """The backward is written by hand; the second derivative comes from the composed form."""
        monkeypatch.setattr(relations, "_ENTRIES_PER_CHUNK", entries)
        teacher = randn(4, 3, seed=4)

        def loss(student: Tensor) -> Tensor:
            return F.angle_relation_loss(student, teacher, reduction="none")

        student = randn(4, 2, seed=3).requires_grad_()
        assert gradcheck(loss, student)
        assert gradgradcheck(loss, student)

    def test_coinciding_samples_have_no_angle(self) -> None:
        """Two equal rows in float32, far from the origin: their difference is rounding, not a direction."""
        student = (randn(5, 4, seed=3) + 100).float()
        student[3] = student[1]
        leaf = student.clone().requires_grad_()
        loss = F.angle_relation_loss(leaf, randn(5, 4, seed=4).float())
        loss.backward()
        assert leaf.grad is not None
        assert float(leaf.grad.abs().max()) < 1
        exact = F.angle_relation_loss(student.double(), randn(5, 4, seed=4).float().double())
        assert float(loss.detach()) == pytest.approx(float(exact), rel=1e-5)


class TestRelationalLoss(EmbeddingsContract):
    function = staticmethod(F.relational_loss)
    module = losses.RelationalLoss
    hyper = {"distance_weight": 2.0, "angle_weight": 3.0}

    def test_is_the_weighted_sum(self) -> None:
        x = self.inputs()
        expected = 2 * F.distance_relation_loss(**x) + 3 * F.angle_relation_loss(**x)
        torch.testing.assert_close(self.call(**x), expected)

    def test_weight_zero_leaves_a_part_out(self) -> None:
        x = self.inputs()
        only = F.relational_loss(**x, distance_weight=1.0, angle_weight=0.0)
        torch.testing.assert_close(only, F.distance_relation_loss(**x))
        assert float(F.relational_loss(**x, distance_weight=0.0, angle_weight=0.0)) == 0.0

    def test_negative_weight_is_refused(self) -> None:
        with pytest.raises(ValueError, match="angle_weight must be a finite number >= 0, got -1"):
            F.relational_loss(**self.inputs(), angle_weight=-1)
        with pytest.raises(ValueError, match="distance_weight must be a finite number >= 0, got -1"):
            losses.RelationalLoss(-1)


class TestSimilarityPreservingLoss(LossContract):
    function = staticmethod(F.similarity_preserving_loss)
    module = losses.SimilarityPreservingLoss

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_features": randn(batch, 2, 3, 3, seed=1, dtype=dtype),
            "teacher_features": randn(batch, 2, 3, 3, seed=2, dtype=dtype),
        }

    def test_against_numpy(self) -> None:
        student, teacher = randn(5, 3, 2, seed=3), randn(5, 7, seed=4)
        a, b = (x.flatten(1).numpy() @ x.flatten(1).numpy().T for x in (student, teacher))
        a, b = (g / np.linalg.norm(g, axis=1, keepdims=True) for g in (a, b))
        expected = ((a - b) ** 2).sum() / 25
        assert float(F.similarity_preserving_loss(student, teacher)) == pytest.approx(expected)

    def test_second_derivative(self) -> None:
        """The Gram matrix has a backward of its own, which must itself be differentiable."""
        teacher = randn(3, 4, seed=4)
        assert gradgradcheck(lambda x: F.similarity_preserving_loss(x, teacher), randn(3, 2, seed=3).requires_grad_())


class TestProbabilisticTransferLoss(EmbeddingsContract):
    function = staticmethod(F.probabilistic_transfer_loss)
    module = losses.ProbabilisticTransferLoss

    def test_against_scipy(self) -> None:
        """Without the epsilon of 1e-7 it is the Kullback-Leibler divergence over N^2."""
        student, teacher = randn(5, 3, seed=3), randn(5, 7, seed=4)

        def neighbours(x: np.ndarray) -> np.ndarray:
            x = x / np.linalg.norm(x, axis=1, keepdims=True)
            return (x @ x.T + 1) / (x @ x.T + 1).sum(1, keepdims=True)

        expected = rel_entr(neighbours(teacher.numpy()), neighbours(student.numpy())).sum() / 25
        assert float(F.probabilistic_transfer_loss(student, teacher)) == pytest.approx(expected, rel=1e-4)

    def test_opposite_vectors_in_float32(self) -> None:
        """Their cosine can round to less than -1, and the logarithm of the negative rest is NaN."""
        rows = torch.randn(64, 1000, generator=torch.Generator().manual_seed(0))
        for row in rows:
            pair = torch.stack((row, -row)).requires_grad_()
            loss = F.probabilistic_transfer_loss(pair, torch.eye(2))
            loss.backward()
            assert math.isfinite(float(loss.detach()))
            assert bool(torch.isfinite(pair.grad).all())


class TestCorrelationCongruenceLoss(EmbeddingsContract):
    function = staticmethod(F.correlation_congruence_loss)
    module = losses.CorrelationCongruenceLoss
    has_reduction = False

    def test_taylor_expansion_tends_to_the_gaussian_kernel(self) -> None:
        student, teacher = F.unit_vectors(randn(5, 3, seed=3)), F.unit_vectors(randn(5, 4, seed=4))
        a, b = (np.exp(-0.7 * squareform(pdist(x.numpy(), "sqeuclidean"))) for x in (student, teacher))
        expected = np.linalg.norm(a - b) / 25
        found = F.correlation_congruence_loss(student, teacher, gamma=0.7, order=20)
        assert float(found) == pytest.approx(expected)

    def test_second_order_by_hand(self) -> None:
        """exp(-2g) (1 + 2g z + (2g)^2 z^2 / 2) with g = 0.5: z = 4 gives 13 / e, z = 0 gives 1 / e."""
        student, teacher = torch.tensor([[2.0], [0.0]]), torch.tensor([[0.0], [0.0]])
        loss = F.correlation_congruence_loss(student.double(), teacher.double(), gamma=0.5)
        assert float(loss) == pytest.approx(12 / math.e / 4)

    def test_bilinear(self) -> None:
        student, teacher = randn(5, 3, seed=3), randn(5, 4, seed=4)
        expected = float((student @ student.T - teacher @ teacher.T).norm() / 25)
        assert float(F.correlation_congruence_loss(student, teacher, kernel="bilinear")) == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"kernel": "rbf"}, "kernel must be 'gaussian' or 'bilinear', got 'rbf'"),
            ({"gamma": 0.0}, "gamma must be a finite number above 0, got 0.0"),
            ({"order": 0}, "order must be 1 or more, got 0"),
        ],
    )
    def test_wrong_hyper_parameters(self, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            F.correlation_congruence_loss(**self.inputs(), **wrong)
        with pytest.raises(ValueError, match=message):
            losses.CorrelationCongruenceLoss(**wrong)


class TestBetweenSamples:
    @by_name
    def test_order_of_the_batch_does_not_matter(self, loss: Callable[..., Tensor]) -> None:
        student, teacher, order = randn(6, 3, seed=1), randn(6, 4, seed=2), torch.randperm(6)
        torch.testing.assert_close(loss(student[order], teacher[order]), loss(student, teacher))

    @pytest.mark.parametrize("loss", SCALE_FREE, ids=lambda f: f.__name__)
    def test_scale_does_not_matter(self, loss: Callable[..., Tensor]) -> None:
        student, teacher = randn(6, 3, seed=1), randn(6, 4, seed=2)
        torch.testing.assert_close(loss(2 * student, 3 * teacher), loss(student, teacher))

    def test_scale_matters_to_kernels(self) -> None:
        """The control of the test above."""
        student, teacher = randn(6, 3, seed=1), randn(6, 4, seed=2)
        once, twice = (F.correlation_congruence_loss(x * student, teacher) for x in (1, 2))
        assert abs(float(once - twice)) > 1e-3

    @by_name
    def test_maps_are_flattened(self, loss: Callable[..., Tensor]) -> None:
        student, teacher = randn(4, 3, 2, 2, seed=1), randn(4, 5, seed=2)
        torch.testing.assert_close(loss(student, teacher), loss(student.flatten(1), teacher))

    @by_name
    def test_one_sample_is_a_differentiable_zero_with_a_warning(self, loss: Callable[..., Tensor]) -> None:
        student = randn(1, 3).requires_grad_()
        with pytest.warns(RuntimeWarning, match="a batch of one sample has no relations between samples"):
            value = loss(student, randn(1, 4))
        value.backward()
        assert float(value.detach()) == 0.0
        assert torch.equal(student.grad, torch.zeros(1, 3, dtype=torch.float64))

    @by_name
    def test_empty_batch_says_nothing(self, loss: Callable[..., Tensor]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert float(loss(randn(0, 3), randn(0, 4))) == 0.0

    @by_name
    @pytest.mark.parametrize("rows", ["two alike", "all alike", "one zero", "all zero"])
    def test_degenerate_batches_have_finite_gradients(self, loss: Callable[..., Tensor], rows: str) -> None:
        student = randn(5, 3, seed=1, dtype=torch.float32)
        if "alike" in rows:
            student[1 if rows == "two alike" else slice(None)] = student[0].clone()
        else:
            student[1 if rows == "one zero" else slice(None)] = 0
        student.requires_grad_()
        value = loss(student, randn(5, 4, seed=2, dtype=torch.float32))
        value.backward()
        assert math.isfinite(float(value.detach()))
        assert float(student.grad.abs().max()) < 1e3

    @by_name
    def test_products_stay_exact_under_autocast(self, loss: Callable[..., Tensor]) -> None:
        student, teacher = randn(6, 8, seed=1).float() * 300, randn(6, 8, seed=2).float() * 300
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = loss(student, teacher)
        torch.testing.assert_close(inside, loss(student, teacher), rtol=1e-6, atol=0)

    @by_name
    def test_matches_gather_them(self, loss: Callable[..., Tensor]) -> None:
        name = "".join(part.capitalize() for part in loss.__name__.split("_"))
        assert loss.relational  # type: ignore[attr-defined]
        assert getattr(losses, name).relational

    @by_name
    def test_batches_must_be_of_one_size(self, loss: Callable[..., Tensor]) -> None:
        with pytest.raises(
            ShapeError, match=r"same samples on axis 0, got \(4, 3\) and \(5, 3\): feed both models one"
        ):
            loss(randn(4, 3), randn(5, 3))

    @by_name
    def test_integers_are_refused(self, loss: Callable[..., Tensor]) -> None:
        with pytest.raises(ShapeError, match=r"teacher_\w+ must be a floating-point tensor, got torch.int64"):
            loss(randn(4, 3), torch.ones(4, 3, dtype=torch.int64))


def token_mask() -> Tensor:
    """Right padding, a hole, left padding."""
    return torch.tensor([[1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [0, 0, 1, 1, 1]])


def relation_by_loops(
    student: np.ndarray, teacher: np.ndarray, heads: int, mask: np.ndarray, keys: tuple[np.ndarray, np.ndarray] | None
) -> np.ndarray:
    """MiniLM's loss per sequence, one head and one row at a time."""
    other_student, other_teacher = keys or (student, teacher)
    found = []
    for n in range(len(student)):
        rows = np.flatnonzero(mask[n])
        total = 0.0
        for a in range(heads):
            logs = []
            for x, y in ((student, other_student), (teacher, other_teacher)):
                width = x.shape[2] // heads
                part = slice(a * width, (a + 1) * width)
                logs.append(log_softmax(x[n, rows, part] @ y[n, rows, part].T / np.sqrt(width), axis=1))
            total += (np.exp(logs[1]) * (logs[1] - logs[0])).sum()
        found.append(total / (heads * max(len(rows), 1)))
    return np.array(found)


class TestSelfAttentionRelationLoss(LossContract):
    function = staticmethod(F.self_attention_relation_loss)
    module = losses.SelfAttentionRelationLoss
    hyper = {"relation_heads": 2}

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_states": randn(batch, 3, 4, seed=1, dtype=dtype),
            "teacher_states": randn(batch, 3, 4, seed=2, dtype=dtype),
        }

    @pytest.mark.parametrize("with_keys", [False, True])
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("entries", [1, 2**18], ids=["one by one", "together"])
    def test_against_loops(self, with_keys: bool, masked: bool, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(relations, "_ENTRIES_PER_CHUNK", entries)
        student, teacher = randn(3, 5, 4, seed=1), randn(3, 5, 6, seed=2)
        keys = (randn(3, 5, 4, seed=3), randn(3, 5, 6, seed=4)) if with_keys else None
        mask = token_mask() if masked else torch.ones(3, 5)
        found = F.self_attention_relation_loss(
            student, teacher, *(keys or ()), relation_heads=2, mask=mask if masked else None, reduction="none"
        )
        other = (keys[0].numpy(), keys[1].numpy()) if keys else None
        expected = relation_by_loops(student.numpy(), teacher.numpy(), 2, mask.numpy(), other)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)

    @pytest.mark.parametrize("entries", [1, 2**18], ids=["one by one", "together"])
    def test_gradient_with_keys_and_mask(self, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(relations, "_ENTRIES_PER_CHUNK", entries)
        teacher, keys = randn(2, 3, 6, seed=2), randn(2, 3, 6, seed=4)
        mask = torch.tensor([[1, 1, 0], [1, 0, 1]])

        def loss(states: Tensor, other: Tensor) -> Tensor:
            return F.self_attention_relation_loss(
                states, teacher, other, keys, relation_heads=2, mask=mask, reduction="none"
            )

        assert gradcheck(loss, (randn(2, 3, 4, seed=1).requires_grad_(), randn(2, 3, 4, seed=3).requires_grad_()))

    def test_padding_has_no_influence(self) -> None:
        student, teacher = randn(2, 3, 4, seed=1), randn(2, 3, 6, seed=2)
        alone = F.self_attention_relation_loss(student, teacher, relation_heads=2)
        padded = [torch.cat((x, torch.full((2, 10, x.shape[2]), float("nan"))), dim=1) for x in (student, teacher)]
        padded[0].requires_grad_()
        mask = torch.arange(13).expand(2, 13) < 3
        loss = F.self_attention_relation_loss(*padded, relation_heads=2, mask=mask)
        loss.backward()
        torch.testing.assert_close(loss, alone)
        leaf = student.clone().requires_grad_()
        F.self_attention_relation_loss(leaf, teacher, relation_heads=2).backward()
        torch.testing.assert_close(padded[0].grad[:, :3], leaf.grad)
        assert torch.equal(padded[0].grad[:, 3:], torch.zeros(2, 10, 4, dtype=torch.float64))

    def test_order_of_the_heads_matters(self) -> None:
        states = randn(2, 4, 6, seed=1)
        turned = states.roll(2, dims=2)  # three relation heads of width 2, each moved on by one
        assert float(F.self_attention_relation_loss(states, turned, relation_heads=3)) > 1e-3

    def test_sequences_without_tokens_do_not_count(self) -> None:
        x = {"student_states": randn(3, 5, 4, seed=1), "teacher_states": randn(3, 5, 4, seed=2)}
        mask = token_mask()
        mask[1] = 0
        every = F.self_attention_relation_loss(**x, relation_heads=2, mask=mask, reduction="none")
        assert float(every[1]) == 0.0
        mean = F.self_attention_relation_loss(**x, relation_heads=2, mask=mask)
        torch.testing.assert_close(mean, (every[0] + every[2]) / 2)
        leaf = x["student_states"].clone().requires_grad_()
        none = F.self_attention_relation_loss(leaf, x["teacher_states"], relation_heads=2, mask=0 * mask)
        none.backward()
        assert float(none.detach()) == 0.0
        assert torch.equal(leaf.grad, torch.zeros_like(leaf))

    def test_half_precision_would_overflow(self) -> None:
        """Value times value of an outlier dimension exceeds 65504."""
        student = torch.zeros(1, 2, 4, dtype=torch.float16)
        teacher = student.clone()
        teacher[0, 0, 0] = 1000
        loss = F.self_attention_relation_loss(student, teacher, relation_heads=2)
        assert float(loss) == pytest.approx(math.log(2) / 4)  # one row of four is a certainty, the others even

    def test_no_second_derivative(self) -> None:
        leaf = randn(1, 2, 4).requires_grad_()
        loss = F.self_attention_relation_loss(leaf, randn(1, 2, 4, seed=1), relation_heads=2)
        with pytest.raises(LimbeckError, match="cannot be differentiated twice: call backward without create_graph"):
            torch.autograd.grad(loss, leaf, create_graph=True)

    def test_count_of_the_mean(self) -> None:
        mask = token_mask()
        mask[1] = 0
        assert int(losses.SelfAttentionRelationLoss(2).count(mask)) == 2

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"relation_heads": 3}, r"relation_heads=3 must divide the width of student_states, got 4"),
            ({"student_keys": randn(2, 3, 4)}, "student_keys and teacher_keys go together, got student_keys alone"),
            (
                {"student_keys": randn(2, 3, 2), "teacher_keys": randn(2, 3, 4)},
                r"student_states and student_keys must have one width, got \(2, 3, 4\) and \(2, 3, 2\): repeat grouped",
            ),
            ({"teacher_states": randn(2, 4, 4)}, r"same tokens \(N, L\), got \(2, 3, 4\) and \(2, 4, 4\)"),
            ({"mask": torch.ones(2, 4)}, r"mask must have one entry per token, shape \(2, 3\), got \(2, 4\)"),
        ],
    )
    def test_what_does_not_fit(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ShapeError, match=message):
            F.self_attention_relation_loss(**{**self.inputs(batch=2), "relation_heads": 2, **change})

    def test_no_heads(self) -> None:
        with pytest.raises(ValueError, match="relation_heads must be 1 or more, got 0"):
            losses.SelfAttentionRelationLoss(0)


class AttentionContract(LossContract):
    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_attention": randn(batch, 2, 3, 3, seed=1, dtype=dtype),
            "teacher_attention": randn(batch, 2, 3, 3, seed=2, dtype=dtype),
        }

    def masked(self) -> dict[str, Any]:
        student, teacher = randn(3, 2, 5, 5, seed=1), randn(3, 2, 5, 5, seed=2)
        return {"student_attention": student, "teacher_attention": teacher, "mask": token_mask()}

    def test_padding_has_no_influence(self) -> None:
        x = self.masked()
        expected = self.call(**x)
        lost = ~((x["mask"][:, :, None] & x["mask"][:, None, :]).bool()).unsqueeze(1)
        student, teacher = (x[k].masked_fill(lost, float("nan")) for k in ("student_attention", "teacher_attention"))
        leaf = student.requires_grad_()
        found = self.call(student_attention=leaf, teacher_attention=teacher, mask=x["mask"])
        torch.testing.assert_close(found, expected)
        found.backward()
        assert torch.equal(leaf.grad[lost.expand_as(leaf)], torch.zeros_like(leaf.grad[lost.expand_as(leaf)]))
        assert bool(torch.isfinite(leaf.grad).all())

    def test_gradient_under_a_mask(self) -> None:
        x = {"teacher_attention": randn(2, 1, 3, 3, seed=2), "mask": torch.tensor([[1, 1, 0], [1, 0, 1]])}
        leaf = randn(2, 1, 3, 3, seed=1).requires_grad_()
        assert gradcheck(lambda s: self.call(student_attention=s, **x), leaf)
        assert gradgradcheck(lambda s: self.call(student_attention=s, **x), leaf)

    def test_without_an_axis_of_heads(self) -> None:
        x = self.masked()
        one = {k: v[:, :1] if v.ndim == 4 else v for k, v in x.items()}
        flat = {k: v[:, 0] if v.ndim == 4 else v for k, v in x.items()}
        torch.testing.assert_close(self.call(**flat), self.call(**one))

    def test_nothing_left(self) -> None:
        x = self.masked()
        leaf = x["student_attention"].requires_grad_()
        loss = self.call(**{**x, "student_attention": leaf, "mask": 0 * x["mask"]})
        loss.backward()
        assert float(loss.detach()) == 0.0
        assert torch.equal(leaf.grad, torch.zeros_like(leaf))

    def test_causal_scores_of_minus_infinity(self) -> None:
        """Banned on both sides a pair costs nothing and gets no gradient."""
        x = self.inputs()
        future = torch.ones(3, 3).triu(1).bool()
        leaf = x["student_attention"].masked_fill(future, -math.inf).requires_grad_()
        teacher = x["teacher_attention"].masked_fill(future, -math.inf)
        loss = self.call(student_attention=leaf, teacher_attention=teacher)
        loss.backward()
        assert math.isfinite(float(loss.detach()))
        assert bool(torch.isfinite(leaf.grad).all())
        assert float(leaf.grad[..., future].abs().max()) == 0.0

    def test_infinity_on_one_side_is_an_error(self) -> None:
        x = self.inputs()
        x["student_attention"][0, 0, 0, 0] = -math.inf
        with pytest.raises(NonFiniteError, match="student_attention of shape"):
            self.call(**x)

    def test_tokens_by_other_tokens_are_refused(self) -> None:
        with pytest.raises(ShapeError, match=r"same tokens on its last two axes, got \(2, 3, 4\)"):
            self.call(student_attention=randn(2, 3, 4), teacher_attention=randn(2, 3, 4))

    def test_other_number_of_heads_is_refused(self) -> None:
        with pytest.raises(ShapeError, match="same number of heads, or average over the heads first"):
            self.call(student_attention=randn(2, 2, 3, 3), teacher_attention=randn(2, 4, 3, 3))

    def test_mask_of_another_length_is_refused(self) -> None:
        with pytest.raises(ShapeError, match=r"mask must have one entry per token, shape \(4, 3\), got \(4, 2\)"):
            self.call(**self.inputs(), mask=torch.ones(4, 2))


class TestAttentionMSELoss(AttentionContract):
    function = staticmethod(F.attention_mse_loss)
    module = losses.AttentionMSELoss

    def test_over_the_pairs_that_count(self) -> None:
        x = self.masked()
        pairs = (x["mask"][:, :, None] & x["mask"][:, None, :]).bool().unsqueeze(1).expand(3, 2, 5, 5)
        squares = (x["student_attention"] - x["teacher_attention"]).square()[pairs]
        torch.testing.assert_close(self.call(**x), squares.mean())
        torch.testing.assert_close(F.attention_mse_loss(**x, reduction="sum"), squares.sum())
        torch.testing.assert_close(F.attention_mse_loss(**x, reduction="none")[pairs], squares)
        assert int(losses.AttentionMSELoss().count(x["mask"])) * 2 == squares.numel()


class TestAttentionCrossEntropyLoss(AttentionContract):
    function = staticmethod(F.attention_cross_entropy_loss)
    module = losses.AttentionCrossEntropyLoss
    zero_at_equality = False

    def test_entropy_remains_at_equality_and_the_slope_is_zero(self) -> None:
        teacher = randn(2, 2, 3, 3, seed=2)
        leaf = teacher.clone().requires_grad_()
        loss = F.attention_cross_entropy_loss(leaf, teacher)
        loss.backward()
        p = softmax(teacher.numpy(), axis=-1)
        assert float(loss.detach()) == pytest.approx(-(p * np.log(p)).sum(-1).mean())
        assert float(leaf.grad.abs().max()) < 1e-15

    @pytest.mark.parametrize("entries", [1, 2**18], ids=["one by one", "together"])
    def test_over_the_tokens_that_count(self, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(relations, "_ENTRIES_PER_CHUNK", entries)
        x = self.masked()
        rows = []
        for n in range(3):
            kept = np.flatnonzero(x["mask"][n].numpy())
            student, teacher = (
                x[k][n].numpy()[:, kept][:, :, kept] for k in ("student_attention", "teacher_attention")
            )
            rows.append(-(softmax(teacher, axis=-1) * log_softmax(student, axis=-1)).sum(-1).flatten())
        expected = np.concatenate(rows)
        assert float(self.call(**x)) == pytest.approx(expected.mean())
        assert float(F.attention_cross_entropy_loss(**x, reduction="sum")) == pytest.approx(expected.sum())


class TestUnitVectors:
    def test_zero_has_no_direction_and_no_gradient(self) -> None:
        x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
        F.unit_vectors(x).sum().backward()
        torch.testing.assert_close(x.grad, torch.tensor([[0.032, -0.024], [0.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("loss", [F.relational_loss, F.similarity_preserving_loss, F.probabilistic_transfer_loss])
@pytest.mark.parametrize("batch", [4, 1])
def test_compiles_in_one_graph(loss: Callable[..., Tensor], batch: int) -> None:
    torch._dynamo.reset()
    student, teacher = randn(batch, 3, seed=1), randn(batch, 4, seed=2)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = loss(student, teacher)
    torch.testing.assert_close(compiled(student, teacher), expected)


def test_compiles_token_relations_in_one_graph() -> None:
    torch._dynamo.reset()
    leaf, teacher, mask = randn(3, 5, 4, seed=1).requires_grad_(), randn(3, 5, 6, seed=2), token_mask()

    def total(states: Tensor) -> Tensor:
        scores = states @ states.mT
        attention = F.attention_cross_entropy_loss(scores, teacher @ teacher.mT, mask=mask)
        return attention + F.self_attention_relation_loss(states, teacher, relation_heads=2, mask=mask)

    (expected,) = torch.autograd.grad(total(leaf), leaf)
    (found,) = torch.autograd.grad(torch.compile(total, fullgraph=True, backend="aot_eager")(leaf), leaf)
    torch.testing.assert_close(found, expected)
