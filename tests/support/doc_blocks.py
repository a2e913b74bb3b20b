"""The code in the documentation: find the blocks of a page, and run them as its reader would.

A page's Python blocks run in order in one namespace. A block that cannot run says so in an HTML comment on the line
before it, with the reason: ``<!-- not run: needs two accelerators -->``. A config says ``<!-- config -->``.
"""

from __future__ import annotations

import re
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from source_tree import ROOT

DOCS = ROOT / "docs"
_BLOCK = re.compile(
    r"(?:^[ ]*<!-- (?P<note>[^\n]*?) -->\n)?^(?P<indent>[ ]*)```python[^\n]*\n(?P<code>.*?)^(?P=indent)```",
    flags=re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """One Python block of a page.

    Args:
        page: The page's file.
        line: Number of the block's first line of code in it.
        code: The code, without the page's indentation.
        note: What the comment before it says, or nothing.
    """

    page: Path
    line: int
    code: str
    note: str

    @property
    def runs(self) -> bool:
        """Whether a reader may run it."""
        return not self.note.startswith(("not run: ", "config"))


def pages() -> list[Path]:
    """Every page, in order of name."""
    return sorted(DOCS.rglob("*.md"))


def blocks(page: Path) -> list[Block]:
    """The Python blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        indent = match["indent"]
        code = "".join(line.removeprefix(indent) for line in match["code"].splitlines(keepends=True))
        found.append(Block(page, text.count("\n", 0, match.start("code")) + 1, code, match["note"] or ""))
    return found


def run(page: Path, *, only: slice = slice(None), scope: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run the blocks of a page that run; a traceback names the page and the line in it.

    Args:
        page: The page.
        only: Which of the running blocks.
        scope: Names to begin with.

    Returns:
        The names that the page's code defined.
    """
    # classes look for the module they were defined in
    module = types.ModuleType(f"page_{page.stem}")
    module.__dict__.update(scope or {})
    sys.modules[module.__name__] = module
    for block in [block for block in blocks(page) if block.runs][only]:
        code = "\n" * (block.line - 1) + block.code
        exec(compile(code, str(page), "exec"), module.__dict__)  # noqa: S102  our own text
    return module.__dict__
