"""The contrast of MACIL-SD against loops over videos and rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn.functional import normalize

from limbeck_audiovideo.macil_sd import ModalityContrastLoss, modality_contrast_loss
from limbeck_core import Match
from limbeck_core.errors import NonFiniteError, ShapeError
from loss_contract import randn

LENGTH = torch.tensor([20, 5, 40, 17, 0])


def inputs() -> dict[str, Tensor]:
    return {
        "student_features": randn(5, 40, 6, seed=1),
        "teacher_features": randn(5, 40, 6, seed=2),
        "student_logits": randn(5, 40, seed=3),
        "teacher_logits": randn(5, 40, seed=4),
        "bag_logits": torch.tensor([1.0, -2.0, 0.5, -0.1, -3.0], dtype=torch.float64),
        "length": LENGTH,
    }


def by_loops(x: dict[str, Tensor], temperature: float) -> Tensor:
    groups: dict[str, dict[str, list[Tensor]]] = {}
    for side in ("student", "teacher"):
        rows: dict[str, list[Tensor]] = {"violent": [], "normal": [], "background": []}
        for video in range(5):
            n = max(int(LENGTH[video]), 1)
            k = n // 16 + 1
            order = x[f"{side}_logits"][video, :n].argsort(descending=True)
            features = x[f"{side}_features"][video]
            rows["background"] += list(features[order[-k:]])
            if x["bag_logits"][video] > 0:
                rows["violent"] += [features[order[:k]].mean(0)] * k
            else:
                rows["normal"] += list(features[order[:k]])
        groups[side] = rows
    total = torch.zeros((), dtype=torch.float64)
    for one, other in (("student", "teacher"), ("teacher", "student")):
        for kind in ("background", "normal"):
            negatives = normalize(torch.stack(groups[other][kind]), dim=1)
            terms = []
            for query, positive in zip(groups[one]["violent"], groups[other]["violent"], strict=True):
                q, p = normalize(query, dim=0), normalize(positive, dim=0)
                scores = torch.cat([(q @ p).reshape(1), negatives @ q]) / temperature
                terms.append(-scores.log_softmax(0)[0])
            total = total + torch.stack(terms).mean()
    return total


def test_value_is_that_of_loops_over_videos() -> None:
    x = inputs()
    torch.testing.assert_close(modality_contrast_loss(**x), by_loops(x, 0.1))
    torch.testing.assert_close(ModalityContrastLoss(temperature=0.5)(**x), by_loops(x, 0.5))


def test_logits_handed_over_crosswise_are_the_released_code() -> None:
    x = inputs()
    swapped = {**x, "student_logits": x["teacher_logits"], "teacher_logits": x["student_logits"]}
    assert not torch.allclose(modality_contrast_loss(**x), modality_contrast_loss(**swapped))
    torch.testing.assert_close(modality_contrast_loss(**swapped), by_loops(swapped, 0.1))


def test_both_modalities_get_a_gradient_and_rankings_none() -> None:
    x = inputs()
    names = ("student_features", "teacher_features")
    leaves = [x[name].clone().requires_grad_() for name in names]
    assert gradcheck(lambda a, b: modality_contrast_loss(**{**x, names[0]: a, names[1]: b}), leaves)
    logits = x["student_logits"].clone().requires_grad_()
    loss = modality_contrast_loss(**{**x, "student_logits": logits, "student_features": leaves[0]})
    assert torch.autograd.grad(loss, logits, allow_unused=True) == (None,)


def test_padding_has_no_say() -> None:
    x = inputs()
    changed = {name: value.clone() for name, value in x.items()}
    for name in ("student_features", "teacher_features", "student_logits", "teacher_logits"):
        changed[name][1, 5:] = 100.0
        changed[name][4, 1:] = -100.0
    assert torch.equal(modality_contrast_loss(**x), modality_contrast_loss(**changed))


@pytest.mark.parametrize("bag_logits", [torch.ones(5), -torch.ones(5)], ids=["all violent", "all normal"])
def test_nothing_to_contrast_is_a_differentiable_zero(bag_logits: Tensor) -> None:
    x = {**inputs(), "bag_logits": bag_logits}
    x["student_features"].requires_grad_()
    loss = modality_contrast_loss(**x)
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert x["student_features"].grad is not None


def test_an_empty_batch_is_a_differentiable_zero() -> None:
    x = {name: value[:0] for name, value in inputs().items()}
    x["student_features"].requires_grad_()
    loss = modality_contrast_loss(**x)
    loss.backward()
    assert float(loss.detach()) == 0.0


def test_the_bags_of_all_ranks_are_seen() -> None:
    extras = dict.fromkeys(("student_logits", "teacher_logits", "bag_logits", "length"), "x")
    assert Match(ModalityContrastLoss(), "", "", extras=extras).relational


def test_errors() -> None:
    x = inputs()
    with pytest.raises(ShapeError, match=r"must have one shape \(B, T, D\), got \(5, 40, 6\) and \(4, 40, 6\)"):
        modality_contrast_loss(**{**x, "teacher_features": x["teacher_features"][:4]})
    with pytest.raises(ShapeError, match=r"bag_logits must have shape \(5,\), got \(4,\)"):
        modality_contrast_loss(**{**x, "bag_logits": x["bag_logits"][:4]})
    with pytest.raises(ValueError, match="temperature must be a finite number above 0"):
        ModalityContrastLoss(temperature=0)
    x["teacher_features"][0] = float("nan")
    with pytest.raises(NonFiniteError, match="teacher_features"):
        modality_contrast_loss(**x)
