"""Views of clips: mixing, resized crops and masks, by hand and by their statistics."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate, one_hot

from limbeck_audiovideo.atst import clip_views, frame_views, log_mixup, resized_crops, span_masks, tagging_views
from limbeck_audiovideo.atst.views import partners
from limbeck_audiovideo.audio import LogMel
from limbeck_core.errors import DataError, ShapeError


def sample(samples: int = 8000, crops: int = 1, seed: int = 0, length: int | None = None, target: int = 0):
    generator = torch.Generator().manual_seed(seed)
    waveform = 0.1 * torch.randn(crops, samples, generator=generator)
    own = torch.full((crops,), samples if length is None else length)
    inputs = {"waveform": waveform, "length": own}
    if crops == 1:
        inputs = {name: value[0] for name, value in inputs.items()}
    return {"inputs": inputs, "targets": one_hot(torch.tensor(target), 3).float()}


def test_mixing_adds_what_is_under_the_logarithm() -> None:
    x, z = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 3, 4)
    torch.testing.assert_close(log_mixup(x, z, torch.tensor([0.0, 1.0])), torch.stack([x[0], z[1]]))
    half = log_mixup(x, z, torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(half, torch.logaddexp(x, z) - torch.log(torch.tensor(2.0)))


def test_nobody_is_their_own_partner() -> None:
    drawn = torch.stack([partners(5) for _ in range(200)])
    assert not (drawn == torch.arange(5)).any()
    assert torch.bincount(drawn[:, 0], minlength=5)[1:].min() > 20
    assert partners(1).tolist() == [0]


class TestResizedCrops:
    def test_the_whole_is_itself(self) -> None:
        mel = torch.randn(3, 1, 16, 20)
        found = resized_crops(mel, canvas=(1.0, 1.0), freq_scale=(1.0, 1.0), time_scale=(1.0, 1.0))
        torch.testing.assert_close(found, mel, atol=1e-5, rtol=1e-4)

    def test_frames_stay_where_they_are_when_frequency_alone_is_warped(self) -> None:
        mel = torch.zeros(4, 1, 16, 20)
        mel[..., 7] = 1  # one frame, all bands
        found = resized_crops(mel, canvas=(1.0, 1.0), freq_scale=(0.6, 1.5), time_scale=(1.0, 1.0))
        torch.testing.assert_close(found, mel, atol=1e-5, rtol=1e-5)

    def test_it_is_a_bicubic_resize_of_a_crop_of_the_canvas(self) -> None:
        mel = torch.randn(1, 1, 8, 20)
        found = resized_crops(mel, canvas=(1.0, 1.5), freq_scale=(0.75, 0.75), time_scale=(0.8, 0.8))
        canvas = torch.zeros(1, 1, 8, 30)
        canvas[..., 5:25] = mel
        candidates = [
            interpolate(canvas[..., row : row + 6, column : column + 16], (8, 20), mode="bicubic", align_corners=True)
            for row in range(3)
            for column in range(15)
        ]
        assert min((found - candidate).abs().max() for candidate in candidates) < 1e-5

    def test_beyond_the_spectrogram_there_are_zeros(self) -> None:
        mel = torch.ones(50, 1, 8, 40)
        found = resized_crops(mel, canvas=(1.0, 1.5), freq_scale=(1.0, 1.0), time_scale=(1.5, 1.5))
        assert (found[..., 0] == 0).all()
        torch.testing.assert_close(found[..., 18:22], torch.ones(50, 1, 8, 4), atol=1e-4, rtol=0)


class TestMasks:
    def test_half_of_250_tokens_is_hidden(self) -> None:
        share = span_masks(250, torch.full((600,), 250)).double().mean(1)
        assert float(share.mean()) == pytest.approx(0.502, abs=0.006)
        assert float(share.std()) == pytest.approx(0.027, abs=0.006)

    def test_spans_lie_within_a_clips_own_tokens(self) -> None:
        lengths = torch.tensor([0, 1, 2, 3, 5, 6, 20, 50])
        mask = span_masks(50, lengths)
        assert not (mask & (torch.arange(50) >= lengths.unsqueeze(1))).any()
        assert mask.sum(1)[:2].tolist() == [0, 0]
        assert (mask.sum(1)[2:] >= 1).all()

    def test_spans_are_five_long(self) -> None:
        (mask,) = span_masks(1000, torch.tensor([1000]), share=0.05)
        edges = torch.diff(mask.int()).nonzero().flatten()
        assert all(int(length) >= 5 for length in torch.diff(edges)[::2])

    def test_bad_settings_are_named(self) -> None:
        with pytest.raises(ValueError, match="span must be"):
            span_masks(10, torch.tensor([10]), span=0)
        with pytest.raises(ValueError, match="share"):
            span_masks(10, torch.tensor([10]), share=2.0)


class TestBatches:
    def test_clips_give_two_views(self) -> None:
        batch = clip_views([sample(crops=2, seed=n) for n in range(3)])
        assert batch["inputs"]["views"].shape == (3, 2, 1, 64, 51)
        assert batch["inputs"]["views"].isfinite().all()
        assert batch["targets"].shape == (3, 3)

    def test_a_single_silent_clip_is_no_nan(self) -> None:
        silent = sample(crops=2)
        silent["inputs"]["waveform"] = torch.zeros(2, 8000)
        assert clip_views([silent])["inputs"]["views"].isfinite().all()

    def test_frames_give_the_clip_as_it_is_and_one_mask(self) -> None:
        samples = [sample(seed=n, length=length) for n, length in enumerate((8000, 1700, 100))]
        inputs = frame_views(samples)["inputs"]
        plain = LogMel()(torch.stack([s["inputs"]["waveform"] for s in samples]))
        torch.testing.assert_close(inputs["views"][:, 0], plain)
        assert not torch.allclose(inputs["views"][:, 1], plain)
        assert inputs["lengths"].tolist() == [51, 11, 1]
        assert inputs["mask"].shape == (3, 12)
        assert not inputs["mask"][1, 2:].any()
        assert not inputs["mask"][2].any()

    def test_labels_are_mixed_like_sounds(self) -> None:
        samples = [sample(seed=n, target=n) for n in range(3)]
        batch = tagging_views(samples, mixup=0.5)
        torch.testing.assert_close(batch["targets"].sum(1), torch.ones(3))
        assert ((batch["targets"] > 0) & (batch["targets"] < 1)).any()
        plain = tagging_views(samples, mixup=None)
        torch.testing.assert_close(plain["targets"], torch.eye(3))
        assert plain["inputs"]["mel"].shape == (3, 1, 64, 51)

    def test_wrong_crops_are_named(self) -> None:
        with pytest.raises(DataError, match="crops=2"):
            clip_views([sample()])
        with pytest.raises(DataError, match="crops=1"):
            frame_views([sample(crops=2)])
        indices = [{**sample(), "targets": torch.tensor(1)} for _ in range(2)]
        with pytest.raises(ShapeError, match="several=True"):
            tagging_views(indices)
