"""A progress line with the remaining time and the losses of the step, in a terminal; elsewhere the log's lines do."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_SHOWN = 4


class ProgressBarHook(Hook):
    """Show the steps done, the remaining time, and the losses of the step.

    In a terminal one line at the bottom is kept up to date, and the log goes on above it. Without a terminal nothing is
    drawn: MMEngine's ``LoggerHook`` writes plain lines with the remaining time.

    Args:
        every: Read the losses every so many steps. Reading waits for an accelerator, drawing does not.
        console: Where to draw; standard error by default.
    """

    priority = "VERY_LOW"

    def __init__(self, *, every: int = 10, console: Console | None = None) -> None:
        self.every = max(1, every)
        self._console = console
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._handlers: list[tuple[logging.StreamHandler[Any], Any]] = []

    def before_train(self, runner: Any) -> None:
        """Draw the line, if there is a terminal."""
        console = self._console or Console(stderr=True)
        if not console.is_terminal or not is_main_process():
            return
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            console=console,
        )
        loop = runner.train_loop
        self._task = self._progress.add_task(
            "", total=loop.max_iters, completed=loop.iter, epoch=f"{loop.epoch + 1}/{loop.max_epochs}", losses=""
        )
        for handler in runner.logger.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stdout, sys.stderr):
                self._handlers.append((handler, handler.stream))
                handler.setStream(_Above(self._progress))
        self._progress.start()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Move on by one step."""
        if self._progress is None or self._task is None:
            return
        loop = runner.train_loop
        fields: dict[str, Any] = {"epoch": f"{loop.epoch + 1}/{loop.max_epochs}"}
        if loop.iter % self.every == 0 and isinstance(outputs, Mapping):
            fields["losses"] = shown_losses(outputs)
        self._progress.update(self._task, completed=loop.iter + 1, **fields)

    def after_train(self, runner: Any) -> None:
        """Leave the finished line where it stands."""
        self._close()

    def after_run(self, runner: Any) -> None:
        """Leave the line of a run that was asked to stop."""
        self._close()

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        for handler, stream in self._handlers:
            handler.setStream(stream)
        self._handlers.clear()


class _Above:
    """A stream whose text appears above the line."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def write(self, text: str) -> None:
        self.progress.console.print(text, end="", markup=False, highlight=False, soft_wrap=True)

    def flush(self) -> None:
        """Nothing is held back."""


def shown_losses(outputs: Mapping[str, Any]) -> str:
    """The total and the first few parts of a step's losses, as text."""
    numbers = [
        (name.removeprefix("loss/"), float(value))
        for name, value in outputs.items()
        if isinstance(value, (int, float)) or (isinstance(value, torch.Tensor) and value.numel() == 1)
    ]
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers[:_SHOWN])
