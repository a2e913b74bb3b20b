"""Who teaches: a frozen model, a moving average of the student, the student's own past, or peers that learn together.

A teacher is never a registered submodule of the distiller: it follows ``.to``, is shared by deep copies, and stays out
of ``parameters()`` and ``state_dict()``. One that remembers (:class:`EMATeacher`, :class:`PastSelf`) keeps its state in
the checkpoint's own section.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from limbeck_core.build import build, resolve_type
from limbeck_core.checks import explain_non_finite
from limbeck_core.errors import ConfigError, MatchError, ShapeError
from limbeck_core.gather import gather
from limbeck_core.schedules import Progress, Schedule, as_schedule
from limbeck_core.tap import Recorder, Tap, as_tap, unwrap
from limbeck_core.weights import load_weights

if TYPE_CHECKING:
    from limbeck_core.calls import Call
    from limbeck_core.match import Match

_ModuleT = TypeVar("_ModuleT", bound=nn.Module)


class Teacher(nn.Module):
    """Base of all teachers.

    Args:
        model: The wrapped model, in which taps resolve. It is frozen here: no parameter of it asks for a gradient.

    ``stateful`` says whether the teacher's state belongs in the checkpoint, ``student_taps`` what it wants to see of
    the student each step. A teacher that looks its values up instead of running a model has an identity for a model.
    """

    stateful = False

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.student_taps: dict[str, Tap] = {}
        self.set_modes()

    @property
    def original(self) -> nn.Module:
        """The model as it was given, of a teacher that rewrote it to be faster; otherwise just the model."""
        return self.model

    @property
    def changes(self) -> bool:
        """Whether it may say something else in the next validation, so that it is judged again."""
        return self.stateful

    def set_modes(self) -> None:
        """Freeze every parameter and put every module into the mode in which this teacher runs."""
        self.model.requires_grad_(False)
        self._set_training()

    def _set_training(self) -> None:
        nn.Module.train(self.model, False)

    def train(self, mode: bool = True) -> Teacher:
        """Do nothing but record the flag: a teacher's mode is its own, whoever calls."""
        self.training = mode
        return self

    def keep_modes(self) -> None:
        """Put back any module that somebody switched between training and evaluation by hand."""
        if any(module.training for module in self.model.modules()):
            self._set_training()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Context in which the forward runs: no gradient."""
        with torch.no_grad():
            yield

    def recorder(self, name: str, taps: list[Tap]) -> Recorder:
        """Return what reads the taps of this teacher.

        Args:
            name: What the teacher is called in taps.
            taps: What the matches read of it.
        """
        return Recorder("teacher" if name == "teacher" else f"teacher {name!r}", taps)

    def meet(self, matches: Mapping[str, Match]) -> None:
        """Be told once, at construction of the distiller, which matches read this teacher; most do not care."""

    def check_data(self, dataset: Any) -> None:
        """Refuse training data that this teacher knows nothing of, before the first step; most know any data.

        Args:
            dataset: The training data as the loop shows them, a
                :class:`~limbeck_core.engine.sampler.SeededDataset`.
        """

    def run(self, recorder: Recorder, call: Call, batch: Mapping[str, Any], view: str) -> None:
        """Let a recorder see what the teacher has to say on a batch.

        Args:
            recorder: What :meth:`recorder` returned.
            call: How the model is called.
            batch: The batch.
            view: Field of the batch that the model takes.
        """
        recorder.refresh(self.model)
        self.keep_modes()
        with recorder.recording(), self.running():
            call.capture(self.model, batch, view)

    def observe(self, batch: Mapping[str, Any], seen: Mapping[str, Any]) -> None:
        """Take in what the student did on this batch (the values of ``student_taps``); most teachers do not."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the wrapped model in the teacher's own mode and without gradient."""
        self.keep_modes()
        with self.running():
            return self.model(*args, **kwargs)


class FrozenTeacher(Teacher):
    """A model that does not change: evaluation mode always, no gradient.

    Args:
        model: The trained model.
        inference_mode: Run under ``torch.inference_mode`` instead of ``no_grad``. Tapped values are copied outside of
            it, since inference tensors may not enter a loss that needs them for its gradient. The first forward runs
            under ``no_grad`` all the same, because inference tensors do not tell whether they were changed in place.
    """

    def __init__(self, model: nn.Module, *, inference_mode: bool = False) -> None:
        super().__init__(model)
        self.inference_mode = inference_mode
        self._checked_in_place = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Context in which the forward runs: ``no_grad``, or ``inference_mode`` from the second forward on."""
        # inside of a compiled distiller too: torch.compile cannot capture a graph of inference tensors
        fast = self.inference_mode and self._checked_in_place and not torch.compiler.is_compiling()
        with torch.inference_mode() if fast else torch.no_grad():
            yield
        self._checked_in_place = True


def pretrained(
    model: nn.Module | Mapping[str, Any] | Callable[[], nn.Module],
    checkpoint: str | Path,
    *,
    partial: bool = False,
    inference_mode: bool = False,
) -> FrozenTeacher:
    """Return a frozen teacher with weights read from a file.

    Args:
        model: The architecture: a module, or a config of one.
        checkpoint: File with its weights, read without running any code. On the meta device, where a config is only
            looked at, nothing is read.
        partial: Accept a file that lacks some of the model's weights.
        inference_mode: See :class:`FrozenTeacher`.

    Raises:
        CheckpointError: if the file is missing, damaged, unsafe, or does not match, with what matched and what did not.
    """
    built = build(model)
    if torch.get_default_device().type != "meta":
        load_weights(built, Path(checkpoint), partial=partial)
    return FrozenTeacher(built, inference_mode=inference_mode)


class EMATeacher(Teacher):
    r"""Exponential moving average of the student (mean teacher, BYOL, DINO, ATST).

    .. math:: \theta_t \leftarrow m \, \theta_t + (1 - m) \, \theta_s

    Args:
        student: The model to copy and follow. In a config, leave it out: the distiller passes its student.
        momentum: :math:`m` in [0, 1]; a number or a schedule over steps.
        mode: ``"eval"`` runs the copy in evaluation mode. ``"batch_stats"`` lets normalisation layers use the batch's
            statistics, as methods do that average parameters only; everything else (dropout) stays in evaluation mode.
        buffers: What becomes of buffers such as running statistics: ``"copy"`` takes the student's at each update,
            ``"ema"`` averages floating-point ones like parameters, ``"own"`` leaves the copy's alone.
        follows: Dotted name of the student's submodule that is copied, ``""`` for the whole (ATST's predictor has no
            counterpart in the teacher).

    Raises:
        ConfigError: if ``mode`` or ``buffers`` is not one of the above.

    Reference:
        Tarvainen and Valpola, Mean teachers are better role models, arXiv:1703.01780, section 2.
    """

    stateful = True
    needs_student = True

    def __init__(
        self,
        student: nn.Module,
        momentum: float | Schedule | Mapping[str, Any] = 0.999,
        *,
        mode: Literal["eval", "batch_stats"] = "eval",
        buffers: Literal["copy", "ema", "own"] = "copy",
        follows: str = "",
    ) -> None:
        if mode not in ("eval", "batch_stats"):
            raise ConfigError(f"mode of EMATeacher must be 'eval' or 'batch_stats', got {mode!r}")
        if buffers not in ("copy", "ema", "own"):
            raise ConfigError(f"buffers of EMATeacher must be 'copy', 'ema' or 'own', got {buffers!r}")
        self.mode = mode
        self.buffer_rule = buffers
        self.follows = follows
        self.momentum: Schedule = as_schedule(momentum)
        super().__init__(copy.deepcopy(unwrap(student).get_submodule(follows)))

    def _set_training(self) -> None:
        nn.Module.train(self.model, False)
        for module in self._batch_statistics():
            module.train(True)

    def keep_modes(self) -> None:
        """Put back any module that somebody switched between training and evaluation by hand."""
        wanted = {id(module) for module in self._batch_statistics()}
        if any(module.training != (id(module) in wanted) for module in self.model.modules()):
            self._set_training()

    def _batch_statistics(self) -> list[nn.Module]:
        if self.mode == "eval":
            return []
        return [module for module in self.model.modules() if isinstance(module, _NormBase)]

    @torch.no_grad()
    def update(self, student: nn.Module, step: int | Progress) -> None:
        """Move towards the student; call it after each optimiser step.

        Args:
            student: The model that was copied.
            step: Number of the optimiser step just done, from 0; or the progress of the run, for a schedule that needs
                its length.

        Raises:
            ShapeError: if the student's parameters are no longer those of the copy.
        """
        progress = step if isinstance(step, Progress) else Progress(step=step, epoch=0, max_steps=None, max_epochs=None)
        momentum = self.momentum(progress)
        source = unwrap(student).get_submodule(self.follows)
        mine, theirs = dict(self.model.named_parameters()), dict(source.named_parameters())
        if mine.keys() != theirs.keys():
            changed = sorted(mine.keys() ^ theirs.keys())
            raise ShapeError(
                f"the student's parameters changed since the EMA teacher copied it ({', '.join(changed[:5])}): build "
                "the teacher after the last change to the student's architecture"
            )
        _average(list(mine.values()), [_whole(theirs[name].detach()) for name in mine], momentum)
        if self.buffer_rule == "own":
            return
        sources = dict(source.named_buffers())
        for name, buffer in self.model.named_buffers():
            if self.buffer_rule == "ema" and buffer.is_floating_point():
                _average([buffer], [_whole(sources[name])], momentum)
            else:
                buffer.copy_(_whole(sources[name]))


def _whole(tensor: Tensor) -> Tensor:
    """A tensor that FSDP2 shards, put together again: the moving average is replicated like every teacher."""
    assemble = getattr(tensor, "full_tensor", None)
    return tensor if assemble is None else assemble()


def _average(mine: list[Tensor], theirs: list[Tensor], momentum: float) -> None:
    if mine:
        torch._foreach_mul_(mine, momentum)
        torch._foreach_add_(mine, theirs, alpha=1 - momentum)


class PastSelf(Teacher):
    """The student's own predictions of the epoch before, kept per sample (the teacher of PS-KD).

    Tap it with ``Tap("", of=NAME)``: the value is the stored probabilities of the batch's samples, shape ``(N, C)``. A
    sample never seen before gives the one-hot of its target, so that the first epoch is plain cross-entropy. After the
    forward the distiller shows it the student's logits, whose softmax replaces the rows. With several ranks every rank
    holds all rows.

    Args:
        num_samples: Size of the training set; the batch's ``ids`` index it.
        num_classes: Number of classes C.
        logits: Tap on the student's logits.
        dtype: Storage type of the bank: float32, or float16 at half the memory (4 or 2 bytes x samples x classes).

    Raises:
        MatchError: if the batch lacks ``ids`` or ``targets``.
        NonFiniteError: if logits hold NaN or infinity; the bank is left as it was.

    Reference:
        Kim et al., Self-Knowledge Distillation with Progressive Refinement of Targets, arXiv:2006.12000, eq. 5.
    """

    stateful = True

    def __init__(
        self, num_samples: int, num_classes: int, *, logits: str | Tap = "", dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(nn.Identity())
        self.student_taps = {"logits": as_tap(build(logits) if isinstance(logits, Mapping) else logits)}
        # on the CPU whatever device the student uses: the bank of a large data set would fill an accelerator
        self.register_buffer("bank", torch.zeros(num_samples, num_classes, dtype=dtype, device="cpu"))
        self.register_buffer("seen", torch.zeros(num_samples, dtype=torch.bool, device="cpu"))
        self.bank: Tensor
        self.seen: Tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PastSelf:
        return self

    def _ids(self, batch: Mapping[str, Any]) -> Tensor:
        if "ids" not in batch:
            raise MatchError(
                "PastSelf needs 'ids' of the batch, the index of each sample in the training set: let the data set "
                "return it"
            )
        ids = torch.as_tensor(batch["ids"]).cpu()
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < len(self.bank):
            raise MatchError(
                f"PastSelf was built for {len(self.bank)} samples (ids 0 to {len(self.bank) - 1}), the batch has ids "
                f"from {int(ids.min())} to {int(ids.max())}: set num_samples to the length of the training set"
            )
        return ids

    def run(self, recorder: Recorder, call: Call, batch: Mapping[str, Any], view: str) -> None:
        """Let a recorder see the stored probabilities of the batch's samples."""
        recorder.refresh(self.model)
        with recorder.recording():
            self.model(self.recall(batch))

    def recall(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the stored probabilities of the batch's samples, float32, shape ``(N, C)``."""
        ids = self._ids(batch)
        if "targets" not in batch:
            raise MatchError("PastSelf needs 'targets' of the batch, for samples that it has not seen yet")
        targets = torch.as_tensor(batch["targets"])
        truth = targets.cpu()
        if truth.ndim == 1:
            truth = nn.functional.one_hot(truth.long(), self.bank.shape[1])
        rows = torch.where(self.seen[ids].unsqueeze(1), self.bank[ids].float(), truth.float())
        return rows.to(targets.device)

    @torch.no_grad()
    def observe(self, batch: Mapping[str, Any], seen: Mapping[str, Any]) -> None:
        """Store the softmax of the student's logits in the rows of the batch's samples."""
        logits = seen["logits"].detach().float()
        if logits.ndim != 2 or logits.shape[1] != self.bank.shape[1]:
            raise ShapeError(
                f"PastSelf was built for {self.bank.shape[1]} classes, the student's logits have shape "
                f"{tuple(logits.shape)}: set num_classes, or tap the logits"
            )
        explain_non_finite(logits, "the student's logits, which PastSelf would store,")
        ids = self._ids(batch).to(logits.device)
        probabilities, ids = gather(logits.softmax(1)), gather(ids)
        self.bank[ids.cpu()] = probabilities.to("cpu", self.bank.dtype)
        self.seen[ids.cpu()] = True


class Peers(nn.Module):
    """Several students that learn from each other (deep mutual learning).

    Args:
        models: Two or more modules; positional ones are named ``a``, ``b``, ``c``, ... in taps (``"a.fc"``).
        named: The same with names of your own.

    Each gets the task loss; matches between them (``student="a.fc"``, ``teacher=Tap("b.fc", of="student")``) do the
    rest. The first is the one that predicts and is exported.

    Raises:
        ConfigError: if there are fewer than two.

    Reference:
        Zhang et al., Deep Mutual Learning, arXiv:1706.00384.
    """

    def __init__(self, *models: nn.Module | Mapping[str, Any], **named: nn.Module | Mapping[str, Any]) -> None:
        super().__init__()
        letters = "abcdefghijklmnopqrstuvwxyz"
        everyone = {**dict(zip(letters, models, strict=False)), **named}
        if len(everyone) < 2:
            raise ConfigError(f"Peers needs two or more models, got {len(everyone)}")
        for name, model in everyone.items():
            self.add_module(name, build(model))

    def forward(self, inputs: Any) -> dict[str, Any]:
        """Run every peer on the same inputs; outputs by name."""
        return {name: peer(inputs) for name, peer in self.named_children()}


def as_teacher(value: nn.Module | Mapping[str, Any], student: nn.Module) -> Teacher:
    """Return ``value`` as a teacher: a module is frozen, a config is built (with the student, where it needs one)."""
    if isinstance(value, Mapping):
        wants_student = getattr(resolve_type(value["type"]), "needs_student", False)
        built: nn.Module = build({"student": student, **value} if wants_student else value)
    else:
        built = value
    return built if isinstance(built, Teacher) else FrozenTeacher(built)
