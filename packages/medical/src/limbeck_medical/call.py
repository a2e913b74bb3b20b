"""How segmentation networks are called: crops in training, sliding windows over whole volumes in evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai.inferers import SlidingWindowInferer
from torch import Tensor, nn

from limbeck_core.calls import Batch, TensorCall
from limbeck_core.checks import check_between
from limbeck_core.errors import ShapeError
from limbeck_core.tap import unwrap
from limbeck_medical.sizes import next_good_sides


class SlidingWindowCall(TensorCall):
    """Models from ``(N, C, ...)`` to class scores of the same size, predicting by MONAI's sliding windows.

    Training sees the crops as they are. A volume smaller than the window is padded and cut back. An exported graph is
    that of one window; ``settings`` stand in its metadata.

    Args:
        window: Sides of the window in voxels, as a rule those of the training crops. Paper of DSD: the same.
        overlap: Share of a window that the next one covers again, 0 or more and below 1.
        windows: Windows that go through the model at once.
        mode: ``"gaussian"`` weighs a window's middle more than its border; ``"constant"`` does not.

    Raises:
        ValueError: if ``overlap`` or ``windows`` is out of range.
    """

    def __init__(
        self, window: Sequence[int], *, overlap: float = 0.25, windows: int = 4, mode: str = "gaussian"
    ) -> None:
        check_between(overlap, "overlap", 0.0, 0.99)
        if windows < 1:
            raise ValueError(f"windows must be 1 or more, got {windows}")
        self.settings: dict[str, Any] = {"window": list(window), "overlap": overlap, "windows": windows, "mode": mode}
        self.inferer = SlidingWindowInferer(roi_size=tuple(window), sw_batch_size=windows, overlap=overlap, mode=mode)

    def capture(self, model: nn.Module, batch: Batch, view: str) -> Any:
        """Run a model on crops.

        Raises:
            ShapeError: if it does not take crops of this size, with the next one that it takes.
        """
        try:
            return super().capture(model, batch, view)
        except RuntimeError as error:
            shape = tuple(batch[view].shape[1:])
            self._explain(model, shape, "crops", error)
            raise

    def predict(self, model: nn.Module, batch: Batch, view: str) -> Any:
        """Return class scores ``(N, K, ...)`` of whole volumes.

        Raises:
            ShapeError: if the model does not take windows of this size, with the next one that it takes.
        """
        try:
            return self.inferer(batch[view], model)
        except RuntimeError as error:
            shape = (batch[view].shape[1], *self.settings["window"])
            self._explain(model, shape, "windows", error)
            raise

    @staticmethod
    def _explain(model: nn.Module, shape: Sequence[int], what: str, error: Exception) -> None:
        """Raise a sentence where sides are what the model refuses."""
        good = next_good_sides(unwrap(model), shape)
        if good is None:
            return
        raise ShapeError(
            f"{type(unwrap(model)).__name__} does not take {what} of {' x '.join(map(str, shape[1:]))} voxels, which "
            f"it cannot halve as often as it does: the next size that it takes is {' x '.join(map(str, good))} "
            f"({error})"
        ) from error

    def serve(self, model: nn.Module, batch: Batch, view: str) -> Mapping[str, Tensor]:
        """Return the scores of windows, which is what an exported graph takes; of whole volumes as ``predict`` does."""
        is_window = list(batch[view].shape[2:]) == self.settings["window"]
        return {"scores": model(batch[view]) if is_window else self.predict(model, batch, view)}

    def difference(self, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
        """Largest difference of scores as a share of the largest score."""
        mine, truth = found["scores"].detach().double(), expected["scores"].detach().double()
        return float((mine - truth).abs().max()) / max(float(truth.abs().max()), 1e-12)
