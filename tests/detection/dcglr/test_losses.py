"""Contrast between clouds: by hand, the promises of every loss, one cloud, the centre, a step of the method."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from limbeck_core import Distiller, EMATeacher, Match
from limbeck_core.errors import ShapeError
from limbeck_core.losses import DINOLoss
from limbeck_detection.dcglr import (
    CloudModel,
    InfoNCELoss,
    MultiCrop,
    NPairContrastLoss,
    PointNet,
    Shapes,
    info_nce_loss,
    n_pair_contrast_loss,
    views_batch,
)
from loss_contract import LossContract, randn


class _Views(LossContract):
    """Three views of the student, two of the teacher."""

    zero_at_equality = False  # the entropy between clouds remains
    kind = "logits"

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            f"student_{self.kind}": randn(3 * batch, 5, dtype=dtype) * 0.1,
            f"teacher_{self.kind}": randn(2 * batch, 5, seed=1, dtype=dtype) * 0.1,
        }


class TestNPair(_Views):
    function = staticmethod(n_pair_contrast_loss)
    module = NPairContrastLoss
    hyper = {"scale": 2.0}
    module_hyper = {"num_prototypes": 5, "scale": 2.0}

    def build(self, **extra: Any) -> Any:
        return super().build(**extra).eval()


class TestInfoNCE(_Views):
    function = staticmethod(info_nce_loss)
    module = InfoNCELoss
    kind = "embeddings"


def test_n_pair_is_a_sum_over_pairs_of_views() -> None:
    student, teacher, center = randn(6, 4) * 0.1, randn(4, 4, seed=1), randn(4, seed=2)
    total = torch.zeros((), dtype=torch.float64)
    for g in range(2):
        for v in range(3):
            anchors = ((teacher[2 * g : 2 * g + 2] - center) / 0.04).softmax(1)
            scores = 64 * anchors @ (student[2 * v : 2 * v + 2] / 0.1).T
            total += cross_entropy(scores, torch.arange(2)) / 6
    torch.testing.assert_close(n_pair_contrast_loss(student, teacher, center=center), total)


def test_info_nce_is_a_sum_over_pairs_of_views() -> None:
    student, teacher = randn(6, 4), randn(4, 4, seed=1)
    total = torch.zeros((), dtype=torch.float64)
    for g in range(2):
        for v in range(3):
            scores = cosine_similarity(teacher[2 * g : 2 * g + 2, None], student[None, 2 * v : 2 * v + 2], dim=2) / 0.1
            total += cross_entropy(scores, torch.arange(2)) / 6
    torch.testing.assert_close(info_nce_loss(student, teacher), total)


def test_one_cloud_has_nothing_to_be_told_from() -> None:
    assert n_pair_contrast_loss(randn(5, 4), randn(2, 4)).item() == 0.0
    assert info_nce_loss(randn(5, 4), randn(2, 4)).item() == 0.0


def test_views_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="2 views of each cloud"):
        info_nce_loss(randn(6, 4), randn(3, 4))
    with pytest.raises(ShapeError, match=r"\(5, 4\) a whole number of views"):
        n_pair_contrast_loss(randn(5, 4), randn(4, 4))
    with pytest.raises(ShapeError, match="the same prototypes"):
        n_pair_contrast_loss(randn(4, 4), randn(4, 3))
    with pytest.raises(ShapeError, match="one width"):
        info_nce_loss(randn(4, 4), randn(4, 3))


def test_both_losses_of_a_step_have_one_centre_and_only_the_student_trains() -> None:
    torch.manual_seed(0)
    clouds = Shapes(size=8, points=64, transform=MultiCrop(local_views=2))
    batch = views_batch([clouds[number] for number in range(4)])
    assert [tuple(v.shape) for v in batch["inputs"]] == [(8, 58, 3), (8, 32, 3)]
    assert [tuple(v.shape) for v in batch["large"]] == [(8, 58, 3)]
    student = CloudModel(PointNet(16, widths=(8,)), prototypes=12, hidden=16, bottleneck=8)
    teacher = EMATeacher(student, 0.5, mode="batch_stats", buffers="own")
    matches = {
        "views": Match(DINOLoss(12), "head", "head"),
        "contrast": Match(NPairContrastLoss(12), "head", "head", weight=0.01),
        "vectors": Match(InfoNCELoss(), "embedding", "embedding"),
    }
    distiller = Distiller(student, teacher, matches, teacher_view="large").train()
    before = copy.deepcopy(dict(teacher.model.named_parameters()))
    for _ in range(2):
        losses = distiller(batch)
    sum(losses.values()).backward()
    assert losses.keys() == {"loss/views", "loss/contrast", "loss/vectors"}
    centers = [getattr(distiller.matches[name].loss, "center") for name in ("views", "contrast")]  # noqa: B009
    torch.testing.assert_close(centers[0], centers[1])
    assert centers[0].abs().sum() > 0
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.model.named_parameters())
    assert not torch.equal(teacher.model.encoder.layers[1].running_mean, torch.zeros(8))
