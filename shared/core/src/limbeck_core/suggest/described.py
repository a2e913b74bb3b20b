"""Reading what the user names: a model as a dotted function with plain arguments, or a config's student or teacher."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmengine.config.lazy import LazyObject

from limbeck_core.build import resolve_type
from limbeck_core.configs import find
from limbeck_core.engine.config import load_config, read
from limbeck_core.errors import ConfigError
from limbeck_core.teacher import pretrained

Role = Literal["student", "teacher"]
_DOWNLOADING = ("pretrained", "weights")  # arguments by which model libraries fetch files
_EXAMPLE = "package.function, 'package.function(\"text\", number=10)', or a config"


@dataclass(frozen=True)
class Described:
    """A model that is described and not built yet.

    Args:
        title: How to call it.
        config: What builds it, ``dict(type=..., ...)``.
        written: The same as it goes into a config: for a teacher that a config names, with its checkpoint.
        origin: The config that it comes from, if any.
        settings: That config as it is read, with placeholders for components; empty without one.
    """

    title: str
    config: Mapping[str, Any]
    written: Mapping[str, Any]
    origin: str | None
    settings: Mapping[str, Any]


def describe(text: str, role: Role) -> Described:
    """Read what the command line says of a model; nothing of it is evaluated.

    Args:
        text: A dotted function, such a function called with plain arguments (numbers, strings, lists, ...), or a
            config: its student; for a teacher, its teacher, or its student where it has none.
        role: Which of the two it is.

    Raises:
        ConfigError: if it is none of these, or the function does not take the arguments.
    """
    is_name = "(" not in text and ("/" in text or text.endswith(".py"))
    return _from_config(text, role) if is_name or Path(text).is_file() else _from_call(text, role)


def _from_call(text: str, role: Role) -> Described:
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{role} {text!r} cannot be read ({error}): expected {_EXAMPLE}") from error
    call = node if isinstance(node, ast.Call) else None
    name = _dotted_name(call.func if call is not None else node)
    if name is None:
        raise ConfigError(f"{role} {text!r} names no function: expected {_EXAMPLE}")
    if name.partition(".")[0] in sys.stdlib_module_names:
        raise ConfigError(f"{role} {text!r} is a function of Python itself, which makes no model: expected {_EXAMPLE}")
    try:
        positional = [ast.literal_eval(argument) for argument in (call.args if call is not None else ())]
        named = {str(k.arg): ast.literal_eval(k.value) for k in (call.keywords if call is not None else ()) if k.arg}
    except (ValueError, TypeError, SyntaxError) as error:
        raise ConfigError(
            f"{role} {text!r}: arguments are plain values (numbers, strings, None, lists, dictionaries of them), since "
            "nothing here is evaluated: write a function of your own for anything else"
        ) from error
    if call is not None and any(keyword.arg is None for keyword in call.keywords):
        raise ConfigError(f"{role} {text!r}: write the arguments one by one instead of **")
    function = resolve_type(name)
    arguments = _by_name(function, name, positional, named)
    for argument in _DOWNLOADING:
        if arguments.get(argument):
            raise ConfigError(
                f"{role} {text!r}: {argument} would download a file, and nothing is downloaded here; leave it out, and "
                "name the file in the config's checkpoint"
            )
    written = {"type": _placeholder(name, function), **arguments}
    config = {"type": function, **arguments}
    return Described(_title(config), config, written, None, {})


def _title(config: Mapping[str, Any]) -> str:
    """Name of the function that makes a model; of one that makes many, the name that it is given."""
    made = getattr(resolve_type(config["type"]), "__name__", str(config["type"])) if "type" in config else "model"
    given = next((value for key, value in config.items() if key != "type" and isinstance(value, str)), None)
    return given if given is not None and made.endswith("_model") else made


def _dotted_name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _dotted_name(node.value)
        return None if before is None else f"{before}.{node.attr}"
    return None


def _by_name(function: Any, name: str, positional: list[Any], named: dict[str, Any]) -> dict[str, Any]:
    """Name every argument, as configs do."""
    if not positional:
        return named
    try:
        signature = inspect.signature(function)
        bound = signature.bind_partial(*positional, **named)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} does not take these arguments ({error}): give them by name") from error
    arguments: dict[str, Any] = {}
    for argument, value in bound.arguments.items():
        kind = signature.parameters[argument].kind
        if kind is inspect.Parameter.VAR_POSITIONAL or kind is inspect.Parameter.POSITIONAL_ONLY:
            raise ConfigError(
                f"{name} takes {argument!r} by position only, which a config cannot say: write a function of your own "
                "with named arguments"
            )
        arguments.update(value if kind is inspect.Parameter.VAR_KEYWORD else {argument: value})
    return arguments


def _placeholder(name: str, target: Any) -> Any:
    """The import that a config makes of a dotted name; the name itself where it reaches into a class."""
    module, _, last = name.rpartition(".")
    imported = sys.modules.get(module)
    return LazyObject(module, last, "suggest") if getattr(imported, last, None) is target else name


def _from_config(text: str, role: Role) -> Described:
    values = read(find(text).resolve())
    built: Any = load_config(text).get("model") or {}
    model: Any = values.get("model") or {}
    section = "teacher" if role == "teacher" and model.get("teacher") is not None else "student"
    if section not in model or not isinstance(model[section], Mapping):
        raise ConfigError(f"{text} has no model.{section} to take: name a config of a Distiller, or a function")
    if section == "teacher" and "type" not in model[section]:
        raise ConfigError(
            f"{text} has several teachers ({', '.join(model[section])}): name one of them as a function with arguments"
        )
    if section == "student":
        return Described(_title(built["student"]), built["student"], model["student"], text, values)
    kind = resolve_type(built["teacher"]["type"])
    if getattr(kind, "needs_student", False):
        raise ConfigError(
            f"the teacher of {text} is a {kind.__name__}, which follows its student: there is no pair to suggest for"
        )
    config = built["teacher"]["model"] if kind is pretrained else built["teacher"]
    return Described(_title(config), config, model["teacher"], text, values)


__all__ = ["Described", "Role", "describe"]
