"""Judge a detector by COCO's average precision, from its predictions or from a checkpoint.

    python tools/eval_detection.py --predictions found.json --annotations instances_val2017.json --json result.json
    python tools/eval_detection.py --config detection/dfine/dfine_n_coco --checkpoint student.pth --data-root DATA

Predictions are a JSON list in COCO's result format: image_id, category_id, bbox (x, y, width, height in pixels), score.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from limbeck_core.errors import LimbeckError
from limbeck_detection.evaluation import evaluate, evaluate_checkpoint, table


def main(arguments: list[str] | None = None) -> int:
    """Parse, evaluate, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=Path, metavar="FILE.json")
    parser.add_argument("--annotations", type=Path, metavar="FILE.json", help="COCO annotations of the same images")
    parser.add_argument("--config", metavar="CONFIG", help="a config whose test data and model are judged instead")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE.pth", help="weights of that config's student")
    parser.add_argument("--data-root", type=Path, metavar="FOLDER")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parser.parse_args(arguments)
    from_file = options.predictions is not None and options.annotations is not None
    from_run = options.config is not None and options.checkpoint is not None
    if from_file == from_run:
        parser.error("give --predictions and --annotations, or --config and --checkpoint")
    try:
        if from_file:
            result = evaluate(options.predictions, options.annotations)
        else:
            result = evaluate_checkpoint(options.config, options.checkpoint, data_root=options.data_root)
    except LimbeckError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(result))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
