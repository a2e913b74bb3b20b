"""Contrast, centres and prototypes: against plain formulas, their state over several steps, and the contract."""

from __future__ import annotations

import copy
import io
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import normalize

from limbeck_core import Distiller, Match, losses
from limbeck_core import functional as F
from limbeck_core.errors import LimbeckError, NonFiniteError, ShapeError, TargetError
from limbeck_core.functional import contrast
from limbeck_core.schedules import Linear, Progress
from loss_contract import LossContract, randn


class TestNormalizedMSELoss(LossContract):
    function = staticmethod(F.normalized_mse_loss)
    module = losses.NormalizedMSELoss

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_embeddings": randn(batch, 5, seed=1, dtype=dtype),
            "teacher_embeddings": randn(batch, 5, seed=2, dtype=dtype),
        }

    def test_is_a_squared_distance(self) -> None:
        student, teacher = randn(3, 4, 5, seed=1), randn(3, 4, 5, seed=2)
        a, b = (x.numpy() / np.linalg.norm(x.numpy(), axis=-1, keepdims=True) for x in (student, teacher))
        expected = ((a - b) ** 2).sum(-1)
        np.testing.assert_allclose(F.normalized_mse_loss(student, teacher, reduction="none").numpy(), expected)

    def test_masked_frames(self) -> None:
        student, teacher = randn(2, 3, 5, seed=1), randn(2, 3, 5, seed=2)
        mask = torch.tensor([[True, False, True], [False, False, True]])
        expected = F.normalized_mse_loss(student[mask], teacher[mask])
        student[0, 1] = float("nan")
        leaf = student.requires_grad_()
        loss = F.normalized_mse_loss(leaf, teacher, mask=mask)
        torch.testing.assert_close(loss, expected)
        loss.backward()
        assert bool(torch.isfinite(leaf.grad).all())

    def test_zero_vector(self) -> None:
        leaf = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
        loss = F.normalized_mse_loss(leaf, randn(1, 3))
        loss.backward()
        assert float(loss.detach()) == 2.0
        assert torch.equal(leaf.grad, torch.zeros(1, 3, dtype=torch.float64))


def dino_by_loops(
    student: Tensor, teacher: Tensor, center: Tensor | float, views: int, teacher_views: int, skip: bool
) -> float:
    p = np.split(softmax((teacher - center).numpy() / 0.04, axis=1), teacher_views)
    logs = np.split(log_softmax(student.numpy() / 0.1, axis=1), views)
    costs = [
        -(p[g] * logs[v]).sum(1).mean() for g in range(teacher_views) for v in range(views) if not (skip and g == v)
    ]
    return float(np.mean(costs))


class TestDINOLoss(LossContract):
    function = staticmethod(F.dino_loss)
    module = losses.DINOLoss
    module_hyper = {"num_prototypes": 5}
    zero_at_equality = False

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_logits": randn(3 * batch, 5, seed=1, dtype=dtype) / 10,
            "teacher_logits": randn(2 * batch, 5, seed=2, dtype=dtype) / 10,
        }

    def build(self, **extra: Any) -> nn.Module:
        """A module that does not move its centre, so that a second call gives the same."""
        return super().build(**extra).eval()

    def test_gradcheck(self) -> None:
        x = self.inputs(batch=2)
        leaf = x["student_logits"].requires_grad_()
        assert gradcheck(lambda s: F.dino_loss(s, x["teacher_logits"]), leaf)
        assert gradgradcheck(lambda s: F.dino_loss(s, x["teacher_logits"]), leaf)

    @pytest.mark.parametrize(
        ("views", "teacher_views", "skip"), [(2, 2, True), (5, 2, True), (4, 1, False), (2, 3, True), (2, 2, False)]
    )
    def test_against_loops(self, views: int, teacher_views: int, skip: bool) -> None:
        student, teacher, center = randn(views * 3, 4, seed=1), randn(teacher_views * 3, 4, seed=2), randn(4, seed=3)
        found = F.dino_loss(student, teacher, center=center, teacher_views=teacher_views, skip_same_view=skip)
        assert float(found) == pytest.approx(dino_by_loops(student, teacher, center, views, teacher_views, skip))

    def test_no_value_is_smaller_than_the_teachers_entropy(self) -> None:
        teacher = randn(4, 6, seed=2) / 10
        p = softmax(teacher.numpy() / 0.04, axis=1)
        entropy = -(p * np.log(p)).sum(1).mean()
        same = torch.cat(teacher.chunk(2)[::-1]) * (0.1 / 0.04)
        assert float(F.dino_loss(same, teacher)) == pytest.approx(entropy)
        assert float(F.dino_loss(same + 0.05 * randn(4, 6, seed=5), teacher)) > entropy

    def test_centre_moves_after_use(self) -> None:
        module = losses.DINOLoss(4, center_momentum=0.75).double()
        center = torch.zeros(4, dtype=torch.float64)
        for step in range(3):
            student, teacher = randn(6, 4, seed=step), randn(4, 4, seed=10 + step)
            expected = F.dino_loss(student, teacher, center=center)
            torch.testing.assert_close(module(student, teacher), expected)
            center = 0.75 * center + 0.25 * teacher.mean(0)
            torch.testing.assert_close(module.center, center)
        module.eval()(randn(6, 4), randn(4, 4))
        torch.testing.assert_close(module.center, center)

    def test_centre_keeps_its_tensor(self) -> None:
        """Data parallelism and optimised graphs hold on to buffers."""
        module = losses.DINOLoss(4)
        before = module.center.data_ptr()
        module(randn(4, 4).float(), randn(4, 4).float())
        assert module.center.data_ptr() == before

    def test_scheduled_temperature_follows_the_distiller(self) -> None:
        schedule = Linear(0.04, 0.08, until=4, by="epoch")
        loss = losses.DINOLoss(4, teacher_temperature=schedule, teacher_views=1, skip_same_view=False)
        distiller = Distiller(nn.Linear(3, 4), nn.Linear(3, 4), {"dino": Match(loss, "", "")})
        x = torch.randn(5, 3)
        for epoch, temperature in ((0, 0.04), (2, 0.06), (9, 0.08)):
            distiller.set_progress(Progress(epoch=epoch))
            loss.center.zero_()
            student, teacher = distiller.student(x), distiller.teachers["teacher"](x)
            expected = F.dino_loss(
                student, teacher, teacher_temperature=temperature, teacher_views=1, skip_same_view=False
            )
            torch.testing.assert_close(distiller(x)["loss/dino"], expected)

    def test_old_centre_of_an_empty_batch(self) -> None:
        center = randn(3)
        torch.testing.assert_close(F.moving_center(center, randn(0, 3)), center)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"student_logits": randn(5, 4)},
                r"must hold whole views of the same images, 2 of the teacher's, got \(5, 4",
            ),
            ({"student_logits": randn(6, 3)}, r"must score the same prototypes, got \(6, 3\) and \(4, 4\)"),
            (
                {"student_logits": randn(4, 4), "teacher_logits": randn(4, 4), "teacher_views": 1},
                "no pair of different",
            ),
            ({"center": randn(3)}, r"center must have one entry per prototype, shape \(4,\), got \(3,\)"),
        ],
    )
    def test_what_does_not_fit(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ShapeError, match=message):
            F.dino_loss(**{"student_logits": randn(6, 4), "teacher_logits": randn(4, 4), **change})

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"student_temperature": 0.0}, "student_temperature must be a finite number above 0"),
            ({"teacher_temperature": 0.0}, "teacher_temperature must be a finite number above 0"),
            ({"teacher_views": 0}, "teacher_views must be 1 or more, got 0"),
        ],
    )
    def test_wrong_hyper_parameters(self, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            F.dino_loss(randn(6, 4), randn(4, 4), **wrong)
        with pytest.raises(ValueError, match=message):
            losses.DINOLoss(4, **wrong)

    def test_momentum_out_of_range(self) -> None:
        with pytest.raises(ValueError, match="center_momentum must lie between 0.0 and 1.0, got 1.5"):
            losses.DINOLoss(4, center_momentum=1.5)


class TestSinkhornAssignment:
    def plain(self, scores: np.ndarray, epsilon: float, iterations: int) -> np.ndarray:
        q = np.exp(scores / epsilon)
        for _ in range(iterations):
            q = q / q.sum(0)
            q = q / q.sum(1, keepdims=True)
        return q

    @pytest.mark.parametrize("iterations", [1, 3, 10])
    def test_against_the_plain_form(self, iterations: int) -> None:
        scores = randn(7, 4)
        found = F.sinkhorn_assignment(scores, epsilon=0.2, iterations=iterations)
        np.testing.assert_allclose(found.numpy(), self.plain(scores.numpy(), 0.2, iterations), rtol=1e-12)

    def test_rows_sum_to_one_and_prototypes_are_used_alike(self) -> None:
        q = F.sinkhorn_assignment(randn(12, 3), epsilon=0.5, iterations=200)
        torch.testing.assert_close(q.sum(1), torch.ones(12, dtype=torch.float64))
        torch.testing.assert_close(q.sum(0), torch.full((3,), 4.0, dtype=torch.float64))

    def test_control_a_softmax_uses_them_unevenly(self) -> None:
        scores = randn(12, 3)
        scores[:, 0] += 5
        assert float(scores.softmax(1).sum(0)[0]) > 8
        assert float(F.sinkhorn_assignment(scores, epsilon=0.5, iterations=200).sum(0)[0]) == pytest.approx(4)

    @pytest.mark.parametrize("epsilon", [0.05, 1e-3, 1e-5])
    def test_float32_where_the_plain_form_overflows(self, epsilon: float) -> None:
        scores = randn(9, 4, dtype=torch.float32)
        found = F.sinkhorn_assignment(scores, epsilon=epsilon, iterations=5)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            overflows = not np.isfinite(self.plain(scores.numpy(), epsilon, 5)).all()
        assert overflows == (epsilon < 0.01)
        log_q = scores.double().numpy() / epsilon  # the same in logarithms
        for _ in range(5):
            log_q = log_softmax(log_softmax(log_q, axis=0), axis=1)
        np.testing.assert_allclose(found.numpy(), np.exp(log_q), atol=1e-2 if epsilon < 1e-4 else 1e-4)

    def test_half_precision(self) -> None:
        found = F.sinkhorn_assignment(randn(9, 4, dtype=torch.float16))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.sum(1), torch.ones(9))

    def test_no_samples(self) -> None:
        assert F.sinkhorn_assignment(randn(0, 4)).shape == (0, 4)

    def test_gives_no_gradient(self) -> None:
        assert not F.sinkhorn_assignment(randn(3, 4).requires_grad_()).requires_grad

    def test_scores_are_left_alone(self) -> None:
        scores = randn(3, 4)
        expected = F.sinkhorn_assignment(scores, epsilon=1.0)
        assert torch.equal(scores, randn(3, 4))
        found = F.sinkhorn_assignment(scores, epsilon=1.0, inplace=True)
        assert torch.equal(found, expected)
        assert found.data_ptr() == scores.data_ptr(), "in place is asked for by name"

    def test_nan_is_named(self) -> None:
        scores = randn(3, 4)
        scores[1, 2] = float("nan")
        with pytest.raises(NonFiniteError, match=r"scores of shape \(3, 4\) holds NaN"):
            F.sinkhorn_assignment(scores)

    @pytest.mark.parametrize(
        ("wrong", "message"), [({"epsilon": 0}, "epsilon"), ({"iterations": 0}, "1 or more, got 0")]
    )
    def test_wrong_hyper_parameters(self, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            F.sinkhorn_assignment(randn(3, 4), **wrong)


def crd_by_loops(v: Tensor, memory: Tensor, indices: Tensor, z: float, temperature: float) -> np.ndarray:
    found = []
    for n, rows in enumerate(indices.tolist()):
        h = [math.exp(float(v[n] / v[n].norm() @ memory[row]) / temperature) / z for row in rows]
        noise = (len(rows) - 1) / len(memory)
        total = math.log(h[0] / (h[0] + noise + 1e-7))
        total += sum(math.log(noise / (other + noise + 1e-7)) for other in h[1:])
        found.append(-total)
    return np.array(found)


class TestContrastiveRepresentationLoss(LossContract):
    function = staticmethod(F.contrastive_representation_loss)
    module = losses.ContrastiveRepresentationLoss
    hyper = {"student_normalizer": 50.0, "teacher_normalizer": 20.0, "temperature": 0.5}
    module_hyper = {
        "student_dim": 4,
        "teacher_dim": 6,
        "num_samples": 9,
        "embedding_dim": 3,
        "num_negatives": 5,
        "negatives": "relax",
    }
    zero_at_equality = False

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        draws = torch.Generator().manual_seed(0)
        return {
            "student_embeddings": randn(batch, 3, seed=1, dtype=dtype),
            "teacher_embeddings": randn(batch, 3, seed=2, dtype=dtype),
            "student_memory": normalize(randn(9, 3, seed=3)).to(dtype),
            "teacher_memory": normalize(randn(9, 3, seed=4)).to(dtype),
            "indices": torch.randint(0, 9, (batch, 6), generator=draws),
        }

    def student_names(self, arguments: dict[str, Any]) -> list[str]:
        return ["student_embeddings"]

    def teacher_names(self, arguments: dict[str, Any]) -> list[str]:
        return ["teacher_embeddings"]

    @pytest.mark.parametrize("dense", [32, 0], ids=["all products", "picked rows"])
    @pytest.mark.parametrize("at_once", [2**26, 1], ids=["together", "one by one"])
    def test_against_loops(self, dense: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(contrast, "_DENSE_UP_TO", dense)
        monkeypatch.setattr(contrast, "_ENTRIES_AT_ONCE", at_once)
        x = self.inputs()
        expected = crd_by_loops(x["student_embeddings"], x["teacher_memory"], x["indices"], 50, 0.5)
        expected = expected + crd_by_loops(x["teacher_embeddings"], x["student_memory"], x["indices"], 20, 0.5)
        found = F.contrastive_representation_loss(**x, **self.hyper, reduction="none")
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)

    @pytest.mark.parametrize("dense", [32, 0], ids=["all products", "picked rows"])
    def test_gradient_of_both_sides(self, dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(contrast, "_DENSE_UP_TO", dense)
        x = self.inputs(batch=2)
        leaves = [x.pop(f"{side}_embeddings").requires_grad_() for side in ("student", "teacher")]
        assert gradcheck(lambda s, t: F.contrastive_representation_loss(s, t, **x, **self.hyper), leaves)

    def test_teacher_receives_no_gradient(self) -> None:
        """The embedding on the teacher's side learns, the teacher in front of it does not."""
        module = self.build().double()
        features = randn(4, 6, seed=2).requires_grad_()
        module(randn(4, 4, seed=1).requires_grad_(), features, torch.arange(4)).backward()
        assert features.grad is None
        assert float(module.teacher_embedding.weight.grad.abs().sum()) > 0
        assert float(module.student_embedding.weight.grad.abs().sum()) > 0

    def test_module_equals_function(self) -> None:
        """First call: the normalisers come from the batch, and draws from the seed."""
        module = self.build(temperature=0.5, seed=3).double()
        banks = module.student_memory.clone(), module.teacher_memory.clone()
        student, teacher, ids = randn(4, 4, seed=1), randn(4, 6, seed=2), torch.tensor([7, 0, 3, 8])
        embedded = module.student_embedding(student), module.teacher_embedding(teacher)
        indices = F.contrast_negatives(ids, 9, 5, draw=0, seed=3)
        zs = [
            F.contrast_normalizer(F.contrast_logits(v, m, indices, temperature=0.5), num_samples=9)
            for v, m in zip(embedded, banks[::-1], strict=True)
        ]
        expected = F.contrastive_representation_loss(
            *embedded, *banks, indices, student_normalizer=zs[0], teacher_normalizer=zs[1], temperature=0.5
        )
        torch.testing.assert_close(module(student, teacher, ids), expected)
        torch.testing.assert_close(module.student_normalizer, zs[0])
        for bank, before, vectors in (
            (module.student_memory, banks[0], embedded[0]),
            (module.teacher_memory, banks[1], embedded[1]),
        ):
            rows = normalize(before[ids] + normalize(vectors.detach()))
            torch.testing.assert_close(bank[ids], rows)
            unseen = torch.tensor([1, 2, 4, 5, 6])
            assert torch.equal(bank[unseen], before[unseen])
        module(student, teacher, ids)
        torch.testing.assert_close(module.student_normalizer, zs[0])
        assert int(module.draws) == 2

    def test_backward_after_the_memory_moved(self) -> None:
        """Two micro-batches, one backward: the gradients are those of the memories that were scored."""
        student, teacher = randn(4, 4, seed=1), randn(4, 6, seed=2)
        ids = torch.arange(4)
        apart = self.build().double()
        together = copy.deepcopy(apart)
        apart(student, teacher, ids).backward()
        apart(student, teacher, ids).backward()
        (together(student, teacher, ids) + together(student, teacher, ids)).backward()
        torch.testing.assert_close(together.student_embedding.weight.grad, apart.student_embedding.weight.grad)

    def test_evaluation_remembers_nothing(self) -> None:
        module = self.build().double().eval()
        before = copy.deepcopy(module.state_dict())
        module(randn(4, 4, seed=1), randn(4, 6, seed=2), torch.arange(4))
        assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())

    def test_module_survives_pickle_deepcopy_and_state_dict(self) -> None:
        """A copy goes on as the original does: same negatives, same normalisers."""
        module = self.build().double()
        step = (randn(4, 4, seed=1), randn(4, 6, seed=2), torch.arange(4))
        module(*step)
        resumed = self.build().double()
        resumed(*step)  # calibrates itself on other memories, which loading must undo
        resumed.load_state_dict(module.state_dict())
        twins = [copy.deepcopy(module), pickle.load(io.BytesIO(pickle.dumps(module))), resumed]
        expected = module(*step)
        for twin in twins:
            torch.testing.assert_close(twin(*step), expected, rtol=0, atol=0)
            torch.testing.assert_close(twin.student_memory, module.student_memory, rtol=0, atol=0)

    def test_loss_falls_as_pairs_are_learned(self) -> None:
        torch.manual_seed(0)
        module = self.build(num_samples=32, num_negatives=16).double()
        student, teacher, ids = randn(32, 4, seed=1), randn(32, 6, seed=2), torch.arange(32)
        optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
        values = []
        for _ in range(60):
            optimizer.zero_grad()
            loss = module(student, teacher, ids)
            loss.backward()
            optimizer.step()
            values.append(float(loss.detach()))
        assert np.mean(values[-5:]) < 0.8 * np.mean(values[:5])

    def test_no_second_derivative(self) -> None:
        x = self.inputs()
        leaf = x["student_embeddings"].requires_grad_()
        loss = self.call(**x)
        with pytest.raises(LimbeckError, match="cannot be differentiated twice"):
            torch.autograd.grad(loss, leaf, create_graph=True)

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"indices": torch.zeros(4, 1).long()}, ShapeError, r"shape \(4, 1 \+ K\), got \(4, 1\)"),
            (
                {"indices": torch.full((4, 6), 9)},
                TargetError,
                "indices must lie between 0 and 8, since the memory has 9",
            ),
            ({"indices": torch.zeros(4, 6)}, TargetError, "indices must hold integers, got torch.float32"),
            ({"teacher_memory": randn(8, 3)}, ShapeError, "both have a row per sample"),
            ({"student_embeddings": randn(4, 2)}, ShapeError, r"got \(4, 2\) and \(4, 3\): embed both to one width"),
            (
                {"student_embeddings": randn(4, 2), "teacher_embeddings": randn(4, 2)},
                ShapeError,
                r"one width, got \(4, 2\) and \(9, 3\): embed both models",
            ),
        ],
    )
    def test_what_does_not_fit(self, change: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            self.call(**{**self.inputs(), **change})

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"ids": torch.tensor([0, 9])}, TargetError, "ids must lie between 0 and 8, .* set num_samples"),
            ({"ids": torch.tensor([0])}, ShapeError, r"ids must have one entry per sample, shape \(2,\), got \(1,\)"),
            ({"student_embeddings": randn(2, 5)}, ShapeError, "must hold student_dim=4 numbers per sample, got 5"),
            ({"teacher_embeddings": randn(3, 6)}, ShapeError, "same samples on axis 0"),
        ],
    )
    def test_what_does_not_fit_the_module(
        self, arguments: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        fitting = {"student_embeddings": randn(2, 4), "teacher_embeddings": randn(2, 6), "ids": torch.arange(2)}
        with pytest.raises(error, match=message):
            self.build().double()(**{**fitting, **arguments})

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"num_samples": 1}, "num_samples must be 2 or more, got 1"),
            ({"num_negatives": 0}, "num_negatives must be 1 or more, got 0"),
            ({"temperature": 0.0}, "temperature must be a finite number above 0"),
            ({"momentum": 2.0}, "momentum must lie between"),
            ({"negatives": "hard"}, "negatives must be 'exact' or 'relax', got 'hard'"),
            ({"negatives": "exact", "labels": torch.zeros(8).long()}, r"shape \(9,\), got \(8,\)"),
        ],
    )
    def test_wrong_hyper_parameters(self, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            self.build(**wrong)


class TestExactNegatives:
    CLASSES = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])

    def build(self, **extra: Any) -> nn.Module:
        return losses.ContrastiveRepresentationLoss(4, 6, 8, embedding_dim=3, num_negatives=5, **extra).double()

    def step(self, module: nn.Module, ids: Tensor, target: Tensor | None) -> Tensor:
        n = len(ids)
        return module(randn(n, 4, seed=1), randn(n, 6, seed=2), ids, target)

    def test_classes_are_learned_from_batches(self) -> None:
        module = self.build()
        for ids in (torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5, 6, 7])):
            self.step(module, ids, self.CLASSES[ids])
        assert torch.equal(module.labels, self.CLASSES)
        known = self.build(labels=self.CLASSES)
        known.load_state_dict({**module.state_dict()})
        ids = torch.tensor([0, 5])
        torch.testing.assert_close(self.step(known, ids, None), self.step(module, ids, self.CLASSES[ids]))

    def test_without_classes_is_a_sentence(self) -> None:
        with pytest.raises(TargetError, match=r"need target, .* or labels of the whole data set at construction"):
            self.step(self.build(), torch.arange(3), None)

    def test_mixed_labels_are_refused(self) -> None:
        with pytest.raises(TargetError, match="mixed-up labels have no one class; set negatives='relax'"):
            self.step(self.build(), torch.arange(3), torch.rand(3, 4))

    def test_a_match_fills_ids_and_target(self) -> None:
        match = Match(losses.ContrastiveRepresentationLoss(3, 3, 8, num_negatives=4), "", "")
        distiller = Distiller(nn.Linear(5, 3), nn.Linear(5, 3), {"crd": match})
        ids = torch.tensor([3, 1, 2])
        loss = distiller(inputs=torch.randn(3, 5), targets=self.CLASSES[ids], ids=ids)["loss/crd"]
        loss.backward()
        assert float(distiller.student.weight.grad.abs().sum()) > 0
        assert torch.equal(match.loss.labels[ids], self.CLASSES[ids])


class TestContrastNegatives:
    LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, -1])

    def test_first_is_the_sample_itself(self) -> None:
        ids = torch.tensor([4, 0, 8])
        assert torch.equal(F.contrast_negatives(ids, 9, 3, draw=0)[:, 0], ids)

    def test_relaxed_ones_are_the_others_evenly(self) -> None:
        drawn = F.contrast_negatives(torch.tensor([4, 0, 8]), 9, 80_000, draw=1)[:, 1:]
        for row, own in zip(drawn, (4, 0, 8), strict=True):
            counts = torch.bincount(row, minlength=9)
            assert int(counts[own]) == 0
            others = counts[torch.arange(9) != own].double()
            assert float(((others - 10_000) ** 2 / 10_000).sum()) < 24.3  # chi-square, 7 degrees of freedom, p = 0.001

    def test_exact_ones_have_another_class_evenly(self) -> None:
        drawn = F.contrast_negatives(torch.tensor([0, 1, 7]), 9, 50_000, draw=1, labels=self.LABELS)[:, 1:]
        for row, own in zip(drawn, (0, 1, 0), strict=True):
            counts = torch.bincount(row, minlength=9).double()
            other = own != self.LABELS
            assert float(counts[~other].sum()) == 0
            expected = 50_000 / float(other.sum())
            assert float(((counts[other] - expected) ** 2 / expected).sum()) < 22.5  # at most 6 degrees, p = 0.001

    def test_depends_on_sample_draw_and_seed_alone(self) -> None:
        together = F.contrast_negatives(torch.tensor([4, 2, 7]), 1000, 64, draw=5, seed=1)
        alone = F.contrast_negatives(torch.tensor([2]), 1000, 64, draw=torch.tensor(5), seed=1)
        assert torch.equal(together[1:2], alone)
        for other in ({"draw": 6, "seed": 1}, {"draw": 5, "seed": 2}):
            same = (F.contrast_negatives(torch.tensor([2]), 1000, 64, **other) == alone)[0, 1:].double().mean()
            assert float(same) < 0.1
        rows = together[:, 1:].double()
        assert abs(float(torch.corrcoef(rows)[0, 1])) < 0.4

    def test_large_data_sets_do_not_overflow(self) -> None:
        drawn = F.contrast_negatives(torch.tensor([2**31 - 2]), 2**31 - 1, 1000, draw=0)[0, 1:]
        assert int(drawn.min()) >= 0
        assert int(drawn.max()) < 2**31 - 2
        assert float(drawn.double().mean()) == pytest.approx(2**30, rel=0.1)

    def test_nothing_to_contrast_with(self) -> None:
        with pytest.raises(TargetError, match="all 3 samples have the class 1; use negatives='relax'"):
            F.contrast_negatives(torch.tensor([0]), 3, 2, draw=0, labels=torch.ones(3).long())


class TestNormalizerAndMemory:
    def test_normalizer_of_an_empty_batch(self) -> None:
        assert float(F.contrast_normalizer(randn(0, 3), num_samples=4)) == 0.0

    def test_memory_rows_have_length_one(self) -> None:
        memory = normalize(randn(5, 3))
        rows = F.moving_memory(memory, torch.tensor([4, 2]), randn(2, 3, seed=1), momentum=0.9)
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(2, dtype=torch.float64))

    def test_momentum_out_of_range(self) -> None:
        with pytest.raises(ValueError, match="momentum must lie between 0.0 and 1.0, got -1"):
            F.moving_memory(randn(5, 3), torch.tensor([4]), randn(1, 3), momentum=-1)


def test_compiles_in_one_graph() -> None:
    torch._dynamo.reset()
    student, teacher = randn(6, 4, seed=1).requires_grad_(), randn(4, 4, seed=2)
    memory, indices = normalize(randn(9, 4, seed=3)), torch.arange(18).reshape(6, 3) % 9

    def total(x: Tensor) -> Tensor:
        crd = F.contrastive_representation_loss(
            x, 2 * x, memory, memory, indices, student_normalizer=9.0, teacher_normalizer=9.0
        )
        return crd + F.dino_loss(x, teacher) + F.normalized_mse_loss(x[:4], teacher)

    (expected,) = torch.autograd.grad(total(student), student)
    (found,) = torch.autograd.grad(torch.compile(total, fullgraph=True, backend="aot_eager")(student), student)
    torch.testing.assert_close(found, expected)
