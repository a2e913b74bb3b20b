"""The evaluator of a pose run: key points carried back to their images, judged as COCO-WholeBody does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from limbeck_core.build import build
from limbeck_core.checks import check_positive
from limbeck_core.errors import DataError, ShapeError
from limbeck_pose.data.people import read_json
from limbeck_pose.evaluation.coco import average_precision
from limbeck_pose.evaluation.nearness import nearness
from limbeck_pose.evaluation.similarity import instance_score, keep_one_of_each
from limbeck_pose.heatmap import Heatmap
from limbeck_pose.keypoints import WHOLE_BODY, Layout
from limbeck_pose.simcc import SimCC


class KeypointAP(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """Average precision, PCK and NME of key points in MMEngine's evaluator.

    Keys are those of :func:`~limbeck_pose.evaluation.coco.average_precision` and of
    :func:`~limbeck_pose.evaluation.nearness.nearness`. The truth is read from the annotation
    file that the people of the batches come from.

    Args:
        codec: Codec of the head, or its config.
        layout: Which key points the head has.
        results: File that the people are written to as well, in COCO's result format; ``None`` writes none.
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange predictions.
        prefix: Put before each key with a slash.
    """

    default_prefix = ""

    def __init__(
        self,
        codec: SimCC | Heatmap | Mapping[str, Any],
        *,
        layout: Layout = WHOLE_BODY,
        results: str | Path | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.codec: SimCC | Heatmap = build(codec) if isinstance(codec, Mapping) else codec
        self.layout = layout
        self.file = None if results is None else Path(results)

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[Tensor]) -> None:
        """Take one batch.

        Args:
            data_batch: The batch with its ``person``, as :class:`~limbeck_pose.data.People` gives it.
            data_samples: Scores along x and y, ``(N, K, bins)`` each; of a heatmap head ``(N, K, H, W)``, or N rows.

        Raises:
            DataError: if the batch has no people.
            ShapeError: if the scores are of another codec, or the model has another number of key points than the
                layout.
        """
        person = _people_of(data_batch)
        points, scores = decode_output(self.codec, data_samples)
        _check_count(points.shape[1], self.layout.count, "the evaluator's layout")
        for number in range(len(points)):
            back = _undo(points[number], person["matrix"][number])
            self.results.append(
                {
                    "image_id": int(person["image_id"][number]),
                    "points": back,
                    "scores": scores[number].double().numpy(),
                    "score": instance_score(float(person["score"][number]), scores[number].double().numpy()),
                    "area": float(person["area"][number]),
                    "annotations": person["annotations"][number],
                }
            )

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Drop people that stand for one already found, and return the figures of the rest.

        Raises:
            DataError: if the people come from more than one annotation file, or it cannot be read.
        """
        files = sorted({person["annotations"] for person in results})
        if len(files) != 1:
            raise DataError(f"people of one annotation file are judged together, got those of {', '.join(files)}")
        by_image: dict[int, list[dict[str, Any]]] = {}
        for person in results:
            by_image.setdefault(person["image_id"], []).append(person)
        people = []
        for group in by_image.values():
            points, scores, areas = (
                np.stack([np.asarray(p[name]) for p in group]) for name in ("points", "score", "area")
            )
            people += [group[index] for index in keep_one_of_each(points, scores, areas, self.layout.sigmas)]
        found = [
            {
                "image_id": person["image_id"],
                "category_id": 1,
                "keypoints": np.column_stack([person["points"], person["scores"]]).ravel().tolist(),
                "score": person["score"],
            }
            for person in people
        ]
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text(json.dumps(found), encoding="utf-8")
        truth = read_json(Path(files[0]))
        figures = {**average_precision(truth, found, self.layout), **nearness(truth, found, self.layout)}
        return {name: value for name, value in figures.items() if value is not None}


class CorrectKeypoints(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """Share of labelled key points that a run places within a number of pixels of the image from the truth.

    Keys: ``pck`` in per cent, and ``pck/<group>``. ``per_sample`` holds each person's share, by which
    ``limbeck compare`` resamples.

    Args:
        codec: Codec of the head, or its config.
        pixels: Largest distance that counts as correct.
        groups: Key points that are given on their own, by name.
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange predictions.
        prefix: Put before each key with a slash.

    Raises:
        ValueError: if ``pixels`` is not above 0.
    """

    default_prefix = ""

    def __init__(
        self,
        codec: SimCC | Heatmap | Mapping[str, Any],
        *,
        pixels: float,
        groups: Mapping[str, Sequence[int]] | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        check_positive(pixels, "pixels")
        self.codec: SimCC | Heatmap = build(codec) if isinstance(codec, Mapping) else codec
        self.pixels = pixels
        self.groups = {name: list(points) for name, points in (groups or {}).items()}
        self.per_sample: dict[str, list[float]] = {}

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[Tensor]) -> None:
        """Take one batch; as :meth:`KeypointAP.process`."""
        person = _people_of(data_batch)
        points, _ = decode_output(self.codec, data_samples)
        if len(points):
            _check_count(points.shape[1], len(person["points"][0]), "the data set")
        for number in range(len(points)):
            off = (
                _undo(points[number], person["matrix"][number])
                - torch.as_tensor(person["points"][number]).cpu().numpy()
            )
            visible = torch.as_tensor(person["visible"][number]).cpu().numpy() > 0
            self.results.append((np.linalg.norm(off, axis=-1) <= self.pixels, visible))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Return the shares over all labelled key points."""
        near, visible = (np.stack(column) for column in zip(*results, strict=True))
        labelled = visible.any(1)
        self.per_sample = {
            "pck": [100.0 * float(n[v].mean()) for n, v in zip(near[labelled], visible[labelled], strict=True)]
        }
        figures = {}
        for name, chosen in {
            "pck": list(range(near.shape[1])),
            **{f"pck/{n}": p for n, p in self.groups.items()},
        }.items():
            hits = near[:, chosen][visible[:, chosen]]
            if hits.size:
                figures[name] = 100.0 * float(hits.mean())
        return figures


def decode_output(codec: SimCC | Heatmap, output: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return key points ``(N, K, 2)`` in pixels of the crop and scores ``(N, K)`` of what a model gives, on the CPU.

    Args:
        codec: The codec of the head.
        output: Scores along x and y; or heatmaps, together or one a person.

    Raises:
        ShapeError: if the output is of another codec.
    """
    if isinstance(codec, Heatmap):
        heatmaps = output if isinstance(output, Tensor) else torch.stack(list(output))
        return codec.decode(heatmaps.detach().float().cpu())
    if isinstance(output, Tensor) or len(output) != 2:
        raise ShapeError(
            "a SimCC codec reads two tensors, scores along x and along y; for a heatmap head give the Heatmap codec"
        )
    x, y = (scores.detach().float().cpu() for scores in output)
    return codec.decode(x, y)


def _people_of(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    if "person" not in batch:
        raise DataError(f"evaluation needs 'person' in the batch, it has {', '.join(batch)}")
    people: Mapping[str, Any] = batch["person"]
    return people


def _check_count(model: int, other: int, whose: str) -> None:
    if model != other:
        raise ShapeError(
            f"the model has {model} key points, {whose} has {other}: give model, data set and evaluator one layout"
        )


def _undo(points: Tensor, matrix: Any) -> Any:
    """Carry key points ``(K, 2)`` of a crop back to its image."""
    affine = torch.as_tensor(matrix).double().cpu().numpy()
    return (points.double().numpy() - affine[:, 2]) @ np.linalg.inv(affine[:, :2]).T
