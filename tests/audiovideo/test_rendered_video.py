"""Rendered clips: seeded, in EchoNet-Dynamic's layout, with classes that show what they should and nothing more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from limbeck_audiovideo.rendered_video import MOTIONS, SHAPES, draw_clip, main, render_video
from limbeck_audiovideo.video import Clip, Videos
from limbeck_core.errors import ConfigError


def centre_of_light(frame: np.ndarray) -> np.ndarray:
    bright = np.where(frame > 120, frame.astype(float), 0)
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]]
    return np.array([(y * bright).sum(), (x * bright).sum()]) / bright.sum()


def test_the_layout_is_that_of_echonet(tmp_path: Path) -> None:
    render_video(tmp_path, train=24, test=12, frames=4)
    options = dict(table="FileList.csv", file_column="FileName", videos="Videos", clip=Clip(4, 0.04), grey=True)
    data = Videos(tmp_path, labels=("motion", "shape"), split_column="Split", **options)  # type: ignore[arg-type]
    assert len(data) == 36
    assert data.classes == {"motion": sorted(MOTIONS), "shape": sorted(SHAPES)}
    assert data[0]["inputs"].shape == (1, 4, 32, 32)
    assert [data[number]["split"] for number in (0, 23, 24)] == ["TRAIN", "TRAIN", "TEST"]
    combinations = {
        (int(m), int(s)) for m, s in zip(data.targets["motion"][:12], data.targets["shape"][:12], strict=True)
    }
    assert len(combinations) == 12, "every motion with every shape"


def test_the_same_seed_draws_the_same_clips(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        render_video(tmp_path / name, train=2, test=1, frames=2, seed=seed)
    first, again, other = ((tmp_path / name / "Videos" / "train00001.avi").read_bytes() for name in "abc")
    assert first == again != other


@pytest.mark.parametrize("shape", SHAPES)
def test_chambers_move_where_their_class_says(shape: str) -> None:
    expected = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
    for motion in MOTIONS:
        clip = draw_clip(np.random.default_rng(1), motion, shape, size=64, frames=8)
        moved = centre_of_light(clip[-1]) - centre_of_light(clip[0])
        assert moved @ np.array(expected[motion]) > 10
        assert abs(moved @ np.array(expected[motion])[::-1]) < 5


def test_what_cannot_be_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="size of 16 or more"):
        render_video(tmp_path, size=8)
    with pytest.raises(ConfigError, match="motion must be one of"):
        draw_clip(np.random.default_rng(0), "still", "round")
    assert main([str(tmp_path), "--train", "0"]) == 1
    assert "error: rendering needs" in capsys.readouterr().err
    assert main([str(tmp_path), "--train", "1", "--test", "1"]) == 0
