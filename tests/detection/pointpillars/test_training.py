"""From a folder in KITTI's layout by a config, `limbeck train` and the evaluation tool to files of results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from limbeck_core.engine import commands
from limbeck_core.engine.export import export
from limbeck_detection.data import write_points
from limbeck_detection.data.database import main as cut

CALIB = "P2: 700 0 600 0 0 700 180 0 0 0 1 0\nR0_rect: 1 0 0 0 1 0 0 0 1\nTr_velo_to_cam: 0 -1 0 0 0 0 -1 0 1 0 0 0\n"


def make_frames(root: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for i in range(count):
        x, y = rng.uniform(8, 16), rng.uniform(-3, 3)
        body = rng.uniform([x - 2, y - 0.8, -1.7], [x + 2, y + 0.8, -0.2], (80, 3))
        ground = rng.uniform([2, -8, -1.9], [20, 8, -1.8], (200, 3))
        points = np.concatenate([body, ground])
        cloud = torch.from_numpy(np.concatenate([points, rng.uniform(size=(len(points), 1))], 1)).float()
        name = f"{i:06d}"
        write_points(cloud, root / "training" / "velodyne" / f"{name}.bin")
        label = f"Car 0.00 0 0.00 300 150 500 250 1.50 1.60 4.00 {-y:.2f} 1.70 {x:.2f} -1.57\n"
        for kind, text in (("calib", CALIB), ("label_2", label)):
            (root / "training" / kind).mkdir(parents=True, exist_ok=True)
            (root / "training" / kind / f"{name}.txt").write_text(text)
    (root / "ImageSets").mkdir()
    for split in ("train", "val"):
        (root / "ImageSets" / f"{split}.txt").write_text("".join(f"{i:06d}\n" for i in range(count)))


def test_a_config_trains_and_is_judged(tmp_path: Path) -> None:
    make_frames(tmp_path / "kitti", 4)
    assert cut([str(tmp_path / "kitti"), "--split", "train"]) == 0
    small = [
        "model.student.point_range=[0,-10.24,-3,20.48,10.24,1]",
        "+model.student.pillar_size=[0.64,0.64,4.0]",
        "+model.student.layer_nums=[1,1,1]",
        "train_dataloader.num_workers=0",
        "train_dataloader.batch_size=2",
        "val_dataloader.num_workers=0",
        "train_cfg.max_epochs=2",
    ]
    name = "detection/pointpillars/pointpillars_16x_kitti"
    runner = commands.train(name, work_dir=tmp_path / "run", seed=0, data_root=tmp_path / "kitti", overrides=small)
    assert runner.train_loop.iter == 4
    overrides = [
        *small,
        f"+test_evaluator.results={tmp_path / 'found'}",
        f"+test_evaluator.pictures={tmp_path / 'seen'}",
    ]
    result = commands.evaluate(
        name,
        tmp_path / "run" / "student.pth",
        work_dir=tmp_path / "judged",
        data_root=tmp_path / "kitti",
        overrides=overrides,
    )
    weights = export(
        name,
        tmp_path / "run" / "student.pth",
        out=tmp_path / "w.pth",
        format="state_dict",
        data_root=tmp_path / "kitti",
        overrides=small,
    )
    assert weights.parameters == 118_920  # the smaller layer_nums
    assert "voxel_encoder.pfn_layers.0.linear.weight" in torch.load(tmp_path / "w.pth", weights_only=True)
    assert 0 <= result["mean/3d/AP40/moderate"] <= 100
    for folder, ending in (("found", "txt"), ("seen", "png")):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == [f"{i:06d}.{ending}" for i in range(4)]
