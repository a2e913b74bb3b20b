"""Which items matter, and which are near each other in the teacher's feature space: what PointDistiller compares on.

Items are voxels, cells of a map or points: rows of one matrix, with a scene number each where a batch holds several
scenes. Everything here is integers and distances; no gradient flows through it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck_core.checks import check_finite, check_ndim, check_positive
from limbeck_core.errors import ShapeError
from limbeck_core.functional.precision import at_least_float32, without_autocast

_GROUP = 16  # items whose nearest one stands for all in the first pass of a search on the CPU
_SMALL = 4096  # a scene below this many items is searched in one pass


def squared_distances(queries: Tensor, items: Tensor) -> Tensor:
    r"""Squared Euclidean distances, :math:`d_{ij} = \lVert q_i - x_j \rVert^2`.

    Both sides are moved by the mean of the items first, so that the expanded square loses little in float32; half
    precision is raised to float32.

    Args:
        queries: Shape ``(..., Q, C)``.
        items: Shape ``(..., M, C)``.

    Returns: Shape ``(..., Q, M)``, 0 or more, without a gradient.

    Raises:
        ShapeError: if the last axes differ.

    >>> squared_distances(torch.tensor([[0.0, 3.0]]), torch.tensor([[4.0, 0.0], [0.0, 3.0]]))
    tensor([[25.,  0.]])
    """
    if queries.shape[-1] != items.shape[-1]:
        raise ShapeError(
            f"queries and items must have one width, got shapes {tuple(queries.shape)} and {tuple(items.shape)}"
        )
    queries, items = at_least_float32(queries.detach()), at_least_float32(items.detach())
    if not items.shape[-2]:
        return queries.new_zeros(*queries.shape[:-1], 0)
    with without_autocast(items):
        middle = items.mean(-2, keepdim=True)
        queries, items = queries - middle, items - middle
        lengths = queries.square().sum(-1, keepdim=True) + items.square().sum(-1).unsqueeze(-2)
        return (lengths - 2 * queries @ items.transpose(-1, -2)).clamp_(min=0)


def select_most_important(importance: Tensor, count: int, *, scenes: Tensor | None = None) -> Tensor:
    """Rows of the most important items; of equal ones the first.

    Args:
        importance: One number an item, shape ``(M,)``; the number of points of a pillar, for example.
        count: Items wanted, 1 or more; all are taken where there are fewer.
        scenes: Scene of each item, integers ``(M,)``: ``count`` items of each scene are taken. Default: ``count`` items
            of the whole batch.

    Returns: Row numbers, shape ``(n,)``, the most important first, scene by scene.

    Raises:
        ShapeError: if the arguments are not one-dimensional and equally long.
        NonFiniteError: if an importance is NaN or infinite.
        ValueError: if ``count`` is below 1.

    >>> select_most_important(torch.tensor([3, 9, 1, 9]), 3)
    tensor([1, 3, 0])
    """
    check_positive(count, "count")
    check_ndim(importance, "importance", "(M,)", at_least=1, at_most=1)
    check_finite(importance.detach().sum(), importance=importance)
    if scenes is None:
        return torch.sort(importance.detach(), descending=True, stable=True).indices[:count]
    rows = [
        members[torch.sort(importance.detach()[members], descending=True, stable=True).indices[:count]]
        for members in rows_by_scene(scenes, len(importance), "importance")
    ]
    return torch.cat(rows) if rows else torch.zeros(0, dtype=torch.int64, device=importance.device)


def nearest_neighbors(
    items: Tensor,
    centers: Tensor,
    neighbors: int,
    *,
    scenes: Tensor | None = None,
    chunk_size: int = 256,
) -> Tensor:
    """The nearest items of some of them, in feature space.

    An item is its own first neighbour, whatever rounding says. Others follow in no particular order. Distances are
    float32 or better. Memory is that of ``chunk_size`` rows of distances, ``4 * chunk_size * M`` bytes in float32.

    Args:
        items: Features, shape ``(M, C)``.
        centers: Rows of the items whose neighbours are wanted, integers ``(n,)``.
        neighbors: Neighbours wanted, 1 or more, the centre included. All items are taken where there are fewer.
        scenes: Scene of each item, integers ``(M,)``: neighbours come from the centre's own scene. A scene that is
            smaller than the others repeats its items in turn until it has as many neighbours. Default: the batch is
            one scene.
        chunk_size: Centres worked on at a time, 1 or more.

    Returns: Row numbers of the neighbours, shape ``(n, k)``, ``k = min(neighbors, size of the largest scene)``.

    Raises:
        ShapeError: if shapes do not fit.
        ValueError: if ``neighbors`` or ``chunk_size`` is below 1.
        NonFiniteError: if a feature is NaN or infinite (CPU).

    Reference: Zhang et al., PointDistiller, arXiv:2205.11098, section 3.2; neighbourhoods in feature space as in Wang
        et al., Dynamic Graph CNN, arXiv:1801.07829.

    >>> nearest_neighbors(torch.tensor([[0.0], [5.0], [1.0]]), torch.tensor([0]), 2)
    tensor([[0, 2]])
    """
    check_positive(neighbors, "neighbors")
    check_positive(chunk_size, "chunk_size")
    check_ndim(items, "items", "(M, C)", at_least=2, at_most=2)
    check_ndim(centers, "centers", "(n,)", at_least=1, at_most=1)
    items = at_least_float32(items.detach())
    check_finite(items.sum(), items=items)
    if scenes is None:
        with without_autocast(items):
            return _search(items, centers, min(neighbors, len(items)), chunk_size)
    members = rows_by_scene(scenes, len(items), "items")
    wanted = min(neighbors, max((len(rows) for rows in members), default=0))
    found = centers.new_zeros(len(centers), wanted)
    place = torch.empty_like(scenes)
    owner = scenes[centers]
    with without_autocast(items):
        for rows in members:
            own = (owner == scenes[rows[0]]).nonzero().flatten()
            if not len(own):
                continue
            place[rows] = torch.arange(len(rows), dtype=place.dtype, device=place.device)
            local = _search(items[rows], place[centers[own]], min(wanted, len(rows)), chunk_size)
            turn = torch.arange(wanted, device=items.device) % local.shape[1]
            found[own] = rows[local[:, turn]]
    return found


def rows_by_scene(scenes: Tensor, items: int, name: str) -> list[Tensor]:
    """Row numbers of each scene that has any, in rising order of scene and row.

    Args:
        scenes: Scene of each item, integers ``(M,)``.
        items: What M should be.
        name: What the items are called, for the message.

    Raises:
        ShapeError: if ``scenes`` is not one integer an item.
    """
    if scenes.shape != (items,) or scenes.is_floating_point():
        raise ShapeError(
            f"scenes must hold one integer for each of the {items} rows of {name}, got {scenes.dtype} of shape "
            f"{tuple(scenes.shape)}"
        )
    order = torch.sort(scenes, stable=True)
    _, sizes = torch.unique_consecutive(order.values, return_counts=True)
    return list(torch.split(order.indices, sizes.tolist()))


def _search(items: Tensor, centers: Tensor, count: int, chunk_size: int) -> Tensor:
    """Neighbours of rows of one scene, each centre first."""
    if not count or not len(centers):
        return centers.new_zeros(len(centers), count)
    items = items - items.mean(0)
    # [q, 1] . [-2 x, |x|^2]: the query's own length is one constant a row, which changes no order
    one = items.new_ones(len(items), 1)
    queries, keys = torch.cat((items, one), 1), torch.cat((-2 * items, items.square().sum(1, keepdim=True)), 1).T
    parts = []
    for part in torch.split(centers, chunk_size):
        distances = queries[part] @ keys
        distances.scatter_(1, part.unsqueeze(1), -torch.inf)
        parts.append(_smallest(distances, count))
    return torch.cat(parts)


def _smallest(values: Tensor, count: int) -> Tensor:
    """Columns of the ``count`` smallest values of each row, the smallest first.

    On the CPU the values are grouped first: what is among the smallest lies in one of the ``count`` groups with the
    smallest least member, so that most columns are looked at by a vectorised minimum only.
    """
    rows, columns = values.shape
    groups = columns // _GROUP
    if values.device.type != "cpu" or columns < _SMALL or groups < 2 * count:
        return _smallest_first(values, count)
    grouped = values[:, : groups * _GROUP].view(rows, _GROUP, groups)  # a group is columns at a stride of `groups`
    chosen = grouped.amin(1).topk(count, dim=1, largest=False, sorted=False).indices
    columns_of = chosen.unsqueeze(1) + groups * torch.arange(_GROUP, device=values.device).view(1, -1, 1)
    left_over = torch.arange(groups * _GROUP, columns, device=values.device).expand(rows, -1)
    candidates = torch.cat((columns_of.reshape(rows, -1), left_over), dim=1)
    return candidates.gather(1, _smallest_first(values.gather(1, candidates), count))


def _smallest_first(values: Tensor, count: int) -> Tensor:
    """Columns of the smallest values in no order, but for the smallest one, which comes first."""
    found = values.topk(count, dim=1, largest=False, sorted=False)
    best = found.values.argmin(1, keepdim=True)
    first = found.indices.gather(1, best)
    indices = found.indices.scatter(1, best, found.indices[:, :1])
    indices[:, :1] = first
    return indices
