"""Key points to labels along the axes and back."""

from __future__ import annotations

import pytest
import torch

from limbeck_core.errors import NonFiniteError, ShapeError
from limbeck_pose.simcc import SimCC


def test_round_trip_within_a_quarter_of_a_pixel() -> None:
    codec = SimCC((256, 192))
    points = torch.rand(4, 17, 2, dtype=torch.float64) * torch.tensor([190.0, 254.0])
    targets = codec.encode(points, torch.ones(4, 17))
    decoded, scores = codec.decode(targets.x, targets.y)
    assert (decoded - points).abs().max() <= 0.25
    assert torch.equal(scores, torch.ones_like(scores)), "the peak of a label is 1, it is no density"


def test_refinement_of_a_density_finds_the_bin_it_was_made_from() -> None:
    codec = SimCC((64, 64))
    targets = codec.encode(torch.tensor([[[20.25, 33.5]]], dtype=torch.float64), torch.ones(1, 1))
    plain, _ = codec.decode(targets.x, targets.y)
    refined, _ = codec.decode(targets.x, targets.y, refine=True)
    torch.testing.assert_close(refined, plain, rtol=0, atol=1e-2)


def test_default_widths_are_rtmposes() -> None:
    assert SimCC((256, 192)).sigmas == (4.9, 5.66)
    assert SimCC((384, 288)).sigmas == (6.0, 6.93)
    assert SimCC((256, 192)).bins == (384, 512)


def test_hidden_and_distant_key_points_have_no_label() -> None:
    codec = SimCC((64, 32), sigma=(2.0, 2.0))
    points = torch.tensor([[[10.0, 10.0], [10.0, 10.0], [-2.9, 10.0], [-3.3, 10.0], [10.0, 66.7], [10.0, 67.1]]])
    targets = codec.encode(points, torch.tensor([[1.0, 0.0, 1.0, 1.0, 1.0, 1.0]]))
    assert targets.weight.tolist() == [[1, 0, 1, 0, 1, 0]]
    assert (targets.x.sum(-1) > 0).tolist() == [[True, False, True, False, True, False]]


def test_no_positive_score_means_nowhere() -> None:
    codec = SimCC((64, 32))
    x, y = torch.full((1, 2, 64), -1.0), torch.full((1, 2, 128), -1.0)
    x[0, 1, 9], y[0, 1, 40] = 0.5, 0.25
    points, scores = codec.decode(x, y)
    assert points.tolist() == [[[-0.5, -0.5], [4.5, 20.0]]]
    assert scores.tolist() == [[-1.0, 0.25]]


def test_smoothed_labels_sum_to_one() -> None:
    codec = SimCC((64, 32), labels="smoothed", smoothing=0.1)
    targets = codec.encode(torch.tensor([[[5.0, 6.0], [40.0, 6.0]]]), torch.ones(1, 2))
    torch.testing.assert_close(targets.x[0, 0].sum(), torch.tensor(1.0))
    assert targets.x[0, 0].argmax() == 10
    assert targets.weight.tolist() == [[1, 0]], "no Gaussian reaches in from outside"


def test_what_does_not_fit_is_refused() -> None:
    codec = SimCC((64, 32))
    with pytest.raises(ShapeError, match=r"\(N, K, 64\) and \(N, K, 128\).*got \(1, 2, 64\) and \(1, 2, 64\)"):
        codec.decode(torch.zeros(1, 2, 64), torch.zeros(1, 2, 64))
    with pytest.raises(ShapeError, match=r"\(N, K, 2\) and \(N, K\), got \(1, 2, 3\) and \(1, 2\)"):
        codec.encode(torch.zeros(1, 2, 3), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="labels must be 'gaussian' or 'smoothed', got 'sharp'"):
        SimCC((64, 32), labels="sharp")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="smoothing must lie between 0"):
        SimCC((64, 32), smoothing=1.5)


def test_nan_is_told_where_it_is_labelled_and_harmless_where_not() -> None:
    points = torch.tensor([[[1.0, 2.0], [float("nan"), 4.0]]])
    with pytest.raises(NonFiniteError, match=r"key point 1 of person 0 is labelled and lies at \[nan, 4.0\]"):
        SimCC((16, 16)).encode(points, torch.ones(1, 2))
    targets = SimCC((16, 16)).encode(points, torch.tensor([[1.0, 0.0]]))
    assert torch.isfinite(targets.x).all()
    assert targets.weight.tolist() == [[1.0, 0.0]]


def test_an_empty_batch_has_empty_labels_and_points() -> None:
    codec = SimCC((16, 16))
    targets = codec.encode(torch.zeros(0, 3, 2), torch.zeros(0, 3))
    assert targets.x.shape == (0, 3, 32)
    points, scores = codec.decode(targets.x, targets.y)
    assert points.shape == (0, 3, 2)
    assert scores.shape == (0, 3)
