"""RTMPose: parameter counts, names of weights, input sizes, a head drawn anew."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from limbeck_core.errors import ShapeError
from limbeck_pose.rtmpose import (
    CSPNeXt,
    RTMPose,
    rtmpose_l,
    rtmpose_m,
    rtmpose_s,
    rtmpose_t,
    rtmpose_x,
)


def tiny(**options: object) -> RTMPose:
    return RTMPose(width=0.125, depth=0.1, keypoints=5, input_size=(64, 32), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("builder", "count"),
    [
        (rtmpose_t, 5_519_779),
        (rtmpose_s, 8_383_575),
        (rtmpose_m, 17_953_039),
        (rtmpose_l, 33_480_871),
        (rtmpose_x, 56_579_871),
    ],
)
def test_parameter_counts_to_the_unit(builder: Callable[[], RTMPose], count: int) -> None:
    with torch.device("meta"):
        model = builder()
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_names_are_those_of_released_checkpoints() -> None:
    names = tiny().state_dict().keys()
    for name in (
        "backbone.stem.0.conv.weight",
        "backbone.stage1.0.bn.running_mean",
        "backbone.stage1.1.blocks.0.conv2.depthwise_conv.conv.weight",
        "backbone.stage3.1.attention.fc.bias",
        "backbone.stage4.1.conv2.bn.weight",
        "backbone.stage4.2.final_conv.conv.weight",
        "head.final_layer.bias",
        "head.mlp.0.g",
        "head.gau.res_scale.scale",
        "head.gau.ln.g",
        "head.cls_y.weight",
    ):
        assert name in names
    assert not [name for name in names if name in ("mean", "std")]


def test_scores_have_two_bins_a_pixel_and_images_are_normalised_inside() -> None:
    model = tiny().eval()
    images = torch.randint(0, 256, (3, 3, 64, 32), dtype=torch.uint8)
    x, y = model(images)
    assert (x.shape, y.shape) == ((3, 5, 64), (3, 5, 128))
    torch.testing.assert_close(model(images.float())[0], x)
    normalised = (images - torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)) / torch.tensor(
        [58.395, 57.12, 57.375]
    ).view(3, 1, 1)
    torch.testing.assert_close(model.head(model.backbone(normalised))[1], y)


def test_other_sizes_are_refused_with_a_way_out() -> None:
    with pytest.raises(ShapeError, match=r"built for crops of 64 by 32 pixels.*\(4, 2\).*input_size"):
        tiny()(torch.zeros(1, 3, 128, 64))
    with pytest.raises(ShapeError, match=r"sides divisible by 32, got \(1, 3, 60, 32\)"):
        tiny()(torch.zeros(1, 3, 60, 32))
    with pytest.raises(ShapeError, match=r"divisible by 32, got \(100, 64\)"):
        RTMPose(width=0.125, depth=0.1, input_size=(100, 64))
    with pytest.raises(ShapeError, match=r"\(N, 3, H, W\)"):
        CSPNeXt(width=0.125, depth=0.1)(torch.zeros(3, 64, 32))


def test_half_precision_input_keeps_working() -> None:
    model = tiny().double().eval()
    assert model(torch.zeros(1, 3, 64, 32))[0].dtype == torch.float64
