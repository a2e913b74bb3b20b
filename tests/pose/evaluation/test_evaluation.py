"""Judging key points: known answers, the evaluator of a run, errors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limbeck_core.errors import DataError, ShapeError
from limbeck_pose.data import People
from limbeck_pose.evaluation import (
    KeypointAP,
    average_precision,
    correct_keypoints,
    draw_people,
    evaluate,
    instance_score,
    keep_one_of_each,
    mean_error,
    nearness,
    similarity,
    table,
    write_picture,
)
from limbeck_pose.keypoints import BODY, WHOLE_BODY
from limbeck_pose.rendered import CHAIN, render
from limbeck_pose.simcc import SimCC


def test_similarity_by_hand() -> None:
    truth = np.array([[10.0, 10.0], [20.0, 20.0]])
    assert similarity(truth, truth, np.ones(2), 100.0, (0.1, 0.1)) == 1.0
    off = truth + np.array(
        [[math.sqrt(0.2 * 0.2 * 100.0), 0], [1000.0, 0]]
    )  # d^2 = (2 sigma)^2 A; the second has no label
    assert similarity(off, truth, np.array([1, 0]), 100.0, (0.1, 0.1)) == pytest.approx(math.exp(-0.5))
    assert math.isnan(similarity(truth, truth, np.zeros(2), 100.0, (0.1, 0.1)))
    with pytest.raises(ShapeError, match=r"one shape \(K, 2\), got \(2, 2\) and \(1, 2\)"):
        similarity(truth, truth[:1], np.ones(1), 1.0, (0.1,))


def test_a_persons_score() -> None:
    assert instance_score(0.5, np.array([0.1, 0.2, 0.6, 1.0])) == pytest.approx(0.4)
    assert instance_score(0.9, np.array([0.1, 0.2])) == 0.0


def test_of_two_that_are_one_the_better_stays() -> None:
    one = np.random.default_rng(0).uniform(0, 100, (17, 2))
    points = np.stack([one, one + 0.1, one + 300])
    assert keep_one_of_each(points, np.array([0.3, 0.8, 0.5]), np.full(3, 1e4), BODY.sigmas) == [1, 2]
    assert keep_one_of_each(points[:0], np.zeros(0), np.zeros(0), BODY.sigmas) == []


def test_correct_points_and_mean_error() -> None:
    truth = np.zeros((2, 3, 2))
    predicted = truth + np.array([[[4.0, 0]], [[6.0, 0]]])
    visible = np.array([[1, 1, 0], [1, 0, 0]])
    share, each = correct_keypoints(predicted, truth, visible, np.array([100.0, 100.0]))
    assert share == pytest.approx(2 / 3)
    assert each[0] == 0.5
    assert math.isnan(each[2])
    assert mean_error(predicted, truth, visible, np.array([100.0, 50.0]))["all"] == pytest.approx((0.04 * 2 + 0.12) / 3)
    whole = np.zeros((1, 133, 2))
    errors = mean_error(whole + 1, whole, (np.arange(133) < 17)[None], np.array([10.0]), layout=WHOLE_BODY)
    assert errors["body"] == pytest.approx(math.sqrt(2) / 10)
    assert math.isnan(errors["face"])


def truth_of(layout_count: int) -> dict[str, Any]:
    random = np.random.default_rng(4)
    annotations = []
    for number in range(6):
        table = np.column_stack([random.uniform(0, 200, (layout_count, 2)), np.full(layout_count, 2)])
        annotations.append(
            {"id": number + 1, "image_id": number // 2, "category_id": 1, "iscrowd": 0, "bbox": [0, 0, 200, 200],
             "area": 4e4, "keypoints": table.ravel().tolist()}
        )  # fmt: skip
    return {"images": [{"id": number} for number in range(3)], "annotations": annotations}


def found_of(truth: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"image_id": a["image_id"], "category_id": 1, "keypoints": a["keypoints"], "score": 0.9 - 0.1 * a["id"]}
        for a in truth["annotations"]
    ]


def test_perfect_and_half_found() -> None:
    truth = truth_of(17)
    found = found_of(truth)
    assert average_precision(truth, found, BODY) == {name: pytest.approx(100.0) for name in
                                                     ("body/AP", "body/AP50", "body/AP75", "body/AR")}  # fmt: skip
    half = average_precision(truth, found[:3], BODY)
    assert half["body/AR"] == pytest.approx(50.0)
    assert half["body/AP"] == pytest.approx(100 * 51 / 101)  # recall points 0 to 0.50 of 101
    assert average_precision(truth, [], BODY)["body/AP"] == 0.0


def test_hands_are_averaged_and_unlabelled_parts_have_no_figure() -> None:
    truth = truth_of(133)
    for annotation in truth["annotations"]:
        triples = np.array(annotation["keypoints"]).reshape(-1, 3)
        triples[17:23, 2] = 0
        annotation["keypoints"] = triples.ravel().tolist()
    figures = average_precision(truth, found_of(truth))
    assert figures["foot/AP"] is None
    assert figures["hand/AP"] == figures["whole/AP"] == pytest.approx(100.0)
    text = table(figures)
    assert [line.split()[0] for line in text.splitlines()] == [
        "part", "body", "foot", "face", "left_hand", "right_hand", "whole", "hand",
    ]  # fmt: skip
    assert text.splitlines()[2].split()[1:] == ["-"] * 4


def test_pck_and_nme_pair_each_person_with_the_nearest() -> None:
    truth = truth_of(17)  # two people an image, boxes of 200 pixels
    found = found_of(truth)
    figures = nearness(truth, found[::-1], BODY)
    assert figures == {"found": 100.0, "body/PCK": 100.0, "body/NME": 0.0}
    near = [dict(person) for person in found]
    near[0]["keypoints"] = [value + 8 * (place % 3 == 0) for place, value in enumerate(near[0]["keypoints"])]
    near[1]["keypoints"] = [value + 12 * (place % 3 == 1) for place, value in enumerate(near[1]["keypoints"])]
    figures = nearness(truth, near, BODY)
    assert figures["body/PCK"] == pytest.approx(100 * 5 / 6), "8 pixels are within 10, 12 are not"
    assert figures["body/NME"] == pytest.approx((4 + 6) / 6)
    one = nearness(truth, found[:1], BODY)
    assert one["found"] == one["body/PCK"] == pytest.approx(100 / 6)
    assert one["body/NME"] == 0.0
    assert nearness(truth, [], BODY) == {"found": 0.0, "body/PCK": 0.0, "body/NME": None}
    assert nearness({**truth, "annotations": []}, [], BODY)["body/PCK"] is None
    far = [{**found[0], "keypoints": [value + 1e4 for value in found[0]["keypoints"]]}]
    assert nearness(truth, far, BODY)["found"] == pytest.approx(100 / 6)
    with pytest.raises(ValueError, match="threshold must be"):
        nearness(truth, found, BODY, threshold=0.0)


def test_results_that_do_not_fit_are_told(tmp_path: Path) -> None:
    truth = truth_of(17)
    with pytest.raises(DataError, match="result 0 lacks score: it needs image_id, keypoints, score"):
        average_precision(truth, [{"image_id": 0, "keypoints": []}], BODY)
    with pytest.raises(DataError, match="result 0 is of image 99, which the annotations lack"):
        average_precision(truth, [{"image_id": 99, "keypoints": [], "score": 1}], BODY)
    with pytest.raises(DataError, match=r"annotation of result 0 must have 17 key points \(x, y, v\), got 1"):
        average_precision(truth, [{"image_id": 0, "keypoints": [1, 2, 3], "score": 1}], BODY)
    nan = [{"image_id": 0, "keypoints": [1.0, 2.0, 1.0] * 16 + [float("nan"), 2.0, 1.0], "score": 1}]
    with pytest.raises(DataError, match=r"of result 0: key point 16 of 17 is \[nan, 2.0, 1.0\]"):
        average_precision(truth, nan, BODY)
    (tmp_path / "found.json").write_text("{}")
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    with pytest.raises(DataError, match="must hold a list of people, it holds a dict"):
        evaluate(tmp_path / "found.json", tmp_path / "truth.json", BODY)


def test_the_evaluator_of_a_run_carries_points_back(tmp_path: Path) -> None:
    """Labels taken for scores are as good as a model can be."""
    render(tmp_path, train=1, val=4)
    codec = SimCC((64, 64))
    people = People("val.json", images="val", root=tmp_path, codec=codec, layout=CHAIN)
    metric = KeypointAP(codec, layout=CHAIN, results=tmp_path / "out" / "found.json")
    items = [people[number] for number in range(4)]
    batch = {
        "person": {
            name: [item["person"][name] for item in items]
            for name in ("image_id", "matrix", "score", "area", "annotations")
        }
    }
    scores = [torch.stack([item["targets"][axis] for item in items]) for axis in range(2)]
    metric.process(batch, scores)
    figures = metric.evaluate(size=4)
    assert figures["chain/AP"] == pytest.approx(100.0)
    assert evaluate(tmp_path / "out" / "found.json", tmp_path / "val.json", CHAIN) == figures
    assert figures["chain/PCK"] == 100.0
    with pytest.raises(ShapeError, match="the model has 133 key points, the evaluator's layout has 10"):
        metric.process(batch, [torch.zeros(4, 133, 128)] * 2)
    with pytest.raises(DataError, match="evaluation needs 'person' in the batch, it has inputs"):
        metric.process({"inputs": None}, scores)


def test_pictures(tmp_path: Path) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    points = np.column_stack([np.linspace(5, 55, 17), np.linspace(5, 35, 17)])
    drawn = draw_people(image, [(points, np.ones(17))], BODY)
    assert image.max() == 0
    assert drawn.max() == 255
    assert draw_people(image, [(points, np.zeros(17))], BODY).max() == 0
    write_picture(drawn, tmp_path / "new" / "people.png")
    assert (tmp_path / "new" / "people.png").read_bytes()[:4] == b"\x89PNG"
