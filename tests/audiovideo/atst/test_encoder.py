"""ATST's encoders: names, sizes, padding, positions; windows of long clips."""

from __future__ import annotations

import pytest
import torch

from limbeck_audiovideo.atst import (
    ClipEncoder,
    FrameEncoder,
    atst_clip_base,
    atst_clip_small,
    atst_frame_base,
    atst_frame_small,
    scene_embedding,
)
from limbeck_core.errors import ShapeError

TINY = dict(dim=16, depth=2, heads=2, max_frames=101)


def clip() -> ClipEncoder:
    return ClipEncoder(**TINY).double().eval()


def frame() -> FrameEncoder:
    return FrameEncoder(**TINY).double().eval()


def mel(clips: int = 2, frames: int = 61, seed: int = 0) -> torch.Tensor:
    return torch.randn(clips, 1, 64, frames, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (atst_clip_small, 21_476_352),
        (atst_clip_base, 85_420_032),
        (atst_frame_small, 21_475_968),
        (atst_frame_base, 85_419_264),
    ],
)
def test_sizes_are_those_of_the_paper(make, parameters: int) -> None:
    with torch.device("meta"):
        encoder = make()
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    assert encoder.pos_embed.shape[1] == 251
    assert len(encoder.blocks) == 12


def test_names_are_those_of_the_released_weights() -> None:
    names = set(clip().state_dict())
    block = {
        "norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.proj.weight", "attn.proj.bias", "norm2.weight",
        "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias",
    }  # fmt: skip
    shared = {f"blocks.{number}.{name}" for number in range(2) for name in block}
    shared |= {"patch_embed.patch_embed.weight", "patch_embed.patch_embed.bias", "mask_embed", "pos_embed"}
    assert names == shared | {"cls_token", "norm.weight", "norm.bias"}
    assert set(frame().state_dict()) == shared | {"norm_frame.weight", "norm_frame.bias"}


def test_a_patch_is_mel_by_mel_four_frames_each() -> None:
    encoder, spectrogram = frame(), mel(1, 9)  # one frame is left over
    column = spectrogram[0, 0, :, 4:8].reshape(-1)
    expected = encoder.patch_embed.patch_embed(column)
    tokens = encoder.patch_embed(spectrogram)
    assert tokens.shape == (1, 2, 16)
    torch.testing.assert_close(tokens[0, 1], expected)


def test_attention_is_softmax_of_scaled_products() -> None:
    attention = clip().blocks[0].attn
    x = torch.randn(1, 5, 16, dtype=torch.float64)
    q, k, v = attention.qkv(x)[0].reshape(5, 3, 2, 8).permute(1, 2, 0, 3)
    mixed = (q @ k.transpose(-2, -1) / 8**0.5).softmax(-1) @ v
    torch.testing.assert_close(attention(x, None)[0], attention.proj(mixed.transpose(0, 1).reshape(5, 16)))


@pytest.mark.parametrize("make", [clip, frame])
def test_padding_changes_nothing_that_is_a_clips_own(make) -> None:
    encoder = make()
    spectrogram = mel(1, 40)
    padded = torch.cat([spectrogram, mel(1, 24, seed=1)], 3)
    lengths = torch.tensor([40])
    torch.testing.assert_close(encoder.embed(padded, lengths), encoder.embed(spectrogram))
    alone, together = encoder(spectrogram), encoder(padded, lengths)
    torch.testing.assert_close(together[:, :10] if together.ndim == 3 else together, alone)
    assert encoder(padded).isfinite().all()


def test_a_clip_without_a_frame_of_its_own_is_no_nan() -> None:
    for encoder in (clip(), frame()):
        assert encoder.embed(mel(), torch.tensor([0, 61])).isfinite().all()


def test_hidden_tokens_are_the_learned_one() -> None:
    encoder, spectrogram = frame(), mel(1)
    mask = torch.zeros(1, 15, dtype=torch.bool)
    mask[0, 3] = True
    other = spectrogram.clone()
    other[..., 12:16] += 5
    torch.testing.assert_close(encoder(spectrogram, mask=mask), encoder(other, mask=mask))
    assert not torch.allclose(encoder(spectrogram), encoder(other))


def test_the_class_token_has_the_first_position() -> None:
    with torch.no_grad():
        for encoder, position, changes in ((clip(), 0, True), (frame(), 0, False), (frame(), 1, True)):
            before = encoder(mel())
            encoder.pos_embed[:, position] += torch.randn(16)
            assert torch.allclose(before, encoder(mel())) != changes


def test_drop_path_drops_in_training_alone() -> None:
    encoder = ClipEncoder(**TINY, drop_path=0.5).double()
    assert [block.drop_path.probability for block in encoder.blocks] == pytest.approx([0.0, 0.5])
    assert not torch.equal(encoder(mel(16)), encoder(mel(16)))
    encoder.eval()
    assert torch.equal(encoder(mel(16)), encoder(mel(16)))


def test_windows_of_a_long_clip_are_averaged() -> None:
    encoder, spectrogram = clip(), mel(1, 120)
    first, second = encoder.embed(spectrogram[..., :60]), encoder.embed(spectrogram[..., 60:])
    torch.testing.assert_close(scene_embedding(encoder, spectrogram, window=60), (first + second) / 2)
    short = scene_embedding(encoder, spectrogram, torch.tensor([90]), window=60)  # half a window does not count
    torch.testing.assert_close(short, first)
    assert scene_embedding(encoder, mel(2, 500)).shape == (2, 2 * 2 * 16)
    assert scene_embedding(frame(), mel(2, 500)).shape == (2, 2 * 16)


def test_bad_input_is_named() -> None:
    with pytest.raises(ShapeError, match=r"\(N, 1, 64, frames\)"):
        clip()(torch.zeros(1, 64, 40).double())
    with pytest.raises(ShapeError, match="cut longer clips into windows"):
        clip()(mel(1, 102))
    with pytest.raises(ShapeError, match="4 to 101 frames"):
        clip()(mel(1, 3))
    with pytest.raises(ShapeError, match="whether it is hidden"):
        frame()(mel(), mask=torch.zeros(2, 3))
    with pytest.raises(ShapeError, match="lengths must hold"):
        clip()(mel(), torch.tensor([3]))
    with pytest.raises(ShapeError, match="multiple of heads"):
        ClipEncoder(dim=10, heads=4)
    with pytest.raises(ShapeError, match="4 frames"):
        scene_embedding(clip(), mel(1, 3))
