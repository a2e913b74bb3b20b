"""Models of timm and torchvision by name: never a download, always their own normalisation."""

from __future__ import annotations

import socket

import pytest
import torch

from limbeck_core.errors import ConfigError
from limbeck_vision.models import IMAGENET_NORMALIZATION, timm_model, torchvision_model


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_timm_model_carries_its_normalisation() -> None:
    model = timm_model("resnet10t", 7)
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 7)
    assert model.num_classes == 7
    assert model.normalization.mean == IMAGENET_NORMALIZATION.mean
    assert not any(getattr(module, "inplace", False) for module in model.modules())


def test_timm_tag_chooses_the_statistics() -> None:
    """ImageNet-21k's ViTs were trained on images in [-1, 1]."""
    model = timm_model("vit_tiny_patch16_224.augreg_in21k", 3)
    assert model.normalization == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (3, 224, 224))


def test_timm_options_pass_through() -> None:
    model = timm_model("vit_tiny_patch16_224", 5, img_size=32, patch_size=8, global_pool="avg", depth=1)
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 5)
    assert model.global_pool == "avg"
    assert model.normalization.input_size == (3, 32, 32)


def test_timm_grey_images() -> None:
    model = timm_model("resnet10t", 5, in_chans=1)
    assert model.normalization.mean == pytest.approx((sum(IMAGENET_NORMALIZATION.mean) / 3,))
    assert model.normalization.input_size[0] == 1


def test_torchvision_model_carries_its_normalisation() -> None:
    model = torchvision_model("shufflenet_v2_x0_5", 6)
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 6)
    assert model.num_classes == 6
    assert model.normalization == IMAGENET_NORMALIZATION
    assert not any(getattr(module, "inplace", False) for module in model.modules())


@pytest.mark.parametrize("build", [timm_model, torchvision_model])
def test_download_is_refused_with_the_way_out(build: object) -> None:
    with pytest.raises(
        ConfigError, match=r"pretrained=True would download .*limbeck_core.pretrained\(model, checkpoint"
    ):
        build("resnet18", 10, pretrained=True)


@pytest.mark.parametrize(("build", "library"), [(timm_model, "timm"), (torchvision_model, "torchvision")])
def test_unknown_name_gives_the_closest(build: object, library: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{library} \S+ has no model 'resnet81': did you mean .*'resnet"):
        build("resnet81", 10)


def test_detectors_are_no_classifiers() -> None:
    with pytest.raises(ConfigError, match="has no model 'fasterrcnn_resnet50_fpn'"):
        torchvision_model("fasterrcnn_resnet50_fpn", 10)


def test_unknown_tag_and_hub_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="knows no weights 'a9_in1k' of resnet18: did you mean 'resnet18.a"):
        timm_model("resnet18.a9_in1k", 10)
    with pytest.raises(ConfigError, match="has no model 'hf-hub:timm/resnet18'"):
        timm_model("hf-hub:timm/resnet18", 10)
