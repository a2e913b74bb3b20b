"""Rendered hands, their data sets, views that move everything alike, and how hands are judged."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from limbeck_core.errors import ConfigError, DataError
from limbeck_pose.hand_adaptation import HandAugmentation, HandMetric, HandPairs, Hands
from limbeck_pose.hand_adaptation.rendered import draw, main, render
from limbeck_pose.hand_adaptation.views import inside, move_masks, move_points
from limbeck_pose.heatmap import Heatmap

CODEC = Heatmap((64, 64), sigma=2.0, stride=2)


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("hands"), train=3, val=2)


def test_same_seed_same_files_and_bad_numbers(hands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--train", "3", "--val", "2"]) == 0
    for file in ("source/train/hands.json", "target/test/images/00001.png", "target/train/masks/00002.png"):
        assert (tmp_path / file).read_bytes() == (hands / file).read_bytes()
    assert main([str(tmp_path), "--size", "20"]) == 1
    assert "a size of 48 or more" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="train=0"):
        render(tmp_path, train=0)


@pytest.mark.parametrize("shifted", [False, True])
def test_key_points_lie_on_the_mask(shifted: bool) -> None:
    picture, mask, points = draw(np.random.default_rng(3), 64, shifted=shifted)
    assert picture.shape == (64, 64, 3)
    assert points.shape == (21, 2)
    assert (mask[np.rint(points[:, 1]).astype(int), np.rint(points[:, 0]).astype(int)] > 0).mean() > 0.9
    assert 0.05 < (mask > 0).mean() < 0.6


@pytest.mark.parametrize("seed", range(4))
def test_views_move_image_points_and_mask_alike(seed: int) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    spot = np.array([30.0, 22.0])
    cv2.circle(image, (30, 22), 4, (255, 255, 255), -1)
    mask = torch.from_numpy(image[..., 0] / 255.0)[None, None]
    np.random.seed(seed)
    view = HandAugmentation(mirror=0.5, move=1.0, rotation=30.0, shift=0.1, blur=0.0, paint=0.0, holes=0.0).draw(image)
    matrix = torch.from_numpy(view.matrix)[None]
    moved = move_masks(mask, matrix, torch.from_numpy(view.keep)[None])[0, 0]
    assert np.abs(moved.numpy() * 255 - view.image[..., 0]).mean() < 0.5
    rows, columns = np.mgrid[:48, :64]
    total = view.image[..., 0].astype(float)
    centre = [(total * columns).sum() / total.sum(), (total * rows).sum() / total.sum()]
    assert np.allclose(move_points(torch.from_numpy(spot)[None, None], matrix)[0, 0], centre, atol=0.3)


def test_holes_are_in_the_image_and_in_the_mask() -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    np.random.seed(1)
    view = HandAugmentation(mirror=0.0, move=0.0, blur=0.0, paint=0.0, holes=1.0).draw(image)
    assert 0 < (~view.keep).mean() < 0.3
    assert len(np.unique(view.image[~view.keep].reshape(-1, 3), axis=0)) == 1
    assert (view.image[view.keep] == image[view.keep]).all()
    moved = move_masks(torch.ones(1, 1, 64, 64), torch.from_numpy(view.matrix)[None], torch.from_numpy(view.keep)[None])
    assert torch.equal(moved[0, 0] > 0.5, torch.from_numpy(view.keep))


def test_points_that_leave_the_view_do_not_count() -> None:
    points = torch.tensor([[[0.0, 0.0], [-0.1, 3.0], [7.0, 3.0], [7.1, 3.0]]])
    assert inside(points, (4, 8)).tolist() == [[True, False, True, False]]


def test_items(hands: Path) -> None:
    item = Hands(hands / "target/val", codec=CODEC)[1]
    assert [target.shape for target in item["targets"]] == [(21, 32, 32), (21,), (1, 64, 64)]
    assert item["inputs"].dtype == torch.uint8
    assert item["targets"][1].all()
    np.random.seed(0)
    pair = HandPairs(hands / "source/train", hands / "target/train", codec=CODEC, augmentation=HandAugmentation())[0]
    assert set(pair) == {"inputs", "targets", "target", "views"}
    assert set(pair["views"]) == {"student", "first", "second"}
    assert not torch.equal(pair["views"]["first"]["inputs"], pair["views"]["second"]["inputs"])


def test_a_mask_that_is_missing_is_told(hands: Path, tmp_path: Path) -> None:
    folder = render(tmp_path, train=1, val=1) / "source" / "train"
    (folder / "masks" / "00000.png").unlink()
    with pytest.raises(DataError, match="must be a mask of the size of"):
        Hands(folder, codec=CODEC)[0]


def test_judged_by_hand(hands: Path) -> None:
    items = [Hands(hands / "target/val", codec=CODEC)[number] for number in range(2)]
    batch = {"hand": {name: [item["hand"][name] for item in items] for name in items[0]["hand"]}}
    heatmaps = torch.stack([item["targets"][0] for item in items])
    logits = torch.stack([item["targets"][2] for item in items]) * 20 - 10
    metric = HandMetric(CODEC, pixels=10.0)
    metric.process(batch, [heatmaps, logits])
    figures = metric.evaluate(size=2)
    assert figures["iou"] == 100.0
    assert figures["error"] < 1.0
    assert figures["auc"] > 90
    assert figures["score"] == pytest.approx((figures["auc"] + 100) / 2)
    metric = HandMetric(CODEC, pixels=10.0)
    metric.process(batch, [heatmaps, torch.stack([logits[0], torch.full_like(logits[1], -9.0)])])
    assert metric.evaluate(size=2)["iou"] == 50.0, "a mask that is missed counts as 0"
    with pytest.raises(DataError, match="needs 'hand' in the batch, it has inputs"):
        metric.process({"inputs": None}, [heatmaps, logits])
