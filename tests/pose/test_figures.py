"""The small model of the drawn figures."""

from __future__ import annotations

import pytest
import torch

from limbeck_core.errors import ShapeError
from limbeck_pose.figures import FigurePose


def test_scores_have_two_bins_a_pixel() -> None:
    x, y = FigurePose(8)(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    assert x.shape == y.shape == (2, 10, 128)


def test_other_sizes_and_odd_widths_are_refused() -> None:
    with pytest.raises(ShapeError, match="built for crops of 64 by 64 pixels"):
        FigurePose(8)(torch.zeros(2, 3, 32, 64))
    with pytest.raises(ShapeError, match="width must be even and 2 or more, got 5"):
        FigurePose(5)
