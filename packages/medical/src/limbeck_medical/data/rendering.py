"""Volumes that are made here: ellipsoid organs as a scanner might see them, written as NIfTI in the layout of MSD."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from limbeck_core.checks import check_non_negative
from limbeck_medical.nifti import write_nifti

Array = npt.NDArray[np.float64]

CLASSES = ("background", "head", "body")
_SIDE = 36.0  # millimetres
_FINE = 3  # samples a voxel and axis, of which partial volume is averaged
_LEVELS = (300.0, 560.0, 500.0)  # intensities of background, head and body: the two organs differ less than noise
_DECOYS = 3  # ellipsoids of an organ's intensity that are no organ, apart from the pair


@dataclass(frozen=True)
class Scan:
    """A rendered case.

    Args:
        image: Intensities, int16, by voxel.
        labels: Class of each voxel, uint8.
        affine: From voxels to millimetres, 4x4: spacing that is not isotropic, and for odd cases reversed axes.
    """

    image: npt.NDArray[np.int16]
    labels: npt.NDArray[np.uint8]
    affine: Array


def render_scan(number: int, *, seed: int = 0, noise: float = 90.0, bias: float = 0.35) -> Scan:
    """Render one case: two touching ellipsoids in a varied background, with what scanners add.

    Partial volume comes from averaging 27 samples a voxel, the bias field is a smooth factor, noise is Gaussian.

    Args:
        number: Of the case; each is another patient.
        seed: Of the whole set.
        noise: Standard deviation of the noise, in units of intensity (background 300, organs 560 and 500).
        bias: Largest relative change by the bias field.

    Raises:
        ValueError: if ``noise`` or ``bias`` is negative.
    """
    check_non_negative(noise, "noise")
    check_non_negative(bias, "bias")
    draw = np.random.RandomState([seed % 2**32, number])  # the one generator whose stream NumPy never changes
    spacing = np.array([draw.uniform(0.9, 1.2), draw.uniform(0.9, 1.2), draw.uniform(1.6, 2.2)])
    shape = np.round(_SIDE / spacing).astype(int)
    fine = [
        (np.arange(count * _FINE) + 0.5) * step / _FINE - _SIDE / 2 for count, step in zip(shape, spacing, strict=True)
    ]
    points = np.stack(np.meshgrid(*fine, indexing="ij"), axis=-1)
    classes = np.zeros(points.shape[:-1], dtype=np.int64)
    levels = np.full(points.shape[:-1], _LEVELS[0])
    axis = _rotation(draw)
    centre = draw.uniform(-4, 4, size=3)
    for _ in range(_DECOYS):
        place = centre + 13 * _direction(draw)
        inside = _ellipsoid(points, place, draw.uniform(2, 4, size=3), _rotation(draw))
        levels[inside] = _LEVELS[draw.randint(1, 3)]
    radii = draw.uniform(3.2, 5.2, size=(2, 3))
    for label, side in ((2, -1), (1, 1)):  # the head lies over the body where both reach
        place = centre + axis[:, 0] * side * 0.8 * radii[label - 1, 0]
        inside = _ellipsoid(points, place, radii[label - 1], axis)
        classes[inside], levels[inside] = label, _LEVELS[label]
    shares = np.stack([_coarse((classes == label).astype(np.float64), shape) for label in range(len(CLASSES))])
    image = _coarse(levels, shape) * (1 + bias * _field(draw, shape)) + noise * draw.standard_normal(tuple(shape))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -_SIDE / 2
    labels = shares.argmax(0).astype(np.uint8)
    if number % 2:  # as from a scanner that counts the first two axes the other way
        image, labels = image[::-1, ::-1], labels[::-1, ::-1]
        affine[:2, 3] = affine[:2, 3] + (shape[:2] - 1) * spacing[:2]
        affine[:2, :2] *= -1
    return Scan(np.clip(np.round(image), 0, 4095).astype(np.int16), labels, affine)


def render_msd(
    root: str | Path, cases: int, *, seed: int = 0, noise: float = 90.0, bias: float = 0.35, unlabelled: int = 0
) -> Path:
    """Write a rendered data set in the layout of the Medical Segmentation Decathlon.

    Args:
        root: Folder, made if it is not there; files of the same names are replaced.
        cases: Labelled cases.
        seed: Of everything random.
        noise: See :func:`render_scan`.
        bias: See :func:`render_scan`.
        unlabelled: Further cases without label, in ``imagesTs``.

    Returns:
        The folder.

    Raises:
        ValueError: if a number is out of range.
    """
    if cases < 1 or unlabelled < 0:
        raise ValueError(f"cases must be 1 or more and unlabelled 0 or more, got {cases} and {unlabelled}")
    root = Path(root)
    training, tests = [], []
    for number in range(cases + unlabelled):
        scan, name = render_scan(number, seed=seed, noise=noise, bias=bias), f"ellipsoids_{number:03d}.nii.gz"
        folder = "imagesTr" if number < cases else "imagesTs"
        write_nifti(scan.image, scan.affine, root / folder / name)
        if number < cases:
            write_nifti(scan.labels, scan.affine, root / "labelsTr" / name)
            training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
        else:
            tests.append(f"./imagesTs/{name}")
    description = {
        "name": "Ellipsoids",
        "description": f"rendered by limbeck-medical, seed {seed}",
        "tensorImageSize": "3D",
        "modality": {"0": "MRI"},
        "labels": {str(label): name for label, name in enumerate(CLASSES)},
        "numTraining": cases,
        "numTest": unlabelled,
        "training": training,
        "test": tests,
    }
    (root / "dataset.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return root


def _direction(draw: np.random.RandomState) -> Array:
    vector = draw.standard_normal(3)
    direction: Array = vector / np.linalg.norm(vector)
    return direction


def _rotation(draw: np.random.RandomState) -> Array:
    orthogonal, upper = np.linalg.qr(draw.standard_normal((3, 3)))
    rotation: Array = orthogonal * np.sign(np.diag(upper))
    return rotation


def _ellipsoid(points: Array, centre: Array, radii: Array, axes: Array) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = (((points - centre) @ axes / radii) ** 2).sum(-1) < 1
    return inside


def _coarse(fine: Array, shape: npt.NDArray[np.int64]) -> Array:
    x, y, z = (int(side) for side in shape)
    averaged: Array = fine.reshape(x, _FINE, y, _FINE, z, _FINE).mean((1, 3, 5))
    return averaged


def _field(draw: np.random.RandomState, shape: npt.NDArray[np.int64]) -> Array:
    """A quadratic of the position, between -1 and 1."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, int(side)) for side in shape), indexing="ij")
    terms = np.stack([x, y, z, x * y, y * z, x * z, x**2, y**2, z**2])
    field: Array = np.tensordot(draw.uniform(-1, 1, size=len(terms)), terms, axes=1)
    return field / max(float(np.abs(field).max()), 1e-9)
