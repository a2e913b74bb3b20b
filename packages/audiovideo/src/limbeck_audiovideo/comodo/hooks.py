"""What COMODO does before the first step: fill the queue."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from mmengine.hooks import Hook
from torch.utils.data import Dataset, default_collate

from limbeck_audiovideo.comodo.losses import SimilarityQueueLoss
from limbeck_core import Distiller, Match
from limbeck_core.engine.state import isolated
from limbeck_core.errors import ConfigError, closest
from limbeck_core.tap import unwrap


class FillQueue(Hook):  # type: ignore[misc]  # mmengine is untyped
    """Fill a match's queue with the teacher's rows of training clips drawn at random, before the first step.

    A run that is resumed, or whose queue holds rows already, is left alone. With fewer clips than the queue has rows,
    all of them enter, with a warning (the reference stops there). The reference leaves the drawn clips out of its first
    epoch; here they are trained on from the start, since the loss takes the clip's own row as a candidate anyway.

    Args:
        match: Name of the match whose loss is a :class:`~limbeck_audiovideo.comodo.losses.SimilarityQueueLoss`.
        seed: Draws the clips; every rank draws the same.
        batch_size: Clips that the teacher takes at once.

    Raises:
        ConfigError: if the model has no such match, or the match has no queue; when training begins.
    """

    def __init__(self, match: str = "comodo", *, seed: int = 42, batch_size: int = 64) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size of FillQueue must be 1 or more, got {batch_size!r}")
        self.match, self.seed, self.batch_size = match, seed, batch_size

    def before_train(self, runner: Any) -> None:
        """Fill the queue, if it is empty."""
        distiller: Distiller = unwrap(runner.model)  # type: ignore[assignment]
        if self.match not in distiller.matches:
            raise ConfigError(
                f"FillQueue fills the queue of the match {self.match!r}: {closest(self.match, distiller.matches)}"
            )
        match: Match = distiller.matches[self.match]  # type: ignore[assignment]
        if not isinstance(match.loss, SimilarityQueueLoss):
            raise ConfigError(
                f"FillQueue needs a SimilarityQueueLoss in the match {self.match!r}, got {type(match.loss).__name__}"
            )
        if not match.loss.filled:
            self._fill(distiller, match, runner.train_loop.dataloader.dataset)

    @torch.no_grad()
    def _fill(self, distiller: Distiller, match: Match, dataset: Dataset[Any]) -> None:
        queue: SimilarityQueueLoss = match.loss
        size, clips = len(queue.queue), len(dataset)  # type: ignore[arg-type]
        if clips <= size:
            warnings.warn(
                f"the queue has {size} rows and the training set {clips} clips: all of them enter, and once it is full "
                "the queue holds clips twice; a queue_size below the number of clips is meant",
                stacklevel=2,
            )
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randperm(clips, generator=generator)[:size].tolist()
        plain = getattr(dataset, "dataset", dataset)  # without the loop's own keys and seeds
        device = next(distiller.parameters()).device
        (tap,) = match.teacher
        owner = distiller.teacher if tap.of in (None, "teacher") else distiller.teachers[tap.of]
        name = next(name for name, teacher in distiller.teachers.items() if teacher is owner)
        # not through a loader, which would deal the clips out to the ranks: every rank needs the same queue
        with isolated(self.seed):
            for start in range(0, len(drawn), self.batch_size):
                batch = default_collate([plain[index] for index in drawn[start : start + self.batch_size]])
                moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
                queue.enqueue(_adapted(match, distiller.read_teachers(moved, [name])[name][tap]))


def _adapted(match: Match, value: Any) -> torch.Tensor:
    adapter = match.teacher_adapter
    adapted: torch.Tensor = value if adapter is None else adapter(value)
    return adapted


__all__ = ["FillQueue"]
