"""Bags that the package draws itself, in the layout of XD-Violence.

    python -m limbeck_audiovideo.macil_sd.rendered_bags FOLDER --seed 0

A violent bag holds an event of ten snippets that shows in both modalities, its sound three to six snippets later.
Normal bags, and the rest of violent ones, hold bursts that look like the event in one modality alone. Features are
noise around these signatures: 32 numbers a snippet for video, 16 for audio.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from limbeck_audiovideo.macil_sd.model import FRAMES_A_SNIPPET
from limbeck_core.errors import ConfigError

VISUAL_DIM, AUDIO_DIM, SNIPPETS, EVENT = 32, 16, 48, 10
_STRENGTH = 0.9  # of a signature, in standard deviations of the noise along each direction of it


def render(folder: str | Path, *, train: int = 200, test: int = 100, seed: int = 0) -> Path:
    """Write features, lists and the truth of test frames.

    Args:
        folder: Receives ``features/``, ``rgb.list``, ``audio.list``, ``rgbtest.list``, ``audiotest.list`` and
            ``gt.npy``.
        train: Number of training bags, half of them violent.
        test: Number of test bags.
        seed: Draws the same files each time.

    Returns:
        The folder.

    Raises:
        ConfigError: if a number is out of range.
    """
    if train < 2 or test < 2 or seed < 0:
        raise ConfigError(
            f"rendering needs 2 bags or more of each part and a seed of 0 or more, got {train}, {test}, {seed}"
        )
    folder = Path(folder)
    (folder / "features").mkdir(parents=True, exist_ok=True)
    signatures = np.random.default_rng([seed, 2])
    visual_mark, audio_mark = signatures.normal(size=VISUAL_DIM), signatures.normal(size=AUDIO_DIM)
    truth = []
    for part, (ending, count) in enumerate((("", train), ("test", test))):
        lists: dict[str, list[str]] = {"rgb": [], "audio": []}
        for number in range(count):
            rng = np.random.default_rng([seed, part, number])
            violent = number % 2 == 1
            visual = rng.normal(size=(SNIPPETS, VISUAL_DIM))
            audio = rng.normal(size=(SNIPPETS, AUDIO_DIM))
            frames = np.zeros(SNIPPETS)
            if violent:
                start = int(rng.integers(0, SNIPPETS - EVENT - 6))
                later = start + int(rng.integers(3, 7))
                visual[start : start + EVENT] += _STRENGTH * visual_mark
                audio[later : later + EVENT] += _STRENGTH * audio_mark
                frames[start : later + EVENT] = 1
            for features, mark in ((visual, visual_mark), (audio, audio_mark)):
                if rng.random() < 0.5:
                    place = int(rng.integers(0, SNIPPETS - 4))
                    features[place : place + 4] += _STRENGTH * mark
            stem = f"v{part}_{number:04d}__label_{'B1' if violent else 'A'}"
            for name, features in ((f"{stem}__0.npy", visual), (f"{stem}__vggish.npy", audio)):
                np.save(folder / "features" / name, features.astype(np.float32))
            lists["rgb"].append(f"features/{stem}__0.npy")
            lists["audio"].append(f"features/{stem}__vggish.npy")
            if ending:
                truth.append(frames.repeat(FRAMES_A_SNIPPET))
        for name, lines in lists.items():
            (folder / f"{name}{ending}.list").write_text("\n".join(lines) + "\n", encoding="utf-8")
    np.save(folder / "gt.npy", np.concatenate(truth))
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the data set that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        folder = render(options.folder, seed=options.seed)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"300 bags in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
