"""Two views of a clip, in batches: log-mel, mixing, resized crops and masks. Collate functions for a dataloader.

Everything random is drawn from PyTorch's generator, which a run seeds for every batch, so that views do not depend on
the number of workers or on what was trained before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Beta

from limbeck_audiovideo.atst.encoder import PATCH
from limbeck_audiovideo.audio.front_end import LogMel
from limbeck_core.checks import check_between
from limbeck_core.engine import stack
from limbeck_core.errors import DataError, ShapeError

Range = tuple[float, float]
_EPSILON = torch.finfo(torch.float32).eps


@lru_cache(maxsize=1)
def _front_end() -> LogMel:
    return LogMel()


def log_mixup(mel: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    r"""Mix spectrograms where sounds add up, not their logarithms.

    .. math:: \log\big((1 - \alpha) e^{x} + \alpha e^{z} + \epsilon\big)

    Args:
        mel: Normalised log-mel spectrograms x, ``(N, 1, mels, frames)``.
        partner: Those that are mixed in, z.
        share: :math:`\alpha` of each, ``(N,)``.

    Reference:
        Niizumi et al., BYOL for Audio, arXiv:2103.06695, eq. 3.
    """
    alpha = share.reshape(-1, *([1] * (mel.ndim - 1))).to(mel)
    return torch.log((1 - alpha) * mel.exp() + alpha * partner.exp() + _EPSILON)


def partners(count: int) -> Tensor:
    """For each of so many clips another one of them, drawn alike; a single clip has only itself."""
    if count < 2:
        return torch.zeros(count, dtype=torch.long)
    return (torch.arange(count) + torch.randint(1, count, (count,))) % count


def resized_crops(mel: Tensor, *, canvas: tuple[float, float], freq_scale: Range, time_scale: Range) -> Tensor:
    """Cut a random part out of each spectrogram, or of the zeros around it, and stretch it to the old size.

    The spectrogram stands in the middle of a canvas of zeros. A crop of random height and width, no larger than the
    canvas, is cut at a random place and resized by bicubic interpolation, corners upon corners.

    Args:
        mel: ``(N, 1, mels, frames)``.
        canvas: Height and width of the canvas over those of the spectrogram, 1 or more.
        freq_scale: Least and largest height of the crop over that of the spectrogram.
        time_scale: The same of its width.

    Reference:
        Niizumi et al., BYOL for Audio, arXiv:2103.06695, section III-B (random resize crop).
    """
    rows, columns = (
        _resizing(len(mel), size, factor, scale)
        for size, factor, scale in zip(mel.shape[2:], canvas, (freq_scale, time_scale), strict=True)
    )
    found = mel.squeeze(1)
    if rows is not None:
        found = rows.to(mel) @ found
    if columns is not None:
        found = found @ columns.to(mel).transpose(1, 2)
    return found.unsqueeze(1)


def _resizing(count: int, size: int, factor: float, scale: Range) -> Tensor | None:
    """Matrices ``(count, size, size)`` that cut and stretch along one axis; ``None`` where nothing would change."""
    room = int(size * factor)
    if room == size and scale[0] >= 1:
        return None
    length = (size * (scale[0] + (scale[1] - scale[0]) * torch.rand(count))).int().clamp(1, room)
    start = (torch.rand(count) * (room - length + 1)).int().minimum(room - length)
    offset = (start - (room - size) // 2).unsqueeze(1)  # of the crop against the spectrogram
    last = (length - 1).unsqueeze(1)
    position = torch.linspace(0, 1, size, dtype=torch.float64) * last
    below = position.floor()
    beyond = position - below
    matrix = torch.zeros(count, size, size, dtype=torch.float64)
    for tap in range(-1, 3):
        index = (below.long() + tap).clamp(min=0).minimum(last) + offset  # the border of the crop goes on
        inside = (index >= 0) & (index < size)  # elsewhere the canvas is zero
        weight = torch.where(inside, _cubic((beyond - tap).abs()), 0)
        matrix.scatter_add_(2, index.clamp(0, size - 1).unsqueeze(2), weight.unsqueeze(2))
    return matrix


def _cubic(distance: Tensor) -> Tensor:
    """Weights of cubic convolution with a slope of -0.75, as ``torch.nn.functional.interpolate`` has it."""
    a = -0.75
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return torch.where(distance <= 1, near, far)


def span_masks(tokens: int, lengths: Tensor, *, share: float = 0.65, span: int = 5) -> Tensor:
    """Hide spans of tokens, drawn within each clip's own tokens.

    There are ``int(share * n / span + u)`` spans, u uniform in [0, 1), two or more, at starts that are drawn without
    replacement; they may overlap. Of 250 tokens a half is hidden on average, not ``share``.

    Args:
        tokens: Tokens of the padded clips.
        lengths: Tokens of each clip that are its own, ``(N,)``. A clip of one token hides none.
        share: Share of tokens that the spans would cover if they did not overlap.
        span: Tokens of a span; one less than a clip has, for very short clips.

    Returns:
        Boolean ``(N, tokens)``.

    Raises:
        ValueError: if ``share`` lies outside of [0, 1] or ``span`` is below 1.

    Reference:
        Baevski et al., wav2vec 2.0, arXiv:2006.11477, section 3.1; the settings are those of arXiv:2306.04186.
    """
    check_between(share, "share", 0.0, 1.0)
    if span < 1:
        raise ValueError(f"span must be 1 or more, got {span}")
    mask = torch.zeros(len(lengths), tokens, dtype=torch.bool)
    for row, own in zip(mask, lengths.tolist(), strict=True):
        length = min(span, own - 1)
        if length < 1:
            continue
        count = max(int(share * own / span + float(torch.rand(()))), 2)
        starts = torch.randperm(max(own - length, 1))[:count]
        row[(starts.unsqueeze(1) + torch.arange(length)).flatten()] = True
    return mask


def clip_views(
    samples: Sequence[Mapping[str, Any]],
    *,
    mixup: float = 0.4,
    freq_scale: Range = (0.6, 1.5),
    time_scale: Range = (0.6, 1.5),
    canvas: tuple[float, float] = (1.0, 1.5),
) -> dict[str, Any]:
    """Make a batch for ATST-Clip: two crops of each file, each mixed with another clip, cropped and stretched.

    Partners of the mixture are the other clips of the batch, where the authors keep the last 2000 spectrograms of each
    worker: nothing has to be remembered, and a batch is the same whoever loads it. A view counts as a whole, padding
    too, since stretching moves its end.

    Args:
        samples: Of :class:`~limbeck_audiovideo.audio.Recordings` with ``crops=2``.
        mixup: The share of the partner is uniform between 0 and this.
        freq_scale: See :func:`resized_crops`.
        time_scale: See :func:`resized_crops`.
        canvas: See :func:`resized_crops`.

    Returns:
        ``inputs`` with ``views`` ``(N, 2, 1, 64, frames)``; whatever else the samples hold.

    Raises:
        DataError: if the samples do not have two crops.

    Reference:
        arXiv:2306.04186, section III-B.
    """
    batch = stack(samples)
    waveform = batch["inputs"]["waveform"]
    if waveform.ndim != 3 or waveform.shape[1] != 2:
        raise DataError(
            f"ATST-Clip compares two crops of a file, waveforms (N, 2, samples), got {tuple(waveform.shape)}: give the "
            "data set crops=2"
        )
    mel = _front_end()(waveform.flatten(0, 1)).unflatten(0, waveform.shape[:2])
    views = []
    for view in mel.unbind(1):
        other = view[partners(len(view))] if len(view) > 1 else None
        mixed = view if other is None else log_mixup(view, other, mixup * torch.rand(len(view)))
        views.append(resized_crops(mixed, canvas=canvas, freq_scale=freq_scale, time_scale=time_scale))
    return {**batch, "inputs": {"views": torch.stack(views, 1)}}


def frame_views(
    samples: Sequence[Mapping[str, Any]],
    *,
    mixup: float = 0.4,
    freq_scale: Range = (0.6, 1.5),
    time_scale: Range = (1.0, 1.0),
    share: float = 0.65,
    span: int = 5,
) -> dict[str, Any]:
    """Make a batch for ATST-Frame: each clip as it is, and mixed and warped in frequency, with one mask for both.

    Args:
        samples: Of :class:`~limbeck_audiovideo.audio.Recordings`.
        mixup: The share of the partner, another clip of the batch, is uniform between 0 and this.
        freq_scale: See :func:`resized_crops`.
        time_scale: See :func:`resized_crops`. Anything but (1, 1) moves the tokens of one view against the other's.
        share: See :func:`span_masks`.
        span: See :func:`span_masks`.

    Returns:
        ``inputs`` with ``views`` ``(N, 2, 1, 64, frames)``, ``lengths`` ``(N,)`` in frames and ``mask``
        ``(N, tokens)``; whatever else the samples hold.

    Raises:
        DataError: if the samples have more than one crop.

    Reference:
        arXiv:2306.04186, section IV-B.
    """
    batch = stack(samples)
    waveform, own = batch["inputs"]["waveform"], batch["inputs"]["length"]
    if waveform.ndim != 2:
        raise DataError(
            f"ATST-Frame compares two views of one crop, waveforms (N, samples), got {tuple(waveform.shape)}: give the "
            "data set crops=1"
        )
    front_end = _front_end()
    plain = front_end(waveform)
    lengths = front_end.lengths(own).clamp(max=plain.shape[3])
    mixed = plain
    if len(plain) > 1:
        mixed = log_mixup(plain, plain[partners(len(plain))], mixup * torch.rand(len(plain)))
    wider = max(1.0, time_scale[1])
    warped = resized_crops(mixed, canvas=(1.0, wider), freq_scale=freq_scale, time_scale=time_scale)
    tokens = torch.div(lengths, PATCH, rounding_mode="floor")
    mask = span_masks(plain.shape[3] // PATCH, tokens, share=share, span=span)
    views = {"views": torch.stack([plain, warped], 1), "lengths": lengths, "mask": mask}
    return {**batch, "inputs": views}


def tagging_views(
    samples: Sequence[Mapping[str, Any]],
    *,
    mixup: float | None = 0.5,
    freq_scale: Range = (0.6, 1.5),
    time_scale: Range = (0.6, 1.5),
    canvas: tuple[float, float] = (1.0, 1.5),
) -> dict[str, Any]:
    """Make a batch for fine-tuning: spectrograms mixed together with their labels, cropped and stretched.

    Args:
        samples: Of :class:`~limbeck_audiovideo.audio.Recordings` with several labels a clip (zeros and ones).
        mixup: Both parameters of the Beta distribution of the clip's own share; ``None`` mixes nothing.
        freq_scale: See :func:`resized_crops`.
        time_scale: See :func:`resized_crops`.
        canvas: See :func:`resized_crops`.

    Returns:
        ``inputs`` with ``mel`` ``(N, 1, 64, frames)``, and ``targets``, mixed alike, ``(N, C)``.

    Raises:
        ShapeError: if labels are to be mixed and are class indices.

    Reference:
        arXiv:2306.04186, section V; Zhang et al., mixup, arXiv:1710.09412.
    """
    batch = stack(samples)
    mel, targets = _front_end()(batch["inputs"]["waveform"]), batch["targets"]
    if mixup is not None and len(mel) > 1:
        if targets.ndim != 2:
            raise ShapeError(
                f"mixed clips have shares of labels: give targets (clips, classes), got {tuple(targets.shape)}; the "
                "data set makes them with several=True"
            )
        share = 1 - Beta(mixup, mixup).sample((len(mel),))
        other = partners(len(mel))
        mel = log_mixup(mel, mel[other], share)
        targets = torch.lerp(targets.float(), targets[other].float(), share.unsqueeze(1))
    mel = resized_crops(mel, canvas=canvas, freq_scale=freq_scale, time_scale=time_scale)
    return {**batch, "inputs": {"mel": mel}, "targets": targets}
