"""Images in folders, with and without labels; damaged ones are named together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limbeck_core.errors import DataError
from limbeck_vision.data import ImageFolder, Unlabelled, center_crop, random_resized_crop


def picture(path: Path, value: int = 0, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value,) * len(mode)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    picture(tmp_path / "cat" / "b.png", 20)
    picture(tmp_path / "cat" / "deeper" / "a.png", 10, mode="RGBA")
    picture(tmp_path / "ant" / "a.jpeg", 30, mode="L")
    (tmp_path / "ant" / "notes.txt").write_text("not an image")
    return tmp_path


def test_folders_are_classes_in_alphabetical_order(root: Path) -> None:
    dataset = ImageFolder(root)
    assert dataset.classes == ("ant", "cat")
    assert dataset.class_counts == (1, 2)
    assert [path.name for path in dataset.paths] == ["a.jpeg", "b.png", "a.png"]
    sample = dataset[1]
    assert sample["inputs"].shape == (3, 4, 6)
    assert (sample["targets"], sample["ids"]) == (1, 1)
    torch.testing.assert_close(sample["inputs"], torch.full((3, 4, 6), 20 / 255))
    assert dataset[0]["inputs"].shape == (3, 4, 6)  # grey becomes colour


@pytest.mark.parametrize("as_file", [False, True])
def test_class_list_orders_the_labels_and_reports_the_absent(root: Path, as_file: bool) -> None:
    names = ["dog", "cat", "ant"]
    listing = root / "classes.txt"
    listing.write_text("dog\n\ncat\nant\n")
    dataset = ImageFolder(root, classes=listing if as_file else names)
    assert dataset.classes == tuple(names)
    assert sorted(dataset.targets.tolist()) == [1, 1, 2]
    assert dataset.absent == ("dog",)


def test_folder_outside_the_list_is_an_error(root: Path) -> None:
    with pytest.raises(
        DataError, match=r"1 folders that the list of 2 classes lacks, the first is 'cat' \(did you mean"
    ):
        ImageFolder(root, classes=["ant", "cats"])
    with pytest.raises(DataError, match=r"each class once, got \['ant'\]"):
        ImageFolder(root, classes=["ant", "cat", "ant"])
    with pytest.raises(DataError, match="there is no list of classes"):
        ImageFolder(root, classes=root / "absent.txt")


def test_damaged_images_are_listed_together(root: Path) -> None:
    whole = (root / "cat" / "b.png").read_bytes()
    (root / "cat" / "b.png").write_bytes(whole[: len(whole) // 2])
    (root / "ant" / "zero.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 4 images cannot be read: .*zero.jpg .*; .*b.png .*Copy them again"):
        ImageFolder(root, verify=True)
    dataset = ImageFolder(root)
    assert len(dataset.damaged()) == 2
    with pytest.raises(DataError, match=r"b.png is no readable image"):
        dataset[2]
    with pytest.raises(DataError, match="2 of 4 images cannot be read"):
        Unlabelled(root, verify=True)


def test_long_lists_of_damaged_images_are_cut(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number:02}.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"12 of 12 images .*09.png.*; and 2 more"):
        Unlabelled(tmp_path, verify=True)


def test_unlabelled_samples_have_no_targets(root: Path) -> None:
    dataset = Unlabelled(root, transform={"type": center_crop, "size": 4})
    assert len(dataset) == 3
    assert dataset.class_counts == ()
    sample = dataset[2]
    assert sorted(sample) == ["ids", "inputs"]
    assert sample["inputs"].shape == (3, 4, 4)


def test_crops_make_one_size(tmp_path: Path) -> None:
    for number, size in enumerate(((9, 5), (5, 9), (30, 30))):
        picture(tmp_path / f"{number}.png", 255, size=size)
    for transform in (center_crop(8), random_resized_crop(8)):
        for sample in Unlabelled(tmp_path, transform=transform):
            assert sample["inputs"].shape == (3, 8, 8)
            np.testing.assert_allclose(sample["inputs"].numpy(), 1.0, rtol=1e-6)


def test_missing_and_empty_folders_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*catt; of .*did you mean 'cat'"):
        ImageFolder(root / "catt")
    (tmp_path / "void" / "inner").mkdir(parents=True)
    with pytest.raises(DataError, match=r"void holds no images: expected .*/CLASS/IMAGE .*got the folders \['inner'\]"):
        ImageFolder(tmp_path / "void")
    with pytest.raises(DataError, match="void holds no images with the extensions"):
        Unlabelled(tmp_path / "void")
