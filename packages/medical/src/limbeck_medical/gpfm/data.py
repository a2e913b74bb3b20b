"""Tiles of slides: folders of pictures, as they are for evaluation, and as views of one tile for training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as transforms

from limbeck_core.checks import check_between
from limbeck_core.errors import DataError, closest
from limbeck_medical.data.cases import PICTURES
from limbeck_medical.gpfm.masks import block_mask

_BICUBIC = InterpolationMode.BICUBIC


class TileFolder(Dataset[dict[str, Any]]):
    """Pictures in folders, one for each class, or in one folder without classes.

    A sample has ``inputs`` (float32 ``(3, S, S)`` in [0, 1]), ``ids``, and with classes ``targets`` (their index in
    alphabetical order).

    Args:
        root: ``ROOT/CLASS/*.png``, or ``ROOT/*.png``.
        part: Folder inside ``root`` that holds them, ``"train"`` for example; ``""`` for none.
        size: Side in pixels; other pictures are resized (bicubic) so that the shorter side fits, and cut in the middle.
        augment: Flip them and jitter their colours at random, for training with classes.

    Raises:
        DataError: if there is no folder or no picture, or classes and loose pictures are mixed; later if a picture
            cannot be read.
        ValueError: if ``size`` is below 1.
    """

    def __init__(self, root: str | Path, *, part: str = "", size: int = 224, augment: bool = False) -> None:
        if size < 1:
            raise ValueError(f"size must be 1 or more, got {size}")
        self.size = size
        self.paths, self.classes, self.targets = _find(Path(root), part)
        self._plain = transforms.Compose(
            [
                transforms.Resize(size, interpolation=_BICUBIC, antialias=True),
                transforms.CenterCrop(size),
                *(_flips() if augment else []),
                transforms.ToDtype(torch.float32, scale=True),
            ]
        )

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without any."""
        return len(self.classes)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> dict[str, Any]:
        sample: dict[str, Any] = {"inputs": self._plain(self.read(position)), "ids": position}
        if self.targets is not None:
            sample["targets"] = self.targets[position]
        return sample

    def read(self, position: int) -> Tensor:
        """Return a picture as it is, uint8 ``(3, H, W)``.

        Raises:
            DataError: if it cannot be read.
        """
        path = self.paths[position]
        try:
            with Image.open(path) as picture:
                values = np.asarray(picture.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{path} cannot be read as a picture ({error}): copy it again, or remove it") from error
        return torch.from_numpy(values.copy()).permute(2, 0, 1)


class TileViews(Dataset[dict[str, Any]]):
    """Views of each tile, with masks: what GPFM learns from. No labels are read.

    A sample has ``global_views`` (float32 ``(2, 3, S, S)`` in [0, 1]), ``local_views`` (``(L, 3, s, s)``), ``masks``
    (boolean ``(2, h, w)``, patches to hide) and ``ids``. Views are crops of random size, flipped, with jittered
    colours, sometimes grey, blurred or solarised, as in DINOv2.

    Args:
        root: As of :class:`TileFolder`.
        part: As there.
        global_size: Side S of the two large crops.
        local_size: Side s of the small crops.
        local_views: Number L of small crops; 0 for none.
        patch: Side of the student's patches.
        global_scale: Shares of the tile's area that a large crop takes. Paper: 0.32 to 1.
        local_scale: The same of a small crop. Paper: 0.05 to 0.32.
        masked: Probability that patches of a large crop are hidden at all. Paper: 0.5.
        mask_ratio: Shares of the patches that are then hidden. Paper: 0.1 to 0.5.

    Raises:
        DataError: as :class:`TileFolder`.
        ValueError: if a number is out of range, or a size is no multiple of ``patch``.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        part: str = "",
        global_size: int = 224,
        local_size: int = 98,
        local_views: int = 8,
        patch: int = 14,
        global_scale: Sequence[float] = (0.32, 1.0),
        local_scale: Sequence[float] = (0.05, 0.32),
        masked: float = 0.5,
        mask_ratio: Sequence[float] = (0.1, 0.5),
    ) -> None:
        if patch < 1 or local_views < 0:
            raise ValueError(f"patch must be 1 or more and local_views 0 or more, got {patch} and {local_views}")
        for size, name in ((global_size, "global_size"), (local_size, "local_size")):
            if size < patch or size % patch:
                nearest = max(1, round(size / patch)) * patch
                raise ValueError(f"{name} must be a multiple of the patch, {patch}, got {size}: take {nearest}")
        check_between(masked, "masked", 0.0, 1.0)
        for name, shares in (("global_scale", global_scale), ("local_scale", local_scale), ("mask_ratio", mask_ratio)):
            if len(shares) != 2 or not 0 <= shares[0] <= shares[1] <= 1:
                raise ValueError(f"{name} must be two shares in order, between 0 and 1, got {tuple(shares)}")
        self.tiles = TileFolder(root, part=part, size=global_size)
        self.local_views = local_views
        self.grid = (global_size // patch,) * 2
        self.masked = masked
        self.mask_ratio = (float(mask_ratio[0]), float(mask_ratio[1]))
        self._global = [
            _view(global_size, global_scale, blur=1.0, solarize=0.0),
            _view(global_size, global_scale, blur=0.1, solarize=0.2),
        ]
        self._local = _view(local_size, local_scale, blur=0.5, solarize=0.0)

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, position: int) -> dict[str, Any]:
        tile = self.tiles.read(position)
        sample: dict[str, Any] = {"global_views": torch.stack([view(tile) for view in self._global])}
        if self.local_views:
            sample["local_views"] = torch.stack([self._local(tile) for _ in range(self.local_views)])
        return {**sample, "masks": torch.stack([self._mask() for _ in self._global]), "ids": position}

    def _mask(self) -> Tensor:
        if float(torch.rand(())) >= self.masked:
            return torch.zeros(self.grid, dtype=torch.bool)
        low, high = self.mask_ratio
        return block_mask(self.grid, low + (high - low) * float(torch.rand(())))


def _flips() -> list[Any]:
    return [
        transforms.RandomHorizontalFlip(),
        transforms.RandomVerticalFlip(),
        transforms.ColorJitter(0.4, 0.4, 0.2, 0.1),
    ]


def _view(size: int, scale: Sequence[float], *, blur: float, solarize: float) -> Any:
    """DINOv2's chain; the constants are those of its code."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=tuple(scale), interpolation=_BICUBIC, antialias=True),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            transforms.RandomGrayscale(0.2),
            transforms.RandomApply([transforms.GaussianBlur(9 if size >= 9 else 1, (0.1, 2.0))], p=blur),
            transforms.RandomSolarize(128, p=solarize),
            transforms.ToDtype(torch.float32, scale=True),
        ]
    )


def _find(root: Path, part: str) -> tuple[list[Path], tuple[str, ...], list[int] | None]:
    folder = root / part
    if not folder.is_dir():
        near = [entry.name for entry in folder.parent.iterdir() if entry.is_dir()] if folder.parent.is_dir() else []
        raise DataError(f"there is no folder {folder}; of {folder.parent}, {closest(folder.name, sorted(near))}")
    loose = _pictures(folder)
    inside = {entry.name: _pictures(entry) for entry in sorted(folder.iterdir()) if entry.is_dir()}
    classes = {name: paths for name, paths in inside.items() if paths}
    if loose and classes:
        raise DataError(
            f"{folder} holds {len(loose)} pictures beside the folders {', '.join(classes)}: put every picture into the "
            "folder of its class, or all into one"
        )
    if loose:
        return loose, (), None
    if not classes:
        raise DataError(f"{folder} holds no picture ({', '.join(PICTURES)}), neither itself nor one folder below")
    names = tuple(classes)
    paths = [path for name in names for path in classes[name]]
    return paths, names, [names.index(path.parent.name) for path in paths]


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.is_file() and entry.suffix.lower() in PICTURES and not entry.name.startswith(".")
    )
