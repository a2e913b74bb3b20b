"""Blocks equal a masked dense layer, scales and targets follow their equations, each sample asks its own teacher."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limbeck_core import Distiller, Match, Tap
from limbeck_core.build import build
from limbeck_core.engine.commands import train
from limbeck_core.errors import ConfigError, DataError, MatchError, ShapeError, TargetError
from limbeck_vision.methods.knowledge_concentration import (
    BlockLinear,
    ConcentratedModel,
    ConcentrationHead,
    DigitPairs,
    OneVertical,
    SelfPacedScale,
    SigmoidCrossEntropyLoss,
    SpecialistCall,
    SpecialistLoss,
    Specialists,
    head_weights,
    pretrained_specialists,
    specialist_loss,
    vertical_average_precision,
    vertical_of,
)
from limbeck_vision.models import resnet8_quarter, timm_model
from loss_contract import LossContract, labels, randn

SIZES = (2, 5, 3)


def test_blocks_are_a_dense_layer_whose_other_weights_are_zero() -> None:
    torch.manual_seed(0)
    blocks = BlockLinear(4, SIZES).double()
    nn.init.normal_(blocks.bias)
    dense, hidden = blocks.as_dense(), randn(6, 3, 4).requires_grad_()
    torch.testing.assert_close(blocks(hidden), dense(hidden.flatten(1)), atol=1e-12, rtol=1e-12)
    mask = torch.zeros(10, 12, dtype=torch.bool)
    for rows, columns in ((slice(0, 2), slice(0, 4)), (slice(2, 7), slice(4, 8)), (slice(7, 10), slice(8, 12))):
        mask[rows, columns] = True
    assert bool((dense.weight[~mask] == 0).all())
    assert bool((dense.weight[mask] != 0).all())
    blocks(hidden).square().sum().backward()
    ours, hidden.grad = hidden.grad, None
    dense(hidden.flatten(1)).square().sum().backward()
    torch.testing.assert_close(ours, hidden.grad)
    torch.testing.assert_close(blocks.weight.grad, dense.weight.grad[mask].view(10, 4))
    with pytest.raises(ShapeError, match=r"\(N, 3, 4\)"):
        blocks(randn(6, 12))


HEADS: dict[str, dict[str, Any]] = {
    "FC-FC": {"first": "full", "second": "full"},
    "FC-SC": {"first": "full", "second": "structured"},
    "SC-SC": {"first": "structured", "second": "structured"},
    "FC-SC(x)": {"first": "full", "second": "structured", "shared": 2},
}


@pytest.mark.parametrize("name", HEADS)
def test_number_of_weights_is_the_papers_formula(name: str) -> None:
    head = ConcentrationHead(7, SIZES, first_width=6, second_width=5, **HEADS[name])
    b, s1, s2, m, n = 7, 6, 5, 3, 10
    expected = {
        "FC-FC": b * s1 + s1 * s2 + s2 * n,
        "FC-SC": b * s1 + s1 * s2 * m + s2 * n,
        "SC-SC": b * s1 * m + s1 * s2 * m + s2 * n,
        "FC-SC(x)": b * s1 + s1 * 2 + s1 * (s2 - 2) * m + s2 * n,
    }[name]
    counted = sum(parameter.numel() for key, parameter in head.named_parameters() if "weight" in key)
    assert counted == expected == head_weights(7, SIZES, first_width=6, second_width=5, **HEADS[name])
    assert head(randn(4, 7, dtype=torch.float32)).shape == (4, 10)


def test_the_papers_sizes_at_a_hundred_thousand_labels() -> None:
    """The card: 98, 135 and 155 million with an 11 million backbone, at an inferred width of 8 to 9 thousand."""
    sizes, millions = [5000] * 20, 1e6
    dense = head_weights(8704, sizes, first_width=4096, second_width=512, second="full") / millions + 11
    fc_sc = head_weights(8704, sizes, first_width=4096, second_width=512) / millions + 11
    sc_sc = head_weights(8704, sizes, first_width=512, second_width=512, first="structured") / millions + 11
    assert (dense, fc_sc, sc_sc) == (pytest.approx(98, abs=2), pytest.approx(138, abs=2), pytest.approx(155, abs=5))


@pytest.mark.parametrize("name", ["FC-SC", "SC-SC", "FC-SC(x)"])
def test_a_vertical_is_moved_by_its_own_blocks_alone(name: str) -> None:
    head = ConcentrationHead(7, SIZES, first_width=6, second_width=5, **HEADS[name])
    head(randn(4, 7, dtype=torch.float32))[:, 2:7].sum().backward()
    grad = head.classifier.weight.grad
    assert bool(grad[2:7].any())
    assert not bool(grad[:2].any() or grad[7:].any())
    own = head.second.weight.grad
    assert own is not None
    per_vertical = own if own.ndim == 3 else own.view(3, -1, 6)
    assert [bool(part.any()) for part in per_vertical] == [False, True, False]
    if head.shared is not None:
        assert bool(head.shared.weight.grad.any())


def test_structured_heads_equal_a_loop_over_verticals() -> None:
    head = ConcentrationHead(7, SIZES, first_width=6, second_width=5, **HEADS["SC-SC"]).double()
    embeddings = randn(4, 7)
    parts, row = [], 0
    for vertical, size in enumerate(SIZES):
        units = slice(6 * vertical, 6 * vertical + 6)
        first = (embeddings @ head.first.weight[units].T + head.first.bias[units]).relu()
        second = (first @ head.second.weight[vertical] + head.second.bias[vertical]).relu()
        labels_of = slice(row, row + size)
        parts.append(second @ head.classifier.weight[labels_of].T + head.classifier.bias[labels_of])
        row += size
    torch.testing.assert_close(head(embeddings), torch.cat(parts, 1), atol=1e-12, rtol=1e-12)


def test_rare_labels_start_at_their_log_odds() -> None:
    head = ConcentrationHead(7, SIZES, first_width=6, second_width=5, rare=True)
    assert torch.allclose(head.classifier.bias, torch.tensor(math.log(0.1 / 0.9)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first": "structured", "second": "full"}, "structured first layer"),
        ({"first": "dense"}, "'full' or 'structured'"),
        ({"second": "full", "shared": 2}, "shared units need"),
        ({"shared": 5}, "shared < second_width"),
    ],
)
def test_heads_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConcentrationHead(7, SIZES, first_width=6, second_width=5, **options)


@pytest.mark.parametrize("level", ["vertical", "class"])
def test_scale_normalises_each_vertical(level: Any) -> None:
    torch.manual_seed(0)
    scale = SelfPacedScale(SIZES, level=level).double()
    logits = randn(6, 10)
    assert scale.gamma.shape == ((3,) if level == "vertical" else (10,))
    means = [part.mean().item() for part in scale.gamma.split((1, 1, 1) if level == "vertical" else SIZES)]
    assert means == pytest.approx([math.sqrt(size) for size in SIZES], abs=0.12)
    expected, gammas = [], scale.gamma.split((1, 1, 1) if level == "vertical" else SIZES)
    for part, gamma in zip(logits.split(SIZES, 1), gammas, strict=True):
        expected.append(gamma * part / part.norm(dim=1, keepdim=True))
    torch.testing.assert_close(scale(logits), torch.cat(expected, 1), atol=1e-10, rtol=1e-10)


def test_scale_stays_positive_and_survives_zero_logits() -> None:
    scale = SelfPacedScale(SIZES, initial=10.0)
    assert scale.gamma.tolist() == pytest.approx([10.0] * 3, abs=0.2)
    with torch.no_grad():
        scale.raw.fill_(-20.0)
    assert bool((scale.gamma > 0).all())
    zeros = torch.zeros(2, 10, requires_grad=True)
    scale(zeros).sum().backward()
    assert bool(zeros.grad.isfinite().all())
    for options, message in (({"level": "node"}, "'vertical' or 'class'"), ({"initial": 0.0}, "above 0")):
        with pytest.raises(ConfigError, match=message):
            SelfPacedScale(SIZES, **options)  # type: ignore[arg-type]


class TestSpecialistLoss(LossContract):
    function = staticmethod(specialist_loss)
    module = SpecialistLoss
    zero_at_equality = False

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        kept = torch.rand(batch, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
        return {
            "student_logits": randn(batch, 10, dtype=dtype),
            "teacher_probabilities": kept,
            "labels": torch.stack([torch.arange(3) + row % 7 for row in range(batch)])
            if batch
            else torch.zeros(0, 3).long(),
        }


def test_sparse_targets_are_the_dense_equation() -> None:
    logits, kept = randn(5, 10), torch.rand(5, 3, dtype=torch.float64)
    index = torch.stack([torch.randperm(10)[:3] for _ in range(5)])
    dense = torch.zeros(5, 10, dtype=torch.float64).scatter(1, index, kept)
    expected = nn.functional.binary_cross_entropy_with_logits(logits, dense, reduction="sum") / 5
    torch.testing.assert_close(specialist_loss(logits, kept, index), expected)


def test_task_loss_takes_indices_and_multi_hot_rows() -> None:
    logits, target = randn(5, 10), labels(5, 10)
    rows = nn.functional.one_hot(target, 10)
    expected = nn.functional.binary_cross_entropy_with_logits(logits, rows.double(), reduction="sum") / 5
    torch.testing.assert_close(SigmoidCrossEntropyLoss()(logits, target), expected)
    torch.testing.assert_close(SigmoidCrossEntropyLoss()(logits, rows), expected)
    with pytest.raises(ShapeError, match="multi-hot"):
        SigmoidCrossEntropyLoss()(logits, rows[:, :4])


def test_labels_and_probabilities_out_of_range_are_refused() -> None:
    logits, kept = randn(2, 10), torch.full((2, 1), 0.5)
    with pytest.raises(TargetError, match="from 0 to 9"):
        specialist_loss(logits, kept, torch.tensor([[3], [10]]))
    with pytest.raises(TargetError, match="sigmoid"):
        specialist_loss(logits, kept + 1, torch.tensor([[3], [9]]))
    with pytest.raises(ShapeError, match=r"\(2, K\)"):
        specialist_loss(logits, kept, torch.tensor([[3]]))


def test_the_vertical_of_a_sample() -> None:
    assert vertical_of(torch.arange(10), SIZES).tolist() == [0, 0, 1, 1, 1, 1, 1, 2, 2, 2]
    rows = torch.zeros(2, 10)
    rows[0, [2, 6]] = rows[1, [9]] = 1
    assert vertical_of(rows, SIZES).tolist() == [1, 2]
    rows[1, 0] = 1
    with pytest.raises(TargetError, match="sample 1 has labels of 2 verticals"):
        vertical_of(rows, SIZES)
    with pytest.raises(TargetError, match="from 0 to 9"):
        vertical_of(torch.tensor([10]), SIZES)
    with pytest.raises(ShapeError, match=r"\(N, 10\)"):
        vertical_of(torch.zeros(2, 9), SIZES)


class Constant(nn.Module):
    """Scores images by their mean and counts how many it saw."""

    normalization = None

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.arange(size).float())
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return self.scores + images.mean((1, 2, 3))[:, None]


IMAGES = randn(4, 3, 2, 2, dtype=torch.float32).sigmoid()


def test_each_sample_asks_its_own_specialist() -> None:
    specialists = Specialists([Constant(size) for size in SIZES], SIZES, top_k=3)
    verticals = torch.tensor([1, 0, 1, 2])
    found = specialists(IMAGES, verticals)
    assert [specialists.models[name].seen for name in "012"] == [1, 2, 1]
    assert found["labels"].tolist() == [[6, 5, 4], [1, 0, 0], [6, 5, 4], [9, 8, 7]]
    mean = IMAGES.mean((1, 2, 3))
    torch.testing.assert_close(found["probabilities"][0], torch.sigmoid(torch.tensor([4.0, 3.0, 2.0]) + mean[0]))
    assert found["probabilities"][1, 2].item() == 0.0, "a vertical of two labels is padded"


def test_targets_of_other_verticals_and_beyond_the_largest_are_zero() -> None:
    specialists = Specialists([Constant(size) for size in SIZES], SIZES, top_k=2)
    dense = torch.logit(torch.full((), 1e-6))
    batch = {"inputs": IMAGES, "targets": torch.tensor([2, 0, 6, 9])}
    scores = SpecialistCall().predict(specialists, batch, "inputs")
    kept = (scores > dense + 1e-3).nonzero().tolist()
    assert kept == [[0, 5], [0, 6], [1, 0], [1, 1], [2, 5], [2, 6], [3, 8], [3, 9]]


def test_hard_labels_stand_in_for_a_missing_specialist() -> None:
    specialists = Specialists([Constant(2), None, Constant(3)], SIZES)
    targets = torch.tensor([4, 0, 6, 9])
    found = specialists(IMAGES, vertical_of(targets, SIZES), targets)
    assert (found["labels"][0, 0].item(), found["probabilities"][0].tolist()) == (4, [1.0, 0.0, 0.0, 0.0, 0.0])
    rows = nn.functional.one_hot(targets, 10)
    rows[0, 5] = 1  # the ancestor
    found = specialists(IMAGES, vertical_of(rows, SIZES), rows)
    assert sorted(found["labels"][0, :2].tolist()) == [4, 5]
    with pytest.raises(MatchError, match="vertical 1 has no specialist"):
        specialists(IMAGES, vertical_of(targets, SIZES))


def test_specialists_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="each of 3 verticals"):
        Specialists([None], SIZES)
    with pytest.raises(ShapeError, match="must score its 5 labels"):
        Specialists([None, Constant(4), None], SIZES)(IMAGES, torch.ones(4, dtype=torch.long))
    with pytest.raises(ShapeError, match=r"shape \(4,\)"):
        Specialists([None, None, None], SIZES)(IMAGES, torch.zeros(3, dtype=torch.long))
    with pytest.raises(ConfigError, match="{vertical}"):
        pretrained_specialists({"type": resnet8_quarter}, "file.pth", SIZES)
    with pytest.raises(MatchError, match="'targets' or 'verticals'"):
        SpecialistCall().capture(Specialists([None] * 3, SIZES), {"inputs": IMAGES}, "inputs")


def student() -> ConcentratedModel:
    torch.manual_seed(0)
    head = {"sizes": SIZES, "first_width": 6, "second_width": 5}
    return ConcentratedModel(resnet8_quarter(), head, scale={"level": "vertical"})


def distiller() -> Distiller:
    match = Match(
        SpecialistLoss(),
        "logits",
        Tap("", of="teacher", pick="probabilities"),
        extras={"labels": Tap("", of="teacher", pick="labels")},
    )
    specialists = Specialists([Constant(size) for size in SIZES], SIZES)
    return Distiller(student(), specialists, {"specialists": match}, teacher_call=SpecialistCall())


def test_a_step_of_the_distiller_is_the_equation() -> None:
    model, images, targets = distiller(), randn(4, 3, 8, 8, dtype=torch.float32).sigmoid(), torch.tensor([2, 0, 6, 9])
    losses = model(images, targets)
    assert losses.keys() == {"loss/specialists"}
    logits = model.student(images)
    dense = torch.zeros(4, 10)
    for row, target in enumerate(targets.tolist()):
        start, size = [(0, 2), (2, 5), (7, 3)][int(vertical_of(torch.tensor([target]), SIZES))]
        dense[row, start : start + size] = torch.sigmoid(torch.arange(size).float() + images[row].mean())
    expected = nn.functional.binary_cross_entropy_with_logits(logits, dense, reduction="sum") / 4
    torch.testing.assert_close(losses["loss/specialists"], expected)
    losses["loss/specialists"].backward()
    assert bool(model.student.scale.raw.grad.any())
    assert not [name for name in model.state_dict() if "scores" in name], "teachers are not saved"


def test_verticals_of_the_batch_win_over_those_of_the_labels() -> None:
    model = distiller()
    rows = torch.zeros(2, 10)
    rows[:, [0, 2]] = 1
    model(inputs=IMAGES[:2].repeat(1, 1, 4, 4), targets=rows, verticals=torch.tensor([1, 1]))
    assert [model.teacher.model.models[name].seen for name in "012"] == [0, 2, 0]


def test_backbones_say_how_wide_they_are() -> None:
    head = {"sizes": SIZES, "first_width": 6, "second_width": 5}
    assert ConcentratedModel(resnet8_quarter(), head).head.first.in_features == 16
    with torch.device("meta"):
        assert ConcentratedModel(timm_model("resnet18", 0), head).head.first.in_features == 512
    with pytest.raises(ConfigError, match="num_classes=0"):
        ConcentratedModel(nn.Linear(2, 2), head)


def test_pairs_of_digits() -> None:
    train_set, test_set = DigitPairs(count=500), DigitPairs(train=False, count=200)
    assert set(train_set.class_counts) == {5}
    sample = train_set[3]
    assert sample["inputs"].shape == (3, 8, 16)
    first, second = train_set._pairs[3]
    digits = train_set._digits
    assert sample["targets"] == 10 * int(digits.targets[first]) + int(digits.targets[second])
    assert torch.equal(sample["inputs"][:, :, 8:], digits.image(second))
    assert len(test_set) == 200
    assert DigitPairs(count=500)._pairs == train_set._pairs
    with pytest.raises(ValueError, match="count"):
        DigitPairs(count=0)


def test_one_vertical_counts_its_labels_from_zero() -> None:
    whole = DigitPairs(count=300)
    part = OneVertical(whole, sizes=[10, 20, 30, 40], vertical=1)
    assert part.classes == tuple(str(number) for number in range(10, 30))
    assert len(part) == 60
    assert [whole.targets[identity] - 10 for identity in part.ids] == part.targets.tolist()
    with pytest.raises(DataError, match="cannot be cut out"):
        OneVertical(whole, sizes=[10, 20], vertical=1)


def test_precision_inside_verticals() -> None:
    targets = np.asarray([0, 0, 1, 1, 2, 3])
    logits = np.full((6, 4), -9.0)
    logits[np.arange(6), targets] = 1.0
    assert vertical_average_precision(logits, targets, [2, 2]) == [100.0, 100.0]
    logits[4:, 2:] = [[0.0, 1.0], [1.0, 0.0]]  # vertical 1 is turned round: each label's own sample comes second of two
    assert vertical_average_precision(logits, targets, [2, 2]) == [100.0, 50.0]
    logits[:4, 2:] = 50.0  # other verticals' samples do not matter
    assert vertical_average_precision(logits, targets, [2, 2]) == [100.0, 50.0]
    assert math.isnan(vertical_average_precision(logits[:4], targets[:4], [2, 2])[1])
    with pytest.raises(ShapeError):
        vertical_average_precision(logits, targets, [2, 3])


def test_the_digits_configs_train(tmp_path: Path) -> None:
    short: Mapping[str, Any] = {"train_cfg.max_epochs": 1, "param_scheduler.T_max": 1, "train_cfg.val_interval": 1}
    torch.manual_seed(0)
    for vertical, size in enumerate((10, 20, 30, 40)):
        (tmp_path / f"specialist-{vertical}").mkdir()
        specialist = build({"type": "limbeck_vision.models.resnet8", "num_classes": size, "normalization": None})
        torch.save(specialist.state_dict(), tmp_path / f"specialist-{vertical}" / "student.pth")
    overrides = {
        **short,
        "train_dataloader.dataset.count": 200,
        "val_dataloader.dataset.count": 200,
        "model.teacher.checkpoints": str(tmp_path / "specialist-{vertical}" / "student.pth"),
    }
    runner = train("vision/knowledge_concentration/digits", work_dir=tmp_path / "run", seed=0, overrides=overrides)
    assert 0 <= runner.message_hub.get_scalar("val/mpvap").current() <= 100
    assert 0 <= runner.message_hub.get_scalar("val/teacher/mpvap").current() <= 100


def test_copies_are_independent() -> None:
    model = student()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.scale.raw.zero_()
    assert bool((model.scale.raw != 0).all())
