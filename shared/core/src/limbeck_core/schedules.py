r"""Numbers that change over a run: weights of matches, temperatures, momenta of moving averages.

A schedule is a small immutable object called with the :class:`Progress` of the run. Steps and epochs count from 0: the
value for the first step is ``schedule(Progress(step=0, epoch=0))``. Plain numbers stand for :class:`Constant`.

========================================================  =========================================
``Linear(1.0, 0.0, by="epoch")``                          1 - epoch / max_epochs (DWPose, stage 1)
``WarmUp(1.0, length=20)``                                min((epoch + 1) / 20, 1) (DKD, ReviewKD)
``WarmUp(0.8)``                                           0.8 (epoch + 1) / max_epochs (PS-KD)
``Cosine(0.996, 1.0)``                                    momentum of DINO's and ATST's teacher
``StopAfter(1.0, until=200)``                             1 before epoch 200, then 0
``Complement(WarmUp(0.8))``                               1 - 0.8 (epoch + 1) / max_epochs (PS-KD's label)
========================================================  =========================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from limbeck_core.build import build
from limbeck_core.errors import ConfigError

Unit = Literal["step", "epoch"]


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Args:
        step: Optimiser steps done so far, so that the first step sees 0.
        epoch: Passes over the data done so far.
        max_steps: Steps of the whole run; ``None`` where unknown.
        max_epochs: Epochs of the whole run; ``None`` where unknown.
    """

    step: int = 0
    epoch: int = 0
    max_steps: int | None = None
    max_epochs: int | None = None

    def position(self, unit: Unit) -> int:
        """Steps or epochs done so far."""
        return self.step if unit == "step" else self.epoch

    def length(self, unit: Unit, schedule: Schedule) -> int:
        """Steps or epochs of the whole run.

        Raises:
            ConfigError: if the length is not known, saying which schedule asked.
        """
        found = self.max_steps if unit == "step" else self.max_epochs
        if found is None:
            raise ConfigError(
                f"{schedule} runs to the end of the training, but max_{unit}s is not known: tell the distiller with "
                f"set_progress(Progress(step, epoch, max_steps, max_epochs)), or give the schedule an end of its own"
            )
        return found


class Schedule:
    """A number that depends on the progress of the run. Immutable, comparable, picklable."""

    def __call__(self, progress: Progress) -> float:
        """Return the value for the step that comes next."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__(progress)")


def as_schedule(value: float | Schedule | Mapping[str, Any]) -> Schedule:
    """Return a schedule; a number is a :class:`Constant`, a mapping with ``type`` is built.

    Raises:
        ConfigError: if ``value`` is none of these.
    """
    value = build(value)
    if isinstance(value, Schedule):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return Constant(float(value))
    raise ConfigError(f"expected a finite number or a schedule (Constant, Linear, Cosine, ...), got {value!r}")


def _check_unit(unit: str, schedule: Schedule) -> None:
    if unit not in ("step", "epoch"):
        raise ConfigError(f"{type(schedule).__name__}: by must be 'step' or 'epoch', got {unit!r}")


@dataclass(frozen=True)
class Constant(Schedule):
    """The same value throughout.

    Args:
        value: The value.
    """

    value: float

    def __call__(self, progress: Progress) -> float:
        """Return the value."""
        return self.value


@dataclass(frozen=True)
class Linear(Schedule):
    """A straight line from ``start`` to ``end``, constant before and after it.

    The last step or epoch of a run has position ``max - 1``, so a line over the whole run does not quite reach ``end``.

    Args:
        start: Value at ``begin`` and before.
        end: Value at ``until`` and after.
        begin: Step or epoch where the line begins.
        until: Step or epoch where it ends; ``None`` is the end of the run.
        by: Unit of both: ``"step"`` or ``"epoch"``.

    Raises:
        ConfigError: if ``by`` is unknown or the line has no length; when called, if the run's length is needed and
            unknown.
    """

    start: float
    end: float
    begin: int = 0
    until: int | None = None
    by: Unit = "step"

    def __post_init__(self) -> None:
        """Refuse a line without length."""
        _check_unit(self.by, self)
        if self.until is not None and self.until <= self.begin:
            raise ConfigError(f"Linear: until must come after begin ({self.begin}), got {self.until}")

    def __call__(self, progress: Progress) -> float:
        """Return the value on the line."""
        until = progress.length(self.by, self) if self.until is None else self.until
        share = (progress.position(self.by) - self.begin) / max(until - self.begin, 1)
        share = min(max(share, 0.0), 1.0)
        return self.start + (self.end - self.start) * share


@dataclass(frozen=True)
class WarmUp(Schedule):
    """Rise to ``value`` in equal parts: ``value * min((position + 1) / length, 1)``; the first part already counts.

    Args:
        value: Value at the end of the rise and after.
        length: Number of parts; ``None`` is the whole run.
        by: Unit: ``"epoch"`` or ``"step"``.

    Raises:
        ConfigError: if ``by`` is unknown or ``length`` is not positive; when called, as :class:`Linear`.
    """

    value: float
    length: int | None = None
    by: Unit = "epoch"

    def __post_init__(self) -> None:
        """Refuse a rise without parts."""
        _check_unit(self.by, self)
        if self.length is not None and self.length <= 0:
            raise ConfigError(f"WarmUp: length must be 1 or more, got {self.length}")

    def __call__(self, progress: Progress) -> float:
        """Return the value of this part."""
        length = progress.length(self.by, self) if self.length is None else self.length
        return self.value * min((progress.position(self.by) + 1) / max(length, 1), 1.0)


@dataclass(frozen=True)
class Cosine(Schedule):
    r"""Half a cosine from ``start`` to ``end``, after an optional linear warm-up.

    .. math:: v_i = e + \tfrac12 (s - e) \big(1 + \cos(\pi i / n)\big), \quad i = 0 \dots n - 1

    The warm-up has ``warm_up`` values evenly spaced from ``warm_up_start`` to ``start``, both included; the cosine then
    begins at ``start`` again and its last value lies just short of ``end``, as in the code of DINO and ATST.

    Args:
        start: Value where the cosine begins.
        end: Value it tends to.
        warm_up: Number of steps or epochs of warm-up.
        warm_up_start: First value of the warm-up.
        until: Step or epoch where the cosine ends; ``None`` is the end of the run.
        by: Unit of both: ``"step"`` or ``"epoch"``.

    Raises:
        ConfigError: if ``by`` is unknown or the warm-up is negative; when called, as :class:`Linear`.

    Reference:
        Caron et al., Emerging Properties in Self-Supervised Vision Transformers, arXiv:2104.14294, section 3
        (momentum).
    """

    start: float
    end: float
    warm_up: int = 0
    warm_up_start: float = 0.0
    until: int | None = None
    by: Unit = "step"

    def __post_init__(self) -> None:
        """Refuse a negative warm-up."""
        _check_unit(self.by, self)
        if self.warm_up < 0:
            raise ConfigError(f"Cosine: warm_up must be 0 or more, got {self.warm_up}")

    def __call__(self, progress: Progress) -> float:
        """Return the value of this step or epoch."""
        position = progress.position(self.by)
        if position < self.warm_up:
            share = position / max(self.warm_up - 1, 1)
            return self.warm_up_start + (self.start - self.warm_up_start) * share
        length = (progress.length(self.by, self) if self.until is None else self.until) - self.warm_up
        share = min((position - self.warm_up) / max(length, 1), 1.0)
        return self.end + 0.5 * (self.start - self.end) * (1 + math.cos(math.pi * share))


@dataclass(frozen=True)
class StopAfter(Schedule):
    """Another schedule before ``until``, zero from then on: distillation that ends early.

    Args:
        schedule: The schedule, a number, or a config of either.
        until: Step or epoch from which the value is zero.
        by: Unit: ``"epoch"`` or ``"step"``.

    Raises:
        ConfigError: if ``by`` is unknown.
    """

    schedule: float | Schedule | Mapping[str, Any]
    until: int
    by: Unit = "epoch"

    def __post_init__(self) -> None:
        """Refuse an unknown unit and anything that is no schedule."""
        _check_unit(self.by, self)
        object.__setattr__(self, "schedule", as_schedule(self.schedule))  # frozen for everybody else

    def __call__(self, progress: Progress) -> float:
        """Return the inner value, or zero."""
        if progress.position(self.by) >= self.until:
            return 0.0
        return as_schedule(self.schedule)(progress)


@dataclass(frozen=True)
class Complement(Schedule):
    """One minus another schedule: the weight of the label beside a target that is blended in by that schedule.

    Args:
        schedule: The schedule, a number, or a config of either.
    """

    schedule: float | Schedule | Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuse anything that is no schedule."""
        object.__setattr__(self, "schedule", as_schedule(self.schedule))  # frozen for everybody else

    def __call__(self, progress: Progress) -> float:
        """Return one minus the inner value."""
        return 1.0 - as_schedule(self.schedule)(progress)
