"""Prototypes and what is learnt from them: by hand, limits, gradients, empty batches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck_core.errors import ShapeError
from limbeck_nlp.ner import (
    ProbabilityMSELoss,
    Prototypes,
    class_means,
    probability_mse_loss,
    prototype_contrast_loss,
    prototype_pseudo_labels,
)
from limbeck_nlp.ner.prototypes import ClassMeans
from loss_contract import LossContract, randn

UNITS = torch.eye(3)
ALL = torch.ones(3, dtype=torch.bool)


class TestProbabilityMSELoss(LossContract):
    function = staticmethod(probability_mse_loss)
    module = ProbabilityMSELoss

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_logits": randn(batch, 5, seed=0, dtype=dtype),
            "teacher_logits": randn(batch, 5, seed=1, dtype=dtype),
        }


def test_probability_error_by_hand_and_masked() -> None:
    student, teacher = torch.tensor([[[0.0, 0.0], [9.0, -9.0]]]), torch.tensor([[[50.0, 0.0], [-9.0, 9.0]]])
    assert probability_mse_loss(student, teacher, mask=torch.tensor([[True, False]])).item() == pytest.approx(0.25)


def test_class_means_by_hand() -> None:
    features = torch.tensor([[2.0, 0.0], [0.0, 2.0], [5.0, 5.0], [0.0, -3.0]], requires_grad=True)
    means, present = class_means(features, torch.tensor([1, 1, -100, 2]), 4)
    torch.testing.assert_close(means[1], torch.tensor([1.0, 1.0]) / math.sqrt(2))
    assert present.tolist() == [False, True, True, False]
    assert means[0].abs().sum() == 0
    means.sum().backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()
    empty, nobody = class_means(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), 3)
    assert not nobody.any()
    assert empty.shape == (3, 2)
    with pytest.raises(ShapeError, match="labels must have shape"):
        class_means(features, torch.tensor([1]), 4)


def test_prototypes_follow_and_leave_absent_classes_alone() -> None:
    prototypes = Prototypes(3, 3, momentum=0.5)
    prototypes.update(ClassMeans(UNITS, torch.tensor([True, True, False])))
    torch.testing.assert_close(prototypes.vectors[:2], UNITS[:2])  # the first time takes the mean itself
    assert prototypes.vectors[2].abs().sum() == 0
    prototypes.update(ClassMeans(UNITS[[1, 0, 2]], torch.tensor([True, False, False])))
    torch.testing.assert_close(prototypes.vectors[0], torch.tensor([1.0, 1.0, 0.0]) / math.sqrt(2))
    torch.testing.assert_close(prototypes.vectors[1], UNITS[1])
    assert prototypes.seen.tolist() == [True, True, False]


def contrast(anchors: Tensor, present: Tensor = ALL, seen: Tensor = ALL, **options: Any) -> Tensor:
    return prototype_contrast_loss(ClassMeans(anchors, present), UNITS, UNITS, seen, seen, **options)


def test_contrast_by_hand() -> None:
    # its own class at cosine 1, two others at 0 in each of two languages
    assert contrast(UNITS, temperature=0.5).item() == pytest.approx(math.log(1 + 4 * math.exp(-2)))
    # a class not yet seen is neither a positive nor a negative
    seen = torch.tensor([True, True, False])
    assert contrast(UNITS, seen=seen, temperature=0.5).item() == pytest.approx(math.log(1 + 2 * math.exp(-2)))
    assert contrast(UNITS[[1, 0, 2]], temperature=0.5).item() > contrast(UNITS, temperature=0.5).item()


def test_contrast_pulls_towards_the_own_class_only() -> None:
    anchors = torch.tensor([[0.6, 0.8, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], requires_grad=True)
    contrast(anchors, present=torch.tensor([True, False, False])).backward()
    assert anchors.grad is not None
    assert anchors.grad[0, 0] < 0 < anchors.grad[0, 1]
    assert anchors.grad[1:].abs().sum() == 0


def test_contrast_without_any_class_is_a_zero_with_a_graph() -> None:
    anchors = UNITS.clone().requires_grad_()
    loss = contrast(anchors, present=~ALL)
    loss.backward()
    assert loss.item() == 0
    assert anchors.grad is not None
    assert anchors.grad.abs().sum() == 0
    nothing = contrast(UNITS, seen=~ALL)
    assert nothing.item() == 0
    with pytest.raises(ShapeError, match="must have one shape"):
        prototype_contrast_loss(ClassMeans(UNITS, ALL), UNITS[:2], UNITS, ALL, ALL)
    with pytest.raises(ValueError, match="temperature"):
        contrast(UNITS, temperature=0.0)


def known() -> Prototypes:
    prototypes = Prototypes(3, 3)
    prototypes.update(ClassMeans(UNITS, ALL))
    return prototypes


def test_distances_correct_the_teacher() -> None:
    unsure = torch.tensor([[1.0, 1.2, -3.0]])
    assert prototype_pseudo_labels(UNITS[:1] * 7, unsure, known(), temperature=0.2).tolist() == [0]
    # without limit of temperature the teacher alone decides
    assert prototype_pseudo_labels(UNITS[:1], unsure, known(), temperature=1e6).tolist() == [1]
    assert prototype_pseudo_labels(UNITS[:1], unsure, known(), temperature=1e6, threshold=0.9).tolist() == [-100]


def test_classes_not_yet_seen_get_no_label() -> None:
    prototypes = Prototypes(3, 3)
    assert prototype_pseudo_labels(UNITS, UNITS * 9, prototypes).tolist() == [-100] * 3
    prototypes.update(ClassMeans(UNITS, torch.tensor([True, True, False])))
    labels = prototype_pseudo_labels(UNITS, UNITS * 9, prototypes)
    assert 2 not in labels.tolist()
    assert prototype_pseudo_labels(UNITS[:0], UNITS[:0], prototypes).shape == (0,)
    with pytest.raises(ValueError, match="threshold"):
        prototype_pseudo_labels(UNITS, UNITS, prototypes, threshold=2.0)
