"""Which sizes a network takes."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

_MULTIPLES = (2, 4, 8, 16, 32, 64)  # of the sides, by how often networks halve


def next_good_sides(network: nn.Module, shape: Sequence[int]) -> tuple[int, ...] | None:
    """Return the smallest sides, none below the given ones, that a network takes; found by shapes alone.

    Sides are rounded up to a power of two of which they are multiples, the same for all axes.

    Args:
        network: It is copied without its weights and stays as it is.
        shape: Channels and sides of an input that it refuses, ``(1, 18, 16, 16)`` for example.

    Returns:
        The sides, or ``None`` if sides are not what it refuses the input for.
    """
    twin = copy.deepcopy(network).to("meta").eval()
    channels, *sides = shape
    if _takes(twin, (channels, *sides)):
        return None
    tried = {tuple(-(-max(side, 1) // multiple) * multiple for side in sides): None for multiple in _MULTIPLES}
    return next((rounded for rounded in tried if _takes(twin, (channels, *rounded))), None)


def _takes(twin: nn.Module, shape: Sequence[int]) -> bool:
    try:
        with torch.device("meta"), torch.no_grad():
            twin(torch.empty(1, *shape))
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False
    return True
