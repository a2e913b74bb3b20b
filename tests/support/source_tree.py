"""The sources of the workspace as data: which modules there are, and what each imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECTS = [ROOT / "shared" / "core", *sorted(p.parent for p in (ROOT / "packages").glob("*/pyproject.toml"))]
PACKAGES = {folder.name: folder for project in PROJECTS for folder in (project / "src").iterdir() if folder.is_dir()}


@dataclass
class Module:
    """One source file.

    Args:
        name: Dotted name; a package has the name of its folder.
        path: The file.
        tree: Its syntax tree.
    """

    name: str
    path: Path
    tree: ast.Module = field(repr=False)

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]

    @property
    def is_config(self) -> bool:
        return ".configs." in f"{self.name}." and self.path.name != "__init__.py" and self.package != "limbeck_core"

    def imports(self, known: set[str], *, at_import_time: bool = False) -> Iterator[tuple[str, int]]:
        """Yield (imported module, line). A name that is itself a module of ``known`` counts as that module.

        Args:
            known: Names of all modules of the workspace.
            at_import_time: Leave out what functions import when they are called, and what only type checkers see.
        """
        for node in _import_time(self.tree) if at_import_time else ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                for alias in node.names:
                    inner = f"{base}.{alias.name}"
                    yield (inner if inner in known else base), node.lineno

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        parts = parts if self.path.name == "__init__.py" else parts[:-1]
        parts = parts[: len(parts) - (node.level - 1)]
        return ".".join([*parts, *([node.module] if node.module else [])])


def _import_time(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _import_time(child)


def modules() -> dict[str, Module]:
    """Every source file of every package, by dotted name."""
    found = {}
    for package in PACKAGES.values():
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8")))
    return found
