"""Cut the labelled objects out of frames in KITTI's layout, for :class:`~limbeck_detection.data.PasteObjects`.

python -m limbeck_detection.data.database ROOT --split train
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from limbeck_core.errors import LimbeckError
from limbeck_detection.data.kitti import CLASSES, KittiFrames
from limbeck_detection.data.lidar_transforms import DATABASE, cut_objects


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the database of a data set; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m limbeck_detection.data.database",
        description="Cut labelled objects out of KITTI frames.",
    )
    parser.add_argument("root", type=Path, help="folder of the data set, in KITTI's layout; receives object_database/")
    parser.add_argument("--split", help="name of a list in ImageSets (default: every labelled frame)")
    parser.add_argument("--folder", default="training", help="folder of the frames (default: training)")
    parser.add_argument("--velodyne", default="velodyne", help="folder of the points in there (default: velodyne)")
    parser.add_argument("--classes", nargs="+", default=list(CLASSES), metavar="NAME")
    parser.add_argument("--out", type=Path, help="another folder for the database")
    options = parser.parse_args(arguments)
    try:
        frames = KittiFrames(
            options.root,
            split=options.split,
            folder=options.folder,
            velodyne=options.velodyne,
            classes=options.classes,
        )
        database = cut_objects(frames)
        folder = database.save(options.out or options.root / DATABASE)
    except (LimbeckError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    counts = ", ".join(f"{database.names.count(name)} {name}" for name in options.classes)
    print(f"{folder}: {counts} of {len(frames)} frames")
    return 0


if __name__ == "__main__":
    sys.exit(main())
