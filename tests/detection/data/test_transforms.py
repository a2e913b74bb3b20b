"""Boxes follow their image through every transform; the strong part ends where it should; sizes change by batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision import tv_tensors

from limbeck_core.engine.sampler import build_dataloader
from limbeck_core.errors import ConfigError, ShapeError
from limbeck_detection.data import DFINEAugmentation, StretchTo, detection_batch, multi_scale_batch, scales_around
from limbeck_detection.data.dataset import corners_in, in_units_of_the_image

HEIGHT, WIDTH = 48, 64


def sample(box: tuple[int, int, int, int] = (8, 12, 40, 36)) -> dict[str, Any]:
    """A white rectangle on black, and the box around it."""
    left, top, right, bottom = box
    image = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)
    image[:, top:bottom, left:right] = 255
    boxes = corners_in(torch.tensor([box], dtype=torch.float32), HEIGHT, WIDTH)
    return {"image": tv_tensors.Image(image), "boxes": boxes, "labels": torch.tensor([2])}


def seen(image: torch.Tensor) -> list[float]:
    """Corners of what is bright."""
    rows, columns = torch.nonzero(image.float().mean(0) > 127, as_tuple=True)
    return [float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1]


def test_stretching_scales_each_side_by_its_own_factor() -> None:
    found = StretchTo(96)(sample())
    torch.testing.assert_close(torch.as_tensor(found["boxes"])[0], torch.tensor([12.0, 24.0, 60.0, 72.0]))
    units = in_units_of_the_image(found["boxes"])
    torch.testing.assert_close(units, in_units_of_the_image(sample()["boxes"]))
    torch.testing.assert_close(units, torch.tensor([[0.375, 0.5, 0.5, 0.5]]))


def test_a_flipped_box_is_mirrored() -> None:
    plain, flipped = (8.0, 12.0, 40.0, 36.0), (24.0, 12.0, 56.0, 36.0)
    scale = torch.tensor([96 / WIDTH, 96 / HEIGHT] * 2)
    augment, found = DFINEAugmentation(96, stop_epoch=0), set()
    for seed in range(12):
        torch.manual_seed(seed)
        found.add(tuple((torch.as_tensor(augment(sample())["boxes"])[0] / scale).tolist()))
    assert found == {plain, flipped}


def test_boxes_stay_around_what_they_surround() -> None:
    """Zoomed out, cropped, flipped and resized: the box still surrounds the bright pixels, to the pixel."""
    augment, compared = DFINEAugmentation(96), 0
    for seed in range(30):
        torch.manual_seed(seed)
        found = augment(sample())
        if not len(found["boxes"]):
            continue
        box, bright = torch.as_tensor(found["boxes"])[0], torch.tensor(seen(found["image"]))
        assert float((box - bright).abs().max()) < 1.5, seed
        compared += 1
    assert compared > 25


def test_labels_go_with_their_boxes() -> None:
    pair = sample((2, 2, 10, 10))
    boxes = torch.tensor([[2.0, 2, 10, 10], [40, 30, 60, 46]])
    pair |= {"boxes": corners_in(boxes, HEIGHT, WIDTH), "labels": torch.tensor([0, 1])}
    augment, alone = DFINEAugmentation(96), set()
    for seed in range(24):
        torch.manual_seed(seed)
        found = augment(pair)
        assert len(found["labels"]) == len(found["boxes"])
        if len(found["labels"]) == 1:
            bright = bool((torch.as_tensor(found["image"]).float().mean(0) > 127).any())
            alone.add((int(found["labels"][0]), bright))
    assert (0, True) in alone
    assert {label for label, _ in alone} == {0, 1}


def test_an_image_without_boxes_passes() -> None:
    empty = sample()
    empty |= {"boxes": corners_in(torch.zeros(0, 4), HEIGHT, WIDTH), "labels": torch.zeros(0, dtype=torch.int64)}
    for seed in range(10):
        torch.manual_seed(seed)
        found = DFINEAugmentation(64)(empty)
        assert found["image"].shape == (3, 64, 64)
        assert found["boxes"].shape == (0, 4)


def test_a_box_below_a_pixel_is_dropped_with_its_label() -> None:
    small = sample()
    small["boxes"] = corners_in(torch.tensor([[5.0, 5.0, 5.4, 20.0]]), HEIGHT, WIDTH)
    found = DFINEAugmentation(96, stop_epoch=0)(small)
    assert len(found["boxes"]) == len(found["labels"]) == 0


class Shapes(torch.utils.data.Dataset[dict[str, Any]]):
    """Eight images of one rectangle; the augmentation is strong in epochs 0 and 1."""

    def __init__(self) -> None:
        self.transform = DFINEAugmentation(64, stop_epoch=2)

    def set_epoch(self, epoch: int) -> None:
        self.transform.set_epoch(epoch)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Any]:
        found = self.transform(sample())
        boxes = in_units_of_the_image(found["boxes"])
        target = {"labels": found["labels"], "boxes": boxes}
        sizes = torch.tensor([WIDTH, HEIGHT])
        return {"inputs": torch.as_tensor(found["image"]).float(), "targets": target, "sizes": sizes, "ids": index}


@pytest.mark.parametrize("workers", [0, 2])
def test_strong_augmentation_and_many_sizes_end_with_their_epoch(workers: int) -> None:
    collate = {"type": multi_scale_batch, "size": 64, "repeat": 1, "stop_epoch": 2}
    loader = build_dataloader(
        {"dataset": Shapes(), "batch_size": 2, "num_workers": workers, "collate_fn": collate}, seed=3, training=True
    )
    sizes: dict[int, set[int]] = {}
    plain: dict[int, bool] = {}
    weak = {(0.375, 0.5, 0.5, 0.5), (0.625, 0.5, 0.5, 0.5)}
    for epoch in range(4):
        loader.batch_sampler.seek(epoch)
        batches = list(loader)
        sizes[epoch] = {batch["inputs"].shape[-1] for batch in batches}
        boxes = [tuple(box.tolist()) for batch in batches for target in batch["targets"] for box in target["boxes"]]
        plain[epoch] = set(boxes) <= weak
    assert len(sizes[0] | sizes[1]) > 1
    assert sizes[2] == sizes[3] == {64}
    assert plain == {0: False, 1: False, 2: True, 3: True}


def test_scales() -> None:
    assert scales_around(640, 2) == (480, 512, 544, 576, 608, 640, 640, 672, 704, 736, 768, 800)
    with pytest.raises(ConfigError, match="a multiple of 32"):
        scales_around(100, 1)
    with pytest.raises(ConfigError, match="repeat >= 1"):
        scales_around(96, 0)


def test_images_of_one_batch_have_one_size() -> None:
    first, second = Shapes()[0], Shapes()[1]
    second["inputs"] = second["inputs"][:, :32]
    with pytest.raises(ShapeError, match=r"differ in size \(height, width\): \(32, 64\), \(64, 64\)"):
        detection_batch([first, second])


def test_a_size_is_whole_and_positive() -> None:
    with pytest.raises(ConfigError, match="whole number of pixels"):
        StretchTo(0)
