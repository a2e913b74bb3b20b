"""Read, override and print configs: mmengine's lazy Python configs under stricter rules.

A config is a Python file that assigns values. It may import components (classes and functions, which are not imported
until something is built) and, under ``with read_base():``, the fragments it stands on: one level of them, by relative
or absolute import. Everything else that could make the meaning of a file depend on where it is read is refused with the
line at fault. Names that start with an underscore are the file's own and do not enter the result.
"""

from __future__ import annotations

import ast
import copy
import keyword
import math
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.config.lazy import LazyAttr, LazyObject

from limbeck_core.build import resolve_type
from limbeck_core.configs import find, head_comment, module_folder
from limbeck_core.errors import ConfigError, closest

DATA_ROOT_VARIABLE = "LIMBECK_DATA"
_DATASET_KEYS = ("dataset", "datasets")
_RESERVED = ("filename", "text", "pretty_text", "env_variables")  # attributes of mmengine's Config
_WIDTH = 110


def load_config(
    config: str | Path,
    *,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    data_root: str | Path | None = None,
) -> Config:
    """Read a config with its bases, apply overrides, and point its data sets at the data.

    Args:
        config: A path, or the name of an installed config.
        overrides: ``key=value`` strings as on the command line (see :func:`parse_override`), or a mapping from dotted
            key to value. A key must exist; one that starts with ``+`` must not, and is added. Integers index lists.
        data_root: Folder that holds the data sets. Default: the environment variable ``LIMBECK_DATA``. Every relative
            ``root`` inside a ``dataset`` (or ``datasets``) of the config is joined to it; an absolute one stays.
            Without either, a relative ``root`` is relative to the working directory.

    Returns:
        mmengine's ``Config``, whose ``type`` entries are imported when they are read.

    Raises:
        ConfigError: if the file is missing, breaks a rule of this module, or fails to run; if an override does not fit;
            if ``data_root`` is given and no data set has a ``root``.
    """
    path = find(config).resolve()
    values = read(path)
    pairs = list(overrides.items()) if isinstance(overrides, Mapping) else [parse_override(text) for text in overrides]
    for key, value in pairs:
        values = apply_override(values, key, value)
    variable = os.environ.get(DATA_ROOT_VARIABLE)
    root = data_root if data_root is not None else variable
    if root:
        values, changed = _with_data_root(values, Path(root).expanduser(), inside=False)
        if not changed and data_root is not None:
            raise ConfigError(
                f"--data-root {data_root} has no effect: no dataset of {config} has a relative 'root' (a data set that "
                "comes with a package needs none)"
            )
    return Config(ConfigDict(values), filename=str(path))


# ---------------------------------------------------------------------- reading


@dataclass
class _Namespace:
    """What a file defines: its values, and the components it imports, which bases hand on but no config contains."""

    values: dict[str, Any] = field(default_factory=dict)
    components: dict[str, Any] = field(default_factory=dict)


def read(path: Path) -> dict[str, Any]:
    """Read one config file with its bases, as plain dictionaries and lists with placeholders for imported components.

    Raises:
        ConfigError: naming file and line.
    """
    return _read(path, base_of=None).values


def _read(path: Path, base_of: Path | None) -> _Namespace:
    tree = _parse(path)
    names: dict[str, Any] = {}
    found = _Namespace()
    body: list[ast.stmt] = []
    for index, node in enumerate(tree.body):
        is_import = isinstance(node, (ast.Import, ast.ImportFrom, ast.With))
        if is_import and body:
            raise _error(path, node, "imports and read_base stand at the top of a config, before any value")
        if isinstance(node, ast.With):
            if base_of is not None:
                raise _error(
                    path,
                    node,
                    f"a base may not have bases of its own (it is one of {base_of}): one level is the limit, so that "
                    "two files say what runs; name both bases in the config",
                )
            for inner in _base_imports(path, node):
                _import_base(path, inner, names, found)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            components = _components(path, node)
            names.update(components)
            found.components.update(components)
        elif not (index == 0 and isinstance(node, ast.Expr)):  # a docstring
            _refuse_beyond_values(path, node)
            body.append(node)
    tree.body = body
    _execute(path, tree, names)
    for name, value in names.items():
        if name.startswith("_") or found.components.get(name) is value:
            continue
        if name in _RESERVED:
            raise ConfigError(f"{path} assigns {name!r}, a name that mmengine keeps for itself: choose another")
        found.values[name] = _plain(value)
    return found


def _parse(path: Path) -> ast.Module:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a Python file ({error})") from error
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise ConfigError(f"{path}, line {error.lineno}: {error.msg}: {(error.text or '').strip()}") from error


def _error(path: Path, node: ast.AST, sentence: str) -> ConfigError:
    return ConfigError(f"{path}, line {getattr(node, 'lineno', '?')}: {sentence}")


def _base_imports(path: Path, node: ast.With) -> list[ast.ImportFrom]:
    call = node.items[0].context_expr
    is_read_base = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "read_base"
    if len(node.items) != 1 or not is_read_base:
        raise _error(path, node, "the only 'with' of a config is 'with read_base():'")
    imports = []
    for inner in node.body:
        if not isinstance(inner, ast.ImportFrom) or inner.module is None:
            raise _error(path, inner, "read_base holds imports such as 'from .._base_.cifar100 import *', nothing else")
        imports.append(inner)
    return imports


def _import_base(path: Path, node: ast.ImportFrom, names: dict[str, Any], found: _Namespace) -> None:
    base = _read(_base_path(path, node), base_of=path)
    with _lazy():
        values = {**base.components, **{name: _config_dict(value) for name, value in base.values.items()}}
    for alias in node.names:
        if alias.name == "*":
            names.update(values)
            found.components.update(base.components)
        elif alias.name in values:
            name = alias.asname or alias.name
            names[name] = values[alias.name]
            if alias.name in base.components:
                found.components[name] = values[alias.name]
        else:
            raise _error(path, node, f"the base {node.module} assigns no {alias.name!r}, {closest(alias.name, values)}")


def _base_path(path: Path, node: ast.ImportFrom) -> Path:
    module = node.module or ""
    if node.level:
        folder: Path | None = path.parent
        for _ in range(node.level - 1):
            folder = folder.parent if folder is not None else None
        *inner, name = module.split(".")
        folder = folder.joinpath(*inner) if folder is not None else None
    else:
        package, _, name = module.rpartition(".")
        folder = module_folder(package) if package else None
        if folder is None:
            raise _error(
                path, node, f"the base {module} is in no installed package: is {module.split('.')[0]} installed?"
            )
    if folder is None or not (file := folder / f"{name}.py").is_file():
        known = sorted(p.stem for p in folder.glob("*.py") if p.stem != "__init__") if folder is not None else []
        raise _error(path, node, f"there is no base {name}.py in {folder}: {closest(name, known)}")
    return file


def _components(path: Path, node: ast.Import | ast.ImportFrom) -> dict[str, Any]:
    """Return a placeholder for every name that the statement imports."""
    where = f"{path}, line {node.lineno}"
    if isinstance(node, ast.Import):
        placeholders: dict[str, Any] = {}
        for alias in node.names:
            _refuse_stdlib(path, node, alias.name)
            top = alias.name.split(".")[0]
            modules = alias.name if alias.asname else [alias.name]
            placeholders[alias.asname or top] = LazyObject(modules, location=where)
        return placeholders
    module = node.module or ""
    if node.level:
        raise _error(
            path,
            node,
            "components are imported by their absolute name; relative imports are for bases, under read_base",
        )
    if any(alias.name == "*" for alias in node.names):
        raise _error(path, node, "'import *' is for bases, under read_base: name the components")
    if module == "mmengine.config" and all(alias.name == "read_base" for alias in node.names):
        return {}
    _refuse_stdlib(path, node, module)
    return {alias.asname or alias.name: LazyObject(module, alias.name, where) for alias in node.names}


def _refuse_stdlib(path: Path, node: ast.AST, module: str) -> None:
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise _error(
            path,
            node,
            f"a config imports components and read_base, not {module!r} of the standard library, which mmengine takes "
            "for a component or not depending on where Python is installed: write the value itself",
        )


def _refuse_beyond_values(path: Path, node: ast.stmt) -> None:
    for inner in ast.walk(node):
        if isinstance(inner, (ast.Import, ast.ImportFrom)):
            raise _error(path, inner, "imports stand at the top of a config, not inside other statements")
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            raise _error(
                path, inner, "a config holds values: define functions and classes in a module and import them from it"
            )
        if isinstance(inner, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "_base_" for t in inner.targets):
            raise _error(path, inner, "bases are imported: with read_base(): from .._base_.cifar100 import *")


def _execute(path: Path, tree: ast.Module, names: dict[str, Any]) -> None:
    scope = {"__file__": str(path), "__builtins__": __builtins__, **names}
    with _lazy():
        try:
            exec(compile(tree, str(path), "exec"), scope)  # noqa: S102  a config is Python that its user runs
        except Exception as error:
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
            line = frames[-1].lineno if frames else "?"
            if isinstance(error, RuntimeError) and not error.args:  # what a placeholder raises when it is called
                sentence = "an imported component is called: describe it with dict(type=..., ...) and let it be built"
            else:
                sentence = f"{type(error).__name__}: {error}"
            raise ConfigError(f"{path}, line {line}: {sentence}") from error
    names.clear()
    names.update(scope)


@contextmanager
def _lazy() -> Iterator[None]:
    """Within, mmengine's dictionaries hand out placeholders instead of importing what they stand for."""
    before = ConfigDict.lazy
    ConfigDict.lazy = True
    try:
        yield
    finally:
        ConfigDict.lazy = before


def _plain(value: Any) -> Any:
    """Deep copy with plain dictionaries; placeholders stay."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in dict.items(value)}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    return copy.deepcopy(value)


def _config_dict(value: Any) -> Any:
    """What a config sees of its base: dictionaries with ``update`` that merges, and attributes."""
    return ConfigDict({"value": value})["value"]


# ---------------------------------------------------------------------- overriding


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``key=value`` and read the value as a Python literal.

    ``true`` and ``false`` are booleans too; what is no literal is a string as it stands, unless it starts like a list,
    a tuple, a dictionary or a quoted string. Nothing is evaluated.

    Raises:
        ConfigError: if there is no ``=``, or a bracket or quote is opened that does not make a literal.

    >>> parse_override("optim_wrapper.optimizer.lr=1e-3")
    ('optim_wrapper.optimizer.lr', 0.001)
    >>> parse_override("model.teacher.checkpoint=work/teacher.pth")
    ('model.teacher.checkpoint', 'work/teacher.pth')
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--cfg-options takes key=value, got {text!r}")
    value = value.strip()
    if value.lower() in ("true", "false"):
        return key.strip(), value.lower() == "true"
    try:
        return key.strip(), ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        if value[:1] in tuple("[({'\""):
            raise ConfigError(
                f"--cfg-options {key}={value}: the value is no Python literal; quote strings inside brackets, and the "
                "whole option for the shell"
            ) from error
        return key.strip(), value


def apply_override(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return a copy of ``values`` in which one dotted key has another value.

    Args:
        values: Plain dictionaries and lists.
        key: Dotted key; integers index lists and tuples. With a leading ``+`` it is added, with its parents.
        value: The new value. For a key called ``type``, a dotted string names the class or function.

    Raises:
        ConfigError: if the key does not exist (with ``+``: if it does), or text would replace a number.
    """
    adds = key.startswith("+")
    parts = key.lstrip("+").split(".")
    if not all(parts) or not (parts[0].isidentifier() and not parts[0].startswith("_")):
        raise ConfigError(f"{key!r} is no dotted key such as model.student.num_classes")
    if parts[-1] == "type" and isinstance(value, str) and "." in value:
        resolve_type(value)
        module, _, name = value.rpartition(".")
        if module.split(".")[0] not in sys.stdlib_module_names:
            value = LazyObject(module, name, f"the override of {key}")
    changed = _set(values, parts, value, adds=adds, key=key, values=values)
    return dict(changed)


def _set(
    node: Any, parts: list[str], value: Any, *, adds: bool, key: str, values: dict[str, Any], depth: int = 0
) -> Any:
    part, last = parts[depth], depth == len(parts) - 1
    index: Any = part
    if isinstance(node, (list, tuple)):
        items: Any = list(node)
        fits = part.isdigit() and int(part) <= len(items)
        index = int(part) if fits else part
        exists = fits and int(part) < len(items)
        known = [str(i) for i in range(len(items))]
    elif isinstance(node, dict):
        items, exists, known, fits = dict(node), part in node, [str(name) for name in node], True
    else:
        where = ".".join(parts[:depth])
        raise ConfigError(f"override {key!r}: {where} is {node!r}, which has nothing inside; replace {where} itself")
    if not exists and not (adds and fits):
        raise ConfigError(_unknown(part, parts[:depth], known, key, values))
    if last:
        if exists and adds:
            raise ConfigError(f"override {key!r}: the key exists already ({_short(items[index])}); leave out the +")
        if exists and isinstance(value, str) and isinstance(items[index], (int, float)):
            raise ConfigError(f"override {key!r}: expected a value like {items[index]!r}, got the text {value!r}")
        new = value
    else:
        child = items[index] if exists else {}
        new = _set(child, parts, value, adds=adds, key=key, values=values, depth=depth + 1)
    if isinstance(items, list) and index == len(items):
        items.append(new)
    else:
        items[index] = new
    return tuple(items) if isinstance(node, tuple) else items


def _unknown(part: str, parents: list[str], known: list[str], key: str, values: dict[str, Any]) -> str:
    where = ".".join(parents) or "the config"
    last = key.rsplit(".", maxsplit=1)[-1].lstrip("+")
    elsewhere = [path for path in _paths(values) if path.rsplit(".", maxsplit=1)[-1] == last][:3]
    advice = f"{last!r} is at {', '.join(elsewhere)}" if elsewhere else closest(part, known)
    return f"override {key!r}: {where} has no {part!r}, {advice}; a leading + would add a new key"


def _paths(node: Any, prefix: str = "") -> Iterator[str]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for name, child in children:
        yield f"{prefix}{name}"
        yield from _paths(child, f"{prefix}{name}.")


def _short(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _with_data_root(node: Any, root: Path, *, inside: bool) -> tuple[Any, int]:
    """Join every relative ``root`` inside a data set to the data root; return the copy and how many there were."""
    if isinstance(node, dict):
        changed, result = 0, {}
        for name, child in node.items():
            if inside and name == "root" and isinstance(child, str) and not Path(child).is_absolute():
                result[name], count = str(root / child), 1
            else:
                result[name], count = _with_data_root(child, root, inside=inside or name in _DATASET_KEYS)
            changed += count
        return result, changed
    if isinstance(node, (list, tuple)):
        pairs = [_with_data_root(child, root, inside=inside) for child in node]
        return type(node)(item for item, _ in pairs), sum(count for _, count in pairs)
    return node, 0


# ---------------------------------------------------------------------- printing


def dump_config(config: Config | Mapping[str, Any]) -> str:
    """Return a config as Python text without bases, which :func:`load_config` reads back to the same meaning.

    Args:
        config: What :func:`load_config` returned, or a mapping. The head comment of its file stays at the top.

    Raises:
        ConfigError: if a value cannot be written as Python (an object built already, a lambda), naming its key. A path
            is written as text.
    """
    source: Any = config
    is_config = isinstance(config, Config)
    values: dict[str, Any] = source._to_lazy_dict() if is_config else _plain(dict(source))
    writer = _Writer(taken={*values, "dict", "float", "set", "frozenset"})
    body = [f"{name} = {writer.write(value, name, column=len(name) + 3)}" for name, value in values.items()]
    head = head_comment(source.text or "") if is_config else []
    blocks = ["\n".join(head), "\n".join(writer.import_lines()), "\n".join(body)]
    return "\n\n".join(block for block in blocks if block) + "\n"


class _Writer:
    """Writes values as Python expressions and collects the imports they need."""

    def __init__(self, taken: set[str]) -> None:
        self.taken = taken
        self.names: dict[tuple[str, str], str] = {}

    def import_lines(self) -> list[str]:
        lines: dict[str, list[str]] = {}
        for (module, name), alias in sorted(self.names.items()):
            lines.setdefault(module, []).append(name if alias == name else f"{name} as {alias}")
        return [f"from {module} import {', '.join(names)}" for module, names in lines.items()]

    def write(self, value: Any, key: str, *, indent: int = 0, column: int = 0) -> str:
        if isinstance(value, dict):
            return self._mapping(value, key, indent, column)
        if type(value) in (list, tuple, set, frozenset):
            return self._sequence(value, key, indent, column)
        if isinstance(value, float) and not math.isfinite(value):
            return f'float("{value}")'
        if value is None or type(value) in (bool, int, float, str, bytes, complex):
            return repr(value)
        if isinstance(value, Path):
            return repr(str(value))
        module, path = _import_path(value, key)
        return self._reference(module, path)

    def _reference(self, module: str, path: list[str]) -> str:
        head = (module, path[0])
        if head not in self.names:
            alias = path[0]
            while alias in self.taken or keyword.iskeyword(alias):
                alias += "_"
            self.taken.add(alias)
            self.names[head] = alias
        return ".".join([self.names[head], *path[1:]])

    def _mapping(self, value: dict[Any, Any], key: str, indent: int, column: int) -> str:
        plain = all(isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name) for name in value)
        opening, closing, joint = ("dict(", ")", "=") if plain else ("{", "}", ": ")
        labels = [f"{name if plain else repr(name)}{joint}" for name in value]
        children = list(zip(labels, value.values(), [f"{key}.{name}" for name in value], strict=True))
        return self._layout(opening, closing, children, indent, column)

    def _sequence(self, value: Any, key: str, indent: int, column: int) -> str:
        if isinstance(value, (set, frozenset)):
            name = type(value).__name__
            ordered = sorted(value, key=repr)
            return f"{name}({self._sequence(ordered, key, indent, column + len(name) + 1)})"
        opening, closing = ("[", "]") if isinstance(value, list) else ("(", ")")
        children = [("", item, f"{key}.{index}") for index, item in enumerate(value)]
        if isinstance(value, tuple) and len(value) == 1:
            closing = ",)"
        return self._layout(opening, closing, children, indent, column)

    def _layout(
        self, opening: str, closing: str, children: list[tuple[str, Any, str]], indent: int, column: int
    ) -> str:
        """One line if it fits, otherwise one child a line."""
        flat = ", ".join(label + self.write(item, key, column=-10_000) for label, item, key in children)
        if "\n" not in flat and column + len(opening) + len(flat) + len(closing) <= _WIDTH:
            return opening + flat + closing
        inner = indent + 4
        lines = [
            f"{' ' * inner}{label}{self.write(item, key, indent=inner, column=inner + len(label) + 1)},"
            for label, item, key in children
        ]
        return "\n".join([opening, *lines, " " * indent + closing.lstrip(",")])


def _import_path(value: Any, key: str) -> tuple[str, list[str]]:
    """Return the module and the names inside it by which ``value`` can be imported."""
    names: list[str] = []
    while isinstance(value, LazyAttr):
        names.insert(0, value.name)
        value = value.source
    if isinstance(value, LazyObject):
        modules, imported = value._module, value._imported
        if imported is not None:
            return modules, [imported, *names]
        if names:
            return _longest_module(modules, names)
        raise ConfigError(f"{key} is the module {value.module}, which a config cannot hold: name something inside it")
    if str(value).startswith("torch."):  # dtypes, layouts and memory formats
        return "torch", [str(value).removeprefix("torch.")]
    module, qualified = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not module or not qualified or "<" in qualified or module == "__main__":
        raise ConfigError(
            f"{key} is {_short(value)}, which cannot be written as Python: give a class or function that can be "
            "imported, or describe it with dict(type=..., ...)"
        )
    return module, qualified.split(".")


def _longest_module(modules: str | list[str], names: list[str]) -> tuple[str, list[str]]:
    """Split ``import a.b`` used as ``a.b.C`` into the module ``a.b`` and the name ``C``."""
    if isinstance(modules, str):
        return modules, names
    top = modules[0].split(".")[0]
    for count in range(len(names) - 1, 0, -1):
        module = ".".join([top, *names[:count]])
        if module in modules:
            return module, names[count:]
    return top, names
