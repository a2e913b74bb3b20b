"""Writing NIfTI files; reading is MONAI's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt


def write_nifti(values: npt.NDArray[Any], affine: npt.ArrayLike, path: Path) -> Path:
    """Write an array of voxels in millimetres.

    Args:
        values: Three axes; its type is the file's.
        affine: From voxels to millimetres, 4x4.
        path: Ends in ``.nii`` or ``.nii.gz``; its folder is made.

    Returns:
        The path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    library: Any = nibabel  # typed in part
    volume = library.Nifti1Image(values, np.asarray(affine, dtype=np.float64))
    volume.header.set_xyzt_units("mm")
    library.save(volume, path)
    return path
