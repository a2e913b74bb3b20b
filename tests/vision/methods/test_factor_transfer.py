"""FT's first stage trains the paraphraser alone; the second reads it back, frozen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from limbeck_core import Distiller, Match, Tap
from limbeck_core.errors import CheckpointError, TapError
from limbeck_core.losses import HintLoss
from limbeck_vision.methods.factor_transfer import TeacherAutoencoder, pretrained_paraphraser
from limbeck_vision.models import ImageCall, resnet8_half


def first_stage() -> tuple[Distiller, torch.nn.Module]:
    teacher = resnet8_half()
    autoencoder = TeacherAutoencoder(teacher, path="layer3", in_channels=32, out_channels=16)
    match = Match(HintLoss(), "paraphraser.decoder", Tap("paraphraser.encoder", of="student", at="input"))
    return Distiller(autoencoder, matches={"reconstruction": match}, call=ImageCall()), teacher


def test_only_the_paraphraser_trains_and_is_kept() -> None:
    model, teacher = first_stage()
    names = {name for name, _ in model.named_parameters()}
    assert names == {name for name, _ in model.named_parameters() if name.startswith("student.paraphraser.")}
    assert set(model.state_dict()) == names
    (loss,) = model(torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 2])).values()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())


def test_loss_is_the_reconstruction_of_the_teachers_maps() -> None:
    model, teacher = first_stage()
    images = torch.rand(3, 3, 8, 8)
    (loss,) = model(images).values()
    features = torch.nn.Sequential(teacher.stem, teacher.layer1, teacher.layer2, teacher.layer3)(images)
    expected = (model.student.paraphraser.reconstruct(features) - features).square().mean()
    torch.testing.assert_close(loss, expected)


def test_teacher_stays_in_evaluation_mode_and_follows_the_dtype() -> None:
    model, teacher = first_stage()
    model.train().double()
    before = {name: buffer.clone() for name, buffer in teacher.named_buffers()}
    model(torch.rand(3, 3, 8, 8, dtype=torch.float64))
    assert teacher.fc.weight.dtype == torch.float64
    assert not any(module.training for module in teacher.modules())
    for name, buffer in teacher.named_buffers():
        torch.testing.assert_close(buffer, before[name].to(buffer.dtype))


def test_second_stage_reads_the_first_ones_student(tmp_path: Path) -> None:
    model, _ = first_stage()
    torch.save(model.student.state_dict(), tmp_path / "student.pth")
    read = pretrained_paraphraser(32, 16, tmp_path / "student.pth")
    maps = torch.rand(2, 32, 2, 2)
    torch.testing.assert_close(read(maps), model.student.paraphraser(maps))
    assert not any(parameter.requires_grad for parameter in read.parameters())
    with pytest.raises(CheckpointError):
        pretrained_paraphraser(32, 8, tmp_path / "student.pth")
    with pytest.raises(CheckpointError, match="there is no checkpoint file"):
        pretrained_paraphraser(32, 16, tmp_path / "absent.pth")


def test_place_in_the_teacher_is_checked() -> None:
    with pytest.raises(TapError, match="layer4"):
        TeacherAutoencoder(resnet8_half(), path="layer4", in_channels=32, out_channels=16)
