"""Judge segmentations by structure: Dice, HD95, average surface distance, volume error, with bootstrap intervals.

Label maps from anyone, matched by name (CASE.nii.gz, CASE.png):

    python tools/eval_medical.py --predictions OUT --labels DATA/labelsTr --classes background anterior posterior

or a checkpoint of limbeck over the test cases of its config, whose label maps are written into the folder OUT first:

    python tools/eval_medical.py --config medical/hippocampus/unet_dsd --checkpoint student.pth --data-root DATA \
        --predictions OUT

Distances are in millimetres, on the grid of the files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from limbeck_core.errors import LimbeckError
from limbeck_medical.evaluation import Pair, evaluate_files, pair_files, table
from limbeck_medical.inference import predict_files


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, predict if asked, evaluate, print a table, write JSON and pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", required=True, type=Path, metavar="FOLDER", help="of label maps")
    parser.add_argument("--labels", type=Path, metavar="FOLDER", help="true label maps of the same names")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="images, for --pictures")
    parser.add_argument("--config", metavar="CONFIG", help="predict its test cases first, with --checkpoint")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE")
    parser.add_argument("--data-root", type=Path, metavar="FOLDER")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="by label, the background first")
    parser.add_argument("--label-values", nargs="+", type=int, metavar="V", help="in the files, by class: 0 255")
    parser.add_argument("--missing-distance", choices=("exclude", "diagonal"), default="exclude")
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measures of all cases there")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="write slices with outlines there")
    options = parser.parse_args(arguments)
    if (options.config is None) == (options.labels is None) or (options.config is None) != (options.checkpoint is None):
        parser.error("give either --labels, or --config with --checkpoint")
    try:
        pairs, classes = _files(options)
        result = evaluate_files(
            pairs,
            classes,
            label_values=options.label_values,
            missing_distance=options.missing_distance,
            confidence=options.confidence,
            pictures=options.pictures,
        )
    except (LimbeckError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(result))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def _files(options: argparse.Namespace) -> tuple[list[Pair], tuple[str, ...]]:
    if options.config is None:
        pairs, known = pair_files(options.predictions, options.labels, options.images), tuple[str, ...]()
    else:
        pairs, known = predict_files(
            options.config,
            options.checkpoint,
            options.predictions,
            data_root=options.data_root,
            overrides=options.cfg_options,
        )
    classes = tuple(options.classes or known)
    if not classes:
        raise LimbeckError("no file names the classes: give --classes, by label, the background first")
    return pairs, classes


if __name__ == "__main__":
    sys.exit(main())
