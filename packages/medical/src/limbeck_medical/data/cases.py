"""Which files make a data set: the layouts of the field, read into one list of cases."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from limbeck_core.errors import DataError, closest

Layout = Literal["auto", "msd", "nnunet", "folders"]
Part = Literal["train", "val", "test", "all", "unlabelled"]

VOLUMES = (".nii.gz", ".nii", ".mha", ".nrrd")
PICTURES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
_LABEL_FOLDERS = ("labels", "masks")
_CHANNEL = re.compile(r"_(\d{4})$")


@dataclass(frozen=True)
class Case:
    """One patient or picture.

    Args:
        name: File name of the label (or image) without folder and ending.
        images: One file, or one for each channel.
        label: The label map; ``None`` where there is none.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None


@dataclass(frozen=True)
class Cases:
    """The cases of a data set.

    Args:
        labelled: With a label map, in order of their names.
        unlabelled: Without one.
        classes: Names by label, the background first; empty where no file says.
    """

    labelled: tuple[Case, ...]
    unlabelled: tuple[Case, ...] = ()
    classes: tuple[str, ...] = ()


def read_cases(root: str | Path, *, layout: Layout = "auto") -> Cases:
    """Read a data set's list of cases; no volume is opened.

    Args:
        root: Its folder.
        layout: ``"msd"``: Medical Segmentation Decathlon, ``dataset.json`` with a list ``training``, images in
            ``imagesTr``, labels in ``labelsTr``. ``"nnunet"``: nnU-Net's raw data (version 2: ``dataset.json`` with
            ``file_ending``; version 1: MSD's list), one file a channel, ``imagesTr/CASE_0000.nii.gz``. ``"folders"``:
            ``images/`` and ``labels/`` (or ``masks/``) with files of the same names, volumes or pictures.
            ``"auto"`` looks which it is.

    Raises:
        DataError: if the folder or a file is missing, or it holds no layout of these.
        ValueError: if ``layout`` is unknown.
    """
    root = Path(root)
    if layout not in get_args(Layout):
        raise ValueError(f"layout must be one of {', '.join(get_args(Layout))}, got {layout!r}")
    if not root.is_dir():
        folders = [entry.name for entry in root.parent.iterdir() if entry.is_dir()] if root.parent.is_dir() else []
        raise DataError(f"there is no folder {root}; of {root.parent}, {closest(root.name, sorted(folders))}")
    description = _description(root)
    if layout == "auto":
        layout = _guess(root, description)
    if layout == "folders":
        return _read_folders(root)
    if description is None:
        raise DataError(f"{root} has no dataset.json, which the layout {layout!r} needs: check the path or the layout")
    return _read_nnunet(root, description) if layout == "nnunet" else _read_msd(root, description)


def stem(path: Path) -> str:
    """Return a file's name without folder and known ending, ``.nii.gz`` among them."""
    for ending in (*VOLUMES, *PICTURES):
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.stem


def files_of(folder: Path) -> list[Path]:
    """Return the volumes and pictures right inside a folder, by name; hidden files are left out."""
    if not folder.is_dir():
        return []
    kept = (p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return sorted(p for p in kept if p.name.lower().endswith((*VOLUMES, *PICTURES)))


def split_cases(
    cases: Sequence[Case], part: Part, *, shares: Sequence[float] = (65, 12, 23), seed: int = 0
) -> list[Case]:
    """Return the part of the cases that is for training, validation or testing, in order of their names.

    Args:
        cases: All labelled cases.
        part: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
        shares: Sizes of the three, in any unit.
        seed: Of the draw, which depends on nothing else but the number of cases.

    Raises:
        DataError: if a part that has a share gets no case.
        ValueError: if ``shares`` are not three numbers of 0 or more, or ``part`` has no share.
    """
    if part == "all":
        return list(cases)
    names = ("train", "val", "test")
    if len(shares) != 3 or min(shares) < 0 or sum(shares) <= 0:
        raise ValueError(f"shares must be three numbers >= 0 for {', '.join(names)}, got {tuple(shares)}")
    if part not in names:
        raise ValueError(f"part must be one of {', '.join(names)} or all, got {part!r}")
    order = np.random.RandomState(seed).permutation(len(cases))  # the one generator whose stream NumPy never changes
    ends = np.round(np.cumsum([0, *shares]) / sum(shares) * len(cases)).astype(int)
    place = names.index(part)
    chosen = sorted(order[ends[place] : ends[place + 1]].tolist())
    if not chosen:
        raise DataError(
            f"the part {part!r} of {len(cases)} cases is empty with the shares {tuple(shares)}: give it a larger "
            "share, or take another part"
        )
    return [cases[index] for index in chosen]


def _description(root: Path) -> dict[str, Any] | None:
    path = root / "dataset.json"
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}): copy it again from its source") from error
    return found


def _guess(root: Path, description: Mapping[str, Any] | None) -> Layout:
    if description is not None and "file_ending" in description:
        return "nnunet"
    if description is not None and "training" in description:
        entries = description["training"]
        listed = root / _image_of(entries[0]) if entries else None
        # version 1 of nnU-Net lists files without their channel numbers
        split = listed is not None and not listed.is_file() and bool(_channels(listed.parent, stem(listed)))
        return "nnunet" if split else "msd"
    if (root / "images").is_dir():
        return "folders"
    inside = sorted(entry.name for entry in root.iterdir())[:12]
    raise DataError(
        f"{root} has neither a dataset.json of MSD or nnU-Net nor a folder images/, it holds {inside or 'nothing'}: "
        "point to the folder of one data set"
    )


def _image_of(entry: Any) -> str:
    return str(entry["image"] if isinstance(entry, Mapping) else entry)


def _class_names(labels: Any) -> tuple[str, ...]:
    """Names by label, from ``{"0": "background", ...}`` (MSD) or ``{"background": 0, ...}`` (nnU-Net)."""
    if not isinstance(labels, Mapping):
        return ()
    numbered: dict[int, str] = {}
    for key, value in labels.items():
        number, name = (int(key), str(value)) if str(key).lstrip("-").isdigit() else (value, str(key))
        if not isinstance(number, int):
            raise DataError(
                f"dataset.json gives the label {name!r} as {number!r}: regions of several labels are not one class a "
                "voxel, so name the labels themselves"
            )
        if name != "ignore":
            numbered[number] = name
    if sorted(numbered) != list(range(len(numbered))):
        raise DataError(f"dataset.json names the labels {sorted(numbered)}: expected 0 to {len(numbered) - 1}")
    return tuple(numbered[number] for number in range(len(numbered)))


def _existing(path: Path, what: str) -> Path:
    if not path.is_file():
        near = [found.name for found in files_of(path.parent)]
        raise DataError(f"{what} {path} is missing; of {path.parent}, {closest(path.name, near)}")
    return path


def _read_msd(root: Path, description: Mapping[str, Any]) -> Cases:
    labelled = []
    for entry in description.get("training", []):
        if not isinstance(entry, Mapping) or "label" not in entry:
            raise DataError(
                f"{root / 'dataset.json'}: an entry of 'training' is {entry!r}, expected image and label: if the "
                "labels stand elsewhere, use layout='folders'"
            )
        image, label = _existing(root / entry["image"], "the image"), _existing(root / entry["label"], "the label")
        labelled.append(Case(stem(label), (image,), label))
    tests = [Path(root / _image_of(entry)) for entry in description.get("test", [])]
    # the labels of the test cases are kept by the organisers, and often the images are left out as well
    unlabelled = [Case(stem(path), (path,)) for path in tests if path.is_file()]
    return _finished(root, labelled, unlabelled, _class_names(description.get("labels")))


def _read_nnunet(root: Path, description: Mapping[str, Any]) -> Cases:
    labelled = []
    for label in files_of(root / "labelsTr"):
        images = _channels(root / "imagesTr", stem(label))
        if not images:
            raise DataError(f"the label {label} has no image {root / 'imagesTr' / stem(label)}_0000 beside it")
        labelled.append(Case(stem(label), images, label))
    names = sorted({_CHANNEL.sub("", stem(path)) for path in files_of(root / "imagesTs")})
    unlabelled = [Case(name, _channels(root / "imagesTs", name)) for name in names]
    channels = description.get("channel_names", description.get("modality", {}))
    for case in labelled:
        if channels and len(case.images) != len(channels):
            raise DataError(
                f"the case {case.name} of {root} has {len(case.images)} channel files, dataset.json names "
                f"{len(channels)}: {list(channels.values())}"
            )
    return _finished(root, labelled, unlabelled, _class_names(description.get("labels")))


def _channels(folder: Path, name: str) -> tuple[Path, ...]:
    return tuple(path for path in files_of(folder) if _CHANNEL.sub("", stem(path)) == name and path.stem != name)


def _read_folders(root: Path) -> Cases:
    images = {stem(path): path for path in files_of(root / "images")}
    folder = next((root / name for name in _LABEL_FOLDERS if (root / name).is_dir()), None)
    labels = {stem(path): path for path in files_of(folder)} if folder is not None else {}
    orphans = sorted(labels.keys() - images.keys())
    if orphans:
        raise DataError(
            f"{len(orphans)} files of {folder} have no image of the same name, the first is {orphans[0]!r}; of the "
            f"images, {closest(orphans[0], sorted(images))}"
        )
    labelled = [Case(name, (images[name],), labels[name]) for name in labels]
    return _finished(root, labelled, [Case(name, (images[name],)) for name in images.keys() - labels.keys()], ())


def _finished(root: Path, labelled: list[Case], unlabelled: list[Case], classes: tuple[str, ...]) -> Cases:
    if not labelled and not unlabelled:
        raise DataError(
            f"{root} holds no cases: expected files with the endings {', '.join((*VOLUMES, *PICTURES))} in images/ and "
            "labels/, or in imagesTr/ and labelsTr/"
        )
    by_name = [tuple(sorted(cases, key=lambda case: case.name)) for cases in (labelled, unlabelled)]
    for case, following in zip(by_name[0], by_name[0][1:], strict=False):
        if case.name == following.name:
            raise DataError(f"{root} has two cases called {case.name!r}: give their files different names")
    return Cases(by_name[0], by_name[1], classes)
