"""Pictures of audio: spectrograms, events in time beside what was found, confusion of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from limbeck_audiovideo.audio.tables import Event
from limbeck_core.errors import ShapeError

_TRUE, _FOUND = "#0072B2", "#D55E00"  # Okabe and Ito: told apart by colour-blind readers


def draw_spectrograms(
    spectrograms: Mapping[str, Tensor], path: str | Path, *, columns: int = 2, hop: float = 0.01
) -> Path:
    """Draw log-mel spectrograms side by side.

    Args:
        spectrograms: By title, ``(1, mels, frames)`` or ``(mels, frames)``.
        path: PNG file to write.
        columns: Pictures in a row.
        hop: Seconds from frame to frame.

    Returns:
        The path.

    Raises:
        ShapeError: if there is no spectrogram, or one has another form.
    """
    if not spectrograms:
        raise ShapeError("there is no spectrogram to draw")
    rows = -(-len(spectrograms) // columns)
    figure = _figure((4.5 * columns, 2.2 * rows))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(spectrograms) :]:
        axis.set_axis_off()
    for axis, (title, mel) in zip(axes, spectrograms.items(), strict=False):
        picture = mel.squeeze(0)
        if picture.ndim != 2:
            raise ShapeError(f"a spectrogram is (1, mels, frames), got {tuple(mel.shape)} for {title!r}")
        extent = (0, picture.shape[1] * hop, 0, picture.shape[0])
        axis.imshow(picture.detach().cpu().numpy(), origin="lower", aspect="auto", cmap="magma", extent=extent)
        axis.set(title=title, xlabel="seconds", ylabel="mel band")
    return _save(figure, path)


def draw_timeline(
    found: Sequence[Event],
    truth: Sequence[Event] | None,
    classes: Sequence[str],
    path: str | Path,
    *,
    seconds: float,
    title: str = "",
) -> Path:
    """Draw events of a recording, a line a class: the truth above, what was found below.

    Args:
        found: Events that a model found.
        truth: True events; ``None`` where they are not known.
        classes: Names of the classes.
        path: PNG file to write.
        seconds: Length of the recording.
        title: Title of the picture.

    Returns:
        The path.
    """
    figure = _figure((8, 0.8 + 0.4 * len(classes)))
    axis = figure.subplots()
    sides = [(found, _FOUND, "found", -0.35)] + ([(truth, _TRUE, "truth", 0.0)] if truth is not None else [])
    for events, colour, name, shift in sides:
        for row, label in enumerate(classes):
            bars = [(event.onset, event.offset - event.onset) for event in events if event.label == label]
            axis.broken_barh(bars, (row + shift, 0.33), facecolors=colour, label=name if row == 0 else None)
    axis.set(title=title, xlabel="seconds", xlim=(0, seconds), ylim=(-0.6, len(classes) - 0.4))
    axis.set_yticks(range(len(classes)), classes)
    axis.grid(axis="x", alpha=0.3)
    axis.legend(loc="upper right", frameon=True)
    return _save(figure, path)


def draw_confusion(
    counts: npt.NDArray[np.int64], classes: Sequence[str], path: str | Path, *, title: str = "Confusion"
) -> Path:
    """Draw how often each class (row) was taken for which (column), as a share of the row.

    Args:
        counts: ``(C, C)``, true classes in rows.
        classes: Names of the C classes.
        path: PNG file to write.
        title: Title of the picture.

    Returns:
        The path.

    Raises:
        ShapeError: if the table is not one of these classes.
    """
    if counts.shape != (len(classes), len(classes)):
        raise ShapeError(f"the table of {len(classes)} classes is square, got {counts.shape}")
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = max(4.0, 0.5 * len(classes) + 1.5)
    figure = _figure((size, size))
    axis = figure.subplots()
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 20:
        for row, column in np.ndindex(*counts.shape):
            if counts[row, column]:
                dark = shares[row, column] > 0.5
                axis.text(
                    column, row, counts[row, column], ha="center", va="center", color="white" if dark else "black"
                )
    axis.set(title=title, xlabel="answer", ylabel="truth")
    axis.set_xticks(range(len(classes)), classes, rotation=60, ha="right")
    axis.set_yticks(range(len(classes)), classes)
    return _save(figure, path)


def _figure(size: tuple[float, float]) -> Any:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)  # no window system, and no state shared with the user's own plots
    return figure


def _save(figure: Any, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
