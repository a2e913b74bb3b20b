"""What a work folder's logs say: values over steps, whichever number of times the run was killed and gone on with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from limbeck_core.errors import DataError, closest
from limbeck_core.report.curves import draw_curves
from limbeck_core.report.page import Report

_COUNTERS = ("step", "iter", "epoch", "lr", "time", "data_time", "memory")


@dataclass
class RunLog:
    """Scalars of one run, by name.

    Args:
        folder: The work folder.
        training: Losses and the like: step -> value.
        validation: Metrics of the validations: step or epoch -> value.
    """

    folder: Path
    training: dict[str, dict[int, float]] = field(default_factory=dict)
    validation: dict[str, dict[int, float]] = field(default_factory=dict)

    def history(self, metric: str) -> list[float]:
        """Values of a validation metric in order.

        Raises:
            DataError: if the run logged no such metric, with the closest names.
        """
        if metric not in self.validation:
            raise DataError(f"{self.folder} logged no metric {metric!r}: {closest(metric, sorted(self.validation))}")
        found = self.validation[metric]
        return [found[step] for step in sorted(found)]


def read_run(folder: Path) -> RunLog:
    """Read the logs of a work folder; of a step that several attempts did, the last attempt counts.

    Raises:
        DataError: if the folder holds no logs, or a file is damaged other than by a last line that was cut off.
    """
    files = sorted(folder.glob("*/vis_data/scalars.json"))
    if not files:
        raise DataError(
            f"{folder} holds no logs (expected <time>/vis_data/scalars.json): name a folder that a run wrote"
        )
    log = RunLog(folder)
    for path in files:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                step = int(entry["step"])
            except (ValueError, KeyError, TypeError) as error:
                if number == len(lines):
                    continue  # a run that was killed while it wrote
                raise DataError(f"line {number} of {path} is damaged ({error}): remove it to read the rest") from error
            kind = log.training if "lr" in entry or "iter" in entry else log.validation
            for name, value in entry.items():
                if name not in _COUNTERS and isinstance(value, (int, float)):
                    kind.setdefault(name, {})[step] = float(value)
    return log


def report_runs(folders: Sequence[Path], out: Path) -> Path:
    """Write one page about several runs: last and best value of every metric, and curves of losses and metrics.

    Args:
        folders: Work folders.
        out: Folder of the page and its pictures.

    Returns:
        The page's path.

    Raises:
        DataError: if a folder holds no readable logs.
    """
    logs = {str(folder): read_run(folder) for folder in folders}
    page = Report("Runs", f"{len(logs)} run(s), from their own logs.")
    metrics = list(dict.fromkeys(name for log in logs.values() for name in log.validation))
    if metrics:
        rows = []
        for title, log in logs.items():
            for name in metrics:
                if name in log.validation:
                    values = log.history(name)
                    numbers = (values[-1], min(values), max(values))
                    rows.append([title, name, *(f"{value:.4g}" for value in numbers), len(values)])
        page.heading("Metrics").table(("run", "metric", "last", "smallest", "largest", "validations"), rows)
    for title, source, label in (("Validation", "validation", "validation"), ("Training", "training", "logged step")):
        names = list(dict.fromkeys(name for log in logs.values() for name in getattr(log, source)))
        drawn = [name for name in names if any(len(getattr(log, source).get(name, {})) > 1 for log in logs.values())]
        if drawn:
            page.heading(title)
        for number, name in enumerate(drawn):
            curves = {}
            for run, log in logs.items():
                points = getattr(log, source).get(name, {})
                if points:
                    curves[run] = [[points[step] for step in sorted(points)]]
            picture = draw_curves(curves, x_label=label, y_label=name, title=name)
            page.figure(f"{source}_{number}", picture, alt=f"{name} over the run", caption=f"`{name}`")
    return page.write(out)
