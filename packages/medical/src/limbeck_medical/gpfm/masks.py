"""Which patches of a crop are hidden."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from limbeck_core.checks import check_between

_SMALLEST = 4  # patches of a block
_WIDEST = 0.3  # proportion of its sides, and its inverse
_TRIES = 10


def block_mask(grid: tuple[int, int], ratio: float) -> Tensor:
    """Draw a mask of rectangular blocks from PyTorch's generator.

    Blocks of at least four patches, sides in proportions of 0.3 to 3.3, are laid over one another until the share is
    reached; what no block fits into any more is filled with single patches, so that the share is exact.

    Args:
        grid: Patches along height and width.
        ratio: Share of the patches to hide, 0 to 1, rounded to whole patches.

    Returns:
        Boolean ``grid``, ``True`` where a patch is hidden.

    Raises:
        ValueError: if ``ratio`` is out of range.

    Reference:
        Bao et al., BEiT, arXiv:2106.08254, algorithm 1; in this form in iBOT and DINOv2.

    >>> int(block_mask((6, 6), 0.5).sum())
    18
    """
    check_between(ratio, "ratio", 0.0, 1.0)
    height, width = grid
    mask = torch.zeros(grid, dtype=torch.bool)
    wanted = round(ratio * height * width)
    while (left := wanted - int(mask.sum())) > 0:
        if not (left >= _SMALLEST and _lay_block(mask, left)):
            free = (~mask.flatten()).nonzero().flatten()
            chosen = free[torch.randperm(len(free))[:left]]
            mask.view(-1)[chosen] = True
    return mask


def _lay_block(mask: Tensor, left: int) -> bool:
    """Hide one more block of at most ``left`` new patches; ``False`` if none was found."""
    height, width = mask.shape
    for _ in range(_TRIES):
        area = _uniform(_SMALLEST, left)
        proportion = math.exp(_uniform(math.log(_WIDEST), -math.log(_WIDEST)))
        rows, columns = round(math.sqrt(area * proportion)), round(math.sqrt(area / proportion))
        if not (1 <= rows <= height and 1 <= columns <= width):
            continue
        top = int(torch.randint(height - rows + 1, ()))
        start = int(torch.randint(width - columns + 1, ()))
        block = mask[top : top + rows, start : start + columns]
        if 0 < int((~block).sum()) <= left:
            block.fill_(True)
            return True
    return False


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))
