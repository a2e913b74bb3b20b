"""The deploy form: fewer parameters, the same outputs part by part, nothing that trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from limbeck_core.errors import ExportError
from limbeck_detection.dfine.deploy import DeployedDFINE, fold_conv_norm, merge_repvgg, to_deploy
from limbeck_detection.dfine.encoder import ConvNorm, RepVGGBlock
from limbeck_detection.dfine.model import DFINE, dfine, dfine_l, dfine_m, dfine_n, dfine_s, dfine_x
from limbeck_detection.dfine.postprocess import PostProcess

SIZES = [
    (dfine_n, 3_753_799),
    (dfine_s, 10_237_491),
    (dfine_m, 19_248_189),
    (dfine_l, 30_724_195),
    (dfine_x, 61_601_635),
]


def stirred(module: nn.Module) -> Any:
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d) and child.running_mean is not None and child.running_var is not None:
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.normal_(child.bias, std=0.3)
            child.running_mean.normal_(0, 0.3)
            child.running_var.uniform_(0.5, 2.0)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and "head" in name:
            nn.init.normal_(parameter, std=0.3)
    return module.eval()


def tiny(**options: Any) -> DFINE:
    model: DFINE = stirred(
        dfine(
            3,
            backbone="B0",
            out_stages=(2, 3),
            encoder_dim=16,
            encoder_feedforward=16,
            expansion=0.5,
            depth_mult=0.34,
            decoder_dim=16,
            decoder_feedforward=16,
            layers=3,
            heads=2,
            points=(2, 2),
            reg_max=8,
            num_queries=8,
            **options,
        )
    )
    return model


@pytest.mark.parametrize(("build", "total"), SIZES)
def test_sizes_are_those_of_the_reference(build: Callable[..., DFINE], total: int) -> None:
    with torch.device("meta"):
        deployed = to_deploy(build())
    assert sum(parameter.numel() for parameter in deployed.parameters()) == total


def test_a_norm_becomes_part_of_its_convolution() -> None:
    layer = stirred(ConvNorm(4, 6, 3, stride=2, act=True).double())
    features = torch.rand(2, 4, 7, 7, dtype=torch.float64)
    folded = fold_conv_norm(layer)
    torch.testing.assert_close(folded(features), layer(features))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert isinstance(layer.norm, nn.BatchNorm2d)


def test_two_branches_become_one_convolution() -> None:
    block = stirred(RepVGGBlock(4).double())
    features = torch.rand(2, 4, 5, 5, dtype=torch.float64)
    merged = merge_repvgg(block)
    torch.testing.assert_close(merged(features), block(features))
    assert [type(module) for module in merged] == [nn.Conv2d, nn.SiLU]


@pytest.mark.parametrize("eval_idx", [-1, 1])
def test_parts_agree_on_the_same_input(eval_idx: int) -> None:
    model = tiny(eval_idx=eval_idx)
    deployed = to_deploy(model)
    images = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        maps = model.backbone(images)
        assert all(torch.equal(a, b) for a, b in zip(maps, deployed.backbone(images), strict=True))
        fused = model.encoder(maps)
        for expected, found in zip(fused, deployed.encoder(maps), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        expected, found = model.decoder(fused), deployed.decoder(fused)
    assert all(torch.equal(found[name], expected[name]) for name in ("pred_logits", "pred_boxes"))
    assert len(deployed.decoder.get_submodule("decoder.layers")) == (3 if eval_idx == -1 else 2)  # type: ignore[arg-type]


def test_the_training_form_is_left_as_it_was() -> None:
    model = tiny().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    deployed = to_deploy(model)
    assert model.training
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not deployed.training
    assert not any(parameter.requires_grad for parameter in deployed.parameters())


def test_images_and_sizes_to_detections() -> None:
    model = tiny().double()
    deployed = DeployedDFINE(model, num_top=5).train()
    images, sizes = torch.rand(2, 3, 64, 64, dtype=torch.float64), torch.tensor([[640, 480], [64, 64]])
    labels, boxes, scores = deployed(images, sizes)
    with torch.no_grad():
        expected = PostProcess(5)(model(images), sizes)
    assert torch.equal(labels, expected[0])
    torch.testing.assert_close(boxes, expected[1])
    torch.testing.assert_close(scores, expected[2])


def test_what_cannot_be_converted() -> None:
    deployed = to_deploy(tiny())
    with pytest.raises(ExportError, match="in deploy form already"):
        to_deploy(deployed)
    with pytest.raises(ExportError, match="needs a DFINETransformer as decoder, got Identity"):
        to_deploy(DFINE(nn.Identity(), nn.Identity(), nn.Identity()))
    with pytest.raises(ExportError, match="hold their norms already"):
        fold_conv_norm(fold_conv_norm(ConvNorm(2, 2, 1)))
