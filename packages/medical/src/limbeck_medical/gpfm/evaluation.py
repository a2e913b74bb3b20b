"""What an encoder's features know: nearest neighbours and a linear probe on folders of labelled tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from limbeck_core.errors import DataError
from limbeck_core.probes import STRENGTHS, linear_probe, nearest_neighbours
from limbeck_medical.gpfm.data import TileFolder


@dataclass(frozen=True)
class Features:
    """Features of labelled tiles.

    Args:
        features: ``(N, D)``, on the CPU.
        targets: Class indices ``(N,)``.
        classes: Their names.
    """

    features: Tensor
    targets: Tensor
    classes: tuple[str, ...]


@torch.no_grad()
def embed(model: nn.Module, tiles: TileFolder, *, batch_size: int = 64, num_workers: int = 0) -> Features:
    """Run an encoder over labelled tiles.

    Args:
        model: From images ``(N, 3, H, W)`` in [0, 1] to features ``(N, D)``:
            :class:`~limbeck_medical.gpfm.heads.TileStudent` for one.
        tiles: With classes.
        batch_size: Tiles at once.
        num_workers: Processes that read them.

    Raises:
        DataError: if the tiles have no classes, or one cannot be read.
    """
    if tiles.targets is None:
        raise DataError("a probe needs tiles in one folder for each class, and these have no classes")
    mode, device = model.training, next((p.device for p in model.parameters()), torch.device("cpu"))
    model.eval()
    try:
        loader = DataLoader(tiles, batch_size=batch_size, num_workers=num_workers)
        found = [model(batch["inputs"].to(device)).float().cpu() for batch in loader]
    finally:
        model.train(mode)
    return Features(torch.cat(found), torch.tensor(tiles.targets), tiles.classes)


def probe(
    train: Features,
    test: Features,
    *,
    neighbours: int = 20,
    temperature: float = 0.07,
    strengths: Sequence[float] = STRENGTHS,
) -> Mapping[str, float]:
    """Return how well test tiles are told apart by what training tiles say, in per cent.

    Args:
        train: Labelled features that vote and train the probe.
        test: Labelled features that are asked.
        neighbours: See :func:`limbeck_core.probes.nearest_neighbours`.
        temperature: See there.
        strengths: See :func:`limbeck_core.probes.linear_probe`.

    Returns:
        ``knn`` and ``linear``, accuracies; ``knn_balanced`` and ``linear_balanced``, means of the classes' accuracies.

    Raises:
        DataError: if the two do not have the same classes.
        ShapeError, TargetError: as the probes.
    """
    if train.classes != test.classes:
        raise DataError(
            f"the training tiles have the classes {', '.join(train.classes)}, the test tiles "
            f"{', '.join(test.classes)}: give both the same folders"
        )
    count = len(train.classes)
    votes = nearest_neighbours(
        train.features, train.targets, test.features, neighbours=neighbours, temperature=temperature, classes=count
    )
    linear = linear_probe(train.features, train.targets, test.features, classes=count, strengths=strengths)
    found: dict[str, float] = {}
    for name, scores in (("knn", votes), ("linear", linear.probabilities)):
        right = (scores.argmax(1) == test.targets).double()
        by_class = [right[test.targets == label].mean() for label in torch.unique(test.targets)]
        found[name] = 100 * float(right.mean())
        found[f"{name}_balanced"] = 100 * float(torch.stack(by_class).mean())
    return found
