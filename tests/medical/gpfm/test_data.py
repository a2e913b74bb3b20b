"""Tiles, views and masks: shapes, shares, and that a seed says everything."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limbeck_core.errors import DataError
from limbeck_medical.gpfm import TileFolder, TileViews, block_mask
from limbeck_medical.gpfm.rendering import main, render_tile, render_tiles


def test_folders_are_classes(tiles: Path) -> None:
    folder = TileFolder(tiles, part="test", size=32)
    assert folder.classes == ("large_ring", "large_scattered", "small_ring", "small_scattered")
    assert folder.num_classes == 4
    sample = folder[len(folder) - 1]
    assert sample["inputs"].shape == (3, 32, 32)
    assert 0 <= float(sample["inputs"].min()) < float(sample["inputs"].max()) <= 1
    assert (sample["targets"], sample["ids"]) == (3, len(folder) - 1)


def test_one_folder_without_classes(tiles: Path, tmp_path: Path) -> None:
    for path in sorted((tiles / "test" / "small_ring").iterdir())[:2]:
        shutil.copy(path, tmp_path)
    folder = TileFolder(tmp_path, size=48)
    assert (len(folder), folder.num_classes) == (2, 0)
    assert "targets" not in folder[0]


def test_views(tiles: Path) -> None:
    data = TileViews(tiles, part="train", global_size=24, local_size=16, local_views=3, patch=8, masked=1.0)
    sample = data[0]
    assert sample["global_views"].shape == (2, 3, 24, 24)
    assert sample["local_views"].shape == (3, 3, 16, 16)
    assert sample["masks"].shape == (2, 3, 3)
    assert sample["masks"].dtype == torch.bool
    assert "targets" not in sample
    assert not torch.equal(sample["global_views"][0], sample["global_views"][1])
    assert "local_views" not in TileViews(tiles, part="train", global_size=24, local_size=8, local_views=0, patch=8)[0]


def test_a_seed_says_everything_about_a_sample(tiles: Path) -> None:
    data = TileViews(tiles, part="train", global_size=24, local_size=16, local_views=2, patch=8)
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        found.append(data[5])
    assert all(torch.equal(found[0][name], found[1][name]) for name in ("global_views", "local_views", "masks"))
    assert not torch.equal(found[0]["global_views"], found[2]["global_views"])


def test_how_often_and_how_much_is_hidden(tiles: Path) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"part": "train", "global_size": 48, "local_size": 8, "local_views": 0, "patch": 4}
    masks = torch.stack([TileViews(tiles, **options)[0]["masks"] for _ in range(40)]).flatten(0, 1)
    shares = masks.flatten(1).float().mean(1)
    hidden = shares[shares > 0]
    assert 0.3 < len(hidden) / len(shares) < 0.7
    assert 0.09 < float(hidden.min()) < float(hidden.max()) < 0.51
    assert float(TileViews(tiles, **options, masked=0.0)[0]["masks"].sum()) == 0


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.3, 0.5, 1.0])
def test_a_mask_has_the_share_asked_for(ratio: float) -> None:
    torch.manual_seed(1)
    for grid in ((6, 6), (16, 16), (2, 9)):
        mask = block_mask(grid, ratio)
        assert tuple(mask.shape) == grid
        assert int(mask.sum()) == round(ratio * grid[0] * grid[1])


def test_masks_are_blocks() -> None:
    """Of a third hidden patch by patch, a third of the neighbours would be hidden, too."""
    torch.manual_seed(2)
    masks = torch.stack([block_mask((12, 12), 1 / 3) for _ in range(30)])
    beside = masks[:, :, :-1] & masks[:, :, 1:]
    assert float(beside.float().mean() / masks[:, :, :-1].float().mean()) > 0.6


def test_rendered_tiles_are_the_same_everywhere_and_no_part_repeats(tmp_path: Path) -> None:
    first = render_tile(3, size="small", arrangement="ring", seed=1)
    np.testing.assert_array_equal(first, render_tile(3, size="small", arrangement="ring", seed=1))
    assert not np.array_equal(first, render_tile(3, size="small", arrangement="ring", seed=2))
    for part in ("train", "test"):
        render_tiles(tmp_path, 4, part=part)
    pair = [TileFolder(tmp_path, part=part, size=48)[0]["inputs"] for part in ("train", "test")]
    assert not torch.equal(*pair)
    render_tiles(tmp_path, 4, part="size", by="size")
    assert TileFolder(tmp_path, part="size").classes == ("large", "small")
    # neither size of nuclei is darker
    means = [np.mean([render_tile(i, size=s, arrangement="scattered") for i in range(40)]) for s in ("small", "large")]
    assert abs(means[0] - means[1]) < 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_size": 50}, "global_size must be a multiple of the patch, 8, got 50: take 48"),
        ({"local_size": 4}, "local_size must be a multiple of the patch, 8, got 4: take 8"),
        ({"local_views": -1}, "local_views 0 or more"),
        ({"mask_ratio": (0.5, 0.1)}, "mask_ratio must be two shares in order, between 0 and 1, got .0.5, 0.1."),
        ({"masked": 2.0}, "masked must lie between 0.0 and 1.0, got 2.0"),
    ],
)
def test_wrong_options(tiles: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TileViews(tiles, part="train", **{"global_size": 48, "local_size": 24, "patch": 8, **options})


def test_folders_that_do_not_fit(tiles: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder .*/tets; of .*did you mean 'test'"):
        TileFolder(tiles, part="tets")
    with pytest.raises(DataError, match="holds no picture"):
        TileFolder(tmp_path)
    (tmp_path / "a").mkdir()
    for place in (tmp_path, tmp_path / "a"):
        (place / "damaged.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="holds 1 pictures beside the folders a"):
        TileFolder(tmp_path)
    with pytest.raises(DataError, match="damaged.png cannot be read as a picture"):
        TileFolder(tmp_path / "a")[0]
    with pytest.raises(ValueError, match="size must be 1 or more, got 0"):
        TileFolder(tiles, part="test", size=0)
    with pytest.raises(ValueError, match="size is one of"):
        render_tile(0, size="huge", arrangement="ring")
    with pytest.raises(ValueError, match="count must be 1 or more, got 0"):
        render_tiles(tmp_path, 0)


def test_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("limbeck_medical.gpfm.rendering.render_trial", lambda root, seed: seen.append((root, seed)))
    assert main([str(tmp_path), "--seed", "4"]) == 0
    assert seen == [(tmp_path, 4)]
