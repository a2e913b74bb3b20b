"""Student + teachers + matches: a model that returns named losses, for MMEngine's Runner or any other loop."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from limbeck_core.build import build
from limbeck_core.calls import Call, TensorCall
from limbeck_core.checks import explain_non_finite
from limbeck_core.errors import LimbeckError, MatchError, NonFiniteError, TapError, closest
from limbeck_core.match import Match
from limbeck_core.schedules import Constant, Progress, Schedule, as_schedule
from limbeck_core.tap import Recorder, Tap, as_tap, leaves, read_batch, resolve, shape_of
from limbeck_core.teacher import Teacher, as_teacher

POSITIONAL = ("inputs", "targets", "ids", "mask")
_RESERVED_NAMES = ("student", "batch")


class _Teachers:
    """The teachers by name, outside of the module tree: shared by deep copies, absent from parameters and state."""

    def __init__(self, teachers: dict[str, Teacher]) -> None:
        self.by_name = teachers

    def __deepcopy__(self, memo: dict[int, Any]) -> _Teachers:
        return self


@dataclass(frozen=True)
class MatchShapes:
    """One row of :meth:`Distiller.check`.

    Args:
        match: Name of the match.
        student: Tap and shape on the student's side, before the adapter.
        teacher: Tap and shape on the teacher's side, before the adapter.
        loss: Value of the loss on this batch, without weight.
        weight: Weight at the start of the run.
    """

    match: str
    student: str
    teacher: str
    loss: float
    weight: float


class Distiller(BaseModel):
    """A student, its teachers, and what is compared between them.

    Calling it returns a dictionary of losses: the student's own (``loss/task``, or its own names) and ``loss/<match>``
    for every match, already weighted; their sum is what to differentiate. ``parameters()`` and ``state_dict()`` hold
    the student (``student.*``) and the matches' adapters and losses (``matches.*``); teachers are never in them.

    Args:
        student: The model to train, or a config of it. :class:`~limbeck_core.teacher.Peers` trains several.
        teacher: One model, several by name, or ``None`` for self-distillation. A plain module is frozen; see
            :mod:`limbeck_core.teacher` for others. One teacher is called ``"teacher"`` in taps.
        matches: What to compare, by name (a valid Python name); names appear in the log as ``loss/<name>``.
        task_loss: Loss of the student's output against ``targets``; leave it out for a model that brings its own
            (OpenMMLab, transformers) or for training without labels.
        task_weight: Factor of the student's own losses in the total: a number, or a schedule over the run.
        student_view: Field of the batch that the student takes.
        teacher_view: Field of the batch that teachers take; a mapping from teacher name to field for several.
        call: How to call the student, and the teachers unless ``teacher_call`` says otherwise (default: one tensor in).
        teacher_call: How to call the teachers; a mapping from teacher name for several.
        freeze: Dotted names of student submodules that neither train nor leave evaluation mode.
        taps: Further taps by name, for subclasses that write :meth:`compute_losses`; read them with :meth:`read`.
        data_preprocessor: MMEngine's; the default moves the batch to the model's device.

    The batch is a mapping with ``inputs``, ``targets``, ``ids``, an optional ``mask``, and any further views.
    Positional arguments are taken as ``inputs, targets, ids, mask``.

    Raises:
        TapError: if a tap names a place that does not exist; the message says what does.
        MatchError: if a match does not fit its loss, its teacher or the classes.

    Example::

        distiller = Distiller(student, teacher, task_loss=nn.CrossEntropyLoss(),
                              matches={"kd": Match(KLDivergenceLoss(temperature=4.0), "fc", "fc", weight=0.9)})
        losses = distiller(images, labels)      # {"loss/task": ..., "loss/kd": ...}
        sum(losses.values()).backward()
    """

    def __init__(
        self,
        student: nn.Module | Mapping[str, Any],
        teacher: nn.Module | Mapping[str, Any] | None = None,
        matches: Mapping[str, Match | Mapping[str, Any]] | None = None,
        *,
        task_loss: nn.Module | Mapping[str, Any] | None = None,
        task_weight: float | Schedule | Mapping[str, Any] = 1.0,
        student_view: str = "inputs",
        teacher_view: str | Mapping[str, str] = "inputs",
        call: Call | Mapping[str, Any] | None = None,
        teacher_call: Call | Mapping[str, Any] | None = None,
        freeze: Sequence[str] = (),
        taps: Mapping[str, str | Tap] | None = None,
        data_preprocessor: Any = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.student: nn.Module = build(student)
        self.task_loss: nn.Module | None = build(task_loss)
        self.task_weight: Schedule = as_schedule(task_weight)
        self.matches = nn.ModuleDict({name: self._named_match(name, m) for name, m in (matches or {}).items()})
        self.taps = {name: as_tap(build(t) if isinstance(t, Mapping) else t) for name, t in (taps or {}).items()}
        self.call: Call = build(call) or TensorCall()
        self.student_view = student_view
        self.freeze = tuple(freeze)
        self.progress: Progress | None = None
        self._teachers = _Teachers(self._build_teachers(teacher))
        self._teacher_views = self._per_teacher(teacher_view, "teacher_view")
        by_name = isinstance(teacher_call, Mapping) and "type" not in teacher_call
        self._teacher_calls = self._per_teacher(
            (teacher_call if by_name else build(teacher_call)) or self.call, "teacher_call"
        )
        self._batch: Mapping[str, Any] | None = None
        self._pending: tuple[list[str], Tensor] | None = None
        self._freeze_student()
        self._recorders = self._make_recorders()
        self._introduce_teachers()
        self.attach()
        self._check_classes()

    # ------------------------------------------------------------------ construction

    @staticmethod
    def _named_match(name: str, match: Match | Mapping[str, Any]) -> Match:
        if not str(name).isidentifier():
            raise MatchError(f"a match's name must be a valid Python name, since it appears in the log, got {name!r}")
        built = build({"type": Match, **match}) if isinstance(match, Mapping) else match
        if not isinstance(built, Match):
            raise MatchError(f"match {name!r} must be a Match or a config of one, got {type(built).__name__}")
        return built

    def _build_teachers(self, teacher: nn.Module | Mapping[str, Any] | None) -> dict[str, Teacher]:
        if teacher is None:
            return {}
        if isinstance(teacher, nn.Module) or "type" in teacher:
            teacher = {"teacher": teacher}
        for name in teacher:
            if name in _RESERVED_NAMES or not str(name).isidentifier():
                raise MatchError(f"a teacher's name must be a Python name, not student or batch, got {name!r}")
        return {name: as_teacher(value, self.student) for name, value in teacher.items()}

    def _per_teacher(self, value: Any, argument: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            return dict.fromkeys(self.teachers, value)
        for name in value:
            if name not in self.teachers:
                raise MatchError(f"{argument} names the teacher {name!r}: {closest(name, self.teachers)}")
        missing = [name for name in self.teachers if name not in value]
        if missing:
            raise MatchError(
                f"{argument} says nothing of the teachers {missing}: name every teacher, or give one for all"
            )
        return {name: build(item) if isinstance(item, Mapping) else item for name, item in value.items()}

    def _freeze_student(self) -> None:
        for path in self.freeze:
            target = resolve(self.student, path, "student")
            if not isinstance(target, nn.Module):
                raise TapError(f"freeze names {path!r}, which is a parameter: name the submodule that holds it")
            target.requires_grad_(False)
            target.eval()

    def _owner(self, tap: Tap) -> str:
        """Resolve ``of="teacher"`` to the only teacher and check that the owner exists."""
        owner = tap.of or "student"
        if owner in ("student", "batch") or owner in self.teachers:
            return owner
        names = list(self.teachers)
        if owner == "teacher" and len(names) == 1:
            return names[0]
        if owner == "teacher" and not names:
            raise TapError(
                f"tap '{tap}' reads a teacher, but there is none: give the distiller a teacher, or write "
                f"Tap({tap.path!r}, of='student') for self-distillation"
            )
        if owner == "teacher":
            raise TapError(f"tap '{tap}' does not say which teacher: write of=... with one of {names}")
        raise TapError(f"tap '{tap}' names the owner {owner!r}: {closest(owner, ['student', 'batch', *names])}")

    def _all_taps(self) -> Iterator[tuple[str, Tap]]:
        for _, match in self._named_matches():
            for tap in match.taps:
                yield self._owner(tap), tap
        for tap in self.taps.values():
            yield self._owner(tap), tap
        for teacher in self.teachers.values():
            for tap in teacher.student_taps.values():
                yield "student", tap

    def _make_recorders(self) -> dict[str, Recorder]:
        taps: dict[str, list[Tap]] = {"student": [], **{name: [] for name in self.teachers}}
        for owner, tap in self._all_taps():
            if owner != "batch":
                taps[owner].append(tap)
        return {
            name: Recorder("student", found) if name == "student" else self.teachers[name].recorder(name, found)
            for name, found in taps.items()
        }

    def _introduce_teachers(self) -> None:
        for name, teacher in self.teachers.items():
            readers = dict(self._named_matches())
            teacher.meet({m: match for m, match in readers.items() if name in map(self._owner, match.taps)})

    def _check_classes(self) -> None:
        """Refuse a pair of classifier taps with different class counts, where both are known before any data."""
        for name, match in self._named_matches():
            if match.adapter is not None or match.teacher_adapter is not None:
                continue
            if match.student_is_sequence or match.teacher_is_sequence or not match.compares_logits:
                continue
            counts = [self._width(tap) for tap in (match.student[0], match.teacher[0])]
            if None not in counts and counts[0] != counts[1]:
                raise MatchError(
                    f"match {name!r}: the student scores {counts[0]} classes at '{match.student[0]}', the teacher "
                    f"{counts[1]} at '{match.teacher[0]}': join class lists with teacher_adapter=ClassMap(...)"
                )

    def _width(self, tap: Tap) -> int | None:
        owner = self._owner(tap)
        if owner == "batch" or tap.at != "output" or tap.pick is not None:
            return None
        model = self._model(owner)
        if isinstance(model, nn.Identity):  # a teacher that looks its values up
            return None
        target = resolve(model, tap.path, owner)
        width = getattr(target, "out_features", None) or getattr(target, "out_channels", None)
        return width if isinstance(width, int) else None

    # ------------------------------------------------------------------ parts

    @property
    def teachers(self) -> dict[str, Teacher]:
        """The teachers by name."""
        return self._teachers.by_name

    @property
    def teacher(self) -> Teacher:
        """The only teacher.

        Raises:
            MatchError: if there is none, or more than one.
        """
        if len(self.teachers) != 1:
            raise MatchError(
                f"this distiller has {len(self.teachers)} teachers: use .teachers[...], one of {list(self.teachers)}"
            )
        return next(iter(self.teachers.values()))

    def call_of(self, teacher: str) -> Call:
        """How a teacher is called."""
        return cast("Call", self._teacher_calls[teacher])

    def view_of(self, teacher: str) -> str:
        """Field of the batch that a teacher takes."""
        return cast("str", self._teacher_views[teacher])

    def _model(self, owner: str) -> nn.Module:
        return self.student if owner == "student" else self.teachers[owner].model

    def _match(self, name: str) -> Match:
        return cast("Match", self.matches[name])

    def _named_matches(self) -> Iterator[tuple[str, Match]]:
        for name in self.matches:
            yield name, self._match(name)

    def attach(self) -> None:
        """Install the taps' hooks anew. Called by itself when a tapped module was replaced."""
        for owner, recorder in self._recorders.items():
            recorder.attach(self._model(owner))

    def detach(self) -> None:
        """Remove the hooks, for example before pickling the student by itself."""
        for recorder in self._recorders.values():
            recorder.detach()

    def set_progress(self, progress: Progress) -> None:
        """Tell scheduled weights, and losses with schedules of their own, where the run stands.

        MMEngine's loop does it by a hook.

        Args:
            progress: Step and epoch, both from 0, and their maxima where known.
        """
        self.progress = progress
        for module in self.matches.modules():
            follow = getattr(module, "set_progress", None)
            if follow is not None:
                follow(progress)

    def init_weights(self) -> None:
        """Do nothing: construction decided the weights, and drawing them again would undo pretrained ones."""

    def train(self, mode: bool = True) -> Distiller:
        """Set the student's mode; frozen submodules and teachers keep theirs."""
        super().train(mode)
        for path in self.freeze:
            resolve(self.student, path, "student").eval()  # type: ignore[union-attr]
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> Distiller:
        super()._apply(fn, recurse)
        for teacher in self.teachers.values():
            teacher._apply(fn)  # type: ignore[no-untyped-call]
        return self

    def state_dict_extra(self) -> dict[str, Any]:
        """State of teachers that remember (EMA, past self): tensors and plain data, for the checkpoint's own part."""
        stateful = {name: teacher for name, teacher in self.teachers.items() if teacher.stateful}
        return {"teachers": {name: teacher.state_dict() for name, teacher in stateful.items()}}

    def load_state_dict_extra(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict_extra` returned.

        Raises:
            MatchError: if a teacher that remembers has no state in the checkpoint.
        """
        saved = state.get("teachers", {})
        for name, teacher in self.teachers.items():
            if not teacher.stateful:
                continue
            if name not in saved:
                raise MatchError(
                    f"the checkpoint holds no state of the teacher {name!r}: {closest(name, saved)}; resume with the "
                    "config that wrote it, or start anew with its weights as a plain checkpoint"
                )
            teacher.load_state_dict(saved[name])

    # ------------------------------------------------------------------ one step

    def forward(self, *args: Any, mode: str = "loss", **fields: Any) -> Any:
        """Run one batch.

        Args:
            args: ``inputs, targets, ids, mask`` in this order; or one mapping, the batch.
            mode: ``"loss"`` returns the dictionary of losses; ``"predict"`` what an evaluator takes; ``"tensor"`` the
                student's raw output.
            fields: The batch's fields by name.

        Raises:
            TapError, MatchError, ShapeError: naming the match and the taps.
            NonFiniteError: if a loss is NaN or infinite, naming the match and, on the CPU, the tensor at fault. On an
                accelerator the answer is read one step later, so that no step waits for the device.
        """
        batch = self._as_batch(args, fields)
        if mode == "loss":
            return self._losses(batch)
        if mode == "predict":
            return self.call.predict(self.student, batch, self.student_view)
        if mode == "tensor":
            return self.call.capture(self.student, batch, self.student_view)
        raise MatchError(f"mode must be 'loss', 'predict' or 'tensor', got {mode!r}")

    def predict_teacher(self, name: str, batch: Mapping[str, Any]) -> Any:
        """Return a teacher's prediction on a batch, as ``mode="predict"`` would; its metric belongs in the log."""
        teacher = self.teachers[name]
        teacher.keep_modes()
        with torch.no_grad():
            return self.call_of(name).predict(teacher.model, batch, self.view_of(name))

    def _as_batch(self, args: tuple[Any, ...], fields: Mapping[str, Any]) -> Mapping[str, Any]:
        if len(args) == 1 and isinstance(args[0], Mapping) and not fields and self.student_view in args[0]:
            return args[0]
        if len(args) > len(POSITIONAL):
            raise MatchError(f"a batch has at most {len(POSITIONAL)} positional parts {POSITIONAL}, got {len(args)}")
        positional = dict(zip(POSITIONAL, args, strict=False))
        twice = positional.keys() & fields.keys()
        if twice:
            raise MatchError(f"the batch gives {sorted(twice)} both by position and by name")
        return {**positional, **fields}

    def _losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        self._raise_pending()
        self._batch = batch
        try:
            losses = self._weigh_own(self._run_student(batch))
            weights = {name: match.scale(self.progress) for name, match in self._named_matches()}
            self._run_teachers(batch, weights)
            ours = self.compute_losses(batch, weights)
            clash = losses.keys() & ours.keys()
            if clash:
                raise MatchError(f"the student itself returns {sorted(clash)}: give those matches other names")
            losses.update(ours)
            self._check_finite(losses)
            self._show_teachers(batch)
            return losses
        finally:
            self._batch = None
            for recorder in self._recorders.values():
                recorder.clear()

    def _run_student(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        recorder = self._recorders["student"]
        recorder.refresh(self.student)
        with recorder.recording():
            return self.call.loss(self.student, batch, self.student_view, self.task_loss)

    def _weigh_own(self, losses: dict[str, Any]) -> dict[str, Any]:
        """Multiply the student's own losses by ``task_weight``; what it logs besides stays as it is."""
        if self.task_weight == Constant(1.0):
            return losses
        weight = self.task_weight(self.progress or Progress(step=0))
        return {name: value * weight if "loss" in name else value for name, value in losses.items()}

    def _run_teachers(self, batch: Mapping[str, Any], weights: Mapping[str, float]) -> None:
        """Run every teacher that an active match reads; one whose matches all weigh nothing rests."""
        needed = {self._owner(tap) for name in self._active(weights) for tap in self._match(name).taps}
        needed |= {self._owner(tap) for tap in self.taps.values()}
        for name, teacher in self.teachers.items():
            recorder = self._recorders[name]
            if name not in needed or not recorder.taps:
                continue
            teacher.run(recorder, self.call_of(name), batch, self.view_of(name))

    def read_teachers(self, batch: Mapping[str, Any], names: Sequence[str]) -> dict[str, dict[Tap, Any]]:
        """Run teachers on a batch, without the student, and return what matches would read of them.

        Args:
            batch: The batch, on the model's device.
            names: The teachers.

        Returns:
            The value of each tap, by teacher.

        Raises:
            TapError: as :meth:`~limbeck_core.tap.Recorder.read`.
        """
        found: dict[str, dict[Tap, Any]] = {}
        for name in names:
            teacher, recorder = self.teachers[name], self._recorders[name]
            try:
                teacher.run(recorder, self.call_of(name), batch, self.view_of(name))
                found[name] = {tap: _leave_inference(recorder.read(tap, teacher.model)) for tap in recorder.taps}
            finally:
                recorder.clear()
        return found

    def _active(self, weights: Mapping[str, float]) -> list[str]:
        """Matches to compute: those that weigh something, and those whose parameters DDP expects to see used."""
        return [name for name, weight in weights.items() if weight != 0 or self._match(name).trainable]

    def compute_losses(self, batch: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Return the distillation losses of this step by log name; subclasses may write their own.

        Args:
            batch: The batch.
            weights: Weight of each match at this point of the run.
        """
        active = set(self._active(weights))
        losses: dict[str, Tensor] = {}
        for name, match in self._named_matches():
            if name in active:
                losses[f"loss/{name}"] = self._compare(name, match, batch) * weights[name]
            else:
                losses[f"loss/{name}"] = torch.zeros((), device=self._device())
        return losses

    def _compare(self, name: str, match: Match, batch: Mapping[str, Any]) -> Tensor:
        try:
            loss = cast("Tensor", match(self.read, batch))
        except LimbeckError as error:
            raise type(error)(f"match {name!r}: {error}") from error
        if self.training and torch.is_grad_enabled() and not loss.requires_grad:
            self._check_gradient_path(name, match)
        return loss

    def _check_gradient_path(self, name: str, match: Match) -> None:
        """Refuse a match that would teach the student nothing, in silence."""
        taps = [tap for tap in match.student if self._owner(tap) == "student"]
        has_path = any(value.requires_grad for tap in taps for value in leaves(self.read(tap)))
        trains = any(parameter.requires_grad for parameter in self.student.parameters())
        # a loss may lack a gradient on one batch; a match may compare other things than the student, for the log
        if has_path or not trains or not taps:
            return
        raise MatchError(
            f"match {name!r}: no gradient reaches the student, since tap '{', '.join(map(str, taps))}' was "
            "read where gradients are off: inside activation checkpointing with use_reentrant=True (set it to False), "
            "in a frozen part, or under no_grad; tap another place, or take the match out"
        )

    def _device(self) -> torch.device:
        return next((p.device for p in self.student.parameters()), torch.device("cpu"))

    def read(self, tap: Tap | str) -> Any:
        """Return the value of a tap in the current step; a string is a name in ``taps``.

        Raises:
            TapError: outside of a step, or as :meth:`~limbeck_core.tap.Recorder.read`.
        """
        if isinstance(tap, str):
            if tap not in self.taps:
                raise TapError(f"no tap is called {tap!r}: {closest(tap, self.taps)}")
            tap = self.taps[tap]
        if self._batch is None:
            raise TapError(f"tap '{tap}' can be read only during a step, inside compute_losses()")
        owner = self._owner(tap)
        if owner == "batch":
            return read_batch(self._batch, tap)
        value = self._recorders[owner].read(tap, self._model(owner))
        return _leave_inference(value) if owner != "student" else value

    def _show_teachers(self, batch: Mapping[str, Any]) -> None:
        if not self.training:
            return
        recorder = self._recorders["student"]
        for teacher in self.teachers.values():
            if teacher.student_taps:
                seen = {name: recorder.read(tap, self.student) for name, tap in teacher.student_taps.items()}
                teacher.observe(batch, seen)

    # ------------------------------------------------------------------ checks

    def _check_finite(self, losses: Mapping[str, Any]) -> None:
        values = {name: v.detach() for name, v in losses.items() if isinstance(v, Tensor) and v.numel() == 1}
        if not values or torch.compiler.is_compiling():
            return
        first = next(iter(values.values()))
        flags = torch.stack([torch.isfinite(value.reshape(())) for value in values.values()])
        if first.device.type != "cpu":
            self._pending = (list(values), flags)
            return
        if not bool(flags.all()):
            self._explain(list(values), flags)

    def _raise_pending(self) -> None:
        if self._pending is not None and not torch.compiler.is_compiling():
            names, flags = self._pending
            self._pending = None
            if not bool(flags.all()):
                self._explain(names, flags)

    def _explain(self, names: list[str], flags: Tensor) -> None:
        bad = [name for name, finite in zip(names, flags.tolist(), strict=True) if not finite]
        for name in bad:
            title = name.removeprefix("loss/")
            if title not in self.matches or self._batch is None:
                continue
            for tap in self._match(title).taps:
                value = self.read(tap)
                if isinstance(value, Tensor):
                    explain_non_finite(value, f"match {title!r}: tap '{tap}'")
        raise NonFiniteError(
            f"{', '.join(bad)} is NaN or infinite, from tensors that are finite where the losses read them: lower the "
            "learning rate or the loss's weight, or keep the loss in float32 under mixed precision"
        )

    def check(self, *args: Any, **fields: Any) -> list[MatchShapes]:
        """Run one batch for its shapes and leave no trace: weights, buffers, banks and generators stay as they were.

        Args:
            args: As in :meth:`forward`.
            fields: As in :meth:`forward`.

        Returns:
            One row a match, in order.

        Raises:
            LimbeckError: the first thing that does not fit, naming match, taps and shapes.
        """
        batch = self._as_batch(args, fields)
        rows = []
        with self.untouched(), torch.no_grad():
            self._batch = batch
            try:
                self._run_student(batch)
                self._run_teachers(batch, dict.fromkeys(self.matches, 1.0))
                for name, match in self._named_matches():
                    loss = self._compare(name, match, batch)
                    sides = [
                        ", ".join(f"{tap} {shape_of(self.read(tap))}" for tap in taps)
                        for taps in (match.student, match.teacher)
                    ]
                    rows.append(MatchShapes(name, sides[0], sides[1], float(loss), match.scale(self.progress)))
            finally:
                self._batch = None
                for recorder in self._recorders.values():
                    recorder.clear()
        return rows

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Context after which buffers, banks, teachers' states and generators are as they were before."""
        modules: list[nn.Module] = [self, *self.teachers.values()]
        buffers = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
        extra = copy.deepcopy(self.state_dict_extra())
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=_accelerators(self)))
            try:
                yield
            finally:
                with torch.no_grad():
                    for buffer, before in buffers:
                        buffer.copy_(before)
                self.load_state_dict_extra(extra)


def _accelerators(module: nn.Module) -> list[int]:
    return sorted(
        {p.device.index for p in module.parameters() if p.device.type == "cuda" and p.device.index is not None}
    )


def _leave_inference(value: Any) -> Any:
    """Copy inference tensors so that a loss may save them for its gradient."""
    if isinstance(value, Tensor):
        # the tracer cannot ask a tensor; while it traces, teachers run under no_grad
        return value.clone() if not torch.compiler.is_compiling() and value.is_inference() else value
    if isinstance(value, Mapping):
        return {key: _leave_inference(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_leave_inference(item) for item in value)
    return value
