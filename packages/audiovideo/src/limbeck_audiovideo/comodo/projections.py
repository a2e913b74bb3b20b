"""From the width of an encoder to that of the queue: trained on the student's side, drawn once on the teacher's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck_core.checks import check_ndim
from limbeck_core.errors import ShapeError


def _layers(in_dim: int, out_dim: int, hidden_dim: int) -> nn.Sequential:
    if min(in_dim, out_dim, hidden_dim) < 1:
        raise ValueError(f"widths of a projection must be 1 or more, got {in_dim}, {hidden_dim} and {out_dim}")
    return nn.Sequential(
        nn.Linear(in_dim, hidden_dim), nn.BatchNorm1d(hidden_dim), nn.GELU(), nn.Linear(hidden_dim, out_dim)
    )


class Projection(nn.Module):
    """Linear, batch norm, GELU, linear: the student's projection, an adapter of the match, dropped after training.

    A training batch of one clip has no batch statistics: set ``drop_last=True`` in the loader.

    Args:
        in_dim: Width of the encoder.
        out_dim: Width of the queue.
        hidden_dim: Width in between.

    Raises:
        ValueError: if a width is below 1.
        ShapeError: when called on another shape than ``(N, in_dim)``, or on one clip in training.

    Reference:
        Chen et al., COMODO, arXiv:2503.07259, implementation details.
    """

    def __init__(self, in_dim: int, out_dim: int = 128, *, hidden_dim: int = 2048) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.layers = _layers(in_dim, out_dim, hidden_dim)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Project ``(N, in_dim)`` to ``(N, out_dim)``."""
        check_ndim(embeddings, "embeddings", "(N, D)", at_least=2, at_most=2)
        if embeddings.shape[1] != self.in_dim:
            raise ShapeError(
                f"the projection was built for in_dim={self.in_dim} numbers a clip, got shape "
                f"{tuple(embeddings.shape)}: set in_dim to the width of the encoder"
            )
        if self.training and len(embeddings) == 1:
            raise ShapeError("a batch of one clip has no statistics to train on: set drop_last=True in the data loader")
        projected: Tensor = self.layers(embeddings)
        return projected


class RandomProjection(Projection):
    """The same layers on the teacher's side, drawn once and never trained, as in the published code.

    Batch norm stays in evaluation mode with mean 0 and variance 1, where it changes next to nothing. The weights are
    part of the checkpoint.

    Args:
        in_dim: Width of the teacher.
        out_dim: Width of the queue.
        hidden_dim: Width in between.
        seed: Draws the weights, the same whatever was drawn before.
    """

    def __init__(self, in_dim: int, out_dim: int = 128, *, hidden_dim: int = 2048, seed: int = 42) -> None:
        nn.Module.__init__(self)
        self.in_dim = in_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = _layers(in_dim, out_dim, hidden_dim)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> RandomProjection:
        """Stay in evaluation mode, whoever calls."""
        super().train(False)
        return self


__all__ = ["Projection", "RandomProjection"]
