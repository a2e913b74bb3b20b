"""From a mapping with ``type`` to the object it describes: what configs are made of, without a registry.

:func:`build` builds what it is told and nothing inside: arguments that are mappings themselves reach the constructor as
they are, and the classes that take configs (:class:`~limbeck_core.match.Match`,
:class:`~limbeck_core.distiller.Distiller`, :func:`~limbeck_core.teacher.pretrained`) build their own direct children.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from limbeck_core.errors import ConfigError, closest


def build(config: Any) -> Any:
    """Call what ``config["type"]`` names with the rest of the mapping as keyword arguments.

    Args:
        config: A mapping with ``type`` (a class, a function, or a dotted string such as ``"torch.nn.Linear"``).
            Anything but a mapping is taken as built already and returned as it is.

    Returns:
        What the call returned, or ``config`` itself.

    Raises:
        ConfigError: if ``type`` is missing or names nothing, or the arguments do not fit its signature; the message
            says what exists. Errors of the constructor itself pass unchanged.

    >>> build({"type": "fractions.Fraction", "numerator": 1, "denominator": 2})
    Fraction(1, 2)
    >>> build(0.5)
    0.5
    """
    if not isinstance(config, Mapping):
        return _resolve_lazy(config)
    if "type" not in config:
        keys = ", ".join(map(repr, config)) or "nothing"
        raise ConfigError(
            f"a config needs the key 'type', the class or function to call; this one has {keys}: "
            "write dict(type=..., ...)"
        )
    target = resolve_type(config["type"])
    arguments = {key: _resolve_lazy(value) for key, value in config.items() if key != "type"}
    _check_arguments(target, arguments)
    return target(**arguments)


def resolve_type(value: Any) -> Callable[..., Any]:
    """Return the class or function that a ``type`` stands for.

    Args:
        value: The class or function itself, a dotted string, or the placeholder that a lazily read config holds.

    Raises:
        ConfigError: if a string names nothing that can be imported (with the closest names), or the value cannot be
            called.
        ImportError: if the module exists but fails to import something of its own.
    """
    value = _resolve_lazy(value)
    if isinstance(value, str):
        value = _import_dotted(value)
    if not callable(value):
        raise ConfigError(f"'type' must be a class, a function or a dotted string, got {value!r}")
    return value  # type: ignore[no-any-return]


def _resolve_lazy(value: Any) -> Any:
    """Import what an mmengine placeholder (``LazyObject``, ``LazyAttr``) stands for, also inside lists and tuples.

    They are told by where their class is defined: mmengine is not imported here, and they claim to have any attribute.
    """
    if type(value).__module__ == "mmengine.config.lazy":
        return value.build()
    if type(value) in (list, tuple):
        return type(value)(_resolve_lazy(item) for item in value)
    return value


def _import_dotted(name: str) -> Any:
    parts = name.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ConfigError(
            f"type={name!r} is not a dotted name: write the whole path such as 'torch.nn.Linear', or import the class "
            "and give it itself"
        )
    # the longest prefix that is a module; the rest are attributes, so that nested classes and classmethods work
    for count in range(len(parts), 0, -1):
        module_name = ".".join(parts[:count])
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
                raise  # the module exists and misses a dependency of its own
            continue
        where = module_name
        for part in parts[count:]:
            if not hasattr(found, part):
                names = [public for public in dir(found) if not public.startswith("_")]
                raise ConfigError(f"type={name!r}: {where} has no {part!r}, {closest(part, names)}")
            found = getattr(found, part)
            where = f"{where}.{part}"
        return found
    raise ConfigError(f"type={name!r}: there is no module {parts[0]!r}; is its package installed in this environment?")


def _check_arguments(target: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # some builtins publish none
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        title = getattr(target, "__qualname__", repr(target))
        parameters = [p for p in signature.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        by_keyword = [p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY]
        takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
        unexpected = [] if takes_any else [name for name in arguments if name not in by_keyword]
        missing = [p.name for p in parameters if p.default is p.empty and p.name not in arguments]
        problems = [f"takes no argument {name!r} ({closest(name, by_keyword)})" for name in unexpected]
        problems += [f"needs the argument {name!r}" for name in missing]
        reason = " and ".join(problems) or str(error)
        raise ConfigError(f"{title} {reason}; its signature is {title}{_shown(signature)}") from error


def _shown(signature: inspect.Signature) -> str:
    """The signature without annotations: names and defaults are what a config needs."""
    empty = inspect.Parameter.empty
    bare = [parameter.replace(annotation=empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
