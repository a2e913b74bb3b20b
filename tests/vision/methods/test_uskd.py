"""USKD: where its weak head reads in each family of models, what the head does to training, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from limbeck_core import Distiller, Match, Tap
from limbeck_core.errors import MatchError, ShapeError, TapError
from limbeck_core.functional import class_rank_scores, zipf_soft_labels
from limbeck_core.losses import CustomizedSoftLabelLoss
from limbeck_vision.methods.uskd import ChannelsFirst, ClassToken, middle_stage, uskd_match
from limbeck_vision.models import (
    ImageCall,
    mobilenet_v2,
    resnet8_quarter,
    resnet18,
    resnet20,
    resnet50,
    shufflenet_v2,
    timm_model,
    torchvision_model,
)

CNNS = [
    (resnet18, "layer3", 256),
    (resnet20, "layer2", 32),
    (resnet50, "layer3", 1024),
    (mobilenet_v2, "layer4", 160),  # half of the paper's 320
    (shufflenet_v2, "layer3", 464),
]
# The widths of the paper's configs, by timm's names.
TIMM = [
    ("resnet18", "layer3", 256, type(None)),
    ("resnet50", "layer3", 1024, type(None)),
    ("mobilenetv1_100", "blocks.3", 512, type(None)),
    ("mobilenetv2_100", "blocks.6", 320, type(None)),
    ("regnetx_016", "s3", 408, type(None)),
    ("swin_tiny_patch4_window7_224", "layers.2", 384, ChannelsFirst),
    ("deit_tiny_patch16_224", "blocks.5", 192, ClassToken),
]


@pytest.mark.parametrize(("make", "path", "channels"), CNNS)
def test_places_in_cifar_models(make: object, path: str, channels: int) -> None:
    with torch.device("meta"):
        place = middle_stage(make())  # type: ignore[operator]
    assert (place.path, place.channels, place.adapter) == (path, channels, None)


@pytest.mark.parametrize(("name", "path", "channels", "adapter"), TIMM)
def test_places_in_timms_models(name: str, path: str, channels: int, adapter: type) -> None:
    with torch.device("meta"):
        place = middle_stage(timm_model(name, 10))
    assert (place.path, place.channels, type(place.adapter)) == (path, channels, adapter)


@pytest.mark.parametrize(
    ("name", "path", "channels"), [("resnet18", "layer3", 256), ("vit_b_16", "encoder.layers.encoder_layer_5", 768)]
)
def test_places_in_torchvisions_models(name: str, path: str, channels: int) -> None:
    with torch.device("meta"):
        place = middle_stage(torchvision_model(name, 10))
    assert (place.path, place.channels) == (path, channels)


def vit(**options: object) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"img_size": 8, "patch_size": 2, "embed_dim": 12, "depth": 4, "num_heads": 2, **options}
    return timm_model("deit_tiny_patch16_224", 10, **sizes)


def swin() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "window_size": 2, "embed_dim": 8, "depths": (1, 1, 1), "num_heads": (1, 2, 4)}
    return timm_model("swin_tiny_patch4_window7_224", 10, **sizes)


def tiny_mobilenet() -> nn.Module:
    torch.manual_seed(0)
    return timm_model("mobilenetv2_035", 10)


@pytest.mark.parametrize(
    ("make", "size"), [(resnet8_quarter, 8), (mobilenet_v2, 32), (tiny_mobilenet, 32), (vit, 8), (swin, 32)]
)
def test_a_step_reaches_the_weak_head_and_the_layers_below(make: object, size: int) -> None:
    student = make()  # type: ignore[operator]
    match = uskd_match(student, weak_weight=1.0)
    distiller = Distiller(student, None, {"uskd": match}, task_loss=nn.CrossEntropyLoss(), call=ImageCall()).train()
    losses = distiller(torch.rand(4, 3, size, size), torch.randint(distiller.student.num_classes, (4,)))
    sum(losses.values()).backward()
    assert match.loss.weak_head.weight.grad.abs().sum() > 0
    assert all(p.grad is not None for p in student.parameters() if p.requires_grad)


def test_the_weak_head_is_not_part_of_the_student() -> None:
    student = resnet8_quarter()
    names = list(student.state_dict())
    distiller = Distiller(student, None, {"uskd": uskd_match(student)}, task_loss=nn.CrossEntropyLoss())
    assert list(student.state_dict()) == names
    assert [n for n in distiller.state_dict() if not n.startswith("student.")] == [
        "matches.uskd.loss.weak_head.weight",
        "matches.uskd.loss.weak_head.bias",
    ]


def test_weak_loss_alone_reaches_the_head_and_only_layers_before_the_tap() -> None:
    """The two other parts carry no gradient to the weak head: its ranks are labels."""
    torch.manual_seed(0)
    student = resnet8_quarter()
    match = uskd_match(student, target_weight=0.0, non_target_weight=0.0, weak_weight=1.0)
    distiller = Distiller(student, None, {"uskd": match}).train()
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    distiller(images, labels)["loss/uskd"].backward()
    assert student.layer2[0].conv1.weight.grad.abs().sum() > 0
    assert not student.layer3[0].conv1.weight.grad.abs().sum()
    before = match.loss.weak_head.weight.grad.clone()
    match.loss.target_weight = match.loss.non_target_weight = 1.0
    distiller.zero_grad()
    distiller(images, labels)["loss/uskd"].backward()
    torch.testing.assert_close(match.loss.weak_head.weight.grad, before)
    assert student.layer3[0].conv1.weight.grad.abs().sum() > 0


def test_class_token_is_what_the_head_reads() -> None:
    student = vit()
    match = uskd_match(student)
    seen: list[Tensor] = []
    match.loss.weak_head.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    student.blocks[1].register_forward_hook(lambda _module, _inputs, output: seen.append(output[:, 0]))
    Distiller(student, None, {"uskd": match}).train()(torch.rand(3, 3, 8, 8), torch.arange(3))
    assert torch.equal(seen[0], seen[1])


def test_soft_labels_follow_the_confusions_of_both_heads() -> None:
    student = torch.tensor([[5.0, 3.0, 1.0, 0.0]])
    weak = torch.tensor([[5.0, 3.0, 0.0, 1.0]])
    target = torch.tensor([0])
    labels = zipf_soft_labels(class_rank_scores(student, weak, target), target)
    assert labels[0].argsort(descending=True)[0] == 1
    assert labels[0, 0] == 0
    assert labels.sum() == pytest.approx(1.0)


class TestRefused:
    """Bad input: a sentence with what was expected, what came, and the way out."""

    @pytest.mark.parametrize("size", [6, 9, 16])
    def test_image_sizes_that_a_transformer_cannot_take(self, size: int) -> None:
        student = vit()
        distiller = Distiller(student, None, {"uskd": uskd_match(student)}, call=ImageCall()).train()
        with pytest.raises(ShapeError, match=rf"does not take images of shape \(2, 3, {size}, {size}\).*img_size="):
            distiller(torch.rand(2, 3, size, size), torch.arange(2))

    def test_a_tap_on_tokens_without_the_adapter(self) -> None:
        match = Match(CustomizedSoftLabelLoss(12, 10), "", Tap("blocks.1", of="student"))
        distiller = Distiller(vit(), None, {"uskd": match}, call=ImageCall())
        with pytest.raises(ShapeError, match="tap the stage before the last, or its class token"):
            distiller(torch.rand(2, 3, 8, 8), torch.arange(2))

    def test_a_class_token_of_maps(self) -> None:
        with pytest.raises(ShapeError, match=r"expects tokens \(N, L, D\).*got \(2, 3, 4, 4\): tap a block"):
            ClassToken()(torch.rand(2, 3, 4, 4))
        with pytest.raises(ShapeError, match="with L above 5"):
            ClassToken(5)(torch.rand(2, 3, 4))
        with pytest.raises(ValueError, match="index must be 0 or more, got -1"):
            ClassToken(-1)
        with pytest.raises(ShapeError, match=r"expects maps \(N, H, W, C\), got \(2, 3, 4\)"):
            ChannelsFirst()(torch.rand(2, 3, 4))

    @pytest.mark.parametrize("options", [{"class_token": False, "global_pool": "avg"}])
    def test_models_that_it_does_not_know(self, options: dict[str, object]) -> None:
        for model in (nn.Sequential(nn.Linear(2, 2)), vit(**options)):
            with pytest.raises(TapError, match="does not know the last stage but one of .*: name it yourself"):
                middle_stage(model)

    def test_classes_must_be_known(self) -> None:
        class Stages(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer3, self.layer4 = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)

        assert middle_stage(Stages()).channels == 4
        with pytest.raises(MatchError, match="Stages does not say how many classes it scores: give num_classes"):
            uskd_match(Stages())
        assert uskd_match(Stages(), 7).loss.weak_head.out_features == 7
