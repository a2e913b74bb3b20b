"""Layouts of the field, read from folders that are made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from limbeck_core.errors import DataError, TargetError
from limbeck_medical.data import (
    Case,
    SegmentationDataset,
    picture_preprocessing,
    random_crops,
    read_cases,
    render_scan,
    split_cases,
    volume_preprocessing,
)
from limbeck_medical.nifti import write_nifti
from limbeck_medical.predictor import VolumePredictor


def write(root: Path, files: list[str]) -> None:
    scan = render_scan(0)
    for file in files:
        is_label = Path(file).parent.name in ("labels", "labelsTr", "masks")
        write_nifti(scan.labels if is_label else scan.image, scan.affine, root / file)


def describe(root: Path, **content: Any) -> None:
    (root / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


def test_msd(ellipsoids: Path) -> None:
    found = read_cases(ellipsoids)
    assert [case.name for case in found.labelled] == [f"ellipsoids_{number:03d}" for number in range(10)]
    assert [case.name for case in found.unlabelled] == ["ellipsoids_010", "ellipsoids_011"]
    assert found.classes == ("background", "head", "body")
    (ellipsoids / "imagesTr" / "._ellipsoids_000.nii.gz").touch()  # what some archives of MSD hold
    assert read_cases(ellipsoids) == found


def test_nnunet_with_a_file_for_each_channel(tmp_path: Path) -> None:
    names = [f"imagesTr/{case}_{channel:04d}.nii.gz" for case in ("b", "a") for channel in (1, 0)]
    write(
        tmp_path, [*names, "labelsTr/a.nii.gz", "labelsTr/b.nii.gz", "imagesTs/c_0000.nii.gz", "imagesTs/c_0001.nii.gz"]
    )
    describe(
        tmp_path, file_ending=".nii.gz", channel_names={"0": "T1", "1": "T2"}, labels={"background": 0, "x": 1, "y": 2}
    )
    found = read_cases(tmp_path)
    assert [(case.name, [p.name for p in case.images]) for case in found.labelled] == [
        ("a", ["a_0000.nii.gz", "a_0001.nii.gz"]),
        ("b", ["b_0000.nii.gz", "b_0001.nii.gz"]),
    ]
    assert [case.name for case in found.unlabelled] == ["c"]
    assert found.classes == ("background", "x", "y")
    sample = SegmentationDataset(tmp_path, part="all")[0]
    assert sample["inputs"].shape[0] == 2
    assert sample["targets"].shape == (1, *sample["inputs"].shape[1:])
    (tmp_path / "imagesTr" / "a_0001.nii.gz").unlink()
    with pytest.raises(DataError, match="the case a of .* has 1 channel files, dataset.json names 2: ..T1', 'T2'"):
        read_cases(tmp_path)


def test_nnunet_version_1_lists_files_without_channels(tmp_path: Path) -> None:
    write(tmp_path, ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"])
    describe(
        tmp_path,
        modality={"0": "CT"},
        labels={"0": "background", "1": "x"},
        training=[{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    )
    assert [p.name for p in read_cases(tmp_path).labelled[0].images] == ["a_0000.nii.gz"]


def test_folders_of_volumes(tmp_path: Path) -> None:
    write(tmp_path, ["images/a.nii.gz", "images/b.nii", "labels/a.nii.gz"])
    found = read_cases(tmp_path)
    assert [case.name for case in found.labelled] == ["a"]
    assert [case.name for case in found.unlabelled] == ["b"]
    write(tmp_path, ["labels/aa.nii.gz"])
    with pytest.raises(DataError, match="no image of the same name, the first is 'aa'; of the images, did you mean"):
        read_cases(tmp_path)


def test_pictures_with_masks(tmp_path: Path) -> None:
    """A picture wider than high, PNG beside TIFF, 0 and 255 for the classes."""
    mask = np.zeros((6, 9), dtype=np.uint8)
    mask[1:3, 2:7] = 255
    colours = np.stack([mask, 255 - mask, mask // 2], axis=-1)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    Image.fromarray(colours).save(tmp_path / "images" / "one.png")
    Image.fromarray(mask).save(tmp_path / "masks" / "one.tif")
    chain = picture_preprocessing(label_values=(0, 255))
    sample = SegmentationDataset(tmp_path, part="all", preprocess=chain, classes=("background", "polyp"))[0]
    assert sample["inputs"].shape == (3, 9, 6)  # width first, as MONAI reads pictures
    assert sample["targets"].sum() == 10
    assert torch.equal(sample["targets"][0] == 1, sample["inputs"][0] > 0.5)
    assert sample["spacing"].tolist() == [1.0, 1.0]
    with pytest.raises(TargetError, match="case one: the label map holds .255.*expected 0 to 1: give label_values"):
        SegmentationDataset(tmp_path, part="all", preprocess=picture_preprocessing(), classes=("background", "polyp"))[
            0
        ]


def test_orientation_and_spacing_are_monais(ellipsoids: Path) -> None:
    """Odd cases count two axes the other way; after loading all lie alike, 1 mm apart."""
    even, odd = (SegmentationDataset(ellipsoids, part="all")[number] for number in (0, 1))
    for sample in (even, odd):
        assert sample["spacing"].tolist() == [1.0, 1.0, 1.0]
        assert set(torch.unique(sample["targets"]).tolist()) == {0, 1, 2}
    own = SegmentationDataset(ellipsoids, part="all", preprocess=volume_preprocessing(spacing=None))[0]
    assert own["spacing"][2] > 1.5
    assert own["inputs"].shape[3] < even["inputs"].shape[3]


def test_parts_are_disjoint_whole_and_stable(ellipsoids: Path) -> None:
    parts = [SegmentationDataset(ellipsoids, part=part) for part in ("train", "val", "test")]  # type: ignore[arg-type]
    names = [[case.name for case in part.cases] for part in parts]
    assert sorted(name for part in names for name in part) == [case.name for case in read_cases(ellipsoids).labelled]
    assert [len(part) for part in names] == [6, 2, 2]
    assert [[case.name for case in part.cases] for part in parts] == names
    ids = np.concatenate([part.ids for part in parts])
    assert len(set(ids.tolist())) == 10
    draws = SegmentationDataset(ellipsoids, part="test", draws=3)
    assert len(draws) == 6
    assert len(set(draws.ids.tolist())) == 6


def test_split_refuses_empty_parts() -> None:
    cases = [Case(str(number), ()) for number in range(3)]
    with pytest.raises(DataError, match="the part 'val' of 3 cases is empty with the shares"):
        split_cases(cases, "val", shares=(100, 1, 1))
    with pytest.raises(ValueError, match="shares must be three numbers >= 0"):
        split_cases(cases, "val", shares=(1, 1))


def test_errors_say_what_is_there(ellipsoids: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder .*Task00_Ellipsoid; of .*, did you mean 'Task00_Ellipsoids'"):
        read_cases(ellipsoids.parent / "Task00_Ellipsoid")
    with pytest.raises(DataError, match="has neither a dataset.json of MSD or nnU-Net nor a folder images/, it holds"):
        read_cases(tmp_path)
    with pytest.raises(DataError, match="has no dataset.json, which the layout 'msd' needs"):
        read_cases(tmp_path, layout="msd")
    with pytest.raises(ValueError, match="layout must be one of auto, msd"):
        read_cases(tmp_path, layout="mds")  # type: ignore[arg-type]
    (tmp_path / "dataset.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_cases(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, ["images/a.nii.gz", "labels/a.nii.gz"])
    (tmp_path / "images" / "a.nii.gz").write_bytes(b"no volume")
    with pytest.raises(DataError, match="case a .*images/a.nii.gz.* cannot be prepared"):
        SegmentationDataset(tmp_path, part="all")[0]


def test_grids_that_differ_are_refused(tmp_path: Path) -> None:
    scan = render_scan(0)
    write_nifti(scan.image, scan.affine, tmp_path / "images" / "a.nii.gz")
    write_nifti(scan.labels[:-2], scan.affine, tmp_path / "labels" / "a.nii.gz")
    with pytest.raises(DataError, match="case a: the label map has shape .* expected one channel"):
        SegmentationDataset(tmp_path, part="all", preprocess=volume_preprocessing(spacing=None))[0]


def test_cache_on_disk_sees_a_changed_file(tmp_path: Path) -> None:
    write(tmp_path, ["images/a.nii.gz", "labels/a.nii.gz"])

    def mean() -> float:
        chain = volume_preprocessing(intensity="none")
        data = SegmentationDataset(tmp_path, part="all", preprocess=chain, cache="disk", cache_dir=tmp_path / "cache")
        return float(data[0]["inputs"].mean())

    before = mean()
    assert mean() == before
    scan = render_scan(0)
    write_nifti(scan.image + np.int16(100), scan.affine, tmp_path / "images" / "a.nii.gz")
    assert mean() == pytest.approx(before + 100, abs=1.0)


def test_options_are_checked(ellipsoids: Path) -> None:
    with pytest.raises(ValueError, match="cache_dir is for 'disk' alone"):
        SegmentationDataset(ellipsoids, cache="disk")
    with pytest.raises(ValueError, match="part must be one of train, val"):
        SegmentationDataset(ellipsoids, part="training")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="draws must be 1 or more"):
        SegmentationDataset(ellipsoids, draws=0)
    with pytest.raises(ValueError, match="intensity must be one of zscore"):
        volume_preprocessing(intensity="z")  # type: ignore[arg-type]


def test_rendering_is_the_same_every_time() -> None:
    first, again, other = render_scan(3, seed=1), render_scan(3, seed=1), render_scan(3, seed=2)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.affine, other.affine)
    assert set(np.unique(first.labels)) == {0, 1, 2}
    spacing = np.abs(np.diag(first.affine)[:3])
    assert spacing[2] > 1.3 * spacing[0]
    with pytest.raises(ValueError, match="noise must be a finite number >= 0"):
        render_scan(0, noise=-1)


def written(root: Path, image: np.ndarray, label: np.ndarray, *, shift: float = 0.0) -> Path:
    """A data set of one case whose label map lies ``shift`` millimetres away."""
    moved = np.eye(4)
    moved[0, 3] = shift
    write_nifti(image, np.eye(4), root / "images" / "a.nii.gz")
    write_nifti(label, moved, root / "labels" / "a.nii.gz")
    return root


def test_geometry_that_differs_is_refused_before_anything_is_resampled(tmp_path: Path) -> None:
    image, label = np.zeros((8, 8, 8), np.float32), np.zeros((8, 8, 8), np.uint8)
    options: dict[str, Any] = {"part": "all", "classes": ("background", "organ")}
    with pytest.raises(DataError, match="case a: label map and image lie differently in space, .* by up to 5 mm"):
        SegmentationDataset(written(tmp_path / "moved", image, label, shift=5.0), **options)[0]
    almost = SegmentationDataset(written(tmp_path / "almost", image, label, shift=0.001), **options)
    assert almost[0]["targets"].shape == (1, 8, 8, 8)


def test_four_axes_where_three_are_expected(tmp_path: Path) -> None:
    label = np.zeros((8, 8, 8), np.uint8)
    root = written(tmp_path, np.zeros((8, 8, 8, 3), np.float32), label)
    taken = SegmentationDataset(root, part="all", preprocess=volume_preprocessing())
    assert taken[0]["inputs"].shape == (3, 8, 8, 8)
    message = "the image has 3 channels of .8, 8, 8. voxels, expected 1: a file of four axes"
    with pytest.raises(DataError, match=f"case a: {message}"):
        SegmentationDataset(root, part="all", preprocess=volume_preprocessing(channels=1))[0]
    with pytest.raises(DataError, match=message):
        VolumePredictor(volume_preprocessing(channels=1)).read(str(root / "images" / "a.nii.gz"))


def test_a_volume_without_foreground_gives_crops(tmp_path: Path) -> None:
    root = written(tmp_path, np.random.RandomState(0).rand(8, 8, 8).astype(np.float32), np.zeros((8, 8, 8), np.uint8))
    data = SegmentationDataset(root, part="all", augment=random_crops((4, 4, 4)))
    sample = data[0]
    assert sample["inputs"].shape == (1, 4, 4, 4)
    assert not sample["targets"].any()


def test_half_a_gzip(tmp_path: Path) -> None:
    noise = np.random.RandomState(0).rand(16, 16, 16).astype(np.float32)
    root = written(tmp_path, noise, np.zeros((16, 16, 16), np.uint8))
    path = root / "images" / "a.nii.gz"
    path.write_bytes(path.read_bytes()[:8000])
    with pytest.raises(DataError, match="a.nii.gz.* cannot be prepared .EOFError: .*copy its files again"):
        SegmentationDataset(root, part="all")[0]
    with pytest.raises(DataError, match="a.nii.gz cannot be read as an image .EOFError.*: copy it again"):
        VolumePredictor().read(str(path))
