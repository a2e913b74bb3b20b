"""Show docstrings on the documentation site: Sphinx roles become code, formulas become blocks.

The docstrings use roles (``:func:`name```) because editors and ``help()`` readers know them; mkdocs would print them as
they are. Loaded by mkdocstrings, see ``mkdocs.yml``.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

from griffe import Docstring, Extension, Object

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc|obj):`(?P<short>~?)(?P<name>[^`]+)`")
_INLINE_MATH = re.compile(r":math:`([^`]+)`")
_MATH = re.compile(
    r"^(?P<indent>[ ]*)\.\. math::[ ]?(?P<first>[^\n]*)\n(?P<rest>(?:(?P=indent)[ ]+[^\n]*\n|\n)*)", re.MULTILINE
)
_DOCTEST = re.compile(r"^(?P<indent>[ ]*)>>>[^\n]*\n(?:[ ]*\S[^\n]*\n)*", re.MULTILINE)


def readable(text: str) -> str:
    """Return a docstring without roles and directives."""
    text = _ROLE.sub(lambda m: f"`{m['name'].rpartition('.')[2] if m['short'] else m['name']}`", text)
    text = _INLINE_MATH.sub(r"`\1`", text)
    text = _MATH.sub(_block, text.replace("``", "`") + "\n")
    return _DOCTEST.sub(_session, text).rstrip()


def _session(match: re.Match[str]) -> str:
    return textwrap.indent(f"```pycon\n{textwrap.dedent(match[0])}```\n", match["indent"])


def _block(match: re.Match[str]) -> str:
    formula = "\n".join(filter(str.strip, [match["first"], *textwrap.dedent(match["rest"]).splitlines()]))
    return textwrap.indent(f"```latex\n{formula}\n```\n\n", match["indent"])


class ReadableDocstrings(Extension):
    """Rewrite every docstring as it is loaded."""

    def on_instance(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object."""
        if isinstance(obj.docstring, Docstring):
            obj.docstring.value = readable(obj.docstring.value)
