"""A plan as lines for a reader, and as a commented config."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config.lazy import LazyObject

from limbeck_core.engine.config import dump_config
from limbeck_core.suggest.described import Described
from limbeck_core.suggest.plan import Pair, Plan, Proposal, in_short
from limbeck_core.suggest.trace import Node

CHECKPOINT = "teacher.pth"
_WIDTH = 110
_PREFIX, _PLACE = "match__", "@matches@"  # matches are dumped beside the model, and moved to this place in it
_NOT_DATA = ("model", "work_dir", "load_from", "resume", "custom_hooks")
_SKELETON = """\
# What is missing to train: data and schedule. Name a config that has them with --data, or fill these in:
# train_dataloader = dict(batch_size={batch_size}, dataset=dict(type=YourDataset, root="..."))
# train_cfg = dict(type=limbeck_core.engine.EpochLoop, max_epochs=100)
# optim_wrapper = dict(optimizer=dict(type=torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=5e-4))
# Then: limbeck doctor FILE
"""


def report_lines(plan: Plan) -> Iterator[str]:
    """The plan in words: models, stages, pairs, proposals with their costs, notes."""
    for role, trace in (("student", plan.student), ("teacher", plan.teacher)):
        where = "traced without memory" if trace.on_meta else "run in memory"
        yield f"{role}: {trace.title}, {in_short(trace.parameters)} parameters, {in_short(trace.macs)} MACs ({where})"
        rows = [_stage_row(stage) for stage in plan.stages[role]]
        yield from _table([("stage", "shape", "stride", "depth"), *rows]) if rows else ()
    if plan.pairs:
        yield "pairs, student - teacher:"
        yield from _table([_pair_row(pair) for pair in plan.pairs])
    if plan.proposals:
        yield f"proposals, and what they cost a step of {plan.batch_size} samples forward:"
        rows = [(f"{'on ' if p.active else 'off'} {p.name}", str(p.cost), p.text) for p in plan.proposals]
        yield from _table(rows)
    else:
        yield "nothing can be compared"
    for note in plan.notes:
        yield f"note: {note}"


def _stage_row(node: Node) -> tuple[str, ...]:
    shape = "(N, " + ", ".join(map(str, node.shape[1:])) + ")"
    return node.path, f"{shape} {node.layout.kind}", str(node.layout.stride), f"{node.depth:.0%}"


def _pair_row(pair: Pair) -> tuple[str, ...]:
    strides = (pair.student.layout.stride, pair.teacher.layout.stride)
    said = f"stride {strides[0]}" if strides[0] == strides[1] else f"strides {strides[0]} and {strides[1]}"
    return f"{pair.student.path} - {pair.teacher.path}", said


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  " + "  ".join(cells).rstrip()


# ---------------------------------------------------------------------- config


def config_text(plan: Plan, student: Described, teacher: Described, data: Mapping[str, Any], data_name: str) -> str:
    """Write the plan as a config that :func:`~limbeck_core.engine.config.load_config` reads.

    Args:
        plan: The plan.
        student: The student as the user named it.
        teacher: The teacher as the user named it.
        data: A config as it is read, whose data, schedule and way to call models are taken over; may be empty.
        data_name: Its name.
    """
    active = {f"{_PREFIX}{p.name}": _placed(p.match) for p in plan.proposals if p.active}
    values = {"model": _model(plan, student, teacher, data), **active}
    values |= {name: value for name, value in data.items() if name not in _NOT_DATA}
    head = [f"KD from {plan.teacher.title} to {plan.student.title}, as limbeck suggest proposes it.", ""]
    head += [*report_lines(plan), ""]
    head.append("Weights are the papers' for CIFAR, or 1: limbeck doctor FILE shows each loss's share of the gradient.")
    if data:
        head.append(f"Data, schedule and calls are those of {data_name}.")
    comment = [f"# {line}".rstrip() for line in _wrapped(head)]
    tail = [] if data else ["", *_SKELETON.format(batch_size=plan.batch_size).splitlines()]
    return "\n".join([*comment, *_with_matches(dump_config(values), plan), *tail]) + "\n"


def _with_matches(text: str, plan: Plan) -> list[str]:
    """Move the matches, which were dumped beside the model, into it, each after a comment that says what it is."""
    lines = text.splitlines()
    blocks: dict[str, list[str]] = {}
    moved: set[int] = set()
    for node in ast.parse(text).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id.startswith(_PREFIX):
            block = lines[node.lineno - 1 : node.end_lineno]
            block[0] = block[0].replace(f"{target.id} = ", f"{target.id.removeprefix(_PREFIX)}=", 1)
            blocks[target.id.removeprefix(_PREFIX)] = [*block[:-1], f"{block[-1]},"]
            moved |= set(range(node.lineno - 1, node.end_lineno or node.lineno))
    inside: list[str] = []
    for proposal in plan.proposals:
        if proposal.active:
            inside += [*(f"# {line}" for line in _said(proposal)), *blocks[proposal.name]]
    others = [proposal for proposal in plan.proposals if not proposal.active]
    if others:
        inside += ["# What fits as well, beside these or instead of them (take the '# ' away):"]
    for proposal in others:
        inside += [f"# {line}".rstrip() for line in ("", *_said(proposal), *_block(proposal))]
    written: list[str] = []
    for number, line in enumerate(lines):
        if _PLACE in line:
            written += ["    matches=dict(", *(f"{'':8}{each}" for each in inside), "    ),"]
        elif number not in moved:
            written.append(line)
    return written


def _wrapped(lines: Sequence[str]) -> Iterator[str]:
    """Notes may be long; tables stay as they are."""
    for line in lines:
        if line.startswith(" ") or len(line) <= _WIDTH:
            yield line
        else:
            yield from textwrap.wrap(line, _WIDTH, subsequent_indent="    ", break_on_hyphens=False)


def _model(plan: Plan, student: Described, teacher: Described, data: Mapping[str, Any]) -> dict[str, Any]:
    base = data.get("model", {})
    kept = {name: value for name, value in base.items() if name not in ("student", "teacher", "matches", "taps")}
    model: dict[str, Any] = {"type": _lazy("limbeck_core.Distiller")} | kept
    model |= {"student": dict(student.written), "teacher": _teacher(teacher)}
    if not data and plan.targets:
        model["task_loss"] = {"type": _lazy("torch.nn.CrossEntropyLoss")}
    order = ("type", "student", "teacher")
    rest = {name: value for name, value in model.items() if name not in order}
    return {name: model[name] for name in order} | rest | {"matches": _PLACE}


def _teacher(teacher: Described) -> dict[str, Any]:
    if teacher.origin is not None and teacher.settings["model"].get("teacher") is teacher.written:
        return dict(teacher.written)
    checkpoint = CHECKPOINT
    if teacher.origin is not None:
        # where 'limbeck train' of that config leaves its student
        folder = teacher.settings.get("work_dir") or f"work_dirs/{_stem(teacher.origin)}"
        checkpoint = f"{folder}/student.pth"
    return {"type": _lazy("limbeck_core.pretrained"), "model": dict(teacher.written), "checkpoint": checkpoint}


def _stem(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".py")


def _placed(value: Any) -> Any:
    """Dotted types as the imports that a config makes of them."""
    if isinstance(value, Mapping):
        return {key: _lazy(item) if key == "type" else _placed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_placed(item) for item in value)
    return value


def _lazy(dotted: str) -> Any:
    module, _, name = dotted.rpartition(".")
    return LazyObject(module, name, "suggest")


def _said(proposal: Proposal) -> list[str]:
    return [f"{proposal.name}: {proposal.text}", f"    {proposal.source}; costs {proposal.cost}"]


def _block(proposal: Proposal) -> list[str]:
    """The match as text whose types are strings, so that it needs no import when it is let in."""
    text = dump_config({proposal.name: dict(proposal.match)})
    return f"{text.strip().replace(' = ', '=', 1)},".splitlines()


__all__ = ["config_text", "report_lines"]
