"""From waveforms to frozen embeddings, for probes; and from a long file to scores every 40 ms in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from limbeck_audiovideo.atst.encoder import PATCH, ClipEncoder, FrameEncoder, scene_embedding
from limbeck_audiovideo.atst.tagging import FrameTagger
from limbeck_audiovideo.audio.datasets import TOKEN_SECONDS, Recordings
from limbeck_audiovideo.audio.front_end import LogMel
from limbeck_audiovideo.audio.reading import describe_audio, fit, read_audio
from limbeck_core.engine import stack
from limbeck_core.errors import ShapeError


@torch.no_grad()
def embed_recordings(
    encoder: ClipEncoder | FrameEncoder, dataset: Recordings, *, last: int = 12, batch_size: int = 32
) -> tuple[Tensor, Tensor | None]:
    """Return one frozen vector a recording, and the targets if there are any.

    Args:
        encoder: Runs in evaluation mode, on the device that it is on, and is left in the mode it had.
        dataset: The recordings, one crop each.
        last: Blocks whose outputs are taken; fewer if the encoder has fewer.
        batch_size: Recordings at once.

    Returns:
        Embeddings ``(N, width)`` of :func:`scene_embedding`, and targets as the data set has them.
    """
    device = next(encoder.parameters()).device
    front_end, was_training = LogMel().to(device), encoder.training
    encoder.eval()
    found, targets = [], []
    try:
        for start in range(0, len(dataset), batch_size):
            batch = stack([dataset[index] for index in range(start, min(start + batch_size, len(dataset)))])
            mel = front_end(batch["inputs"]["waveform"].to(device))
            lengths = front_end.lengths(batch["inputs"]["length"].to(device)).clamp(max=mel.shape[3])
            found.append(scene_embedding(encoder, mel, lengths, last=last).cpu())
            if "targets" in batch:
                targets.append(batch["targets"])
    finally:
        encoder.train(was_training)
    return torch.cat(found), torch.cat(targets) if targets else None


@dataclass(frozen=True)
class Stretch:
    """Scores of a part of a recording.

    Args:
        start: When the part begins, in seconds.
        scores: What the model says of every 40 ms, ``(times, C)``.
    """

    start: float
    scores: npt.NDArray[np.float32]


@torch.no_grad()
def stream_frames(
    model: FrameTagger | FrameEncoder,
    path: str | Path,
    *,
    seconds: float = 10.0,
    margin: float = 1.0,
    hidden: bool = False,
) -> Iterator[Stretch]:
    """Score a file of any length every 40 ms, a window at a time.

    Windows overlap by twice the margin, and of each only what lies further than the margin from its borders is given,
    so that every moment is heard with what surrounds it. A recording no longer than a window gives one part, the same
    as the model gives for the whole. Memory does not depend on the length of the file: one window is read, resampled
    and scored at a time. The loudest moment that the front end refers to is that of the window.

    Args:
        model: A :class:`FrameTagger`, whose probabilities are given, or a :class:`FrameEncoder`, whose vectors are.
        path: The file; any rate, any number of channels.
        seconds: Length of a window, a multiple of 40 ms, within the encoder's positions.
        margin: Seconds at either border that the neighbouring window scores, a multiple of 40 ms.
        hidden: Whether logits are given instead of a tagger's probabilities.

    Yields:
        Parts in order, without gap or overlap, as many times together as the file has 40 ms.

    Raises:
        ShapeError: if window and margin do not fit each other or the encoder.
        DataError: if the file cannot be read.
    """
    encoder = model.encoder if isinstance(model, FrameTagger) else model
    front_end = model.front_end if isinstance(model, FrameTagger) else LogMel()
    window, skirt = (round(value / TOKEN_SECONDS) for value in (seconds, margin))
    if not 0 <= 2 * skirt < window or window * PATCH > encoder.max_frames:
        raise ShapeError(
            f"windows must be longer than two margins and no longer than {encoder.max_frames / 100:g} s, got "
            f"{seconds:g} s with margins of {margin:g} s"
        )
    device = next(model.parameters()).device
    front_end = front_end.to(device)
    file = describe_audio(path)
    rate, hop = front_end.rate, front_end.hop * PATCH
    total = max((round(file.seconds * rate) // front_end.hop + 1) // PATCH, 1)
    first = 0
    while True:
        whole = total <= first + window  # the last window hears the rest
        clip = read_audio(path, rate=rate, start=first * TOKEN_SECONDS, seconds=window * TOKEN_SECONDS)
        waveform, _ = fit(clip, max(len(clip), front_end.window_length))
        scores = _score(model, front_end, torch.from_numpy(waveform).unsqueeze(0).to(device), hidden=hidden)
        begin = skirt if first else 0
        end = min(total - first, len(scores)) if whole else window - skirt
        yield Stretch((first + begin) * hop / rate, scores[begin:end])
        if whole:
            return
        first += window - 2 * skirt


def _score(model: nn.Module, front_end: LogMel, waveform: Tensor, *, hidden: bool) -> npt.NDArray[np.float32]:
    was_training = model.training
    model.eval()
    try:
        mel = front_end(waveform)
        output: Any = model(mel=mel)[0] if isinstance(model, FrameTagger) else model(mel)
    finally:
        model.train(was_training)
    scores = output[0] if isinstance(model, FrameEncoder) or hidden else output[0].sigmoid()
    found: npt.NDArray[np.float32] = scores.float().cpu().numpy()
    return found


def whole_scores(parts: Iterator[Stretch]) -> npt.NDArray[np.float32]:
    """All parts of :func:`stream_frames` as one array, for files that fit into memory."""
    return np.concatenate([part.scores for part in parts])
