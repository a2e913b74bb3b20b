"""Judge key points: COCO-WholeBody's average precision, PCK and NME, of people that anyone found or of a checkpoint.

    python tools/eval_pose.py --predictions found.json --annotations coco_wholebody_val_v1.0.json --json result.json
    python tools/eval_pose.py --predictions found.json --annotations person_keypoints_val2017.json --layout body
    python tools/eval_pose.py --config pose/dwpose/l_m_stage1 --checkpoint F.pth --data-root DATA --flip-test

Predictions are a JSON list in COCO's result format: image_id, score, and keypoints (x, y in pixels and score of each
point), in one list or in COCO-WholeBody's five. PCK and NME pair true and found people by similarity; both are in
per cent, NME and the threshold of PCK relative to the larger side of the person's box.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from limbeck_core.engine import commands
from limbeck_core.engine.config import parse_override
from limbeck_core.errors import LimbeckError
from limbeck_pose.calls import FlipTest
from limbeck_pose.data.people import read_image, read_json, triples_of
from limbeck_pose.evaluation import draw_people, evaluate, table, write_picture
from limbeck_pose.keypoints import LAYOUTS, Layout


def main(arguments: list[str] | None = None) -> int:
    """Parse, evaluate, print a table, write JSON and pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=Path, metavar="FILE.json", help="people of anyone")
    parser.add_argument("--annotations", type=Path, metavar="FILE.json", help="annotations of the same images")
    parser.add_argument("--layout", choices=sorted(LAYOUTS), default="whole-body", help="default: whole-body")
    parser.add_argument("--config", metavar="C", help="a config whose test data and model are judged instead")
    parser.add_argument("--checkpoint", type=Path, metavar="F", help="weights of that config's student")
    parser.add_argument("--data-root", type=Path, metavar="D", help="folder of the data sets (default: $LIMBECK_DATA)")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="K=V", help="change values of the config")
    parser.add_argument("--pck", type=float, default=0.05, metavar="T", help="threshold of PCK (default: 0.05)")
    parser.add_argument("--flip-test", action="store_true", help="mean of each crop's and its mirrored crop's scores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--save", type=Path, metavar="FILE.json", help="write the people of the checkpoint there")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="images of the predictions, for --pictures")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw the predicted people there")
    options = parser.parse_args(arguments)
    from_file = options.predictions is not None and options.annotations is not None
    from_run = options.config is not None and options.checkpoint is not None
    if from_file == from_run:
        parser.error("give --predictions and --annotations, or --config and --checkpoint")
    if options.pictures and not (from_file and options.images):
        parser.error("--pictures needs --predictions, --annotations and --images")
    if options.flip_test and not from_run:
        parser.error("--flip-test needs --config and --checkpoint")
    layout = LAYOUTS[options.layout]
    try:
        if from_file:
            figures: dict[str, Any] = evaluate(options.predictions, options.annotations, layout, threshold=options.pck)
        else:
            overrides = dict(map(parse_override, options.cfg_options)) | {"+log_level": "ERROR"}
            if options.save:
                overrides["+test_evaluator.results"] = str(options.save)
            if options.flip_test:
                overrides |= {
                    "+model.call.type": f"{FlipTest.__module__}.{FlipTest.__name__}",
                    "+model.call.layout": options.layout,
                }
            figures = commands.evaluate(
                options.config, options.checkpoint, data_root=options.data_root, overrides=overrides
            )
        if options.pictures:
            _draw(options, layout)
    except (LimbeckError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if from_file or any(name.endswith("/AP") for name in figures):
        print(table(figures))
    else:
        print("\n".join(f"{name}  {value:.2f}" for name, value in figures.items()))
    if figures.get("found") is not None:
        print(f"{figures['found']:.1f} % of the true people have a found one beside them")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def _draw(options: argparse.Namespace, layout: Layout) -> None:
    files = {image["id"]: image["file_name"] for image in read_json(options.annotations)["images"]}
    people: dict[Any, list[Any]] = {}
    for result in read_json(options.predictions):
        people.setdefault(result["image_id"], []).append(result)
    for image_id, results in people.items():
        tables = [triples_of(result, layout) for result in results]
        drawn = [(table[:, :2], table[:, 2]) for table in tables]
        image = read_image(options.images / files[image_id])
        write_picture(draw_people(image, drawn, layout), options.pictures / f"{Path(files[image_id]).stem}.png")


if __name__ == "__main__":
    sys.exit(main())
