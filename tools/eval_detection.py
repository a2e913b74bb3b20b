"""Judge a detector by COCO's average precision, from its predictions or from a checkpoint.

    python tools/eval_detection.py --predictions found.json --annotations instances_val2017.json --json result.json
    python tools/eval_detection.py --config detection/dfine/dfine_n_coco --checkpoint student.pth --data-root DATA \\
        --pictures pictures --speed --write-predictions found.json

Predictions are a JSON list in COCO's result format: image_id, category_id, bbox (x, y, width, height in pixels), score.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from limbeck_core.errors import LimbeckError
from limbeck_detection.evaluation import (
    Judged,
    draw_detections,
    draw_precision_recall,
    evaluate_with_curves,
    judge_checkpoint,
    table,
)

SHOWN = 6  # images in the picture


def main(arguments: list[str] | None = None) -> int:
    """Parse, evaluate, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=Path, metavar="FILE.json")
    parser.add_argument("--annotations", type=Path, metavar="FILE.json", help="COCO annotations of the same images")
    parser.add_argument("--config", metavar="CONFIG", help="a config whose test data and model are judged instead")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE.pth", help="weights of that config's student")
    parser.add_argument("--data-root", type=Path, metavar="FOLDER")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="precision over recall; boxes found and true")
    parser.add_argument("--speed", action="store_true", help="latency and throughput of a checkpoint on this machine")
    parser.add_argument("--write-predictions", type=Path, metavar="FILE.json", help="what a checkpoint found")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parser.parse_args(arguments)
    from_file = options.predictions is not None and options.annotations is not None
    from_run = options.config is not None and options.checkpoint is not None
    if from_file == from_run:
        parser.error("give --predictions and --annotations, or --config and --checkpoint")
    if from_file and (options.speed or options.write_predictions):
        parser.error("--speed and --write-predictions need a detector: give --config and --checkpoint")
    try:
        if from_file:
            result, curves = evaluate_with_curves(options.predictions, options.annotations)
            judged = Judged(result, [], (), curves)
        else:
            judged = judge_checkpoint(
                options.config,
                options.checkpoint,
                data_root=options.data_root,
                show=SHOWN if options.pictures else 0,
                speed=options.speed,
            )
            result = judged.result
        if options.pictures:
            draw(judged, options.pictures)
    except LimbeckError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(result))
    if judged.speed is not None:
        print(judged.speed.text())
        result = {**result, "speed": asdict(judged.speed)}
    if options.write_predictions:
        options.write_predictions.parent.mkdir(parents=True, exist_ok=True)
        options.write_predictions.write_text(json.dumps(judged.predictions), encoding="utf-8")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def draw(judged: Judged, folder: Path) -> None:
    """Write the pictures and say where."""
    written = [draw_precision_recall(judged.curves, folder / "precision_recall.png")] if judged.curves else []
    if judged.shown:
        rows = {side: [image[side] for image in judged.shown] for side in ("truth", "found")}
        images = [image["image"] for image in judged.shown]
        written.append(draw_detections(images, rows, folder / "detections.png", classes=judged.classes, threshold=0.3))
    for path in written:
        print(path)


if __name__ == "__main__":
    sys.exit(main())
