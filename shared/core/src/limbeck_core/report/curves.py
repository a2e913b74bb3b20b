"""Curves over a run: one thin line a seed, one bold line for their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from limbeck_core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by all common kinds of colour vision
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def draw_curves(
    curves: Mapping[str, Sequence[Sequence[float]]], *, x_label: str, y_label: str, title: str = ""
) -> Figure:
    """Draw values over epochs or steps.

    Args:
        curves: For each name one sequence of values a seed; all of one name have one length.
        x_label: What is counted, from 1.
        y_label: What is measured, with its unit.
        title: Above the picture.

    Returns:
        A matplotlib figure, not known to any window or global state.

    Raises:
        ConfigError: if there is nothing to draw, or the seeds of one name have several lengths.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  loaded only where pictures are made
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    if not any(len(run) for runs in curves.values() for run in runs):
        raise ConfigError("there is nothing to draw: give each curve at least one value")
    figure = Figure(figsize=(7.2, 4.2))
    axes = figure.subplots()
    for index, (name, runs) in enumerate(curves.items()):
        lengths = {len(run) for run in runs}
        if len(lengths) != 1:
            raise ConfigError(f"the seeds of {name!r} have {sorted(lengths)} values: draw runs of one length together")
        values, colour = np.asarray(runs, dtype=float), COLOURS[index % len(COLOURS)]
        positions = np.arange(1, values.shape[1] + 1)
        if len(values) > 1:
            axes.plot(positions, values.T, color=colour, linewidth=0.7, alpha=0.45)
        axes.plot(positions, values.mean(0), color=colour, linewidth=2.2, label=name)
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # there is no epoch two and a half
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return figure
