"""Point clouds through Open3D, which this environment has and the default one does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open3d
import pytest

from limbeck_core.errors import DataError
from limbeck_detection.data.pointclouds import read_points


@pytest.mark.parametrize("suffix", [".ply", ".pcd"])
@pytest.mark.parametrize("ascii_text", [True, False])
def test_what_open3d_writes_is_read(tmp_path: Path, suffix: str, ascii_text: bool) -> None:
    rows = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    cloud = open3d.t.geometry.PointCloud(open3d.core.Tensor(rows[:, :3].copy()))
    cloud.point["intensity"] = open3d.core.Tensor(rows[:, 3:].copy())
    path = tmp_path / f"cloud{suffix}"
    assert open3d.t.io.write_point_cloud(str(path), cloud, write_ascii=ascii_text)
    np.testing.assert_allclose(read_points(path).numpy(), rows, rtol=1e-5)


def test_positions_alone_have_no_intensity(tmp_path: Path) -> None:
    (tmp_path / "a.pcd").write_text(
        "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 2\nHEIGHT 1\nPOINTS 2\nDATA ascii\n"
        "1 2 3\n4 5 6\n"
    )
    assert read_points(tmp_path / "a.pcd").tolist() == [[1, 2, 3, 0], [4, 5, 6, 0]]


def test_a_damaged_cloud_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.ply").write_text("no cloud")
    with pytest.raises(DataError, match=r"b\.ply is damaged, or a cloud without a point"):
        read_points(tmp_path / "b.ply")
