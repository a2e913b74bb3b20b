"""How the distiller calls a detector of lidar points: every network of a step gets the same prepared points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from limbeck_core.errors import MatchError, closest


class LidarCall:
    """Detectors that take points, or what they prepared of them, and targets, and return their own losses by name.

    Points of a batch are prepared once (voxelised or sampled), by the first network that is called on them (the
    student). Networks with the same ``preparation`` are given the same, so that their features belong to each other row
    by row.
    """

    def __init__(self) -> None:
        self._last: tuple[Any, Any, Any] | None = None

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
        preparation = getattr(model, "preparation", None)
        if preparation is None:
            return points
        if self._last is None or self._last[0] is not points or self._last[1] != preparation:
            self._last = (points, preparation, model.prepare(points))  # type: ignore[operator]
        return self._last[2]


def _field(batch: Mapping[str, Any], name: str) -> Any:
    if name not in batch:
        raise MatchError(f"a detector needs {name!r} of the batch: {closest(name, [str(key) for key in batch])}")
    return batch[name]
