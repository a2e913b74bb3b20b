"""How the distiller calls a detector of lidar points: every network of a step gets the same pillars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from limbeck_core.errors import MatchError, closest
from limbeck_detection.pointpillars.pillars import PillarGrid, Pillars


class LidarCall:
    """Detectors that take points, or pillars, and targets, and return their own losses by name.

    Points of a batch are voxelised once, by the first network that is called on them (the student); networks with the
    same grid are given the same pillars, so that their features belong to each other row by row.
    """

    def __init__(self) -> None:
        self._last: tuple[Any, PillarGrid, Pillars] | None = None

    def loss(
        self, model: nn.Module, batch: Mapping[str, Any], view: str, task_loss: nn.Module | None
    ) -> dict[str, Tensor]:
        """Run the student with its targets.

        Raises:
            MatchError: if a task loss is given, which these models carry inside, or the batch lacks points or targets.
        """
        if task_loss is not None:
            raise MatchError("a detector of lidar points brings its own losses: leave task_loss out")
        losses: dict[str, Tensor] = model(self._inputs(model, batch, view), _field(batch, "targets"))
        return losses

    def capture(self, model: nn.Module, batch: Mapping[str, Any], view: str) -> Any:
        """Run a model without targets."""
        return model(self._inputs(model, batch, view))

    def predict(self, model: nn.Module, batch: Mapping[str, Any], view: str) -> list[dict[str, Tensor]]:
        """Return the detections of each scene: ``boxes``, ``scores`` and ``labels``, best first."""
        found: list[dict[str, Tensor]] = model.predict(self._inputs(model, batch, view))  # type: ignore[operator]
        return found

    def _inputs(self, model: nn.Module, batch: Mapping[str, Any], view: str) -> Any:
        points = _field(batch, view)
        grid = getattr(model, "grid", None)
        if not isinstance(grid, PillarGrid) or isinstance(points, Pillars):
            return points
        if self._last is None or self._last[0] is not points or self._last[1] != grid:
            self._last = (points, grid, model.voxelize(points))  # type: ignore[operator]
        return self._last[2]


def _field(batch: Mapping[str, Any], name: str) -> Any:
    if name not in batch:
        raise MatchError(f"a detector needs {name!r} of the batch: {closest(name, [str(key) for key in batch])}")
    return batch[name]
