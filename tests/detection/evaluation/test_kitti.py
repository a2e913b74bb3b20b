"""KITTI's evaluation: scenes counted by hand, and a slow second implementation on random ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from shapely import Polygon

from limbeck_core.errors import DataError
from limbeck_detection.data.kitti import KittiObjects, write_objects
from limbeck_detection.evaluation import evaluate_kitti, evaluate_kitti_folders, kitti_table

NAN = math.nan
FAR = 30.0  # metres between neighbours, so that they never overlap


def thing(
    name: str = "Car",
    x: float = 0.0,
    *,
    z: float = 20.0,
    y: float = 1.6,
    size: tuple[float, float, float] = (4.0, 2.0, 1.5),
    yaw: float = 0.0,
    alpha: float = 0.0,
    image: tuple[float, float, float, float] | None = None,
    truncated: float = 0.0,
    occluded: float = 0.0,
    score: float = NAN,
) -> tuple[str, list[float]]:
    """One line of a label or result file; the rectangle in the image is as wide as it is far from its neighbours."""
    length, width, height = size
    left = 600 + 100 * x / FAR
    rectangle = image or (left, 100, left + 80, 160)
    return name, [truncated, occluded, alpha, *rectangle, height, width, length, x, y, z, yaw, score]


def frame(*things: tuple[str, list[float]]) -> KittiObjects:
    return KittiObjects.of([name for name, _ in things], [row for _, row in things])


def ap40(result: dict[str, float], name: str = "Car", view: str = "3d", level: str = "easy") -> float:
    return result[f"{name}/{view}/AP40/{level}"]


def test_all_found_is_100_in_every_view() -> None:
    names = ("Car", "Pedestrian", "Cyclist")
    truth = [frame(*(thing(name, FAR * i) for i, name in enumerate(names)))] * 41
    found = [frame(*(thing(name, FAR * i, score=0.9 - i / 10) for i, name in enumerate(names)))] * 41
    result = evaluate_kitti(truth, found)
    assert set(result.values()) == {100.0}
    assert len(result) == 4 * 4 * 2 * 3  # three classes and their mean, four views, two averages, three levels


@pytest.mark.parametrize("count", [1, 2, 41, 100])
def test_equal_scores_of_all_objects_are_still_100(count: int) -> None:
    truth = [frame(*(thing(x=FAR * i) for i in range(count)))]
    found = [frame(*(thing(x=FAR * i, score=0.5) for i in range(count)))]
    # n objects give n positions of recall at most: 0 and the n - 1 that follow
    positions = min(count, 41)
    result = evaluate_kitti(truth, found, classes=["Car"])
    assert ap40(result) == pytest.approx(100 * (positions - 1) / 40)
    assert result["Car/3d/AP11/easy"] == pytest.approx(100 * len(range(0, positions, 4)) / 11)


def test_half_of_the_objects_with_a_false_detection_above_them() -> None:
    truth = [frame(*(thing(x=FAR * i) for i in range(80)))]
    right = [thing(x=FAR * i, score=0.5) for i in range(40)]
    found = [frame(*right, thing(x=-FAR, score=0.9))]
    # recall 1/2 is reached: positions 0 to 20, where precision is 40 of 41 at the only threshold
    assert ap40(evaluate_kitti(truth, found, classes=["Car"])) == pytest.approx(100 * 20 / 40 * 40 / 41)


def test_precision_never_falls_towards_lower_recall() -> None:
    truth = [frame(thing()), frame(thing()), frame(thing())]
    # thresholds .9, .8, .7 have precision 1/1, 1/2 -> 2/3 and 3/4; the curve from the back: 1, 3/4, 3/4
    found = [
        frame(thing(score=0.9)),
        frame(thing(score=0.8), thing(x=FAR, score=0.85)),
        frame(thing(score=0.7)),
    ]
    result = evaluate_kitti(truth, found, classes=["Car"])
    assert ap40(result) == pytest.approx(100 * (3 / 4 + 3 / 4) / 40)
    assert result["Car/3d/AP11/easy"] == pytest.approx(100 / 11)


def test_ignored_objects_are_neither_found_nor_missed() -> None:
    others = [
        thing("Van", FAR),
        thing(x=2 * FAR, occluded=3),
        thing(x=3 * FAR, truncated=0.6),
        thing(x=4 * FAR, image=(0, 0, 50, 25)),
    ]
    places = [FAR, 2 * FAR, 3 * FAR, 4 * FAR]
    truth = [frame(thing(), *others)] * 41
    missed = [frame(thing(score=0.5))] * 41
    detected = [frame(thing(score=0.5), *(thing(x=x, score=0.9) for x in places))] * 41
    for found in (missed, detected):
        assert ap40(evaluate_kitti(truth, found, classes=["Car"]), level="hard") == 100
    # a van is nothing to a pedestrian's evaluation, so what is found there is false
    people = [frame(thing("Pedestrian"), thing("Van", FAR))] * 41
    found = [frame(thing("Pedestrian", score=0.5), thing("Pedestrian", FAR, score=0.5))] * 41
    assert ap40(evaluate_kitti(people, found, classes=["Pedestrian"]), "Pedestrian") == pytest.approx(50)


def test_difficulties_take_what_their_limits_allow() -> None:
    truth = [
        frame(
            thing(),  # 60 pixels: easy
            thing(x=FAR, occluded=1),  # moderate
            thing(x=2 * FAR, truncated=0.4),  # hard
            thing(x=3 * FAR, image=(0, 0, 50, 40)),  # 40 pixels are not more than 40: moderate
        )
    ] * 41
    found = [frame(thing(score=0.9))] * 41
    result = evaluate_kitti(truth, found, classes=["Car"])
    shares = {"easy": 1.0, "moderate": 1 / 3, "hard": 1 / 4}
    for level, share in shares.items():
        # the positions of recall up to the share of objects that are found
        positions = sum(1 for i in range(1, 41) if i / 40 <= share + 1 / 80)
        assert ap40(result, level=level) == pytest.approx(100 * positions / 40, abs=2.6)
    assert ap40(result) == 100


def test_low_detections_are_ignored() -> None:
    truth = [frame(thing())] * 41
    low = thing(x=FAR, score=0.99, image=(0, 0, 50, 24))
    found = [frame(thing(score=0.5), low)] * 41
    assert ap40(evaluate_kitti(truth, found, classes=["Car"])) == 100


def test_regions_nobody_cares_for_excuse_detections_in_the_image_alone() -> None:
    region = thing("DontCare", image=(900, 0, 1000, 100), size=(-1, -1, -1), x=-1000, y=-1000, z=-1000)
    truth = [frame(thing(), region)] * 41
    inside = thing(x=FAR, score=0.9, image=(910, 10, 990, 90))
    result = evaluate_kitti(truth, [frame(thing(score=0.5), inside)] * 41, classes=["Car"])
    assert ap40(result, view="2d") == 100
    assert ap40(result, view="bev") == pytest.approx(50)


def test_a_second_detection_of_an_object_is_false() -> None:
    truth = [frame(thing())] * 41
    result = evaluate_kitti(truth, [frame(thing(score=0.5), thing(score=0.5))] * 41, classes=["Car"])
    assert ap40(result) == pytest.approx(50)


def test_headings_count_for_orientation_alone() -> None:
    truth = [frame(thing(alpha=0.3))] * 41
    for turn, share in ((0.0, 1.0), (math.pi / 2, 0.5), (math.pi, 0.0)):
        result = evaluate_kitti(truth, [frame(thing(alpha=0.3 + turn, score=0.5))] * 41, classes=["Car"])
        assert ap40(result, view="aos") == pytest.approx(100 * share, abs=1e-9)
        assert ap40(result, view="2d") == 100
    unknown = evaluate_kitti(truth, [frame(thing(alpha=-10, score=0.5))] * 41, classes=["Car"])
    assert not [key for key in unknown if "/aos/" in key]


def test_loose_overlaps_forgive_a_shift() -> None:
    truth = [frame(thing())] * 41
    shifted = [frame(thing(x=1.0, score=0.5))] * 41  # 3 of 5 metres: 0.6
    assert ap40(evaluate_kitti(truth, shifted, classes=["Car"])) == 0
    assert ap40(evaluate_kitti(truth, shifted, classes=["Car"], overlaps="loose")) == 100


def test_height_matters_in_space_and_not_from_above() -> None:
    truth = [frame(thing())] * 41
    lifted = [frame(thing(y=1.1, score=0.5))] * 41  # half a metre of one and a half: 1 / 2
    result = evaluate_kitti(truth, lifted, classes=["Car"])
    assert ap40(result) == 0
    assert ap40(result, view="bev") == 100


def test_nothing_found_is_zero_and_nothing_there_is_left_out() -> None:
    truth = [frame(thing(), thing("Cyclist", FAR))]
    result = evaluate_kitti(truth, [frame()])
    assert set(result.values()) == {0.0}
    assert not [key for key in result if key.startswith("Pedestrian")]
    assert evaluate_kitti([frame()], [frame()]) == {}
    assert evaluate_kitti([frame()], [frame(thing(score=0.5))]) == {}


# ---------------------------------------------------------------------- a second implementation, one thing at a time


class Slow:
    """The protocol in loops and with a polygon library, written from its description alone."""

    heights, occlusions, truncations = (40, 25, 25), (0, 1, 2), (0.15, 0.3, 0.5)
    near = {"Car": "Van", "Pedestrian": "Person_sitting", "Cyclist": ""}
    least = {"Car": 0.7, "Pedestrian": 0.5, "Cyclist": 0.5}

    def __init__(self, truth: Sequence[KittiObjects], found: Sequence[KittiObjects]) -> None:
        self.truth, self.found = truth, found

    @staticmethod
    def ground(row: np.ndarray) -> Polygon:
        x, _, z, length, width, _, yaw = row
        ahead = np.array([math.cos(yaw), -math.sin(yaw)]) * length / 2  # turning is clockwise seen from above
        aside = np.array([math.sin(yaw), math.cos(yaw)]) * width / 2
        middle = np.array([x, z])
        return Polygon([middle + ahead + aside, middle + ahead - aside, middle - ahead - aside, middle - ahead + aside])

    def overlap(self, view: str, a: KittiObjects, i: int, b: KittiObjects, j: int) -> float:
        if view == "2d":
            shared = self.rectangles(a.boxes_2d[i], b.boxes_2d[j])
            areas = [(r[2] - r[0]) * (r[3] - r[1]) for r in (a.boxes_2d[i], b.boxes_2d[j])]
            return shared / (sum(areas) - shared)
        first, second = self.ground(a.boxes[i]), self.ground(b.boxes[j])
        shared = first.intersection(second).area
        if view == "bev":
            return shared / (first.area + second.area - shared)
        (_, y, _, _, _, h, _), (_, v, _, _, _, k, _) = a.boxes[i], b.boxes[j]
        shared *= max(0.0, min(y, v) - max(y - h, v - k))
        return shared / (first.area * h + second.area * k - shared)

    @staticmethod
    def rectangles(a: np.ndarray, b: np.ndarray) -> float:
        across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        return max(0.0, across) * max(0.0, down)

    def role(self, objects: KittiObjects, j: int, name: str, level: int) -> str:
        top, bottom = objects.boxes_2d[j, 1], objects.boxes_2d[j, 3]
        too_hard = objects.occlusion[j] > self.occlusions[level] or objects.truncation[j] > self.truncations[level]
        too_hard = too_hard or bottom - top <= self.heights[level]
        if objects.names[j] == name:
            return "ignored" if too_hard else "counts"
        return "ignored" if objects.names[j] == self.near[name] else "out"

    def detection(self, objects: KittiObjects, i: int, name: str, level: int) -> str:
        if objects.boxes_2d[i, 3] - objects.boxes_2d[i, 1] < self.heights[level]:
            return "ignored"
        return "counts" if objects.names[i] == name else "out"

    def walk(self, name: str, view: str, level: int, threshold: float | None) -> tuple[list[float], int, int, float]:
        """Scores of the hits, number of objects that count, false detections and similarity at a threshold."""
        hits: list[float] = []
        objects = wrong = 0
        alike = 0.0
        for truth, found in zip(self.truth, self.found, strict=True):
            used: set[int] = set()
            roles = [self.detection(found, i, name, level) for i in range(len(found))]
            open_ = [i for i in range(len(found)) if roles[i] != "out"]
            if threshold is not None:
                open_ = [i for i in open_ if found.scores[i] >= threshold]
            for j in range(len(truth)):
                role = self.role(truth, j, name, level)
                if role == "out" or truth.names[j] == "DontCare":
                    continue
                objects += role == "counts"
                fits = [i for i in open_ if i not in used and self.overlap(view, found, i, truth, j) > self.least[name]]
                if not fits:
                    continue
                if threshold is None:
                    choice = max(fits, key=lambda i: found.scores[i])
                else:
                    proper = [i for i in fits if roles[i] == "counts"]
                    choice = max(proper, key=lambda i: self.overlap(view, found, i, truth, j)) if proper else fits[0]
                used.add(choice)
                if role == "counts" and roles[choice] == "counts":
                    hits.append(float(found.scores[choice]))
                    alike += (1 + math.cos(truth.alpha[j] - found.alpha[choice])) / 2
            for i in open_:
                if roles[i] != "counts" or i in used:
                    continue
                if view == "2d" and self.excused(truth, found.boxes_2d[i], self.least[name]):
                    continue
                wrong += 1
        return hits, objects, wrong, alike

    def excused(self, truth: KittiObjects, box: np.ndarray, least: float) -> bool:
        area = (box[2] - box[0]) * (box[3] - box[1])
        regions = [truth.boxes_2d[j] for j, name in enumerate(truth.names) if name == "DontCare"]
        return any(self.rectangles(box, region) / area > least for region in regions)

    def average(self, name: str, view: str, level: int) -> dict[str, float]:
        aos, view = view == "aos", "2d" if view == "aos" else view
        scores, objects, _, _ = self.walk(name, view, level, None)
        if not objects:
            return {}
        scores = sorted(scores, reverse=True)
        thresholds, position = [], 0.0
        for n, score in enumerate(scores):
            here, after = (n + 1) / objects, (n + 2) / objects
            if n + 1 < len(scores) and after - position < position - here:
                continue  # the next score comes nearer to this position of recall
            thresholds.append(score)
            position += 1 / 40
        curve = [0.0] * 41
        for n, threshold in enumerate(thresholds):
            hits, _, wrong, alike = self.walk(name, view, level, threshold)
            curve[n] = (alike if aos else len(hits)) / max(len(hits) + wrong, 1)
        curve = [max(curve[n:]) for n in range(41)]
        return {"AP40": 100 * sum(curve[1:]) / 40, "AP11": 100 * sum(curve[::4]) / 11}


def random_frames(seed: int, count: int) -> tuple[list[KittiObjects], list[KittiObjects]]:
    rng = np.random.default_rng(seed)
    kinds = ["Car", "Car", "Pedestrian", "Cyclist", "Van", "Person_sitting", "DontCare", "Truck"]
    truth, found = [], []
    for _ in range(count):
        objects, detections = [], []
        for _ in range(int(rng.integers(0, 7))):
            kind = str(rng.choice(kinds))
            left, top = rng.uniform(0, 900), rng.uniform(100, 200)
            image = (left, top, left + rng.uniform(20, 150), top + rng.uniform(15, 90))
            place = {"x": rng.uniform(-12, 12), "z": rng.uniform(5, 30), "yaw": rng.uniform(-3.1, 3.1)}
            size = tuple(rng.uniform([0.8, 0.6, 1.4], [4.2, 1.9, 1.9]))
            alpha = rng.uniform(-3.1, 3.1)
            hidden = {"truncated": float(rng.choice([0, 0, 0.2, 0.6])), "occluded": float(rng.integers(0, 4))}
            objects.append(thing(kind, size=size, image=image, alpha=alpha, **place, **hidden))
            for _ in range(int(rng.integers(0, 3))):  # none, one, or two detections that nearly fit
                name = str(rng.choice(["Car", "Pedestrian", "Cyclist"])) if kind not in kinds[:4] else kind
                name = str(rng.choice(["Car", "Cyclist"])) if rng.random() < 0.1 else name
                moved = {key: value + rng.normal(0, 0.08) for key, value in place.items()}
                box = tuple(np.asarray(image) + rng.normal(0, 3, 4))
                score = round(float(rng.uniform()), 2)  # ties happen
                detections.append(thing(name, size=size, image=box, alpha=alpha + rng.normal(), score=score, **moved))
        for _ in range(int(rng.integers(0, 3))):  # and some out of the blue
            left = rng.uniform(0, 900)
            image = (left, 120, left + 60, 120 + rng.uniform(20, 80))
            name = str(rng.choice(["Car", "Pedestrian", "Cyclist"]))
            score = round(float(rng.uniform()), 2)
            detections.append(thing(name, rng.uniform(-12, 12), z=rng.uniform(5, 30), image=image, score=score))
        truth.append(frame(*objects))
        found.append(frame(*detections))
    return truth, found


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_a_slow_second_implementation(seed: int) -> None:
    truth, found = random_frames(seed, 60)
    result = evaluate_kitti(truth, found)
    slow = Slow(truth, found)
    checked = 0
    for name in ("Car", "Pedestrian", "Cyclist"):
        for view in ("2d", "bev", "3d", "aos"):
            for number, level in enumerate(("easy", "moderate", "hard")):
                expected = slow.average(name, view, number)
                assert bool(expected) == (f"{name}/{view}/AP40/{level}" in result)
                for average, value in expected.items():
                    assert result[f"{name}/{view}/{average}/{level}"] == pytest.approx(value, abs=1e-9)
                    checked += value > 0
    assert checked > 30  # the scenes have something to find in nearly every view


# ---------------------------------------------------------------------- files, tables and errors


def test_folders_of_files_are_judged(tmp_path: Path) -> None:
    for name in ("000000", "000001", "000002"):
        write_objects(frame(thing()), tmp_path / "label_2" / f"{name}.txt")
    for name in ("000000", "000001"):
        write_objects(frame(thing(score=0.5)), tmp_path / "found" / f"{name}.txt")
    with pytest.raises(DataError, match=r"1 of 3 frames have no file .*000002\.txt .*needs an empty file"):
        evaluate_kitti_folders(tmp_path / "label_2", tmp_path / "found")
    (tmp_path / "val.txt").write_text("000000\n000001\n")
    result = evaluate_kitti_folders(tmp_path / "label_2", tmp_path / "found", split=tmp_path / "val.txt")
    assert ap40(result) == pytest.approx(100 / 40)  # two objects, two positions, of which 0 is not averaged
    write_objects(frame(thing()), tmp_path / "found" / "000002.txt")
    with pytest.raises(DataError, match="objects without a score"):
        evaluate_kitti_folders(tmp_path / "label_2", tmp_path / "found")
    with pytest.raises(DataError, match="names no frame"):
        evaluate_kitti_folders(tmp_path / "nowhere", tmp_path / "found")


def test_table_has_a_row_for_each_class_and_view() -> None:
    lines = kitti_table(evaluate_kitti([frame(thing())] * 41, [frame(thing(score=0.5))] * 41)).splitlines()
    assert lines[0].split() == ["AP40", "easy", "moderate", "hard"]
    assert lines[1].split() == ["Car", "3d", "100.00", "100.00", "100.00"]
    assert [line.split()[0] for line in lines[1:]] == ["Car"] * 4 + ["mean"] * 4


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(DataError, match="got 1 and 0 frames"):
        evaluate_kitti([frame(thing())], [])
    with pytest.raises(DataError, match=r"detection 0 of frame 0 \(Car\) .*not finite"):
        evaluate_kitti([frame(thing())], [frame(thing(score=NAN))])
    with pytest.raises(ValueError, match="'strict' or 'loose', got 'easy'"):
        evaluate_kitti([frame(thing())], [frame(thing(score=0.5))], overlaps="easy")  # type: ignore[arg-type]
