"""Reading COCO, VOC and YOLO files: known boxes, labels and sizes, and what is said of files that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from limbeck_core.errors import DataError
from limbeck_detection.data import CocoDetection, StretchTo, VocDetection, YoloDetection

WIDTH, HEIGHT = 40, 20


def picture(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (255, 0, 0)).save(path)


@pytest.fixture
def coco(tmp_path: Path) -> dict[str, Any]:
    for name in ("b.png", "a.png"):
        picture(tmp_path / "images" / name)
    return {
        "images": [
            {"id": 7, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
            {"id": 3, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
        ],
        "categories": [{"id": 90, "name": "brush"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [10, 5, 20, 10], "area": 120.0, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [-4, 0, 8, 30], "area": 30.0},
            {"id": 3, "image_id": 7, "category_id": 1, "bbox": [0, 0, 40, 20], "area": 800.0, "iscrowd": 1},
            {"id": 4, "image_id": 7, "category_id": 1, "bbox": [5, 5, 0, 3], "area": 0.0},
        ],
    }


def read(folder: Path, content: dict[str, Any], **options: Any) -> CocoDetection:
    (folder / "marks.json").write_text(json.dumps(content), encoding="utf-8")
    return CocoDetection(folder, "images", "marks.json", **options)


class TestCoco:
    def test_a_sample(self, tmp_path: Path, coco: dict[str, Any]) -> None:
        data = read(tmp_path, coco, truth=True)
        assert data.classes == ("person", "brush")
        assert data.category_ids == (1, 90)
        assert data.ids.tolist() == [3, 7]
        sample = data[1]
        assert sample["ids"] == 7
        assert sample["sizes"].tolist() == [WIDTH, HEIGHT]
        assert sample["inputs"].shape == (3, HEIGHT, WIDTH)
        assert sample["inputs"][:, 0, 0].tolist() == [1.0, 0.0, 0.0]
        assert sample["targets"]["labels"].tolist() == [1, 0]
        # the second box is cut at the edges: 0 to 4 across, 0 to 20 down
        expected = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.05, 0.5, 0.1, 1.0]])
        torch.testing.assert_close(sample["targets"]["boxes"], expected)
        assert sample["truth"]["crowd"].tolist() == [False, False, True]
        assert sample["truth"]["area"].tolist() == [120.0, 30.0, 800.0]
        assert sample["truth"]["boxes"].tolist()[0] == [10.0, 5.0, 30.0, 15.0]

    def test_an_image_without_boxes(self, tmp_path: Path, coco: dict[str, Any]) -> None:
        sample = read(tmp_path, coco)[0]
        assert sample["targets"]["boxes"].shape == (0, 4)
        assert sample["targets"]["labels"].shape == (0,)
        assert read(tmp_path, coco, without_boxes=False).ids.tolist() == [7]

    def test_the_last_and_the_first_position(self, tmp_path: Path, coco: dict[str, Any]) -> None:
        data = read(tmp_path, coco)
        assert data[-1]["targets"]["labels"].tolist() == data[1]["targets"]["labels"].tolist() == [1, 0]
        with pytest.raises(IndexError):
            data[2]

    def test_another_order_of_classes(self, tmp_path: Path, coco: dict[str, Any]) -> None:
        data = read(tmp_path, coco, classes=["brush", "person"])
        assert data.category_ids == (90, 1)
        assert data[1]["targets"]["labels"].tolist() == [0, 1]
        with pytest.raises(DataError, match="has the category 'person', which the list of 1 classes lacks"):
            read(tmp_path, coco, classes=["brush"])
        with pytest.raises(DataError, match="lacks the class 'cat' of the list"):
            read(tmp_path, coco, classes=["brush", "person", "cat"])

    def test_the_original_size_stays_when_the_image_is_resized(self, tmp_path: Path, coco: dict[str, Any]) -> None:
        plain, resized = read(tmp_path, coco)[1], read(tmp_path, coco, transform={"type": StretchTo, "size": 64})[1]
        assert resized["inputs"].shape == (3, 64, 64)
        assert resized["sizes"].tolist() == [WIDTH, HEIGHT]
        torch.testing.assert_close(resized["targets"]["boxes"], plain["targets"]["boxes"])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"categories": None}, "is no COCO annotation file.*lacks categories"),
            ({"categories": []}, "names no category"),
            ({"images": []}, "names the image 7, which it lacks"),
            ({"images": [{"id": 7}]}, "an image needs id, file_name, width and height"),
            ({"annotations": [{"image_id": 7, "category_id": 1, "bbox": [1, 2]}]}, "an annotation needs image_id"),
            (
                {"annotations": [{"id": 5, "image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4]}]},
                "annotation 5 names the category 2, which it lacks",
            ),
        ],
    )
    def test_wrong_files(self, tmp_path: Path, coco: dict[str, Any], change: dict[str, Any], message: str) -> None:
        with pytest.raises(DataError, match=message):
            read(tmp_path, {**coco, **change})

    @pytest.mark.parametrize(
        ("name", "row", "message"),
        [
            (
                "images",
                {"id": 7, "file_name": "c.png", "width": 4, "height": 4},
                "two images have the id 7, b.png and c",
            ),
            ("categories", {"id": 90, "name": "comb"}, "two categories have the id 90"),
            ("categories", {"id": 5, "name": "person"}, "two categories have the name 'person'"),
            (
                "annotations",
                {"id": 9, "image_id": 7, "category_id": 1, "bbox": [0, 0, float("nan"), 1]},
                "an annotation needs image_id, category_id and bbox",
            ),
        ],
    )
    def test_twice_and_not_finite(
        self, tmp_path: Path, coco: dict[str, Any], name: str, row: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(DataError, match=message):
            read(tmp_path, {**coco, name: [*coco[name], row]})

    def test_boxes_without_extent_are_counted(self, tmp_path: Path, coco: dict[str, Any]) -> None:
        coco["annotations"].append({"id": 5, "image_id": 7, "category_id": 1, "bbox": [50, 5, 3, 3]})
        with pytest.warns(UserWarning, match=r"2 of 5 boxes have no extent .* the first is annotation 4"):
            assert len(read(tmp_path, coco)[1]["targets"]["boxes"]) == 2

    def test_missing_images_are_listed_together(self, tmp_path: Path, coco: dict[str, Any]) -> None:
        (tmp_path / "images" / "a.png").unlink()
        (tmp_path / "images" / "b.png").unlink()
        with pytest.raises(DataError, match=r"2 of 2 image files are missing: .*a\.png, .*b\.png.*--data-root"):
            read(tmp_path, coco)

    def test_an_image_that_breaks_off(self, tmp_path: Path, coco: dict[str, Any]) -> None:
        path = tmp_path / "images" / "b.png"
        path.write_bytes(path.read_bytes()[:50])
        with pytest.raises(DataError, match=r"b\.png is no readable image"):
            read(tmp_path, coco)[1]

    def test_missing_and_damaged_files(self, tmp_path: Path, coco: dict[str, Any]) -> None:
        with pytest.raises(DataError, match=r"none\.json cannot be read"):
            CocoDetection(tmp_path, "images", "none.json")
        (tmp_path / "marks.json").write_text("{", encoding="utf-8")
        with pytest.raises(DataError, match=r"marks\.json is no JSON"):
            CocoDetection(tmp_path, "images", "marks.json")
        data = read(tmp_path, coco)
        (tmp_path / "images" / "b.png").write_bytes(b"not a picture")
        with pytest.raises(DataError, match=r"b\.png is no readable image"):
            data[1]


def voc(folder: Path, name: str, *objects: tuple[str, str, int]) -> None:
    picture(folder / "JPEGImages" / f"{name}.jpg")
    marks = "".join(
        f"<object><name>{label}</name><difficult>{hard}</difficult><bndbox>"
        + "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True))
        + "</bndbox></object>"
        for label, box, hard in objects
    )
    (folder / "Annotations").mkdir(exist_ok=True)
    (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{marks}</annotation>", encoding="utf-8")


class TestVoc:
    def test_a_sample(self, tmp_path: Path) -> None:
        voc(tmp_path, "one", ("dog", "11 6 30 15", 0), ("cat", "1 1 40 20", 1))
        voc(tmp_path, "two")
        data = VocDetection(tmp_path, truth=True)
        assert data.classes == ("cat", "dog")
        sample = data[0]
        assert sample["targets"]["labels"].tolist() == [1]
        torch.testing.assert_close(sample["targets"]["boxes"], torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
        assert sample["truth"]["crowd"].tolist() == [False, True]
        assert data[1]["targets"]["boxes"].shape == (0, 4)
        assert VocDetection(tmp_path, difficult=True)[0]["targets"]["labels"].tolist() == [1, 0]

    def test_the_list_says_which_images(self, tmp_path: Path) -> None:
        voc(tmp_path, "one", ("dog", "1 1 4 4", 0))
        voc(tmp_path, "two", ("cat", "1 1 4 4", 0))
        (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
        (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("two  1\n", encoding="utf-8")
        data = VocDetection(tmp_path, "val", classes=["dog", "cat"])
        assert len(data) == 1
        assert data[0]["targets"]["labels"].tolist() == [1]
        with pytest.raises(DataError, match="marks an object of the class 'cat', which the list of 1 classes lacks"):
            VocDetection(tmp_path, "val", classes=["dog"])

    def test_wrong_files(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="is not in VOC's layout"):
            VocDetection(tmp_path)
        voc(tmp_path, "one", ("dog", "1 1 4 4", 0))
        (tmp_path / "Annotations" / "one.xml").write_text("<annotation><object></object></annotation>")
        with pytest.raises(DataError, match=r"one\.xml is no VOC annotation \(an object has no bndbox\)"):
            VocDetection(tmp_path)
        (tmp_path / "Annotations" / "one.xml").write_text("<annotation>")
        with pytest.raises(DataError, match="is no VOC annotation"):
            VocDetection(tmp_path)


class TestYolo:
    def make(self, folder: Path, text: str | None, names: str = "names: {0: cat, 1: dog}") -> None:
        picture(folder / "images" / "train" / "one.png")
        (folder / "data.yaml").write_text(names, encoding="utf-8")
        (folder / "labels" / "train").mkdir(parents=True, exist_ok=True)
        if text is not None:
            (folder / "labels" / "train" / "one.txt").write_text(text, encoding="utf-8")

    def test_a_sample(self, tmp_path: Path) -> None:
        self.make(tmp_path, "1 0.5 0.5 0.5 0.5\n0 0.0 0.5 0.2 1.0\n")
        data = YoloDetection(tmp_path, truth=True)
        assert data.classes == ("cat", "dog")
        sample = data[0]
        assert sample["targets"]["labels"].tolist() == [1, 0]
        torch.testing.assert_close(
            sample["targets"]["boxes"], torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.05, 0.5, 0.1, 1.0]])
        )
        assert sample["truth"]["boxes"].tolist() == [[10.0, 5.0, 30.0, 15.0], [0.0, 0.0, 4.0, 20.0]]

    def test_without_a_text_file_there_is_no_box(self, tmp_path: Path) -> None:
        self.make(tmp_path, None, "names: [cat]")
        assert YoloDetection(tmp_path)[0]["targets"]["boxes"].shape == (0, 4)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("2 0.5 0.5 0.1 0.1", "line 1: class 2 is not in the list of 2 classes"),
            ("0 0.5 0.5 0.1", "line 1: expected 'class cx cy w h', got '0 0.5 0.5 0.1'"),
            ("0 20 10 5 5", "line 1: numbers must be in units of the image"),
        ],
    )
    def test_wrong_lines(self, tmp_path: Path, text: str, message: str) -> None:
        self.make(tmp_path, text)
        with pytest.raises(DataError, match=message):
            YoloDetection(tmp_path)

    def test_wrong_names(self, tmp_path: Path) -> None:
        self.make(tmp_path, None, "names: {1: cat}")
        with pytest.raises(DataError, match=r"must count the labels from 0 to 0, got \[1\]"):
            YoloDetection(tmp_path)
        self.make(tmp_path, None, "names: [cat, cat]")
        with pytest.raises(DataError, match="a list of classes needs different names"):
            YoloDetection(tmp_path)
        self.make(tmp_path, None, "names: [cat]")
        with pytest.raises(DataError, match="holds no images"):
            YoloDetection(tmp_path, "val")
