"""``python -m limbeck_vision.methods.kernel_guidance.procedure``: self-distil a network step by step, guided by labels.

Step 1 trains on labels alone. Every later step trains a new network on a mixture of the labels, with weight alpha, and
the probabilities of the network before it. Alpha is given, or estimated for each step from two runs on a part of the
training images: one on labels alone, one on the teacher alone, whose probabilities on the held-out part go into
:func:`~limbeck_vision.methods.kernel_guidance.regression.optimal_target_weight`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from limbeck_core.checks import check_between
from limbeck_core.engine.commands import train
from limbeck_core.engine.config import load_config
from limbeck_core.engine.held_out import hold_out
from limbeck_core.errors import ConfigError, LimbeckError
from limbeck_vision.methods.kernel_guidance.regression import optimal_target_weight

MATCH = "guidance"
_QUIET = {
    "+log_level": "ERROR",
    "+default_hooks": {"checkpoint": {"every_epochs": None}, "logger": {"interval": 10_000}},
}


@dataclass(frozen=True)
class Step:
    """One step of self-distillation.

    Args:
        number: Which, from 1.
        target_weight: Weight of the labels.
        folder: Where the run stands; ``student.pth`` in it teaches the next step.
        metrics: The validation metrics after the last epoch.
    """

    number: int
    target_weight: float
    folder: Path
    metrics: Mapping[str, float]


def self_distil(
    first: str | Path,
    later: str | Path,
    *,
    steps: int = 2,
    target_weight: float | None = None,
    held_out: float = 0.25,
    seed: int = 0,
    work_dir: str | Path = Path("work_dirs/kernel_guidance"),
    data_root: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> list[Step]:
    """Run the chain.

    Args:
        first: Config of step 1: labels alone.
        later: Config of the later steps, with ``model.task_weight``, ``model.matches.guidance.weight`` and
            ``model.teacher.checkpoint``.
        steps: How many steps, 1 or more.
        target_weight: Weight of the labels in [0, 1] from step 2 on; ``None`` estimates it for each step, at the price
            of about two more runs a step.
        held_out: Training images that the estimate is made on, or which share of them. They are trained on again in
            the runs that count.
        seed: Of every run.
        work_dir: Folder of the runs.
        data_root: See :func:`~limbeck_core.engine.config.load_config`.
        overrides: Values to change in both configs, by dotted key.

    Returns:
        The steps in order.

    Raises:
        ConfigError: if ``steps`` is below 1 or a config lacks what is changed in it.
        ValueError: if ``target_weight`` lies outside of [0, 1].
    """
    if steps < 1:
        raise ConfigError(f"self-distillation needs one step or more, got {steps}")
    if target_weight is not None:
        check_between(target_weight, "target_weight", 0.0, 1.0)
    out, common = Path(work_dir), {**_QUIET, **(overrides or {})}

    def run(config: str | Path, name: str, changes: Mapping[str, Any]) -> Any:
        return train(config, work_dir=out / name, seed=seed, data_root=data_root, overrides={**common, **changes})

    part = hold_out(load_config(first, data_root=data_root, overrides=overrides or {}), held_out)
    done = [_step(1, 1.0, run(first, "step-1", {}))]
    by_labels, taught_by = None, out / "part-1"
    for number in range(2, steps + 1):
        weight = target_weight
        if weight is None:
            if by_labels is None:
                by_labels = held_out_probabilities(run(first, "part-1", part))
            alone = run(later, f"part-{number}-teacher-alone", {**part, **guided(0.0, taught_by)})
            probabilities, truth = held_out_probabilities(alone)
            weight = optimal_target_weight(by_labels[0], probabilities, truth)
            if number < steps:
                run(later, f"part-{number}", {**part, **guided(weight, taught_by)})
                taught_by = out / f"part-{number}"
        changes = guided(weight, done[-1].folder)
        done.append(_step(number, weight, run(later, f"step-{number}", changes)))
    return done


def guided(target_weight: float, teacher: Path) -> dict[str, Any]:
    """Return the overrides that mix labels and a teacher: the weight of the labels, and the run of the teacher."""
    return {
        "model.task_weight": target_weight,
        f"model.matches.{MATCH}.weight": 1.0 - target_weight,
        "model.teacher.checkpoint": str(teacher / "student.pth"),
    }


@torch.no_grad()
def held_out_probabilities(runner: Any) -> tuple[Tensor, Tensor]:
    """Return what a finished run says of its validation images, and the truth as one-hot rows, both ``(N, C)``."""
    model = runner.model.eval()
    logits, targets = [], []
    for batch in runner.val_dataloader:
        moved = model.data_preprocessor(batch, False)
        logits.append(model(moved, mode="predict").cpu())
        targets.append(torch.as_tensor(batch["targets"]))
    probabilities = torch.cat(logits).softmax(1)
    return probabilities, one_hot(torch.cat(targets).long(), probabilities.shape[1]).to(probabilities.dtype)


def _step(number: int, weight: float, runner: Any) -> Step:
    scalars = runner.message_hub.log_scalars
    metrics = {
        name.removeprefix("val/"): float(history.current())
        for name, history in scalars.items()
        if name.startswith("val/") and not name.startswith(("val/teacher", "val/time", "val/data_time"))
    }
    return Step(number, weight, Path(runner.work_dir), metrics)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chain from the command line.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m limbeck_vision.methods.kernel_guidance.procedure",
        description="Self-distil a network step by step, with the labels at a given or an estimated weight.",
    )
    parser.add_argument("first", nargs="?", default="vision/kernel_guidance/digits_first", help="config of step 1")
    parser.add_argument("later", nargs="?", default="vision/kernel_guidance/digits", help="config of the other steps")
    parser.add_argument("--steps", type=int, default=2, metavar="N", help="steps (default: 2)")
    parser.add_argument("--target-weight", type=float, metavar="A", help="weight of the labels (default: estimated)")
    parser.add_argument("--held-out", type=float, default=0.25, metavar="N", help="images or share (default: 0.25)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="chains, with seeds 0 to N-1 (default: 1)")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/kernel_guidance"), metavar="D")
    parser.add_argument("--data-root", type=Path, metavar="D", help="folder of the data sets (default: $LIMBECK_DATA)")
    options = parser.parse_args(arguments)
    try:
        for seed in range(options.seeds):
            found = self_distil(
                options.first,
                options.later,
                steps=options.steps,
                target_weight=options.target_weight,
                held_out=options.held_out,
                seed=seed,
                work_dir=options.work_dir / f"seed-{seed}",
                data_root=options.data_root,
            )
            for step in found:
                figures = ", ".join(f"{name} {value:.3f}" for name, value in step.metrics.items())
                print(
                    f"seed {seed}, step {step.number}: weight of labels {step.target_weight:.3f}; {figures}", flush=True
                )
    except (LimbeckError, ValueError) as error:
        print(f"kernel_guidance: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
