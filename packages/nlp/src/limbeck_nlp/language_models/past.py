"""The student as it was at the end of the epoch before, as a teacher on every token (PS-KD for text)."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limbeck_core.checks import check_between
from limbeck_core.schedules import Progress, Schedule
from limbeck_core.tap import unwrap
from limbeck_core.teacher import Teacher


class PastModel(Teacher):
    """A copy of the student from the end of the epoch before; it runs in evaluation mode, so without dropout.

    A bank of predictions, as the core keeps for images, would hold every token times the vocabulary; a copy of the
    weights does not grow with the data. ``TokenDistiller`` takes the copy when the run tells it of a new epoch.
    In the first epoch it is the student before training, so give its match the weight :class:`PastWeight`, which is
    zero then. Copy and epoch are in the checkpoint.

    Args:
        student: The model to copy. In a config, leave it out: the distiller passes its student.

    Reference:
        Kim et al., Self-Knowledge Distillation with Progressive Refinement of Targets, arXiv:2006.12000, section 3.2;
        the released code for images offers the last epoch's model as well.
    """

    stateful = True
    needs_student = True

    def __init__(self, student: nn.Module) -> None:
        super().__init__(copy.deepcopy(unwrap(student)))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self.epoch: Tensor

    def follow(self, student: nn.Module, progress: Progress) -> None:
        """Copy the student if an epoch has begun since the last copy; call it before each step.

        Args:
            student: The model.
            progress: Where the run stands.
        """
        if progress.epoch == int(self.epoch):
            return
        self.epoch.fill_(progress.epoch)
        self.copy_weights(student)

    @torch.no_grad()
    def copy_weights(self, student: nn.Module) -> None:
        """Copy the student now, for example because its weights were loaded after this teacher was made."""
        state = unwrap(student).state_dict()
        for name, value in self.model.state_dict().items():
            value.copy_(state[name])


@dataclass(frozen=True)
class PastWeight(Schedule):
    r"""Weight of the past self: zero in the first epoch, then :math:`\alpha_T (e + 1) / E` for epoch e of E, from 0.

    The label gets the rest: ``task_weight=Complement(PastWeight(...))``.

    Args:
        value: :math:`\alpha_T`, the weight in the last epoch. 0.8 for images; for translation 0.7 is recalled, not
            verified.

    Raises:
        ValueError: if it is no share.
        ConfigError: when called, if the number of epochs is not known.

    Reference:
        Kim et al., arXiv:2006.12000, eq. 6.
    """

    value: float

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        check_between(self.value, "value", 0.0, 1.0)

    def __call__(self, progress: Progress) -> float:
        """Return the weight of this epoch."""
        if not progress.epoch:
            return 0.0
        return self.value * min((progress.epoch + 1) / progress.length("epoch", self), 1.0)
