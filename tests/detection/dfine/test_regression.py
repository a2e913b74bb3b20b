"""Edge bins: their values, moving boxes and back, targets at and beyond the ends, the expected shift."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from limbeck_core.errors import ShapeError
from limbeck_detection.boxes import box_cxcywh_to_xyxy
from limbeck_detection.dfine.regression import (
    bbox2distance,
    distance2bbox,
    integral,
    translate_gt,
    weighting_function,
)

UP = torch.tensor([0.5], dtype=torch.float64)
REG_MAX = 32


def scale(value: float = 4.0) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def test_bins_of_the_paper() -> None:
    shifts = weighting_function(REG_MAX, UP, scale()) / 4
    first = [0, 0.01900, 0.03944, 0.06143, 0.08510, 0.11056, 0.13796, 0.16744, 0.19916]
    second = [0.23330, 0.27002, 0.30954, 0.35206, 0.39781, 0.44703, 0.5, 1.0]
    assert shifts[16:].tolist() == pytest.approx(first + second, abs=1e-5)
    torch.testing.assert_close(shifts, -shifts.flip(0))
    finer = weighting_function(REG_MAX, UP, scale(8.0)) / 8
    assert finer[17:21].tolist() == pytest.approx([0.01416, 0.02992, 0.04747, 0.06700], abs=1e-5)


def test_an_odd_number_of_bins_is_refused() -> None:
    with pytest.raises(ValueError, match="reg_max must be even and at least 4, got 31"):
        weighting_function(31, UP, scale())


def test_positive_shifts_move_edges_outwards() -> None:
    box = torch.tensor([0.5, 0.5, 0.2, 0.4], dtype=torch.float64)
    grown = box_cxcywh_to_xyxy(distance2bbox(box, torch.tensor([4.0, 0.0, 0.0, 2.0]).double(), scale()))
    assert grown.tolist() == pytest.approx([0.4 - 0.2, 0.3, 0.6, 0.7 + 0.2])


def test_targets_give_the_shift_back() -> None:
    points = torch.rand(50, 4).double() * 0.4 + 0.3
    true = points + (torch.rand(50, 4).double() - 0.5) * 0.05
    target = bbox2distance(points, box_cxcywh_to_xyxy(true), REG_MAX, scale(), UP)
    shifts = weighting_function(REG_MAX, UP, scale())
    low = target.bins.long()
    expected = (target.weight_left * shifts[low] + target.weight_right * shifts[low + 1]).reshape(50, 4)
    torch.testing.assert_close(distance2bbox(points, expected, scale()), true, atol=1e-12, rtol=0)
    torch.testing.assert_close(target.weight_left + target.weight_right, torch.ones(200).double())


@pytest.mark.parametrize(("shift", "index", "right"), [(-9.0, 0.0, 0.0), (4.0, 31.9, 1.0), (9.0, 31.9, 1.0)])
def test_shifts_beyond_the_ends_belong_to_the_end(shift: float, index: float, right: float) -> None:
    target = translate_gt(torch.tensor([shift], dtype=torch.float64), REG_MAX, scale(), UP)
    assert target.bins.item() == pytest.approx(index)
    assert (target.weight_right.item(), target.weight_left.item()) == (right, 1 - right)


def test_a_reference_without_extent_has_a_finite_target() -> None:
    point, box = torch.tensor([[0.5, 0.5, 0.0, 0.0]]), torch.tensor([[0.4, 0.4, 0.6, 0.6]])
    target = bbox2distance(point, box, REG_MAX, scale().float(), UP.float())
    assert all(bool(torch.isfinite(part).all()) for part in target)
    assert target.bins.tolist() == pytest.approx([31.9] * 4)


def test_targets_carry_no_gradient_and_none_may_be_empty() -> None:
    points = torch.rand(3, 4, requires_grad=True)
    assert not bbox2distance(points, torch.rand(3, 4), REG_MAX, scale(), UP).weight_left.requires_grad
    assert bbox2distance(torch.zeros(0, 4), torch.zeros(0, 4), REG_MAX, scale(), UP).bins.shape == (0,)


def test_a_sure_distribution_has_the_shift_of_its_bin() -> None:
    shifts = weighting_function(REG_MAX, UP, scale())
    corners = torch.full((1, 4, 33), -200.0, dtype=torch.float64)
    for edge, chosen in enumerate((0, 16, 20, 32)):
        corners[0, edge, chosen] = 200.0
    torch.testing.assert_close(integral(corners.flatten(1), shifts), shifts[[0, 16, 20, 32]][None])


def test_shapes_that_do_not_fit() -> None:
    shifts = weighting_function(REG_MAX, UP, scale())
    with pytest.raises(ShapeError, match=r"4 edges of 33 bins on the last axis \(132\), got shape \(2, 130\)"):
        integral(torch.zeros(2, 130), shifts)
    with pytest.raises(ShapeError, match=r"distance must hold 4 numbers on the last axis, got shape \(2, 3\)"):
        distance2bbox(torch.zeros(2, 4), torch.zeros(2, 3), scale())
    with pytest.raises(ShapeError, match=r"must both have shape \(N, 4\), got \(2, 4\) and \(3, 4\)"):
        bbox2distance(torch.zeros(2, 4), torch.zeros(3, 4), REG_MAX, scale(), UP)
