"""Evaluation of files: a folder of predicted label maps against a folder of true ones, on the grid of the files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.image_reader import PILReader
from monai.transforms import LoadImage, Orientation

from limbeck_core.errors import DataError, ShapeError, closest
from limbeck_medical.data.cases import PICTURES, files_of, stem
from limbeck_medical.data.dataset import spacing_of
from limbeck_medical.data.transforms import AFFINE_TOLERANCE
from limbeck_medical.evaluation.measures import MissingDistance, measure_case
from limbeck_medical.evaluation.pictures import draw_overlay
from limbeck_medical.evaluation.summary import summarize


@dataclass(frozen=True)
class Pair:
    """Files of one case.

    Args:
        name: Of the case.
        prediction: Predicted label map.
        label: True label map.
        image: The image, for pictures; ``None`` if there is none.
    """

    name: str
    prediction: Path
    label: Path
    image: Path | None = None


def pair_files(predictions: str | Path, labels: str | Path, images: str | Path | None = None) -> list[Pair]:
    """Match files of the folders by their names without endings.

    Args:
        predictions: Folder of predicted label maps.
        labels: Folder of true ones; it may hold more cases.
        images: Folder of images; ``NAME`` or, with channels apart, ``NAME_0000``.

    Raises:
        DataError: if a folder is missing or empty, or a prediction has no label of its name.
    """
    found = {}
    for path in (Path(predictions), Path(labels)):
        found[path] = {stem(file): file for file in files_of(path)}
        if not found[path]:
            raise DataError(f"{path} holds no label maps: expected files such as CASE.nii.gz or CASE.png")
    true = found[Path(labels)]
    shown = {} if images is None else {stem(file): file for file in files_of(Path(images))}
    pairs = []
    for name, file in found[Path(predictions)].items():
        if name not in true:
            raise DataError(
                f"the prediction {file} has no label of its name in {labels}: {closest(name, sorted(true))}"
            )
        pairs.append(Pair(name, file, true[name], shown.get(name, shown.get(f"{name}_0000"))))
    return pairs


def evaluate_files(
    pairs: Sequence[Pair],
    classes: Sequence[str],
    *,
    label_values: Sequence[int] | None = None,
    missing_distance: MissingDistance = "exclude",
    confidence: float = 0.95,
    pictures: str | Path | None = None,
) -> dict[str, Any]:
    """Measure every case on the grid of its files.

    Args:
        pairs: See :func:`pair_files`.
        classes: Names by label, the background first.
        label_values: Values in the files in the order of the classes, if they are not 0, 1, 2, ...
        missing_distance: See :func:`~limbeck_medical.evaluation.measure_case`.
        confidence: Of the bootstrap intervals.
        pictures: Folder for overlays, one picture a case that has an image.

    Returns:
        See :func:`~limbeck_medical.evaluation.summarize`.

    Raises:
        DataError: if a file cannot be read, or prediction and label are not on one grid.
        TargetError: if a file holds another value than the classes.
    """
    scores = []
    for pair, prediction, target in _read(pairs, label_values):
        try:
            scores.append(
                measure_case(
                    prediction.as_tensor()[0],
                    target.as_tensor()[0],
                    len(classes),
                    spacing=spacing_of(target).tolist(),
                    missing_distance=missing_distance,
                )
            )
        except ValueError as error:
            raise type(error)(f"case {pair.name}: {error}") from error
        if pictures is not None and pair.image is not None:
            _draw(pair, prediction, target, classes, Path(pictures), scores[-1].dice)
    return summarize(
        [pair.name for pair in pairs],
        scores,
        classes,
        missing_distance=missing_distance,
        confidence=confidence,
    )


def _read(pairs: Sequence[Pair], values: Sequence[int] | None) -> Iterator[tuple[Pair, MetaTensor, MetaTensor]]:
    for pair in pairs:
        prediction, target = (read_labels(path, values) for path in (pair.prediction, pair.label))
        if prediction.shape != target.shape:
            raise DataError(
                f"{pair.prediction} has shape {tuple(prediction.shape[1:])}, {pair.label} {tuple(target.shape[1:])}: "
                "write predictions on the grid of the input, as 'limbeck predict' does"
            )
        apart = float((torch.as_tensor(prediction.affine) - torch.as_tensor(target.affine)).abs().max())
        if apart > AFFINE_TOLERANCE:
            raise DataError(
                f"{pair.prediction} and {pair.label} lie differently in space, their affines differ by up to "
                f"{apart:.3g} mm: write predictions with the geometry of the input, as 'limbeck predict' does"
            )
        yield pair, prediction, target


def read_labels(path: Path, values: Sequence[int] | None = None) -> MetaTensor:
    """Read a label map, int64 ``(1, ...)``, with its affine.

    Args:
        path: The file.
        values: Values in the file in the order of the classes; ``None`` if they are the classes.

    Raises:
        DataError: if the file cannot be read or holds other values than ``values``.
        ShapeError: if it has more than one channel.
    """
    found = read_image(path)
    if found.shape[0] != 1:
        raise ShapeError(f"{path} has {found.shape[0]} channels: a label map has one, with class numbers")
    labels = found.as_tensor().round().long()
    if values is not None:
        known = torch.as_tensor(list(values))
        matches = labels[..., None] == known
        if not bool(matches.any(-1).all()):
            other = sorted(set(labels.flatten().tolist()) - set(known.tolist()))
            raise DataError(f"{path} holds {other[:5]}, expected only {list(values)}: give the values of the classes")
        labels = matches.int().argmax(-1)
    return MetaTensor(labels, affine=found.affine)


def read_image(path: Path) -> MetaTensor:
    """Read an image, float32 ``(C, ...)``, with its affine.

    Raises:
        DataError: if the file cannot be read.
    """
    try:
        # left to itself, MONAI reads no TIFF
        reader = PILReader if path.name.lower().endswith(PICTURES) else None
        found: MetaTensor = LoadImage(reader=reader, image_only=True, ensure_channel_first=True)(str(path))
    except Exception as error:  # readers raise what they like
        raise DataError(f"{path} cannot be read as an image ({type(error).__name__}: {error})") from error
    return found


def _draw(
    pair: Pair, prediction: MetaTensor, target: MetaTensor, classes: Sequence[str], folder: Path, dice: Any
) -> None:
    volumes: list[Any] = [read_image(pair.image), target, prediction] if pair.image is not None else []
    if volumes and volumes[0].shape[1:] != target.shape[1:]:
        raise DataError(f"{pair.image} and {pair.label} are not on one grid: give the images that the labels belong to")
    if target.ndim == 4:
        volumes = [Orientation(axcodes="RAS", labels=None)(volume) for volume in volumes]
    image, true, predicted = (np.asarray(volume.as_tensor()[0]) for volume in volumes)
    found = ", ".join(f"{name} {value:.1f}" for name, value in zip(classes[1:], dice, strict=True))
    draw_overlay(
        image,
        true,
        predicted,
        folder / f"{pair.name}.png",
        classes=classes,
        spacing=spacing_of(volumes[1]).tolist(),
        title=f"{pair.name}: Dice (%) {found}",
    )
