"""Each model normalises for itself: the statistics, the wrapper, and the call that a distiller takes."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from limbeck_core import Distiller, FrozenTeacher, Match
from limbeck_core.errors import MatchError, ShapeError
from limbeck_core.inspect import diagnose
from limbeck_core.losses import KLDivergenceLoss
from limbeck_core.weights import load_weights
from limbeck_vision import models
from limbeck_vision.models import ImageCall, Normalization, Normalize, NormalizedModel, normalize
from limbeck_vision.models.normalization import normalization_of

GREY = Normalization((0.5,), (0.25,))


class Spy(nn.Module):
    """Keeps what it was given, and scores it."""

    def __init__(self, normalization: Normalization | None) -> None:
        super().__init__()
        self.normalization = normalization
        self.fc = nn.Linear(1, 3)
        self.got = torch.empty(0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.got = images.detach()
        return self.fc(images.mean((2, 3)))


def test_against_torchvision() -> None:
    from torchvision.transforms.v2.functional import normalize as expected

    images = torch.rand(2, 3, 4, 4)
    statistics = models.CIFAR100_NORMALIZATION
    torch.testing.assert_close(normalize(images, statistics), expected(images, statistics.mean, statistics.std))
    torch.testing.assert_close(Normalize(statistics)(images), normalize(images, statistics), rtol=0, atol=0)


def test_images_are_checked() -> None:
    with pytest.raises(ShapeError, match="images must be a floating-point tensor, got torch.uint8"):
        normalize(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), GREY)
    with pytest.raises(ShapeError, match=r"images must have 1 channels .* got shape \(1, 3, 2, 2\)"):
        normalize(torch.zeros(1, 3, 2, 2), GREY)
    with pytest.raises(ShapeError, match=r"images must have shape \(N, C, H, W\), got \(3, 2, 2\)"):
        Normalize(GREY)(torch.zeros(3, 2, 2))


def test_statistics_are_checked() -> None:
    with pytest.raises(ShapeError, match="one number for each channel"):
        Normalize({"mean": (0.5, 0.5), "std": (0.5,)})
    with pytest.raises(ValueError, match="std must be a finite number above 0"):
        models.resnet8(normalization=Normalization((0.5,), (0.0,)))
    with pytest.raises(ValueError, match="got None"):
        Normalize(None)


def test_half_precision_keeps_its_dtype() -> None:
    assert normalize(torch.rand(1, 1, 2, 2).half(), GREY).dtype == torch.float16
    assert Normalize(GREY)(torch.rand(1, 1, 2, 2).bfloat16()).dtype == torch.bfloat16


def test_wrapper_feeds_the_model_normalised_images() -> None:
    spy = Spy(GREY)
    wrapped = NormalizedModel(spy)
    images = torch.rand(2, 1, 4, 4)
    wrapped(images)
    torch.testing.assert_close(spy.got, (images - 0.5) / 0.25)
    assert normalization_of(wrapped) == GREY
    assert wrapped.normalizes_input
    wrapped(images)
    torch.testing.assert_close(ImageCall().capture(wrapped, {"inputs": images}, "inputs"), wrapped(images))
    assert list(wrapped.state_dict()) == ["model.fc.weight", "model.fc.bias"]
    for twin in (copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped))):
        torch.testing.assert_close(twin(images), wrapped(images))


def test_wrapper_takes_a_config_and_other_statistics() -> None:
    wrapped = NormalizedModel({"type": models.resnet8}, {"mean": (0, 0, 0), "std": (1, 1, 2)})
    assert wrapped.normalize.std.flatten().tolist() == [1, 1, 2]
    assert isinstance(NormalizedModel(Spy(None)).normalize, nn.Identity)


def test_a_model_that_says_nothing_is_refused() -> None:
    with pytest.raises(MatchError, match="Linear does not say how its input is normalised"):
        NormalizedModel(nn.Linear(1, 1))
    with pytest.raises(MatchError, match="Linear does not say how its input is normalised"):
        ImageCall().capture(nn.Linear(1, 1), {"inputs": torch.rand(1, 1)}, "inputs")


def test_call_gives_each_model_its_own_normalisation() -> None:
    """Also inside a wrapper that holds it as ``model``, as teachers do."""
    student, teacher = Spy(GREY), Spy(Normalization((0.0,), (2.0,)))
    holder = nn.Sequential()
    holder.model = teacher
    holder.forward = teacher.forward
    images = torch.rand(2, 1, 4, 4)
    batch = {"inputs": images, "targets": torch.tensor([0, 2])}
    call = ImageCall()
    assert set(call.loss(student, batch, "inputs", nn.CrossEntropyLoss())) == {"loss/task"}
    torch.testing.assert_close(student.got, (images - 0.5) / 0.25)
    torch.testing.assert_close(call.capture(holder, batch, "inputs"), teacher(images / 2))
    torch.testing.assert_close(call.predict(student, batch, "inputs"), student((images - 0.5) / 0.25))
    assert batch["inputs"] is images


def distiller(student: nn.Module, teacher: nn.Module, call: ImageCall | None) -> Distiller:
    matches = {"kd": Match(KLDivergenceLoss(), "fc", "fc")}
    return Distiller(student, FrozenTeacher(teacher), matches, task_loss=nn.CrossEntropyLoss(), call=call)


def test_in_a_distiller() -> None:
    student, teacher = Spy(GREY), Spy(Normalization((0.0,), (2.0,)))
    images = torch.rand(2, 1, 4, 4)
    losses = distiller(student, teacher, ImageCall())(images, torch.tensor([0, 2]))
    assert set(losses) == {"loss/task", "loss/kd"}
    torch.testing.assert_close(student.got, (images - 0.5) / 0.25)
    torch.testing.assert_close(teacher.got, images / 2)


@pytest.mark.parametrize("call", [ImageCall(), None])
def test_doctor_sees_whether_someone_normalises(call: ImageCall | None) -> None:
    """Two models with unlike statistics on one view: an error, unless the call gives each its own."""
    batches = [{"inputs": torch.rand(6, 1, 4, 4), "targets": torch.arange(6) % 3} for _ in range(2)]
    found = diagnose(distiller(Spy(GREY), Spy(Normalization((0.9,), (0.3,))), call), batches)
    sentences = [str(finding) for finding in found if "trained" in str(finding)]
    assert bool(sentences) == (call is None), sentences


def test_bare_checkpoint_fits_inside_the_wrapper(tmp_path: Path) -> None:
    """Load first, then wrap; and a wrapped model's own file loads into the bare one."""
    bare = models.resnet8()
    torch.save(NormalizedModel(bare).state_dict(), tmp_path / "wrapped.pth")
    other = models.resnet8()
    assert not load_weights(other, tmp_path / "wrapped.pth").unexpected
    torch.testing.assert_close(other.fc.weight, bare.fc.weight, rtol=0, atol=0)


def test_call_says_which_view_is_missing() -> None:
    with pytest.raises(MatchError, match="Spy needs 'inputs' of the batch"):
        ImageCall().capture(Spy(GREY), {"input": torch.rand(1, 1, 2, 2)}, "inputs")


def test_compiled_and_folded() -> None:
    wrapped = NormalizedModel(models.resnet8()).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = wrapped(images)
        torch.testing.assert_close(torch.compile(wrapped, backend="eager", fullgraph=True)(images), expected)
        torch.testing.assert_close(torch.export.export(wrapped, (images,)).module()(images), expected)
