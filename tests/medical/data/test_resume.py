"""Training on rendered volumes with MONAI's random transforms is the same in any order, process and after any kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.transforms import (
    Compose,
    OneOf,
    Rand3DElasticd,
    RandAdjustContrastd,
    RandAffined,
    RandBiasFieldd,
    RandCoarseDropoutd,
    RandCropByLabelClassesd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandGibbsNoised,
    RandHistogramShiftd,
    RandRicianNoised,
    RandSimulateLowResolutiond,
    RandWeightedCropd,
    RandZoomd,
    SpatialPadd,
)

from limbeck_core.engine.commands import train
from limbeck_core.engine.sampler import Key, SeededDataset, build_dataloader, fetch
from limbeck_medical.data import SegmentationDataset, random_crops
from limbeck_medical.dsd import DSDDistiller

SIZE = (16, 16, 16)
BOTH = ("inputs", "targets")
NEAREST = ("bilinear", "nearest")
CHAINS: dict[str, Any] = {
    "crops": lambda: random_crops(SIZE, rotations=0.5, shift=0.2, scale=0.2),
    "anywhere": lambda: random_crops(SIZE, positive=0, negative=0),
    "intensities": lambda: [
        *random_crops(SIZE),
        RandGaussianNoised("inputs", prob=1.0),
        RandGaussianSmoothd("inputs", prob=1.0),
        RandBiasFieldd("inputs", prob=1.0),
        RandAdjustContrastd("inputs", prob=1.0),
        RandHistogramShiftd("inputs", prob=1.0),
        RandRicianNoised("inputs", prob=1.0, std=0.1),
        RandGibbsNoised("inputs", prob=1.0),
        RandCoarseDropoutd("inputs", holes=2, spatial_size=4, prob=1.0),
        RandSimulateLowResolutiond("inputs", prob=1.0),
    ],
    "geometry": lambda: [
        *random_crops(SIZE),
        RandAffined(BOTH, prob=1.0, rotate_range=0.3, scale_range=0.1, mode=NEAREST),
        Rand3DElasticd(BOTH, (2, 3), (1, 2), prob=1.0, mode=NEAREST),
        RandZoomd(BOTH, prob=1.0, mode=("trilinear", "nearest")),
    ],
    "crops by class": lambda: [
        SpatialPadd(BOTH, SIZE),
        RandCropByLabelClassesd(BOTH, "targets", SIZE, num_classes=3, num_samples=1),
    ],
    "crops by weight": lambda: [RandWeightedCropd(BOTH, "targets", SIZE, num_samples=1)],
    "nested": lambda: [
        *random_crops(SIZE),
        OneOf([Compose([RandGaussianNoised("inputs", prob=0.5)]), RandGaussianSmoothd("inputs", prob=0.5)]),
    ],
}


def dataset(root: Path, chain: str = "crops", **options: Any) -> SegmentationDataset:
    return SegmentationDataset(root, augment=CHAINS[chain](), **options)


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in ("inputs", "targets"))


@pytest.mark.parametrize("chain", CHAINS)
def test_a_sample_follows_from_its_key_alone(ellipsoids: Path, chain: str) -> None:
    """Another data set, after other samples, gives the same crop; another epoch gives another."""
    one, other = (SeededDataset(dataset(ellipsoids, chain), seed=5) for _ in range(2))
    for index in (2, 0, 1):
        other[Key(index, 4)]
    wanted = one[Key(3, 1)]
    assert same(other[Key(3, 1)], wanted)
    assert not same(other[Key(3, 2)], wanted)
    assert not same(SeededDataset(dataset(ellipsoids, chain), seed=6)[Key(3, 1)], wanted)


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_caches_change_no_sample(ellipsoids: Path, cache: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"cache": cache, **({"cache_dir": tmp_path} if cache == "disk" else {})}
    plain = SeededDataset(dataset(ellipsoids), seed=5)
    for _ in range(2):  # the second time the disk's entries are there
        cached = SeededDataset(dataset(ellipsoids, **options), seed=5)
        assert all(same(cached[Key(index, 1)], plain[Key(index, 1)]) for index in range(len(plain)))


def test_workers_change_no_batch(ellipsoids: Path) -> None:
    found = []
    for workers in (0, 2):
        options = {"dataset": dataset(ellipsoids, cache="memory"), "batch_size": 3, "num_workers": workers}
        loader = build_dataloader(options, seed=4, training=True)
        loader.batch_sampler.seek(1)  # type: ignore[union-attr]
        iterator = iter(loader)
        found.append([fetch(iterator)["inputs"] for _ in range(2)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


class Killed(BaseException):
    """Ends a run as nothing else does: no handler of the engine takes it."""


def run(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, kill: int | None = None) -> dict[str, torch.Tensor]:
    steps = 0
    compute = DSDDistiller.compute_losses

    def counting(self: DSDDistiller, *arguments: Any) -> dict[str, torch.Tensor]:
        nonlocal steps
        steps += 1
        if steps == kill:
            raise Killed
        return compute(self, *arguments)

    overrides = {
        "train_cfg.max_epochs": 3,
        "param_scheduler.T_max": 3,
        "+train_dataloader.dataset.draws": 2,
        "model.student.channels": (4, 8, 8, 16),
        "+log_level": "ERROR",
        "+default_hooks": {"checkpoint": {"every_steps": 2, "every_epochs": 1}},
    }
    with monkeypatch.context() as patch:
        patch.setattr(DSDDistiller, "compute_losses", counting)
        train("medical/hippocampus/unet_dsd", work_dir=folder, seed=1, resume=True, data_root=root, overrides=overrides)
    state: dict[str, torch.Tensor] = torch.load(folder / "student.pth", weights_only=True)["state_dict"]
    return state


def test_a_killed_run_resumes_to_the_same_weights(
    ellipsoids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DSD with MONAI's cache and random crops, killed in the middle of an epoch, bit for bit."""
    whole = run(ellipsoids, tmp_path / "whole", monkeypatch)
    with pytest.raises(Killed):
        run(ellipsoids, tmp_path / "killed", monkeypatch, kill=6)
    resumed = run(ellipsoids, tmp_path / "killed", monkeypatch)
    assert whole.keys() == resumed.keys()
    assert not any("heads" in name for name in whole)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
