"""Judge a classifier's predictions: accuracy, calibration, ranking by confidence.

    python tools/eval_vision.py --predictions predictions.npz --json result.json --plots pictures/

The file holds ``targets`` (N,) and ``logits`` or ``probabilities`` (N, C), and optionally ``class_names`` and
``train_counts`` (C,); ``numpy.savez(path, logits=..., targets=...)`` writes it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

from limbeck_core.errors import LimbeckError
from limbeck_vision.evaluation import (
    Reliability,
    RiskCoverage,
    draw_reliability,
    draw_risk_coverage,
    evaluate,
    table,
)


def main(arguments: list[str] | None = None) -> int:
    """Parse, evaluate, print a table, write JSON and pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", required=True, type=Path, metavar="FILE.npz")
    parser.add_argument("--train-counts", type=int, nargs="+", metavar="N", help="training images of each class")
    parser.add_argument("--bins", type=int, default=10, help="bins of the calibration error (default: 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measures and curves there")
    parser.add_argument(
        "--plots", type=Path, metavar="FOLDER", help="write reliability.png and risk_coverage.png there"
    )
    options = parser.parse_args(arguments)
    try:
        result = evaluate(options.predictions, train_counts=options.train_counts, bins=options.bins)
    except (LimbeckError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(result))
    if options.json:
        if math.isinf(result["nll"]):
            result["nll"] = None  # JSON knows no infinity
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if options.plots:
        name = options.predictions.stem
        draw_reliability({name: Reliability(**result["reliability"])}, options.plots / "reliability.png")
        draw_risk_coverage({name: RiskCoverage(**result["risk_coverage"])}, options.plots / "risk_coverage.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
