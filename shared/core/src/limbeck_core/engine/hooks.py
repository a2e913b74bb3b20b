"""Hooks of a distillation run: progress for schedules, moving averages, checkpoints, early stopping.

Hooks that remember something (``state_dict_extra``) are part of the checkpoint. The runner adds those that a run cannot
do without by itself, so that no config can drop them by accident.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import EarlyStoppingHook as MMEarlyStoppingHook
from mmengine.hooks import Hook
from torch import Tensor, nn

from limbeck_core.engine.checkpoints import point_to, save_student, student_of
from limbeck_core.engine.state import just_stepped
from limbeck_core.errors import CheckpointError, ConfigError, closest
from limbeck_core.schedules import Progress, Schedule, as_schedule
from limbeck_core.tap import unwrap
from limbeck_core.teacher import EMATeacher

_GREATER = {"acc", "accuracy", "top", "ap", "ar", "auc", "auroc", "precision", "recall", "f", "dice", "iou", "em"}
_LESS = {"loss", "error", "nll", "ece", "hd", "fpr", "mae", "mse", "rmse", "distance", "perplexity", "wer", "cer"}
Moment = Literal["step", "epoch", "validation", "end"]


def progress_of(runner: Any) -> Progress:
    """Where the run stands: while a step runs, its number; all counts from 0."""
    loop = runner.train_loop
    return Progress(step=loop.iter, epoch=loop.epoch, max_steps=loop.max_iters, max_epochs=loop.max_epochs)


class ProgressHook(Hook):
    """Tell the model before each step where the run stands, if it has ``set_progress``."""

    priority = "VERY_HIGH"

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Pass the step, the epoch, and their maxima on."""
        model: Any = unwrap(runner.model)
        if hasattr(model, "set_progress"):
            model.set_progress(progress_of(runner))


def updatable_teachers(model: nn.Module) -> dict[str, Any]:
    """Teachers of a model that follow the student, by name."""
    teachers = getattr(unwrap(model), "teachers", None)
    if not isinstance(teachers, Mapping):
        return {}
    return {name: teacher for name, teacher in teachers.items() if callable(getattr(teacher, "update", None))}


class EMATeacherHook(Hook):
    """Move the model's moving-average teachers towards the student after each step of the optimiser.

    Batches whose gradients are only accumulated move nothing. The runner adds this hook wherever a teacher has
    ``update(student, progress)``.
    """

    priority = "ABOVE_NORMAL"

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Update every teacher that follows the student."""
        if just_stepped(runner.optim_wrapper):
            for teacher in updatable_teachers(runner.model).values():
                teacher.update(student_of(runner.model), progress_of(runner))


class EMAHook(Hook):
    r"""Keep an exponential moving average of the student, and judge it instead of the student.

    .. math:: \bar\theta \leftarrow m \, \bar\theta + (1 - m) \, \theta

    after each step of the optimiser. Buffers are copied. Checkpoints hold both, the student as it trains in
    ``state_dict`` and the average with this hook's state, so that resuming is exact.

    MMEngine's hook of this name is refused by the runner: it also moves on batches whose gradients are only
    accumulated, copies the whole distiller, and swaps the two sets of weights in the file.

    Args:
        momentum: :math:`m` in [0, 1]; a number or a schedule.

    Reference:
        Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992.
    """

    priority = "ABOVE_NORMAL"

    def __init__(self, momentum: float | Schedule = 0.9998) -> None:
        self.momentum = as_schedule(momentum)
        self.average: nn.Module | None = None
        self._loaded: Mapping[str, Any] | None = None

    def _prepare(self, runner: Any) -> None:
        """Copy the student once its weights are loaded; take back an average from a checkpoint."""
        if self.average is None:
            self.average = copy.deepcopy(student_of(runner.model)).requires_grad_(False)
        if self._loaded is not None:
            self.average.load_state_dict(self._loaded)
            self._loaded = None

    def before_train(self, runner: Any) -> None:
        """Copy the student."""
        self._prepare(runner)

    @torch.no_grad()
    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Move the average towards the student."""
        if not just_stepped(runner.optim_wrapper):
            return
        momentum, student = self.momentum(progress_of(runner)), student_of(runner.model)
        mine: list[Tensor] = list(self._copy().parameters())
        theirs = [parameter.detach() for parameter in student.parameters()]
        if mine:
            torch._foreach_mul_(mine, momentum)
            torch._foreach_add_(mine, theirs, alpha=1 - momentum)
        for own, other in zip(self._copy().buffers(), student.buffers(), strict=True):
            own.copy_(other)

    def _copy(self) -> nn.Module:
        if self.average is None:
            raise ConfigError("EMAHook has no average yet: it is made when training or an evaluation begins")
        return self.average

    @torch.no_grad()
    def _swap(self, runner: Any) -> None:
        self._prepare(runner)
        for own, other in zip(_tensors(self._copy()), _tensors(student_of(runner.model)), strict=True):
            held = own.clone()
            own.copy_(other)
            other.copy_(held)

    def before_val_epoch(self, runner: Any) -> None:
        """Let the average be judged."""
        self._swap(runner)

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        """Let the student train on."""
        self._swap(runner)

    def before_test_epoch(self, runner: Any) -> None:
        """Let the average be judged."""
        self._swap(runner)

    def after_test_epoch(self, runner: Any, metrics: Any = None) -> None:
        """Put the student back."""
        self._swap(runner)

    def state_dict_extra(self) -> Mapping[str, Any]:
        """The average's weights."""
        return {"average": dict(self._copy().state_dict())}

    def load_state_dict_extra(self, state: Mapping[str, Any]) -> None:
        """Put the average's weights back when training or an evaluation begins."""
        self._loaded = state["average"]


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


class EarlyStoppingHook(MMEarlyStoppingHook):
    """MMEngine's early stopping, with its patience and best score in the checkpoint; arguments as there."""

    def state_dict_extra(self) -> Mapping[str, Any]:
        """Best score and how long ago it was."""
        return {"best_score": float(self.best_score), "wait_count": int(self.wait_count)}

    def load_state_dict_extra(self, state: Mapping[str, Any]) -> None:
        """Go on counting."""
        self.best_score, self.wait_count = state["best_score"], state["wait_count"]


class CheckpointHook(Hook):
    """Write checkpoints, keep the last ones, and keep the best.

    Files in the work folder: ``step_<n>.pth`` (everything needed to go on), ``best_<metric>.pth`` (weights of the best
    validation so far), ``student.pth`` (the student alone, at the end; its moving average if the run keeps one),
    ``teacher.pth`` (a teacher that is a moving average, under its name in the distiller, which some methods keep
    instead of the student), and ``last_checkpoint``, which names the newest. A checkpoint that cannot be written, for
    example on a full disk, is reported and tried again at the next occasion; at the end of the run it is an error.

    Args:
        every_steps: Write after every so many steps; ``None`` does not.
        every_epochs: Write after every so many epochs; ``None`` does not.
        keep: Number of ``step_<n>.pth`` kept, 2 or more, so that a damaged one has another before it.
        save_best: Name of a validation metric whose best value is kept, for example ``"top1"``; ``None`` keeps none.
        rule: ``"greater"`` or ``"less"`` is better; guessed from common names of metrics if left out.

    Raises:
        ConfigError: if ``keep`` is below 2, an interval is not above 0, or the rule of a metric cannot be guessed.
    """

    priority = "VERY_LOW"

    def __init__(
        self,
        *,
        every_steps: int | None = None,
        every_epochs: int | None = 1,
        keep: int = 2,
        save_best: str | None = None,
        rule: Literal["greater", "less"] | None = None,
    ) -> None:
        for name, value in (("every_steps", every_steps), ("every_epochs", every_epochs)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"{name} of CheckpointHook must be a whole number >= 1 or None, got {value!r}")
        if keep < 2:
            raise ConfigError(
                f"keep of CheckpointHook must be 2 or more, got {keep}: if the newest file is damaged, resuming falls "
                "back to the one before"
            )
        if rule not in (None, "greater", "less"):
            raise ConfigError(f"rule of CheckpointHook must be 'greater', 'less' or None, got {rule!r}")
        self.every_steps = every_steps
        self.every_epochs = every_epochs
        self.keep = keep
        self.save_best = save_best
        self.rule = rule or (_guess_rule(save_best) if save_best else None)
        self.best_score: float | None = None
        self.best_step: int | None = None
        self.kept: list[str] = []
        self._metrics: Mapping[str, Any] | None = None

    def state_dict_extra(self) -> Mapping[str, Any]:
        """Best score, and the files that this run wrote."""
        return {"best_score": self.best_score, "best_step": self.best_step, "kept": list(self.kept)}

    def load_state_dict_extra(self, state: Mapping[str, Any]) -> None:
        """Go on comparing with the best score, and counting the files."""
        self.best_score, self.best_step, self.kept = state["best_score"], state["best_step"], list(state["kept"])

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> None:
        """Remember the metrics until everything else is done with them."""
        self._metrics = metrics

    def save_point(self, runner: Any, moment: Moment) -> None:
        """Write what is due."""
        loop = runner.train_loop
        epoch_is_due = self.every_epochs is not None and loop.epoch % self.every_epochs == 0
        if moment == "step":
            # the checkpoint after the epoch's closing hooks takes the place of the one before them
            closes_epoch = loop.at_epoch_end and self.every_epochs is not None
            due = self.every_steps is not None and loop.iter % self.every_steps == 0
            if due and not (closes_epoch and (loop.epoch + 1) % (self.every_epochs or 1) == 0):
                self.save(runner)
        elif moment == "epoch":
            if epoch_is_due:
                self.save(runner)
        elif moment == "validation":
            improved = self._keep_best(runner)
            if improved or self._name(runner) in self.kept:
                self.save(runner)
        else:
            self.save(runner, must=True)
            self._save_student(runner)

    def save(self, runner: Any, *, must: bool = False) -> bool:
        """Write a training checkpoint; all ranks call it.

        Args:
            runner: The runner.
            must: Raise if it cannot be written.

        Returns:
            Whether it was written.
        """
        name = self._name(runner)
        before = list(self.kept)
        self.kept = [*(kept for kept in self.kept if kept != name), name]
        outdated, self.kept = self.kept[: -self.keep], self.kept[-self.keep :]
        folder = Path(runner.work_dir)
        try:
            runner.write(folder / name)
            if is_main_process():
                point_to(folder, name)
                for old in outdated:
                    (folder / old).unlink(missing_ok=True)
        except CheckpointError as error:
            self.kept = before
            if must:
                raise
            _report(runner, error)
            return False
        return True

    @staticmethod
    def _name(runner: Any) -> str:
        return f"step_{runner.train_loop.iter}.pth"

    def _keep_best(self, runner: Any) -> bool:
        metrics, self._metrics = self._metrics, None
        if self.save_best is None or metrics is None:
            return False
        if self.save_best not in metrics:
            raise ConfigError(
                f"save_best={self.save_best!r} of CheckpointHook is no metric of the validation: "
                f"{closest(self.save_best, metrics)}"
            )
        score = float(metrics[self.save_best])
        if math.isnan(score) or not self._is_better(score):
            return False
        before = self.best_score, self.best_step
        self.best_score, self.best_step = score, runner.train_loop.iter
        path = Path(runner.work_dir) / f"best_{self.save_best.replace('/', '_')}.pth"
        try:
            runner.write(path, kind="weights")
        except CheckpointError as error:
            self.best_score, self.best_step = before
            _report(runner, error)
            return False
        runner.logger.info(f"best {self.save_best} so far: {score:.4f} at step {self.best_step}, in {path.name}")
        return True

    def _is_better(self, score: float) -> bool:
        if self.best_score is None:
            return True
        return score > self.best_score if self.rule == "greater" else score < self.best_score

    @staticmethod
    def _save_student(runner: Any) -> None:
        if is_main_process():
            average = next((hook.average for hook in runner.hooks if isinstance(hook, EMAHook)), None)
            meta = {"step": runner.train_loop.iter, "average": average is not None}
            folder = Path(runner.work_dir)
            save_student(average if average is not None else runner.model, folder / "student.pth", meta=meta)
            for name, teacher in updatable_teachers(runner.model).items():
                if isinstance(teacher, EMATeacher):
                    save_student(teacher.model, folder / f"{name}.pth", meta={**meta, "average": True})


def _report(runner: Any, error: CheckpointError) -> None:
    runner.logger.error(f"{error}. Training goes on, and writes again at the next occasion.")


def _guess_rule(metric: str) -> Literal["greater", "less"]:
    words = {word.removeprefix("m") for word in re.findall("[a-z]+", metric.lower())} | set(
        re.findall("[a-z]+", metric.lower())
    )
    if words & _LESS:
        return "less"
    if words & _GREATER:
        return "greater"
    raise ConfigError(
        f"whether a greater or a smaller {metric!r} is better cannot be told from its name: say rule='greater' or "
        "rule='less' in CheckpointHook"
    )


__all__ = [
    "CheckpointHook",
    "EMAHook",
    "EMATeacherHook",
    "EarlyStoppingHook",
    "ProgressHook",
    "progress_of",
    "updatable_teachers",
]
