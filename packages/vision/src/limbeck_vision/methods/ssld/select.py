"""Choose the images of an unlabelled pool that a config's teacher is surest of, and write their numbers to a file.

python -m limbeck_vision.methods.ssld.select CONFIG POOL --per-class 4000 --size 224 --out selection.txt
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from limbeck_core.build import build
from limbeck_core.engine.config import load_config
from limbeck_core.errors import ConfigError, LimbeckError
from limbeck_vision.data import Unlabelled, center_crop
from limbeck_vision.methods.ssld.selection import score_images, select_per_class, write_selection


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="select", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("config", help="config whose teacher scores the pool")
    parser.add_argument("pool", type=Path, help="folder of unlabelled images")
    parser.add_argument("--per-class", type=int, required=True, help="largest number of images of a class")
    parser.add_argument("--size", type=int, default=224, help="height and width of what the teacher sees")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("selection.txt"))
    options = parser.parse_args(arguments)
    try:
        settings = load_config(options.config)
        teacher = build(settings.model.get("teacher"))
        if teacher is None:
            raise ConfigError(f"{options.config} has no teacher to score the pool with: name a config that has one")
        model = getattr(teacher, "model", teacher)
        pool = Unlabelled(options.pool, transform=center_crop(options.size))
        scores = score_images(model, pool, batch_size=options.batch_size, device=options.device)
        chosen = select_per_class(scores, options.per_class)
        write_selection(options.out, pool.ids[chosen.numpy()])
    except (LimbeckError, ValueError) as error:
        print(f"select: {error}", file=sys.stderr)
        return 2
    print(f"{len(chosen)} of {len(pool)} images, {len(set(scores[chosen].argmax(1).tolist()))} classes: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
