"""An autoencoder of a frozen teacher's maps, as the model to train; and the encoder of it as a teacher's adapter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.adapters import Paraphraser
from limbeck_core.calls import TensorCall
from limbeck_core.tap import Tap
from limbeck_core.teacher import Teacher, as_teacher
from limbeck_core.weights import load_weights
from limbeck_vision.models.normalization import normalization_of


class TeacherAutoencoder(nn.Module):
    """The model of FT's first stage: a frozen teacher reads the images, the paraphraser rebuilds its maps.

    It stands as a distiller's student; its only parameters are the paraphraser's, so a checkpoint holds nothing else.
    The match compares what goes into the encoder with what the decoder gives::

        Match(HintLoss(), "paraphraser.decoder", Tap("paraphraser.encoder", of="student", at="input"))

    Args:
        teacher: The trained teacher, or a config of it.
        path: Where its maps are read: a dotted name in it, giving ``(N, in_channels, H, W)``.
        in_channels: Channels of those maps.
        out_channels: Channels of the factor.

    Raises:
        TapError: if the teacher has no such place.

    Reference:
        Kim et al., Paraphrasing Complex Network: Network Compression via Factor Transfer, arXiv:1802.04977,
        section 3.1.
    """

    def __init__(
        self, teacher: nn.Module | Mapping[str, Any], *, path: str, in_channels: int, out_channels: int
    ) -> None:
        super().__init__()
        self.paraphraser = Paraphraser(in_channels, out_channels)
        # in a tuple: a registered teacher would enter parameters and checkpoints
        self._frozen: tuple[Teacher] = (as_teacher(teacher, nn.Identity()),)
        self._tap = Tap(path)
        self._recorder = self._frozen[0].recorder("teacher", [self._tap])
        self._recorder.attach(self._frozen[0].model)
        self.normalization = normalization_of(self._frozen[0])

    def forward(self, images: Tensor) -> Tensor:
        """Return the rebuilt maps ``(N, in_channels, H, W)`` of normalised images ``(N, 3, H', W')``."""
        teacher = self._frozen[0]
        try:
            teacher.run(self._recorder, TensorCall(), {"inputs": images}, "inputs")
            maps = self._recorder.read(self._tap, teacher.model)
        finally:
            self._recorder.clear()
        return self.paraphraser.reconstruct(maps)

    def _apply(self, fn: Any, recurse: bool = True) -> TeacherAutoencoder:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._frozen[0]._apply(fn)  # type: ignore[no-untyped-call]
        return self


def pretrained_paraphraser(in_channels: int, out_channels: int, checkpoint: str | Path) -> Paraphraser:
    """Return the paraphraser that the first stage trained, frozen: the ``teacher_adapter`` of the second stage.

    Args:
        in_channels: Channels of the teacher's maps.
        out_channels: Channels of the factor.
        checkpoint: ``student.pth`` of the first stage. On the meta device, where a config is only looked at, nothing
            is read.

    Raises:
        CheckpointError: if the file is missing, damaged, unsafe, or of another shape.
    """
    paraphraser = Paraphraser(in_channels, out_channels)
    if torch.get_default_device().type != "meta":
        load_weights(nn.ModuleDict({"paraphraser": paraphraser}), Path(checkpoint))
    return paraphraser.requires_grad_(False)
