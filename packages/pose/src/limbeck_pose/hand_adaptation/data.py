"""Hands with key points and masks, and pairs of a labelled source hand and an unlabelled target hand.

A folder holds ``hands.json``, in COCO's layout with 21 key points an annotation, ``images/`` and ``masks/`` (one PNG of
the same name an image, above 127 where the hand is). One hand an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from limbeck_core.build import build
from limbeck_core.errors import DataError
from limbeck_pose.data.crops import Array, Crop
from limbeck_pose.data.people import read_image, read_people
from limbeck_pose.hand_adaptation.model import KEYPOINTS
from limbeck_pose.hand_adaptation.views import HandAugmentation, Image, View, inside, move_masks, move_points
from limbeck_pose.heatmap import Heatmap
from limbeck_pose.keypoints import Layout

HAND = Layout(
    count=KEYPOINTS,
    sigmas=(0.03,) * KEYPOINTS,
    pairs=(),
    parts={"hand": range(KEYPOINTS)},
    upper=(),
    lower=(),
    links=tuple((0 if j == 0 else 4 * f + j, 4 * f + j + 1) for f in range(5) for j in range(4)),
)
"""The wrist, then four joints of each finger from the palm outwards, thumb first."""

FILE = "hands.json"


class Hands(Dataset[dict[str, Any]]):
    """Labelled hands.

    An item has ``inputs``, the crop as RGB bytes ``(3, H, W)``; ``targets``: heatmaps ``(K, h, w)``, which key points
    are valid ``(K,)``, and the mask ``(1, H, W)`` from 0 to 1; and ``hand`` for an evaluator: the true ``points``
    ``(K, 2)`` in pixels of the crop, which are ``visible``, and the ``mask``. Key points outside of the crop are not
    valid.

    Args:
        folder: Folder of the hands, below ``root`` if relative.
        root: Folder of the data set.
        codec: Heatmap codec of the network, or its config.
        augmentation: How training views are drawn, or its config; ``None`` shows crops as they are.
        padding: Side of the crop over the side of the hand's box.

    Raises:
        DataError: if a file is missing or damaged, or nobody's hand is there.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        root: str | Path = "",
        codec: Heatmap | Mapping[str, Any],
        augmentation: HandAugmentation | Mapping[str, Any] | None = None,
        padding: float = 1.0,
    ) -> None:
        self.folder = Path(root) / folder
        self.codec: Heatmap = build(codec) if isinstance(codec, Mapping) else codec
        self.augmentation: HandAugmentation | None = (
            build(augmentation) if isinstance(augmentation, Mapping) else augmentation
        )
        self.padding = padding
        self.people = read_people(self.folder / FILE, self.folder / "images", HAND)
        if not self.people:
            raise DataError(f"no hand with a key point is in {self.folder / FILE}")

    def __len__(self) -> int:
        """Number of hands."""
        return len(self.people)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one hand; see the class."""
        image, points, visible, mask = self.crop(index)
        keypoints = torch.from_numpy(points)[None].float()
        if self.augmentation is not None:
            view = self.augmentation.draw(image)
            matrix, keep = torch.from_numpy(view.matrix)[None], torch.from_numpy(view.keep)[None]
            keypoints, mask = move_points(keypoints, matrix), move_masks(mask[None], matrix, keep)[0]
            image = view.image
        seen = torch.from_numpy(visible)[None].float() * inside(keypoints, self.codec.input_size)
        encoded = self.codec.encode(keypoints, seen)
        return {
            "inputs": as_tensor(image),
            "targets": [encoded.heatmaps[0], encoded.weight[0], mask],
            "hand": {"points": keypoints[0], "visible": seen[0], "mask": mask},
        }

    def crop(self, index: int) -> tuple[Image, Array, Array, Tensor]:
        """Return the plain crop, key points in its pixels, which are labelled, and the mask ``(1, H, W)``."""
        person = self.people[index]
        image = read_image(person.file)
        crop = Crop.around(person.box, self.codec.input_size, padding=self.padding, image_width=image.shape[1])
        path = self.folder / "masks" / f"{person.file.stem}.png"
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None
        if mask is None or mask.shape[:2] != image.shape[:2]:
            raise DataError(f"{path} must be a mask of the size of {person.file}: it is missing, damaged or another")
        height, width = self.codec.input_size
        cut = np.asarray(cv2.warpAffine(mask, crop.matrix, (width, height)), np.float32) / 255
        return crop.cut(image), crop.apply(person.points), person.visible, torch.from_numpy(cut)[None]


class HandPairs(Dataset[dict[str, Any]]):
    """A labelled source hand beside a target hand whose labels are never read.

    An item has ``inputs`` and ``targets`` of the source, as :class:`Hands`; ``target``, the plain crop of a target hand
    drawn by chance, RGB bytes ``(3, H, W)``; and ``views`` of it, drawn independently: ``student``, ``first`` and
    ``second``, each with ``inputs``, ``matrix`` ``(2, 3)`` from the plain crop, and ``keep`` ``(H, W)``.

    Args:
        source: Folder of the labelled hands, below ``root`` if relative.
        target: Folder of the others, likewise.
        root: Folder of the data set.
        codec: Heatmap codec of the network, or its config.
        augmentation: How all views are drawn, or its config.
        padding: Side of the crop over the side of the hand's box.

    Raises:
        DataError: if a file is missing or damaged, or nobody's hand is there.
    """

    def __init__(
        self,
        source: str | Path,
        target: str | Path,
        *,
        root: str | Path = "",
        codec: Heatmap | Mapping[str, Any],
        augmentation: HandAugmentation | Mapping[str, Any],
        padding: float = 1.0,
    ) -> None:
        self.augmentation: HandAugmentation = build(augmentation) if isinstance(augmentation, Mapping) else augmentation
        self.source = Hands(source, root=root, codec=codec, augmentation=self.augmentation, padding=padding)
        self.target = Hands(target, root=root, codec=codec, padding=padding)

    def __len__(self) -> int:
        """Number of source hands."""
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one pair; see the class."""
        item = self.source[index]
        image, *_ = self.target.crop(int(np.random.randint(len(self.target))))
        views = {name: as_mapping(self.augmentation.draw(image)) for name in ("student", "first", "second")}
        return {"inputs": item["inputs"], "targets": item["targets"], "target": as_tensor(image), "views": views}


def as_tensor(image: Image) -> Tensor:
    """RGB bytes ``(H, W, 3)`` as ``(3, H, W)``."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def as_mapping(view: View) -> dict[str, Tensor]:
    """A view as a batch holds it."""
    return {
        "inputs": as_tensor(view.image),
        "matrix": torch.from_numpy(view.matrix),
        "keep": torch.from_numpy(view.keep),
    }
