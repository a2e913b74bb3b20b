"""What the quickstarts share: arms of one comparison on digits, trained by their configs, measured, and shown."""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.build import build
from limbeck_core.engine import quickstart
from limbeck_core.engine.commands import train
from limbeck_core.engine.config import load_config
from limbeck_core.report import Difference, Report, draw_curves, paired_bootstrap, spread
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

TEACHER_CONFIG = "vision/digits/teacher"
LATENCY_RUNS = 200
COLUMNS = ("model", "accuracy (%)", "ECE (%)", "NLL (nats)", "parameters", "latency (ms)", "training (s)")
# said on every page, since it decides what its numbers mean
SETTING = (
    "Setting: the 1797 real 8x8 digits that scikit-learn ships, 1200 for training and 597 for testing. 40 % of the "
    "training images bear a wrong label, the same ones for teacher and students; the labels of the test images are "
    "right. So the teacher has seen nothing that the students do not see: being larger, it finds the rule behind "
    "the noise, and hands it on."
)


@dataclass(frozen=True)
class Arm:
    """One kind of model in a comparison.

    Args:
        title: What it is called in tables and pictures.
        config: Name of its config.
        folder: Runs stand in ``<folder>-<seed>``.
        teacher: Where its teacher's weights come from, by seed; ``None`` for a model without one.
    """

    title: str
    config: str
    folder: str
    teacher: Callable[[int], Path] | None = None


@dataclass
class Trained:
    """What was measured of one arm over its seeds."""

    predictions: list[Predictions] = field(default_factory=list)
    curves: list[list[float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    parameters: int = 0
    latency: float = 0.0  # milliseconds an image, batch of one

    def over_seeds(self, measure: Callable[[Predictions], float]) -> list[float]:
        """One number a seed."""
        return [measure(predictions) for predictions in self.predictions]

    def hits(self) -> list[Any]:
        """For each seed, 100 where a test image was recognised and 0 elsewhere."""
        return [100.0 * predictions.correct for predictions in self.predictions]


def command(
    name: str, description: str, work: Callable[[Path, int, int | None], Path], arguments: Sequence[str] | None
) -> int:
    """Run a quickstart of digits from its command line.

    Args:
        name: Of the command; runs stand in ``work_dirs/<name>`` by default.
        description: One line for ``--help``.
        work: Called with the folder, the number of seeds and the epochs (``None``: the configs'); returns the page.
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """

    def start(options: argparse.Namespace) -> Path:
        return work(options.out, options.seeds, 1 if options.smoke else None)

    return quickstart.command(name, description, start, arguments)


def train_arms(arms: Sequence[Arm], out: Path, seeds: Mapping[str, int], epochs: int | None) -> dict[str, Trained]:
    """Train every arm with every seed and measure it on the test images.

    Args:
        arms: In the order in which they are trained, a teacher before its students.
        out: Folder of the runs.
        seeds: Number of seeds by title.
        epochs: Epochs of every model; those of the configs by default.

    Returns:
        The measurements by title.
    """
    found: dict[str, Trained] = {}
    images, targets = _test_images()
    for arm in arms:
        result = found[arm.title] = Trained()
        for seed in range(seeds[arm.title]):
            student = _train(result, arm, seed, out, epochs)
            with torch.no_grad():
                result.predictions.append(Predictions.from_logits(student(images), targets))
            accuracy = top_k_accuracy(result.predictions[-1])
            print(f"  {arm.title}, seed {seed}: {accuracy:.2f} % in {result.seconds[-1]:.0f} s", flush=True)
        result.parameters = sum(p.numel() for p in student.parameters())
        result.latency = _latency(student, images[:1])
    return found


def _train(result: Trained, arm: Arm, seed: int, out: Path, epochs: int | None) -> nn.Module:
    """Train one model by its config and return its student; the curve and the time go into ``result``."""
    overrides: dict[str, Any] = {
        "+log_level": "ERROR",  # the table says what matters
        "+default_hooks": {"checkpoint": {"every_epochs": None}, "logger": {"interval": 10}},
    }
    if epochs is not None:
        overrides |= {"train_cfg.max_epochs": epochs, "param_scheduler.T_max": epochs}
    if arm.teacher is not None:
        overrides["model.teacher.checkpoint"] = str(arm.teacher(seed))
    start = time.perf_counter()
    runner = train(arm.config, work_dir=out / f"{arm.folder}-{seed}", seed=seed, overrides=overrides)
    result.seconds.append(time.perf_counter() - start)
    accuracies, _ = runner.message_hub.get_scalar("val/top1").data
    result.curves.append([float(value) for value in accuracies])
    student: nn.Module = runner.model.student
    return student.eval()


def untrained_teacher(path: Path, seed: int) -> Path:
    """Write the weights with which the teacher's architecture begins: a control that knows nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 + seed)  # other numbers than those that the students begin with
        torch.save(build(load_config(TEACHER_CONFIG).model.student).state_dict(), path)
    return path


def _test_images() -> tuple[Tensor, Tensor]:
    dataset = Digits(train=False, channels=3)
    samples = [dataset[index] for index in range(len(dataset))]
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


# ---------------------------------------------------------------------- what is shown


def rows(found: Mapping[str, Trained], titles: Sequence[str]) -> list[list[str]]:
    """Return one row of :data:`COLUMNS` an arm."""
    return [
        [
            title,
            spread(found[title].over_seeds(top_k_accuracy)),
            spread(found[title].over_seeds(expected_calibration_error)),
            spread(found[title].over_seeds(negative_log_likelihood), 3),
            f"{found[title].parameters:,}",
            f"{found[title].latency:.2f}",
            f"{statistics.fmean(found[title].seconds):.0f}",
        ]
        for title in titles
    ]


def print_table(table: Sequence[Sequence[str]]) -> None:
    """Print the rows under :data:`COLUMNS`."""
    print(f"\n{quickstart.text_table(COLUMNS, table)}")


def difference(found: Mapping[str, Trained], first: str, second: str) -> Difference:
    """Accuracy of the second arm minus the first's, in points, over test images and seeds."""
    return paired_bootstrap(found[first].hits(), found[second].hits())


def draw(
    page: Report, found: Mapping[str, Trained], curves: Sequence[str], confident: Sequence[str], out: Path
) -> None:
    """Add the three pictures: accuracy over epochs, reliability, and risk over coverage.

    Args:
        page: The report.
        found: The measurements by title.
        curves: Titles in the first picture.
        confident: Titles in the other two, which show seed 0.
        out: Folder of the runs and the report.
    """
    page.heading("Learning").figure(
        "accuracy",
        draw_curves({title: found[title].curves for title in curves}, x_label="epoch", y_label="test accuracy (%)"),
        alt=f"Test accuracy over epochs: {', '.join(curves)}",
        caption="Thin lines: one seed each. Bold: their mean.",
    )
    first = {title: found[title].predictions[0] for title in confident}
    pictures = out / "pictures"
    page.heading("Confidence").figure(
        "reliability",
        draw_reliability({title: reliability(p) for title, p in first.items()}, pictures / "reliability.png"),
        alt=f"Reliability diagram, accuracy against confidence: {', '.join(confident)}, seed 0",
        caption="Seed 0. On the diagonal a model is right as often as it says.",
    )
    page.figure(
        "risk_coverage",
        draw_risk_coverage({title: risk_coverage(p) for title, p in first.items()}, pictures / "risk_coverage.png"),
        alt=f"Error rate among the most confident answers against their share: {', '.join(confident)}, seed 0",
        caption="Seed 0. How wrong the most confident answers are, as more and more images are answered.",
    )


def machine() -> str:
    """Processor, threads and PyTorch, for the foot of a page."""
    return f"{platform.machine()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
