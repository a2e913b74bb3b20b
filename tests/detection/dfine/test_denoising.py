"""Denoising queries: groups, noise, who sees whom, and images without objects."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from limbeck_core.errors import ShapeError, TargetError
from limbeck_detection.boxes import box_cxcywh_to_xyxy
from limbeck_detection.dfine.denoising import Denoising, denoising_queries

CLASSES, QUERIES = 4, 5


def target(count: int) -> dict[str, Tensor]:
    return {"labels": torch.arange(count) % CLASSES, "boxes": torch.rand(count, 4) * 0.2 + 0.4}


def queries(counts: tuple[int, ...], *, slots: int = 12, **options: float) -> Denoising:
    found = denoising_queries(
        [target(count) for count in counts],
        num_classes=CLASSES,
        num_queries=QUERIES,
        num_denoising=slots,
        **options,
    )
    assert found is not None
    return found


def test_groups_share_the_slots() -> None:
    found = queries((3, 1))
    assert found.meta["dn_num_group"] == 4
    assert found.meta["dn_num_split"] == [2 * 3 * 4, QUERIES]
    assert found.meta["dn_positive_idx"][0].tolist() == [0, 1, 2, 6, 7, 8, 12, 13, 14, 18, 19, 20]
    assert found.meta["dn_positive_idx"][1].tolist() == [0, 6, 12, 18]
    assert queries((20, 1)).meta["dn_num_group"] == 1


def test_empty_slots_have_a_label_of_their_own() -> None:
    found = queries((3, 1), label_noise_ratio=1.0)
    filled = torch.tensor([[True] * 24, [True, False, False] * 8])
    assert torch.equal(found.labels == CLASSES, ~filled)


def test_without_noise_the_truth_comes_back() -> None:
    true = target(3)
    found = denoising_queries(
        [true],
        num_classes=CLASSES,
        num_queries=QUERIES,
        num_denoising=3,
        label_noise_ratio=0.0,
        box_noise_scale=0.0,
    )
    assert found is not None
    assert torch.equal(found.labels, true["labels"].repeat(1, 2))
    torch.testing.assert_close(found.box_logits.sigmoid(), true["boxes"].repeat(2, 1)[None])


def test_half_of_the_ratio_is_the_probability_of_another_draw() -> None:
    true = target(1)
    found = denoising_queries(
        [true], num_classes=CLASSES, num_queries=QUERIES, num_denoising=4000, label_noise_ratio=1.0
    )
    assert found is not None
    changed = (found.labels != true["labels"]).float().mean().item()
    assert changed == pytest.approx(0.5 * (1 - 1 / CLASSES), abs=0.03)


def test_positives_stay_near_and_negatives_go_further() -> None:
    true = target(1)
    found = denoising_queries([true], num_classes=CLASSES, num_queries=QUERIES, num_denoising=50)
    assert found is not None
    moved = box_cxcywh_to_xyxy(found.box_logits.sigmoid())
    half = true["boxes"][:, 2:].repeat(1, 2) / 2
    shift = ((moved - box_cxcywh_to_xyxy(true["boxes"])) / half).abs()[0]
    positive = found.meta["dn_positive_idx"][0]
    assert float(shift[positive].max()) < 1.0 + 1e-4
    assert float(shift.max()) > 1.0
    assert bool((found.box_logits.sigmoid()[..., 2:] >= 0).all())


def test_ordinary_queries_and_groups_do_not_see_noisy_ones() -> None:
    found = queries((3, 1))
    slots = found.meta["dn_num_split"][0]
    blocked = found.blocked
    assert bool(blocked[slots:, :slots].all())
    assert not bool(blocked[:, slots:].any())
    expected = torch.block_diag(*[torch.ones(6, 6)] * 4) == 0
    assert torch.equal(blocked[:slots, :slots], expected)


def test_images_without_objects() -> None:
    nothing = {"labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)}
    assert denoising_queries([nothing, nothing], num_classes=CLASSES, num_queries=QUERIES) is None
    some = denoising_queries([nothing, target(2)], num_classes=CLASSES, num_queries=QUERIES)
    assert some is not None
    assert some.meta["dn_positive_idx"][0].tolist() == []
    assert bool((some.labels[0] == CLASSES).all())


def test_targets_that_do_not_fit() -> None:
    def make(**changes: Tensor) -> None:
        denoising_queries([{**target(2), **changes}], num_classes=CLASSES, num_queries=QUERIES)

    with pytest.raises(TargetError, match=r"targets\[0\]\['labels'\] must lie in \[0, 4\), got 4"):
        make(labels=torch.tensor([0, CLASSES]))
    with pytest.raises(TargetError, match=r"must be class indices, got torch.float32"):
        make(labels=torch.zeros(2))
    with pytest.raises(ShapeError, match=r"labels \(n,\) and boxes \(n, 4\), got \(2,\) and \(3, 4\)"):
        make(boxes=torch.rand(3, 4))
    with pytest.raises(TargetError, match=r"must hold 'labels' and 'boxes', it has: labels"):
        denoising_queries([{"labels": torch.zeros(1).long()}], num_classes=CLASSES, num_queries=QUERIES)
