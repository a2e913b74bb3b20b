"""Which images of an unlabelled pool are worth training on: the surest ones of each class, by a strong teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from limbeck_core.checks import check_finite, check_floating, check_ndim
from limbeck_core.errors import DataError
from limbeck_vision.data.dataset import ImageDataset
from limbeck_vision.models.normalization import normalization_of, normalize


def select_per_class(probabilities: Tensor, per_class: int) -> Tensor:
    """Choose, of the images predicted as each class, the ``per_class`` most probable ones.

    Args:
        probabilities: Teacher's softmax over the classes, shape ``(P, C)``.
        per_class: Largest number k of images of a class; a class with fewer gives all.

    Returns:
        Positions in the pool, ascending, at most ``C * k``. Of equal probabilities the earlier image is taken, and of
        equal classes the earlier class.

    Raises:
        ShapeError: if ``probabilities`` is no floating-point matrix.
        ValueError: if ``per_class`` is below 1.
        NonFiniteError: if a score is NaN (CPU).

    Reference:
        Cui et al., arXiv:2103.05959, section 3 (data selection); k is chosen so that about 4 of 14 million remain.

    >>> select_per_class(torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]]), 1)
    tensor([1, 2])
    """
    check_ndim(probabilities, "probabilities", "(P, C)", at_least=2, at_most=2)
    check_floating(probabilities, "probabilities")
    if per_class < 1:
        raise ValueError(f"per_class must be 1 or more, got {per_class}")
    check_finite(probabilities, probabilities=probabilities)
    if not probabilities.numel():
        return torch.zeros(0, dtype=torch.long, device=probabilities.device)
    surest, predicted = probabilities.max(1)
    # sorted by class, and by falling probability within a class; both sorts keep the order of the pool
    order = surest.argsort(descending=True, stable=True)
    order = order[predicted[order].argsort(stable=True)]
    classes = predicted[order]
    starts = torch.searchsorted(classes, classes)
    rank = torch.arange(len(order), device=order.device) - starts
    return order[rank < per_class].sort().values


@torch.no_grad()
def score_images(model: nn.Module, dataset: ImageDataset, *, batch_size: int = 256, device: str = "cpu") -> Tensor:
    """Return a classifier's probabilities for every image of a data set, in its order.

    Args:
        model: The classifier; it is put into evaluation mode and back, and its own normalisation is applied.
        dataset: The images.
        batch_size: Images at a time.
        device: Where the model runs; it is moved there.

    Returns:
        Float32 on the CPU, shape ``(P, C)``.

    Raises:
        MatchError: if the model does not say how its input is normalised.
        DataError: if the data set is empty, or an image is damaged.
    """
    if not len(dataset):
        raise DataError(f"{type(dataset).__name__} holds no image to score: check its folder")
    statistics = None if getattr(model, "normalizes_input", False) else normalization_of(model)
    training = model.training
    model.to(device).eval()
    try:
        parts = []
        for start in range(0, len(dataset), batch_size):
            rows = range(start, min(start + batch_size, len(dataset)))
            images = torch.stack([dataset[position]["inputs"] for position in rows]).to(device)
            parts.append(model(normalize(images, statistics)).float().softmax(1).cpu())
    finally:
        model.train(training)
    return torch.cat(parts)


def write_selection(path: str | Path, ids: Sequence[int] | np.ndarray | Tensor) -> None:
    """Write the ids of the chosen images, one a line.

    Args:
        path: The text file; folders above it are made.
        ids: Ids in the pool.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{int(number)}\n" for number in ids), encoding="utf-8")


def read_selection(path: str | Path) -> np.ndarray:
    """Read what :func:`write_selection` wrote.

    Raises:
        DataError: if there is no such file, or a line is no number of an image.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"there is no selection {path}: write it with `python -m limbeck_vision.methods.ssld.select`, or give "
            "selection=None for the whole pool"
        )
    lines = path.read_text(encoding="utf-8").split()
    wrong = [line for line in lines if not line.isdigit()]
    if wrong or not lines:
        raise DataError(f"{path} must hold one image number a line, got {wrong[0] if wrong else 'nothing'!r}")
    return np.asarray([int(line) for line in lines], dtype=np.int64)
