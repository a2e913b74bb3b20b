"""What each verb of the command line does with its options: call the engine, print, return the exit status.

Each imports what it needs when it runs, so that listing and conforming stay quick.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from limbeck_core.errors import ConfigError

if TYPE_CHECKING:
    from limbeck_core.engine.tuning import Search


def run_train(options: argparse.Namespace) -> int:
    """``limbeck train``."""
    from limbeck_core.engine.commands import train  # noqa: PLC0415

    train(
        options.config,
        work_dir=options.work_dir,
        resume=options.resume,
        seed=options.seed,
        deterministic=options.deterministic,
        data_root=options.data_root,
        amp=options.amp,
        partial=options.partial,
        bank=options.bank,
        launcher=options.launcher,
        overrides=options.cfg_options,
    )
    return 0


def run_test(options: argparse.Namespace) -> int:
    """``limbeck test``."""
    from limbeck_core.engine.commands import evaluate  # noqa: PLC0415

    metrics = evaluate(
        options.config,
        options.checkpoint,
        work_dir=options.work_dir,
        data_root=options.data_root,
        partial=options.partial,
        launcher=options.launcher,
        overrides=options.cfg_options,
    )
    if os.environ.get("RANK", "0") == "0":
        _print_table(
            (name, f"{value:.4f}" if isinstance(value, float) else str(value)) for name, value in metrics.items()
        )
    return 0


def run_predict(options: argparse.Namespace) -> int:
    """``limbeck predict``."""
    from limbeck_core.engine.commands import predict  # noqa: PLC0415

    predictions = predict(
        options.config, options.checkpoint, options.inputs, partial=options.partial, overrides=options.cfg_options
    )
    for prediction in predictions:
        print(json.dumps(prediction), flush=True)
    return 0


def run_list(options: argparse.Namespace) -> int:
    """``limbeck list``."""
    rows = {"configs": _config_rows, "losses": _loss_rows, "methods": _method_rows}[options.what]()
    if rows:
        _print_table(rows)
    elif options.what == "losses":
        print("limbeck-core brings no losses")
    else:
        print(f"no installed package brings {options.what}: pip install limbeck-vision, or another domain")
    return 0


def _config_rows() -> list[tuple[str, ...]]:
    from limbeck_core.configs import installed  # noqa: PLC0415

    return [(name, config.description) for name, config in installed().items()]


def _loss_rows() -> list[tuple[str, ...]]:
    """Module, function, and what the function's docstring says first."""
    from limbeck_core import functional, losses  # noqa: PLC0415

    functions = {name.replace("_", ""): name for name in functional.__all__ if name.endswith("_loss")}
    rows: list[tuple[str, ...]] = []
    for module in losses.__all__:
        function = functions.get(module.lower(), "")
        described = getattr(functional, function) if function else getattr(losses, module)
        summary = (described.__doc__ or "").strip().partition("\n")[0]
        rows.append((module, function, re.sub(r":\w+:`~?([^`]*)`|``", r"\1", summary)))
    return rows


def _method_rows() -> list[tuple[str, ...]]:
    from limbeck_core.configs import methods  # noqa: PLC0415

    return [(method.name, method.title, f"arXiv:{method.arxiv}" if method.arxiv else "") for method in methods()]


def _print_table(rows: Iterable[tuple[str, ...]]) -> None:
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def run_show(options: argparse.Namespace) -> int:
    """``limbeck show``."""
    from limbeck_core.engine.config import dump_config, load_config  # noqa: PLC0415

    print(dump_config(load_config(options.config, overrides=options.cfg_options, data_root=options.data_root)), end="")
    return 0


def run_copy(options: argparse.Namespace) -> int:
    """``limbeck copy``."""
    from limbeck_core.configs import copy  # noqa: PLC0415

    print(copy(options.config, options.destination))
    return 0


def run_doctor(options: argparse.Namespace) -> int:
    """``limbeck doctor``."""
    from limbeck_core.engine.commands import examine  # noqa: PLC0415

    found = examine(options.config, data_root=options.data_root, overrides=options.cfg_options)
    counts = []
    for level in ("error", "warning", "note"):
        findings = [finding for finding in found.findings if finding.level == level]
        counts.append(f"{len(findings)} {level}{'' if len(findings) == 1 else 's'}")
        for finding in findings:
            print(finding)
    print(f"{options.config}: {', '.join(counts)}; {found.in_words()}")
    return 0 if counts[0].startswith("0 ") else 1


def run_bank(options: argparse.Namespace) -> int:
    """``limbeck bank``."""
    from limbeck_core.bank.command import bank_writer  # noqa: PLC0415
    from limbeck_core.bank.storage import Bank  # noqa: PLC0415
    from limbeck_core.bank.writing import size_text  # noqa: PLC0415

    encodings = {tap: encoding for tap, _, encoding in (text.rpartition("=") for text in options.encoding or ())}
    for_all = encodings.pop("", None)
    writer = bank_writer(
        options.config,
        folder=options.bank,
        views=options.views,
        encoding={**encodings, "*": for_all or "exact"} if encodings else for_all,
        data_root=options.data_root,
        overrides=options.cfg_options,
    )
    lines = writer.plan()
    speaks = os.environ.get("RANK", "0") == "0"
    if options.verify:
        with _progress("verifying") as progress:
            complaints = writer.verify(progress=progress)
        for complaint in complaints:
            print(complaint)
        print(f"{writer.folder}: {len(complaints) or 'nothing'} wrong")
        return 1 if complaints else 0
    if speaks:
        head = ("teacher", "tap", "a sample", "encoding", "bytes", "error")
        rows = [
            (
                line.teacher,
                column.name,
                f"{column.dtype} {list(column.shape)}",
                column.encoding,
                str(line.size),
                line.bound,
            )
            for line, column in ((line, line.column) for line in lines)
        ]
        _print_table([head, *rows])
        first, size = writer.parts[0].manifest, sum(part.manifest.size for part in writer.parts)
        views = f"{first.views} views" if first.views > 1 else "1 view"
        print(f"{first.samples} samples x {views}, {size_text(size)} in {writer.folder}", flush=True)
    with _progress("samples") as progress:
        whole = writer.write(progress)
    if not whole:
        print("every shard that is left is being written by another process")
    elif speaks:
        for part in writer.parts:
            errors = zip(part.manifest.columns, Bank(part.folder).errors(), strict=True)
            worst = [f"{column.name} {largest:.2g}" for column, (largest, _) in errors if largest]
            measured = f"; largest errors: {', '.join(worst)}" if worst else ""
            print(f"{part.folder} is whole{measured}")
    return 0


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the remaining time, in a terminal; nothing elsewhere."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def run_export(options: argparse.Namespace) -> int:
    """``limbeck export``."""
    from limbeck_core.engine.export import export  # noqa: PLC0415

    exported = export(
        options.config,
        options.checkpoint,
        options.format,
        out=options.out,
        input_shape=options.input_shape,
        partial=options.partial,
        data_root=options.data_root,
        overrides=options.cfg_options,
    )
    _print_table(exported.rows())
    return 0


def run_suggest(options: argparse.Namespace) -> int:
    """``limbeck suggest``."""
    from limbeck_core.suggest import suggest  # noqa: PLC0415

    suggestion = suggest(
        options.teacher,
        options.student,
        data=options.data,
        input_shape=options.input_shape,
        data_root=options.data_root,
    )
    if options.out is None:
        print(suggestion.config, end="")
        return 0
    suggestion.write(options.out)
    print("\n".join(suggestion.lines()))
    print(f"{options.out}: limbeck doctor {options.out} looks at it on two batches")
    return 0


def run_tune(options: argparse.Namespace) -> int:
    """``limbeck tune``."""
    from limbeck_core.engine.config import parse_override  # noqa: PLC0415
    from limbeck_core.engine.trial import RATE  # noqa: PLC0415
    from limbeck_core.engine.tuning import tune  # noqa: PLC0415

    grid: dict[str, list[object]] = {RATE: options.rates} if options.rates else {}
    for text in options.grid:
        key, values = parse_override(text)
        grid[key] = list(values) if isinstance(values, (list, tuple)) else [values]
    search = _search(options, seeds=options.seeds, epochs=options.epochs)
    for config in options.configs:
        found = tune(
            config,
            grid,
            search=search,
            data_root=options.data_root,
            overrides=dict(parse_override(text) for text in options.cfg_options),
            **({} if options.work_dir is None else {"work_dir": options.work_dir}),
        )
        print(found.text(), flush=True)
    return 0


def _search(options: argparse.Namespace, **more: Any) -> Search:
    import torch  # noqa: PLC0415

    from limbeck_core.engine.config import parse_override  # noqa: PLC0415
    from limbeck_core.engine.tuning import Search  # noqa: PLC0415

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    return Search(
        held_out=options.held_out,
        metric=options.metric,
        smaller_is_better=options.smaller_is_better,
        clean=dict(parse_override(text) for text in options.clean),
        inside=options.inside,
        teacher=options.teacher,
        **more,
    )


def run_compare(options: argparse.Namespace) -> int:
    """``limbeck compare``."""
    from limbeck_core.engine.compare import Arm, compare  # noqa: PLC0415
    from limbeck_core.engine.config import parse_override  # noqa: PLC0415
    from limbeck_core.report import spread  # noqa: PLC0415

    arms = [Arm(config) for config in options.configs]
    for words in options.arm:
        if len(words) < 2:
            raise ConfigError(f"--arm takes NAME CONFIG [K=V ...], got {' '.join(words)!r}")
        name, config, *values = words
        arms.append(Arm(config, dict(parse_override(text) for text in values), name))
    found = compare(
        arms,
        seeds=options.seeds,
        metric=options.metric,
        smaller_is_better=options.smaller_is_better,
        rates=options.rates,
        search=_search(options, seeds=options.search_seeds),
        variants=options.variants,
        work_dir=options.work_dir,
        data_root=options.data_root,
        overrides=options.cfg_options,
    )
    rows = [("arm", "rate", f"{found.metric}, last", f"{found.metric}, best")]
    for arm in found.contestants:
        best = arm.best(found.metric, not options.smaller_is_better)
        rate = "" if arm.rate is None else f"{arm.rate:g}"
        rows.append((arm.name, rate, spread(arm.last(found.metric)), spread(best) if best else ""))
    _print_table(rows)
    for name, difference in found.differences.items():
        print(f"{name} against {found.contestants[0].name}: {difference.sentence()}")
    print(f"report: {found.page}")
    return 0


def run_report(options: argparse.Namespace) -> int:
    """``limbeck report``."""
    from limbeck_core.report.runs import report_runs  # noqa: PLC0415

    print(report_runs(options.folders, options.out or options.folders[0]))
    return 0


def run_conform(options: argparse.Namespace) -> int:
    """``limbeck conform``."""
    from limbeck_core.conformance import conform  # noqa: PLC0415

    only = [name.strip() for name in options.only.split(",") if name.strip()]
    verdicts, unknown = conform(options.directory, only=only)
    for verdict in verdicts:
        print(verdict.line())
    for name in unknown:
        print(f"unknown {name}: no installed package has an adapter for it")
    passed = sum(verdict.passed for verdict in verdicts)
    print(
        f"{len(verdicts)} vectors compared: {passed} ok, {len(verdicts) - passed} missed; {len(unknown)} names unknown"
    )
    return 0 if verdicts and passed == len(verdicts) else 1
