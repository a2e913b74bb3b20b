"""Levels of MONAI's networks, and what the heads cost: counts of the authors' code where it was run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNETR, BasicUNet, DynUNet, SegResNet, SwinUNETR, UNet, VNet
from torch import nn

from limbeck_core.errors import MatchError, ShapeError, TapError
from limbeck_medical.dsd import DSDDistiller, UpsamplingHead, find_levels

FIVE: dict[str, Any] = dict(spatial_dims=3, kernel_size=[3] * 5, strides=[1, 2, 2, 2, 2], upsample_kernel_size=[2] * 4)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[int], list[int]]] = {
    "UNet": (lambda: UNet(3, 1, 3, (4, 8, 8, 16), (2, 2, 2), num_res_units=1), (1, 16, 16, 16), [2, 4], [2, 4, 8]),
    "UNet, 2D": (lambda: UNet(2, 3, 2, (4, 8, 8, 16, 16), (2, 2, 2, 2)), (3, 32, 32), [2, 4, 8], [2, 4, 8, 16]),
    "DynUNet": (
        lambda: DynUNet(in_channels=1, out_channels=3, filters=[4, 4, 8, 8, 8], **FIVE),
        (1, 32, 32, 32),
        [1, 2, 4, 8],
        [2, 4, 8, 16],
    ),
    "SwinUNETR": (
        lambda: SwinUNETR(in_channels=1, out_channels=2, feature_size=12, depths=(1, 1, 1, 1)),
        (1, 64, 64, 64),
        [1, 2, 4, 8],
        [2, 4, 8, 16],
    ),
    "UNETR": (
        lambda: UNETR(1, 2, (16, 16, 16), feature_size=4, hidden_size=24, mlp_dim=24, num_heads=2),
        (1, 16, 16, 16),
        [1, 2, 4, 8],
        [2, 4, 8, 16],
    ),
    "SegResNet": (lambda: SegResNet(init_filters=8, out_channels=2), (1, 16, 16, 16), [1, 2, 4], [2, 4, 8]),
    "VNet": (lambda: VNet(out_channels=2), (1, 32, 32, 32), [1, 2, 4, 8], [2, 4, 8, 16]),
    "BasicUNet": (
        lambda: BasicUNet(out_channels=2, features=(4, 4, 4, 4, 4, 4)),
        (1, 32, 32, 32),
        [1, 2, 4, 8],
        [2, 4, 8, 16],
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_levels_are_found(name: str) -> None:
    make, shape, encoder, decoder = NETWORKS[name]
    levels = find_levels(make(), shape)
    assert [level.stride for level in levels.encoder] == [(stride,) * (len(shape) - 1) for stride in encoder]
    assert [level.stride for level in levels.decoder] == [(stride,) * (len(shape) - 1) for stride in decoder]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_trains_with_heads(name: str) -> None:
    """One step; SwinUNETR needs a crop of 64 voxels a side and has but one."""
    make, shape, _, _ = NETWORKS[name]
    distiller = distil(make(), shape)
    count = 1 if name == "SwinUNETR" else 2
    batch = {"inputs": torch.randn(count, *shape), "targets": torch.randint(0, 2, (count, 1, *shape[1:]))}
    losses = distiller(batch)
    sum(value for key, value in losses.items() if "loss" in key).backward()
    assert {"loss/task", "loss/deep_supervision", "loss/dsd_decoder", "loss/dsd_encoder"} <= losses.keys()
    assert [key for key, p in distiller.heads.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


def distil(network: nn.Module, shape: tuple[int, ...], **options: Any) -> DSDDistiller:
    return DSDDistiller(network, input_shape=shape, task_loss=DiceCELoss(softmax=True, to_onehot_y=True), **options)


def added(distiller: DSDDistiller) -> int:
    return sum(p.numel() for p in distiller.parameters()) - sum(p.numel() for p in distiller.student.parameters())


@pytest.mark.parametrize(
    ("make", "shape", "parameters"),
    [
        (
            lambda: DynUNet(in_channels=1, out_channels=8, filters=[32, 64, 128, 256, 320], **FIVE),
            (1, 32, 32, 32),
            8592,
        ),
        (lambda: DynUNet(in_channels=4, out_channels=4, filters=[16, 32, 64, 128, 256], **FIVE), (4, 32, 32, 32), 2552),
        (lambda: SwinUNETR(in_channels=1, out_channels=8, feature_size=36), (1, 64, 64, 64), 6800),
    ],
)
def test_heads_cost_what_the_authors_cost(
    make: Callable[[], nn.Module], shape: tuple[int, ...], parameters: int
) -> None:
    assert added(distil(make(), shape)) == parameters


def test_vnet_costs_as_the_authors_less_a_head_that_they_never_use() -> None:
    unused = added_by(UpsamplingHead(32, 4, (1, 1, 1)))
    with torch.device("meta"):
        assert added(distil(VNet(out_channels=4), (1, 32, 32, 32), share_heads=False)) == 4904 - unused


def added_by(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_looking_for_levels_changes_nothing() -> None:
    network = UNet(2, 1, 2, (4, 4, 8), (2, 2), norm="BATCH").train()
    before = copy.deepcopy(network.state_dict())
    generator = torch.get_rng_state()
    with pytest.raises(MatchError, match="the encoder has one level with a head, and self-distillation needs two"):
        find_levels(network, (1, 16, 16))
    find_levels(network, (1, 16, 16), encoder=())
    assert network.training
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_any_other_network_by_its_taps() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Conv2d(1, 4, 2, stride=2)
            self.bottom = nn.Conv2d(4, 6, 2, stride=2)
            self.up = nn.ConvTranspose2d(6, 2, 4, stride=4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.up(self.bottom(self.down(x)))  # type: ignore[no-any-return]

    with pytest.raises(MatchError, match="the levels of Own are not known .known are UNet, DynUNet"):
        find_levels(Own(), (1, 8, 8))
    levels = find_levels(Own(), (1, 8, 8), encoder=(), decoder=("down", "bottom"))
    assert [(level.channels, level.stride) for level in levels.decoder] == [(4, (2, 2)), (6, (4, 4))]
    with pytest.raises(TapError, match="tap 'dwn' is not a submodule of the student .Own.: did you mean 'down'"):
        find_levels(Own(), (1, 8, 8), encoder=(), decoder=("dwn", "bottom"))


def test_strides_of_thick_slices() -> None:
    head = UpsamplingHead(4, 3, (4, 4, 1))
    assert head(torch.zeros(1, 4, 2, 2, 5)).shape == (1, 3, 8, 8, 5)
    with pytest.raises(ShapeError, match="expects features .N, 4, ....* got .1, 5, 2, 2, 5."):
        head(torch.zeros(1, 5, 2, 2, 5))
    with pytest.raises(ValueError, match="must be 1 or more"):
        UpsamplingHead(4, 3, (0, 1, 1))


def test_a_head_begins_as_nearest_neighbour_upsampling() -> None:
    features = torch.randn(2, 4, 3, 2)
    for stride in ((4, 4), (3, 1)):
        head = UpsamplingHead(4, 3, stride)
        logits = head.project(features)
        expected = torch.nn.functional.interpolate(logits, scale_factor=[float(s) for s in stride], mode="nearest")
        torch.testing.assert_close(head(features), expected)


def test_crop_that_the_network_refuses() -> None:
    with pytest.raises(ShapeError, match="sides divisible by the network's deepest stride"):
        find_levels(UNet(3, 1, 3, (4, 8, 8, 16), (2, 2, 2)), (1, 18, 16, 16))


def test_output_of_another_size_is_refused() -> None:
    network = DynUNet(in_channels=1, out_channels=3, filters=[4, 4, 8, 8, 8], **{**FIVE, "strides": [2, 2, 2, 2, 2]})
    with pytest.raises(MatchError, match="DSD needs class scores .N, K, .... of the size of the input"):
        find_levels(network, (1, 64, 64, 64))
