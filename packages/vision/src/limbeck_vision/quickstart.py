"""``hatch run quickstart``: a teacher, plain students, distilled students, and the difference, in a few minutes.

Real handwritten digits, the configs ``vision/digits/*``, and the same functions as ``limbeck train``; nothing here but
the order of the runs and the page that shows them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from limbeck_core.report import Report
from limbeck_vision.quickstart_parts import (
    COLUMNS,
    SETTING,
    TEACHER_CONFIG,
    Arm,
    Trained,
    command,
    difference,
    draw,
    machine,
    print_table,
    rows,
    train_arms,
    untrained_teacher,
)

TEACHER, PLAIN, DISTILLED = "teacher", "student alone", "student distilled"
UNTRAINED = "from an untrained teacher"  # the control: what the loss does by itself, without knowledge in it
CONFIGS = {
    TEACHER: TEACHER_CONFIG,
    PLAIN: "vision/digits/plain",
    DISTILLED: "vision/digits/kd",
    UNTRAINED: "vision/digits/kd",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the quickstart.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    return command("quickstart", __doc__.partition("\n")[0] if __doc__ else "", run, arguments)


def run(out: Path, seeds: int = 3, epochs: int | None = None) -> Path:
    """Train, measure, print the table and write the report.

    Args:
        out: Folder for the runs and the report.
        seeds: Students of each kind.
        epochs: Epochs of every model; those of the configs by default.

    Returns:
        The path of the page.
    """
    started = time.perf_counter()
    arms = (
        Arm(TEACHER, CONFIGS[TEACHER], "teacher"),
        Arm(PLAIN, CONFIGS[PLAIN], "plain"),
        Arm(DISTILLED, CONFIGS[DISTILLED], "kd", lambda seed: out / "teacher-0" / "student.pth"),
        Arm(
            UNTRAINED,
            CONFIGS[UNTRAINED],
            "untrained",
            lambda seed: untrained_teacher(out / f"untrained-{seed}.pth", seed),
        ),
    )
    found = train_arms(arms, out, {arm.title: 1 if arm.title == TEACHER else seeds for arm in arms}, epochs)
    return _report(found, out, seeds, time.perf_counter() - started)


def _report(found: Mapping[str, Trained], out: Path, seeds: int, seconds: float) -> Path:
    table = rows(found, (PLAIN, DISTILLED, UNTRAINED, TEACHER))
    print_table(table)
    gain = difference(found, PLAIN, DISTILLED)
    print(f"\ndistilled against alone: {gain.sentence()}")
    epochs = len(found[PLAIN].curves[0])
    page = Report(
        "Distillation on handwritten digits",
        f"A ResNet-8 of {found[TEACHER].parameters:,} parameters teaches one of {found[PLAIN].parameters:,}. Distilled "
        f"against alone: {gain.sentence()}.",
    )
    page.heading("Numbers").table(
        COLUMNS,
        table,
        caption=f"Test set of 597 images; last epoch; mean ± standard deviation of {seeds} seed(s); the teacher is one "
        "model. ECE: ten bins. Latency: median of one image on the CPU.",
    )
    page.text(SETTING)
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
    draw(page, found, (PLAIN, DISTILLED, TEACHER, UNTRAINED), (PLAIN, DISTILLED, TEACHER), out)
    page.heading("Again").code(
        "hatch run quickstart\n"
        + "\n".join(f"limbeck train {config} --seed 0" for config in dict.fromkeys(CONFIGS.values()))
        + "\nlimbeck show vision/digits/kd"
    )
    page.text(f"Run on {datetime.now(timezone.utc):%Y-%m-%d}, {machine()}, {seconds:.0f} s in all.")
    return page.write(out)


if __name__ == "__main__":
    sys.exit(main())
