"""Judge a classifier: accuracy, calibration, ranking by confidence; from a checkpoint or from a file of predictions.

    python tools/eval_vision.py --config vision/digits/kd --checkpoint work_dirs/kd/student.pth --plots pictures/
    python tools/eval_vision.py --predictions predictions.npz --json result.json

The file holds ``targets`` (N,) and ``logits`` or ``probabilities`` (N, C), and optionally ``class_names`` and
``train_counts`` (C,); ``numpy.savez(path, logits=..., targets=...)`` or ``--save`` writes it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from limbeck_core.errors import LimbeckError
from limbeck_vision.evaluation import (
    Reliability,
    RiskCoverage,
    draw_reliability,
    draw_risk_coverage,
    evaluate,
    per_class_table,
    predict_checkpoint,
    table,
)


def main(arguments: list[str] | None = None) -> int:
    """Parse, evaluate, print a table, write JSON and pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--predictions", type=Path, metavar="FILE.npz", help="predictions of anyone")
    source.add_argument("--config", metavar="C", help="a file, or a name that 'limbeck list' shows")
    parser.add_argument(
        "--checkpoint", type=Path, nargs="+", metavar="F", help="the student's weights; several are an ensemble"
    )
    parser.add_argument("--data-root", type=Path, metavar="D", help="folder of the data sets (default: $LIMBECK_DATA)")
    parser.add_argument("--partial", action="store_true", help="accept a file that lacks some of the weights")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="K=V", help="change values of the config")
    parser.add_argument("--shots", action="store_true", help="count the config's training images: many, medium, few")
    parser.add_argument("--train-counts", type=int, nargs="+", metavar="N", help="training images of each class")
    parser.add_argument("--bins", type=int, default=10, help="bins of the calibration error (default: 10)")
    parser.add_argument("--per-class", action="store_true", help="print accuracy, precision and F1 of every class")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measures and curves there")
    parser.add_argument("--save", type=Path, metavar="FILE.npz", help="write the predictions there")
    parser.add_argument(
        "--plots", type=Path, metavar="FOLDER", help="write reliability.png and risk_coverage.png there"
    )
    options = parser.parse_args(arguments)
    if (options.config is None) != (options.checkpoint is None):
        parser.error("--config and --checkpoint go together")
    try:
        judged: Any = options.predictions if options.config is None else _predict(options)
        result = evaluate(judged, train_counts=options.train_counts, bins=options.bins)
    except (LimbeckError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(result))
    if options.per_class:
        print(per_class_table(result))
    if options.json:
        if math.isinf(result["nll"]):
            result["nll"] = None  # JSON knows no infinity
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if options.plots:
        name = (options.predictions or options.checkpoint[0]).stem
        draw_reliability({name: Reliability(**result["reliability"])}, options.plots / "reliability.png")
        draw_risk_coverage({name: RiskCoverage(**result["risk_coverage"])}, options.plots / "risk_coverage.png")
    return 0


def _predict(options: argparse.Namespace) -> dict[str, Any]:
    fields = predict_checkpoint(
        options.config,
        options.checkpoint,
        count_training_images=options.shots,
        partial=options.partial,
        data_root=options.data_root,
        overrides=options.cfg_options,
    )
    if options.save:
        options.save.parent.mkdir(parents=True, exist_ok=True)
        np.savez(options.save, **fields)
    return fields


if __name__ == "__main__":
    sys.exit(main())
