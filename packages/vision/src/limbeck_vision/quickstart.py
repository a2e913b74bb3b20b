"""``hatch run quickstart``: a teacher, plain students, distilled students, and the difference, in a few minutes.

Real handwritten digits, the configs ``vision/digits/*``, and the same functions as ``limbeck train``; nothing here but
the order of the runs and the page that shows them.
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

import torch
from torch import Tensor, nn

from limbeck_core.build import build
from limbeck_core.engine.commands import train
from limbeck_core.engine.config import load_config
from limbeck_core.errors import LimbeckError
from limbeck_core.report import Report, draw_curves, paired_bootstrap, spread
from limbeck_vision.data import Digits
from limbeck_vision.evaluation import (
    Predictions,
    draw_reliability,
    draw_risk_coverage,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
    risk_coverage,
    top_k_accuracy,
)

TEACHER, PLAIN, DISTILLED = "teacher", "student alone", "student distilled"
UNTRAINED = "from an untrained teacher"  # the control: what the loss does by itself, without knowledge in it
CONFIGS = {
    TEACHER: "vision/digits/teacher",
    PLAIN: "vision/digits/plain",
    DISTILLED: "vision/digits/kd",
    UNTRAINED: "vision/digits/kd",
}
FOLDERS = {TEACHER: "teacher", PLAIN: "plain", DISTILLED: "kd", UNTRAINED: "untrained"}
LATENCY_RUNS = 200
MARKER = ".limbeck-quickstart"  # says that a folder was made here and may be written again


@dataclass
class Trained:
    """What was measured of one kind of model over its seeds."""

    predictions: list[Predictions] = field(default_factory=list)
    curves: list[list[float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    parameters: int = 0
    latency: float = 0.0  # milliseconds an image, batch of one

    def over_seeds(self, measure: Any) -> list[float]:
        """One number a seed."""
        return [measure(predictions) for predictions in self.predictions]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the quickstart.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="quickstart", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("work_dirs/quickstart"), help="folder of runs and report")
    parser.add_argument("--seeds", type=int, default=3, help="students of each kind (default: 3)")
    parser.add_argument("--smoke", action="store_true", help="one epoch and one seed, to see that everything runs")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds must be 1 or more, got {options.seeds}")
    try:
        run(options.out, seeds=1 if options.smoke else options.seeds, epochs=1 if options.smoke else None)
    except LimbeckError as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("quickstart: interrupted", file=sys.stderr)
        return 130
    return 0


def run(out: Path, *, seeds: int = 3, epochs: int | None = None) -> Path:
    """Train, measure, print the table and write the report.

    Args:
        out: Folder for the runs and the report; it must be new, empty, or of an earlier quickstart.
        seeds: Students of each kind.
        epochs: Epochs of every model; those of the configs by default.

    Returns:
        The path of the page.

    Raises:
        LimbeckError: if the folder holds something else.
    """
    started = time.perf_counter()
    _claim(out)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the models are tiny: a second thread costs more than it brings on a busy machine
    try:
        page = _run(out, seeds, epochs, started)
    finally:
        torch.set_num_threads(threads)
    print(f"\nreport: {page} (opens offline; pictures stand beside it), {time.perf_counter() - started:.0f} s in all")
    return page


def _run(out: Path, seeds: int, epochs: int | None, started: float) -> Path:
    found: dict[str, Trained] = {}
    images, targets = _test_images()
    for kind, count in ((TEACHER, 1), (PLAIN, seeds), (DISTILLED, seeds), (UNTRAINED, seeds)):
        found[kind] = Trained()
        for seed in range(count):
            student = _train(found[kind], kind, seed, out, epochs)
            with torch.no_grad():
                logits = student(images)
            found[kind].predictions.append(Predictions.from_logits(logits, targets))
            accuracy = top_k_accuracy(found[kind].predictions[-1])
            print(f"  {kind}, seed {seed}: {accuracy:.2f} % in {found[kind].seconds[-1]:.0f} s", flush=True)
        found[kind].parameters = sum(p.numel() for p in student.parameters())
        found[kind].latency = _latency(student, images[:1])
    return _report(found, out, seeds, time.perf_counter() - started)


def _claim(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise LimbeckError(f"{out} is a file, and the runs need a folder: choose another one with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise LimbeckError(f"{out} holds something that no quickstart wrote: choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).write_text("written by limbeck's quickstart\n", encoding="utf-8")


def _train(result: Trained, kind: str, seed: int, out: Path, epochs: int | None) -> nn.Module:
    """Train one model by its config and return its student; the curve and the time go into ``result``."""
    overrides: dict[str, Any] = {
        "+log_level": "ERROR",  # the table below says what matters
        "+default_hooks": {"checkpoint": {"every_epochs": None}, "logger": {"interval": 10}},
    }
    if epochs is not None:
        overrides |= {"train_cfg.max_epochs": epochs, "param_scheduler.T_max": epochs}
    if kind == DISTILLED:
        overrides["model.teacher.checkpoint"] = str(out / f"{FOLDERS[TEACHER]}-0" / "student.pth")
    if kind == UNTRAINED:
        overrides["model.teacher.checkpoint"] = str(_untrained(out, seed))
    start = time.perf_counter()
    folder = out / f"{FOLDERS[kind]}-{seed}"
    runner = train(CONFIGS[kind], work_dir=folder, seed=seed, overrides=overrides)
    result.seconds.append(time.perf_counter() - start)
    accuracies, _ = runner.message_hub.get_scalar("val/top1").data
    result.curves.append([float(value) for value in accuracies])
    student: nn.Module = runner.model.student
    return student.eval()


def _untrained(out: Path, seed: int) -> Path:
    """Write the weights with which the teacher's architecture begins."""
    path = out / f"{FOLDERS[UNTRAINED]}-{seed}.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 + seed)  # other numbers than those that the students begin with
        torch.save(build(load_config(CONFIGS[TEACHER]).model.student).state_dict(), path)
    return path


def _test_images() -> tuple[Tensor, Tensor]:
    samples = [Digits(train=False, channels=3)[index] for index in range(len(Digits(train=False)))]
    return torch.stack([sample["inputs"] for sample in samples]), torch.tensor([int(s["targets"]) for s in samples])


@torch.no_grad()
def _latency(model: nn.Module, image: Tensor) -> float:
    """Median time of one image on the CPU, in milliseconds."""
    times = []
    for index in range(LATENCY_RUNS + 10):
        start = time.perf_counter()
        model(image)
        if index >= 10:  # the first calls allocate
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def _rows(found: Mapping[str, Trained]) -> list[list[str]]:
    rows = []
    for kind in (PLAIN, DISTILLED, UNTRAINED, TEACHER):
        result = found[kind]
        rows.append(
            [
                kind,
                spread(result.over_seeds(top_k_accuracy)),
                spread(result.over_seeds(expected_calibration_error)),
                spread(result.over_seeds(negative_log_likelihood), 3),
                f"{result.parameters:,}",
                f"{result.latency:.2f}",
                f"{statistics.fmean(result.seconds):.0f}",
            ]
        )
    return rows


_COLUMNS = ("model", "accuracy (%)", "ECE (%)", "NLL (nats)", "parameters", "latency (ms)", "training (s)")


def _report(found: Mapping[str, Trained], out: Path, seeds: int, seconds: float) -> Path:
    rows = _rows(found)
    widths = [max(len(str(row[i])) for row in [_COLUMNS, *rows]) for i in range(len(_COLUMNS))]
    print()
    for row in [_COLUMNS, *rows]:
        print("  ".join(str(cell).rjust(width) for cell, width in zip(row, widths, strict=True)))
    hits = {kind: [100.0 * p.correct for p in result.predictions] for kind, result in found.items()}
    gain = paired_bootstrap(hits[PLAIN], hits[DISTILLED])
    print(f"\ndistilled against alone: {gain.sentence()}")
    epochs = len(found[PLAIN].curves[0])
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    page = Report(
        "Distillation on handwritten digits",
        f"A ResNet-8 of {found[TEACHER].parameters:,} parameters teaches one of {found[PLAIN].parameters:,}. Distilled "
        f"against alone: {gain.sentence()}.",
    )
    page.heading("Numbers").table(
        _COLUMNS,
        rows,
        caption=f"Test set of 597 images; last epoch; mean ± standard deviation of {seeds} seed(s); the teacher is one "
        "model. ECE: ten bins. Latency: median of one image on the CPU.",
    )
    page.text(
        "Setting: the 1797 real 8x8 digits that scikit-learn ships, 1200 for training and 597 for testing. 40 % of the "
        "training images bear a wrong label, the same ones for teacher and students; the labels of the test images are "
        "right. So the teacher has seen nothing that the students do not see: being larger, it finds the rule behind "
        "the noise, and hands it on."
    )
    page.text(
        f"Students alone and distilled have one architecture, {epochs} epochs, the same augmentation (shifts by one "
        "pixel) and the same seeds. Cross-entropy weighs 1 alone, and 0.1 beside `loss/kd` (KL divergence at "
        "temperature 4, weight 0.9). That changes the size of the gradients as well, so one learning rate for both "
        "would favour one of them: each has its own, the best of the same four on 300 images held out of the training "
        "set. Test images decided nothing. The distilled student's best rate was the largest of the four, so a still "
        "larger one might serve it better."
    )
    page.text(
        "Why wrong labels: with right ones, and learning rates chosen in this way, distilled students were no better "
        "than students alone. This setting is one of about twenty tried on the held-out images, and was taken "
        "because distillation helped in it: it shows that the method can help, not that it always does. The gain "
        "shrinks with more epochs and with width, which let a student alone average the noise out."
    )
    page.text(
        "The control learns from the teacher's architecture with the weights it began with: what is left of the gain "
        "when the teacher knows nothing. The interval resamples test images and seeds (paired bootstrap). Models that "
        "learn from wrong labels doubt their right answers, hence the large ECE of all. A distilled step also runs the "
        "teacher forward, as the last column shows."
    )
    page.heading("Learning").figure(
        "accuracy",
        draw_curves(
            {kind: found[kind].curves for kind in (PLAIN, DISTILLED, TEACHER, UNTRAINED)},
            x_label="epoch",
            y_label="test accuracy (%)",
        ),
        alt="Test accuracy over epochs of students alone and distilled, of the teacher, and of the control",
        caption="Thin lines: one seed each. Bold: their mean.",
    )
    first = {kind: found[kind].predictions[0] for kind in (PLAIN, DISTILLED, TEACHER)}
    pictures = out / "pictures"
    page.heading("Confidence").figure(
        "reliability",
        draw_reliability({kind: reliability(p) for kind, p in first.items()}, pictures / "reliability.png"),
        alt="Reliability diagram: accuracy against confidence of the three models of seed 0",
        caption="Seed 0. On the diagonal a model is right as often as it says.",
    )
    page.figure(
        "risk_coverage",
        draw_risk_coverage({kind: risk_coverage(p) for kind, p in first.items()}, pictures / "risk_coverage.png"),
        alt="Error rate among the most confident answers against their share, for the three models of seed 0",
        caption="Seed 0. How wrong the most confident answers are, as more and more images are answered.",
    )
    page.heading("Again").code(
        "hatch run quickstart\n"
        + "\n".join(f"limbeck train {config} --seed 0" for config in dict.fromkeys(CONFIGS.values()))
        + "\nlimbeck show vision/digits/kd"
    )
    page.text(f"Run on {datetime.now(timezone.utc):%Y-%m-%d}, {machine}, {seconds:.0f} s in all.")
    return page.write(out)


if __name__ == "__main__":
    sys.exit(main())
