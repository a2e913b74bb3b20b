"""What to compare: a :class:`Match` joins a loss, two places to read, adapters and a weight."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from limbeck_core.build import build
from limbeck_core.errors import LimbeckError, MatchError, closest
from limbeck_core.gather import gather, mean_scale, world_size
from limbeck_core.schedules import Progress, Schedule, as_schedule
from limbeck_core.tap import Tap, as_tap, first_length, shape_of

# Arguments of a loss that the batch fills without being asked, and the field each takes.
BATCH_ARGUMENTS = {"target": "targets", "mask": "mask", "ids": "ids"}

Taps = str | Tap | Sequence[str | Tap]
Read = Callable[[Tap], Any]


class Match(nn.Module):
    """One comparison of student and teacher, with everything it needs; adapters and loss are trained with the student.

    Args:
        loss: Module or function called as ``loss(student, teacher, **extras)``; or a config of one.
        student: Tap on the student (``of`` defaults to ``"student"``), or a sequence of taps for a loss over layers.
        teacher: Tap on the teacher (``of`` defaults to the only teacher), or a sequence. ``Tap(..., of="student")`` is
            self-distillation; ``Tap("targets", of="batch")`` compares with the truth.
        adapter: Module from the student's value to the shape that the loss wants; dropped at inference.
        teacher_adapter: The same on the teacher's side, for example a class map.
        weight: Factor of this loss in the total: a number, or a schedule over the run.
        extras: Further arguments of the loss by name, each a tap; a string is a field of the batch. The arguments
            ``target``, ``mask`` and ``ids`` are filled from the batch's ``targets``, ``mask`` and ``ids`` unless named
            here.
        mixes_exactly: Say that under mixup or CutMix the method compares with the same mixture of the teacher's values
            for the unmixed samples (as when its labels are mixed). A teacher bank holds nothing else and refuses mixed
            batches without it; a live teacher takes the mixed inputs either way.

    Raises:
        MatchError: if ``extras`` names an argument that the loss does not take, or the loss requires one that nothing
            fills.
    """

    def __init__(
        self,
        loss: nn.Module | Callable[..., Tensor] | Mapping[str, Any],
        student: Taps,
        teacher: Taps,
        *,
        adapter: nn.Module | Mapping[str, Any] | None = None,
        teacher_adapter: nn.Module | Mapping[str, Any] | None = None,
        weight: float | Schedule | Mapping[str, Any] = 1.0,
        extras: Mapping[str, str | Tap | Mapping[str, Any]] | None = None,
        mixes_exactly: bool = False,
    ) -> None:
        super().__init__()
        self.loss = build(loss)
        self.mixes_exactly = mixes_exactly
        self.adapter = build(adapter)
        self.teacher_adapter = build(teacher_adapter)
        self.weight: Schedule = as_schedule(weight)
        self.student, self.student_is_sequence = _side(student, default="student")
        self.teacher, self.teacher_is_sequence = _side(teacher, default="teacher")
        self.extras = {name: _extra(tap) for name, tap in (extras or {}).items()}
        self._optional_extras = self._check_signature()

    def _check_signature(self) -> dict[str, Tap]:
        """Hold ``extras`` against the loss's signature; return the batch arguments that may be absent."""
        call = self.loss.forward if isinstance(self.loss, nn.Module) else self.loss
        parameters = list(inspect.signature(call).parameters.values())
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        if len(named) < 2:
            raise MatchError(
                f"the loss of a match is called with the student's and the teacher's value, {call} takes less"
            )
        scores = all("logits" in side.name or "probabilities" in side.name for side in named[:2])
        # a loss over vocabularies cuts the larger one itself
        over_vocabularies = hasattr(self.loss, "vocabulary_size") or any(p.name == "vocabulary_size" for p in named)
        self.compares_logits = scores and not over_vocabularies
        rest = {p.name: p for p in named[2:]}
        title = type(self.loss).__name__ if isinstance(self.loss, nn.Module) else self.loss.__name__
        for name in self.extras:
            if name not in rest and not takes_any:
                raise MatchError(
                    f"extras names the argument {name!r}, which {title} does not take: {closest(name, rest)}"
                )
        optional = {}
        for name, parameter in rest.items():
            if name in self.extras:
                continue
            required = parameter.default is parameter.empty
            if name in BATCH_ARGUMENTS:
                tap = Tap(BATCH_ARGUMENTS[name], of="batch")
                if required:
                    self.extras[name] = tap
                else:
                    optional[name] = tap
            elif required:
                raise MatchError(
                    f"{title} requires the argument {name!r}, which nothing fills: name a tap for it, "
                    f"extras={{{name!r}: Tap(...)}}"
                )
        return optional

    @property
    def taps(self) -> tuple[Tap, ...]:
        """Every tap that this match reads, the batch's included."""
        return (*self.student, *self.teacher, *self.extras.values())

    @property
    def trainable(self) -> bool:
        """Whether an adapter or the loss has parameters."""
        return any(True for _ in self.parameters())

    def scale(self, progress: Progress | None) -> float:
        """Return the weight at this point of the run.

        Raises:
            MatchError: if the weight is scheduled and the distiller was not told where the run stands.
        """
        try:
            return float(self.weight(progress or Progress(step=0, epoch=0, max_steps=None, max_epochs=None)))
        except LimbeckError:
            raise
        except ValueError as error:
            raise MatchError(str(error)) from error

    @property
    def relational(self) -> bool:
        """Whether the loss compares samples with each other, so that it needs the batch of all ranks."""
        return bool(getattr(self.loss, "relational", False))

    def forward(self, read: Read, batch: Mapping[str, Any]) -> Tensor:
        """Read both sides, adapt them, and return the loss without its weight.

        With several ranks the value is such that data parallelism's average of gradients equals one process with the
        whole batch: a relational loss sees the samples of all ranks, a mean over samples is scaled by this rank's
        share.

        Args:
            read: Returns the value of a tap in this step.
            batch: The batch, for the optional arguments of the loss.

        Returns:
            A scalar.

        Raises:
            MatchError: if the loss returns anything but one number.
        """
        student = self._read_side(self.student, self.student_is_sequence, read, self.adapter)
        teacher = self._read_side(self.teacher, self.teacher_is_sequence, read, self.teacher_adapter)
        arguments = {name: read(tap) for name, tap in self.extras.items()}
        for name, tap in self._optional_extras.items():
            if tap.path in batch:
                arguments[name] = batch[tap.path]
        if self.relational and world_size() > 1:
            student, teacher = gather_all(student), gather_all(teacher)
            arguments = {name: gather_all(value) for name, value in arguments.items()}
        try:
            loss = self.loss(student, teacher, **arguments)
        except LimbeckError as error:
            raise type(error)(f"{error} [{self._describe(student, teacher)}]") from error
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise MatchError(
                f"{type(self.loss).__name__} failed on {self._describe(student, teacher)}: {error}"
            ) from error
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise MatchError(f"the loss of a match must return one number, got {got}: set reduction='mean' or 'sum'")
        loss = loss.reshape(())
        if world_size() == 1 or self.relational:
            return loss
        if getattr(self.loss, "reduction", "mean") == "sum":
            return loss * world_size()
        return loss * mean_scale(self._count(student, arguments.get("mask")), loss.device).to(loss.dtype)

    def _count(self, student: Any, mask: Tensor | None) -> int | Tensor:
        """What this rank's mean is over: samples, kept positions, or what the loss says it counts under a mask."""
        if mask is None:
            return first_length(student)
        counted = getattr(self.loss, "count", None)
        return mask.detach().double().sum() if counted is None else counted(mask.detach())

    def _read_side(self, taps: tuple[Tap, ...], is_sequence: bool, read: Read, adapter: nn.Module | None) -> Any:
        value = [read(tap) for tap in taps] if is_sequence else read(taps[0])
        if adapter is None:
            return value
        try:
            return adapter(value)
        except LimbeckError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            where = ", ".join(map(str, taps))
            raise MatchError(
                f"adapter {type(adapter).__name__} failed on the value of tap '{where}' with shape {shape_of(value)}: "
                f"{error}"
            ) from error

    def _describe(self, student: Any, teacher: Any) -> str:
        names = [", ".join(map(str, taps)) for taps in (self.student, self.teacher)]
        return f"student '{names[0]}' {shape_of(student)}, teacher '{names[1]}' {shape_of(teacher)}"


def gather_all(value: Any) -> Any:
    """Gather every tensor of a value that has samples on axis 0."""
    if isinstance(value, Tensor):
        return gather(value) if value.ndim else value
    if isinstance(value, (list, tuple)):
        return type(value)(gather_all(item) for item in value)
    return value


def _side(value: Any, default: str) -> tuple[tuple[Tap, ...], bool]:
    value = build(value) if isinstance(value, Mapping) else value
    if isinstance(value, (str, Tap)):
        return (_with_owner(as_tap(value), default),), False
    taps = tuple(_with_owner(as_tap(build(v) if isinstance(v, Mapping) else v), default) for v in value)
    if not taps:
        raise MatchError(f"the {default} side of a match names no tap")
    return taps, True


def _with_owner(tap: Tap, default: str) -> Tap:
    if tap.of is not None:
        return tap
    return Tap(tap.path, of=default, pick=tap.pick, call=tap.call, at=tap.at, clone=tap.clone)


def _extra(value: Any) -> Tap:
    value = build(value) if isinstance(value, Mapping) else value
    return _with_owner(as_tap(value), default="batch")
