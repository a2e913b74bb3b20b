"""DSD around a network: which signal reaches which head, what is left at inference, and the encoder's collapse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch import Tensor

from limbeck_core.errors import MatchError
from limbeck_medical.dsd import DSDDistiller, spread_over_voxels
from limbeck_medical.dsd.distiller import STD

SIZE = 32


def dice_ce() -> DiceCELoss:
    return DiceCELoss(softmax=True, to_onehot_y=True)


def unet(seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    return UNet(2, 1, 3, (8, 16, 32, 64), (2, 2, 2))


def dsd(seed: int = 0, **options: Any) -> DSDDistiller:
    return DSDDistiller(unet(seed), **{"input_shape": (1, SIZE, SIZE), "task_loss": dice_ce(), **options})


def discs(count: int, seed: int = 0) -> dict[str, Tensor]:
    """Two discs a picture, of classes 1 and 2, in noise."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    labels = torch.zeros(count, SIZE, SIZE, dtype=torch.long)
    for label in (1, 2):
        centre = torch.rand(count, 2, 1, 1, generator=generator) * 16 + 8
        radius = torch.rand(count, 1, 1, generator=generator) * 3 + 4
        labels[(rows - centre[:, 0]) ** 2 + (columns - centre[:, 1]) ** 2 < radius**2] = label
    noise = 0.45 * torch.randn(count, SIZE, SIZE, generator=generator)
    return {"inputs": (torch.tensor([0.0, 0.6, 0.9])[labels] + noise)[:, None], "targets": labels[:, None]}


def total(losses: dict[str, Tensor]) -> Tensor:
    return sum((value for name, value in losses.items() if "loss" in name), torch.zeros(()))


def trained(steps: int, seed: int = 0, **options: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """First and last losses of a short training."""
    distiller, data = dsd(seed, **options), discs(32)
    optimizer = torch.optim.AdamW(distiller.parameters(), 3e-3)
    first: dict[str, Tensor] = {}
    for step in range(steps):
        part = slice(8 * step % 32, 8 * step % 32 + 8)
        losses = distiller({name: value[part] for name, value in data.items()})
        first = first or losses
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
    return first, losses


def test_heads_are_not_the_students() -> None:
    network = unet()
    distiller = dsd()
    assert distiller.student.state_dict().keys() == network.state_dict().keys()
    assert {name.partition(".")[0] for name, _ in distiller.named_parameters()} == {"student", "heads"}


def test_prediction_is_the_networks_own() -> None:
    distiller = dsd().eval()
    x = discs(2)["inputs"]
    prediction = distiller({"inputs": x}, mode="predict")
    alone = unet()
    alone.load_state_dict(distiller.student.state_dict())
    assert torch.equal(prediction, alone.eval()(x))


def test_heads_leave_the_students_gradient_alone_at_weight_zero() -> None:
    batch = discs(4)
    alone = unet()
    dice_ce()(alone(batch["inputs"]), batch["targets"]).backward()
    distiller = dsd(decoder_weight=0.0, encoder_weight=0.0, supervision_weight=0.0)
    total(distiller(batch)).backward()
    for mine, theirs in zip(distiller.student.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def heads_reached(loss: Tensor, distiller: DSDDistiller) -> set[str]:
    named = dict(distiller.heads.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    return {
        name.partition(".")[0]
        for name, gradient in zip(named, gradients, strict=True)
        if gradient is not None and bool(gradient.abs().sum() > 0)
    }


def test_who_learns_from_what() -> None:
    distiller = dsd(share_heads=False)
    losses = distiller(discs(4))
    assert heads_reached(losses["loss/deep_supervision"], distiller) == {"decoder1", "decoder2", "decoder3"}
    assert heads_reached(losses["loss/dsd_decoder"], distiller) == {"decoder1", "decoder2", "decoder3"}
    assert heads_reached(losses["loss/dsd_encoder"], distiller) == {"encoder1", "encoder2"}
    assert heads_reached(losses["loss/task"], distiller) == set()


def test_who_learns_from_what_when_teachers_are_detached() -> None:
    distiller = dsd(share_heads=False, detach_teacher=True, supervise_encoder=True)
    losses = distiller(discs(4))
    assert heads_reached(losses["loss/dsd_decoder"], distiller) == {"decoder2", "decoder3"}
    assert heads_reached(losses["loss/dsd_encoder"], distiller) == {"encoder1"}
    assert "encoder2" in heads_reached(losses["loss/deep_supervision"], distiller)


def test_weights_are_applied() -> None:
    batch = discs(4)
    plain, weighted = dsd()(batch), dsd(decoder_weight=0.5, encoder_weight=2.0, supervision_weight=0.25)(batch)
    for name, factor in (("dsd_decoder", 0.5), ("dsd_encoder", 2.0), ("deep_supervision", 0.25), ("task", 1.0)):
        torch.testing.assert_close(weighted[f"loss/{name}"], factor * plain[f"loss/{name}"])


def test_heads_that_agree_cost_nothing() -> None:
    distiller = dsd()
    for head in distiller.heads.values():
        for parameter in head.parameters():
            torch.nn.init.zeros_(parameter)
    losses = distiller(discs(2))
    assert losses["loss/dsd_decoder"].item() == losses["loss/dsd_encoder"].item() == losses[STD].item() == 0.0


def test_decoder_heads_come_to_agree() -> None:
    """The decoder's divergence falls far below that of heads which labels alone train."""
    batch = discs(8, seed=1)
    divergence = {}
    for weight in (0.0, 1.0):
        distiller, data = dsd(encoder=(), decoder_weight=weight), discs(32)
        optimizer = torch.optim.AdamW(distiller.parameters(), 3e-3)
        for step in range(60):
            part = slice(8 * step % 32, 8 * step % 32 + 8)
            optimizer.zero_grad()
            total(distiller({name: value[part] for name, value in data.items()})).backward()
            optimizer.step()
        distiller.decoder_weight = dsd(encoder=()).decoder_weight
        divergence[weight] = float(distiller(batch)["loss/dsd_decoder"].detach())
    assert divergence[1.0] * 3 < divergence[0.0]


@pytest.mark.parametrize("seed", range(2))
def test_encoder_branch_collapses_without_labels(seed: int) -> None:
    """No label reaches separate encoder heads: the teaching one falls silent, and the log shows it."""
    first, last = trained(80, seed, share_heads=False)
    assert last[STD] < 0.4 * first[STD]
    assert last["loss/dsd_encoder"] < 0.01
    for options, times in ((dict(share_heads=True), 1.4), (dict(share_heads=False, supervise_encoder=True), 3.0)):
        _, other = trained(80, seed, **options)
        assert other[STD] > times * last[STD], options


def test_spread_of_an_even_and_of_a_split_map() -> None:
    assert spread_over_voxels(torch.zeros(1, 2, 4, 4)).item() == 0.0
    halves = torch.zeros(1, 2, 4, 4)
    halves[:, 0, :2], halves[:, 1, 2:] = 100.0, 100.0
    assert spread_over_voxels(halves).item() == pytest.approx(0.5)


def test_teacher_that_would_never_learn_is_refused() -> None:
    with pytest.raises(MatchError, match="the encoder's teaching head .on 'model.1.submodule.0'. would never learn"):
        dsd(share_heads=False, detach_teacher=True)
    dsd(share_heads=True, detach_teacher=True)


def test_needs_a_task_loss_two_classes_and_targets() -> None:
    with pytest.raises(MatchError, match="DSD supervises its heads with the task loss"):
        dsd(task_loss=None)
    with pytest.raises(MatchError, match="the network scores 1 class"):
        dsd_of(UNet(2, 1, 1, (4, 8, 8, 16), (2, 2, 2)))
    with pytest.raises(ValueError, match="temperature must be a finite number above 0, got 0"):
        dsd(temperature=0)


def dsd_of(network: UNet) -> DSDDistiller:
    return DSDDistiller(network, input_shape=(1, SIZE, SIZE), task_loss=dice_ce())


def test_empty_batch_has_no_nan_in_its_divergence() -> None:
    distiller = dsd(encoder=())
    distiller.task_loss = torch.nn.CrossEntropyLoss(reduction="sum")
    batch = {"inputs": torch.zeros(0, 1, SIZE, SIZE), "targets": torch.zeros(0, SIZE, SIZE, dtype=torch.long)}
    losses = distiller(batch)
    assert {name: float(value.detach()) for name, value in losses.items()} == dict.fromkeys(losses, 0.0)
