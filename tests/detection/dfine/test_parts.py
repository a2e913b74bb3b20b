"""The parts of D-FINE: backbone, encoder, deformable attention, gate, quality estimate, post-processing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from limbeck_core.errors import ShapeError
from limbeck_detection.boxes import box_cxcywh_to_xyxy
from limbeck_detection.dfine.attention import DeformableAttention, deformable_attention
from limbeck_detection.dfine.decoder import LQE, Gate
from limbeck_detection.dfine.encoder import HybridEncoder, sincos_positions
from limbeck_detection.dfine.hgnetv2 import HGNetV2
from limbeck_detection.dfine.postprocess import PostProcess


@pytest.mark.parametrize("name", ["B0", "B1", "B2", "B3", "B4", "B5", "B6"])
def test_backbone_strides_and_widths(name: Any) -> None:
    with torch.device("meta"):
        backbone = HGNetV2(name, out_stages=(0, 1, 2, 3))
        maps = backbone(torch.rand(1, 3, 100, 68))
    assert backbone.out_strides == [4, 8, 16, 32]
    assert [level.shape[1] for level in maps] == backbone.out_channels
    assert [tuple(level.shape[2:]) for level in maps] == [(25, 17), (13, 9), (7, 5), (4, 3)]


def test_frozen_backbone_moves_nothing_in_training() -> None:
    backbone = HGNetV2("B0", freeze_stem=True, freeze_norm=True).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    sum(level.sum() for level in backbone(torch.rand(2, 3, 32, 32))).backward()
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in backbone.stem.parameters())
    assert all(parameter.grad is not None for parameter in backbone.stages.parameters())
    assert not any(name.endswith("num_batches_tracked") for name in before)


def test_frozen_norms_take_the_weights_of_ordinary_ones() -> None:
    plain, frozen = HGNetV2("B0").eval(), HGNetV2("B0", freeze_norm=True)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2.0)
            module.running_mean.uniform_(-0.2, 0.2)
    frozen.load_state_dict(plain.state_dict())
    images = torch.rand(1, 3, 64, 64)
    for ours, theirs in zip(frozen(images), plain(images), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_affine_follows_activations_only() -> None:
    names = HGNetV2("B0", affine=True).state_dict().keys()
    assert "stem.stem1.lab.scale" in names
    assert "stages.2.blocks.0.layers.0.conv2.lab.scale" in names
    assert "stages.2.blocks.0.layers.0.conv1.lab.scale" not in names
    assert "stages.1.downsample.lab.scale" not in names


def test_backbones_that_do_not_exist() -> None:
    name: Any = "B7"
    with pytest.raises(ValueError, match="there is no HGNetV2 'B7': the sizes are B0, B1"):
        HGNetV2(name)
    with pytest.raises(ValueError, match=r"out_stages must name some of the stages 0 to 3, got \(3, 4\)"):
        HGNetV2("B0", out_stages=(3, 4))


def test_positions_exchange_x_and_y_on_a_square() -> None:
    table = sincos_positions(3, 3, 8).reshape(3, 3, 8)  # row, column
    assert torch.equal(table[1, 2, :4], table[1, 0, :4])
    assert torch.equal(table[1, 2, 4:], table[0, 2, 4:])
    assert table[2, 0, 0] == pytest.approx(torch.tensor(2.0).sin().item())
    with pytest.raises(ValueError, match="a multiple of 4 channels, got 6"):
        sincos_positions(3, 3, 6)


def small_encoder() -> HybridEncoder:
    return HybridEncoder((6, 8, 10), hidden_dim=8, heads=2, feedforward=12, expansion=0.5, depth_mult=0.34)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (9, 12), (1, 1)])
def test_encoder_keeps_maps_of_any_size(size: tuple[int, int]) -> None:
    sizes = [size]
    for _ in range(2):
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    maps = [torch.rand(2, width, *each) for width, each in zip((6, 8, 10), sizes, strict=True)]
    out = small_encoder().eval()(maps)
    assert [tuple(level.shape) for level in out] == [(2, 8, *each) for each in sizes]


def test_encoder_refuses_maps_that_do_not_follow_one_another() -> None:
    encoder = small_encoder()
    with pytest.raises(ShapeError, match="built for 3 maps, got 2"):
        encoder([torch.rand(1, 6, 8, 8), torch.rand(1, 8, 4, 4)])
    with pytest.raises(ShapeError, match=r"half as large as the finer one, rounded up, got sizes \[\(8, 8\), \(3, 4\)"):
        encoder([torch.rand(1, 6, 8, 8), torch.rand(1, 8, 3, 4), torch.rand(1, 10, 2, 2)])


def value_map(height: int, width: int) -> Tensor:
    return torch.arange(height * width, dtype=torch.float64).reshape(1, 1, 1, -1)


@pytest.mark.parametrize(
    ("sampling", "place"),
    [("default", (3.5 / 5, 1.5 / 4)), ("discrete", (3.2 / 5, 1.2 / 4))],  # the centre of a cell, and what rounds to it
)
def test_attention_reads_one_cell(sampling: Any, place: tuple[float, float]) -> None:
    out = deformable_attention(
        [value_map(4, 5)],
        [(4, 5)],
        torch.tensor(place).double().reshape(1, 1, 1, 1, 2),
        torch.ones(1, 1, 1, 1).double(),
        [1],
        sampling=sampling,
    )
    assert out.item() == pytest.approx(1 * 5 + 3)


def test_discrete_attention_outside_reads_the_border_of_a_wide_map() -> None:
    out = deformable_attention(
        [value_map(2, 6)],
        [(2, 6)],
        torch.tensor([2.0, -1.0]).double().reshape(1, 1, 1, 1, 2),
        torch.ones(1, 1, 1, 1).double(),
        [1],
        sampling="discrete",
    )
    assert out.item() == 5.0  # last column of the first row, not the column that the height would allow


def test_attention_looks_in_all_directions_at_first() -> None:
    attention = DeformableAttention(16, heads=4, points=(2, 1))
    offsets = attention.sampling_offsets.bias.reshape(4, 3, 2)
    expected = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    torch.testing.assert_close(offsets[:, 0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(offsets[:, 1], 2 * expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(offsets[:, 2], expected, atol=1e-6, rtol=0)
    assert attention.num_points_scale.tolist() == [0.5, 0.5, 1.0]


def test_discrete_attention_trains_weights_and_no_offsets() -> None:
    attention = DeformableAttention(8, heads=2, points=(2,), sampling="discrete")
    values = [torch.rand(1, 2, 4, 9, requires_grad=True)]
    attention(torch.rand(1, 3, 8), torch.rand(1, 3, 4), values, [(3, 3)]).sum().backward()
    assert attention.sampling_offsets.weight.grad is None
    assert attention.attention_weights.weight.grad is not None
    assert values[0].grad is not None


def test_attention_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="a multiple of the number of heads, got 10 and 4"):
        DeformableAttention(10, heads=4)
    weights, places = torch.ones(1, 1, 1, 2), torch.zeros(1, 1, 1, 2, 2)
    with pytest.raises(ShapeError, match=r"\(B, Q, heads, 3, 2\) .* got \(1, 1, 1, 2, 2\) and \(1, 1, 1, 2\)"):
        deformable_attention([value_map(2, 2)], [(2, 2)], places, weights, [3])
    with pytest.raises(ShapeError, match="got 1 values, 2 shapes and points for 1 levels"):
        deformable_attention([value_map(2, 2)], [(2, 2)] * 2, places, weights, [2])
    nearest: Any = "nearest"
    with pytest.raises(ValueError, match=r"sampling must be one of \('default', 'discrete'\), got 'nearest'"):
        deformable_attention([value_map(2, 2)], [(2, 2)], places, weights, [2], sampling=nearest)


def test_the_gate_starts_as_the_norm_of_the_mean() -> None:
    first, second = torch.rand(2, 3, 6), torch.rand(2, 3, 6)
    assert torch.equal(Gate(6)(first, second), layer_norm(0.5 * first + 0.5 * second, (6,)))


def test_quality_adds_nothing_at_first_and_one_number_to_all_classes_later() -> None:
    estimator, logits, corners = LQE(hidden=8, reg_max=8), torch.rand(1, 3, 4), torch.rand(1, 3, 36)
    assert torch.equal(estimator(logits, corners), logits)
    nn.init.normal_(estimator.reg_conf.layers[-1].weight)  # type: ignore[arg-type]
    change = estimator(logits, corners) - logits
    torch.testing.assert_close(change, change[..., :1].expand(-1, -1, 4))
    assert float(change.detach().abs().min()) > 0


def outputs() -> dict[str, Tensor]:
    return {"pred_logits": torch.randn(2, 5, 3), "pred_boxes": torch.rand(2, 5, 4) * 0.4 + 0.3}


def test_best_scores_first_and_boxes_in_pixels() -> None:
    found = outputs()
    found["pred_logits"][1, 4, 2] = 9.0
    labels, boxes, scores = PostProcess(6)(found, torch.tensor([[100, 50], [20, 10]]))
    assert labels.shape == scores.shape == (2, 6)
    assert labels[1, 0] == 2
    torch.testing.assert_close(
        boxes[1, 0], box_cxcywh_to_xyxy(found["pred_boxes"][1, 4]) * torch.tensor([20, 10, 20, 10])
    )
    assert torch.equal(scores, scores.sort(dim=1, descending=True).values)
    best = found["pred_logits"].sigmoid().flatten(1).sort(dim=1, descending=True).values[:, :6]
    assert torch.equal(scores, best)


def test_more_detections_than_there_are() -> None:
    with pytest.raises(ShapeError, match="the best 16 of 5 queries x 3 classes do not exist: lower num_top to 15"):
        PostProcess(16)(outputs(), torch.ones(2, 2))
    with pytest.raises(ShapeError, match=r"width and height of 2 images, got shape \(2,\)"):
        PostProcess(3)(outputs(), torch.ones(2))
    with pytest.raises(ValueError, match="num_top must be a finite number above 0, got 0"):
        PostProcess(0)
