"""Reading weights from files: never running code, and saying what matched and what did not."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.errors import CheckpointError, MissingDependency, closest

# Where libraries keep the weights inside a training checkpoint, and what wrappers put before each name.
_NESTED = ("state_dict", "model_state_dict", "model", "ema", "module", "net", "params")
# What MMEngine's runner writes beside the weights: its log history and NumPy values, in the way of pickles.
_HARMLESS = {
    "_codecs.encode",
    "builtins.getattr",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
}
_PREFIXES = ("", "student.", "module.", "model.", "_orig_mod.", "module.student.", "student.module.", "teacher.")


class Omitted:
    """Stands where a file of OpenMMLab names a class or function of its own, which is neither imported nor called."""

    def __new__(cls, *_: Any, **__: Any) -> Omitted:
        """Take any arguments and keep none."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        """Keep nothing."""


def _read_openmmlab(path: Path) -> Any:
    """Read a checkpoint whose only foreign names are MMEngine's log history, with stand-ins in their place."""
    try:
        names = set(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
        if not names or not names <= _HARMLESS:
            return None
        with torch.serialization.safe_globals([(Omitted, name) for name in names]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # damaged in whatever way; the caller says so
        return None


def read_file(path: Path) -> Any:
    """Read a file written by ``torch.save``, on the CPU, as plain data and tensors only.

    Checkpoints of OpenMMLab's runner hold pickled log histories as well; :class:`Omitted` stands in their place, and
    nothing that the file names is imported or called.

    Raises:
        CheckpointError: if the file is missing, damaged, or holds anything but plain data and tensors. Such a file is
            refused before any of it runs.
    """
    if not path.is_file():
        near = (
            closest(path.name, sorted(p.name for p in path.parent.glob("*") if p.is_file()))
            if path.parent.is_dir()
            else ""
        )
        folder = f"; of the folder {path.parent}, {near}" if near else f"; the folder {path.parent} does not exist"
        raise CheckpointError(f"there is no checkpoint file {path}{folder}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        content = _read_openmmlab(path)
        if content is not None:
            return content
        first = str(error).split(". ", maxsplit=1)
        reason = next((part for part in str(error).splitlines() if "GLOBAL" in part), first[0]).strip()
        raise CheckpointError(
            f"{path} was refused, and nothing in it was run: it is damaged, or holds Python objects other than plain "
            f"data and tensors ({reason}). If you trust its origin, save its state dict alone with torch.save and load "
            "that"
        ) from error
    except Exception as error:  # zip errors, EOF, unicode errors: a damaged file fails in many ways
        raise CheckpointError(
            f"{path} is damaged or not a PyTorch checkpoint ({type(error).__name__}: {error}): copy or download it "
            "again"
        ) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file  # noqa: PLC0415  optional
    except ImportError as error:
        raise MissingDependency(f"reading {path} needs safetensors: pip install safetensors") from error
    try:
        return dict(load_file(path))
    except Exception as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file ({error}): download it again") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the state dict in a file, wherever the usual libraries keep it.

    Raises:
        CheckpointError: as :func:`read_file`; or if the file holds no weights.
    """
    payload = read_file(path)
    for _ in range(3):
        if not isinstance(payload, Mapping):
            break
        tensors = {str(name): value for name, value in payload.items() if isinstance(value, Tensor)}
        nested = next((key for key in _NESTED if isinstance(payload.get(key), Mapping)), None)
        if nested is None or len(tensors) > 1:
            if tensors:
                return tensors
            break
        payload = payload[nested]
    kind = (
        f"a mapping with {', '.join(map(str, list(payload)[:8]))}"
        if isinstance(payload, Mapping)
        else type(payload).__name__
    )
    raise CheckpointError(
        f"{path} holds no weights: expected a state dict (also under {', '.join(_NESTED)}), got {kind}"
    )


@dataclass
class LoadReport:
    """What became of each name when weights were loaded.

    Args:
        source: The file, or another description of where the weights came from.
        matched: Names that were loaded.
        missing: Names of the model that the source lacks.
        unexpected: Names of the source that the model lacks.
        mismatched: Names with another shape: name -> (shape in the model, shape in the source).
        prefix: What was removed from the source's names so that they fit.
    """

    source: str
    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    prefix: str = ""

    def __str__(self) -> str:
        """Counts, and the first names of each kind."""
        parts = [f"{len(self.matched)} matched"]
        for title, names in (("missing", self.missing), ("unexpected", self.unexpected)):
            parts.append(f"{len(names)} {title}" + _first(names))
        shapes = [f"{name} {model} in the model, {file} in the file" for name, (model, file) in self.mismatched.items()]
        parts.append(f"{len(shapes)} of another shape" + _first(shapes))
        removed = f" (prefix {self.prefix!r} removed)" if self.prefix else ""
        return f"{self.source}: " + ", ".join(parts) + removed


def _first(names: list[str], count: int = 5) -> str:
    return f" ({', '.join(names[:count])}{', ...' if len(names) > count else ''})" if names else ""


def load_weights(
    model: nn.Module, source: Path | Mapping[str, Tensor], *, partial: bool = False, what: str = ""
) -> LoadReport:
    """Load weights into a model and report what matched.

    Args:
        model: The model; it is left as it was if anything is refused.
        source: A file, or a state dict. Prefixes that wrappers add (``module.``, ``student.``, ...) are removed when
            that fits more names.
        partial: Load what fits even if names are missing or have another shape.
        what: How to name the source in messages; the path by default.

    Raises:
        CheckpointError: if the file cannot be read, if no name matches, or if, without ``partial``, a name of the model
            is missing or has another shape.
    """
    weights = read_weights(source) if isinstance(source, Path) else dict(source)
    title = what or (str(source) if isinstance(source, Path) else "the state dict")
    wanted = model.state_dict()
    prefix = max(_PREFIXES, key=lambda p: sum(name.startswith(p) and name[len(p) :] in wanted for name in weights))
    renamed = {name[len(prefix) :] if name.startswith(prefix) else name: value for name, value in weights.items()}
    report = LoadReport(source=title, prefix=prefix)
    for name, value in wanted.items():
        if name not in renamed:
            # counters that older PyTorch did not store
            if not name.endswith("num_batches_tracked"):
                report.missing.append(name)
        elif isinstance(value, Tensor) and value.shape != renamed[name].shape:
            report.mismatched[name] = (tuple(value.shape), tuple(renamed[name].shape))
        else:
            report.matched.append(name)
    report.unexpected = [name for name in renamed if name not in wanted]
    if not report.matched:
        first = next(iter(wanted), "")
        raise CheckpointError(
            f"no name of {title} fits {type(model).__name__} (for {first!r} of the model, {closest(first, renamed)}): "
            "the file belongs to another model"
        )
    if (report.missing or report.mismatched) and not partial:
        raise CheckpointError(
            f"{title} does not fill {type(model).__name__}: {report}. "
            + _advice(report)
            + "Load it into the model it was saved from, or accept the gaps with partial=True (--partial)"
        )
    model.load_state_dict({name: renamed[name] for name in report.matched}, strict=False)
    return report


def _advice(report: LoadReport) -> str:
    if not report.missing or not report.unexpected:
        return ""
    near = closest(report.missing[0], report.unexpected)
    return f"For {report.missing[0]!r}, {near.replace('did you mean', 'the file may call it').rstrip('?')}. "
