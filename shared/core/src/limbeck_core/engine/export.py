"""The student alone, for other programs: its weights, an ONNX graph, a ``torch.export`` program, or a hub folder.

No teacher is built or read. What is exported is the student as the config calls it for prediction, so the graph of an
image model takes what the test pipeline gives and normalises by itself where the config's ``call`` does. Every file is
compared with the student in PyTorch before it appears under its name: one that disagrees never does.
"""

from __future__ import annotations

import copy
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from limbeck_core.build import build, resolve_type
from limbeck_core.calls import Call, GraphCall, OpenMMLabCall, TensorCall
from limbeck_core.engine.batches import read, small_loader
from limbeck_core.engine.checkpoints import average_in, load_student, student_of
from limbeck_core.engine.config import load_config
from limbeck_core.engine.formats import (
    CARD_FILE,
    Run,
    Written,
    dotted,
    plain_json,
    record,
    write_hub,
    write_onnx,
    write_pt2,
    write_state_dict,
)
from limbeck_core.engine.served import BATCH_SIZES, Examples, Served, make_examples, places_of
from limbeck_core.errors import ConfigError, ExportError, LimbeckError, closest
from limbeck_core.inspect import normalization_of
from limbeck_core.tap import remove_taps, unwrap
from limbeck_core.teacher import Peers
from limbeck_core.weights import read_file

Format = Literal["state_dict", "onnx", "pt2", "hub"]
FORMATS: tuple[Format, ...] = get_args(Format)
TOLERANCE = 1e-4  # of the largest output; ONNX Runtime fuses and reorders sums, which costs about 1e-6

_ENDINGS: dict[Format, str] = {"state_dict": "_state_dict.pth", "onnx": ".onnx", "pt2": ".pt2", "hub": "_hub"}
_NAMING_OTHERS = (".onnx", ".json")  # files that name others, which must be there before them
_RANDOM = "the model draws random numbers in evaluation"
_NAMED = 12  # classes whose names a table shows; the file has all
_TIMED_RUNS, _TIMED_SECONDS = 30, 1.0
_STAGES = ("test", "val", "train")
_TIMINGS = ("time", "data_time")  # scalars that the engine logs beside the metrics


@dataclass(frozen=True)
class Check:
    """How far an exported file is from the student in PyTorch.

    Args:
        tensors: Number of weights and buffers that were read back equal, bit for bit; 0 where the format hides them.
        absolute: Largest difference of an output; ``None`` if outputs were not compared.
        relative: The same as a share of the largest output of that batch.
        inputs: What it was run on.
        runtime: Who ran it.
        missing: Why outputs were not compared; empty if they were.
    """

    tensors: int = 0
    absolute: float | None = None
    relative: float | None = None
    inputs: str = ""
    runtime: str = ""
    missing: str = ""

    def __str__(self) -> str:
        """One sentence."""
        parts = [f"{self.tensors} tensors read back bit for bit"] if self.tensors else []
        if self.absolute is not None:
            parts.append(
                f"largest difference from PyTorch {self.absolute:.1e} (relative {self.relative:.1e}) on {self.inputs} "
                f"inputs at batch {' and '.join(map(str, BATCH_SIZES))}, by {self.runtime}"
            )
        if self.missing:
            parts.append(f"outputs not compared: {self.missing}")
        return "; ".join(parts)


@dataclass(frozen=True)
class Exported:
    """What was written, and its card.

    Args:
        path: The file, or the folder of a hub export.
        format: One of ``FORMATS``.
        model: Class of the student.
        weights: Whose weights these are, and from where.
        parameters: Number of parameters.
        size: Bytes on the disk.
        macs: Multiply-accumulates of one sample in convolutions and matrix products; ``None`` if it was not run.
        latency: Median seconds of a batch of one on the CPU; ``None`` if it was not run.
        threads: Threads of that measurement.
        inputs: Name, type and shape of each input.
        outputs: The same of each output.
        classes: Names of the classes by label, if the data set has such.
        metrics: What the checkpoint says it reached.
        check: How far the file is from the student.
    """

    path: Path
    format: Format
    model: str
    weights: str
    parameters: int
    size: int = 0
    macs: int | None = None
    latency: float | None = None
    threads: int = 1
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    check: Check = field(default_factory=Check)

    def rows(self) -> list[tuple[str, str]]:
        """The card as a table."""
        rows = [
            ("written", f"{self.path} ({self.format}, {_in_words(self.size)})"),
            ("student", self.model),
            ("weights", self.weights),
            ("parameters", f"{self.parameters:,}"),
        ]
        if self.macs is not None:
            rows.append(("MACs", f"{self.macs:,} a sample (convolutions and matrix products)"))
        if self.latency is not None:
            threads = f"{self.threads} thread" + ("s" if self.threads > 1 else "")
            rows.append(("latency", f"{self.latency * 1000:.2f} ms at batch 1 (median; CPU, {threads})"))
        rows += [("input", text) for text in self.inputs]
        rows += [("output", text) for text in self.outputs]
        if self.classes:
            more = "" if len(self.classes) <= _NAMED else f", ... ({len(self.classes)} in all)"
            rows.append(("classes", ", ".join(self.classes[:_NAMED]) + more))
        rows += [("metric", f"{name} {value:.4f}") for name, value in self.metrics.items()]
        return [*rows, ("check", str(self.check))]


def _in_words(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"


# ---------------------------------------------------------------------- the student


@dataclass(frozen=True)
class StudentAlone:
    """A student with its weights, and how it is called.

    Args:
        model: The student; of several peers the first, which is the one that is kept.
        call: How it is called.
        view: Field of the batch that it takes.
        config: What it was built from.
        weights: Whose weights it has, and from where.
        metrics: What its checkpoint says it reached.
    """

    model: nn.Module
    call: Call
    view: str
    config: Mapping[str, Any]
    weights: str
    metrics: Mapping[str, float]


def student_alone(settings: Mapping[str, Any], checkpoint: str | Path, *, partial: bool = False) -> StudentAlone:
    """Build the student of a config and load a checkpoint into it; no teacher is built.

    Args:
        settings: A config.
        checkpoint: Weights of the student. If they come from a run that kept a moving average, that is taken.
        partial: Accept a file that lacks some of the student's weights.

    Raises:
        ConfigError: if the config has no ``model.student``.
        CheckpointError: if the checkpoint cannot be read or does not fit.
    """
    model: Any = settings.get("model") or {}
    if "student" not in model:
        raise ConfigError("the config has no model.student to predict with or to export")
    student: nn.Module = build(model["student"])
    path = Path(checkpoint)
    content = read_file(path)
    has_average = isinstance(content, Mapping) and average_in(content) is not None
    report = load_student(student, path, partial=partial, average=has_average)
    weights = f"{_whose(content, has_average)}, {len(report.matched)} names of {path.name}"
    left = len(report.missing) + len(report.mismatched)
    if left:
        weights += f"; {left} as they were drawn"
    call = build(model.get("call")) or TensorCall()
    config: Mapping[str, Any] = model["student"] if isinstance(model["student"], Mapping) else {}
    if isinstance(student, Peers) and isinstance(call, TensorCall):
        name, student = next(iter(student.named_children()))
        config = config.get(name, {})
    view = model.get("student_view", "inputs")
    return StudentAlone(student, call, view, config, weights, _metrics_in(content, path.stem))


def _whose(content: Any, has_average: bool) -> str:
    meta = content.get("meta") if isinstance(content, Mapping) and "limbeck" in content else None
    if has_average or (isinstance(meta, Mapping) and meta.get("average")):
        return "the moving average of the student"
    return "the student itself (its run kept no moving average)"


def _metrics_in(content: Any, stem: str) -> dict[str, float]:
    """Metrics that one of our checkpoints knows of: the score for which it was kept, or its run's last validation."""
    if not isinstance(content, Mapping) or not isinstance(content.get("limbeck"), Mapping):
        return {}
    hooks = content["limbeck"].get("hooks", {})
    score = next((state["best_score"] for state in hooks.values() if "best_score" in state), None)
    if content["limbeck"].get("kind") == "weights" and stem.startswith("best_") and score is not None:
        return {stem.removeprefix("best_"): float(score)}
    scalars = content.get("message_hub", {}).get("scalars", {})
    found = {name.removeprefix("val/"): buffer["values"] for name, buffer in scalars.items() if name.startswith("val/")}
    return {
        name: float(values[-1])
        for name, values in found.items()
        if len(values) and name not in _TIMINGS and not name.startswith("teacher/")
    }


# ---------------------------------------------------------------------- exporting


def export(
    config: str | Path,
    checkpoint: str | Path,
    format: Format,
    *,
    out: str | Path | None = None,
    input_shape: Sequence[int] | None = None,
    partial: bool = False,
    data_root: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> Exported:
    """Write the student of a config with the weights of a checkpoint, and compare what was written with PyTorch.

    Args:
        config: A path, or the name of an installed config.
        checkpoint: Weights of the student; their moving average, if the run kept one.
        format: ``"state_dict"`` (weights under the student's own names), ``"onnx"``, ``"pt2"`` (``torch.export``), both
            with any batch size, or ``"hub"`` (a folder of safetensors, how to rebuild the model, and a model card).
        out: Where to; by default beside the checkpoint, with its name.
        input_shape: Shape of an input, its first number being the batch; random numbers stand in for data then. By
            default the first samples of the config's test data are taken.
        partial: Accept a file that lacks some of the student's weights.
        data_root: See :func:`~limbeck_core.engine.config.load_config`.
        overrides: See :func:`~limbeck_core.engine.config.load_config`.

    Raises:
        ConfigError: if the config has no ``model.student``.
        CheckpointError: if the checkpoint cannot be read or does not fit.
        ExportError: if the model cannot be exported or the file disagrees with it; nothing new has its name then.
        MissingDependency: if the format needs a package that is not installed.
    """
    _check_format(format)
    settings = load_config(config, overrides=overrides, data_root=data_root)
    path = Path(checkpoint)
    target = Path(out) if out is not None else path.with_name(path.stem + _ENDINGS[format])
    if target.resolve() == path.resolve():
        raise ExportError(f"{target} is the checkpoint itself, which stays as it is: name another file with --out")
    alone = student_alone(settings, path, partial=partial)
    batch, missing = None, ""
    classes: tuple[str, ...] = ()
    if not isinstance(alone.call, OpenMMLabCall):
        try:
            batch, classes = _read_batch(settings, alone.view, input_shape)
        except LimbeckError as error:
            # a graph is recorded on an input; weights are whole without one
            if format in ("onnx", "pt2") or input_shape is not None:
                raise
            missing = str(error)
    real, title = input_shape is None, Path(config).stem
    return _write(alone, target, format, batch, real=real, missing=missing, title=title, classes=classes)


def export_student(
    student: nn.Module,
    out: str | Path,
    format: Format,
    *,
    batch: Mapping[str, Any] | None = None,
    call: Call | None = None,
    view: str = "inputs",
    config: Mapping[str, Any] | None = None,
) -> Exported:
    """Write a student that is in memory, whatever it was trained with. It stays as it is; its copy has no taps.

    Args:
        student: The model; a distiller gives its student.
        out: Where to.
        format: As in :func:`export`.
        batch: A batch such as it was trained on. A graph needs one; weights are compared more closely with one.
        call: How the student is called; one tensor in by default.
        view: Field of the batch that it takes.
        config: For ``"hub"``: what the student is built from, ``dict(type=..., ...)``.

    Raises:
        ExportError: as :func:`export`.
        MissingDependency: as :func:`export`.
    """
    _check_format(format)
    model = copy.deepcopy(unwrap(student_of(student)))
    if isinstance(model, Peers):
        model = next(iter(model.children()))
    alone = StudentAlone(model, call or TensorCall(), view, config or {}, "the model as given", {})
    missing = "" if batch is not None else "no batch was given"
    return _write(alone, Path(out), format, batch, real=True, missing=missing, title=type(model).__name__)


def _check_format(format: str) -> None:
    if format not in FORMATS:
        raise ExportError(f"format must be one of {', '.join(FORMATS)}, got {format!r}: {closest(format, FORMATS)}")


def _read_batch(
    settings: Mapping[str, Any], view: str, input_shape: Sequence[int] | None
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """A batch, and the names of the data set's classes where it has such."""
    if input_shape is not None:
        if len(input_shape) < 2 or min(input_shape) < 1:
            raise ExportError(
                "--input-shape takes whole numbers above 0, the batch first, such as 1,3,32,32, got "
                + ",".join(map(str, input_shape))
            )
        # in [0, 1], since some models refuse images that are not
        drawn = torch.rand(max(BATCH_SIZES), *input_shape[1:], generator=torch.Generator().manual_seed(0))
        return {view: drawn}, ()
    stage = next((s for s in _STAGES if settings.get(f"{s}_dataloader") is not None), None)
    if stage is None:
        raise ExportError("the config has no data set to take an input from: say --input-shape, such as 1,3,224,224")
    loader = settings[f"{stage}_dataloader"]
    try:
        built = small_loader(loader, seed=0, training=False, batch_size=max(BATCH_SIZES))
        batches = read(built, 1)
    except (LimbeckError, OSError) as error:
        raise ExportError(
            f"no input could be read from the {stage} data ({error}); or say --input-shape, such as 1,3,224,224"
        ) from error
    if not batches or not isinstance(batches[0], Mapping):
        raise ExportError(f"the {stage} data gives no batch that is a mapping: say --input-shape, such as 1,3,224,224")
    return batches[0], tuple(map(str, getattr(built.dataset, "classes", ())))


def _write(
    alone: StudentAlone,
    target: Path,
    format: Format,
    batch: Mapping[str, Any] | None,
    *,
    real: bool,
    missing: str,
    title: str,
    classes: tuple[str, ...] = (),
) -> Exported:
    model = alone.model.cpu().eval().requires_grad_(False)
    remove_taps(model)
    if isinstance(alone.call, OpenMMLabCall):
        batch, missing = None, "an OpenMMLab model predicts data samples, not tensors"
    if batch is None and format in ("onnx", "pt2"):
        raise ExportError(
            f"{format} is a graph from tensors to tensors, recorded while the student runs, and {missing}: give it a "
            "batch, or export a state_dict (an OpenMMLab model becomes a graph by mmdeploy)"
        )
    if format == "hub" and target.exists() and not target.is_dir():
        raise ExportError(f"a hub export is a folder, and {target} is a file: name another place with --out")
    if format != "hub" and target.is_dir():
        raise ExportError(f"{target} is a folder, and {format} is one file: name the file with --out")
    served = Served(model, alone.call, alone.view)
    if batch is not None:
        try:
            served.places = tuple(places_of(alone.call, alone.view, batch))
        except ExportError as error:
            if format in ("onnx", "pt2"):
                raise
            batch, missing = None, str(error)  # weights are whole without an input that a graph could take
    examples = make_examples(served.eval(), batch, real=real) if batch is not None else None
    inputs, outputs = examples.described() if examples is not None else ((), ())
    card = Exported(
        path=target,
        format=format,
        model=_title(model, alone.config),
        weights=alone.weights,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=_count_macs(served, examples),
        threads=torch.get_num_threads(),
        inputs=inputs,
        outputs=outputs,
        classes=classes,
        metrics=dict(alone.metrics),
    )
    with _published(target, folder=target if format == "hub" else target.parent) as scratch:
        written = _write_format(served, examples, card, alone, scratch)
        check = _compare(examples, written, missing, alone.call)
        latency = _measure(written.run, examples) if written.run is not None and examples is not None else None
        card = replace(card, check=check, latency=latency)
        if format == "hub":
            (scratch / CARD_FILE).write_text(_model_card(card, alone, title), encoding="utf-8")
        return replace(card, size=sum(file.stat().st_size for file in scratch.iterdir()))


def _title(model: nn.Module, config: Mapping[str, Any]) -> str:
    """Class of a model, and the function that made it, which often says more."""
    title = type(model).__name__
    maker = resolve_type(config["type"]).__name__ if "type" in config else title
    return title if maker == title else f"{maker} ({title})"


def _write_format(
    served: Served, examples: Examples | None, card: Exported, alone: StudentAlone, scratch: Path
) -> Written:
    path = scratch / card.path.name
    if card.format == "state_dict":
        return write_state_dict(served, path)
    if card.format == "hub":
        return write_hub(served, scratch, alone.config, _facts(card, alone))
    if examples is None:
        raise ExportError(f"{card.format} needs a batch to record the student on")
    program = record(served, examples)
    facts = _facts(card, alone)
    return write_onnx(program, examples, path, facts) if card.format == "onnx" else write_pt2(program, path, facts)


@contextmanager
def _published(target: Path, folder: Path) -> Iterator[Path]:
    """A hidden folder whose files take their places in ``folder`` when all is well, and are gone otherwise."""
    scratch = target.parent / f".{target.name}.{os.getpid()}.writing"
    try:
        scratch.mkdir(parents=True)
        yield scratch
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(scratch.iterdir(), key=lambda path: path.suffix in _NAMING_OTHERS):
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
            file.replace(folder / file.name)
    except OSError as error:
        raise ExportError(
            f"{target} could not be written ({error}): free space on that disk, or name another place with --out"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


# ---------------------------------------------------------------------- checking and measuring


def _compare(examples: Examples | None, written: Written, missing: str, call: Call) -> Check:
    if examples is None or written.run is None:
        return Check(tensors=written.tensors, missing=missing if examples is None else written.runtime)
    if not examples.repeats and written.tensors:
        return Check(tensors=written.tensors, missing=_RANDOM)
    absolute = relative = 0.0
    for given, expected in zip(examples.inputs, examples.outputs, strict=True):
        found = written.run(given)
        shapes = [[tuple(tensor.shape) for tensor in side] for side in (found, expected)]
        if shapes[0] != shapes[1]:
            raise ExportError(
                f"by {written.runtime} the file gives outputs of shape {shapes[0]} where PyTorch gives {shapes[1]}, so "
                "it was not kept"
            )
        if isinstance(call, GraphCall):
            mine, truth = (dict(zip(examples.output_names, side, strict=True)) for side in (found, expected))
            share = call.difference(mine, truth)
            absolute = relative = relative if share <= relative else share
            continue
        for tensor, wanted in zip(found, expected, strict=True):
            if wanted.numel():
                difference = float((tensor.double() - wanted.double()).abs().max())
                share = difference / max(float(wanted.double().abs().max()), 1e-12)
                # NaN compares as neither smaller nor larger, and must not get lost
                absolute = absolute if difference <= absolute else difference
                relative = relative if share <= relative else share
    if not relative <= TOLERANCE:
        raise ExportError(
            f"by {written.runtime} the file differs from PyTorch by {absolute:.1e}, {relative:.1e} of the largest "
            f"output, where {TOLERANCE:.0e} is allowed, so it was not kept: "
            + ("an operation means something else there" if examples.repeats else _RANDOM)
        )
    return Check(written.tensors, absolute, relative, examples.kind, written.runtime)


def _count_macs(served: Served, examples: Examples | None) -> int | None:
    if examples is None:
        return None
    with FlopCounterMode(display=False) as counter:
        served.run(examples.single)
    return int(counter.get_total_flops()) // 2  # it counts a multiplication and an addition as two


def _measure(run: Run, examples: Examples) -> float:
    times: list[float] = []
    for _ in range(2):
        run(examples.single)
    while len(times) < _TIMED_RUNS and (not times or sum(times) < _TIMED_SECONDS):
        start = time.perf_counter()
        run(examples.single)
        times.append(time.perf_counter() - start)
    return median(times)


# ---------------------------------------------------------------------- model card


def _facts(card: Exported, alone: StudentAlone) -> dict[str, Any]:
    normalization = normalization_of(alone.model)
    return {
        "architectures": [type(alone.model).__name__],
        "call": dotted(type(alone.call)),
        "call_settings": dict(getattr(alone.call, "settings", {})),
        "normalization": None if normalization is None else dict(zip(("mean", "std"), normalization, strict=True)),
        "inputs": list(card.inputs),
        "outputs": list(card.outputs),
        "classes": list(card.classes),
        "weights": card.weights,
        "parameters": card.parameters,
        "macs": card.macs,
        "metrics": dict(card.metrics),
    }


def _model_card(card: Exported, alone: StudentAlone, title: str) -> str:
    front = ["---", "library_name: pytorch", "tags:", "- knowledge-distillation", "- limbeck", "---"]
    rows = [row for row in card.rows() if row[0] not in ("written", "metric")]
    normalization = normalization_of(alone.model)
    if normalization is not None:
        mean, std = ([round(number, 6) for number in numbers] for numbers in normalization)
        who = "by the model itself" if getattr(alone.model, "normalizes_input", False) else "before the model"
        rows.append(("normalisation", f"{who}: (image - {mean}) / {std} by channel, images in [0, 1]"))
    table = ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)]
    metrics = [
        "| metric | value |",
        "|---|---|",
        *(f"| {name} | {value:.4f} |" for name, value in card.metrics.items()),
    ]
    blocks = [
        "\n".join(front),
        f"# {title}",
        f"A {card.model} trained with limbeck: the student alone.",
        "\n".join(["```python", *_loading(plain_json(alone.config, "model.student")), "```"]),
        "\n".join(table),
        "\n".join(metrics) if card.metrics else "The checkpoint knows of no metric.",
    ]
    return "\n\n".join(blocks) + "\n"


def _loading(described: Mapping[str, Any]) -> list[str]:
    """Lines of Python that load the model again, with nothing of limbeck where its type does not need it."""
    module, _, name = str(described["type"]).rpartition(".")
    arguments = {key: value for key, value in described.items() if key != "type"}
    if any(isinstance(value, (dict, list)) for value in arguments.values()):
        lines = [
            "import json",
            "",
            "from limbeck_core.build import build",
            "from safetensors.torch import load_file",
            "",
        ]
        lines.append(
            'model = build(json.load(open("config.json"))["model"])  # calls what the file names: read it first'
        )
    else:
        lines = [f"from {module} import {name}", "from safetensors.torch import load_file", ""]
        lines.append(f"model = {name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})")
    return [*lines, 'model.load_state_dict(load_file("model.safetensors"))', "model.eval()"]


__all__ = ["FORMATS", "Check", "Exported", "Format", "StudentAlone", "export", "export_student", "student_alone"]
