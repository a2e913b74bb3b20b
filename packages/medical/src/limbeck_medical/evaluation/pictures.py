"""Slices of a volume with outlines of truth and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from limbeck_core.errors import ShapeError

COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#d55e00", "#cc79a7", "#f0e442", "#0072b2")
_PLANES = ("sagittal", "coronal", "axial")  # of axes 0, 1 and 2 in RAS orientation

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def draw_overlay(
    image: npt.ArrayLike,
    target: npt.ArrayLike | None,
    prediction: npt.ArrayLike,
    path: str | Path,
    *,
    classes: Sequence[str],
    spacing: Sequence[float] | None = None,
    title: str = "",
) -> Path:
    """Draw one slice along each axis where the truth (or else the prediction) is largest, or the picture itself.

    Truth is outlined in full lines, the prediction in dashed ones; a colour is a structure.

    Args:
        image: Intensities, two or three axes.
        target: Class of each voxel, same shape; ``None`` without a truth.
        prediction: Class of each voxel, same shape.
        path: PNG file; its folder is made.
        classes: Names by label, the background first.
        spacing: Voxel size by axis, so that slices are not distorted. Default: 1.
        title: Put above.

    Returns:
        The path.

    Raises:
        ShapeError: if shapes differ or have not two or three axes.
    """
    values, predicted = np.asarray(image, dtype=np.float64), np.asarray(prediction, dtype=np.int64)
    truth = None if target is None else np.asarray(target, dtype=np.int64)
    if (
        values.ndim not in (2, 3)
        or values.shape != predicted.shape
        or (truth is not None and truth.shape != values.shape)
    ):
        shapes = [values.shape, None if truth is None else truth.shape, predicted.shape]
        raise ShapeError(f"image, target and prediction must have one shape of two or three axes, got {shapes}")
    steps = [1.0] * values.ndim if spacing is None else [float(step) for step in spacing]
    low, high = np.percentile(values, [1, 99])
    views = _views(values.shape, truth if truth is not None and truth.any() else predicted)
    figure = Figure(figsize=(4 * len(views), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (name, place, axes) in enumerate(views, 1):
        plot = figure.add_subplot(1, len(views), number)
        aspect = steps[axes[1]] / steps[axes[0]]
        plot.imshow(values[place].T, cmap="gray", vmin=low, vmax=max(high, low + 1e-9), origin="lower", aspect=aspect)
        for labels, style in ((truth, "solid"), (predicted, "dashed")):
            for label in range(1, len(classes)) if labels is not None else ():
                shape = (labels[place] == label).T  # type: ignore[index]  # not None here
                if shape.any():
                    colour = COLOURS[(label - 1) % len(COLOURS)]
                    plot.contour(shape, levels=[0.5], colors=[colour], linestyles=style, linewidths=1.5)
        plot.set_title(name, fontsize=9)
        plot.set_axis_off()
    handles = [Line2D([], [], color=COLOURS[i % len(COLOURS)], label=name) for i, name in enumerate(classes[1:])]
    if truth is not None:
        handles += [Line2D([], [], color="0.4", label="truth"), Line2D([], [], color="0.4", ls="--", label="predicted")]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    target_path = Path(path)
    target_path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target_path, dpi=110)
    return target_path


def _views(shape: tuple[int, ...], labels: Labels) -> list[tuple[str, tuple[slice | int, ...], tuple[int, int]]]:
    """Name, index and axes of each slice."""
    if len(shape) == 2:
        return [("", (slice(None), slice(None)), (0, 1))]
    found: list[tuple[str, tuple[slice | int, ...], tuple[int, int]]] = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        sizes = (labels > 0).sum(axis=others)
        index = int(sizes.argmax()) if sizes.any() else shape[axis] // 2
        place = tuple(index if other == axis else slice(None) for other in range(3))
        found.append((f"{_PLANES[axis]}, slice {index}", place, (others[0], others[1])))
    return found
