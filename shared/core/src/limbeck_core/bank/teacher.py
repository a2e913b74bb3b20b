"""A teacher that reads what it said once from a bank: nothing else of the distiller notices the difference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from limbeck_core.bank.fingerprint import describe_transforms, differ, sketch, teacher_key
from limbeck_core.bank.storage import Bank, differences, leaf_numbers, unflatten
from limbeck_core.build import build
from limbeck_core.calls import Call
from limbeck_core.errors import BankError, MatchError, TapError, closest
from limbeck_core.match import Match
from limbeck_core.tap import Recorder, Tap, leaves, resolve
from limbeck_core.teacher import Teacher

SKETCH = "inputs"  # the column that holds a sketch of each input

Coordinates = tuple[Any, ...]


def coordinates(tap: Tap) -> list[Any]:
    """What tells one tap of a teacher from another, as plain data: path, side, call and pick."""
    pick = list(tap.pick) if isinstance(tap.pick, tuple) else tap.pick
    return [tap.path, tap.at, tap.call, pick]


def _key(found: Iterable[Any]) -> Coordinates:
    return tuple(tuple(part) if isinstance(part, list) else part for part in found)


class BankTeacher(Teacher):
    """The teacher of a run that trains from a bank (``limbeck train CONFIG --bank DIR``).

    Every tap gives what the bank holds for the batch's samples: by ``ids``, and by ``view_ids`` where the bank has
    several views. With the loader's ``views`` and ``view_seed`` set as the bank's, the losses are those of the live
    teacher: bit for bit with the encoding ``exact`` at the same batch size and number of threads, to 1e-6 otherwise.

    Args:
        folder: The bank.
        teacher: The teacher that the bank stands for: a module, or a config of one. It is compared with the bank and
            judged in validation; it does not run in training. Without it the model need not be there at all.
        check_inputs: Compare each batch with the sketches of the inputs that the teacher saw, so that a wrong seed, a
            changed transform or another file under the same name is refused. Switch it off where the batch does not
            hold the teacher's view.

    Mixed batches (mixup, CutMix; they carry ``mix_weight`` and ``mix_ids``) are mixed after the look-up, if every match
    that reads the bank says ``mixes_exactly=True``.

    Raises:
        BankError: if there is no bank, it is damaged or unfinished, or it is of another teacher.
    """

    def __init__(
        self,
        folder: str | Path,
        teacher: nn.Module | Mapping[str, Any] | None = None,
        *,
        check_inputs: bool = True,
    ) -> None:
        self.bank = Bank(folder)
        self.check_inputs = check_inputs
        built = build(teacher)
        model = built.original if isinstance(built, Teacher) else built
        if model is not None and not any(
            leaf.is_meta for leaf in model.state_dict().values() if isinstance(leaf, Tensor)
        ):
            self._check_teacher(built)
        self._values: dict[Coordinates, Any] = {_key(tap["tap"]): tap["value"] for tap in self.bank.manifest.taps}
        self._constants = self.bank.constants()
        self._unmixable: list[str] = []
        self._mixable: set[Coordinates] = set()
        self._pending: tuple[Tensor, Tensor] | None = None
        super().__init__(nn.Identity() if model is None else model)

    def _check_teacher(self, built: nn.Module) -> None:
        mine = teacher_key(built)
        theirs = {name: self.bank.manifest.key["teacher"].get(name) for name in mine}
        differing = differences(mine, theirs, "teacher")
        if differing:
            raise BankError(
                f"the bank in {self.bank.folder} is of another teacher: {'; '.join(differing)}. Write a bank of this "
                "teacher in another folder, or train from the checkpoint that this bank was written with"
            )

    # ------------------------------------------------------------------ what the distiller asks

    def recorder(self, name: str, taps: list[Tap]) -> Recorder:
        """Return what answers the taps of this teacher from the bank."""
        return _BankRecorder("teacher" if name == "teacher" else f"teacher {name!r}", taps, self)

    def meet(self, matches: Mapping[str, Match]) -> None:
        """Learn which matches may be given mixtures."""
        self._unmixable = [name for name, match in matches.items() if not match.mixes_exactly]
        read = {
            name: {_key(coordinates(tap)) for tap in match.taps if tap.of not in ("student", "batch")}
            for name, match in matches.items()
        }
        mixed = [taps for name, taps in read.items() if name not in self._unmixable]
        self._mixable = set().union(*mixed)

    def check_data(self, dataset: Any) -> None:
        """Refuse training data whose views are not the bank's, or which the bank does not hold.

        Raises:
            BankError: saying what differs and which options of the loader put it right.
        """
        manifest = self.bank.manifest
        views, seed = manifest.views, manifest.key["seed"]
        mine = getattr(dataset, "views", None), getattr(dataset, "view_seed", None)
        if mine != (views, seed):
            raise BankError(
                f"the bank in {self.bank.folder} holds {views} view{'s' if views > 1 else ''} of each sample, drawn "
                f"from the seed {seed}, and the data are drawn with views={mine[0]}, view_seed={mine[1]}: set "
                f"train_dataloader.views={views} and train_dataloader.view_seed={seed}, as "
                f"'limbeck train CONFIG --bank {self.bank.folder}' does"
            )
        inner = getattr(dataset, "dataset", dataset)
        wanted = {"transforms": describe_transforms(inner)}
        differing = _line_differences(wanted["transforms"], manifest.key["data"]["transforms"])
        if differing:
            raise BankError(
                f"the bank in {self.bank.folder} was written with other transforms: {'; '.join(differing[:3])}. Write "
                "a bank for these in another folder, or train with the bank's"
            )
        named = manifest.key["data"]["ids"] == "named"
        ids = getattr(dataset, "_ids", None) if named else None
        self.bank.positions(np.arange(len(dataset)) if ids is None else ids)

    def run(self, recorder: Recorder, call: Call, batch: Mapping[str, Any], view: str) -> None:
        """Look up what the taps of a recorder read.

        Raises:
            MatchError: if the batch lacks ``ids``, or ``view_ids`` where there are several views, or is mixed and a
                match does not say that mixtures are exact.
            BankError: if a sample is not in the bank, was another one when the teacher saw it, or is damaged.
        """
        self._look_up(recorder, batch, view)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # files cannot be traced
    def _look_up(self, recorder: Recorder, batch: Mapping[str, Any], view: str) -> None:
        if not isinstance(recorder, _BankRecorder):
            raise MatchError("a bank answers the recorder that it made itself")
        ids = _numbers(batch, "ids", "ids, the id of each sample: let the data set return it")
        positions = self.bank.positions(ids)
        views = self._views(batch, len(ids))
        device = next((leaf.device for leaf in leaves(batch.get(view))), torch.device("cpu"))
        weight = self._mixing(recorder, batch, len(ids))
        if weight is None:
            self._compare_inputs(batch, view, positions, views)
        others = None
        if weight is not None:
            mixed = _numbers(batch, "mix_ids", "mix_ids beside mix_weight, the id of each sample's partner")
            others = self.bank.positions(mixed)

        tensors: dict[int, Tensor] = {}
        for number in sorted({n for tap in recorder.taps for n in leaf_numbers(self._values[_key(coordinates(tap))])}):
            if number < 0:
                tensors[number] = self._constants[-1 - number].to(device)
                continue
            value = self.bank.read(number, positions, views)
            if weight is not None and others is not None:
                value = _mixed(value, self.bank.read(number, others, views), weight)
            tensors[number] = value.to(device)
        recorder.values = {
            key: unflatten(self._values[key], tensors) for key in {_key(coordinates(tap)) for tap in recorder.taps}
        }

    def _views(self, batch: Mapping[str, Any], count: int) -> Any:
        if self.bank.manifest.views == 1 and "view_ids" not in batch:
            return np.zeros(count, dtype=np.int64)
        advice = "view_ids, the number of the view of each sample: set views and view_seed of the loader as the bank's"
        views = _numbers(batch, "view_ids", advice)
        if len(views) and not 0 <= views.min() <= views.max() < self.bank.manifest.views:
            raise BankError(
                f"the batch shows view {int(views.max())}, and the bank in {self.bank.folder} has "
                f"{self.bank.manifest.views} (from 0): set views of the loader to that"
            )
        return views

    def _compare_inputs(self, batch: Mapping[str, Any], view: str, positions: Any, views: Any) -> None:
        """Hold the batch against the inputs that the teacher saw; on an accelerator the answer is read a step later."""
        if not self.check_inputs:
            return
        if view not in batch:
            raise MatchError(
                f"the bank compares its inputs with {view!r} of the batch, which has {', '.join(map(str, batch))}: "
                "keep the teacher's view in the batch, or set check_inputs=False"
            )
        if self._pending is not None:
            flags, ids = self._pending
            self._pending = None
            self._refuse_others(flags, ids)
        mine, length = sketch(batch[view], len(positions))
        stored = self.bank.read(0, positions, views).to(mine.device)
        flags = differ(mine, length, stored)
        ids = torch.as_tensor(batch["ids"])
        if flags.device.type == "cpu":
            self._refuse_others(flags, ids)
        else:
            self._pending = (flags, ids)

    def _refuse_others(self, flags: Tensor, ids: Tensor) -> None:
        if bool(flags.any()):
            wrong = ids.cpu()[flags.cpu()].tolist()
            raise BankError(
                f"{len(wrong)} of {len(ids)} inputs of this batch, the first is sample {wrong[0]}, are not those that "
                f"the teacher saw when the bank in {self.bank.folder} was written: the data, a transform, a library or "
                "the seed of the views is another one. Write the bank anew, or give the loader the bank's views and "
                "view_seed"
            )

    def _mixing(self, recorder: Recorder, batch: Mapping[str, Any], count: int) -> Tensor | None:
        """Share of each sample itself in a mixed batch; ``None`` for a batch of plain samples."""
        if "mix_weight" not in batch:
            return None
        unsaid = [str(tap) for tap in recorder.taps if _key(coordinates(tap)) not in self._mixable]
        if self._unmixable or unsaid:
            who = (
                f"match {self._unmixable[0]!r} does not say"
                if self._unmixable
                else f"no match says of tap {unsaid[0]!r}"
            )
            raise MatchError(
                f"the batch is mixed, the bank in {self.bank.folder} holds what the teacher said of unmixed samples, "
                f"and {who} that their mixture is what it compares with: set mixes_exactly=True on each match if the "
                "method mixes targets so, or train with the live teacher, or without mixing"
            )
        return torch.as_tensor(batch["mix_weight"]).detach().cpu().float().reshape(count)


def _numbers(batch: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in batch:
        raise MatchError(f"a teacher bank needs {what}; the batch has {', '.join(map(str, batch))}")
    try:
        found = torch.as_tensor(batch[name])
    except (TypeError, ValueError, RuntimeError) as error:
        raise MatchError(f"{name} of the batch must be whole numbers, one a sample: {error}") from error
    if found.ndim != 1 or found.is_floating_point():
        raise MatchError(
            f"{name} of the batch must be whole numbers of shape (N,), got {found.dtype} {tuple(found.shape)}"
        )
    return found.cpu().numpy().astype(np.int64)


def _mixed(value: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    if not value.is_floating_point():
        raise MatchError(f"values of type {value.dtype} cannot be mixed: tap the scores instead of the decisions")
    share = weight.reshape(-1, *[1] * (value.ndim - 1)).to(value.dtype)
    return share * value + (1 - share) * other


def _line_differences(wanted: list[str], found: list[str]) -> list[str]:
    gone = [line for line in found if line not in wanted]
    new = [line for line in wanted if line not in found]
    lines = [f"{a} in the bank is {b} now" for a, b in zip(gone, new, strict=False)]
    lines += [f"{line} is only in the bank" for line in gone[len(new) :]]
    return lines + [f"{line} is not in the bank" for line in new[len(gone) :]]


class _BankRecorder(Recorder):
    """Answers taps with values that were looked up; there is no model to hook into."""

    def __init__(self, owner: str, taps: Iterable[Tap], teacher: BankTeacher) -> None:
        super().__init__(owner, taps)
        self.teacher = teacher
        self.values: dict[Coordinates, Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Recorder:
        return _BankRecorder(self.owner, self.taps, self.teacher)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _BankRecorder, (self.owner, self.taps, self.teacher)

    def attach(self, model: nn.Module) -> None:
        """Look whether the bank holds every tap; its model, where there is one, must have the places too."""
        known = {_key(tap["tap"]): tap for tap in self.teacher.bank.manifest.taps}
        for tap in self.taps:
            if not isinstance(model, nn.Identity):
                resolve(model, tap.path, self.owner)
            if _key(coordinates(tap)) not in known:
                held = [str(Tap(*_tap_arguments(key))) for key in known]
                raise TapError(
                    f"tap '{tap}' of the {self.owner} is not in the bank in {self.teacher.bank.folder}: "
                    f"{closest(str(Tap(*_tap_arguments(_key(coordinates(tap))))), held)}; write a bank with the taps "
                    "of this config in another folder"
                )

    def refresh(self, model: nn.Module) -> None:
        """Do nothing: no hook can come off."""

    def clear(self) -> None:
        """Drop the values of the last batch."""
        self.values = {}

    def read(self, tap: Tap, model: nn.Module) -> Any:
        """Return the value that was looked up for a tap."""
        key = _key(coordinates(tap))
        if key not in self.values:
            raise TapError(f"tap '{tap}' of the {self.owner} was not looked up in this step: its matches rest")
        return self.values[key]


def _tap_arguments(key: Coordinates) -> tuple[Any, ...]:
    path, at, call, pick = key
    return path, None, pick, call, at


__all__ = ["SKETCH", "BankTeacher", "coordinates"]
