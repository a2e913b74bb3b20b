"""People: annotation layouts, crops that can be undone, augmentation that keeps image and key points together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from limbeck_core.errors import DataError
from limbeck_pose.data import FINE, Augmentation, Crop, People, keypoints_of, read_people
from limbeck_pose.keypoints import BODY, WHOLE_BODY
from limbeck_pose.simcc import SimCC

LISTS = {"keypoints": 17, "foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}


def annotation(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A person whose key point k lies at (10 + k / 4, 20 + k / 8)."""
    points = np.column_stack([10 + np.arange(133) / 4, 20 + np.arange(133) / 8, np.full(133, 2)])
    lists, start = {}, 0
    for name, count in LISTS.items():
        lists[name] = points[start : start + count].ravel().tolist()
        start += count
    base = {"id": number, "image_id": 7, "category_id": 1, "iscrowd": 0, "bbox": [10, 20, 40, 30], "area": 900.0}
    return {**base, **lists, **changes}


def write(folder: Path, annotations: list[dict[str, Any]]) -> Path:
    (folder / "images").mkdir(exist_ok=True)
    cv2.imwrite(str(folder / "images" / "7.png"), np.zeros((80, 100, 3), np.uint8))
    content = {"images": [{"id": 7, "file_name": "7.png", "height": 80, "width": 100}], "annotations": annotations}
    (folder / "people.json").write_text(json.dumps(content))
    return folder


def test_five_lists_and_one_list_of_triples_are_the_same_body() -> None:
    five = annotation()
    one = {"id": 2, "keypoints": [value for name in LISTS for value in five[name]]}
    for first, second in zip(keypoints_of(five), keypoints_of(one), strict=True):
        assert np.array_equal(first, second)
    points, visible = keypoints_of(five, BODY)
    assert points.shape == (17, 2)
    assert visible.all()


def test_lists_that_are_missing_or_short_are_named() -> None:
    with pytest.raises(DataError, match=r"annotation 1 must have 'face_kpts' with 68 triples.*got nothing"):
        keypoints_of({k: v for k, v in annotation().items() if k != "face_kpts"})
    with pytest.raises(DataError, match=r"'foot_kpts' with 6 triples.*got 3 numbers"):
        keypoints_of(annotation(foot_kpts=[1, 2, 2]))
    with pytest.raises(DataError, match=r"must have 17 key points \(x, y, v\), got 5"):
        keypoints_of({"id": 3, "keypoints": [0] * 15}, BODY)


def test_crowds_empty_boxes_and_unlabelled_people_are_left_out(tmp_path: Path) -> None:
    nobody = annotation(4, **{name: [0] * (3 * count) for name, count in LISTS.items()})
    folder = write(
        tmp_path, [annotation(), annotation(2, iscrowd=1), annotation(3, bbox=[1, 1, 0, 9]), nobody, annotation(5)]
    )
    assert len(read_people(folder / "people.json", folder / "images")) == 2


def test_detected_boxes_have_scores_and_no_labels(tmp_path: Path) -> None:
    folder = write(tmp_path, [annotation()])
    boxes = [
        {"image_id": 7, "bbox": [1, 2, 30, 40], "score": 0.9, "category_id": 1},
        {"image_id": 7, "bbox": [1, 2, 30, 40], "score": 0.1, "category_id": 1},
        {"image_id": 7, "bbox": [1, 2, 30, 40], "score": 0.9, "category_id": 3},
        {"image_id": 8, "bbox": [1, 2, 30, 40], "score": 0.9, "category_id": 1},
    ]
    (folder / "boxes.json").write_text(json.dumps(boxes))
    people = People(
        "people.json", images="images", root=folder, codec=SimCC((64, 64)), boxes="boxes.json", least_score=0.5
    )
    assert len(people) == 1
    item = people[0]
    assert item["person"]["score"] == 0.9
    assert item["targets"][2].sum() == 0


def test_a_crop_has_the_models_shape_and_can_be_undone() -> None:
    crop = Crop.around(np.array([10.0, 20.0, 40.0, 30.0]), (64, 32))
    assert crop.center == (30.0, 35.0)
    assert crop.size == (50.0, 100.0), "padded by a quarter, then as high as the crop's shape asks"
    turned = Crop((30.0, 35.0), (50.0, 100.0), (64, 32), rotation=33.0, mirrored=True, image_width=100)
    points = np.random.default_rng(0).uniform(0, 100, (5, 2))
    for each in (crop, turned):
        assert np.allclose(each.undo(each.apply(points)), points)
    assert np.allclose(crop.apply(np.array([30.0, 35.0])), [16, 32])


@pytest.mark.parametrize("rotation", [0.0, 40.0, -75.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_image_and_points_move_together(rotation: float, mirrored: bool) -> None:
    image = np.zeros((80, 100, 3), np.uint8)
    spot = np.array([38.0, 29.0])
    image[29, 38] = 255
    image = cv2.GaussianBlur(image, (5, 5), 1.0)
    center = (99 - 42.0, 33.0) if mirrored else (42.0, 33.0)
    crop = Crop(center, (48.0, 48.0), (96, 96), rotation=rotation, mirrored=mirrored, image_width=100)
    cut = crop.cut(image)[..., 0].astype(float)
    rows, columns = np.mgrid[:96, :96]
    centroid = [(cut * columns).sum() / cut.sum(), (cut * rows).sum() / cut.sum()]
    assert np.allclose(centroid, crop.apply(spot), atol=0.1)


def test_mirroring_swaps_left_and_right(tmp_path: Path) -> None:
    folder = write(tmp_path, [annotation()])
    plain = People("people.json", images="images", root=folder, codec=SimCC((64, 64)))[0]
    always = Augmentation(mirror=1.0, half_body=0.0, shift=0.0, scale=(1.0, 1.0), rotation=0.0, hole=0.0, blur=0.0)
    np.random.seed(0)
    mirrored = People("people.json", images="images", root=folder, codec=SimCC((64, 64)), augmentation=always)[0]
    left, right = 9, 10  # wrists
    column = plain["targets"][0][left].argmax()
    # the crop is symmetric around the person: what was column c of the left wrist is column W - c of the right one
    assert abs(int(mirrored["targets"][0][right].argmax()) - (128 - int(column))) <= 2


def test_the_last_epochs_draw_milder_crops(tmp_path: Path) -> None:
    folder = write(tmp_path, [annotation()])
    people = People(
        "people.json",
        images="images",
        root=folder,
        codec=SimCC((64, 64)),
        augmentation=Augmentation(),
        fine=FINE,
        fine_from=3,
    )

    def angles() -> list[float]:
        found = []
        for seed in range(60):
            np.random.seed(seed)
            matrix = people[0]["person"]["matrix"]
            found.append(abs(float(torch.atan2(matrix[1, 0], matrix[1, 1]) * 180 / torch.pi)))
        return found

    early = max(angles())
    people.set_epoch(3)
    late = max(angles())
    assert late <= 60 < early <= 80


def test_half_bodies_are_cut_where_enough_is_labelled() -> None:
    points, visible = keypoints_of(annotation())
    whole = Crop.around(np.array([0.0, 0.0, 90.0, 70.0]), (64, 64), image_width=100)
    half = Augmentation(mirror=0.0, half_body=1.0, shift=0.0, scale=(1.0, 1.0), rotation=0.0)
    np.random.seed(0)
    smaller = half.crop(whole, points, visible, WHOLE_BODY)
    assert smaller.size[0] < whole.size[0] / 3
    assert half.crop(whole, points, np.where(np.arange(133) < 5, 1.0, 0.0), WHOLE_BODY).size == whole.size


def test_painting_keeps_bytes_and_shape() -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 48, 3)).astype(np.uint8)
    np.random.seed(3)
    painted = Augmentation(blur=1.0).paint(image)
    assert painted.dtype == np.uint8
    assert painted.shape == image.shape
    holes = (painted == 0).all(-1).mean()
    assert 0.2 * 0.2 * 0.8 < holes < 0.4 * 0.4 * 1.2


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda folder: (folder / "people.json").unlink(), r"there is no file .*people\.json.*LIMBECK_DATA"),
        (lambda folder: (folder / "people.json").write_text("{"), "is no readable JSON"),
        (lambda folder: (folder / "people.json").write_text("[]"), "must have 'images' and 'annotations'"),
        (lambda folder: (folder / "images" / "7.png").unlink(), "is missing: check the folder of images"),
        (lambda folder: (folder / "images" / "7.png").write_bytes(b"x"), "is damaged or no image"),
    ],
)
def test_damage_is_told(break_it: Any, sentence: str, tmp_path: Path) -> None:
    folder = write(tmp_path, [annotation()])
    break_it(folder)
    with pytest.raises(DataError, match=sentence):
        People("people.json", images="images", root=folder, codec=SimCC((64, 64)))[0]


def test_nobody_left_and_uneven_lists(tmp_path: Path) -> None:
    folder = write(tmp_path, [annotation(iscrowd=1)])
    with pytest.raises(DataError, match="no person with a box and a key point is in people.json"):
        People("people.json", images="images", root=folder, codec=SimCC((64, 64)))
    with pytest.raises(DataError, match="one folder of images, or one a file, got 2 for 1 files"):
        People(["people.json"], images=["a", "b"], root=folder, codec=SimCC((64, 64)))
    with pytest.raises(DataError, match="finite positive width and height"):
        Crop.around(np.array([0.0, 0.0, float("nan"), 1.0]), (64, 64))


def test_people_outside_of_their_image_are_left_out_with_a_sentence(tmp_path: Path) -> None:
    folder = write(tmp_path, [annotation(), annotation(2, bbox=[200, 5, 20, 20])])
    with pytest.warns(UserWarning, match=r"1 of the people of .*people.json are left out.*annotation 2 of image 7"):
        assert len(read_people(folder / "people.json", folder / "images")) == 1
    boxes = [{"image_id": 7, "bbox": [x, 2, 30, 40], "score": 0.9} for x in (-31, 1)]
    (folder / "boxes.json").write_text(json.dumps(boxes))
    with pytest.warns(UserWarning, match="detection 0 of image 7"):
        found = read_people(folder / "people.json", folder / "images", boxes=folder / "boxes.json")
    assert len(found) == 1


def test_numbers_that_are_none_are_told(tmp_path: Path) -> None:
    broken = annotation()
    broken["foot_kpts"] = [*broken["foot_kpts"][:3], float("nan"), *broken["foot_kpts"][4:]]
    with pytest.raises(DataError, match=r"annotation 1: key point 18 of 133 is \[nan, .*1 in all are NaN"):
        keypoints_of(broken)
    folder = write(tmp_path, [annotation(bbox=[1.0, 2.0, float("nan"), 4.0])])
    with pytest.raises(DataError, match=r"annotation 1 of .* must have a box of four finite numbers"):
        read_people(folder / "people.json", folder / "images")
    (folder / "boxes.json").write_text(json.dumps([{"image_id": 7, "box": [1, 2, 3, 4]}]))
    with pytest.raises(DataError, match="must be a list of boxes with image_id, bbox"):
        read_people(folder / "people.json", folder / "images", boxes=folder / "boxes.json")
