"""The front end against librosa and transformers, and at its edges."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank, power_to_db, spectrogram, window_function

from limbeck_audiovideo.audio import LogMel, mel_filters
from limbeck_core.errors import ShapeError

SETTINGS = dict(rate=16000, bins=513, mels=64, low=60.0, high=7800.0)


def noise(samples: int = 16000, clips: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(clips, samples, generator=generator, dtype=torch.float64)


def normalised(decibels: np.ndarray) -> np.ndarray:
    return (decibels + 79.6482) / (50.6842 + 79.6482) * 2 - 1


def test_filters_are_those_of_librosa_and_transformers() -> None:
    ours = mel_filters(**SETTINGS).numpy()
    theirs = librosa.filters.mel(sr=16000, n_fft=1024, n_mels=64, fmin=60, fmax=7800, htk=True, norm=None)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    other = mel_filter_bank(513, 64, 60.0, 7800.0, 16000, norm=None, mel_scale="htk")
    np.testing.assert_allclose(ours, other.T, atol=1e-9)


@pytest.mark.parametrize("samples", [16000, 4321])
def test_a_clip_is_librosas(samples: int) -> None:
    waveform = noise(samples)
    power = librosa.feature.melspectrogram(
        y=waveform[0].numpy(), sr=16000, n_fft=1024, hop_length=160, n_mels=64, fmin=60, fmax=7800, htk=True, norm=None,
        pad_mode="reflect",
    )  # fmt: skip
    expected = normalised(librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=80.0))
    found = LogMel().double()(waveform)
    assert found.shape == (1, 1, 64, samples // 160 + 1)
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-5)


def test_a_clip_is_that_of_transformers() -> None:
    waveform = noise()
    power = spectrogram(
        waveform[0].numpy(), window_function(1024, "hann"), 1024, 160, power=2.0,
        mel_filters=mel_filter_bank(513, 64, 60.0, 7800.0, 16000, norm=None, mel_scale="htk"),
    )  # fmt: skip
    expected = normalised(power_to_db(power, reference=1.0, min_value=1e-10, db_range=80.0))
    np.testing.assert_allclose(LogMel().double()(waveform)[0, 0].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_matrix_gives_what_the_transform_gives(dtype: torch.dtype) -> None:
    waveform = noise().to(dtype)
    plain, product = LogMel().to(dtype), LogMel(transform="matrix").to(dtype)
    torch.testing.assert_close(
        plain(waveform), product(waveform), atol=2e-3 if dtype == torch.float32 else 1e-4, rtol=0
    )


def test_frames_and_lengths() -> None:
    front_end = LogMel()
    assert [front_end.frames(seconds * 16000) for seconds in (6, 10)] == [601, 1001]
    assert front_end.lengths(torch.tensor([0, 159, 160, 16000])).tolist() == [1, 1, 2, 101]
    assert front_end(torch.zeros(2, 3)).shape == (2, 1, 64, front_end.frames(3))


def test_silence_is_the_floor_and_a_short_clip_is_extended() -> None:
    silent = LogMel()(torch.zeros(2, 16000))
    torch.testing.assert_close(silent, torch.full_like(silent, normalised(np.array(-100.0)).item()))
    assert torch.isfinite(LogMel()(torch.zeros(1, 0))).all()


def test_a_loud_neighbour_changes_nothing() -> None:
    quiet, loud = 1e-3 * noise(), 9 * noise(seed=1)
    front_end = LogMel().double()
    torch.testing.assert_close(front_end(torch.cat([quiet, loud]))[:1], front_end(quiet))
    assert float(front_end(loud).max() - front_end(loud).min()) <= 80 * 2 / (50.6842 + 79.6482) + 1e-9


def test_gradients_reach_the_waveform() -> None:
    waveform = noise(2048).requires_grad_()
    LogMel().double()(waveform).sum().backward()
    assert torch.isfinite(waveform.grad).all()
    assert bool((waveform.grad != 0).any())


def test_it_holds_no_weights() -> None:
    assert dict(LogMel(transform="matrix").state_dict()) == {}


def test_bad_input_is_named() -> None:
    with pytest.raises(ShapeError, match="average channels"):
        LogMel()(torch.zeros(1, 2, 16000))
    with pytest.raises(ValueError, match=r"\[0, 4000\] Hz"):
        LogMel(rate=8000)
    with pytest.raises(ValueError, match="transform must be"):
        LogMel(transform="dct")
    with pytest.raises(ValueError, match="hop"):
        LogMel(hop=0)
