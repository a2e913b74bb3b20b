"""Reading points from files: KITTI's .bin, NumPy's .npy, and .pcd and .ply by Open3D."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from limbeck_core.errors import DataError

FEATURES = 4  # x, y, z in metres and reflectance
SUFFIXES = (".bin", ".npy", ".pcd", ".ply")


def read_points(path: str | Path, *, features: int = FEATURES) -> Tensor:
    """Read the points of one scene.

    Args:
        path: A file of one of these kinds. ``.bin``: float32 numbers, little-endian, ``features`` a point (KITTI's
            velodyne files). ``.npy``: an array ``(n, features)`` or wider, of which the first columns are taken.
            ``.pcd`` and ``.ply``: positions, and the intensity where the file has one; needs Open3D
            (``pip install 'limbeck-detection[open3d]'``).
        features: Numbers of a point.

    Returns:
        Float32 ``(n, features)``; ``n`` is 0 for an empty file of KITTI's.

    Raises:
        DataError: if the file is missing, truncated, of another shape, or of another kind.
        MissingDependency: if Open3D is needed and absent.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file of points {path}")
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} is no file of points that is known: expected one of {', '.join(SUFFIXES)}")
    if path.suffix == ".bin":
        return torch.from_numpy(_read_bin(path, features))
    if path.suffix == ".npy":
        return torch.from_numpy(_read_npy(path, features))
    from limbeck_detection.data._open3d import read_cloud  # noqa: PLC0415  an extra

    return torch.from_numpy(read_cloud(path, features))


def write_points(points: Tensor, path: str | Path) -> None:
    """Write the points of one scene as a ``.bin`` or ``.npy`` file.

    Args:
        points: ``(n, features)``.
        path: The file; its folder is made.

    Raises:
        DataError: if the file's name ends otherwise.
    """
    path = Path(path)
    table = points.detach().cpu().numpy().astype("<f4")
    if path.suffix not in (".bin", ".npy"):
        raise DataError(f"points are written as .bin or .npy, not as {path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".bin":
        table.tofile(path)
    else:
        np.save(path, table)


def _read_bin(path: Path, features: int) -> npt.NDArray[np.float32]:
    content = path.read_bytes()
    whole = 4 * features
    if len(content) % whole:
        raise DataError(
            f"{path} has {len(content)} bytes, which is no multiple of {whole} ({features} float32 numbers a point): "
            "it is truncated, or holds other numbers of features; copy it again, or say features=..."
        )
    return np.frombuffer(content, dtype="<f4").reshape(-1, features).astype(np.float32)


def _read_npy(path: Path, features: int) -> npt.NDArray[np.float32]:
    try:
        table = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged or no NumPy array of numbers ({error})") from error
    if not isinstance(table, np.ndarray) or table.ndim != 2 or table.shape[1] < features:
        shape = getattr(table, "shape", None)
        raise DataError(f"{path} must hold an array (n, {features}) or wider, got {shape}")
    if not np.issubdtype(table.dtype, np.number) or np.iscomplexobj(table):
        raise DataError(f"{path} must hold real numbers, got {table.dtype}")
    return np.ascontiguousarray(table[:, :features], dtype=np.float32)
