"""The command line: ``limbeck train CONFIG`` and its siblings.

Each command imports what it needs when it runs, so that listing and conforming stay quick.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from limbeck_core.errors import DEBUG_VARIABLE, LimbeckError, debugging

_EPILOG = f"""\
exit status: 0 done; 1 a comparison missed (conform) or an error found (doctor); 2 a config, file or argument does not
fit; 130 interrupted.
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
