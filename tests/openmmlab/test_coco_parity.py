"""Our figures of key points against the official evaluator of COCO-WholeBody, xtcocotools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xtcocotools.coco import COCO
from xtcocotools.cocoeval import COCOeval

from limbeck_pose.evaluation import average_precision
from limbeck_pose.keypoints import WHOLE_BODY

LISTS = {
    "keypoints": range(17),
    "foot_kpts": range(17, 23),
    "face_kpts": range(23, 91),
    "lefthand_kpts": range(91, 112),
    "righthand_kpts": range(112, 133),
}
OFFICIAL = {
    "keypoints_body": "body",
    "keypoints_foot": "foot",
    "keypoints_face": "face",
    "keypoints_lefthand": "left_hand",
    "keypoints_righthand": "right_hand",
    "keypoints_wholebody": "whole",
}


def scene(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """People of all sizes, some points and some whole parts without labels; found ones are off, doubled or missing."""
    random = np.random.default_rng(seed)
    images = [{"id": number, "file_name": f"{number}.jpg", "height": 400, "width": 400} for number in range(1, 6)]
    annotations, results = [], []
    for image in images:
        for _ in range(random.integers(1, 5)):
            x, y = random.uniform(0, 200, 2)
            width, height = random.uniform(40, 200, 2)
            points = np.column_stack([random.uniform(x, x + width, 133), random.uniform(y, y + height, 133)])
            visible = (random.random(133) < 0.8) * 2
            for name in ("face_kpts", "lefthand_kpts"):
                if random.random() < 0.3:
                    visible[list(LISTS[name])] = 0
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image["id"],
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [x, y, width, height],
                "area": width * height * 0.6,
                "num_keypoints": int((visible[:17] > 0).sum()),
            }
            table = np.column_stack([points * (visible[:, None] > 0), visible])
            annotations.append(annotation | {name: table[list(rows)].ravel().tolist() for name, rows in LISTS.items()})
            for _ in range(random.integers(0, 3)):
                found = np.column_stack([points + random.normal(0, random.uniform(0.5, 6), (133, 2)), np.ones(133)])
                results.append(
                    {"image_id": image["id"], "category_id": 1, "score": float(random.random())}
                    | {name: found[list(rows)].ravel().tolist() for name, rows in LISTS.items()}
                )
    categories = [{"id": 1, "name": "person", "keypoints": [], "skeleton": []}]
    return {"images": images, "annotations": annotations, "categories": categories}, results


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_as_the_official_evaluator(seed: int, tmp_path: Path) -> None:
    annotations, results = scene(seed)
    (tmp_path / "truth.json").write_text(json.dumps(annotations))
    (tmp_path / "found.json").write_text(json.dumps(results))
    coco = COCO(str(tmp_path / "truth.json"))
    found = coco.loadRes(str(tmp_path / "found.json"))
    ours = average_precision(annotations, results)
    sigmas = np.array(WHOLE_BODY.sigmas)
    for kind, part in OFFICIAL.items():
        points = range(133) if part == "whole" else WHOLE_BODY.parts[part]
        judge = COCOeval(coco, found, kind, sigmas[list(points)], use_area=True)
        judge.params.useSegm = None
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
        assert ours[f"{part}/AP"] == pytest.approx(100 * judge.stats[0], abs=1e-6), part
        assert ours[f"{part}/AP50"] == pytest.approx(100 * judge.stats[1], abs=1e-6), part
        assert ours[f"{part}/AR"] == pytest.approx(100 * judge.stats[5], abs=1e-6), part
    assert 5 < ours["whole/AP"] < 95, "a scene in which everything or nothing is found would prove little"
