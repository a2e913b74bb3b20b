"""A data set of volumes or pictures with label maps, on MONAI's transforms and caches."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from monai.data import CacheDataset, MetaTensor, PersistentDataset
from monai.data import Dataset as MonaiDataset
from monai.data.utils import pickle_hashing
from monai.transforms import Compose, Transform
from torch import Tensor
from torch.utils.data import Dataset

from limbeck_core.build import build
from limbeck_core.errors import DataError, TargetError
from limbeck_medical.data.cases import Case, Layout, Part, read_cases, split_cases
from limbeck_medical.data.transforms import volume_preprocessing

Cache = Literal["none", "memory", "disk"]
Chain = Sequence[Any] | Mapping[str, Any]


class SegmentationDataset(Dataset[dict[str, Any]]):
    """Volumes or pictures with label maps, from any layout that :func:`~limbeck_medical.data.read_cases` reads.

    A sample is a mapping of ``inputs`` (float32, ``(C, ...)``), ``targets`` (int64, ``(1, ...)``, absent without a
    label), ``spacing`` (float32, millimetres by axis; 1 for pictures) and ``ids`` (integer).

    Args:
        root: Folder of the data set.
        part: ``"train"``, ``"val"`` or ``"test"`` of the labelled cases, ``"all"`` of them, or ``"unlabelled"``.
        layout: See :func:`~limbeck_medical.data.read_cases`.
        preprocess: Chain of deterministic transforms, or a config of a function that returns one. Default:
            :func:`~limbeck_medical.data.volume_preprocessing`.
        augment: Chain of what follows, random as a rule; it is not cached.
        shares: Sizes of training, validation and test part, in any unit.
        split_seed: Of the draw of the parts.
        classes: Names by label, the background first. Default: the data set's own; without any, ``num_classes`` is
            not known and labels are not checked.
        draws: Samples from each case in a pass over the data; more than one only makes sense with random crops.
        cache: ``"memory"`` keeps preprocessed cases in memory, loaded at construction, so that workers share them;
            ``"disk"`` keeps them in ``cache_dir``, where a changed file or chain is told from the old one; ``"none"``
            loads anew each time.
        cache_dir: Folder for ``cache="disk"``.

    Raises:
        DataError: if the layout or a file does not fit, also later when a file turns out to be damaged.
        TargetError: when a label map holds a value outside of the classes, naming the file.
        ValueError: if an option is unknown or out of range.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        part: Part = "train",
        layout: Layout = "auto",
        preprocess: Chain | None = None,
        augment: Chain = (),
        shares: Sequence[float] = (65, 12, 23),
        split_seed: int = 0,
        classes: Sequence[str] | None = None,
        draws: int = 1,
        cache: Cache = "none",
        cache_dir: str | Path | None = None,
    ) -> None:
        if part not in get_args(Part):
            raise ValueError(f"part must be one of {', '.join(get_args(Part))}, got {part!r}")
        if cache not in get_args(Cache) or (cache == "disk") != (cache_dir is not None):
            raise ValueError(
                f"cache must be one of {', '.join(get_args(Cache))}, and cache_dir is for 'disk' alone, got {cache!r} "
                f"and cache_dir={cache_dir}"
            )
        if draws < 1:
            raise ValueError(f"draws must be 1 or more, got {draws}")
        found = read_cases(root, layout=layout)
        every = found.unlabelled if part == "unlabelled" else found.labelled
        if not every:
            raise DataError(f"{root} holds no {'unlabelled' if part == 'unlabelled' else 'labelled'} case")
        cases = list(every) if part == "unlabelled" else split_cases(every, part, shares=shares, seed=split_seed)
        self.cases = tuple(cases)
        self.classes = tuple(classes) if classes is not None else found.classes
        self.draws = draws
        numbers = {case: number for number, case in enumerate(every)}
        self.ids = np.asarray([numbers[case] * draws + draw for case in cases for draw in range(draws)], dtype=np.int64)
        self.preprocess = volume_preprocessing() if preprocess is None else _chain(preprocess)
        self.transform = Compose(
            [*self.preprocess, _KeepSpacing(), _CheckLabels(len(self.classes) or None), *_chain(augment), _Plain()]
        )
        # opened here and not with the first sample: MONAI draws new seeds for a chain that it takes apart for its key
        self._loaded = self._open(cache, cache_dir)

    @property
    def num_classes(self) -> int:
        """Number of classes, the background among them; 0 if no file and no argument names them."""
        return len(self.classes)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> dict[str, Any]:
        identity = int(self.ids[position])  # also refuses a position outside
        case = self.cases[position % len(self) // self.draws]
        try:
            sample = self._loaded[position % len(self) // self.draws]
        except Exception as error:
            raise _explained(error, case) from error
        found = dict(sample[0] if isinstance(sample, list) else sample)
        return {name: found[name] for name in ("inputs", "targets", "spacing") if name in found} | {"ids": identity}

    def _open(self, cache: Cache, cache_dir: str | Path | None) -> MonaiDataset:
        items = [_item(case, stamped=cache == "disk") for case in self.cases]
        if cache == "memory":
            try:
                return CacheDataset(items, self.transform, num_workers=1, progress=False)
            except Exception as error:
                raise _explained(error, None) from error
        if cache == "disk":
            _refuse_unpicklable(self.transform)
            return PersistentDataset(items, self.transform, cache_dir, hash_transform=pickle_hashing)
        return MonaiDataset(items, self.transform)


def _chain(chain: Chain) -> list[Any]:
    if isinstance(chain, Mapping):
        built = build(chain)
        return list(built) if isinstance(built, (list, tuple)) else [built]
    return [build(transform) for transform in chain]


def _item(case: Case, *, stamped: bool) -> dict[str, Any]:
    item: dict[str, Any] = {
        "inputs": [str(path) for path in case.images] if len(case.images) > 1 else str(case.images[0])
    }
    if case.label is not None:
        item["targets"] = str(case.label)
    if stamped:
        files = [*case.images, *([case.label] if case.label is not None else [])]
        item["stamp"] = [f"{path.stat().st_size}-{path.stat().st_mtime_ns}" for path in files]
    return item


def _explained(error: Exception, case: Case | None) -> Exception:
    """MONAI wraps what a transform raises, once for each chain that it stands in."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, (DataError, TargetError)):
            return type(inner)(f"case {case.name}: {inner}" if case is not None else str(inner))
        inner = inner.__cause__
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    where = (
        "a case of the data set"
        if case is None
        else f"case {case.name} ({', '.join(str(path) for path in [*case.images, case.label] if path is not None)})"
    )
    return DataError(
        f"{where} cannot be prepared ({type(root).__name__}: {root}): copy its files again, or see whether the chain "
        "of transforms fits them"
    )


def _refuse_unpicklable(transform: Any) -> None:
    try:
        pickle.dumps(transform)
    except Exception as error:  # pickle raises what the objects raise
        raise DataError(
            f"the chain of transforms cannot be written into the cache's key ({error}), so that a changed chain would "
            "read old entries: use functions at the top of a module, or cache='memory'"
        ) from error


class _KeepSpacing(Transform):
    """Add the spacing as a tensor, which outlives caches and crops."""

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return {**data, "spacing": spacing_of(data["inputs"])}


class _CheckLabels(Transform):
    """Refuse label maps that do not fit their image or hold other values than the classes."""

    def __init__(self, num_classes: int | None) -> None:
        self.num_classes = num_classes

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        sample = dict(data)
        if "targets" not in sample:
            return sample
        labels, image = sample["targets"], sample["inputs"]
        if labels.shape[0] != 1 or labels.shape[1:] != image.shape[1:]:
            raise DataError(
                f"the label map has shape {tuple(labels.shape)} and the image {tuple(image.shape)}: expected one "
                "channel of class numbers on the image's grid (a colour mask is to be turned into class numbers first)"
            )
        values = torch.unique(torch.as_tensor(labels))
        wrong = [v for v in values.tolist() if v != int(v) or v < 0 or (self.num_classes and v >= self.num_classes)]
        if wrong:
            until = f"0 to {self.num_classes - 1}" if self.num_classes else "whole numbers from 0"
            raise TargetError(
                f"the label map holds {wrong[:5]}, expected {until}: give label_values in the preprocessing, the "
                "values of the files in the order of the classes, or the right list of classes"
            )
        return sample


class _Plain(Transform):
    """Turn MONAI's tensors with metadata into plain ones of the types that models and losses take."""

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        sample = dict(data)
        for name, kind in (("inputs", torch.float32), ("targets", torch.int64)):
            if name in sample:
                value = sample[name]
                plain = value.as_tensor() if isinstance(value, MetaTensor) else torch.as_tensor(value)
                sample[name] = plain.to(kind).contiguous()
        return sample


def spacing_of(image: Tensor) -> Tensor:
    """Return the voxel size of an image with metadata, float32, in millimetres by axis; 1 without metadata.

    Args:
        image: Shape ``(C, ...)``, a ``MetaTensor`` or a plain tensor.
    """
    axes = image.ndim - 1
    if not isinstance(image, MetaTensor):
        return torch.ones(axes)
    return torch.as_tensor(np.asarray(image.pixdim, dtype=np.float32)[:axes]).clone()
