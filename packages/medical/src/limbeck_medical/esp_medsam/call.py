"""How models that know modalities are called."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.calls import TASK, Batch, TensorCall, apply_task_loss
from limbeck_core.errors import MatchError, closest


class SelfPromptingCall(TensorCall):
    """Models called as ``model(images, modality)``: :class:`~limbeck_medical.esp_medsam.model.ESPMedSAM`, its encoders.

    The modality is the batch's field ``modality``, by name and never from a file's name.

    Args:
        modality: Of batches that do not name theirs.
        part: Submodule to run where no output of the whole model is asked for: ``"image_encoder"`` spares the decoder
            when embeddings alone are compared. ``None`` runs the model.

    Raises:
        MatchError: when called, if neither the batch nor ``modality`` says which it is, or the batch lacks a field.
    """

    def __init__(self, *, modality: int | None = None, part: str | None = None) -> None:
        self.modality = modality
        self.part = part

    def loss(self, model: nn.Module, batch: Batch, view: str, task_loss: nn.Module | None) -> dict[str, Any]:
        """Run the student; a task loss takes its whole output and ``batch["targets"]``."""
        if task_loss is None:
            self.capture(model, batch, view)
            return {}
        return {TASK: apply_task_loss(task_loss, self._run(model, batch, view), self._field(batch, "targets"))}

    def capture(self, model: nn.Module, batch: Batch, view: str) -> Any:
        """Run the model, or its ``part``."""
        return self._run(model if self.part is None else model.get_submodule(self.part), batch, view)

    def predict(self, model: nn.Module, batch: Batch, view: str) -> Tensor:
        """Return scores ``(N, 2, H, W)`` of background (always 0) and foreground, as evaluators take them."""
        masks = self._run(model, batch, view)["masks"]
        return torch.cat([torch.zeros_like(masks), masks], 1)

    def _run(self, model: nn.Module, batch: Batch, view: str) -> Any:
        modality = batch.get("modality", self.modality)
        if modality is None:
            raise MatchError(
                "the batch does not name its modality: take the data from MultiModalDataset, or give "
                "SelfPromptingCall(modality=...)"
            )
        return model(self._field(batch, view), modality)

    @staticmethod
    def _field(batch: Batch, name: str) -> Any:
        if name not in batch:
            raise MatchError(f"the call needs {name!r} of the batch: {closest(name, [str(key) for key in batch])}")
        return batch[name]
