"""Judge a detector of lidar points as KITTI does, from files of results of anyone or from a checkpoint.

    python tools/eval_kitti.py --labels training/label_2 --results found --split ImageSets/val.txt --json result.json
    python tools/eval_kitti.py --config detection/pointpillars/pointpillars_4x_kitti --checkpoint F.pth
        --data-root KITTI --save found --pictures pictures

Results are one text file a frame in KITTI's format: a label with a score behind it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from limbeck_core.engine import commands
from limbeck_core.errors import LimbeckError
from limbeck_detection.data.kitti import CLASSES
from limbeck_detection.evaluation import evaluate_kitti_folders, kitti_table
from limbeck_detection.evaluation.kitti import Overlaps


def main(arguments: list[str] | None = None) -> int:
    """Parse, evaluate, print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, metavar="FOLDER", help="label files of KITTI")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="files of results, one a frame")
    parser.add_argument("--split", type=Path, metavar="FILE", help="names of the frames (default: all with labels)")
    parser.add_argument("--classes", nargs="+", metavar="NAME", default=list(CLASSES), help="of files of results")
    parser.add_argument("--config", metavar="CONFIG", help="a config whose test data and model are judged instead")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE.pth", help="weights of that config's student")
    parser.add_argument("--data-root", type=Path, metavar="FOLDER", help="of the data set (default: $LIMBECK_DATA)")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="K=V", help="change values of the config")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write what the checkpoint finds there")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw its first frames there, from above")
    parser.add_argument("--loose", action="store_true", help="overlaps of 0.5 and 0.25 from above and in space")
    parser.add_argument("--average", choices=("AP40", "AP11"), default="AP40", help="what is printed (default: AP40)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parser.parse_args(arguments)
    from_files = options.labels is not None and options.results is not None
    from_run = options.config is not None and options.checkpoint is not None
    if from_files == from_run:
        parser.error("give --labels and --results, or --config and --checkpoint")
    overlaps: Overlaps = "loose" if options.loose else "strict"
    try:
        if from_files:
            result = evaluate_kitti_folders(
                options.labels, options.results, split=options.split, classes=options.classes, overlaps=overlaps
            )
        else:
            overrides = [*options.cfg_options, "+log_level=ERROR", f"+test_evaluator.overlaps={overlaps}"]
            overrides += ["+test_evaluator.views=['3d','bev','2d','aos']", "+test_evaluator.averages=['AP40','AP11']"]
            overrides += [f"+test_evaluator.results={options.save}"] if options.save else []
            overrides += [f"+test_evaluator.pictures={options.pictures}"] if options.pictures else []
            result = commands.evaluate(
                options.config, options.checkpoint, data_root=options.data_root, overrides=overrides
            )
    except LimbeckError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    judged = {name: value for name, value in result.items() if name.count("/") == 3}  # without those of a teacher
    print(kitti_table(judged, average=options.average))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
