"""The only file that imports Open3D: point clouds in the formats .pcd and .ply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck_core.errors import DataError, MissingDependency

_INTENSITIES = ("intensity", "intensities", "reflectance", "reflectivity")


def _open3d() -> Any:
    try:
        import open3d  # noqa: PLC0415  an extra
    except (ImportError, OSError) as error:  # OSError: a system library is missing
        raise MissingDependency(
            "reading .pcd and .ply needs Open3D: pip install 'limbeck-detection[open3d]', and the system library "
            f"libusb-1.0-0 ({error}); or save the points as .npy"
        ) from error
    return open3d


def read_cloud(path: Path, features: int) -> npt.NDArray[np.float32]:
    """Positions of a cloud, and its intensity as the fourth number (0 where the file has none).

    Intensities in bytes are brought to the range from 0 to 1.

    Raises:
        MissingDependency: if Open3D is absent.
        DataError: if the file is damaged or empty, or more than four features are asked for.
    """
    open3d = _open3d()
    if features > 4:
        raise DataError(f"a cloud in {path.suffix} gives 4 features (x, y, z, intensity), {features} were asked for")
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        cloud = open3d.t.io.read_point_cloud(str(path))
    names = list(cloud.point)
    if "positions" not in names or not len(cloud.point["positions"]):
        raise DataError(f"{path} is damaged, or a cloud without a point")
    position = np.asarray(cloud.point["positions"].numpy(), dtype=np.float32)
    found = next((name for name in _INTENSITIES if name in names), None)
    if found is None:
        intensity = np.zeros((len(position), 1), dtype=np.float32)
    else:
        raw = cloud.point[found].numpy().reshape(len(position), 1)
        scale = 255.0 if np.issubdtype(raw.dtype, np.integer) else 1.0
        intensity = raw.astype(np.float32) / np.float32(scale)
    return np.asarray(np.concatenate([position, intensity], 1)[:, :features])
