"""The command line: ``limbeck train CONFIG`` and its siblings.

Each command imports what it needs when it runs, so that listing and conforming stay quick.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from limbeck_core.errors import DEBUG_VARIABLE, LimbeckError, debugging

_EPILOG = f"""\
exit status: 0 done; 1 a comparison missed (conform), an error found (doctor) or a bank damaged (bank --verify); 2 a
config, file or argument does not fit; 130 interrupted.
Errors are one sentence; {DEBUG_VARIABLE}=1 shows where they come from."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Words after the program's name; those of the process by default.

    Returns:
        The exit status.
    """
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except LimbeckError as error:
        if debugging():
            raise
        print(f"limbeck: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("limbeck: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader of a pipe, such as head, has enough; Python would complain once more when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


# ---------------------------------------------------------------------- arguments


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="limbeck", description="Knowledge distillation for PyTorch.", epilog=_EPILOG, formatter_class=formatter
    )
    parser.add_argument("--version", action="version", version=f"limbeck-core {version('limbeck-core')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: object, summary: str, more: str = "") -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}. {more}".strip(),
            formatter_class=formatter,
        )
        command.set_defaults(run=run)
        return command

    command = add("train", _train, "train as a config says")
    _add_config(command)
    command.add_argument("--work-dir", metavar="D", type=Path, help="logs and checkpoints (default: work_dirs/NAME)")
    command.add_argument(
        "--resume", action="store_true", help="go on from the newest whole checkpoint in the work folder"
    )
    command.add_argument("--seed", metavar="N", type=int, help="seed of everything random")
    command.add_argument("--deterministic", action="store_true", help="deterministic algorithms only (may be slower)")
    _add_data_root(command)
    command.add_argument("--amp", action="store_true", help="mixed precision (needs an accelerator)")
    command.add_argument(
        "--bank",
        metavar="D",
        type=Path,
        help="read the teacher's values from here ('limbeck bank') instead of running it",
    )
    _add_partial(command)
    _add_launcher(command)
    _add_overrides(command)

    command = add("test", _test, "evaluate a checkpoint with the config's own evaluator")
    _add_config(command)
    _add_checkpoint(command)
    command.add_argument("--work-dir", metavar="D", type=Path, help="logs (default: work_dirs/NAME/test)")
    _add_data_root(command)
    _add_partial(command)
    _add_launcher(command)
    _add_overrides(command)

    command = add("predict", _predict, "predict with the student alone, one line of JSON an input")
    _add_config(command)
    _add_checkpoint(command)
    command.add_argument("inputs", metavar="INPUT", nargs="+", help="what the config's predictor reads, usually files")
    _add_partial(command)
    _add_overrides(command)

    command = add("list", _list, "list what is installed")
    command.add_argument(
        "what", nargs="?", choices=("configs", "losses", "methods"), default="configs", help="default: configs"
    )

    command = add("show", _show, "print a config as it runs, without bases, as a config that can be run")
    _add_config(command)
    _add_data_root(command)
    _add_overrides(command)

    command = add("copy", _copy, "copy an installed config to where you can change it")
    command.add_argument("config", metavar="CONFIG", help="name of an installed config")
    command.add_argument("destination", metavar="DEST", type=Path, help="a new .py file, or a folder")

    command = add(
        "doctor",
        _doctor,
        "look at two batches for what would silently spoil the run",
        "Teachers, inputs, taps, shapes, losses and gradients; nothing is trained or written.",
    )
    _add_config(command)
    _add_data_root(command)
    _add_overrides(command)

    command = add(
        "bank",
        _bank,
        "write down what the teacher says of every sample, for 'limbeck train --bank'",
        "Goes on where it stopped, also in several processes at once (torchrun, or the same command twice). "
        "The config may say how in bank = dict(folder=..., views=..., seed=..., encoding=..., batch_size=...).",
    )
    _add_config(command)
    command.add_argument("--bank", metavar="D", type=Path, help="the bank's folder (default: work_dirs/NAME/bank)")
    command.add_argument("--views", metavar="K", type=int, help="random views of each sample; epoch e shows e %% K")
    command.add_argument(
        "--encoding",
        metavar="[TAP=]E",
        nargs="+",
        help="exact (default), float32, float16, bfloat16, or top16 for class scores; of one tap with TAP=",
    )
    command.add_argument(
        "--verify", action="store_true", help="write nothing: look at every byte, and ask the teacher again on a few"
    )
    _add_data_root(command)
    _add_overrides(command)

    command = add(
        "export",
        _export,
        "write the student alone, compared with PyTorch, and its card",
        "No teacher is built or read. A file that disagrees with the model is not kept.",
    )
    _add_config(command)
    _add_checkpoint(command)
    command.add_argument(
        "--format",
        choices=("state_dict", "onnx", "pt2", "hub"),
        required=True,
        help="weights, an ONNX graph, a torch.export program, or a folder of safetensors with a model card",
    )
    command.add_argument("--out", metavar="PATH", type=Path, help="file or folder (default: beside the checkpoint)")
    _add_input_shape(command, "take random numbers of this shape, such as 1,3,32,32, instead of test data")
    _add_data_root(command)
    _add_partial(command)
    _add_overrides(command)

    command = add(
        "suggest",
        _suggest,
        "propose what to compare between a teacher and a student, as a commented config with costs",
        "Both are package.function, 'package.function(\"text\", number=10)' with plain arguments, or a config.",
    )
    command.add_argument("teacher", metavar="TEACHER", help="of a config: its teacher, or else its student")
    command.add_argument("student", metavar="STUDENT", help="of a config: its student")
    command.add_argument(
        "--data", metavar="CONFIG", help="take data, schedule and calls from here (default: STUDENT's)"
    )
    command.add_argument("--out", metavar="FILE", type=Path, help="write the config here (default: print it)")
    _add_input_shape(command, "shape of an input, such as 1,3,224,224 (default: that of the data)")
    _add_data_root(command)

    command = add(
        "compare",
        _compare,
        "train several configs over several seeds and say whether the difference is more than luck",
        "The first config is what the others are compared with. Runs that are done are not done again.",
    )
    command.add_argument("configs", metavar="CONFIG", nargs="+", help="two or more files, or names that 'list' shows")
    command.add_argument("--seeds", metavar="N", type=int, default=3, help="runs of each (default: 3)")
    command.add_argument("--metric", metavar="NAME", help="what is judged (default: the evaluator's first)")
    command.add_argument("--smaller-is-better", action="store_true", help="for errors and losses")
    command.add_argument("--work-dir", metavar="D", type=Path, help="runs and report (default: work_dirs/compare)")
    _add_data_root(command)
    _add_overrides(command)

    command = add("report", _report, "write one page about the runs in some work folders, from their logs")
    command.add_argument("folders", metavar="WORK_DIR", type=Path, nargs="+", help="work folders of runs")
    command.add_argument("--out", metavar="D", type=Path, help="folder of the page (default: the first work folder)")

    command = add("conform", _conform, "hold the losses against golden vectors: value and every gradient")
    command.add_argument("directory", metavar="DIR", type=Path, help="folder of files NAME__cK.npz")
    command.add_argument("--only", metavar="NAME,...", default="", help="these names; one that is unknown is a miss")
    return parser


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", metavar="CONFIG", help="a file, or a name that 'limbeck list' shows")


def _add_checkpoint(command: argparse.ArgumentParser) -> None:
    command.add_argument("--checkpoint", metavar="F", type=Path, required=True, help="weights of the student")


def _add_input_shape(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument("--input-shape", metavar="N,...", type=_shape, help=text)


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers such as 1,3,32,32") from None


def _add_data_root(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data-root",
        metavar="D",
        type=Path,
        help="folder of the data sets, put before every relative root (default: $LIMBECK_DATA)",
    )


def _add_partial(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--partial", action="store_true", help="accept a file that lacks some of the student's weights"
    )


def _add_launcher(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm", "mpi"),
        default="none",
        help="who started the processes: torchrun is pytorch (default: none, a single process)",
    )


def _add_overrides(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--cfg-options",
        metavar="K=V",
        nargs="+",
        action="extend",
        default=[],
        help="change values, such as model.matches.kd.weight=0.5; a leading + adds a key that is not there",
    )


# ---------------------------------------------------------------------- commands


def _train(options: argparse.Namespace) -> int:
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


def _test(options: argparse.Namespace) -> int:
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


def _predict(options: argparse.Namespace) -> int:
    from limbeck_core.engine.commands import predict  # noqa: PLC0415

    predictions = predict(
        options.config, options.checkpoint, options.inputs, partial=options.partial, overrides=options.cfg_options
    )
    for prediction in predictions:
        print(json.dumps(prediction), flush=True)
    return 0


def _list(options: argparse.Namespace) -> int:
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


def _show(options: argparse.Namespace) -> int:
    from limbeck_core.engine.config import dump_config, load_config  # noqa: PLC0415

    print(dump_config(load_config(options.config, overrides=options.cfg_options, data_root=options.data_root)), end="")
    return 0


def _copy(options: argparse.Namespace) -> int:
    from limbeck_core.configs import copy  # noqa: PLC0415

    print(copy(options.config, options.destination))
    return 0


def _doctor(options: argparse.Namespace) -> int:
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


def _bank(options: argparse.Namespace) -> int:
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


def _export(options: argparse.Namespace) -> int:
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


def _suggest(options: argparse.Namespace) -> int:
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


def _compare(options: argparse.Namespace) -> int:
    from limbeck_core.engine.compare import compare  # noqa: PLC0415
    from limbeck_core.report import spread  # noqa: PLC0415

    found = compare(
        options.configs,
        seeds=options.seeds,
        metric=options.metric,
        smaller_is_better=options.smaller_is_better,
        work_dir=options.work_dir,
        data_root=options.data_root,
        overrides=options.cfg_options,
    )
    larger = not options.smaller_is_better
    rows = [(c.name, spread(c.last(found.metric)), spread(c.best(found.metric, larger))) for c in found.contestants]
    _print_table([("config", f"{found.metric}, last", f"{found.metric}, best"), *rows])
    for name, difference in found.differences.items():
        print(f"{name} against {found.contestants[0].name}: {difference.sentence()}")
    print(f"report: {found.page}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from limbeck_core.report.runs import report_runs  # noqa: PLC0415

    print(report_runs(options.folders, options.out or options.folders[0]))
    return 0


def _conform(options: argparse.Namespace) -> int:
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
