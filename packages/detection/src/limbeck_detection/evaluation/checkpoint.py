"""From a config and its student's weights to average precision on the test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck_core.engine.config import load_config
from limbeck_core.engine.export import student_alone
from limbeck_core.engine.sampler import build_dataloader
from limbeck_core.errors import ConfigError
from limbeck_detection.evaluation.coco import numbers_and_curves
from limbeck_detection.evaluation.metric import as_coco, image_rows
from limbeck_detection.evaluation.speed import Speed, measure_speed


@dataclass(frozen=True)
class Judged:
    """What a detector found on the test images.

    Args:
        result: As :func:`~limbeck_detection.evaluation.average_precision`, with ``images`` and ``detections``.
        predictions: COCO's result format, with the data set's own category ids.
        classes: Names of the classes, by label.
        curves: As :func:`~limbeck_detection.evaluation.numbers_and_curves`.
        shown: Of the first images: ``image`` as the detector saw it, ``truth`` and ``found`` (each ``labels`` and
            ``boxes`` in its pixels, the latter with ``scores``).
        speed: How fast it is, if that was asked.
    """

    result: dict[str, Any]
    predictions: list[dict[str, Any]]
    classes: tuple[str, ...]
    curves: dict[str, list[float]] = field(default_factory=dict)
    shown: tuple[dict[str, Tensor], ...] = ()
    speed: Speed | None = None


@torch.no_grad()
def judge_checkpoint(
    config: str | Path,
    checkpoint: str | Path,
    *,
    partial: bool = False,
    data_root: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    show: int = 0,
    speed: bool = False,
) -> Judged:
    """Run a config's student on its test images (its validation images, if it has no others); no teacher is built.

    Args:
        config: A path, or the name of an installed config.
        checkpoint: Weights of the student, or a training checkpoint; of one with a moving average, that is judged.
        partial: Accept a file that lacks some of the student's weights.
        data_root: See :func:`~limbeck_core.engine.config.load_config`.
        overrides: See :func:`~limbeck_core.engine.config.load_config`.
        show: So many of the first images are kept for pictures.
        speed: Measure latency and throughput at the size of the test images.

    Raises:
        ConfigError: if the config has nothing to test on or no student.
        CheckpointError: if the checkpoint cannot be read or does not fit.
        DataError: if the test data give no ``truth``.
    """
    settings = load_config(config, overrides=overrides, data_root=data_root)
    loader = settings.get("test_dataloader") or settings.get("val_dataloader")
    if loader is None:
        raise ConfigError(f"{config} has nothing to test on: it needs test_dataloader")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    student = student_alone(settings, Path(checkpoint), partial=partial)
    model = student.model.to(device).eval()
    batches = build_dataloader(loader, seed=0, training=False)
    data: Any = batches.dataset
    classes = tuple(getattr(data, "classes", ()))
    rows: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    size = 0
    for batch in batches:
        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
        detections = student.call.predict(model, moved, student.view)
        rows.extend(image_rows(batch, detections))
        images = batch[student.view]
        size = int(images.shape[-1])
        for index in range(min(len(images), show - len(shown))):
            shown.append(_in_seen_pixels(images[index], batch, detections, index))
    truth, found = as_coco(rows, classes or None)
    strange = [row["category_id"] for row in found if classes and row["category_id"] >= len(classes)]
    if strange:
        raise ConfigError(
            f"the student finds the class {strange[0]}, but the test images have {len(classes)} classes: name the "
            "config that the checkpoint was trained with"
        )
    numbers = tuple(getattr(data, "category_ids", ()))
    named = [{**row, "category_id": numbers[row["category_id"]]} for row in found] if numbers else found
    precision, curves = numbers_and_curves(truth, found)
    measured = measure_speed(model, student.call, size=size, view=student.view) if speed else None
    result = {**precision, "images": len(truth["images"]), "detections": len(found)}
    return Judged(result, named, classes, curves, tuple(shown), measured)


def _in_seen_pixels(image: Tensor, batch: Mapping[str, Any], found: Sequence[Mapping[str, Tensor]], index: int) -> Any:
    """An image, its truth and what was found, boxes in pixels of the image as the detector saw it."""
    width, height = (float(side) for side in batch["sizes"][index])
    scale = torch.tensor([image.shape[-1] / width, image.shape[-2] / height]).repeat(2)

    def scaled(boxes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        kept = {name: boxes[name].cpu() for name in ("labels", "boxes", "scores") if name in boxes}
        return {**kept, "boxes": kept["boxes"].float() * scale}

    return {"image": image.cpu(), "truth": scaled(batch["truth"][index]), "found": scaled(found[index])}
