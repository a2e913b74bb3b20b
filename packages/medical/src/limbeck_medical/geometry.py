"""From a network's grid back to the grid of the input, and into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from PIL import Image
from torch import Tensor

from limbeck_core.errors import ShapeError
from limbeck_medical.nifti import write_nifti


def labels_on_input_grid(scores: Tensor, image: MetaTensor, transform: Compose) -> MetaTensor:
    """Undo a preprocessing chain for class scores and return the label map on the grid of the input file.

    Probabilities are resampled (linearly), not labels, so that borders do not become stairs.

    Args:
        scores: Class scores ``(K, ...)`` on the grid of ``image``.
        image: The preprocessed image, ``(C, ...)``, with what the chain noted in it.
        transform: The chain, with the image under the key ``inputs``.

    Returns:
        The class of each voxel, uint8 ``(1, ...)``, with the affine of the input file.

    Raises:
        ShapeError: if scores and image are not on one grid.
    """
    if scores.shape[1:] != image.shape[1:]:
        raise ShapeError(
            f"scores {tuple(scores.shape)} and image {tuple(image.shape)} must be on one grid: predict the "
            "preprocessed image itself"
        )
    probabilities = MetaTensor(scores.detach().cpu().float().softmax(0))
    inverse = Invertd("scores", transform, orig_keys="inputs", nearest_interp=False, to_tensor=True)
    found: Any = inverse({"inputs": image, "scores": probabilities})["scores"]
    # where the inverse leaves the resampled volume all classes are 0, and the background is the first
    labels = torch.as_tensor(found.as_tensor()).argmax(0, keepdim=True).to(torch.uint8)
    return MetaTensor(labels, affine=found.affine)


def write_labels(labels: MetaTensor, path: Path) -> Path:
    """Write a label map: three axes as NIfTI with its affine, two as PNG (its values are the classes).

    Args:
        labels: Shape ``(1, ...)``, values from 0 to 255.
        path: Without ending; folders are made.

    Returns:
        The path with its ending.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    values = labels.as_tensor()[0].cpu().numpy().astype(np.uint8)
    if values.ndim == 2:
        target = path.with_name(path.name + ".png")
        # axes of pictures are read as (width, height)
        Image.fromarray(np.ascontiguousarray(values.T)).save(target)
        return target
    return write_nifti(values, torch.as_tensor(labels.affine).cpu().numpy(), path.with_name(path.name + ".nii.gz"))
