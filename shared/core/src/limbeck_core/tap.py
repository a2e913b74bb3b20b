"""Where to read: a :class:`Tap` names a place in a model or a batch, a :class:`Recorder` reads it during a forward.

The hooks are objects that share one record. They survive ``deepcopy``, ``pickle`` and module replacement: a copied hook
is inert, and a recorder that finds its modules replaced installs itself anew. Closures would keep writing into the
record of the model they were copied from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from limbeck_core.errors import TapError, closest

Pick = int | str | tuple[int | str, ...]


@dataclass(frozen=True)
class Tap:
    """A place to read a value from during one training step.

    Args:
        path: Dotted name of a submodule (``"layer3.1.conv2"``; ``""`` is the model itself), of a parameter or buffer
            (``"fc.weight"``), or of a field of the batch when ``of="batch"``.
        of: Whose: ``"student"``, ``"teacher"``, ``"batch"``, or the name of one of several teachers. ``None`` means the
            side of the match on which the tap stands.
        pick: Element of a tuple, mapping or output object: an index, a key, or a tuple of those for nested values.
        call: Which call, for a module that runs several times in a forward: an index, or ``"all"`` for the list of
            every call's value. ``None`` expects exactly one call.
        at: ``"output"`` of the module, or its ``"input"`` (first positional argument; ``pick`` chooses another by
            index, or a keyword argument by name).
        clone: Copy the value when it is read, for modules whose output is changed in place afterwards.

    Raises:
        TapError: if ``call`` or ``at`` is not one of the above.

    >>> Tap("fc")
    Tap(path='fc', of=None, pick=None, call=None, at='output', clone=False)
    """

    path: str
    of: str | None = None
    pick: Pick | None = None
    call: int | Literal["all"] | None = None
    at: Literal["output", "input"] = "output"
    clone: bool = False

    def __post_init__(self) -> None:
        """Refuse options that no reader knows."""
        if not isinstance(self.path, str):
            raise TapError(f"a tap's path must be a dotted name, got {self.path!r}")
        if self.at not in ("output", "input"):
            raise TapError(f"tap {self.path!r}: at must be 'output' or 'input', got {self.at!r}")
        if not (self.call is None or self.call == "all" or isinstance(self.call, int)):
            raise TapError(f"tap {self.path!r}: call must be an index, 'all' or None, got {self.call!r}")

    def __str__(self) -> str:
        """Name the tap in messages."""
        owner = f"{self.of}:" if self.of else ""
        pick = f"[{self.pick!r}]" if self.pick is not None else ""
        return f"{owner}{self.path}{pick}"


def as_tap(value: str | Tap) -> Tap:
    """Return ``value`` as a :class:`Tap`; a string is the path."""
    return value if isinstance(value, Tap) else Tap(value)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside ``torch.compile``'s and data parallel's wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if inner is None:
            return model
        model = inner


def resolve(model: nn.Module, path: str, owner: str) -> nn.Module | Tensor:
    """Find a submodule, parameter or buffer by its dotted name.

    Args:
        model: The model; wrappers of ``torch.compile`` are looked through.
        path: Dotted name; ``""`` is the model itself.
        owner: Who the model is, for the message (``"student"``, ``"teacher"``, ...).

    Raises:
        TapError: if there is no such place, with the closest names or what exists at the last name that was found.
    """
    here: Any = unwrap(model)
    found: list[str] = []
    for part in path.split(".") if path else []:
        children = {**here._modules, **here._parameters, **here._buffers} if isinstance(here, nn.Module) else {}
        child = children.get(part)
        if child is None:
            raise TapError(_not_there(unwrap(model), path, owner, ".".join(found), children))
        here = unwrap(child) if isinstance(child, nn.Module) else child
        found.append(part)
    return here  # type: ignore[no-any-return]


def _is_compiled(model: nn.Module) -> bool:
    return any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in model.modules())


def _not_there(model: nn.Module, path: str, owner: str, parent: str, children: Mapping[str, Any]) -> str:
    known = [name.replace("_orig_mod.", "") for name, _ in model.named_modules() if name]
    advice = closest(path, known)
    if not advice.startswith("did you mean"):
        here = [name for name, child in children.items() if child is not None]
        advice = closest("", here).replace("it has", f"{parent!r} has" if parent else "it has")
    return f"tap {path!r} is not a submodule of the {owner} ({type(model).__name__}): {advice}"


class _Record:
    """Values of one forward, by place. Written only while ``active``."""

    __slots__ = ("active", "calls")

    def __init__(self) -> None:
        self.active = False
        self.calls: dict[tuple[str, str, bool], list[Any]] = {}


class _Capture:
    """A forward hook that writes into a shared record; a copy of it writes nowhere."""

    def __init__(self, record: _Record | None, key: tuple[str, str, bool]) -> None:
        self.record = record
        self.key = key

    def __deepcopy__(self, memo: dict[int, Any]) -> _Capture:
        return _Capture(None, self.key)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Capture, (None, self.key)

    def store(self, value: Any) -> None:
        record = self.record
        if record is None or not record.active:
            return
        # no counter tells of in-place changes in a compiled graph; the compiler drops a copy that nothing needs
        if self.key[2] or torch.compiler.is_compiling():
            value = _map_tensors(value, torch.clone)
        record.calls.setdefault(self.key, []).append((value, _versions(value)))


class _CaptureOutput(_Capture):
    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self.store(output)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Capture:
        return _CaptureOutput(None, self.key)

    def __reduce__(self) -> tuple[Any, ...]:
        return _CaptureOutput, (None, self.key)


class _CaptureInput(_Capture):
    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.store((args, kwargs))

    def __deepcopy__(self, memo: dict[int, Any]) -> _Capture:
        return _CaptureInput(None, self.key)

    def __reduce__(self) -> tuple[Any, ...]:
        return _CaptureInput, (None, self.key)


def remove_taps(model: nn.Module) -> None:
    """Take every tap's hook off a model, whichever recorder installed it; hooks of others stay."""
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for number in [number for number, hook in hooks.items() if isinstance(hook, _Capture)]:
                del hooks[number]
                module._forward_pre_hooks_with_kwargs.pop(number, None)


def leaves(value: Any) -> Iterator[Tensor]:
    """Yield every tensor in a tensor, sequence or mapping, however nested."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves(item)


def _map_tensors(value: Any, function: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return type(value)({key: _map_tensors(item, function) for key, item in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_map_tensors(item, function) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_map_tensors(item, function) for item in value)
    return value


def _versions(value: Any) -> tuple[int, ...]:
    """Counters that torch raises on every in-place change; inference tensors have none."""
    if torch.compiler.is_compiling():
        return ()
    return tuple(-1 if leaf.is_inference() else leaf._version for leaf in leaves(value))


class Recorder:
    """Hooks on one model that read its taps during a forward.

    Args:
        owner: Who the model is, for messages.
        taps: Places to read.

    A deep copy, or an unpickled one, is detached and installs itself at its next :meth:`refresh`.
    """

    def __init__(self, owner: str, taps: Iterable[Tap]) -> None:
        self.owner = owner
        self.taps = tuple(dict.fromkeys(taps))
        self._record = _Record()
        self._handles: list[Any] = []
        self._watched: dict[str, nn.Module] = {}
        self._tensors: dict[str, Tensor] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Recorder:
        return Recorder(self.owner, self.taps)

    def __reduce__(self) -> tuple[Any, ...]:
        return Recorder, (self.owner, self.taps)

    def attach(self, model: nn.Module) -> None:
        """Install the hooks, after removing those of an earlier call.

        Raises:
            TapError: if a tap names a place that the model does not have.
        """
        self.detach()
        places: dict[tuple[str, str, bool], nn.Module] = {}
        for tap in self.taps:
            target = resolve(model, tap.path, self.owner)
            if isinstance(target, nn.Module):
                places[(tap.path, tap.at, tap.clone)] = target
                self._watched[tap.path] = target
        for key, module in places.items():
            if key[1] == "output":
                self._handles.append(module.register_forward_hook(_CaptureOutput(self._record, key)))
            else:
                hook = _CaptureInput(self._record, key)
                self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        if places and _is_compiled(model):
            # a graph captured before the hooks were there would run without them, since torch.compile does not guard on
            # hooks; dropping captured graphs costs one recompilation
            torch.compiler.reset()

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._watched = [], {}

    def refresh(self, model: nn.Module) -> None:
        """Attach anew if a tapped module was replaced since, as SyncBN conversion and deepcopy do."""
        if torch.compiler.is_compiling():
            return  # attached at construction; the tracer would have to guard on every module
        watched = self._watched
        if self.taps and not watched:
            self.attach(model)
            return
        for path, module in watched.items():
            if resolve(model, path, self.owner) is not module:
                self.attach(model)
                return

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record while the model runs. Calls outside, such as activation checkpointing's, are ignored."""
        self._record.calls.clear()
        self._record.active = True
        try:
            yield
        finally:
            self._record.active = False

    def clear(self) -> None:
        """Drop what was recorded, and with it the graph it holds."""
        self._record.calls.clear()

    def read(self, tap: Tap, model: nn.Module) -> Any:
        """Return the value a tap recorded in the last forward, or the parameter it names.

        Raises:
            TapError: if the tap recorded nothing, or several values without ``call``, or its value was changed in place
                since, or ``pick`` finds nothing.
        """
        calls = self._record.calls.get((tap.path, tap.at, tap.clone))
        if calls is None:
            if tap.path not in self._watched:
                target = resolve(model, tap.path, self.owner)
                if isinstance(target, Tensor):
                    return _pick(target, tap)
            raise TapError(
                f"tap '{tap}' of the {self.owner} was not called in this forward: the model reached its output without "
                "calling that module (a head called by method instead, a branch not taken, or a graph compiled before "
                "the tap was installed); tap a module inside it, or one that runs"
            )
        if tap.call == "all":
            return [self._value(entry, tap) for entry in calls]
        if tap.call is None and len(calls) != 1:
            raise TapError(
                f"tap '{tap}' of the {self.owner} was called {len(calls)} times in this forward: say which with "
                f"call=0 to call={len(calls) - 1}, or take all with call='all'"
            )
        index = tap.call or 0
        if not -len(calls) <= index < len(calls):
            raise TapError(
                f"tap '{tap}' of the {self.owner} asks for call {index}, but there were {len(calls)} in this forward"
            )
        return self._value(calls[index], tap)

    def _value(self, entry: tuple[Any, tuple[int, ...]], tap: Tap) -> Any:
        value, versions = entry
        if not torch.compiler.is_compiling() and versions and _versions(value) != versions:
            raise TapError(
                f"tap '{tap}' of the {self.owner} was changed in place after it was read (an in-place activation such "
                "as ReLU(inplace=True) follows it): set clone=True on the tap, or tap the module after it"
            )
        if tap.at == "input":
            args, kwargs = value
            if tap.pick is None:
                if not args:
                    raise TapError(
                        f"tap '{tap}' of the {self.owner} reads the input of a module that was called with keyword "
                        f"arguments only: pick one of {sorted(kwargs)}"
                    )
                return args[0]
            value = kwargs if isinstance(tap.pick, str) else args
        return _pick(value, tap)


def _pick(value: Any, tap: Tap) -> Any:
    if tap.pick is None:
        return value
    for part in tap.pick if isinstance(tap.pick, tuple) else (tap.pick,):
        try:
            value = _element(value, part)
        except (KeyError, IndexError, AttributeError, TypeError) as error:
            raise TapError(
                f"tap '{tap}' found nothing at {part!r} in a {type(value).__name__}: {_contents(value)}"
            ) from error
    return value


def _element(value: Any, part: int | str) -> Any:
    if isinstance(part, str) and not isinstance(value, Mapping):
        return getattr(value, part)
    return value[part]


def _contents(value: Any) -> str:
    if isinstance(value, Mapping):
        return "it has: " + ", ".join(str(key) for key in value)
    if isinstance(value, Sequence):
        return f"it has {len(value)} elements"
    if isinstance(value, Tensor):
        return f"it is a tensor of shape {tuple(value.shape)}"
    return "it has: " + ", ".join(name for name in vars(value) if not name.startswith("_"))


def read_batch(batch: Mapping[str, Any], tap: Tap) -> Any:
    """Return a field of the batch.

    Raises:
        TapError: if the batch has no such field, with the fields it has.
    """
    if tap.path not in batch:
        raise TapError(f"tap '{tap}' asks for {tap.path!r} of the batch: {closest(tap.path, batch)}")
    return _pick(batch[tap.path], tap)


def shape_of(value: Any) -> str:
    """Shapes of a tensor, or of the tensors in a sequence or mapping, as text."""
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shape_of(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(shape_of(item) for item in value) + "]"
    return type(value).__name__


def first_length(value: Any) -> int:
    """Number of samples: axis 0 of the first tensor in a value; 1 if there is none."""
    return next((len(leaf) for leaf in leaves(value) if leaf.ndim), 1)
