"""How the peers of MACIL-SD are called: losses by peer, and the frames' logits of the first as the prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from limbeck_core.calls import Batch, TensorCall


class BagCall(TensorCall):
    """As :class:`~limbeck_core.calls.TensorCall`; a prediction is ``frame_logits`` of the first peer, ``(B, T)``."""

    def predict(self, model: nn.Module, batch: Batch, view: str) -> Tensor:
        """Return the logits of the frames."""
        output: Any = super().predict(model, batch, view)
        logits: Tensor = output["frame_logits"] if isinstance(output, Mapping) else output
        return logits


__all__ = ["BagCall"]
