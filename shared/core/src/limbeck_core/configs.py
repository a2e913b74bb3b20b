"""Find the configs that installed packages carry, by name, without importing those packages.

A package announces its folder of configs with an entry point of the group ``limbeck.configs`` (``vision =
"limbeck_vision.configs"``); a config is then called ``vision/`` and its path inside that folder without ``.py``. Files
and folders whose name starts with an underscore are fragments or private and have no name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from limbeck_core.errors import ConfigError, closest

ENTRY_POINT_GROUP = "limbeck.configs"


@dataclass(frozen=True)
class InstalledConfig:
    """A config that an installed package carries.

    Args:
        name: What users type, for example ``"vision/kd/resnet56_resnet20_cifar100"``.
        path: Its file.
        module: Its dotted module name, which makes relative bases absolute.
    """

    name: str
    path: Path
    module: str

    @cached_property
    def description(self) -> str:
        """First line of the head comment, without the ``#``; empty if there is none."""
        lines = head_comment(self.path.read_text(encoding="utf-8"))
        return lines[0].lstrip("#").strip() if lines else ""


def head_comment(text: str) -> list[str]:
    """Return the comment lines at the top of a file, with their ``#``."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.rstrip())
    return lines


def installed() -> dict[str, InstalledConfig]:
    """Return every installed config by name, sorted.

    Raises:
        ConfigError: if a package announces a folder that does not exist, or two packages announce one name.
    """
    found: dict[str, InstalledConfig] = {}
    for prefix, (module, folder) in sorted(folders().items()):
        for path in _config_files(folder):
            parts = path.relative_to(folder).with_suffix("").parts
            name = "/".join((prefix, *parts))
            found[name] = InstalledConfig(name, path, ".".join((module, *parts)))
    return found


def folders() -> dict[str, tuple[str, Path]]:
    """Return the announced folders: prefix of the names -> (module name, folder).

    Raises:
        ConfigError: as :func:`installed`.
    """
    announced: dict[str, tuple[str, Path]] = {}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        folder = module_folder(entry.value)
        if folder is None:
            raise ConfigError(
                f"the package that announces the configs {entry.name!r} has no folder {entry.value}: reinstall it"
            )
        known = announced.setdefault(entry.name, (entry.value, folder))
        if known[0] != entry.value:
            raise ConfigError(
                f"two packages announce configs called {entry.name!r}, {known[0]} and {entry.value}: uninstall one"
            )
    return announced


def module_folder(module: str) -> Path | None:
    """Return the folder of a dotted package name, or ``None``; nothing is imported, not even its parents."""
    top, *rest = module.split(".")
    spec = find_spec(top)
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(location, *rest)
        if folder.is_dir():
            return folder
    return None


def _config_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*.py")):
        if not any(part.startswith("_") for part in path.relative_to(folder).parts):
            yield path


@dataclass(frozen=True)
class Method:
    """A paper's method, as the ``metafile.yml`` files of a package name it.

    Args:
        name: Name of the entry: the config that runs it.
        title: Title of the paper.
        arxiv: arXiv number, empty if it has none.
    """

    name: str
    title: str
    arxiv: str


def methods() -> list[Method]:
    """Return the entries of every ``metafile.yml`` in the packages that announce configs, sorted by name.

    Raises:
        ConfigError: if such a file is not a list of entries with ``name`` and ``paper``.
    """
    import yaml  # noqa: PLC0415  only this list reads YAML

    roots = {module_folder(module.partition(".")[0]) for module, _ in folders().values()}
    found = []
    for path in sorted(file for root in roots if root is not None for file in root.rglob("metafile.yml")):
        try:
            for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
                paper = entry["paper"]
                found.append(Method(str(entry["name"]), str(paper["title"]), str(paper.get("arxiv") or "")))
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} must be a list of entries with name and paper.title ({error})") from error
    return sorted(found, key=lambda method: method.name)


def find(name: str | Path) -> Path:
    """Return the file of a config.

    Args:
        name: A path to a file, or the name of an installed config.

    Raises:
        ConfigError: if there is neither, with the closest names.
    """
    path = Path(name)
    if path.is_file():
        return path
    configs = installed()
    text = path.as_posix().removesuffix(".py")
    if text in configs:
        return configs[text].path
    if path.is_dir():
        raise ConfigError(f"{name} is a folder: name one config in it")
    advice = closest(text, configs) if configs else "no installed package brings any"
    raise ConfigError(f"there is no config file {name}, and no installed config of that name: {advice}")


def copy(name: str, destination: Path) -> Path:
    """Copy an installed config to where it can be changed; its relative bases become absolute.

    Args:
        name: Name of an installed config.
        destination: A file ending in ``.py`` that does not exist, or an existing folder.

    Returns:
        The file written.

    Raises:
        ConfigError: if the name is unknown, the destination exists, or does not end in ``.py``.
    """
    configs = installed()
    key = name.removesuffix(".py")
    if key not in configs:
        advice = closest(key, configs) if configs else "no installed package brings any"
        raise ConfigError(f"no installed config is called {name!r}: {advice}")
    config = configs[key]
    target = destination / config.path.name if destination.is_dir() else destination
    if target.suffix != ".py":
        raise ConfigError(f"the copy must be a Python file, got {destination}: end the name in .py, or name a folder")
    if target.exists():
        raise ConfigError(f"{target} exists already and is left as it is: choose another name")
    text = absolute_bases(config.path.read_text(encoding="utf-8"), config.module)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return target


def absolute_bases(text: str, module: str) -> str:
    """Rewrite relative imports of a config's text as absolute ones; nothing else changes.

    Args:
        text: Source of the config.
        module: Its dotted module name.
    """
    lines = text.splitlines(keepends=True)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = module.split(".")[: -node.level]
            relative = "." * node.level + (node.module or "")
            absolute = ".".join([*package, *([node.module] if node.module else [])])
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = line[: node.col_offset] + line[node.col_offset :].replace(relative, absolute, 1)
    return "".join(lines)
