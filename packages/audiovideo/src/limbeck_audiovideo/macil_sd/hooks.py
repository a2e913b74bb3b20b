"""MACIL-SD's self-distillation: after each epoch the weights of one peer move towards another's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import nn

from limbeck_core.engine.checkpoints import student_of
from limbeck_core.engine.hooks import progress_of
from limbeck_core.errors import ConfigError
from limbeck_core.schedules import Progress, Schedule, as_schedule
from limbeck_core.tap import resolve


class PeerAveraging(Hook):  # type: ignore[misc]  # mmengine is untyped
    r"""Average the parameters that two peers share by name into one of them, once an epoch.

    .. math:: \theta_t \leftarrow m \, \theta_t + (1 - m) \, \theta_s

    Args:
        target: Dotted name, in the student, of the peer that changes.
        source: Dotted name of the peer that it follows.
        momentum: :math:`m` in [0, 1]; a number or a schedule over epochs. The paper's is
            ``Cosine(0.91, 1.0, until=50, by="epoch")``.
        exclude: Beginnings of parameter names that stay as they are.

    Raises:
        ConfigError: if the peers share no parameter of one shape; when training begins.

    Reference:
        Yu et al., arXiv:2207.05500, section on self-distillation.
    """

    def __init__(
        self,
        *,
        target: str = "av",
        source: str = "v",
        momentum: float | Schedule | dict[str, Any] = 0.91,
        exclude: Sequence[str] = ("fc_a",),
    ) -> None:
        self.target, self.source, self.exclude = target, source, tuple(exclude)
        self.momentum = as_schedule(momentum)

    def before_train(self, runner: Any) -> None:
        """Refuse peers that share nothing."""
        if not self.shared(student_of(runner.model)):
            raise ConfigError(
                f"the peers {self.target!r} and {self.source!r} share no parameter by name and shape: nothing would be "
                "averaged"
            )

    def after_train_epoch(self, runner: Any) -> None:
        """Move the target towards the source."""
        self.average(student_of(runner.model), progress_of(runner))

    def shared(self, student: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Pairs of parameters (target, source) that are averaged."""
        mine, theirs = (
            dict(resolve(student, path, "student").named_parameters())  # type: ignore[union-attr]
            for path in (self.target, self.source)
        )
        return [
            (mine[name], theirs[name])
            for name in mine
            if name in theirs and mine[name].shape == theirs[name].shape and not name.startswith(self.exclude)
        ]

    @torch.no_grad()
    def average(self, student: nn.Module, progress: Progress) -> None:
        """Average once, at this point of the run."""
        momentum = self.momentum(progress)
        for target, source in self.shared(student):
            target.mul_(momentum).add_(source, alpha=1 - momentum)


__all__ = ["PeerAveraging"]
