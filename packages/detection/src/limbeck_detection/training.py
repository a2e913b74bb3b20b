"""What a detector's training needs beside the engine: parameter groups, the average with its restart, one early check.

Reference: Peng et al., D-FINE, arXiv:2410.13842, with the settings of its released configs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import Tensor, nn

from limbeck_core.build import build
from limbeck_core.engine import EMAHook
from limbeck_core.engine.checkpoints import student_of
from limbeck_core.engine.hooks import progress_of
from limbeck_core.errors import ConfigError
from limbeck_core.schedules import Constant, Progress, Schedule
from limbeck_core.tap import unwrap
from limbeck_detection.dfine import DFINE, load_dfine

_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class RampedMomentum(Schedule):
    r"""Momentum of a moving average that follows quickly at first: :math:`v \, (1 - e^{-(step + 1) / length})`.

    Args:
        value: Momentum :math:`v` after the ramp, in [0, 1].
        length: Steps after which 63 % of it are reached.

    Raises:
        ConfigError: if a number is out of range.
    """

    value: float = 0.9999
    length: int = 1000

    def __post_init__(self) -> None:
        """Refuse what is no momentum."""
        if not 0 <= self.value <= 1 or self.length < 1:
            raise ConfigError(f"RampedMomentum needs a value in [0, 1] and a length >= 1, got {self}")

    def __call__(self, progress: Progress) -> float:
        """Return the momentum of this step."""
        return self.value * (1 - math.exp(-(progress.step + 1) / self.length))


class DetectorEMAHook(EMAHook):
    """The moving average that is judged and kept, with D-FINE's restart where the strong augmentation ends.

    Floating-point buffers (statistics of BatchNorm) are averaged like weights; others are copied.

    Before the first step of ``restart_epoch`` student and average both return to the validation at which the average
    was best so far; optimiser, schedules and data go on. From then on the momentum is ``second_momentum``. If nothing
    was validated before, there is nothing to return to, and only the momentum changes. What the restart needs is kept
    in memory and in checkpoints, so a resumed run restarts in the same way.

    The reference returns to its best checkpoint again after every later epoch that is no new best, and means to lower
    the momentum each time, which has no effect there. Here one restart is all: more of them would choose weights by
    the validation set at each epoch.

    Args:
        momentum: Before the restart: a number or a schedule.
        restart_epoch: Epoch, counted from 0, that begins with the restart; the augmentation's ``stop_epoch``. ``None``
            never restarts.
        second_momentum: From the restart on.
        metric: The metric of the validation that says which average was best; greater is better.

    Raises:
        ConfigError: if ``second_momentum`` lies outside [0, 1]; at a validation, if it lacks ``metric``.
    """

    def __init__(
        self,
        momentum: float | Schedule = RampedMomentum(),
        *,
        restart_epoch: int | None = None,
        second_momentum: float = 0.9999,
        metric: str = "AP",
    ) -> None:
        super().__init__(momentum)
        if not 0 <= second_momentum <= 1:
            raise ConfigError(f"second_momentum must lie between 0 and 1, got {second_momentum}")
        self.restart_epoch = restart_epoch
        self.second_momentum = second_momentum
        self.metric = metric
        self.restarted = False
        self.best_score: float | None = None
        self.best: dict[str, dict[str, Tensor]] | None = None

    def before_train_epoch(self, runner: Any) -> None:
        """Restart where it is due; an epoch that is gone on with does not restart again."""
        if self.restart_epoch is None or self.restarted or runner.train_loop.epoch < self.restart_epoch:
            return
        self.restarted = True
        self.momentum = Constant(self.second_momentum)
        if self.best is None:
            runner.logger.warning(
                "no validation came before the restart of the moving average: weights stay as they are; validate more "
                "often to return to the best"
            )
            return
        student_of(runner.model).load_state_dict(self.best["student"])
        self._copy().load_state_dict(self.best["average"])
        runner.logger.info(f"student and average return to the best {self.metric} so far, {self.best_score:.4f}")
        self.best = None

    @torch.no_grad()
    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Move the average towards the student."""
        average = self._copy()
        before = [buffer.clone() for buffer in average.buffers()]
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        momentum = self.momentum(progress_of(runner))
        for buffer, old in zip(average.buffers(), before, strict=True):
            if buffer.is_floating_point():
                moved = torch.where(torch.isfinite(old), old + (1 - momentum) * (buffer - old), buffer)
                buffer.copy_(moved)  # anchors of places outside the image are infinite and stay

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> None:
        """Let the student train on, and remember both if the average is the best so far."""
        super().after_val_epoch(runner, metrics)
        if self.restart_epoch is None or self.restarted or metrics is None:
            return
        if self.metric not in metrics:
            raise ConfigError(
                f"the moving average restarts from the best {self.metric!r}, which the validation does not give: it "
                f"gives {', '.join(metrics) or 'nothing'}"
            )
        score = float(metrics[self.metric])
        if self.best_score is None or score > self.best_score:
            self.best_score = score
            self.best = {"student": _copied(student_of(runner.model)), "average": _copied(self._copy())}

    def state_dict_extra(self) -> Mapping[str, Any]:
        """The average's weights, the best pair so far, and whether the restart is over."""
        return {
            **super().state_dict_extra(),
            "best": self.best,
            "best_score": self.best_score,
            "restarted": self.restarted,
        }

    def load_state_dict_extra(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict_extra(state)
        self.best, self.best_score, self.restarted = state["best"], state["best_score"], state["restarted"]
        if self.restarted:
            self.momentum = Constant(self.second_momentum)


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def fine_tuned(
    model: nn.Module | Mapping[str, Any],
    checkpoint: str | Path,
    *,
    class_rows: Sequence[int] | None = None,
    row_offset: int = 0,
    fresh_heads: bool = False,
) -> DFINE:
    """Build a D-FINE and start from weights that were trained on other classes: the student of a fine-tuning config.

    Args:
        model: The model, or a config of it.
        checkpoint: File of D-FINE's weights. On the meta device, where a config is only looked at, nothing is read.
        class_rows: See :func:`~limbeck_detection.dfine.load_dfine`.
        row_offset: Added to every row. The released Objects365 weights count classes from 1, and so do the rows of
            ``OBJECTS365_TO_COCO``; weights of this package's Objects365 configs count from 0 and need -1.
        fresh_heads: See :func:`~limbeck_detection.dfine.load_dfine`.

    Raises:
        CheckpointError: as :func:`~limbeck_detection.dfine.load_dfine`.
    """
    built: DFINE = build(model)
    if torch.get_default_device().type != "meta":
        rows = None if class_rows is None else [row + row_offset for row in class_rows]
        load_dfine(built, Path(checkpoint), class_rows=rows, fresh_heads=fresh_heads)
    return built


class DetectorParameterGroups:
    """Build the optimiser with a smaller learning rate for the backbone, and no decay of norms and biases.

    Used by name in a config: ``optim_wrapper = dict(constructor=DetectorParameterGroups, paramwise_cfg=dict(
    backbone_lr_mult=0.5), optimizer=...)``.

    The released configs of N, S and M mean to exempt the backbone's norms as well, by a pattern that matches nothing,
    so there they decay; here they do not.

    Args:
        optim_wrapper_cfg: What MMEngine builds the wrapper from, with ``optimizer``.
        paramwise_cfg: ``backbone_lr_mult``: factor of the learning rate of parameters below ``backbone``.

    Raises:
        ConfigError: if ``paramwise_cfg`` holds anything else.
    """

    def __init__(self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: Mapping[str, Any] | None = None) -> None:
        options = dict(paramwise_cfg or {})
        self.backbone_lr_mult = float(options.pop("backbone_lr_mult", 1.0))
        if options:
            raise ConfigError(f"DetectorParameterGroups takes backbone_lr_mult alone, got {', '.join(options)} as well")
        self.wrapper = dict(optim_wrapper_cfg)
        self.optimizer = dict(self.wrapper.pop("optimizer"))

    def __call__(self, model: nn.Module) -> Any:
        """Return the optimiser's wrapper."""
        inner = unwrap(model)
        plain = _undecayed(inner)
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in inner.named_parameters():
            if parameter.requires_grad:
                in_backbone = "backbone" in name.split(".")
                groups.setdefault((in_backbone, id(parameter) in plain), []).append(parameter)
        rate, options = float(self.optimizer["lr"]), []
        for (in_backbone, without_decay), parameters in groups.items():
            option: dict[str, Any] = {"params": parameters, "lr": rate * (self.backbone_lr_mult if in_backbone else 1)}
            options.append({**option, **({"weight_decay": 0.0} if without_decay else {})})
        optimizer = OPTIMIZERS.build({**self.optimizer, "params": options})
        return OPTIM_WRAPPERS.build({"type": "OptimWrapper", **self.wrapper}, default_args={"optimizer": optimizer})


def _undecayed(model: nn.Module) -> set[int]:
    found = {
        id(p) for module in model.modules() if isinstance(module, _NORMS) for p in module.parameters(recurse=False)
    }
    return found | {id(p) for name, p in model.named_parameters() if name.rpartition(".")[2].endswith("bias")}


class ClassCheckHook(Hook):  # type: ignore[misc]  # mmengine is untyped
    """Refuse, before the first step, a model with other classes than the data, and validation data with others.

    Data sets read their classes from their files (``num_classes``, ``classes``); the model's are an argument.
    """

    priority = "VERY_HIGH"

    def before_train(self, runner: Any) -> None:
        """Compare.

        Raises:
            ConfigError: naming both counts, the classes, and the option that sets the model's.
        """
        data = runner.train_dataloader.dataset
        student = student_of(runner.model)
        counts = [m.num_classes for m in student.modules() if isinstance(getattr(m, "num_classes", None), int)]
        classes = list(getattr(data, "classes", ()))
        if counts and classes and counts[0] != len(classes):
            listed = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
            raise ConfigError(
                f"the data set has {len(classes)} classes ({listed}), the model scores {counts[0]}: give the student "
                f"num_classes={len(classes)}, for example by --cfg-options model.student.num_classes={len(classes)} "
                "(model.student.model.num_classes where the config fine-tunes)"
            )
        judged = getattr(getattr(runner.val_loop, "dataloader", None), "dataset", None)
        others = list(getattr(judged, "classes", classes))
        if classes and others != classes:
            first = next((i for i, pair in enumerate(zip(classes, others, strict=False)) if pair[0] != pair[1]), None)
            where = (
                f"label {first} is {classes[first]!r} and {others[first]!r}" if first is not None else "one is longer"
            )
            raise ConfigError(
                f"training data have {len(classes)} classes and validation data {len(others)}, in another order or of "
                f"another kind ({where}): give both data sets one list, classes=..."
            )
