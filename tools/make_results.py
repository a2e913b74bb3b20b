"""Write docs/results.md from the metafile.yml files of the packages.

python tools/make_results.py            # write
python tools/make_results.py --check    # exit with 1 if the page is out of date
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
HEAD = """# Results

Made by `python tools/make_results.py` from the `metafile.yml` files beside the configs; do not edit by hand.

"Reported" is what others print; "ours" is what was run here: seeds, machine, date, command. A dash means not yet run.
"""


def main() -> int:
    """Write or check the page; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is out of date")
    check = parser.parse_args().check
    page = render(sorted(ROOT.glob("packages/*/src/**/metafile.yml")))
    if not check:
        PAGE.write_text(page, encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page:
        return 0
    print(f"{PAGE.relative_to(ROOT)} is out of date: run python tools/make_results.py", file=sys.stderr)
    return 1


def render(metafiles: list[Path]) -> str:
    """Return the page for some metafiles."""
    sections = [HEAD]
    for path in metafiles:
        entries: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
        package, folder = path.relative_to(ROOT).parts[1], path.parent.name
        sections.append(f"## {package}: {folder}\n")
        sections.append("| config | paper | reported | ours | seeds | note |\n|---|---|---|---|---|---|")
        sections.extend(_row(entry) for entry in entries)
        sections.append("")
    return "\n".join(sections).rstrip() + "\n"


def _row(entry: dict[str, Any]) -> str:
    paper, ours = entry["paper"], dict(entry["ours"])
    link = f"[{paper['title']}](https://arxiv.org/abs/{paper['arxiv']})" if paper.get("arxiv") else paper["title"]
    seeds, note = ours.pop("seeds", 0), ours.pop("note", "")
    return f"| `{entry['name']}` | {link} | {_figures(entry.get('reported'))} | {_figures(ours)} | {seeds} | {note} |"


def _figures(values: dict[str, Any] | None) -> str:
    shown = [f"{name} {value}" for name, value in (values or {}).items() if value is not None]
    return ", ".join(shown) or "-"


if __name__ == "__main__":
    sys.exit(main())
