"""Views of a cloud: large and small parts of it, jittered, scaled and moved, each of a fixed number of points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from limbeck_core.errors import ConfigError, ShapeError
from limbeck_detection.dcglr.sampling import nearest_points

_NEIGHBORS = 4  # whose mean is a new point


def spherical_crop(points: Tensor, share: float) -> Tensor:
    """Keep the points nearest to one of them, drawn at random.

    Args:
        points: ``(n, 3)``, a point at least.
        share: Of the points that stay, rounded up.

    Returns: ``(ceil(share * n), 3)``.
    """
    count = max(math.ceil(share * len(points)), 1)
    centre = points[torch.randint(len(points), (1,))]
    return points[nearest_points(centre, points, count)[0]]


def complete(points: Tensor, length: int) -> Tensor:
    """Bring a part of a cloud to a number of points.

    Means of four neighbouring points are added, a random choice of them, until there are enough. A part of fewer than
    four points repeats them.

    Args:
        points: ``(n, 3)``, a point at least.
        length: Points wanted; of more points the first stay.

    Returns: ``(length, 3)``, the given points first.
    """
    while len(points) < length:
        missing = min(length - len(points), len(points))
        few = len(points) < _NEIGHBORS
        added = points if few else points[nearest_points(points, points, _NEIGHBORS)].mean(1)
        points = torch.cat((points, added[torch.randperm(len(added))[:missing]]))
    return points[:length]


class MultiCrop:
    """Cut a cloud into large and small views.

    Each view is jittered, cut out around a random point, scaled and moved along each axis, completed to a fixed length
    and shuffled. Nothing is turned. Random numbers are PyTorch's, which the loader seeds by sample.

    Args:
        global_share: Least and largest share of a large view's points.
        local_share: The same of a small view's.
        local_views: Number of small views; there are two large ones. 0 leaves them out.
        jitter: Standard deviation of each coordinate's noise, which is cut at five times as much.
        scale: Least and largest factor of each axis.
        shift: Largest move along each axis.

    Raises:
        ConfigError: if a share is not in (0, 1], or a number is out of range.

    Reference: views of POS-BERT (the successor of Fu et al., Distillation with Contrast is All You Need for
        Self-Supervised Point Cloud Representation Learning, arXiv:2202.04241, by the same first author), whose code is
        public. The paper's own numbers are not known.
    """

    def __init__(
        self,
        *,
        global_share: tuple[float, float] = (0.5, 0.9),
        local_share: tuple[float, float] = (0.2, 0.5),
        local_views: int = 8,
        jitter: float = 0.01,
        scale: tuple[float, float] = (2 / 3, 3 / 2),
        shift: float = 0.2,
    ) -> None:
        for name, (low, high) in (("global_share", global_share), ("local_share", local_share)):
            if not 0 < low <= high <= 1:
                raise ConfigError(f"{name} must rise within (0, 1], got {(low, high)}")
        if local_views < 0 or jitter < 0 or shift < 0 or not 0 < scale[0] <= scale[1]:
            raise ConfigError(
                "local_views, jitter and shift must be 0 or more and scale rise above 0, got "
                f"{local_views}, {jitter}, {shift} and {scale}"
            )
        self.global_share = tuple(global_share)
        self.local_share = tuple(local_share)
        self.local_views = local_views
        self.jitter = jitter
        self.scale = tuple(scale)
        self.shift = shift

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return two large views ``(2, ceil(high * n), 3)`` and the small ones ``(V, ceil(high * n), 3)``.

        ``high`` is the larger share of each kind.

        Raises:
            ShapeError: if the cloud is not ``(n, 3)`` with a point at least.
        """
        if points.ndim != 2 or points.shape[1] != 3 or not len(points):
            raise ShapeError(f"a cloud must be (n, 3) with one point or more, got {tuple(points.shape)}")
        large = torch.stack([self._view(points, self.global_share) for _ in range(2)])
        length = math.ceil(self.local_share[1] * len(points))
        small = [self._view(points, self.local_share) for _ in range(self.local_views)]
        return large, torch.stack(small) if small else points.new_zeros(0, length, 3)

    def _view(self, points: Tensor, share: Sequence[float]) -> Tensor:
        low, high = share
        noise = (torch.randn_like(points) * self.jitter).clamp(-5 * self.jitter, 5 * self.jitter)
        part = spherical_crop(points + noise, float(torch.empty(()).uniform_(low, high)))
        factor = torch.empty(3).uniform_(*self.scale).to(part)
        move = torch.empty(3).uniform_(-self.shift, self.shift).to(part)
        view = complete(part * factor + move, math.ceil(high * len(points)))
        return view[torch.randperm(len(view))]


def views_batch(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join samples with views into a batch, view by view.

    Args:
        samples: Each with ``views`` as :class:`MultiCrop` returns them, ``targets`` and ``ids``.

    Returns:
        ``inputs``: large views ``(2 * B, n, 3)`` and, if there are any, small ones ``(V * B, m, 3)``, the first B rows
        being the first view; ``large``: the first of them alone, for the teacher; ``targets`` and ``ids``.
    """
    kinds = [torch.stack(views, 1).flatten(0, 1) for views in zip(*(s["views"] for s in samples), strict=True)]
    return {
        "inputs": [views for views in kinds if len(views)],
        "large": kinds[:1],
        "targets": torch.tensor([sample["targets"] for sample in samples]),
        "ids": torch.tensor([sample["ids"] for sample in samples]),
    }
