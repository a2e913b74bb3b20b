"""The CIFAR models: parameter counts of the benchmark, stages that can be tapped, nothing changed in place."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from limbeck_vision import models
from limbeck_vision.models import StagedModel

# Parameters with 100 classes, counted on RepDistiller's definitions (models/*.py at commit eedab9d, mobilenetv2.py at
# b13aecc), which the tables of CRD (arXiv:1910.10699) and DKD (arXiv:2203.08679) are computed with.
PARAMETERS = {
    "resnet8": 83_892,
    "resnet8_quarter": 5_214,  # ours, not the benchmark's; with 10 classes: counted by hand in a test below
    "resnet8_half": 19_954,  # ours as well, with 10 classes
    "resnet14": 181_108,
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet44": 667_188,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "resnet18": 11_220_132,  # not in the benchmark: resnet18 and preact_resnet18 by hand below; 34 has ten blocks more
    "resnet34": 21_328_292,
    "resnet50": 23_705_252,
    "preact_resnet18": 11_218_340,
    "wrn_16_1": 180_916,
    "wrn_16_2": 703_284,
    "wrn_40_1": 569_780,
    "wrn_40_2": 2_255_156,
    "vgg8": 3_965_028,
    "vgg11": 9_277_284,
    "vgg13": 9_462_180,
    "vgg16": 14_774_436,
    "vgg19": 20_086_692,
    "mobilenet_v2": 812_836,
    "shufflenet_v1": 949_258,
    "shufflenet_v2": 1_355_528,
}
# Channels and stride of each stage at 32x32.
THIN = [(16, 1), (32, 2), (64, 4)]
TWICE = [(32, 1), (64, 2), (128, 4)]
FOURFOLD = [(64, 1), (128, 2), (256, 4)]
IMAGENET = [(64, 1), (128, 2), (256, 4), (512, 8)]
VGG = [(128, 2), (256, 4), (512, 8), (512, 8)]
STAGES = {
    **dict.fromkeys(["resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"], THIN),
    "resnet8_quarter": [(4, 1), (8, 2), (16, 4)],
    "resnet8_half": [(8, 1), (16, 2), (32, 4)],
    **dict.fromkeys(["wrn_16_1", "wrn_40_1"], THIN),
    **dict.fromkeys(["wrn_16_2", "wrn_40_2"], TWICE),
    **dict.fromkeys(["resnet8x4", "resnet32x4"], FOURFOLD),
    **dict.fromkeys(["vgg8", "vgg11", "vgg13", "vgg16", "vgg19"], VGG),
    **dict.fromkeys(["resnet18", "resnet34", "preact_resnet18"], IMAGENET),
    "resnet50": [(256, 1), (512, 2), (1024, 4), (2048, 8)],
    "mobilenet_v2": [(12, 2), (16, 4), (48, 8), (160, 16)],
    "shufflenet_v1": [(240, 2), (480, 4), (960, 8)],
    "shufflenet_v2": [(116, 2), (232, 4), (464, 8)],
}
SMALL = ["resnet8", "wrn_16_1", "wrn_16_2", "vgg8", "mobilenet_v2", "shufflenet_v1", "shufflenet_v2"]


@cache
def build(name: str) -> StagedModel:
    torch.manual_seed(0)
    return getattr(models, name)()


def taps(model: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, tuple[Tensor, int]]]:
    """Run the model; every module's output, with its version at that time."""
    seen: dict[str, tuple[Tensor, int]] = {}
    handles = [
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, (out, out._version)))
        for name, module in model.named_modules()
    ]
    output = model(images)
    for handle in handles:
        handle.remove()
    return output, seen


def test_every_model_of_the_face_is_walked() -> None:
    built = {name for name in models.__all__ if name[0].islower() and "_model" not in name}
    assert built - {"load_repdistiller", "normalize"} == PARAMETERS.keys() == STAGES.keys()


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    assert sum(parameter.numel() for parameter in build(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 3), ("resnet56", 9), ("resnet110", 18)])
def test_parameters_of_thin_resnets_by_hand(name: str, blocks: int) -> None:
    """3x3 weights 9 c^2 and two batch norms of 2 c for each convolution, summed by stage."""
    first = 9 * 3 * 16 + 2 * 16
    stages = 0
    for before, width in ((16, 16), (16, 32), (32, 64)):
        stages += 9 * before * width + (2 * blocks - 1) * 9 * width**2 + 2 * blocks * 2 * width
        stages += 0 if before == width else before * width + 2 * width  # the projection shortcut
    assert first + stages + 64 * 100 + 100 == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "millions"), [("resnet20", 0.27), ("resnet32", 0.46), ("resnet44", 0.66), ("resnet110", 1.7)]
)
def test_parameters_agree_with_the_resnet_paper(name: str, millions: float) -> None:
    """Table 6 of arXiv:1512.03385 (CIFAR-10); its shortcuts are free of parameters, ours project: a little more."""
    model = getattr(models, name)(num_classes=10)
    count = sum(parameter.numel() for parameter in model.parameters())
    projections = sum(p.numel() for n, p in model.named_parameters() if "downsample" in n)
    assert (count - projections) / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize("name", STAGES)
def test_stages_taps_gradients_and_copies(name: str) -> None:
    model = build(name).train()
    images = torch.rand(2, 3, 32, 32)
    logits, seen = taps(model, images)
    assert logits.shape == (2, 10 if name in ("resnet8_quarter", "resnet8_half") else 100)
    for path, (output, version) in seen.items():
        assert output._version == version, f"{path} was changed in place"
    assert [(info.channels, info.stride) for info in model.stages.values()] == STAGES[name]
    for path, info in model.stages.items():
        features, preact = seen[path][0], seen[f"{path}.preact"][0]
        assert features.shape == (2, info.channels, 32 // info.stride, 32 // info.stride)
        torch.testing.assert_close(features, preact if name == "mobilenet_v2" else preact.relu(), rtol=0, atol=0)
        assert float(preact.detach().min()) < 0
        if info.norm is not None:
            norm = model.get_submodule(info.norm)
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.num_features == info.channels
    assert seen["pool"][0].shape == (2, model.fc.in_features)
    torch.testing.assert_close(seen["fc"][0], logits)

    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.zero_grad(set_to_none=True)

    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(copy.deepcopy(model)(images), model(images), rtol=0, atol=0)


@pytest.mark.parametrize("name", SMALL)
def test_traceable(name: str) -> None:
    """Folding batch norms and exporting begin with a trace."""
    model = build(name).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(torch.fx.symbolic_trace(model)(images), model(images))


@pytest.mark.parametrize("name", ["wrn_16_1", "shufflenet_v2"])
def test_compilable(name: str) -> None:
    model = build(name).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(images), model(images))


@pytest.mark.parametrize("name", [name for name in SMALL if name != "mobilenet_v2"])
def test_other_image_sizes(name: str) -> None:
    with torch.no_grad():
        assert build(name).eval()(torch.rand(1, 3, 8, 8)).shape == (1, 100)
        assert build(name).eval()(torch.rand(1, 3, 64, 64)).shape == (1, 100)


def test_sum_of_a_wide_resnet_is_what_its_next_norm_reads() -> None:
    model = build("wrn_16_2").eval()
    with torch.no_grad():
        _, seen = taps(model, torch.rand(1, 3, 32, 32))
        torch.testing.assert_close(model.layer1.preact(seen["layer1.sum"][0]), seen["layer1.preact"][0])


def test_number_of_classes_is_checked() -> None:
    assert models.resnet8(num_classes=7)(torch.rand(1, 3, 32, 32)).shape == (1, 7)
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        models.vgg8(num_classes=0)


@pytest.mark.parametrize(("name", "width"), [("resnet8_quarter", 4), ("resnet8_half", 8)])
def test_narrow_resnet8_counted_by_hand(name: str, width: int) -> None:
    """Convolutions, batch norms (two numbers a channel), the shortcuts of two stages, and the classifier."""
    one, two, four = width, 2 * width, 4 * width
    stem = 3 * one * 9 + 2 * one
    first = 2 * (one * one * 9) + 2 * (2 * one)
    second = one * two * 9 + two * two * 9 + 2 * (2 * two) + (one * two + 2 * two)
    third = two * four * 9 + four * four * 9 + 2 * (2 * four) + (two * four + 2 * four)
    assert stem + first + second + third + four * 10 + 10 == PARAMETERS[name]


def test_resnet18_counted_by_hand() -> None:
    """Two blocks of two 3x3 convolutions a stage; ResNet-34 has 1, 2, 4 and 1 blocks more in its four stages."""
    block = {c: 18 * c * c + 4 * c for c in (64, 128, 256, 512)}
    first = {c: 9 * (c // 2) * c + 9 * c * c + 4 * c + (c // 2 * c + 2 * c) for c in (128, 256, 512)}
    stem = 9 * 3 * 64 + 2 * 64
    count = stem + 2 * block[64] + sum(first[c] + block[c] for c in first) + 513 * 100
    assert count == PARAMETERS["resnet18"]
    assert count + block[64] + 2 * block[128] + 4 * block[256] + block[512] == PARAMETERS["resnet34"]
    # pre-activation: the stem's norm stands at the end with 512 channels, the first norm of each block has the channels
    # of its input, which together is as many; what is gone are the norms of three shortcuts
    moved = sum(2 * c for c in first)
    assert count - moved == PARAMETERS["preact_resnet18"]
