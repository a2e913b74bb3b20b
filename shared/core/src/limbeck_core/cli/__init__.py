"""The command line: ``limbeck train CONFIG`` and its siblings.

What the words mean stands here; what is then done, in :mod:`limbeck_core.cli.verbs`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from limbeck_core.cli import verbs
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

    command = add("train", verbs.run_train, "train as a config says")
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

    command = add("test", verbs.run_test, "evaluate a checkpoint with the config's own evaluator")
    _add_config(command)
    _add_checkpoint(command)
    command.add_argument("--work-dir", metavar="D", type=Path, help="logs (default: work_dirs/NAME/test)")
    _add_data_root(command)
    _add_partial(command)
    _add_launcher(command)
    _add_overrides(command)

    command = add("predict", verbs.run_predict, "predict with the student alone, one line of JSON an input")
    _add_config(command)
    _add_checkpoint(command)
    command.add_argument("inputs", metavar="INPUT", nargs="+", help="what the config's predictor reads, usually files")
    _add_partial(command)
    _add_overrides(command)

    command = add("list", verbs.run_list, "list what is installed")
    command.add_argument(
        "what", nargs="?", choices=("configs", "losses", "methods"), default="configs", help="default: configs"
    )

    command = add("show", verbs.run_show, "print a config as it runs, without bases, as a config that can be run")
    _add_config(command)
    _add_data_root(command)
    _add_overrides(command)

    command = add("copy", verbs.run_copy, "copy an installed config to where you can change it")
    command.add_argument("config", metavar="CONFIG", help="name of an installed config")
    command.add_argument("destination", metavar="DEST", type=Path, help="a new .py file, or a folder")

    command = add(
        "doctor",
        verbs.run_doctor,
        "look at two batches for what would silently spoil the run",
        "Teachers, inputs, taps, shapes, losses and gradients; nothing is trained or written.",
    )
    _add_config(command)
    _add_data_root(command)
    _add_overrides(command)

    command = add(
        "bank",
        verbs.run_bank,
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
        verbs.run_export,
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
        verbs.run_suggest,
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
        "tune",
        verbs.run_tune,
        "choose a learning rate, or other numbers, on samples held out of the training set",
        "The test set is not read. Runs that are done are not done again.",
    )
    command.add_argument("configs", metavar="CONFIG", nargs="+", help="files, or names that 'limbeck list' shows")
    command.add_argument("--rates", metavar="R", nargs="+", type=float, help="learning rates to try")
    command.add_argument(
        "--grid", metavar="K=V,V", nargs="+", default=[], help="values of other keys; all combinations"
    )
    command.add_argument("--seeds", metavar="N", type=int, default=2, help="runs of each candidate (default: 2)")
    command.add_argument("--epochs", metavar="N", type=int, help="epochs of every run (default: the config's)")
    command.add_argument("--work-dir", metavar="D", type=Path, help="folder of the runs (default: work_dirs/tune)")
    _add_search(command)
    _add_data_root(command)
    _add_overrides(command)

    command = add(
        "compare",
        verbs.run_compare,
        "train several configs over several seeds and say whether the difference is more than luck",
        "The first config is what the others are compared with. Runs that are done are not done again. With --rates "
        "each arm has a learning rate of its own, chosen as by 'limbeck tune'.",
    )
    command.add_argument("configs", metavar="CONFIG", nargs="*", help="files, or names that 'limbeck list' shows")
    command.add_argument(
        "--arm", metavar="WORD", nargs="+", action="append", default=[], help="NAME CONFIG [K=V ...]; give several"
    )
    command.add_argument("--seeds", metavar="N", type=int, default=3, help="runs of each (default: 3)")
    command.add_argument(
        "--rates", metavar="R", nargs="+", type=float, default=[], help="learning rates to choose from"
    )
    command.add_argument("--search-seeds", metavar="N", type=int, default=2, help="runs of each rate (default: 2)")
    command.add_argument(
        "--variants", metavar="K=V", nargs="+", default=[], help="judge the same weights with this changed, too"
    )
    command.add_argument("--work-dir", metavar="D", type=Path, help="runs and report (default: work_dirs/compare)")
    _add_search(command)
    _add_data_root(command)
    _add_overrides(command)

    command = add("report", verbs.run_report, "write one page about the runs in some work folders, from their logs")
    command.add_argument("folders", metavar="WORK_DIR", type=Path, nargs="+", help="work folders of runs")
    command.add_argument("--out", metavar="D", type=Path, help="folder of the page (default: the first work folder)")

    command = add("conform", verbs.run_conform, "hold the losses against golden vectors: value and every gradient")
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


def _add_search(command: argparse.ArgumentParser) -> None:
    command.add_argument("--metric", metavar="NAME", help="what is judged (default: the evaluator's first)")
    command.add_argument("--smaller-is-better", action="store_true", help="for errors and losses")
    command.add_argument(
        "--held-out",
        metavar="N",
        type=float,
        default=0.25,
        help="training samples, or which share of them, that a search judges by (default: 0.25); 0: the config's own "
        "validation set",
    )
    command.add_argument("--inside", action="store_true", help="hold out before the config changes its data set")
    command.add_argument(
        "--clean", metavar="K=V", nargs="+", default=[], help="the data set's arguments for the held-out part alone"
    )
    command.add_argument(
        "--teacher", metavar="CONFIG", help="for the search, train this one first, without the held-out samples"
    )
    command.add_argument("--threads", metavar="N", type=int, help="threads of PyTorch; 1 is fast for tiny models")


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
