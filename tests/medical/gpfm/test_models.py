"""Encoder, experts and heads: tokens and grids, hidden patches, and what they refuse."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from gpfm_toys import small_expert, small_student, small_vit, views
from limbeck_core.errors import ConfigError, ShapeError
from limbeck_medical.gpfm import Expert, ProjectionHead, TileEncoder, timm_model


def test_tokens_are_those_of_timm() -> None:
    encoder = TileEncoder(small_vit(), mean=(0.0,) * 3, std=(1.0,) * 3).eval()
    images = torch.rand(2, 3, 24, 16)
    tokens = encoder.vit.forward_features(images)
    found = encoder(images)
    torch.testing.assert_close(found["cls"], tokens[:, 0])
    torch.testing.assert_close(found["patch"], tokens[:, 1:].reshape(2, 3, 2, 16).permute(0, 3, 1, 2))


def test_images_are_normalised_inside() -> None:
    encoder = TileEncoder(small_vit()).eval()
    plain = copy.deepcopy(encoder)
    plain.mean.zero_()
    plain.std.fill_(1.0)
    images = torch.rand(2, 3, 24, 24)
    mean, std = (torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(encoder(images)["cls"], plain((images - mean) / std)["cls"])
    assert not {"mean", "std"} & encoder.state_dict().keys()


def test_registers_are_no_patches() -> None:
    encoder = TileEncoder(small_vit(reg_tokens=4)).eval()
    assert encoder(torch.rand(1, 3, 24, 24))["patch"].shape == (1, 16, 3, 3)


def test_what_a_hidden_patch_holds_does_not_matter() -> None:
    encoder = TileEncoder(small_vit()).eval()
    nn.init.normal_(encoder.mask_token)
    images = torch.rand(1, 3, 24, 24)
    mask = torch.zeros(1, 3, 3, dtype=torch.bool)
    mask[0, 1, 2] = True
    changed = images.clone()
    changed[..., 8:16, 16:24] = 0.0
    torch.testing.assert_close(encoder(images, mask), encoder(changed, mask), rtol=0, atol=0)
    assert not torch.allclose(encoder(images)["cls"], encoder(changed)["cls"])
    none = torch.zeros_like(mask)
    torch.testing.assert_close(encoder(images, none), encoder(images), rtol=0, atol=0)
    assert not encoder.vit.patch_embed._forward_hooks
    encoder(images, mask)["cls"].sum().backward()
    assert encoder.mask_token.grad is not None
    assert bool(encoder.mask_token.grad.any())


@pytest.mark.parametrize(
    ("name", "options", "grid"),
    [
        ("resnet10t", {}, (1, 1)),
        ("convnext_atto", {}, (1, 1)),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 32, "embed_dim": 12, "depths": (1, 1), "num_heads": (1, 1)},
            (4, 4),
        ),
        ("vit_tiny_patch16_224", {"img_size": 32, "embed_dim": 12, "depth": 1, "num_heads": 2}, (2, 2)),
        (
            "vit_base_patch16_siglip_224",
            {"img_size": 32, "embed_dim": 12, "depth": 1, "num_heads": 2},
            (2, 2),
        ),
    ],
)
def test_any_kind_of_expert(name: str, options: dict[str, object], grid: tuple[int, int]) -> None:
    expert = Expert(timm_model(name, **options)).eval()
    with torch.no_grad():
        found = expert(torch.rand(2, 3, 32, 32))
    assert found["cls"].shape == (2, expert.width)
    assert found["patch"].shape == (2, expert.width, *grid)
    if grid == (1, 1):
        torch.testing.assert_close(found["cls"], found["patch"].mean((2, 3)))


def test_an_expert_may_be_normalised_and_may_classify() -> None:
    found = small_expert(normalize_output=True, num_classes=3)(torch.rand(4, 3, 24, 24))
    torch.testing.assert_close(found["cls"].norm(dim=1), torch.ones(4))
    assert found["logits"].shape == (4, 3)


def test_the_student_gives_class_tokens_or_all_that_losses_ask_for() -> None:
    student = small_student().eval()
    batch = views()
    images, masks = batch["global_views"].transpose(0, 1).flatten(0, 1), batch["masks"].transpose(0, 1).flatten(0, 1)
    found = student(images, masks, batch["local_views"].transpose(0, 1).flatten(0, 1))
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "cls": (4, 16),
        "patch": (4, 16, 3, 3),
        "cls_logits": (8, 12),
        "patch_logits": (5, 12),
    }
    shown = student(images, masks, hide=False)
    torch.testing.assert_close(shown["cls"], student(images))
    torch.testing.assert_close(shown["cls_logits"], student.head(student(images)))


def test_lengths_of_bottleneck_and_prototypes() -> None:
    head = ProjectionHead(8, 5, layers=3, hidden=7, bottleneck=4)
    torch.testing.assert_close(head.last.weight.norm(dim=1), torch.ones(5))
    assert float(head(100 * torch.randn(64, 8)).detach().abs().max()) <= 1.0 + 1e-6
    single = ProjectionHead(8, 5, bottleneck=4)
    assert [type(module) for module in single.mlp] == [nn.Linear]


def test_what_does_not_fit() -> None:
    encoder = TileEncoder(small_vit())
    with pytest.raises(ShapeError, match="do not divide into patches of 8 x 8: the nearest size that does is 24 x 32"):
        encoder(torch.rand(1, 3, 22, 30))
    with pytest.raises(ShapeError, match="the mask must have one entry a patch, .1, 3, 3."):
        encoder(torch.rand(1, 3, 24, 24), torch.zeros(1, 2, 2, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"expects images .N, 3, H, W. in .0, 1., got .1, 1, 24, 24."):
        encoder(torch.rand(1, 1, 24, 24))
    with pytest.raises(ShapeError, match="the mask must be boolean"):
        small_student()(torch.rand(1, 3, 24, 24), torch.zeros(1, 3, 3))
    with pytest.raises(ConfigError, match="needs a vision transformer of timm with patch_embed and a class token, got"):
        TileEncoder(timm_model("resnet10t"))
    with pytest.raises(ConfigError, match="an expert is a model of timm"):
        Expert(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="has no model 'vit_smal_patch16_224': did you mean"):
        timm_model("vit_smal_patch16_224")
    with pytest.raises(ConfigError, match="nothing is downloaded here"):
        timm_model("resnet10t", pretrained=True)
    with pytest.raises(ValueError, match="must be 1 or more"):
        ProjectionHead(8, 0)
    assert timm.is_model("vit_large_patch14_dinov2")  # the paper's student
