"""``hatch run quickstart-vision``: five ways to train the same small model, side by side, in a few minutes.

Cross-entropy alone, KD, DKD and DIST from a teacher, and PS-KD, which needs none: on real handwritten digits, each by
its own config and at the learning rate that was best for it on held-out training images.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from limbeck_core.engine.config import load_config
from limbeck_core.report import Report, spread
from limbeck_vision.evaluation import area_under_risk_coverage
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
)

TEACHER, PLAIN = "teacher", "cross-entropy"
# title, config, and whether it has a teacher
METHODS = (
    (PLAIN, "vision/digits/plain", False),
    ("KD", "vision/digits/kd", True),
    ("DKD", "vision/classics/digits_dkd", True),
    ("DIST", "vision/classics/digits_dist", True),
    ("PS-KD", "vision/digits/ps_kd", False),
)
RATES = (0.05, 0.1, 0.2, 0.4)
SEARCH = (
    "limbeck tune "
    + " ".join(config for _, config, _ in METHODS)
    + " \\\n    --rates "
    + " ".join(map(str, RATES))
    + f" --teacher {TEACHER_CONFIG} --held-out 300 --seeds 2 --clean label_noise=0.0 --threads 1"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the quickstart.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    return command("quickstart-vision", __doc__.partition("\n")[0] if __doc__ else "", run, arguments)


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
    weights = out / "teacher-0" / "student.pth"
    arms = [Arm(TEACHER, TEACHER_CONFIG, "teacher")]
    for title, config, taught in METHODS:
        arms.append(Arm(title, config, title.lower(), (lambda seed: weights) if taught else None))
    found = train_arms(arms, out, {arm.title: 1 if arm.title == TEACHER else seeds for arm in arms}, epochs)
    return _report(found, out, seeds, time.perf_counter() - started)


def _report(found: Mapping[str, Trained], out: Path, seeds: int, seconds: float) -> Path:
    titles = [title for title, _, _ in METHODS]
    table = rows(found, [*titles, TEACHER])
    print_table(table)
    verdicts = {title: difference(found, PLAIN, title).sentence() for title in titles if title != PLAIN}
    print()
    for title, verdict in verdicts.items():
        print(f"{title} against {PLAIN}: {verdict}")
    page = Report(
        "Five ways to train one small model",
        f"A ResNet-8 of {found[PLAIN].parameters:,} parameters on handwritten digits; where there is a teacher, it has "
        f"{found[TEACHER].parameters:,}.",
    )
    page.heading("Numbers").table(
        COLUMNS,
        table,
        caption=f"Test set of 597 images; last epoch; mean ± standard deviation of {seeds} seed(s); the teacher is one "
        "model. ECE: ten bins. Latency: median of one image on the CPU.",
    )
    page.table(
        ("model", "learning rate", "AURC (x 1000)", f"accuracy against {PLAIN}"),
        [
            [
                title,
                str(load_config(config).optim_wrapper.optimizer.lr),
                spread(found[title].over_seeds(area_under_risk_coverage)),
                verdicts.get(title, "-"),
            ]
            for title, config, _ in METHODS
        ],
        caption="Interval: paired bootstrap over test images and seeds.",
    )
    page.text(SETTING)
    page.text(
        f"All five have one architecture, {len(found[PLAIN].curves[0])} epochs, the same augmentation (shifts by one "
        "pixel) and the same seeds. Each has the learning rate that was best for it on 300 images held out of the "
        "training set, of the same rates for all; the teacher did not see those images either. Test images decided "
        "nothing. Everything else of each method is as its paper has it for CIFAR-100, not tuned for digits."
    )
    page.text(
        "Wrong labels are why distillation helps here: with right ones and rates chosen in this way, KD's students "
        "were no better than students alone. Models that learn from wrong labels doubt their right answers, "
        "which makes for a large ECE; DIST compares correlations, not probabilities, and does not hand the doubt on. "
        "PS-KD softens labels by the student's own past, which helps a model that is too sure and not one that doubts. "
        "The search trains on three quarters of the images, so with a quarter fewer steps than the runs shown here."
    )
    draw(page, found, [*titles, TEACHER], [*titles, TEACHER], out)
    page.heading("Again").code(
        "\n".join(
            ["hatch run quickstart-vision", SEARCH, *(f"limbeck train {config} --seed 0" for _, config, _ in METHODS)]
        )
    )
    page.text(f"Run on {datetime.now(timezone.utc):%Y-%m-%d}, {machine()}, {seconds:.0f} s in all.")
    return page.write(out)


if __name__ == "__main__":
    sys.exit(main())
