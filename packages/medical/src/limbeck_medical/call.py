"""How segmentation networks are called: crops in training, sliding windows over whole volumes in evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.inferers import SlidingWindowInferer
from torch import nn

from limbeck_core.calls import Batch, TensorCall
from limbeck_core.checks import check_between


class SlidingWindowCall(TensorCall):
    """Models from ``(N, C, ...)`` to class scores of the same size, predicting by MONAI's sliding windows.

    Training sees the crops as they are. A volume smaller than the window is padded and cut back.

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
        self.inferer = SlidingWindowInferer(roi_size=tuple(window), sw_batch_size=windows, overlap=overlap, mode=mode)

    def predict(self, model: nn.Module, batch: Batch, view: str) -> Any:
        """Return class scores ``(N, K, ...)`` of whole volumes."""
        return self.inferer(batch[view], model)
