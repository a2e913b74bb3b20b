"""The figures that the package draws: files in COCO's format, the same ones for the same seed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from limbeck_core.errors import ConfigError
from limbeck_pose.data import People, read_people
from limbeck_pose.rendered import CHAIN, NEVER, draw, main, render
from limbeck_pose.simcc import SimCC


def test_same_seed_same_files(tmp_path: Path) -> None:
    one, two = (render(tmp_path / name, train=3, val=2, seed=5) for name in ("one", "two"))
    for file in ("train.json", "train_full.json", "val.json", "train/00002.png", "val/00001.png"):
        assert (one / file).read_bytes() == (two / file).read_bytes()
    other = render(tmp_path / "other", train=3, val=2, seed=6)
    assert (one / "train.json").read_bytes() != (other / "train.json").read_bytes()


def test_some_key_points_are_never_labelled_for_the_student(tmp_path: Path) -> None:
    folder = render(tmp_path, train=60, val=1)
    sparse = np.stack([p.visible for p in read_people(folder / "train.json", folder / "train", CHAIN)])
    full = np.stack([p.visible for p in read_people(folder / "train_full.json", folder / "train", CHAIN)])
    assert full.all()
    assert not sparse[:, list(NEVER)].any()
    assert 0.3 < np.delete(sparse, NEVER, 1).mean() < 0.5


def test_key_points_lie_on_their_discs() -> None:
    picture, points = draw(np.random.default_rng(1), 64)
    assert ((points >= 0) & (points < 64)).all()
    colours = np.stack([picture[round(y), round(x)] for x, y in points]).astype(float)
    assert (colours.max(1) - colours.min(1) > 60).all(), "discs of figures are bright, the ground is dull"


def test_items_of_the_data_set(tmp_path: Path) -> None:
    render(tmp_path, train=2, val=1)
    people = People("train_full.json", images="train", root=tmp_path, codec=SimCC((64, 64)), layout=CHAIN)
    item = people[1]
    assert item["inputs"].shape == (3, 64, 64)
    assert [value.shape for value in item["targets"]] == [(10, 128), (10, 128), (10,)]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "figures"), "--train", "2", "--val", "1"]) == 0
    assert "3 images" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "figures" / "val.json").read_text())["images"]) == 1
    assert main([str(tmp_path), "--train", "0"]) == 1
    assert "train=0" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="size of 64 or more"):
        render(tmp_path, size=32)
