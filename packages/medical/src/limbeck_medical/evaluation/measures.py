"""Measures of one segmented case, by MONAI, and what is said of structures that are not there."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance
from torch import Tensor
from torch.nn.functional import one_hot

from limbeck_core.errors import ShapeError, TargetError

Array = npt.NDArray[np.float64]
MissingDistance = Literal["exclude", "diagonal"]

# Measures in the order of tables: title, unit, and whether a larger value is better.
MEASURES: dict[str, tuple[str, str, bool]] = {
    "dice": ("Dice", "%", True),
    "hd95": ("HD95", "mm", False),
    "asd": ("ASD", "mm", False),
    "volume_error": ("volume error", "%", False),
}
BOTH_EMPTY, MISSED, INVENTED, PRESENT = "absent from both", "missed", "invented", "present"


@dataclass(frozen=True)
class CaseScores:
    """What was measured of one case, one value for each structure (the classes without the background).

    Args:
        dice: Dice coefficient in per cent.
        hd95: 95th percentile of the Hausdorff distance in millimetres.
        asd: Average symmetric surface distance in millimetres.
        volume_error: Size of the difference of the volumes, in per cent of the true one.
        states: For each structure ``"present"`` (in truth and prediction), ``"missed"`` (in the truth alone),
            ``"invented"`` (in the prediction alone) or ``"absent from both"``.

    A value that has no meaning is NaN: every measure of a structure absent from both, the volume error of an invented
    one, and, unless asked otherwise, distances where only one of the two has the structure.
    """

    dice: Array
    hd95: Array
    asd: Array
    volume_error: Array
    states: tuple[str, ...]

    def of(self, measure: str) -> Array:
        """Return a measure by its name in :data:`MEASURES`."""
        values: Array = getattr(self, measure)
        return values


def measure_case(
    prediction: Tensor,
    target: Tensor,
    num_classes: int,
    *,
    spacing: Sequence[float] | None = None,
    distances: bool = True,
    missing_distance: MissingDistance = "exclude",
) -> CaseScores:
    """Compare two label maps.

    Conventions, nnU-Net's for Dice: a structure absent from both is not judged (NaN); one that is missed or invented
    has Dice 0. Distances between a surface and none are infinite; ``"exclude"`` leaves them out of means (NaN), which
    flatters a model that misses structures, so the states are counted beside them; ``"diagonal"`` puts the length of
    the image's diagonal in their place, as BraTS does.

    Args:
        prediction: Class of each voxel, integer, shape ``(...)`` with two or three axes.
        target: The truth, same shape.
        num_classes: Number of classes, the background (0) among them.
        spacing: Voxel size in millimetres by axis. Default: 1, so distances are in voxels.
        distances: Whether distances are measured, which takes longer than the rest; they are NaN otherwise.
        missing_distance: ``"exclude"`` or ``"diagonal"``.

    Raises:
        ShapeError: if shapes differ or have not two or three axes, or ``spacing`` has another length.
        TargetError: if a value is outside of the classes.
        ValueError: if ``num_classes`` is below 2 or ``missing_distance`` is unknown.
    """
    if num_classes < 2 or missing_distance not in get_args(MissingDistance):
        raise ValueError(
            f"num_classes must be 2 or more and missing_distance one of {', '.join(get_args(MissingDistance))}, got "
            f"{num_classes} and {missing_distance!r}"
        )
    if prediction.shape != target.shape or prediction.ndim not in (2, 3):
        raise ShapeError(
            f"prediction and target must have one shape of two or three axes, got {tuple(prediction.shape)} and "
            f"{tuple(target.shape)}: compare on one grid, the input's"
        )
    steps = [float(step) for step in spacing] if spacing is not None else [1.0] * target.ndim
    if len(steps) != target.ndim:
        raise ShapeError(f"spacing must have {target.ndim} entries, one for each axis, got {steps}")
    maps = [_one_hot(values, num_classes, name) for values, name in ((prediction, "prediction"), (target, "target"))]
    voxels = [found[0, 1:].flatten(1).sum(1).double().numpy() for found in maps]
    states = tuple(_state(bool(p), bool(t)) for p, t in zip(*voxels, strict=True))
    dice = 100 * compute_dice(maps[0], maps[1], include_background=False, ignore_empty=False)[0].double().numpy()
    for index, state in enumerate(states):
        if state == BOTH_EMPTY:
            dice[index] = np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        volume_error = np.where(voxels[1] > 0, 100 * np.abs(voxels[0] - voxels[1]) / voxels[1], np.nan)
    hd95, asd = np.full(len(states), np.nan), np.full(len(states), np.nan)
    if distances:
        missing = np.nan if missing_distance == "exclude" else float(np.linalg.norm(np.multiply(steps, target.shape)))
        for index, state in enumerate(states):
            if state == PRESENT:
                hd95[index], asd[index] = _distances([found[:, [index + 1]] for found in maps], steps)
            elif state != BOTH_EMPTY:
                hd95[index] = asd[index] = missing
    return CaseScores(dice, hd95, asd, volume_error, states)


def _state(predicted: bool, true: bool) -> str:
    if predicted and true:
        return PRESENT
    return INVENTED if predicted else MISSED if true else BOTH_EMPTY


def _distances(maps: list[Tensor], spacing: list[float]) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI calls its own functions with an argument it gives up
        hd95 = compute_hausdorff_distance(maps[0], maps[1], include_background=True, percentile=95, spacing=spacing)
        asd = compute_average_surface_distance(
            maps[0], maps[1], include_background=True, symmetric=True, spacing=spacing
        )
    return float(hd95), float(asd)


def _one_hot(values: Tensor, num_classes: int, name: str) -> Tensor:
    labels = values.detach().cpu().long()
    if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        raise TargetError(
            f"{name} must hold classes from 0 to {num_classes - 1}, got {int(labels.min())} to {int(labels.max())}: "
            "give the right list of classes"
        )
    return one_hot(labels, num_classes).movedim(-1, 0)[None].to(torch.uint8)
