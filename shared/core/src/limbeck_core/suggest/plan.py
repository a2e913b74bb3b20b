"""From two traces to proposals: stages, pairs of them, and what may be compared there, each with its cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from limbeck_core.build import build
from limbeck_core.errors import LimbeckError
from limbeck_core.match import Match
from limbeck_core.suggest.trace import FEATURES, Layout, Node, Trace
from limbeck_core.tap import Tap, leaves

SHALLOW = 0.1  # stages of the first tenth of a model hold edges, which nobody distils
MOST_STAGES = 6
QUARTERS = 4  # stages of a model that never shrinks its grid

_SKIPPED = 0.8  # cost of leaving a student's stage out; pairs that cost more are none
_PER_OCTAVE = 0.5  # cost of a factor of two between strides, against one of a whole depth


@dataclass(frozen=True)
class Pair:
    """A stage of the student and the teacher's that fits it best."""

    student: Node
    teacher: Node


@dataclass(frozen=True)
class Cost:
    """What a proposal costs in one training step.

    Args:
        parameters: Parameters of adapters and loss.
        macs: Multiply-accumulates of adapters and loss, forward, in convolutions and matrix products.
        bytes: Bytes of float32 that the loss reads: both taps, and what adapters make of them.
    """

    parameters: int
    macs: int
    bytes: int

    def __str__(self) -> str:
        """In words."""
        return f"{in_short(self.parameters)} parameters, {in_short(self.macs)} MACs, {in_bytes(self.bytes)}"


@dataclass(frozen=True)
class Proposal:
    """One match that fits the shapes.

    Args:
        name: Name of the match.
        text: What it does.
        source: The paper.
        match: Config of the match, types as dotted names.
        active: Whether it is on in the config; the others are there to be tried.
        cost: What it costs.
    """

    name: str
    text: str
    source: str
    match: Mapping[str, Any]
    active: bool
    cost: Cost


@dataclass
class Plan:
    """What is proposed for a student and a teacher.

    Args:
        student: The student's trace.
        teacher: The teacher's trace.
        batch_size: Samples a step, for the costs.
        stages: Stages of either, by role.
        pairs: Stages that belong together, shallow to deep.
        proposals: What may be compared.
        notes: What is worth knowing, of both.
        classes: Number of classes that the student scores; 0 if it scores none.
        targets: Whether its scores are one row a sample, as cross-entropy takes them.
    """

    student: Trace
    teacher: Trace
    batch_size: int
    stages: dict[str, list[Node]] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    proposals: list[Proposal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    classes: int = 0
    targets: bool = False


def make_plan(student: Trace, teacher: Trace, batch_size: int) -> Plan:
    """Pair the stages of two traces and propose what to compare.

    Args:
        student: The student's trace, of one sample.
        teacher: The teacher's, of the same sample.
        batch_size: Samples a step, for the costs.
    """
    plan = Plan(student, teacher, batch_size)
    plan.notes = [
        f"{role}: {note}" for role, trace in (("student", student), ("teacher", teacher)) for note in trace.notes
    ]
    plan.stages = {"student": stages_of(student), "teacher": stages_of(teacher)}
    for role, stages in plan.stages.items():
        if not stages:
            plan.notes.append(f"{role}: no module emits maps or tokens of its own, so features are not compared")
    plan.pairs = pair_stages(plan.stages["student"], plan.stages["teacher"])
    if plan.stages["student"] and plan.stages["teacher"] and not plan.pairs:
        plan.notes.append("no stages of the two are of similar stride and depth, so features are not compared")
    drafts = [*_on_logits(plan), *_on_features(plan), *_on_embeddings(plan)]
    for draft in drafts:
        try:
            cost = cost_of(plan, draft.match)
        except LimbeckError as error:
            plan.notes.append(f"{draft.name} does not fit: {error}")
            continue
        plan.proposals.append(Proposal(draft.name, draft.text, draft.source, draft.match, draft.active, cost))
    if not any(proposal.active for proposal in plan.proposals):
        # one at least, but none whose classes nobody has named yet
        ready = (n for n, p in enumerate(plan.proposals) if "ClassMap" not in str(p.match.get("teacher_adapter")))
        for number in list(ready)[:1]:
            plan.proposals[number] = replace(plan.proposals[number], active=True)
    return plan


# ---------------------------------------------------------------------- stages


def stages_of(trace: Trace) -> list[Node]:
    """The places where a model has done one resolution, shallow to deep; quarters of a model that has only one.

    A container is looked into where what is inside of it works at several resolutions; where it works at one (beside
    the one it is given), its own output stands for it. Of units that follow each other at one resolution the last
    counts.
    """
    scores = _scores(trace)
    dense = scores is not None and len(scores.shape) > 2  # maps with a channel a class are scores on their way out
    features = [
        node
        for node in trace.nodes
        if node.path and node.calls == 1 and node.layout.kind in FEATURES and node.layout.stride
        if not (dense and scores is not None and node.layout.channels == scores.shape[1])
    ]
    by_path: dict[str, Node] = {}
    for node in features:
        by_path.setdefault(node.path, node)
    strides = {node.tensor: node.layout.stride for node in trace.nodes if node.layout.stride}
    units = sorted(_units(trace, "", by_path, strides), key=lambda node: node.order)
    runs: list[list[Node]] = []
    for unit in units:
        if runs and runs[-1][-1].layout.stride == unit.layout.stride:
            runs[-1].append(unit)
        else:
            runs.append([unit])
    stages = [run[-1] for run in runs]
    if len(runs) == 1:
        stages = _quarters(features) or stages
    if len(stages) > 2:
        stages = [stage for stage in stages if stage.depth >= SHALLOW] or stages
    if len(stages) > MOST_STAGES:
        last = len(stages) - 1
        stages = [stages[round(last * number / (MOST_STAGES - 1))] for number in range(MOST_STAGES)]
    return stages


def _units(trace: Trace, path: str, by_path: Mapping[str, Node], strides: Mapping[int, int]) -> Iterator[Node]:
    for child in trace.children.get(path, ()):
        node = by_path.get(child)
        if node is None:
            yield from _units(trace, child, by_path, strides)
            continue
        inside = {n.layout.stride for name, n in by_path.items() if name.startswith(f"{child}.")}
        if child not in trace.plain:
            inside -= {strides.get(trace.inputs.get(child, -1), 1)}
        if len(inside) > 1:
            yield from _units(trace, child, by_path, strides)
        yield node


def _quarters(features: Sequence[Node]) -> list[Node]:
    """Every quarter of the longest row of numbered siblings, such as the blocks of a transformer."""
    rows: dict[tuple[str, tuple[int, ...]], list[Node]] = {}
    for node in features:
        parent, _, name = node.path.rpartition(".")
        if name.isdigit():
            rows.setdefault((parent, node.shape), []).append(node)
    if not rows:
        return []
    row = max(rows.values(), key=lambda nodes: (len({node.path for node in nodes}), -nodes[0].path.count(".")))
    blocks = list({node.path: node for node in reversed(row)}.values())[::-1]
    if len(blocks) <= QUARTERS:
        return blocks
    return [blocks[math.ceil(len(blocks) * number / QUARTERS) - 1] for number in range(1, QUARTERS + 1)]


def pair_stages(student: Sequence[Node], teacher: Sequence[Node]) -> list[Pair]:
    """Pair stages in order so that strides and relative depths differ least; stages that fit none are left out."""

    def cost(mine: Node, theirs: Node) -> float:
        octaves = abs(math.log2(mine.layout.stride / theirs.layout.stride))
        return abs(mine.depth - theirs.depth) + _PER_OCTAVE * octaves

    # best[i][j]: cost of the student's stages from i on with the teacher's from j on
    best = [[0.0] * (len(teacher) + 1) for _ in range(len(student) + 1)]
    for i in reversed(range(len(student))):
        best[i][len(teacher)] = best[i + 1][len(teacher)] + _SKIPPED
        for j in reversed(range(len(teacher))):
            together = cost(student[i], teacher[j]) + best[i + 1][j + 1]
            best[i][j] = min(together, best[i + 1][j] + _SKIPPED, best[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(student) and j < len(teacher):
        if best[i][j] == best[i][j + 1]:
            j += 1
        elif best[i][j] == best[i + 1][j] + _SKIPPED:
            i += 1
        else:
            pairs.append(Pair(student[i], teacher[j]))
            i, j = i + 1, j + 1
    return pairs


# ---------------------------------------------------------------------- proposals


@dataclass(frozen=True)
class _Draft:
    name: str
    text: str
    source: str
    match: Mapping[str, Any]
    active: bool = False


def _match(
    loss: str,
    student: Any,
    teacher: Any,
    *,
    weight: float,
    temperature: float | None = None,
    adapter: Any = None,
    teacher_adapter: Any = None,
) -> dict[str, Any]:
    softness = {} if temperature is None else {"temperature": temperature}
    match = {
        "type": "limbeck_core.Match",
        "loss": {"type": f"limbeck_core.losses.{loss}", **softness},
        "student": student,
        "teacher": teacher,
        "adapter": adapter,
        "teacher_adapter": teacher_adapter,
        "weight": weight,
    }
    return {key: value for key, value in match.items() if value is not None}


def tap_of(node: Node) -> Any:
    """Config of the tap that reads a node: its path where that says all."""
    options: dict[str, Any] = {}
    if node.pick is not None:
        options["pick"] = node.pick
    if node.changed:
        options["clone"] = True
    return {"type": "limbeck_core.Tap", "path": node.path, **options} if options else node.path


@dataclass(frozen=True)
class _Scores:
    tap: Any
    shape: tuple[int, ...]
    node: Node | None


def _scores(trace: Trace) -> _Scores | None:
    """Where a model's scores are read: the innermost module that emits its output, or the model's own output."""
    preferred = [entry for entry in trace.outputs if entry[0] in ("logits", "out")]
    rows = [entry for entry in trace.outputs if len(entry[2]) == 2]
    for pick, number, shape in [*preferred, *rows, *trace.outputs[:1]]:
        if len(shape) >= 2:
            found = [node for node in trace.of_tensor(number) if not node.changed]
            found = [node for node in found if node.path in trace.widths] or found  # the classifier, not what follows
            if found:
                return _Scores(tap_of(found[-1]), shape, found[-1])
            tap = "" if pick is None else {"type": "limbeck_core.Tap", "path": "", "pick": pick}
            return _Scores(tap, shape, None)
    return None


def _on_logits(plan: Plan) -> Iterator[_Draft]:
    student, teacher = _scores(plan.student), _scores(plan.teacher)
    if student is None or teacher is None:
        silent = [role for role, scores in (("student", student), ("teacher", teacher)) if scores is None]
        plan.notes.append(f"{' and '.join(silent)}: the output is no row of scores, so logits are not compared")
        return
    plan.classes, plan.targets = student.shape[1], len(student.shape) == 2
    if len(student.shape) != len(teacher.shape) or student.shape[2:] != teacher.shape[2:]:
        plan.notes.append(
            f"outputs of shapes {student.shape} and {teacher.shape} cannot be compared as logits: give the student the "
            "teacher's kind of head"
        )
        return
    adapter = None
    if student.shape[1] != teacher.shape[1]:
        if student.shape[1] > teacher.shape[1]:
            plan.notes.append(
                f"the student scores {student.shape[1]} classes and the teacher only {teacher.shape[1]}: logits are "
                "not compared"
            )
            return
        plan.notes.append(
            f"the student scores {student.shape[1]} classes, the teacher {teacher.shape[1]}: ClassMap needs, for each "
            "of the student's classes, its number in the teacher's list; 0, 1, 2, ... stands there until you say it"
        )
        adapter = {"type": "limbeck_core.adapters.ClassMap", "indices": list(range(student.shape[1]))}
    same = adapter is None
    taps = (student.tap, teacher.tap)
    yield _Draft(
        "kd",
        "the teacher's softened scores",
        "Hinton et al., arXiv:1503.02531",
        _match("KLDivergenceLoss", *taps, temperature=4.0, teacher_adapter=adapter, weight=0.9),
        active=same,
    )
    if plan.targets and student.shape[1] > 2:
        yield _Draft(
            "dkd",
            "the same in two parts, target class and the others",
            "Zhao et al., arXiv:2203.08679",
            _match("DecoupledKDLoss", *taps, temperature=4.0, teacher_adapter=adapter, weight=1.0),
        )
    if plan.targets:
        yield _Draft(
            "dist",
            "correlations of scores, for a much stronger teacher",
            "Huang et al., arXiv:2205.10536",
            _match("DISTLoss", *taps, temperature=1.0, teacher_adapter=adapter, weight=1.0),
        )


def _to_maps(layout: Layout) -> list[dict[str, Any]] | None:
    """Adapters that make maps (N, C, ...) of what a node emits; ``None`` if nothing does."""
    if layout.kind == "map":
        return []
    if layout.kind == "channels last" and len(layout.grid) == 2:
        flat = {"type": "torch.nn.Flatten", "start_dim": 1, "end_dim": 2}
        return [flat, _tokens_to_map(layout.grid, 0)]
    if layout.kind == "tokens" and len(layout.grid) == 2:
        return [_tokens_to_map(layout.grid, layout.prefix)]
    return None


def _tokens_to_map(grid: Sequence[int], prefix: int) -> dict[str, Any]:
    described = {"type": "limbeck_core.adapters.TokensToMap", "height": grid[0], "width": grid[1]}
    return described | ({"prefix_tokens": prefix} if prefix else {})


def _chained(adapters: Sequence[Mapping[str, Any]]) -> Any:
    if len(adapters) > 1:
        return {"type": "limbeck_core.adapters.Chain", "adapters": [dict(adapter) for adapter in adapters]}
    return dict(adapters[0]) if adapters else None


def _on_features(plan: Plan) -> Iterator[_Draft]:
    if not plan.pairs:
        return
    deepest = plan.pairs[-1]
    mine, theirs = deepest.student.layout, deepest.teacher.layout
    maps, teacher_maps = _to_maps(mine), _to_maps(theirs)
    if maps is not None and teacher_maps is not None and len(mine.grid) == len(theirs.grid):
        yield from _on_maps(deepest, maps, teacher_maps)
    elif mine.kind == theirs.kind == "tokens" and deepest.student.shape[1] == deepest.teacher.shape[1]:
        yield from _on_tokens(deepest)
    else:
        plan.notes.append(
            f"{deepest.student.path} {deepest.student.shape} ({mine.kind}) and {deepest.teacher.path} "
            f"{deepest.teacher.shape} ({theirs.kind}) have no common grid: their features are not compared"
        )
    whole = [p for p in plan.pairs if p.student.layout.kind == p.teacher.layout.kind == "map"]
    if len(whole) > 1 and len(mine.grid) == 2:
        yield _review(whole)


def _on_maps(pair: Pair, maps: list[dict[str, Any]], teacher_maps: list[dict[str, Any]]) -> Iterator[_Draft]:
    mine, theirs = pair.student.layout, pair.teacher.layout
    taps = (tap_of(pair.student), tap_of(pair.teacher))
    width: list[dict[str, Any]] = []
    if mine.channels != theirs.channels:
        width = [{"type": "limbeck_core.adapters.ConvAdapter", "in_channels": mine.channels}]
        width[0] |= {"out_channels": theirs.channels} | ({"dims": len(mine.grid)} if len(mine.grid) != 2 else {})
    smaller, larger = maps, teacher_maps
    if mine.grid != theirs.grid and len(mine.grid) == 2:
        size = tuple(map(min, mine.grid, theirs.grid))
        resize = [{"type": "limbeck_core.adapters.Resize", "size": size, "mode": "area"}]
        smaller = maps + (resize if mine.grid != size else [])
        larger = teacher_maps + (resize if theirs.grid != size else [])
    fitted = {"adapter": _chained(smaller + width), "teacher_adapter": _chained(larger)}
    loose = {"adapter": _chained(maps + width), "teacher_adapter": _chained(teacher_maps)}
    as_they_are = {"adapter": _chained(maps), "teacher_adapter": _chained(teacher_maps)}
    if mine.grid == theirs.grid or len(mine.grid) == 2:
        yield _Draft(
            "pkd",
            "where channels are high and low, whatever their scale",
            "Cao et al., arXiv:2207.02039",
            _match("PearsonFeatureLoss", *taps, **loose, weight=1.0),
            active=True,
        )
        yield _Draft(
            "hint",
            "the features themselves",
            "Romero et al., arXiv:1412.6550",
            _match("HintLoss", *taps, **fitted, weight=1.0),
        )
    yield _Draft(
        "at",
        "where the features are strong, summed over channels",
        "Zagoruyko and Komodakis, arXiv:1612.03928",
        _match("AttentionTransferLoss", *taps, **as_they_are, weight=1000.0),
    )
    if math.prod(mine.grid) > 1 and (mine.grid == theirs.grid or len(mine.grid) == 2):
        yield _Draft(
            "cwd",
            "each channel as a distribution over places, for dense tasks",
            "Shu et al., arXiv:2011.13256",
            _match("ChannelWiseDivergenceLoss", *taps, temperature=4.0, **fitted, weight=1.0),
        )


def _on_tokens(pair: Pair) -> Iterator[_Draft]:
    mine, theirs = pair.student.layout, pair.teacher.layout
    adapter = None
    if mine.channels != theirs.channels:
        adapter = {"type": "limbeck_core.adapters.LinearAdapter", "in_features": mine.channels}
        adapter |= {"out_features": theirs.channels}
    yield _Draft(
        "hidden",
        "the hidden states of the tokens",
        "Jiao et al., arXiv:1909.10351",
        _match("HiddenStateMSELoss", tap_of(pair.student), tap_of(pair.teacher), adapter=adapter, weight=1.0),
        active=True,
    )


def _review(pairs: Sequence[Pair]) -> _Draft:
    adapter: dict[str, Any] = {
        "type": "limbeck_core.adapters.ReviewFusion",
        "in_channels": [pair.student.layout.channels for pair in pairs],
        "out_channels": [pair.teacher.layout.channels for pair in pairs],
    }
    if any(pair.student.layout.grid != pair.teacher.layout.grid for pair in pairs):
        adapter["out_sizes"] = [pair.teacher.layout.grid for pair in pairs]
    student, teacher = [tap_of(pair.student) for pair in pairs], [tap_of(pair.teacher) for pair in pairs]
    return _Draft(
        "review",
        "all stages, each learning from the deeper ones too",
        "Chen et al., arXiv:2104.09044",
        _match("HierarchicalContextLoss", student, teacher, adapter=adapter, weight=1.0),
    )


def _embedding(trace: Trace) -> tuple[Any, tuple[int, ...]] | None:
    """Tap and shape of the vector that a classifier reads."""
    scores = _scores(trace)
    if scores is None or scores.node is None or len(scores.shape) != 2 or scores.node.path not in trace.widths:
        return None
    number = trace.inputs.get(scores.node.path, -1)
    emitted = [node for node in trace.of_tensor(number) if not node.changed and node.layout.kind == "vector"]
    if emitted:
        return tap_of(emitted[0]), emitted[0].shape
    # nothing but the classifier sees it: a tensor that functions made
    width = trace.entering.get(scores.node.path)
    return ({"type": "limbeck_core.Tap", "path": scores.node.path, "at": "input"}, width) if width else None


def _on_embeddings(plan: Plan) -> Iterator[_Draft]:
    student, teacher = _embedding(plan.student), _embedding(plan.teacher)
    if student is None or teacher is None:
        return
    taps = (student[0], teacher[0])
    yield _Draft(
        "rkd",
        "distances and angles between samples, whatever the widths",
        "Park et al., arXiv:1904.05068",
        _match("RelationalLoss", *taps, weight=1.0),
    )
    yield _Draft(
        "sp",
        "which samples are similar",
        "Tung and Mori, arXiv:1907.09682",
        _match("SimilarityPreservingLoss", *taps, weight=3000.0),
    )
    yield _Draft(
        "pkt",
        "which samples are probable neighbours",
        "Passalis and Tefas, arXiv:1803.10837",
        _match("ProbabilisticTransferLoss", *taps, weight=30000.0),
    )


# ---------------------------------------------------------------------- cost


def cost_of(plan: Plan, described: Mapping[str, Any]) -> Cost:
    """Run a match on tensors without memory, of the shapes that its taps read, and count.

    Raises:
        LimbeckError: if it does not fit them.
    """
    with torch.device("meta"):
        match: Match = build(described)
    read_bytes = [0]

    def read(tap: Tap) -> Any:
        if tap.of == "batch":
            return torch.empty(plan.batch_size, dtype=torch.long, device="meta")
        trace = plan.student if tap.of == "student" else plan.teacher
        value = torch.empty(plan.batch_size, *_shape_at(trace, tap)[1:], device="meta")
        read_bytes[0] += value.numel() * value.element_size()
        return value

    def count(module: nn.Module, args: Any, output: Any) -> None:
        read_bytes[0] += sum(leaf.numel() * leaf.element_size() for leaf in leaves(output))

    for adapter in (match.adapter, match.teacher_adapter):
        if isinstance(adapter, nn.Module):
            adapter.register_forward_hook(count)
    targets = torch.empty(plan.batch_size, dtype=torch.long, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        loss: Tensor = match(read, {"targets": targets})
    if loss.ndim:
        raise LimbeckError(f"the loss has shape {tuple(loss.shape)}")
    parameters = sum(parameter.numel() for parameter in match.parameters())
    return Cost(parameters, int(counter.get_total_flops()) // 2, read_bytes[0])


def _shape_at(trace: Trace, tap: Tap) -> tuple[int, ...]:
    if tap.at == "input":
        return trace.entering[tap.path]
    if not tap.path:
        return next(shape for pick, _, shape in trace.outputs if pick == tap.pick)
    return next(node.shape for node in trace.nodes if (node.path, node.pick) == (tap.path, tap.pick))


def in_short(count: int) -> str:
    """A count to three digits: ``1.23 M``."""
    size = float(count)
    for unit in ("", " k", " M", " G"):
        if size < 1000:
            return f"{size:.3g}{unit}"
        size /= 1000
    return f"{size:.4g} T"


def in_bytes(count: int) -> str:
    """Bytes in words."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"


__all__ = [
    "Cost",
    "Pair",
    "Plan",
    "Proposal",
    "cost_of",
    "in_bytes",
    "in_short",
    "make_plan",
    "pair_stages",
    "stages_of",
]
