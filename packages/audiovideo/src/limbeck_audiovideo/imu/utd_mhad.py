"""The table of UTD-MHAD (depth video and a wrist sensor) from its file names.

    python -m limbeck_audiovideo.imu.utd_mhad FOLDER        (holds Depth/ and Inertial/; writes pairs.csv there)

Chen et al., UTD-MHAD: a multimodal dataset for human action recognition, ICIP 2015. Files are called
``a<action>_s<subject>_t<trial>_depth.mat`` and ``..._inertial.mat``. The sensor has 50 samples a second. The files do
not say how many frames a second the camera has; both last as long as the action, from which the table takes it (about
19).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from scipy.io import whosmat
from scipy.io.matlab import MatReadError

from limbeck_audiovideo.imu.pairs import Clip, write_table
from limbeck_core.errors import DataError

SAMPLES_A_SECOND = 50.0
_NAME = re.compile(r"a(\d+)_s(\d+)_t(\d+)_depth\.mat$")


def write_pairs(folder: str | Path) -> Path:
    """Write ``pairs.csv`` of the pairs in a folder.

    Args:
        folder: Holds ``Depth/`` and ``Inertial/``.

    Returns:
        The path of the table.

    Raises:
        DataError: if there is no pair, or a depth video lacks its recording.
    """
    folder = Path(folder)
    clips, alone = [], []
    for video in sorted(folder.glob("Depth/*_depth.mat")):
        match = _NAME.search(video.name)
        if not match:
            continue
        action, subject, trial = map(int, match.groups())
        imu = folder / "Inertial" / f"a{action}_s{subject}_t{trial}_inertial.mat"
        if imu.is_file():
            frames, samples = _length(video, 2), _length(imu, 0)
            rate = frames * SAMPLES_A_SECOND / samples
            clips.append(Clip(video, imu, label=f"a{action:02d}", subject=f"s{subject}", frame_rate=rate))
        else:
            alone.append(video.name)
    if alone:
        raise DataError(f"{len(alone)} depth videos of {folder} lack their recording in Inertial/: {alone[:5]}")
    if not clips:
        raise DataError(f"{folder} holds no Depth/a*_s*_t*_depth.mat: name the folder that UTD-MHAD was unpacked in")
    return write_table(folder / "pairs.csv", clips)


def _length(path: Path, axis: int) -> int:
    """Size of the first array of a mat file along an axis, without reading it."""
    try:
        return int(whosmat(str(path))[0][1][axis])
    except (OSError, ValueError, IndexError, MatReadError, NotImplementedError) as error:
        raise DataError(f"{path} is no readable mat file ({error}): unpack the data set again") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    try:
        path = write_pairs(parser.parse_args(arguments).folder)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
