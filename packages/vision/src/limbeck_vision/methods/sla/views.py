"""The transformed copies of a batch of images, as one batch: rotations, orders of the colours, and both together."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor, nn

from limbeck_core.checks import check_ndim
from limbeck_core.errors import ConfigError, ShapeError, closest

_TURNS = (0, 1, 2, 3)
_HALF_TURNS = (0, 2)
_NO_TURN = (0,)
_COLORS = tuple(permutations(range(3)))  # the first one leaves the image as it is
_COLOR_CYCLES = ((0, 1, 2), (1, 2, 0), (2, 0, 1))
_ONE_COLOR = ((0, 1, 2),)

# Quarter turns and orders of the channels. View 0 is the image itself; turns change slowest.
TRANSFORMATIONS: dict[str, tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]] = {
    "rotation": (_TURNS, _ONE_COLOR),
    "half_turn": (_HALF_TURNS, _ONE_COLOR),
    "color": (_NO_TURN, _COLORS),
    "color_cycle": (_NO_TURN, _COLOR_CYCLES),
    "half_turn_color_cycle": (_HALF_TURNS, _COLOR_CYCLES),
    "rotation_color_cycle": (_TURNS, _COLOR_CYCLES),
    "rotation_color": (_TURNS, _COLORS),
    "identity": (_NO_TURN, _ONE_COLOR),
}


def number_of_views(transformation: str) -> int:
    """Return how many views M a transformation makes of an image.

    Args:
        transformation: A name in ``TRANSFORMATIONS``: ``rotation`` (4 quarter turns), ``half_turn`` (2), ``color`` (the
            6 orders of red, green and blue), ``color_cycle`` (3), ``half_turn_color_cycle`` (6),
            ``rotation_color_cycle`` (12), ``rotation_color`` (24), ``identity`` (1).

    Raises:
        ConfigError: if there is no such transformation, with the closest names.

    >>> number_of_views("rotation")
    4
    """
    if transformation not in TRANSFORMATIONS:
        raise ConfigError(f"there is no transformation {transformation!r}: {closest(transformation, TRANSFORMATIONS)}")
    turns, colors = TRANSFORMATIONS[transformation]
    return len(turns) * len(colors)


def transformed_views(images: Tensor, transformation: str = "rotation") -> Tensor:
    """Return every view of every image as one contiguous batch, the views of an image next to each other.

    Args:
        images: Shape ``(N, C, H, W)``.
        transformation: See :func:`number_of_views`.

    Returns:
        Shape ``(N * M, C, H, W)``; row ``n * M + j`` is view ``j`` of image ``n``, and view 0 the image itself.

    Raises:
        ShapeError: if the images are not square but are to be turned by 90 degrees, or their colours are to be
            exchanged but they have not three channels.
        ConfigError: if there is no such transformation.

    Reference:
        Lee et al., Self-supervised Label Augmentation via Input Transformations, arXiv:1910.05872, section 2.

    >>> transformed_views(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))[1, 0].tolist()
    [[2.0, 4.0], [1.0, 3.0]]
    """
    views = number_of_views(transformation)
    check_ndim(images, "images", "(N, C, H, W)", at_least=4, at_most=4)
    turns, colors = TRANSFORMATIONS[transformation]
    if turns == _TURNS and images.shape[2] != images.shape[3]:
        raise ShapeError(
            f"quarter turns need square images, since all views form one batch, got shape {tuple(images.shape)}: crop "
            "to a square, or use transformation='half_turn'"
        )
    if len(colors) > 1 and images.shape[1] != 3:
        raise ShapeError(
            f"exchanging colours needs images of 3 channels, got shape {tuple(images.shape)}: use "
            "transformation='rotation'"
        )
    turned = torch.stack([torch.rot90(images, quarter, (2, 3)) for quarter in turns], dim=1)
    if len(colors) > 1:
        turned = turned[:, :, torch.tensor(colors, device=images.device)]
    return turned.reshape(len(images) * views, *images.shape[1:])


class RandomView(nn.Module):
    """Transform that takes one view of an image by chance: the invariance that SLA does without, as its control.

    Args:
        transformation: See :func:`number_of_views`.

    Raises:
        ConfigError: if there is no such transformation.
    """

    def __init__(self, transformation: str = "rotation") -> None:
        super().__init__()
        self.transformation = transformation
        self.views = number_of_views(transformation)

    def forward(self, image: Tensor) -> Tensor:
        """Return a view of an image ``(C, H, W)``."""
        return transformed_views(image.unsqueeze(0), self.transformation)[int(torch.randint(self.views, ()))]
