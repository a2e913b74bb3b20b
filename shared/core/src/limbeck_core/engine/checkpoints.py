"""Checkpoint files: written whole or not at all, never run, and checked before they are believed.

A training checkpoint is one file, a dictionary of plain data::

    state_dict          the student's weights, under the student's own names: any program can load them
    optimizer, param_schedulers, message_hub, meta
    limbeck
        format          a number; a file of a newer format is refused
        kind            "training", "weights" (no optimizer) or "student"
        digest          SHA-256 over everything else
        matches         weights of adapters and losses, and whatever else the model holds beside its student
        model           what the model remembers besides (moving-average teachers)
        hooks           what hooks remember (best score, average of the student), by name
        loop            where training stands
        ranks           of each rank: generators, partial gradients, and what differs from rank 0
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from limbeck_core.errors import CheckpointError, closest
from limbeck_core.tap import unwrap
from limbeck_core.weights import LoadReport, load_weights, read_file

FORMAT = 1
POINTER = "last_checkpoint"
_NAME = re.compile(r"step_(\d+)\.pth")
_TEMPORARY = ".{name}.{pid}.writing"


class Found(NamedTuple):
    """A checkpoint that was read and checked, and what was wrong with newer ones."""

    path: Path
    content: dict[str, Any]
    complaints: list[str]


# ---------------------------------------------------------------------- digest


def digest_of(tree: Any) -> str:
    """SHA-256 over plain data: structure, types, and every byte of every tensor."""
    total = hashlib.sha256()
    _feed(total, tree)
    return total.hexdigest()


def _feed(total: Any, tree: Any) -> None:
    if isinstance(tree, Tensor):
        total.update(f"T{tree.dtype}{tuple(tree.shape)}".encode())
        flat = tree.detach().cpu().contiguous().reshape(-1)
        total.update(flat.view(torch.uint8).numpy().data)
    elif isinstance(tree, Mapping):
        total.update(f"D{len(tree)}".encode())
        for key, value in tree.items():
            _feed(total, key)
            _feed(total, value)
    elif isinstance(tree, (list, tuple)):
        total.update(f"L{len(tree)}".encode())
        for value in tree:
            _feed(total, value)
    else:
        total.update(f"{type(tree).__name__}{tree!r};".encode())


# ---------------------------------------------------------------------- writing


def write_atomic(path: Path, content: Any) -> None:
    """Write a file in one piece: beside its place first, to the disk, then under its name.

    A reader sees the old file or the new one, whenever the process or the machine stops.

    Args:
        path: Where to; an older file of that name is replaced.
        content: What ``torch.save`` takes, or a string, which is written as text.

    Raises:
        CheckpointError: if the disk is full or the folder cannot be written; an older file is as it was.
    """
    temporary = path.with_name(_TEMPORARY.format(name=path.name, pid=os.getpid()))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            if isinstance(content, str):
                file.write(content.encode())
            else:
                torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # PyTorch's writer turns a full disk into a RuntimeError
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        before = "the file of that name is as it was before" if path.exists() else "nothing was left behind"
        raise CheckpointError(
            f"{path} could not be written ({error}); {before}. Free space on that disk, or choose another work_dir"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Let the new name itself reach the disk; some file systems cannot, and lose at most the newest name."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Delete what writers that were killed left half-written."""
    for file in folder.glob(".*.writing"):
        with contextlib.suppress(OSError):
            file.unlink()


def write_checkpoint(path: Path, content: Mapping[str, Any], *, kind: str = "training") -> None:
    """Write a checkpoint with its format number and digest.

    Args:
        path: Where to.
        content: Plain data; the section ``limbeck`` is completed.
        kind: ``"training"``, ``"weights"`` or ``"student"``.

    Raises:
        CheckpointError: as :func:`write_atomic`.
    """
    ours = {**content.get("limbeck", {}), "format": FORMAT, "kind": kind}
    ours.pop("digest", None)
    whole = {**content, "limbeck": ours}
    ours["digest"] = digest_of(whole)
    write_atomic(path, whole)


def point_to(folder: Path, name: str) -> None:
    """Say which file of the folder is the newest."""
    write_atomic(folder / POINTER, name)


# ---------------------------------------------------------------------- reading


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours, without running anything in it, and compare it with its digest.

    Raises:
        CheckpointError: if the file is missing, damaged, unsafe, of a newer format, or no training checkpoint of ours.
    """
    content: Any = read_file(path)
    ours = content.get("limbeck") if isinstance(content, dict) else None
    if not isinstance(ours, dict) or not isinstance(ours.get("format"), int):
        raise CheckpointError(
            f"{path} is not a checkpoint that limbeck wrote, so there is no run in it to resume: to start from its "
            "weights, pass it as load_from without resume"
        )
    if ours["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {ours['format']}, and this version of limbeck-core reads up to {FORMAT}: "
            "install the version that wrote it, or a newer one"
        )
    expected = ours.pop("digest", None)
    found = digest_of(content)
    if found != expected:
        raise CheckpointError(
            f"{path} is damaged: its content has the digest {found[:12]}..., and was written with "
            f"{str(expected)[:12]}...: copy it again, or use an earlier checkpoint"
        )
    return dict(content)


def step_of(name: str) -> int | None:
    """Step number in the name of a training checkpoint, ``None`` for other names."""
    match = _NAME.fullmatch(name)
    return int(match.group(1)) if match else None


def candidates(folder: Path) -> list[Path]:
    """Training checkpoints of a folder, the one to resume from first, then those before it."""
    numbered = sorted((step_of(p.name) or 0, p) for p in folder.glob("step_*.pth") if step_of(p.name) is not None)
    newest = None
    with contextlib.suppress(OSError, UnicodeDecodeError):
        newest = step_of((folder / POINTER).read_text(encoding="utf-8").strip())
    return [path for step, path in reversed(numbered) if newest is None or step <= newest]


def newest_checkpoint(folder: Path) -> Found | None:
    """Find the newest checkpoint of a folder that is whole.

    Returns:
        The checkpoint with complaints about newer, damaged ones; ``None`` if the folder has no checkpoint at all.

    Raises:
        CheckpointError: if there are checkpoints and every one is damaged.
    """
    complaints: list[str] = []
    for path in candidates(folder):
        try:
            return Found(path, read_checkpoint(path), complaints)
        except CheckpointError as error:
            complaints.append(str(error))
    if complaints:
        raise CheckpointError(
            f"no checkpoint in {folder} can be resumed from: {'; '.join(complaints)}. To start anew, choose another "
            "work_dir"
        )
    return None


def _outline(path: Path) -> Mapping[str, Any]:
    """A checkpoint without reading its tensors; empty if it cannot be read, which gets its sentence later."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:
        return {}
    return content if isinstance(content, Mapping) else {}


def seed_of(path: Path) -> int | None:
    """Seed of the run that wrote a checkpoint; ``None`` if the file cannot say."""
    meta = _outline(path).get("meta")
    seed = meta.get("seed") if isinstance(meta, Mapping) else None
    return seed if isinstance(seed, int) else None


def is_training_checkpoint(path: Path) -> bool:
    """Whether a file says of itself that a run can be resumed from it."""
    ours = _outline(path).get("limbeck")
    return isinstance(ours, Mapping) and ours.get("kind") == "training"


# ---------------------------------------------------------------------- models


def split_state(model: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the weights of a model's student under the student's names, and everything else it holds.

    A model without a submodule ``student`` is its own student.
    """
    model = unwrap(model)
    state = model.state_dict()
    if not isinstance(getattr(model, "student", None), nn.Module):
        return dict(state), {}
    prefix = "student."
    student = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    return student, {name: value for name, value in state.items() if not name.startswith(prefix)}


def join_state(model: nn.Module, student: Mapping[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
    """The opposite of :func:`split_state`."""
    if not isinstance(getattr(unwrap(model), "student", None), nn.Module):
        return dict(student)
    return {**{f"student.{name}": value for name, value in student.items()}, **rest}


def load_exactly(model: nn.Module, state: Mapping[str, Any], source: str) -> None:
    """Fill every name of a model with a state of the same names and shapes.

    Raises:
        CheckpointError: listing what is missing, unexpected, or of another shape; the model is as it was before.
    """
    wanted = model.state_dict()
    report = LoadReport(source=source)
    report.matched = [name for name in wanted if name in state]
    report.missing = [name for name in wanted if name not in state]
    report.unexpected = [name for name in state if name not in wanted]
    for name in report.matched:
        mine, theirs = wanted[name], state[name]
        if isinstance(mine, Tensor) and isinstance(theirs, Tensor) and mine.shape != theirs.shape:
            report.mismatched[name] = (tuple(mine.shape), tuple(theirs.shape))
    if report.missing or report.unexpected or report.mismatched:
        near = f" For {report.missing[0]!r}, {closest(report.missing[0], report.unexpected)}." if report.missing else ""
        raise CheckpointError(
            f"the run in {source} had another model: {report}.{near} Resume with the config that wrote it, or start "
            "anew from its weights with load_from and without resume"
        )
    ordered = OrderedDict(state)
    ordered._metadata = getattr(wanted, "_metadata", None)  # type: ignore[attr-defined]
    model.load_state_dict(ordered)


def student_of(model: nn.Module) -> nn.Module:
    """The submodule ``student``, or the model itself."""
    model = unwrap(model)
    student = getattr(model, "student", None)
    return student if isinstance(student, nn.Module) else model


def average_in(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Weights of the moving average of the student in a checkpoint, if its run kept one."""
    hooks = content.get("limbeck", {}).get("hooks", {})
    found = next(
        (state["average"] for state in hooks.values() if isinstance(state, Mapping) and "average" in state), None
    )
    return found if isinstance(found, Mapping) else None


def save_student(student: nn.Module, path: str | Path, *, meta: Mapping[str, Any] | None = None) -> Path:
    """Write the student alone: its weights under its own names, loadable by ``student.load_state_dict``.

    Args:
        student: The model; a distiller gives its student.
        path: Where to.
        meta: Plain data to keep with it, for example the metric it reached.

    Returns:
        The path.

    Raises:
        CheckpointError: as :func:`write_atomic`.
    """
    path = Path(path)
    weights = {name: value.detach().cpu() for name, value in student_of(student).state_dict().items()}
    write_checkpoint(path, {"state_dict": weights, "meta": dict(meta or {})}, kind="student")
    return path


def load_student(student: nn.Module, path: str | Path, *, partial: bool = False, average: bool = False) -> LoadReport:
    """Load weights into a student and report what matched.

    Args:
        student: The model; a distiller's student is filled, not its matches.
        path: A checkpoint of ours (compared with its digest), or any file of weights that
            :func:`limbeck_core.weights.load_weights` reads.
        partial: Load what fits even if names are missing or have another shape.
        average: Take the moving average of the student that the run kept, instead of the student.

    Raises:
        CheckpointError: if the file cannot be read, nothing matches, a name of the student is missing without
            ``partial``, or there is no average in it.
    """
    path, target = Path(path), student_of(student)
    content = read_file(path)
    if not isinstance(content, dict) or not isinstance(content.get("limbeck"), dict):
        if average:
            raise CheckpointError(f"{path} is no training checkpoint of limbeck and names no average of the student")
        return load_weights(target, path, partial=partial)
    content = read_checkpoint(path)
    weights = average_in(content) if average else content["state_dict"]
    if weights is None:
        raise CheckpointError(
            f"{path} holds no average of the student: its run had no EMAHook; load it without average"
        )
    return load_weights(target, weights, partial=partial, what=str(path))
