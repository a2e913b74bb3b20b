"""Judge what an encoder's features know of labelled tiles: nearest neighbours and a linear probe.

    python tools/eval_medical_features.py --config medical/gpfm/tiles --checkpoint work_dirs/tiles/student.pth \
        --tiles DATA/tiles --train labelled --test test

DATA/tiles/labelled and DATA/tiles/test hold one folder for each class. Where the run kept a moving average, which is
what GPFM is for, that is taken. --random judges the model as it is drawn, without any checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from limbeck_core.build import build
from limbeck_core.engine.config import load_config
from limbeck_core.engine.export import student_alone
from limbeck_core.engine.quickstart import text_table
from limbeck_core.errors import LimbeckError
from limbeck_medical.gpfm import TileFolder, embed, probe


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, embed, probe, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="CONFIG", help="whose model.student gives features")
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--checkpoint", type=Path, metavar="FILE")
    weights.add_argument("--random", type=int, metavar="SEED", help="no checkpoint: weights drawn from this seed")
    parser.add_argument("--tiles", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--train", default="train", metavar="PART", help="folder inside, which votes (default: train)")
    parser.add_argument("--test", default="test", metavar="PART", help="folder inside, which is asked (default: test)")
    parser.add_argument("--size", type=int, default=48, help="side of the tiles in pixels (default: 48)")
    parser.add_argument("--neighbours", type=int, default=20)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measures there")
    options = parser.parse_args(arguments)
    try:
        settings = load_config(options.config, overrides=options.cfg_options)
        if options.checkpoint is None:
            torch.manual_seed(options.random)
            model, source = build(settings.model.student), f"drawn from seed {options.random}"
        else:
            alone = student_alone(settings, options.checkpoint)
            model, source = alone.model, alone.weights
        parts = [TileFolder(options.tiles, part=part, size=options.size) for part in (options.train, options.test)]
        train, test = (embed(model, part, num_workers=options.num_workers) for part in parts)
        found = probe(train, test, neighbours=options.neighbours)
    except (LimbeckError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"features of {source}; {len(parts[0])} tiles of {options.train}, {len(parts[1])} of {options.test}")
    print(text_table(("measure", "%"), [(name, f"{value:.2f}") for name, value in found.items()]))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(dict(found), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
