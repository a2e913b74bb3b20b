"""What must not be found in the sources, however it got there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from source_tree import PACKAGES, PROJECTS, ROOT, Module, modules

MODULES = modules()
TEXT = {".py", ".md", ".yml", ".yaml", ".toml", ".cfg", ".cff", ".sh", ".txt", ".json", ""}
OWN = Path(__file__)

# Spelt in parts, so that this file can be searched as well.
FORBIDDEN = {
    "a path of somebody's machine": re.compile("/ho" + r"me/\w|/ro" + r"ot/|/Us" + r"ers/\w"),
    "a note to do something later": re.compile(r"\b(TO" + "DO|FIX" + "ME|XX" + r"X|HA" + r"CK)\b"),
    "a key or token": re.compile(r"\b(gh[pousr]_\w{30,}|AKIA\w{16}|hf_\w{30,}|sk-\w{30,})"),
}
NO_DRAWERS = {"utils", "util", "misc", "common", "helpers", "helper", "tools"}


def texts() -> Iterator[tuple[Path, str]]:
    """Every text file that is written by hand."""
    folders = [*PROJECTS, ROOT / "tests", ROOT / "tools", ROOT / "docs", ROOT / ".ci"]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.is_file()]
    for path in sorted(files):
        if path.suffix in TEXT and not {"__pycache__", "dist", "build"} & set(path.parts):
            yield path, path.read_text(encoding="utf-8")


def places(kind: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if FORBIDDEN[kind].search(line)
    ]


def found(fits: type[ast.AST] | tuple[type[ast.AST], ...]) -> Iterator[tuple[Module, ast.AST]]:
    for module in MODULES.values():
        for node in ast.walk(module.tree):
            if isinstance(node, fits):
                yield module, node


def at(module: Module, node: ast.AST) -> str:
    return f"{module.path.relative_to(ROOT)}:{getattr(node, 'lineno', '?')}"


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_text(kind: str) -> None:
    assert places(kind) == []


def test_there_is_text_to_look_through() -> None:
    seen = {path for path, _ in texts()}
    assert OWN in seen
    assert len(seen) > len(MODULES) > 20


def test_no_assert_in_packages() -> None:
    """An assertion vanishes under python -O and says nothing to a user."""
    assert [at(module, node) for module, node in found(ast.Assert)] == []


def test_no_star_import_outside_read_base() -> None:
    within_read_base = {
        inner
        for module, node in found(ast.With)
        if module.is_config
        for inner in ast.walk(node)
        if isinstance(inner, ast.ImportFrom)
    }
    stars = [
        at(module, node)
        for module, node in found(ast.ImportFrom)
        if isinstance(node, ast.ImportFrom) and node not in within_read_base
        if any(alias.name == "*" for alias in node.names)
    ]
    assert stars == []


def test_no_device_by_name() -> None:
    """``tensor.cuda()`` breaks on every machine without one: ``to(device)`` follows the model."""
    calls = [
        at(module, node)
        for module, node in found(ast.Call)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cuda"
    ]
    assert calls == []


def test_no_file_is_read_with_pickles_allowed() -> None:
    switched_off = [
        at(module, node)
        for module, node in found(ast.keyword)
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant)
        if (node.arg, node.value.value) in {("weights_only", False), ("allow_pickle", True)}
    ]
    assert switched_off == []
    loads = [
        at(module, node)
        for module, node in found(ast.Call)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
        if "weights_only" not in {keyword.arg for keyword in node.keywords}
    ]
    assert loads == []


def test_no_drawer_for_everything() -> None:
    names = {
        path.stem.strip("_") for package in PACKAGES.values() for path in package.rglob("*") if path.suffix != ".pyc"
    }
    assert names & NO_DRAWERS == set()


def test_every_package_is_typed_and_licensed() -> None:
    for project in PROJECTS:
        text = (project / "pyproject.toml").read_text(encoding="utf-8")
        assert 'license = "Apache-2.0"' in text
        assert 'requires-python = ">=3.10"' in text
    for package in PACKAGES.values():
        assert (package / "py.typed").is_file(), package.name
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
