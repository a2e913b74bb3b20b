"""Reliability and risk-coverage curves as PNG files, in colours that colour-blind readers tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from limbeck_vision.evaluation.measures import Reliability, RiskCoverage

# Okabe and Ito, Color Universal Design, 2008; lines also differ in marker and dashes
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", "-.", ":")


def draw_reliability(curves: Mapping[str, Reliability], path: str | Path, *, title: str = "Reliability") -> Path:
    """Draw accuracy against confidence, and below it how many samples have which confidence.

    Args:
        curves: What :func:`~limbeck_vision.evaluation.reliability` gives, by name of the model.
        path: PNG file to write.
        title: Title of the picture.

    Returns:
        The path.
    """
    figure, (upper, lower) = _figure((5, 6), rows=[3, 1])
    upper.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="perfectly calibrated")
    for number, (name, curve) in enumerate(curves.items()):
        style = _style(number)
        filled = [(x, y) for x, y in zip(curve.confidence, curve.accuracy, strict=True) if x is not None]
        upper.plot(*zip(*filled, strict=True), **style, marker=_MARKERS[number % len(_MARKERS)], label=name)
        total = sum(curve.samples)
        lower.stairs([count / total for count in curve.samples], curve.edges, **style)
    upper.set(title=title, ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    lower.set(xlabel="confidence", ylabel="share of samples", xlim=(0, 1), ylim=(0, 1))
    upper.legend(loc="best", frameon=False)  # models that doubt themselves fill the upper left, others the lower right
    return _save(figure, path)


def draw_risk_coverage(
    curves: Mapping[str, RiskCoverage], path: str | Path, *, title: str = "Risk and coverage"
) -> Path:
    """Draw the error rate among the most confident samples against their share.

    Args:
        curves: What :func:`~limbeck_vision.evaluation.risk_coverage` gives, by name of the model.
        path: PNG file to write.
        title: Title of the picture.

    Returns:
        The path.
    """
    figure, (axes,) = _figure((5, 4), rows=[1])
    for number, (name, curve) in enumerate(curves.items()):
        axes.plot(curve.coverage, curve.risk, **_style(number), label=name)
    axes.set(title=title, xlabel="coverage (share of samples answered)", ylabel="risk (share of errors)", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left", frameon=False)
    return _save(figure, path)


def _figure(size: tuple[float, float], rows: Sequence[int]) -> tuple[Any, list[Any]]:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)  # no window system, and no state shared with the user's own plots
    axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": rows})[:, 0].tolist()
    for each in axes:
        each.grid(alpha=0.3)
    return figure, axes


def _style(number: int) -> dict[str, Any]:
    return {"color": _COLOURS[number % len(_COLOURS)], "linestyle": _DASHES[number % len(_DASHES)], "linewidth": 1.5}


def _save(figure: Any, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=150)
    return path
