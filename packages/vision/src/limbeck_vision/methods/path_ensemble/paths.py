"""Which paths help the final sum: every component, or every first few, left out of a trained model once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from limbeck_core.errors import DataError
from limbeck_vision.methods.path_ensemble.model import Grouping, PathEnsembleViT
from limbeck_vision.models.normalization import normalization_of, normalize


@dataclass(frozen=True)
class PathAccuracies:
    """Accuracies in per cent of one model with parts of its final sum left out.

    Args:
        whole: Of the model as it is.
        without: Without one component or layer each, by its name.
        without_first: Without the first k in the order of the sum, by k from 1.
    """

    whole: float
    without: Mapping[str, float]
    without_first: Mapping[int, float]


@torch.no_grad()
def path_accuracies(
    model: PathEnsembleViT, batches: Iterable[Mapping[str, Any]], *, grouping: Grouping = "layer"
) -> PathAccuracies:
    """Measure what each path does for the accuracy of a trained model; the residual stream is left as it is.

    To choose what to prune, pass images that were held out of the training set, not the test images. The components
    are computed once a batch and summed anew for each measurement, which holds (2 L + 1) N T D numbers.

    Args:
        model: The model; what it prunes already stays out.
        batches: Mappings with ``inputs``, images in [0, 1], ``(N, C, H, W)``, and ``targets``, ``(N,)``.
        grouping: Leave out single components (``"component"``), or the input and whole layers (``"layer"``).

    Returns:
        The accuracies.

    Raises:
        DataError: if there is no image.
    """
    groups = model.component_names if grouping == "component" else model.layer_names
    groups = tuple(group for group in groups if set(model.expand(group)) - set(model.pruned))
    hits: dict[Any, int] = {}
    count, training = 0, model.training
    model.eval()
    for batch in batches:
        targets = torch.as_tensor(batch["targets"])
        parts = _group_sums(model, normalize(batch["inputs"], normalization_of(model)), groups)
        whole = torch.stack(list(parts.values())).sum(0)
        for key, total in _totals(parts, whole):
            right = int((model.classify(total)[1].argmax(1) == targets).sum())
            hits[key] = hits.get(key, 0) + right
        count += len(targets)
    model.train(training)
    if not count:
        raise DataError("path_accuracies needs images to measure on, got no batch")
    shares = {key: 100.0 * right / count for key, right in hits.items()}
    return PathAccuracies(
        whole=shares[None],
        without={key: share for key, share in shares.items() if isinstance(key, str)},
        without_first={key: share for key, share in shares.items() if isinstance(key, int)},
    )


def _group_sums(model: PathEnsembleViT, images: Tensor, groups: tuple[str, ...]) -> dict[str, Tensor]:
    group_of = {component: group for group in groups for component in model.expand(group)}
    sums: dict[str, Tensor] = {}
    for name, component in model.components(images):
        addend = model.weigh(name, component)
        if addend is not None:
            group = group_of[name]
            sums[group] = sums[group] + addend if group in sums else addend
    return sums


def _totals(parts: Mapping[str, Tensor], whole: Tensor) -> Iterable[tuple[Any, Tensor]]:
    yield None, whole
    for name, part in parts.items():
        yield name, whole - part
    values = list(parts.values())
    for first in range(1, len(values)):
        yield first, torch.stack(values[first:]).sum(0)
