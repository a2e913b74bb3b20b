"""The flip test, and models that answer with key points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limbeck_core.errors import MatchError, ShapeError
from limbeck_pose.calls import Decoded, FlipTest
from limbeck_pose.heatmap import Heatmap
from limbeck_pose.keypoints import Layout
from limbeck_pose.simcc import SimCC

PAIR = Layout(count=2, sigmas=(0.05,) * 2, pairs=((0, 1),), parts={"all": range(2)}, upper=(), lower=(), links=())


class Reader(nn.Module):
    """A perfect model: key point 0 is where red is, key point 1 where green is.

    In a mirrored image the left hand looks like a right one, so what it finds at red is then called 1.
    """

    def __init__(self, codec: Any) -> None:
        super().__init__()
        self.codec = codec
        self.mirrored = False

    def forward(self, images: Tensor) -> Any:
        channels = images[:, [1, 0] if self.mirrored else [0, 1]]
        self.mirrored = not self.mirrored
        flat = channels.flatten(2).argmax(-1)
        points = torch.stack([flat % images.shape[-1], flat // images.shape[-1]], -1).double()
        encoded = self.codec.encode(points, torch.ones(len(images), 2))
        return (encoded.x, encoded.y) if isinstance(self.codec, SimCC) else encoded.heatmaps


def picture() -> tuple[Tensor, Tensor]:
    image = torch.zeros(1, 3, 32, 64)
    image[0, 0, 11, 20] = 1
    image[0, 1, 24, 52] = 1
    return image, torch.tensor([[[20.0, 11.0], [52.0, 24.0]]], dtype=torch.float64)


def test_both_images_agree_to_the_bin() -> None:
    image, truth = picture()
    codec = SimCC((32, 64), sigma=(2.0, 2.0))
    x, y = FlipTest(PAIR).predict(Reader(codec), {"inputs": image}, "inputs")
    plain = codec.encode(truth, torch.ones(1, 2))
    torch.testing.assert_close(x, plain.x, atol=1e-12, rtol=0)
    torch.testing.assert_close(y, plain.y)


def test_the_references_way_is_half_a_pixel_off() -> None:
    image, _ = picture()
    codec = SimCC((32, 64), sigma=(2.0, 2.0))
    reader = Reader(codec)
    own, _ = reader(image)
    reader.mirrored = False
    x, _ = FlipTest(PAIR, aligned=False).predict(reader, {"inputs": image}, "inputs")
    torch.testing.assert_close(2 * x - own, own.roll(1, -1), atol=1e-6, rtol=0)


def test_heatmaps_agree_to_a_quarter_of_a_cell() -> None:
    image, truth = picture()
    codec = Heatmap((32, 64), sigma=1.5)
    heatmaps = FlipTest(PAIR).predict(Reader(codec), {"inputs": image}, "inputs")
    columns = torch.arange(16.0)
    centre = (heatmaps.sum(2) * columns).sum(-1) / heatmaps.sum((2, 3))
    assert np.allclose(centre * 4, truth[..., 0], atol=0.6), "half of a quarter of a cell of 4 pixels"
    shifted = FlipTest(PAIR, aligned=False).predict(Reader(codec), {"inputs": image}, "inputs")
    off = (shifted.sum(2) * columns).sum(-1) / shifted.sum((2, 3)) - centre
    assert (off.abs() > 0.3).all()


def test_another_layout_is_told() -> None:
    image, _ = picture()
    with pytest.raises(ShapeError, match="a layout of 133 key points, the model has 2"):
        FlipTest("whole-body").predict(Reader(SimCC((32, 64))), {"inputs": image}, "inputs")
    with pytest.raises(ValueError, match="one of whole-body, body, got 'hands'"):
        FlipTest("hands")


def test_decoded_points_are_the_codecs() -> None:
    image, truth = picture()
    points, scores = Decoded().predict(Reader(SimCC((32, 64))), {"inputs": image}, "inputs")
    torch.testing.assert_close(points, truth)
    assert scores.tolist() == [[1.0, 1.0]]
    with pytest.raises(MatchError, match="it is for SimCC heads"):
        Decoded().predict(Reader(Heatmap((32, 64))), {"inputs": image}, "inputs")
