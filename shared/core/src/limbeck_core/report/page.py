"""A page built from headings, sentences, tables and pictures, written as one file that needs no network."""

from __future__ import annotations

import base64
import math
import re
import statistics
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck_core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #fff; --line: #d0d7de; --band: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9da7b3; --paper: #0d1117; --line: #30363d; --band: #161b22; }
}
body { margin: 0 auto; max-width: 64rem; padding: 2rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; }
h1 { line-height: 1.2; margin: 0 0 .5rem; } h2 { margin: 2.5rem 0 .5rem; } p { max-width: 46rem; }
.lead { font-size: 1.15rem; color: var(--soft); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin: 1rem 0; }
caption, figcaption { text-align: left; color: var(--soft); font-size: .92rem; padding: .4rem 0; }
th, td { padding: .4rem .65rem; font-size: .95rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; } thead th { background: var(--band); }
figure { margin: 1.5rem 0; }
img { width: 42rem; max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); }
code, pre { background: var(--band); border-radius: .3rem; padding: .1rem .3rem; }
pre { padding: .8rem; overflow-x: auto; }
"""


class Report:
    """A page under construction; every method returns the report, so that calls can be chained.

    Args:
        title: Heading of the page.
        lead: What the page says, in one or two sentences.

    Texts are plain: they are escaped, and a piece in backquotes is set as code.
    """

    def __init__(self, title: str, lead: str = "") -> None:
        self.title = title
        self._body: list[str] = []
        self._pictures: dict[str, bytes] = {}
        if lead:
            self._body.append(f'<p class="lead">{_inline(lead)}</p>')

    def heading(self, text: str) -> Report:
        """Begin a section."""
        self._body.append(f"<h2>{_inline(text)}</h2>")
        return self

    def text(self, text: str) -> Report:
        """Add a paragraph."""
        self._body.append(f"<p>{_inline(text)}</p>")
        return self

    def code(self, text: str) -> Report:
        """Add lines as they are, such as commands."""
        self._body.append(f"<pre>{escape(text)}</pre>")
        return self

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> Report:
        """Add a table; the first column names its row.

        Raises:
            ConfigError: if a row has another number of cells than there are columns.
        """
        for row in rows:
            if len(row) != len(columns):
                raise ConfigError(f"a row has {len(row)} cells, the table {len(columns)} columns: {list(row)}")
        head = "".join(f'<th scope="col">{_inline(str(column))}</th>' for column in columns)
        lines = []
        for row in rows:
            cells = "".join(f"<td>{_inline(str(cell))}</td>" for cell in row[1:])
            lines.append(f'<tr><th scope="row">{_inline(str(row[0]))}</th>{cells}</tr>')
        title = f"<caption>{_inline(caption)}</caption>" if caption else ""
        body = "\n".join(lines)
        # a region that scrolls must be reached, and named, without a mouse
        label = escape(caption.replace("`", "") or "table")
        self._body.append(
            f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'
            f"<table>{title}<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
        )
        return self

    def figure(self, name: str, picture: Figure | Path, *, alt: str, caption: str = "") -> Report:
        """Add a picture.

        Args:
            name: File name of the PNG beside the page, without ending; also its anchor.
            picture: A matplotlib figure, or the path of a PNG file.
            alt: What the picture shows, for those who do not see it.
            caption: Text below it.

        Raises:
            ConfigError: if the name is taken or is no plain file name, or the file is no PNG.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name in self._pictures:
            raise ConfigError(f"a picture needs a plain file name of its own, got {name!r}")
        data = picture.read_bytes() if isinstance(picture, Path) else _png(picture)
        if not data.startswith(b"\x89PNG\r\n"):
            raise ConfigError(f"{picture} is not a PNG file: save it as PNG first")
        self._pictures[name] = data
        source = base64.b64encode(data).decode("ascii")
        text = f"<figcaption>{_inline(caption)}</figcaption>" if caption else ""
        self._body.append(
            f'<figure id="{name}"><img alt="{escape(alt)}" src="data:image/png;base64,{source}">{text}</figure>'
        )
        return self

    def html(self) -> str:
        """Return the page."""
        body = "\n".join(self._body)
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n"
            f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{_inline(self.title)}</h1>\n{body}\n</body>\n</html>\n"
        )

    def write(self, folder: Path) -> Path:
        """Write ``report.html`` and one PNG file a picture; return the page's path."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self._pictures.items():
            (folder / f"{name}.png").write_bytes(data)
        path = folder / "report.html"
        path.write_text(self.html(), encoding="utf-8")
        return path


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean and sample standard deviation as text, ``"91.30 ± 0.42"``; one value stands alone.

    Raises:
        ConfigError: if there is no value.

    >>> spread([90.0, 91.0, 92.0])
    '91.00 ± 1.00'
    """
    if not values:
        raise ConfigError("spread needs at least one value")
    mean = statistics.fmean(values)
    if len(values) == 1 or not all(map(math.isfinite, values)):
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()
