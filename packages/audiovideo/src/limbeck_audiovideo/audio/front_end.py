"""Log-mel spectrograms in PyTorch alone: the front end of ATST, a module that trains, exports and runs in batches."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from limbeck_core.checks import check_positive
from limbeck_core.errors import ShapeError

RATE = 16000  # samples a second
HOP = 160  # samples from one frame to the next: 10 ms
_FLOOR = 1e-10  # smallest power that has a logarithm


def mel_filters(*, rate: int, bins: int, mels: int, low: float, high: float) -> Tensor:
    r"""Triangles of equal width on the mel scale, each with a peak of one.

    .. math:: m(f) = 2595 \log_{10}(1 + f / 700)

    Args:
        rate: Samples a second.
        bins: Frequencies of the spectrum, from 0 to half the rate.
        mels: Number of triangles.
        low: Where the first one begins, in Hz.
        high: Where the last one ends, in Hz.

    Returns:
        Weights, float64, ``(mels, bins)``.

    Raises:
        ValueError: if the band does not lie within the spectrum.

    Reference:
        Young et al., The HTK Book, section 5.4; the scale is O'Shaughnessy's of 1987.
    """
    if not 0 <= low < high <= rate / 2:
        raise ValueError(f"the mel band must lie in [0, {rate / 2:g}] Hz, got {low:g} to {high:g}")
    lowest, highest = (2595 * math.log10(1 + frequency / 700) for frequency in (low, high))
    corners = 700 * (10 ** (torch.linspace(lowest, highest, mels + 2, dtype=torch.float64) / 2595) - 1)
    frequencies = torch.linspace(0, rate / 2, bins, dtype=torch.float64)
    left, middle, right = (corners[start : start + mels].unsqueeze(1) for start in range(3))
    rising, falling = (frequencies - left) / (middle - left), (right - frequencies) / (right - middle)
    return torch.minimum(rising, falling).clamp(min=0)


class LogMel(nn.Module):
    r"""Waveform to a normalised log-mel spectrogram.

    Power spectrum under a Hann window, frames centred on multiples of the hop, mel filters, decibels, and

    .. math:: x = 2 \, (dB + 79.6482) / (50.6842 + 79.6482) - 1

    without clamping. A frame 80 dB below the loudest one of its clip is raised to that; every clip of a batch has a
    ceiling of its own, so that its neighbours do not change it. Silence is -100 dB throughout.

    A clip of S samples has ``S // hop + 1`` frames; waveforms shorter than the window are extended by zeros.

    Args:
        rate: Samples a second of the waveforms.
        window: Samples of the Hann window, and of the Fourier transform.
        hop: Samples from frame to frame.
        mels: Number of mel bands.
        low: Lower end of the bands in Hz.
        high: Upper end in Hz.
        top_db: Span in decibels below each clip's loudest value.
        db_range: Decibels that become -1 and 1.
        transform: ``"fft"``, or ``"matrix"``: the same numbers by a product with the Fourier matrix, for runtimes
            without a Fourier transform.

    Raises:
        ValueError: if a size is not above zero, the band lies outside of the spectrum, or ``transform`` is unknown.

    Reference:
        Li, Shao and Li, Self-supervised Audio Teacher-Student Transformer for Both Clip-level and Frame-level Tasks,
        arXiv:2306.04186; the constants are those of the authors' released code.
    """

    def __init__(
        self,
        *,
        rate: int = RATE,
        window: int = 1024,
        hop: int = HOP,
        mels: int = 64,
        low: float = 60.0,
        high: float = 7800.0,
        top_db: float = 80.0,
        db_range: tuple[float, float] = (-79.6482, 50.6842),
        transform: str = "fft",
    ) -> None:
        super().__init__()
        for name, value in dict(rate=rate, window=window, hop=hop, mels=mels, top_db=top_db).items():
            check_positive(value, name)
        if transform not in ("fft", "matrix"):
            raise ValueError(f"transform must be 'fft' or 'matrix', got {transform!r}")
        self.rate, self.window_length, self.hop, self.mels = rate, window, hop, mels
        self.top_db = top_db
        self.db_range = db_range
        self.transform = transform
        bins = window // 2 + 1
        filters = mel_filters(rate=rate, bins=bins, mels=mels, low=low, high=high)
        hann = torch.hann_window(window, dtype=torch.float64)
        # constants are not weights: released checkpoints know nothing of them
        self.register_buffer("filters", filters.float(), persistent=False)
        self.register_buffer("window", hann.float(), persistent=False)
        self.filters: Tensor
        self.window: Tensor
        if transform == "matrix":
            phase = 2 * math.pi * torch.outer(torch.arange(bins), torch.arange(window)).double() / window
            matrix = torch.cat([phase.cos(), phase.sin()]) * hann
            self.register_buffer("fourier", matrix.float(), persistent=False)
            self.fourier: Tensor

    def frames(self, samples: int) -> int:
        """Frames of a clip of so many samples."""
        return max(samples, self.window_length) // self.hop + 1

    def lengths(self, samples: Tensor) -> Tensor:
        """Frames that stand on a clip's own samples, where batches are padded: ``samples // hop + 1``."""
        return torch.div(samples, self.hop, rounding_mode="floor") + 1

    def forward(self, waveform: Tensor) -> Tensor:
        """Return normalised log-mel spectrograms.

        Args:
            waveform: Samples in [-1, 1], ``(N, S)``.

        Returns:
            ``(N, 1, mels, frames)``.

        Raises:
            ShapeError: if the waveform is not a batch of mono clips.
        """
        if waveform.ndim != 2 or not waveform.is_floating_point():
            raise ShapeError(
                f"the front end takes floating-point waveforms (clips, samples), got {waveform.dtype} "
                f"{tuple(waveform.shape)}: average channels and add the axis of the batch"
            )
        lacking = self.window_length - waveform.shape[1]
        if lacking > 0:
            waveform = nn.functional.pad(waveform, (0, lacking))
        mel = torch.matmul(self.filters.to(waveform.dtype), self._power(waveform))
        decibels = 10 * torch.log10(mel.clamp(min=_FLOOR))
        decibels = torch.maximum(decibels, decibels.amax((1, 2), keepdim=True) - self.top_db)
        low, high = self.db_range
        return ((decibels - low) * (2 / (high - low)) - 1).unsqueeze(1)

    def _power(self, waveform: Tensor) -> Tensor:
        window = self.window.to(waveform.dtype)
        if self.transform == "fft":
            spectrum = torch.stft(
                waveform, self.window_length, self.hop, window=window, center=True, pad_mode="reflect",
                return_complex=True,
            )  # fmt: skip
            return spectrum.real.square() + spectrum.imag.square()
        half = self.window_length // 2
        padded = nn.functional.pad(waveform.unsqueeze(1), (half, half), mode="reflect")
        kernels = self.fourier.to(waveform.dtype).unsqueeze(1)
        real, imaginary = nn.functional.conv1d(padded, kernels, stride=self.hop).chunk(2, dim=1)
        return real.square() + imaginary.square()
