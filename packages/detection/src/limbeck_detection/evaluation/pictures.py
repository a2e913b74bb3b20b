"""Pictures of boxes: what is there, and what a detector finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from limbeck_core.errors import DataError

# Okabe and Ito, Color Universal Design, 2008
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def draw_detections(
    images: Sequence[Tensor],
    rows: Mapping[str, Sequence[Mapping[str, Tensor]]],
    path: str | Path,
    *,
    classes: Sequence[str],
    threshold: float = 0.5,
) -> Path:
    """Draw images in columns and, below one another, the boxes of the truth and of several detectors.

    Args:
        images: Float ``(3, H, W)`` in [0, 1], one for each column.
        rows: For each title, ``labels`` and ``boxes`` (x1, y1, x2, y2 in pixels of the image) of every image, and
            ``scores`` where a detector found them; the score is written at the box.
        path: PNG file to write.
        classes: Names of the classes, by label.
        threshold: Detections with a lower score are not drawn.

    Returns:
        The path.
    """
    figure = Figure(figsize=(2.1 * len(images), 2.2 * len(rows) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(images), squeeze=False)
    for line, (title, found) in zip(axes, rows.items(), strict=True):
        for axis, image, boxes in zip(line, images, found, strict=True):
            axis.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            _draw(axis, boxes, threshold)
        line[0].set_ylabel(title)
    handles = [Rectangle((0, 0), 1, 1, fill=False, edgecolor=colour_of(i), linewidth=2) for i in range(len(classes))]
    figure.legend(handles, list(classes), loc="outside lower center", ncols=len(classes), frameon=False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def draw_precision_recall(curves: Mapping[str, Sequence[float]], path: str | Path, *, most: int = 7) -> Path:
    """Draw precision over recall, one line a class, and their mean.

    Args:
        curves: The curves of :func:`~limbeck_detection.evaluation.numbers_and_curves`.
        path: PNG file to write.
        most: So many classes get a line, those with the least area first, since they need a look; the mean is of all.

    Returns:
        The path.

    Raises:
        DataError: if there is no curve.
    """
    if not curves:
        raise DataError("there is no class with an object, so there are no curves to draw")
    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    recalls = np.linspace(0, 1, len(next(iter(curves.values()))))
    weakest = sorted(curves, key=lambda name: float(np.mean(curves[name])))[:most]
    for number, name in enumerate(weakest):
        axis.plot(recalls, curves[name], color=colour_of(number), linewidth=1.2, label=name)
    axis.plot(recalls, np.mean(list(curves.values()), axis=0), color="black", linewidth=2.4, label="mean of all")
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axis.legend(fontsize=8, frameon=False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _draw(axis: Any, boxes: Mapping[str, Tensor], threshold: float) -> None:
    scores = boxes.get("scores")
    for number, (box, label) in enumerate(zip(boxes["boxes"].tolist(), boxes["labels"].tolist(), strict=True)):
        score = None if scores is None else float(scores[number])
        if score is not None and score < threshold:
            continue
        left, top, right, bottom = box
        colour = colour_of(int(label))
        axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.8))
        if score is not None:
            style = {"facecolor": colour, "edgecolor": "none", "pad": 0.6}
            axis.text(left, top, f"{score:.2f}", color="white", fontsize=6, va="bottom", bbox=style)


def colour_of(label: int) -> str:
    """Colour of a label, of seven that colour-blind people tell apart as well."""
    return _COLOURS[label % len(_COLOURS)]
