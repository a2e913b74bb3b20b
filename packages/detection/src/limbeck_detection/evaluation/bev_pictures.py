"""Pictures of lidar scenes from above: points, what is there, and what a detector finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from torch import Tensor

from limbeck_detection.evaluation.pictures import colour_of
from limbeck_detection.rotated import bev_corners


def draw_scenes(
    points: Sequence[Tensor],
    rows: Mapping[str, Sequence[Mapping[str, Tensor]]],
    path: str | Path,
    *,
    classes: Sequence[str],
    truth: Sequence[Mapping[str, Tensor]] | None = None,
    extent: Sequence[float] | None = None,
    threshold: float = 0.3,
) -> Path:
    """Draw scenes in columns and, below one another, the boxes of several detectors, forward being up.

    Args:
        points: Points of each scene, ``(n, 3)`` or wider; shaded by height.
        rows: For each title, ``boxes`` ``(m, 7)`` in the lidar's frame and ``labels`` ``(m,)`` of every scene, and
            ``scores`` where a detector found them.
        path: PNG file to write.
        classes: Names of the classes, by label.
        truth: True boxes of each scene, drawn dashed and black below all others.
        extent: Smallest x and y and greatest x and y shown, in metres. Default: around the points.
        threshold: Detections with a lower score are not drawn.

    Returns:
        The path.
    """
    figure = Figure(figsize=(4.2 * len(points), 4.2 * len(rows) + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(points), squeeze=False)
    for line, (title, found) in zip(axes, rows.items(), strict=True):
        for column, (axis, cloud, boxes) in enumerate(zip(line, points, found, strict=True)):
            _draw_points(axis, cloud)
            if truth is not None:
                _draw_boxes(axis, truth[column], 0.0, colour="black", linestyle="--")
            _draw_boxes(axis, boxes, threshold)
            _frame(axis, cloud, extent)
        line[0].set_ylabel(title)
    handles = [Rectangle((0, 0), 1, 1, fill=False, edgecolor=colour_of(i), linewidth=2) for i in range(len(classes))]
    names = list(classes)
    if truth is not None:
        handles.append(Rectangle((0, 0), 1, 1, fill=False, edgecolor="black", linestyle="--"))
        names.append("truth")
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 2 * len(points)), frameon=False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _draw_points(axis: Any, cloud: Tensor) -> None:
    cloud = cloud.detach().cpu()
    axis.scatter(-cloud[:, 1], cloud[:, 0], c=cloud[:, 2], s=0.4, cmap="Greys", vmin=-4.5, vmax=1.0, linewidths=0)


def _draw_boxes(
    axis: Any, boxes: Mapping[str, Tensor], threshold: float, *, colour: str | None = None, linestyle: str = "-"
) -> None:
    """Outlines, with a stroke from the middle to the front."""
    if not len(boxes["boxes"]):
        return
    flat = boxes["boxes"].detach().cpu()
    corners = bev_corners(flat)
    scores = boxes.get("scores")
    for number, label in enumerate(boxes["labels"].tolist()):
        if scores is not None and float(scores[number]) < threshold:
            continue
        outline = [(-float(y), float(x)) for x, y in corners[number]]
        own = colour or colour_of(int(label))
        axis.add_patch(Polygon(outline, fill=False, edgecolor=own, linewidth=1.3, linestyle=linestyle))
        front = [(a + b) / 2 for a, b in zip(outline[0], outline[3], strict=True)]
        middle = (-float(flat[number, 1]), float(flat[number, 0]))
        axis.plot([middle[0], front[0]], [middle[1], front[1]], color=own, linewidth=1.0)


def _frame(axis: Any, cloud: Tensor, extent: Sequence[float] | None) -> None:
    axis.set(xticks=[], yticks=[], aspect="equal")
    if extent is not None:
        low_x, low_y, high_x, high_y = extent
    elif len(cloud):
        low_x, low_y = (float(value) for value in cloud[:, :2].amin(0))
        high_x, high_y = (float(value) for value in cloud[:, :2].amax(0))
    else:
        low_x, low_y, high_x, high_y = 0.0, -1.0, 1.0, 1.0
    axis.set(xlim=(-high_y, -low_y), ylim=(low_x, high_x))
