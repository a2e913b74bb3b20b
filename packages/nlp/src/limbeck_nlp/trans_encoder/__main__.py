"""``python -m limbeck_nlp.trans_encoder``: the cycles of Trans-Encoder, step by step, by the configs of the steps."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck_core.engine.commands import train
from limbeck_core.errors import LimbeckError
from limbeck_nlp.evaluation.pairs import COLLAPSED

START, CROSS, BI = (f"nlp/trans_encoder/{name}" for name in ("start", "cross_from_bi", "bi_from_cross"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cycles.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m limbeck_nlp.trans_encoder", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("work_dirs/trans_encoder"), help="folder of the runs")
    parser.add_argument("--cycles", type=int, default=3, help="cycles (default: 3, the paper's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of every run (default: 0)")
    parser.add_argument("--start", default=START, help="config of the bi-encoder to start from")
    parser.add_argument("--cross", default=CROSS, help="config of a cross-encoder taught by a bi-encoder")
    parser.add_argument("--bi", default=BI, help="config of a bi-encoder taught by a cross-encoder")
    options = parser.parse_args(arguments)
    try:
        scores = run(options.out, (options.start, options.cross, options.bi), cycles=options.cycles, seed=options.seed)
    except LimbeckError as error:
        print(f"trans_encoder: {error}", file=sys.stderr)
        return 2
    for name, score in scores.items():
        print(f"{name:<12} Spearman {score:6.2f}")
    return 0


def run(
    out: Path,
    configs: tuple[str, str, str] = (START, CROSS, BI),
    *,
    cycles: int = 3,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Train the start, then in each cycle a new cross-encoder from the last bi-encoder and a bi-encoder from that.

    As the released code does by default, each cross-encoder begins from its own architecture's first weights and each
    bi-encoder from the start, not from the cycle before. ``best_bi.pth`` is the bi-encoder that validation likes best;
    without true scores to validate by, take the last one.

    Args:
        out: Folder of the runs.
        configs: Of the start, of cross from bi, of bi from cross.
        cycles: How many.
        seed: Seed of every run.
        overrides: Changes to all three configs, as ``limbeck train`` takes them.

    Returns:
        Rank correlation times 100 of each step, by name (``start``, ``cross 1``, ``bi 1``, ...).

    Raises:
        LimbeckError: if ``cycles`` is below 1, or a model's scores have become constant, so that nothing can be learnt
            from them.

    Reference:
        Liu et al., Trans-Encoder, arXiv:2109.13059, algorithm 1.
    """
    if cycles < 1:
        raise LimbeckError(f"cycles must be 1 or more, got {cycles}")
    shared = dict(overrides or {})
    scores: dict[str, float] = {}
    start, cross, bi = configs

    def step(name: str, config: str, **changes: Any) -> Path:
        folder = out / name.replace(" ", "_")
        runner = train(config, work_dir=folder, seed=seed, overrides={**shared, **changes})
        history = {key: runner.message_hub.get_scalar(f"val/{key}").data[0] for key in ("spearman", "spread")}
        if history["spread"][-1] < COLLAPSED:
            raise LimbeckError(
                f"{name} of Trans-Encoder collapsed: its scores spread by {history['spread'][-1]:.1e}, so nothing can "
                "be learnt from them; lower the learning rate of its config"
            )
        scores[name] = float(history["spearman"][-1])
        return folder / "student.pth"

    first = step("start", start)
    best, teacher = first, first
    for cycle in range(1, cycles + 1):
        middle = step(f"cross {cycle}", cross, **{"model.teacher.checkpoint": str(teacher)})
        teacher = step(f"bi {cycle}", bi, **{"model.teacher.checkpoint": str(middle), "+load_from": str(first)})
        if scores[f"bi {cycle}"] >= max(score for name, score in scores.items() if not name.startswith("cross")):
            best = teacher
    shutil.copyfile(best, out / "best_bi.pth")
    return scores


if __name__ == "__main__":
    sys.exit(main())
