"""What a model emits where: the output of every module with its shape, found without memory where the model allows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from limbeck_core.build import build
from limbeck_core.calls import Call
from limbeck_core.errors import ConfigError, LimbeckError
from limbeck_core.tap import Pick, leaves
from limbeck_core.teacher import Teacher

Kind = Literal["map", "channels last", "tokens", "vector", "pooled", "other"]
FEATURES: tuple[Kind, ...] = ("map", "channels last", "tokens")

_MOST_LEAVES = 8  # an output of more tensors is a cache, not features
_MOST_PREFIX = 16  # class token, distillation token, registers
_OFF_GRID = 0.15, 4  # what convolutions without padding take off a side: a share of it, and positions at most


@dataclass(frozen=True)
class Layout:
    """How a tensor is to be read.

    Args:
        kind: ``"map"`` (N, C, ...), ``"channels last"`` (N, H, W, C), ``"tokens"`` (N, L, D), ``"vector"`` (N, D),
            ``"pooled"`` (N, C, 1, ...), or anything else.
        channels: Width C or D.
        grid: Positions along each side; empty where there is no grid.
        prefix: Tokens in front that are no positions.
        stride: Input positions for each of its own, along one side, to the nearest power of two; 0 if unknown.
    """

    kind: Kind
    channels: int = 0
    grid: tuple[int, ...] = ()
    prefix: int = 0
    stride: int = 0


@dataclass(frozen=True)
class Node:
    """One tensor that a module emits.

    Args:
        path: Dotted name of the module.
        pick: Element of the output, where that is no tensor.
        shape: Its shape.
        layout: How it is to be read.
        order: Place in the order in which outputs came.
        depth: Share of the model's layers with weights that were done by then.
        calls: How often the module ran.
        changed: Whether something changed it in place afterwards.
        tensor: Number of the tensor: the same for a module and the child whose output it passes on.
    """

    path: str
    pick: Pick | None
    shape: tuple[int, ...]
    layout: Layout
    order: int
    depth: float
    calls: int
    changed: bool
    tensor: int


@dataclass
class Trace:
    """A model's outputs.

    Args:
        title: How to call the model.
        nodes: What its modules emit, in order; the model itself is the module ``""``.
        inputs: Number of the first input tensor of each module.
        children: Names of the modules inside each module.
        plain: Modules that only run what is inside them, in order.
        widths: Output width of linear layers.
        entering: Shape of the first input tensor of linear layers.
        parameters: Number of parameters.
        macs: Multiply-accumulates of one sample in convolutions and matrix products.
        on_meta: Whether it ran without memory.
        outputs: Tensors of the model's own output: (pick, number, shape).
        notes: What is worth knowing.
    """

    title: str
    nodes: list[Node] = field(default_factory=list)
    inputs: dict[str, int] = field(default_factory=dict)
    children: dict[str, list[str]] = field(default_factory=dict)
    plain: set[str] = field(default_factory=set)
    widths: dict[str, int] = field(default_factory=dict)
    entering: dict[str, tuple[int, ...]] = field(default_factory=dict)
    parameters: int = 0
    macs: int = 0
    on_meta: bool = True
    outputs: list[tuple[Pick | None, int, tuple[int, ...]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def of_tensor(self, number: int) -> list[Node]:
        """The nodes of one tensor, outermost module first; the model itself is left out."""
        found = [node for node in self.nodes if node.tensor == number and node.path and node.calls == 1]
        return sorted(found, key=lambda node: (node.path.count("."), len(node.path)))


# ---------------------------------------------------------------------- building and running


def build_described(config: Mapping[str, Any], title: str) -> tuple[nn.Module, bool]:
    """Build a model on the meta device, or on the CPU if its constructor looks at numbers.

    Returns:
        The model, and whether it was built without memory.

    Raises:
        ConfigError: if it is no model, or cannot be built.
    """
    on_meta = True
    try:
        with torch.device("meta"):
            model = build(config)
    except LimbeckError:
        raise
    except Exception:  # constructors raise what they like on tensors without numbers
        on_meta = False
        model = build_on_cpu(config, title)
    if isinstance(model, Teacher):
        model = model.model
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{title} makes no torch.nn.Module but {type(model).__name__}: name the function of a model")
    return model.eval().requires_grad_(False), on_meta


def build_on_cpu(config: Mapping[str, Any], title: str) -> Any:
    """Build a model with its numbers, and leave the generator as it was.

    Raises:
        ConfigError: if it cannot be built.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            return build(config)
    except LimbeckError:
        raise
    except Exception as error:
        raise ConfigError(f"{title} cannot be built: {type(error).__name__}: {_short(error)}") from error


def trace(config: Mapping[str, Any], title: str, batch: Mapping[str, Any], call: Call, view: str) -> Trace:
    """Run a model and write down what every module emits.

    Args:
        config: What builds it.
        title: How to call it.
        batch: A batch of one sample.
        call: How it is called.
        view: Field of the batch that it takes.

    Raises:
        ConfigError: if it cannot be built, or does not run on the batch.
    """
    model, on_meta = build_described(config, title)
    try:
        found = _run(model.to("meta"), title, _to(batch, "meta"), call, view)
        found.on_meta = on_meta
        if not on_meta:
            found.notes.append("its constructor looks at numbers, so it was built in memory")
        return found
    except LimbeckError:
        raise
    except Exception:  # a forward that looks at numbers, or does not fit the input: the second run tells which
        model = build_on_cpu(config, title)
    model = model.model if isinstance(model, Teacher) else model
    try:
        found = _run(model.eval().requires_grad_(False), title, _to(batch, "cpu"), call, view)
    except LimbeckError as error:
        raise ConfigError(f"{title} does not run: {error}") from error
    except Exception as error:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in leaves(batch)) or "nothing"
        raise ConfigError(
            f"{title} does not run on an input of shape {shapes} ({type(error).__name__}: {_short(error)}): name the "
            "shape that it takes with --input-shape"
        ) from error
    found.on_meta = False
    found.notes.append("its forward looks at numbers, so it ran in memory")
    return found


def _to(value: Any, device: str) -> Any:
    if isinstance(value, Tensor):
        if device == "meta" or not value.is_meta:
            return value.to(device)
        return torch.zeros(value.shape, dtype=value.dtype)
    if isinstance(value, Mapping):
        return {key: _to(item, device) for key, item in value.items()}
    return value


def _short(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")[:200]


class _Listener:
    """Hears every module and keeps its tensors, so that their numbers stay unique."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[int, Tensor]] = {}
        self.heard: list[tuple[str, Pick | None, int, int, int]] = []  # path, pick, tensor, version, layers done
        self.inputs: dict[str, int] = {}
        self.calls: dict[str, int] = {}
        self.crowded: dict[str, int] = {}
        self.layers = 0

    def number(self, tensor: Tensor) -> int:
        return self.kept.setdefault(id(tensor), (len(self.kept), tensor))[0]

    def hear(self, path: str, module: nn.Module, args: Any, output: Any) -> None:
        self.calls[path] = self.calls.get(path, 0) + 1
        self.layers += any(True for _ in module.parameters(recurse=False))
        first = next(leaves(args), None)
        if first is not None:
            self.inputs[path] = self.number(first)
        found = list(_picked(output))
        if len(found) > _MOST_LEAVES:
            self.crowded[path] = len(found)
            return
        for pick, tensor in found:
            self.heard.append((path, pick, self.number(tensor), tensor._version, self.layers))


def _picked(value: Any, trail: tuple[int | str, ...] = ()) -> Iterator[tuple[Pick | None, Tensor]]:
    if isinstance(value, Tensor):
        yield (None if not trail else trail[0] if len(trail) == 1 else trail), value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _picked(item, (*trail, str(key)))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _picked(item, (*trail, index))


def _run(model: nn.Module, title: str, batch: Mapping[str, Any], call: Call, view: str) -> Trace:
    listener, handles = _Listener(), []
    for path, module in model.named_modules():

        def hook(module: nn.Module, args: Any, output: Any, path: str = path) -> None:
            listener.hear(path, module, args, output)

        handles.append(module.register_forward_hook(hook))
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            output = call.capture(model, batch, view)
    finally:
        for handle in handles:
            handle.remove()
    space, length = _input_space(batch, view)
    found = Trace(title=title, macs=int(counter.get_total_flops()) // 2)
    found.parameters = sum(parameter.numel() for parameter in model.parameters())
    tensors = dict(listener.kept.values())
    for order, (path, pick, number, version, layers) in enumerate(listener.heard):
        tensor, calls = tensors[number], listener.calls[path]
        changed = tensor._version != version
        layout = layout_of(tuple(tensor.shape), space, length)
        depth = layers / max(listener.layers, 1)
        found.nodes.append(Node(path, pick, tuple(tensor.shape), layout, order, depth, calls, changed, number))
    found.inputs = listener.inputs
    found.outputs = [(pick, listener.number(tensor), tuple(tensor.shape)) for pick, tensor in _picked(output)]
    for path, module in model.named_modules():
        found.children[path] = [f"{path}.{name}".lstrip(".") for name, _ in module.named_children()]
        if type(module) in (nn.Sequential, nn.ModuleList):
            found.plain.add(path)
        width = getattr(module, "out_features", None)
        if isinstance(width, int):
            found.widths[path] = width
            if path in listener.inputs:
                found.entering[path] = tuple(tensors[listener.inputs[path]].shape)
    found.notes += _explained(found, listener, output)
    return found


def _explained(found: Trace, listener: _Listener, output: Any) -> list[str]:
    notes = []
    if not isinstance(output, Tensor):
        names = ", ".join(repr(pick) for pick, _, _ in found.outputs[:_MOST_LEAVES])
        notes.append(f"its output ({type(output).__name__}) holds {len(found.outputs)} tensors: taps pick {names}")
    tuples = {node.path for node in found.nodes if node.path and node.pick is not None}
    if tuples:
        notes.append(f"{_first(tuples)} give no single tensor: their taps need pick=...")
    for path, count in listener.crowded.items():
        if path:
            notes.append(f"{path} gives {count} tensors, too many to choose from")
    repeated = {node.path for node in found.nodes if node.calls > 1}
    if repeated:
        notes.append(f"{_first(repeated)} run several times: their taps need call=..., and none is proposed")
    return notes


def _first(paths: set[str], count: int = 3) -> str:
    ordered = sorted(paths, key=lambda path: (path.count("."), path))
    return f"{len(paths)} modules ({', '.join(ordered[:count])}{', ...' if len(paths) > count else ''})"


# ---------------------------------------------------------------------- shapes


def _input_space(batch: Mapping[str, Any], view: str) -> tuple[tuple[int, ...], int]:
    """Sizes of the input beyond batch and channels, and the number of tokens where there are tokens instead."""
    tensors = [leaf for leaf in leaves(batch.get(view, batch)) if leaf.ndim > 1]
    images = [leaf for leaf in tensors if leaf.is_floating_point() and leaf.ndim > 2]
    if images:
        return tuple(images[0].shape[2:]), 0
    words = [leaf for leaf in tensors if not leaf.is_floating_point()]
    return (), words[0].shape[1] if words else 0


def layout_of(shape: Sequence[int], space: Sequence[int], length: int = 0) -> Layout:
    """Tell how a tensor of one sample is to be read.

    Args:
        shape: Its shape.
        space: Sizes of the input beyond batch and channels.
        length: Number of input tokens, for a model of tokens.

    >>> layout_of((1, 64, 8, 8), (32, 32))
    Layout(kind='map', channels=64, grid=(8, 8), prefix=0, stride=4)
    >>> layout_of((1, 197, 192), (224, 224))
    Layout(kind='tokens', channels=192, grid=(14, 14), prefix=1, stride=16)
    """
    shape, space = tuple(shape), tuple(space)
    if len(shape) < 2 or shape[0] != 1:
        return Layout("other")
    if len(shape) == 2:
        return Layout("vector", shape[1])
    if len(shape) == len(space) + 2:
        if set(shape[2:]) == {1}:
            return Layout("pooled", shape[1])
        stride = _stride(shape[2:], space)
        if stride:
            return Layout("map", shape[1], shape[2:], 0, stride)
        stride = _stride(shape[1:-1], space)
        if stride:
            return Layout("channels last", shape[-1], shape[1:-1], 0, stride)
    if len(shape) == 3 and (length or len(space) == 2):
        return _tokens(shape[1], shape[2], space, length)
    return Layout("other")


def _stride(sizes: Sequence[int], space: Sequence[int]) -> int:
    """The power of two by which every side shrank; 0 if they shrank otherwise."""
    strides = set()
    for size, whole in zip(sizes, space, strict=True):
        if not 0 < size <= whole:
            return 0
        stride = 2 ** round(math.log2(whole / size))
        share, most = _OFF_GRID
        if abs(size - whole / stride) > min(max(share * whole / stride, 1), most):
            return 0
        strides.add(stride)
    return strides.pop() if len(strides) == 1 else 0


def _tokens(count: int, width: int, space: tuple[int, ...], length: int) -> Layout:
    if length:
        return Layout("tokens", width, (), 0, int(count == length))
    for patch in range(1, min(space) + 1):
        if any(side % patch for side in space):
            continue
        grid = (space[0] // patch, space[1] // patch)
        prefix = count - grid[0] * grid[1]
        if 0 <= prefix <= min(_MOST_PREFIX, grid[0] * grid[1] // 2):
            return Layout("tokens", width, grid, prefix, 2 ** round(math.log2(patch)))
    return Layout("tokens", width)


__all__ = ["FEATURES", "Layout", "Node", "Trace", "build_described", "layout_of", "trace"]
