"""One way to seed everything random about a data set, wherever its generators are kept.

The global generators of Python, NumPy and PyTorch are seeded by whoever loads a sample. What is found here are the
generators that transforms own: those with a method ``set_random_state(seed)`` (MONAI's protocol), and any
``random.Random``, ``numpy.random.RandomState``, ``numpy.random.Generator`` or ``torch.Generator`` that can be reached
through attributes, containers, partial functions and closures, which also covers albumentations.
"""

from __future__ import annotations

import functools
import random
import types
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, cast

import numpy as np
import torch

from limbeck_core.errors import ConfigError

_LIMIT = 20_000  # objects looked at; a data set with more holds samples as objects, and no generator hides among them
_LONG = 64  # containers longer than this are looked into last, and only if their first elements are objects
_PLAIN = (str, bytes, bytearray, bool, int, float, complex, type(None), PurePath, torch.Tensor, np.ndarray, np.generic)
_CLOSED = (types.ModuleType, type, torch.dtype, torch.device, types.BuiltinFunctionType)
_GENERATORS = (random.Random, np.random.RandomState, np.random.Generator, torch.Generator)


def walk(root: Any, name: str = "dataset") -> Iterator[tuple[str, Any]]:
    """Yield every object that can be reached from one, each once, with the dotted path that leads to it.

    Nothing is called and no property is read. Arrays, tensors, numbers, text, modules and classes are left out.

    Args:
        root: Where to start.
        name: How to call it in paths.
    """
    pending = [(name, root)]
    # lists of samples, which may hold more objects than the limit, wait until the transforms have been found
    later: deque[tuple[str, Any]] = deque()
    # objects are kept so that no id is used twice while the walk lasts
    seen: dict[int, Any] = {}
    while (pending or later) and len(seen) < _LIMIT:
        path, value = pending.pop() if pending else later.popleft()
        if isinstance(value, (*_PLAIN, *_CLOSED)) or id(value) in seen:
            continue
        seen[id(value)] = value
        yield path, value
        if isinstance(value, _GENERATORS):
            continue
        inside = list(_inside(path, value))
        if isinstance(value, (Mapping, list, tuple)) and len(value) > _LONG:
            later.extend(inside)
        else:
            pending.extend(reversed(inside))


def _inside(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        if _worthwhile(list(value.values())[:3], len(value)):
            yield from ((f"{path}[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        if _worthwhile(list(value[:3]), len(value)):
            yield from ((f"{path}[{number}]", item) for number, item in enumerate(value))
    elif isinstance(value, functools.partial):
        yield f"{path}.func", value.func
        yield f"{path}.args", value.args
        yield f"{path}.keywords", value.keywords
    elif isinstance(value, types.MethodType):
        yield path, value.__self__
        yield path, value.__func__
    elif isinstance(value, types.FunctionType):
        yield from _of_function(path, value)
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict) and not isinstance(value, types.FunctionType):
        yield from ((f"{path}.{key}", item) for key, item in attributes.items())
    yield from ((f"{path}.{key}", item) for key, item in _of_class(cast("Hashable", type(value))))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            member = kind.__dict__.get(slot)
            if isinstance(member, types.MemberDescriptorType):
                with_value = _slot(member, value)
                yield from ((f"{path}.{slot}", item) for item in with_value)


def _worthwhile(first: list[Any], length: int) -> bool:
    return length <= _LONG or any(not isinstance(item, (*_PLAIN, *_CLOSED)) for item in first)


def _slot(member: types.MemberDescriptorType, value: Any) -> list[Any]:
    try:
        return [member.__get__(value)]
    except AttributeError:  # the slot is empty
        return []


@functools.cache
def _of_class(kind: Any) -> tuple[tuple[str, Any], ...]:
    """Generators that a class holds as attributes, or that its methods find in their module."""
    found = []
    for base in kind.__mro__:
        for key, item in vars(base).items():
            if isinstance(item, _GENERATORS):
                found.append((key, item))
            elif isinstance(item, types.FunctionType):
                found += _globals_of(item)
    return tuple(found)


def _globals_of(function: types.FunctionType) -> list[tuple[str, Any]]:
    """Generators among the names that a function looks up in its module. Other names lead across whole libraries."""
    pairs = [(variable, function.__globals__.get(variable)) for variable in function.__code__.co_names]
    return [(variable, found) for variable, found in pairs if isinstance(found, _GENERATORS)]


def _of_function(path: str, function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    title = f"{path} ({function.__qualname__})"
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"{title}.{variable}", cell.cell_contents
        except ValueError:  # the variable is not assigned yet
            continue
    yield f"{title}.defaults", function.__defaults__
    yield f"{title}.defaults", function.__kwdefaults__
    yield from ((f"{title}.{variable}", found) for variable, found in _globals_of(function))


class Reseeder:
    """The generators that a data set or transform owns, found once and seeded as often as needed.

    Args:
        root: A data set, a transform, or anything that holds them.
        name: How to call it in paths.

    ``refused`` lists what draws random numbers and cannot be seeded, as text.
    """

    def __init__(self, root: Any, name: str = "dataset") -> None:
        self._generators: list[Any] = []
        self.refused: list[str] = []
        found = list(walk(root, name))
        self._set_state = [value for _, value in found if callable(getattr(type(value), "set_random_state", None))]
        # what an object with the protocol holds itself is its own affair
        theirs = {id(item) for owner in self._set_state for item in getattr(owner, "__dict__", {}).values()}
        for path, value in found:
            if isinstance(value, _GENERATORS) and id(value) not in theirs:
                if _can_be_seeded(value):
                    self._generators.append(value)
                else:
                    self.refused.append(f"{path} ({_title(value)})")

    def __len__(self) -> int:
        return len(self._set_state) + len(self._generators)

    def reseed(self, seed: int) -> None:
        """Seed every generator that was found, each with a number of its own that follows from ``seed``."""
        for number, owner in enumerate(self._set_state):
            owner.set_random_state(seed=_mixed(seed, number) % 2**32)
        for number, generator in enumerate(self._generators, start=len(self._set_state)):
            _seed(generator, _mixed(seed, number))


def reseed(transform: Any, seed: int) -> None:
    """Seed every generator that a transform or data set owns.

    Args:
        transform: The object; what it holds is walked through.
        seed: A whole number >= 0. The same number gives the same random numbers afterwards.

    Raises:
        ConfigError: naming each part that draws random numbers and cannot be seeded.
    """
    found = Reseeder(transform, type(transform).__name__)
    refuse_unseeded(found)
    found.reseed(seed)


def refuse_unseeded(found: Reseeder) -> None:
    """Raise if some part cannot be seeded.

    Raises:
        ConfigError: naming each.
    """
    if found.refused:
        raise ConfigError(
            f"{', '.join(found.refused)} draws random numbers that cannot be seeded, so that no sample could be made "
            "twice: let it draw from the global generators of Python, NumPy or PyTorch, which are seeded for each "
            "sample, or give it a method set_random_state(seed)"
        )


def _title(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _can_be_seeded(generator: Any) -> bool:
    if isinstance(generator, random.Random):
        return not isinstance(generator, random.SystemRandom)
    if isinstance(generator, np.random.Generator):
        return _bit_generator(generator) is not None
    return True


def _bit_generator(generator: np.random.Generator) -> Callable[[int], Any] | None:
    """The class of a generator's source of bits, if it is one of NumPy's, whose state follows from a seed."""
    kind: Any = type(generator.bit_generator)
    return kind if kind.__module__.startswith("numpy.random.") else None


def _mixed(seed: int, number: int) -> int:
    """Another seed for every generator; the first gets ``seed`` itself."""
    return (seed + number * 0x9E3779B97F4A7C15) % 2**63


def _seed(generator: Any, seed: int) -> None:
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, np.random.RandomState):
        generator.seed(seed % 2**32)
    elif isinstance(generator, np.random.Generator):
        kind: Any = _bit_generator(generator)
        generator.bit_generator.state = kind(seed).state
    else:
        generator.seed(seed)


__all__ = ["Reseeder", "refuse_unseeded", "reseed", "walk"]
