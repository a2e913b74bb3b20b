"""What the quickstarts of all domains share: their command line, their folder, their table."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from limbeck_core.errors import LimbeckError

MARKER = ".limbeck-quickstart"  # says that a folder was made here and may be written again
Work = Callable[[argparse.Namespace], Path | None]


def command(
    name: str,
    description: str,
    work: Work,
    arguments: Sequence[str] | None = None,
    *,
    options: Callable[[argparse.ArgumentParser], object] = lambda parser: None,
    threads: int = 1,
) -> int:
    """Parse a quickstart's command line, take its folder, do its work, and say where the report stands.

    Every quickstart has ``--out``, ``--seeds`` (with ``--smoke``: 1) and ``--smoke``.

    Args:
        name: Of the command; runs stand in ``work_dirs/<name>`` by default.
        description: One line for ``--help``.
        work: Called with the options; returns the page, or ``None`` if it wrote none.
        arguments: Words of the command line; those of the process by default.
        options: Adds options of this quickstart alone to the parser.
        threads: Threads that PyTorch gets: the models are tiny, and more cost more than they bring on a busy machine.

    Returns:
        The exit status: 0, 2 after an error, 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(prog=name, description=description)
    parser.add_argument("--out", type=Path, default=Path("work_dirs") / name, help="folder of data, runs and report")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each kind (default: 3)")
    parser.add_argument("--smoke", action="store_true", help="one short run of each kind: does everything run")
    options(parser)
    chosen = parser.parse_args(arguments)
    if chosen.seeds < 1:
        parser.error(f"--seeds must be 1 or more, got {chosen.seeds}")
    if chosen.smoke:
        chosen.seeds = 1
    started = time.perf_counter()
    try:
        claim(chosen.out)
        with at_most(threads):
            page = work(chosen)
    except LimbeckError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    if page is not None:
        seconds = time.perf_counter() - started
        print(f"\nreport: {page} (opens offline; pictures stand beside it), {seconds:.0f} s in all")
    return 0


@contextmanager
def at_most(threads: int) -> Iterator[None]:
    """Context in which PyTorch uses at most so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(threads, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def claim(out: Path) -> None:
    """Make the folder of runs and report, or take one that an earlier quickstart wrote.

    Raises:
        LimbeckError: if it holds something that no quickstart wrote, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise LimbeckError(f"{out} is a file, and the runs need a folder: choose another one with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise LimbeckError(f"{out} holds something that no quickstart wrote: choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).write_text("written by limbeck's quickstart\n", encoding="utf-8")


def text_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table as text: columns as wide as they need, cells to the right."""
    cells = [[str(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
