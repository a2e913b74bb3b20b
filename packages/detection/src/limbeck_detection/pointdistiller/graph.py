"""One layer of graph convolution over the neighbourhoods of some items."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn.functional import batch_norm, embedding, linear, relu

from limbeck_core.checks import check_ndim, check_positive
from limbeck_core.errors import ShapeError
from limbeck_core.functional.precision import at_least_float32

Fusion = Literal["concatenate", "difference"]
_MOMENTUM = 0.1  # of the running statistics


class GraphLayer(nn.Module):
    r"""Encodes the neighbourhood of a centre: what each neighbour is, beside what the centre is.

    .. math:: g_{ij} = \operatorname{ReLU}(\operatorname{BN}(W [z_j ; z_i]))

    One matrix for all centres and neighbours, no bias. It is applied to the items before they are gathered,
    :math:`W [z_j ; z_i] = W_1 z_j + W_2 z_i`, which is the same number for a fraction of the work: each item is
    multiplied once, not once for every neighbourhood it lies in.

    Args:
        in_channels: Width C of the items.
        out_channels: Width of the code.
        fusion: ``"concatenate"`` as above, or ``"difference"``, :math:`[z_i - z_j ; z_i]` (EdgeConv).
        affine: Let the normalisation learn scale and shift. Without them the code cannot shrink to a constant.

    Raises:
        ValueError: if a width is below 1 or ``fusion`` is unknown.

    Reference: Zhang et al., PointDistiller, arXiv:2205.11098, section 3.2; Wang et al., Dynamic Graph CNN,
        arXiv:1801.07829, eq. 7.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, fusion: Fusion = "concatenate", affine: bool = True
    ) -> None:
        super().__init__()
        check_positive(in_channels, "in_channels")
        check_positive(out_channels, "out_channels")
        if fusion not in get_args(Fusion):
            raise ValueError(f"fusion must be 'concatenate' or 'difference', got {fusion!r}")
        self.fusion = fusion
        self.linear = nn.Linear(2 * in_channels, out_channels, bias=False)
        self.norm = nn.BatchNorm1d(out_channels, momentum=_MOMENTUM, affine=affine)

    def forward(self, items: Tensor, centers: Tensor, neighbors: Tensor) -> Tensor:
        """Encode.

        Args:
            items: Features, shape ``(M, C)``.
            centers: Rows of the centres, integers ``(n,)``.
            neighbors: Rows of the neighbours of each, integers ``(n, k)``.

        Returns: Codes, shape ``(n, k, out_channels)``.

        Raises:
            ShapeError: if the items have another width, or there are not as many neighbourhoods as centres.
        """
        check_ndim(items, "items", "(M, C)", at_least=2, at_most=2)
        width = self.linear.in_features // 2
        if items.shape[1] != width:
            raise ShapeError(f"this graph layer is for items of width {width}, got shape {tuple(items.shape)}")
        if neighbors.ndim != 2 or len(neighbors) != len(centers):
            raise ShapeError(
                f"neighbors must have one row for each of the {len(centers)} centers, got shape "
                f"{tuple(neighbors.shape)}"
            )
        weight = self.linear.weight
        items = at_least_float32(items)
        of_neighbor, of_center = weight[:, :width], weight[:, width:]
        if self.fusion == "difference":
            of_neighbor, of_center = -of_neighbor, of_neighbor + of_center
        # embedding: its gradient sums over neighbourhoods several times faster than that of an index
        mixed = embedding(neighbors, linear(items, of_neighbor)) + linear(items[centers], of_center).unsqueeze(1)
        rows = mixed.reshape(-1, mixed.shape[-1])
        if not len(rows):
            return mixed
        norm = self.norm
        # one row has no variance: it is normalised as in evaluation
        estimated = self.training and len(rows) > 1
        if estimated and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        rows = batch_norm(
            rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, estimated, _MOMENTUM, norm.eps
        )
        return relu(rows).view_as(mixed)
