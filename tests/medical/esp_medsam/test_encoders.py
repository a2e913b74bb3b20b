"""The encoders against those of transformers and timm, the published number of parameters, and what controllers do."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from transformers import SamVisionConfig, SamVisionModel

from limbeck_core.errors import ShapeError, TargetError
from limbeck_medical.esp_medsam import ESPMedSAM, SAMImageEncoder, TinyViTEncoder, sam_vit_b, sam_vit_h, sam_vit_l
from limbeck_medical.esp_medsam.layers import from_windows, route, to_windows

SMALL = {"image_size": 64, "dims": (8, 8, 12, 16), "depths": (1, 1, 1, 1), "heads": (2, 3, 2), "embed_dim": 16}
SAM = {"image_size": 64, "dim": 16, "depth": 2, "heads": 2, "global_blocks": (1,), "window": 3, "embed_dim": 8}


def count(module: nn.Module, piece: str = "") -> int:
    return sum(value.numel() for name, value in module.named_parameters() if piece in name)


def images(number: int, seed: int = 0) -> Tensor:
    return torch.randn(number, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with no weight at a start value under which a slip would not show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.is_floating_point():
                drawn = torch.randn(value.shape, generator=generator)
                value.copy_(drawn.abs() + 0.5 if "running_var" in name else 0.3 * drawn)
    return module.eval()


def test_parameters_of_the_released_model_to_the_unit() -> None:
    with torch.device("meta"):
        model = ESPMedSAM()
    assert count(model) == 12_789_587
    assert count(model.image_encoder) == 9_209_734
    assert count(model.image_encoder, "med_") == 3_144_202
    assert count(model.image_encoder.head) + count(model.image_encoder.norm_head) == 321_640
    assert count(model.image_encoder.neck) == 672_768
    assert count(model.prompt_encoder) == 6_220
    assert count(model.mask_decoder) == 3_505_024
    assert count(model.patch_prompter) == 66_817
    assert count(model.mask_query) == 1_792


def test_parameters_of_sams_encoders() -> None:
    with torch.device("meta"):
        sizes = [count(build()) for build in (sam_vit_b, sam_vit_l, sam_vit_h)]
    assert sizes == [89_670_912, 308_278_272, 637_026_048]


def names_in_transformers(name: str) -> str:
    for ours, theirs in {
        "patch_embed.proj": "patch_embed.projection",
        "blocks.": "layers.",
        ".norm": ".layer_norm",
        "neck.0": "neck.conv1",
        "neck.1": "neck.layer_norm1",
        "neck.2": "neck.conv2",
        "neck.3": "neck.layer_norm2",
    }.items():
        name = name.replace(ours, theirs)
    return f"vision_encoder.{name}"


def test_sams_encoder_is_that_of_transformers() -> None:
    config = SamVisionConfig(
        hidden_size=16,
        output_channels=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
        window_size=3,
        global_attn_indexes=[1],
        mlp_dim=64,
    )
    theirs, ours = shaken(SamVisionModel(config)), SAMImageEncoder(**SAM).eval()
    state = theirs.state_dict()
    assert {names_in_transformers(name) for name in ours.state_dict()} == set(state)
    ours.load_state_dict({name: state[names_in_transformers(name)] for name in ours.state_dict()})
    with torch.no_grad():
        wanted = theirs(images(2)).last_hidden_state
        torch.testing.assert_close(ours(images(2)), wanted, atol=1e-5, rtol=1e-5)


def names_of_mobile_sam(name: str) -> str:
    if name.startswith("patch_embed."):
        name = name.replace("conv1", "seq.0").replace("conv2", "seq.2")
    for stage in (1, 2, 3):
        name = name.replace(f"stages.{stage}.downsample", f"layers.{stage - 1}.downsample")
    return name.replace("stages.", "layers.").replace(".conv.", ".c.")


def test_tiny_vit_is_that_of_timm_at_stride_16() -> None:
    """The released model's layout: timm's TinyViT-5M, whose last stage halves the map, with that halving off."""
    torch.manual_seed(0)
    theirs = timm.create_model("tiny_vit_5m_224", pretrained=False).eval()
    ours = TinyViTEncoder(image_size=224).eval()
    theirs.stages[3].downsample.conv2.conv.stride = (1, 1)
    state = {names_of_mobile_sam(name): value for name, value in theirs.state_dict().items()}
    wanted = {name for name in ours.state_dict() if not name.startswith(("neck.", "head.", "norm_head."))}
    assert wanted == {name for name in state if not name.startswith("head.")}
    generator = torch.Generator().manual_seed(1)
    state = {
        name: torch.rand(value.shape, generator=generator) * 0.2 if "biases" in name else value
        for name, value in state.items()
        if name in wanted
    }
    ours.load_state_dict(state, strict=False)
    back = {name: value for name, value in theirs.state_dict().items() if "attention_biases" in name}
    theirs.load_state_dict({name: state[name.replace("stages.", "layers.")] for name in back}, strict=False)
    ours.neck = nn.Identity()
    picture = torch.randn(1, 3, 224, 224, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(ours(picture), theirs.forward_features(picture), atol=1e-4, rtol=1e-4)


def test_windows_come_back() -> None:
    features = torch.arange(2 * 5 * 7 * 3, dtype=torch.float32).reshape(2, 5, 7, 3)
    windows, padded = to_windows(features, 4)
    assert windows.shape == (2 * 2 * 2, 4, 4, 3)
    assert padded == (8, 8)
    assert torch.equal(windows[0], features[0, :4, :4])
    assert torch.equal(from_windows(windows, padded, (5, 7)), features)


@pytest.mark.parametrize("kind", ["tiny_vit", "sam"])
class TestControllers:
    def encoder(self, kind: str, controllers: int, **options: bool) -> nn.Module:
        if kind == "sam":
            return shaken(SAMImageEncoder(**SAM, controllers=controllers, **options))
        return shaken(TinyViTEncoder(**SMALL, controllers=controllers, **options))

    def test_a_mixed_batch_is_each_sample_by_itself(self, kind: str) -> None:
        encoder = self.encoder(kind, 3)
        batch, modality = images(4), torch.tensor([2, 0, 2, 1])
        with torch.no_grad():
            mixed = encoder(batch, modality)
            alone = [encoder(batch[i : i + 1], int(modality[i])) for i in range(4)]
            wrong = encoder(batch, torch.tensor([0, 2, 0, 2]))
        torch.testing.assert_close(mixed, torch.cat(alone))
        assert all((mixed[i] - wrong[i]).abs().max() > 1e-3 for i in range(4))

    def test_an_own_controller_is_the_place_it_has(self, kind: str) -> None:
        three, one = self.encoder(kind, 3), self.encoder(kind, 1)
        state = three.state_dict()
        own = {}
        for name in one.state_dict():
            taken = name.replace("med_mlps.0.", "med_mlps.2.").replace("med_adapters.0.", "med_adapters.2.")
            own[name] = state[taken][2:3] if ".attn.med_" in name else state[taken]
        one.load_state_dict(own)
        with torch.no_grad():
            assert torch.equal(one(images(2), 0), three(images(2), 2))

    def test_only_controllers_train(self, kind: str) -> None:
        encoder = self.encoder(kind, 2, controllers_only=True).train()
        before = {name: value.clone() for name, value in encoder.named_buffers()}
        encoder(images(2), torch.tensor([0, 1])).square().mean().backward()
        touched = {name for name, value in encoder.named_parameters() if value.grad is not None}
        assert touched == {name for name, _ in encoder.named_parameters() if "med_" in name}
        assert all(value.grad.abs().max() > 0 for value in encoder.parameters() if value.grad is not None)
        assert all(torch.equal(value, before[name]) for name, value in encoder.named_buffers())

    def test_an_empty_batch(self, kind: str) -> None:
        assert self.encoder(kind, 2)(images(0), 0).shape[0] == 0

    def test_refusals(self, kind: str) -> None:
        encoder = self.encoder(kind, 2)
        with pytest.raises(ShapeError, match=r"images must be \(N, 3, 64, 64\), got \(2, 3, 32, 64\)"):
            encoder(torch.zeros(2, 3, 32, 64), 0)
        with pytest.raises(TargetError, match="modality must be from 0 to 1, got 1 to 2"):
            encoder(images(2), torch.tensor([1, 2]))
        with pytest.raises(ShapeError, match="one for each of the 2 samples, got 3"):
            encoder(images(2), torch.tensor([0, 1, 1]))
        with pytest.raises(ValueError, match="leaves nothing to train"):
            self.encoder(kind, 0, controllers_only=True)


def test_a_token_is_key_and_value_in_every_window() -> None:
    """With a bias that outweighs all others, attention is the token itself, so the block adds its projection."""
    encoder = shaken(TinyViTEncoder(**SMALL, controllers=1))
    attention = encoder.layers[1].blocks[0].attn
    with torch.no_grad():
        attention.med_biases.fill_(1e4)
        found = attention(torch.rand(2, 49, 8), route(0, 2, 1, torch.device("cpu")))
        wanted = attention.proj(attention.med_tokens[0].reshape(1, 1, 8))
    torch.testing.assert_close(found, wanted.expand(2, 49, 8))


def test_a_new_controller_changes_little_and_by_its_tokens_alone() -> None:
    torch.manual_seed(0)
    encoder = TinyViTEncoder(**SMALL, controllers=1).eval()
    without = TinyViTEncoder(**SMALL).eval()
    without.load_state_dict({name: value for name, value in encoder.state_dict().items() if "med_" not in name})
    with torch.no_grad():
        assert (encoder(images(1)) - without(images(1))).abs().max() > 0
        for stage in (1, 2, 3):
            encoder.layers[stage].blocks[0].attn.med_biases.fill_(-1e4)
        torch.testing.assert_close(encoder(images(1)), without(images(1)))
