"""Training by epochs or by steps, resumable between any two steps; validation and test of student and teacher.

The loops are MMEngine's in what they call and when: ``before_train_iter``, ``after_train_iter``, and so on. Beyond
these, they call ``save_point(runner, moment=...)`` on hooks that have it, whenever every counter is up to date and
nothing is half done: after a ``"step"``, after an ``"epoch"``, after a ``"validation"``, and at the ``"end"``. That is
where checkpoints are written, after everything that any other hook did.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as torch_dist
from mmengine.dist import get_dist_info
from mmengine.runner import BaseLoop
from mmengine.runner.amp import autocast
from torch import nn
from torch.utils.data import DataLoader

from limbeck_core.engine.sampler import (
    TRAIN,
    VALIDATE,
    KeyedBatches,
    SeededDataset,
    build_dataloader,
    fetch,
    sample_seed,
)
from limbeck_core.engine.state import (
    isolated,
    plan_accumulation,
    restore_generators,
    restore_gradients,
    seed_generators,
)
from limbeck_core.errors import ConfigError
from limbeck_core.tap import unwrap


def _whole(value: Any, name: str, loop: str) -> int:
    if not isinstance(value, (int, float)) or int(value) != value or value < 1:
        raise ConfigError(f"{name} of {loop} must be a whole number >= 1, got {value!r}")
    return int(value)


class TrainLoop(BaseLoop):
    """What :class:`EpochLoop` and :class:`StepLoop` have in common."""

    def __init__(
        self, runner: Any, dataloader: DataLoader[Any] | Mapping[str, Any], *, val_begin: int, val_interval: int
    ):
        seed = runner.seed
        super().__init__(runner, build_dataloader(dataloader, seed=seed, training=True))
        self.batches: KeyedBatches = self.dataloader.batch_sampler
        self.batches_per_epoch = len(self.dataloader)
        self.val_begin = _whole(val_begin, "val_begin", type(self).__name__)
        self.val_interval = _whole(val_interval, "val_interval", type(self).__name__)
        self.stop_training = False  # EarlyStoppingHook sets it
        self._epoch = 0
        self._iter = 0
        self._position = 0  # batches of this epoch that are done
        self._pending_validation = False
        self._ended = False
        self._generators: Mapping[str, Any] | None = None
        self._gradients: Mapping[str, Any] = {}
        self._same_on_all_ranks()
        for teacher in getattr(unwrap(runner.model), "teachers", {}).values():
            if hasattr(teacher, "check_data"):
                teacher.check_data(self.dataloader.dataset)
        metainfo = getattr(self.dataloader.dataset.dataset, "metainfo", None)
        if metainfo is not None:
            runner.visualizer.dataset_meta = metainfo

    def _same_on_all_ranks(self) -> None:
        _, world_size = get_dist_info()
        if world_size == 1:
            return
        counts: list[Any] = [None] * world_size
        torch_dist.all_gather_object(counts, self.batches_per_epoch)
        if len(set(counts)) > 1:
            raise ConfigError(
                f"the ranks have {counts} batches an epoch, and would wait for each other forever: leave sampler and "
                "batch_sampler to limbeck, or use ones that give every rank the same number"
            )

    # ------------------------------------------------------------------ what MMEngine asks

    @property
    @abstractmethod
    def max_epochs(self) -> int:
        """Number of passes over the data."""

    @property
    @abstractmethod
    def max_iters(self) -> int:
        """Number of steps."""

    @property
    def epoch(self) -> int:
        """The pass over the data, from 0."""
        return self._epoch

    @property
    def iter(self) -> int:
        """Steps done; while a step runs, its number from 0."""
        return self._iter

    # ------------------------------------------------------------------ state

    @property
    def at_epoch_end(self) -> bool:
        """Whether every batch of the epoch is done and its closing hooks are not."""
        return self._position == self.batches_per_epoch

    def state_dict(self) -> dict[str, Any]:
        """Where training stands; at a save point only."""
        return {
            "epoch": self._epoch,
            "iter": self._iter,
            "position": self._position,
            "pending_validation": self._pending_validation,
            "stop_training": self.stop_training,
            "batches_per_epoch": self.batches_per_epoch,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> str | None:
        """Go on from a state.

        Returns:
            A sentence if this run has other batches than the one that wrote the state, so that it can only go on from
            about the same place; ``None`` if it goes on exactly.
        """
        self._epoch, self._iter, self._position = state["epoch"], state["iter"], state["position"]
        self._pending_validation = state["pending_validation"]
        self.stop_training = state["stop_training"]
        before, now = state["batches_per_epoch"], self.batches_per_epoch
        if before == now:
            return None
        self._position = self._position * now // before
        self._iter = self._epoch * now + self._position
        return (
            f"an epoch had {before} batches and now has {now} (another data set, batch size or number of processes): "
            f"training goes on from about the same place, epoch {self._epoch}, batch {self._position}, not bit for bit"
        )

    def resume_with(self, generators: Mapping[str, Any] | None, gradients: Mapping[str, Any]) -> None:
        """Keep a rank's own state until training begins."""
        self._generators, self._gradients = generators, gradients

    def reseed(self, seed: int) -> None:
        """Use the seed of the run that is resumed, for order and samples."""
        self.batches.reseed(seed)
        dataset: SeededDataset = self.dataloader.dataset
        dataset.seed = self.dataloader.collate_fn.seed = seed

    # ------------------------------------------------------------------ running

    def run(self) -> nn.Module:
        """Train to the end, or until a signal or an early stop."""
        runner = self.runner
        runner.call_hook("before_train")
        restore_gradients(unwrap(runner.model), self._gradients)
        if self._generators is not None:
            restore_generators(self._generators)
        else:
            # each rank has a stream of its own, whatever construction drew
            rank, _ = get_dist_info()
            seed_generators(sample_seed(runner.seed, rank, 0, TRAIN), accelerators=True)
        self._plan()
        if self._pending_validation:
            self._validate()
        while not self._finished():
            self._run_epoch()
        runner.call_hook("after_train")
        self._save_point("end")
        return runner.model  # type: ignore[no-any-return]

    def _finished(self) -> bool:
        return self.stop_training or self._iter >= self.max_iters

    @abstractmethod
    def _plan(self) -> None:
        """Say where groups of accumulated batches end."""

    @abstractmethod
    def _validation_is_due(self, moment: str) -> bool:
        """Whether to validate at this moment."""

    @abstractmethod
    def _batch_number(self) -> int:
        """What hooks are told as ``batch_idx``."""

    def _run_epoch(self) -> None:
        runner = self.runner
        # an epoch that is gone on with has drawn what its opening hooks draw already
        with isolated() if self._position > 0 else nullcontext():
            runner.call_hook("before_train_epoch")
        runner.model.train()
        if self._position < self.batches_per_epoch:
            self.batches.seek(self._epoch, self._position)
            with isolated():
                iterator = iter(self.dataloader)
            while self._position < self.batches_per_epoch and self._iter < self.max_iters and not self.stop_training:
                self._run_step(fetch(iterator))
        if not self.at_epoch_end:
            return
        runner.call_hook("after_train_epoch")
        self._epoch += 1
        self._position = 0
        self._pending_validation = self._validation_is_due("epoch")
        self._save_point("epoch")
        if self._pending_validation:
            self._validate()

    def _run_step(self, batch: Any) -> None:
        runner, number = self.runner, self._batch_number()
        runner.call_hook("before_train_iter", batch_idx=number, data_batch=batch)
        outputs = runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
        runner.call_hook("after_train_iter", batch_idx=number, data_batch=batch, outputs=outputs)
        self._iter += 1
        self._position += 1
        self._pending_validation = self._validation_is_due("step")
        self._save_point("step")
        if self._pending_validation:
            self._validate()
            runner.model.train()

    def _validate(self) -> None:
        seed = sample_seed(self.runner.seed, self._iter, 0, VALIDATE)
        with isolated(seed):
            self.runner.val_loop.run()
        self._pending_validation = False
        self._save_point("validation")

    def _save_point(self, moment: str) -> None:
        self.runner.call_hook("save_point", moment=moment)
        if moment != "end":
            self.runner.leave_if_asked()


class EpochLoop(TrainLoop):
    """Train for a number of passes over the data.

    With gradient accumulation a group of batches never spans two epochs: the last, smaller group of an epoch is stepped
    at its end, its gradient divided by its own size.

    Args:
        runner: A :class:`~limbeck_core.engine.runner.Runner`.
        dataloader: A loader, or a config of one; see :func:`~limbeck_core.engine.sampler.build_dataloader`.
        max_epochs: Passes over the data.
        val_begin: First epoch (from 1) after which the model is validated.
        val_interval: Validate every so many epochs, and after the last.

    Raises:
        ConfigError: if a number is not a whole number >= 1.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader[Any] | Mapping[str, Any],
        *,
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
    ) -> None:
        self._max_epochs = _whole(max_epochs, "max_epochs", "EpochLoop")
        super().__init__(runner, dataloader, val_begin=val_begin, val_interval=val_interval)

    @property
    def max_epochs(self) -> int:
        """Number of passes over the data."""
        return self._max_epochs

    @property
    def max_iters(self) -> int:
        """Number of steps."""
        return self._max_epochs * self.batches_per_epoch

    def _finished(self) -> bool:
        return self.stop_training or self._epoch >= self._max_epochs

    def _plan(self) -> None:
        plan_accumulation(self.runner.optim_wrapper, self._position, self.batches_per_epoch)

    def _run_epoch(self) -> None:
        self._plan()
        super()._run_epoch()

    def _batch_number(self) -> int:
        return self._position

    def _validation_is_due(self, moment: str) -> bool:
        if moment != "epoch" or self.runner.val_loop is None or self._epoch < self.val_begin:
            return False
        return self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs


class StepLoop(TrainLoop):
    """Train for a number of steps, going over the data again as often as it takes.

    A pass over the data counts as an epoch and calls the epoch's hooks. With gradient accumulation, groups of batches
    go on across passes; the last group of the run is stepped at its end, its gradient divided by its own size.

    Args:
        runner: A :class:`~limbeck_core.engine.runner.Runner`.
        dataloader: A loader, or a config of one; see :func:`~limbeck_core.engine.sampler.build_dataloader`.
        max_steps: Steps, one batch (and rank) each.
        val_begin: First step (from 1) after which the model is validated.
        val_interval: Validate every so many steps, and after the last.

    Raises:
        ConfigError: if a number is not a whole number >= 1.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader[Any] | Mapping[str, Any],
        *,
        max_steps: int,
        val_begin: int = 1,
        val_interval: int = 1000,
    ) -> None:
        self._max_steps = _whole(max_steps, "max_steps", "StepLoop")
        super().__init__(runner, dataloader, val_begin=val_begin, val_interval=val_interval)

    @property
    def max_epochs(self) -> int:
        """Number of passes over the data, the last one perhaps not whole."""
        return math.ceil(self._max_steps / self.batches_per_epoch)

    @property
    def max_iters(self) -> int:
        """Number of steps."""
        return self._max_steps

    def _plan(self) -> None:
        plan_accumulation(self.runner.optim_wrapper, self._iter, self._max_steps)

    def _batch_number(self) -> int:
        return self._iter

    def _validation_is_due(self, moment: str) -> bool:
        if moment != "step" or self.runner.val_loop is None or self._iter < self.val_begin:
            return False
        return self._iter % self.val_interval == 0 or self._iter == self._max_steps


# ---------------------------------------------------------------------- evaluation


class EvaluationLoop(BaseLoop):
    """What :class:`ValLoop` and :class:`TestLoop` have in common."""

    stage = ""

    def __init__(
        self, runner: Any, dataloader: Any, evaluator: Any, *, fp16: bool = False, teacher: bool = True
    ) -> None:
        super().__init__(runner, build_dataloader(dataloader, seed=runner.seed, training=False))
        self.fp16 = fp16
        self.evaluator = runner.build_evaluator(copy.deepcopy(evaluator))
        self._judges = {name: runner.build_evaluator(copy.deepcopy(evaluator)) for name in self._asked(teacher)}
        self._known: dict[str, Mapping[str, Any]] = {}
        metainfo = getattr(self.dataloader.dataset.dataset, "metainfo", None)
        if metainfo is not None:
            runner.visualizer.dataset_meta = metainfo
            for judge in (self.evaluator, *self._judges.values()):
                judge.dataset_meta = metainfo

    def _asked(self, wanted: bool) -> list[str]:
        model: Any = unwrap(self.runner.model)
        if not wanted or not hasattr(model, "predict_teacher"):
            return []
        # what only remembers (its model is the identity) cannot be asked about new data
        return [name for name, teacher in model.teachers.items() if not isinstance(teacher.model, nn.Identity)]

    def run(self) -> dict[str, Any]:
        """Evaluate; metrics by name, on every rank."""
        runner, stage = self.runner, self.stage
        runner.call_hook(f"before_{stage}")
        runner.call_hook(f"before_{stage}_epoch")
        runner.model.eval()
        with isolated():
            iterator = iter(self.dataloader)
        for number in range(len(self.dataloader)):
            self._run_step(number, fetch(iterator))
        metrics = {**self.evaluator.evaluate(len(self.dataloader.dataset)), **self._teacher_metrics()}
        runner.call_hook(f"after_{stage}_epoch", metrics=metrics)
        runner.call_hook(f"after_{stage}")
        return metrics

    @torch.no_grad()
    def _run_step(self, number: int, batch: Any) -> None:
        runner, stage = self.runner, self.stage
        runner.call_hook(f"before_{stage}_iter", batch_idx=number, data_batch=batch)
        with autocast(enabled=self.fp16):
            outputs = getattr(runner.model, f"{stage}_step")(batch)
            self._ask_teachers(batch)
        self.evaluator.process(data_samples=outputs, data_batch=batch)
        runner.call_hook(f"after_{stage}_iter", batch_idx=number, data_batch=batch, outputs=outputs)

    def _ask_teachers(self, batch: Any) -> None:
        model: Any = unwrap(self.runner.model)
        for name, judge in self._judges.items():
            if name not in self._known:
                outputs = model.predict_teacher(name, model.data_preprocessor(batch, False))
                judge.process(data_samples=outputs, data_batch=batch)

    def _teacher_metrics(self) -> dict[str, Any]:
        model: Any = unwrap(self.runner.model)
        metrics: dict[str, Any] = {}
        for name, judge in self._judges.items():
            found = self._known.get(name)
            if found is None:
                found = judge.evaluate(len(self.dataloader.dataset))
                teacher = model.teachers[name]
                if not getattr(teacher, "changes", teacher.stateful):
                    self._known[name] = found
            prefix = "teacher/" if len(self._judges) == 1 else f"teacher/{name}/"
            metrics.update({prefix + metric: value for metric, value in found.items()})
        return metrics


class ValLoop(EvaluationLoop):
    """Validate the student, and its teachers beside it.

    A model offers its teachers by ``teachers`` (a mapping by name) and ``predict_teacher(name, batch)``; their metrics
    have names that begin with ``teacher/`` (``teacher/<name>/`` where there are several). A frozen teacher is judged
    once a run.

    Args:
        runner: The runner.
        dataloader: A loader or a config of one; it is not shuffled by default, and no sample is repeated.
        evaluator: MMEngine's evaluator, or a config.
        fp16: Run under autocast.
        teacher: Judge teachers too; switch it off where a teacher predicts nothing that the metrics understand.
    """

    stage = "val"


class TestLoop(EvaluationLoop):
    """Test the student, and its teachers beside it; arguments as of :class:`ValLoop`."""

    stage = "test"
    __test__ = False  # not a test, whatever pytest makes of the name


__all__ = ["EpochLoop", "EvaluationLoop", "StepLoop", "TestLoop", "TrainLoop", "ValLoop"]
