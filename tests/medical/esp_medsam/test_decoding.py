"""Prompts and decoder: SAM's transformer, the prompt without gradient, one query a modality; and the losses."""

from __future__ import annotations

import math

import pytest
import torch
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import SamMaskDecoderConfig, SamVisionConfig
from transformers.models.sam.modeling_sam import SamPositionalEmbedding, SamTwoWayTransformer

from limbeck_core.errors import ShapeError, TargetError
from limbeck_medical.esp_medsam import (
    ESPMedSAM,
    PatchPrompter,
    PromptEncoder,
    SelfPromptingLoss,
    TinyViTEncoder,
    batch_mask_loss,
    patch_target,
)
from limbeck_medical.esp_medsam.decoder import TwoWayTransformer


def small(hypernetworks: int = 1) -> ESPMedSAM:
    torch.manual_seed(0)
    encoder = TinyViTEncoder(
        image_size=64, dims=(8, 8, 12, 16), depths=(1, 1, 1, 1), heads=(1, 1, 1), embed_dim=16, controllers=3
    )
    return ESPMedSAM(encoder, modalities=3, hypernetworks=hypernetworks, heads=2, hidden=16)


def images(number: int) -> Tensor:
    return torch.randn(number, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_the_transformer_is_that_of_transformers() -> None:
    config = SamMaskDecoderConfig(hidden_size=16, mlp_dim=24, num_attention_heads=2, num_hidden_layers=2)
    config._attn_implementation = "eager"
    theirs, ours = SamTwoWayTransformer(config).eval(), TwoWayTransformer(16, depth=2, heads=2, hidden=24).eval()
    generator = torch.Generator().manual_seed(0)
    state = {n: torch.randn(v.shape, generator=generator) * 0.3 for n, v in theirs.state_dict().items()}
    theirs.load_state_dict(state)
    ours.load_state_dict(
        {
            n.replace("layer_norm_final_attn", "norm_final_attn").replace("layer_norm", "norm"): v
            for n, v in state.items()
        }
    )
    tokens, image, code = (torch.randn(2, *shape, generator=generator) for shape in ((5, 16), (16, 4, 4), (16, 4, 4)))
    with torch.no_grad():
        wanted_tokens, wanted_image = theirs(tokens[:, None], image, code, attention_similarity=None)[:2]
        flat = [x.flatten(2).transpose(1, 2) for x in (image, code)]
        found_tokens, found_image = ours(tokens, *flat)
    torch.testing.assert_close(found_tokens, wanted_tokens[:, 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found_image, wanted_image[:, 0], atol=1e-4, rtol=1e-4)


def test_the_code_of_positions_is_that_of_transformers() -> None:
    ours = PromptEncoder(16, 4)
    theirs = SamPositionalEmbedding(SamVisionConfig(num_pos_feats=8, scale=1.0))
    theirs.positional_embedding.data = ours.pe_layer.positional_encoding_gaussian_matrix
    centres = (torch.arange(4) + 0.5) / 4
    grid = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1)
    torch.testing.assert_close(ours()[0], theirs(grid).detach().permute(2, 0, 1), atol=1e-5, rtol=1e-5)


def test_shapes_and_a_mixed_batch() -> None:
    model = small().eval()
    modality = torch.tensor([2, 0, 1])
    with torch.no_grad():
        found = model(images(3), modality)
        alone = [model(images(3)[i : i + 1], int(modality[i])) for i in range(3)]
    assert found["masks"].shape == (3, 1, 64, 64)
    assert found["patches"].shape == (3, 1, 2, 2)
    assert found["embeddings"].shape == (3, 16, 4, 4)
    for name, value in found.items():
        torch.testing.assert_close(value, torch.cat([one[name] for one in alone]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("hypernetworks", [1, 3])
def test_each_modality_has_a_query_of_its_own(hypernetworks: int) -> None:
    model = small(hypernetworks)
    model(images(1), 1)["masks"].sum().backward()
    networks = [n.layers[2].weight.grad for n in model.mask_decoder.output_hypernetworks_mlps]
    assert len(networks) == hypernetworks
    used = [value is not None and bool(value.abs().max() > 0) for value in networks]
    assert used == ([True] if hypernetworks == 1 else [False, True, False])
    with torch.no_grad():
        by_query = [small(hypernetworks).eval()(images(1), 0)["masks"]]
        moved = small(hypernetworks).eval()
        moved.mask_query.weight[[0, 1]] = moved.mask_query.weight[[1, 0]].clone()
        by_query.append(moved(images(1), 0)["masks"])
    assert (by_query[0] - by_query[1]).abs().max() > 1e-4


def test_the_prompt_carries_no_gradient_into_the_patches() -> None:
    prompter = PatchPrompter(16)
    embeddings = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    patches, prompt = prompter(embeddings)
    prompt.sum().backward()
    assert embeddings.grad is None
    assert all(value.grad is None for value in prompter.patch_decoder.parameters())
    patches.sum().backward()
    assert embeddings.grad is not None


def test_a_prompt_is_where_the_patches_are() -> None:
    prompter = PatchPrompter(16)
    with torch.no_grad():
        last = prompter.patch_decoder[3]
        last.weight.zero_()
        for bias, chosen in ((0.0, 1.0), (-1e-3, 0.0)):
            last.bias.fill_(bias)
            _, prompt = prompter(torch.randn(1, 16, 4, 4))
            wanted = prompter.dense_prompter(torch.full((1, 1, 4, 4), chosen))
            assert torch.equal(prompt, wanted)


def test_a_wrong_number_of_hypernetworks() -> None:
    with pytest.raises(ValueError, match="hypernetworks must be 1 or one for each of 3 modalities, got 2"):
        small(2)


class TestLosses:
    def made(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(3, 1, 8, 8, generator=generator, dtype=torch.float64)
        return logits, (torch.rand(3, 1, 8, 8, generator=generator) > 0.7).long()

    def test_dice_is_monais_over_the_batch(self) -> None:
        logits, target = self.made()
        monai = DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
        wanted = monai(logits, target)
        torch.testing.assert_close(batch_mask_loss(logits, target, dice_share=1.0), wanted, atol=1e-12, rtol=1e-12)

    def test_the_focal_factor_is_one_number_for_the_batch(self) -> None:
        logits, target = self.made()
        entropy = binary_cross_entropy_with_logits(logits, target.double())
        wanted = 0.8 * (1 - math.exp(-float(entropy))) ** 2 * float(entropy)
        assert float(batch_mask_loss(logits, target, dice_share=0.0)) == pytest.approx(wanted, rel=1e-12)

    def test_gradients(self) -> None:
        logits, target = self.made()
        assert torch.autograd.gradcheck(lambda x: batch_mask_loss(x, target[:1]), logits[:1].requires_grad_())

    def test_two_empty_masks_agree(self) -> None:
        nothing = torch.zeros(2, 1, 8, 8)
        assert float(batch_mask_loss(nothing - 200, nothing, dice_share=1.0)) == pytest.approx(0.0, abs=1e-6)

    def test_an_empty_batch_is_a_differentiable_zero(self) -> None:
        outputs = {
            "masks": torch.zeros(0, 1, 64, 64, requires_grad=True),
            "patches": torch.zeros(0, 1, 2, 2, requires_grad=True),
        }
        loss = SelfPromptingLoss()(outputs, torch.zeros(0, 1, 64, 64))
        loss.backward()
        assert loss.item() == 0.0

    def test_one_pixel_marks_its_patch(self) -> None:
        mask = torch.zeros(1, 1, 64, 96, dtype=torch.long)
        mask[0, 0, 33, 95] = 1
        assert patch_target(mask, (2, 3)).tolist() == [[[[0, 0, 0], [0, 0, 1]]]]

    def test_the_sum_of_mask_and_patches(self) -> None:
        logits, target = self.made()
        patches = torch.randn(3, 1, 2, 2, dtype=torch.float64)
        wanted = batch_mask_loss(logits, target)
        wanted = wanted + 0.3 * binary_cross_entropy_with_logits(patches, patch_target(target, (2, 2)).double())
        found = SelfPromptingLoss(patch_weight=0.3)({"masks": logits, "patches": patches}, target)
        torch.testing.assert_close(found, wanted)

    def test_refusals(self) -> None:
        logits, target = self.made()
        outputs = {"masks": logits, "patches": logits[..., :3, :3]}
        with pytest.raises(ShapeError, match="divide into"):
            SelfPromptingLoss()(outputs, target)
        with pytest.raises(TargetError, match=r"got values from 0 to 255: name the values .* label_values=\(0, 255\)"):
            SelfPromptingLoss()(outputs, target * 255)
        with pytest.raises(ValueError, match="dice_share"):
            SelfPromptingLoss(dice_share=1.5)
        with pytest.raises(ShapeError, match="logits"):
            batch_mask_loss(logits, target[:1])


def test_unused_parts_of_sam_neither_train_nor_matter() -> None:
    model = small()
    outputs = model(images(2), torch.tensor([0, 1]))
    SelfPromptingLoss()(outputs, torch.ones(2, 1, 64, 64)).backward()
    without = {name for name, value in model.named_parameters() if value.grad is None}
    kept: nn.Module = model.image_encoder
    idle = {f"image_encoder.{n}" for n, _ in kept.named_parameters() if n.startswith(("head.", "norm_head."))}
    idle |= {f"prompt_encoder.{n}" for n, _ in model.prompt_encoder.named_parameters()}
    idle |= {name for name, _ in model.named_parameters() if "med_mlps.2." in name}
    assert without == idle
