"""Selection and neighbours: against a slow count, per scene, in chunks, few items, ties, rounding, bad input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from limbeck_core.errors import NonFiniteError, ShapeError
from limbeck_detection.pointdistiller import nearest_neighbors, neighbors, select_most_important, squared_distances
from loss_contract import randn


def slow(items: Tensor, centers: Tensor, count: int) -> Tensor:
    distances = (items[centers].unsqueeze(1) - items).square().sum(2)
    return distances.sort(dim=1, stable=True).indices[:, :count]


def as_sets(rows: Tensor) -> list[set[int]]:
    return [set(row) for row in rows.tolist()]


@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
def test_neighbours_are_those_of_a_slow_search_whatever_the_chunk(chunk_size: int) -> None:
    items, centers = randn(60, 5), torch.tensor([3, 59, 0, 3, 17])
    found = nearest_neighbors(items, centers, 9, chunk_size=chunk_size)
    assert found.shape == (5, 9)
    assert as_sets(found) == as_sets(slow(items, centers, 9))
    assert found[:, 0].tolist() == centers.tolist()


@pytest.mark.parametrize("size", [neighbors._SMALL, neighbors._SMALL + 13])
def test_the_search_in_groups_is_exact(size: int) -> None:
    items, centers = randn(size, 3), torch.arange(0, size, size // 20)
    found = nearest_neighbors(items, centers, 24)
    assert as_sets(found) == as_sets(slow(items, centers, 24))
    assert found[:, 0].tolist() == centers.tolist()


def test_a_centre_is_its_own_first_neighbour_among_twins_and_far_from_the_origin() -> None:
    items = (randn(40, 8, dtype=torch.float32) * 1e-3 + 1000.0).repeat(2, 1)  # each item twice
    centers = torch.arange(80)
    found = nearest_neighbors(items, centers, 2)
    assert found[:, 0].tolist() == centers.tolist()
    assert found[:, 1].tolist() == ((centers + 40) % 80).tolist()


def test_half_precision_features_are_compared_in_float32() -> None:
    items = torch.cat((torch.full((1, 4), 200.0), torch.full((1, 4), 200.25), randn(30, 4) * 50)).half()
    assert nearest_neighbors(items, torch.tensor([0]), 2).tolist() == [[0, 1]]  # squares overflow in float16


def test_neighbours_of_a_scene_are_the_scene_s() -> None:
    items = randn(50, 4)
    scenes = torch.tensor([0] * 20 + [2] * 30)[torch.randperm(50, generator=torch.Generator().manual_seed(1))]
    centers = torch.tensor([4, 33, 12, 49])
    found = nearest_neighbors(items, centers, 6, scenes=scenes)
    assert (scenes[found] == scenes[centers].unsqueeze(1)).all()
    for center, row in zip(centers.tolist(), found.tolist(), strict=True):
        own = (scenes == scenes[center]).nonzero().flatten()
        expected = own[slow(items[own], (own == center).nonzero().flatten(), 6)[0]]
        assert set(row) == set(expected.tolist())


def test_a_scene_with_few_items_repeats_them_in_turn() -> None:
    items, scenes = randn(12, 3), torch.tensor([0] * 10 + [1] * 2)
    found = nearest_neighbors(items, torch.tensor([0, 11]), 5, scenes=scenes)
    assert found.shape == (2, 5)
    assert len(set(found[0].tolist())) == 5
    assert found[1].tolist() == [11, 10, 11, 10, 11]


def test_fewer_items_than_neighbours_and_none_at_all() -> None:
    assert sorted(nearest_neighbors(randn(3, 2), torch.tensor([1]), 8)[0].tolist()) == [0, 1, 2]
    empty = torch.zeros(0, dtype=torch.int64)
    assert nearest_neighbors(randn(0, 2), empty, 8).shape == (0, 0)
    assert nearest_neighbors(randn(0, 2), empty, 8, scenes=empty).shape == (0, 0)
    assert nearest_neighbors(randn(5, 2), empty, 2).shape == (0, 2)


def test_no_gradient_and_no_matrix_beyond_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    original = neighbors._smallest

    def watched(values: Tensor, count: int) -> Tensor:
        seen.append(tuple(values.shape))
        return original(values, count)

    monkeypatch.setattr(neighbors, "_smallest", watched)
    found = nearest_neighbors(randn(100, 3).requires_grad_(), torch.arange(100), 4, chunk_size=32)
    assert not found.requires_grad
    assert seen == [(32, 100), (32, 100), (32, 100), (4, 100)]


def test_bad_arguments_of_the_search_are_named() -> None:
    items, centers = randn(5, 2), torch.tensor([0])
    with pytest.raises(ValueError, match="neighbors"):
        nearest_neighbors(items, centers, 0)
    with pytest.raises(ShapeError, match="scenes must hold one integer for each of the 5 rows"):
        nearest_neighbors(items, centers, 2, scenes=torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"torch.float32 of shape \(5,\)"):
        nearest_neighbors(items, centers, 2, scenes=torch.zeros(5))
    items[3, 1] = torch.nan
    with pytest.raises(NonFiniteError, match="items"):
        nearest_neighbors(items, centers, 2)


def test_squared_distances_broadcast_and_stay_at_least_zero() -> None:
    queries, items = randn(2, 4, 3), randn(2, 6, 3, seed=1)
    expected = (queries.unsqueeze(2) - items.unsqueeze(1)).square().sum(3)
    torch.testing.assert_close(squared_distances(queries, items), expected)
    near = torch.full((3, 4), 1e4) + torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    assert (squared_distances(near, near) >= 0).all()
    assert squared_distances(queries[0], items[0, :0]).shape == (4, 0)
    with pytest.raises(ShapeError, match="one width"):
        squared_distances(queries, items[..., :2])


def test_the_fullest_come_first_and_ties_go_to_the_first() -> None:
    counts = torch.tensor([4, 32, 7, 32, 1, 32])
    assert select_most_important(counts, 4).tolist() == [1, 3, 5, 2]
    assert select_most_important(counts, 100).tolist() == [1, 3, 5, 2, 0, 4]
    scenes = torch.tensor([7, 0, 7, 7, 0, 0])
    assert select_most_important(counts, 2, scenes=scenes).tolist() == [1, 5, 3, 2]
    assert select_most_important(counts[:0], 3).tolist() == []
    assert select_most_important(counts[:0], 3, scenes=scenes[:0]).tolist() == []


def test_bad_importance_is_named() -> None:
    with pytest.raises(NonFiniteError, match="importance"):
        select_most_important(torch.tensor([1.0, torch.nan]), 1)
    with pytest.raises(ShapeError, match="importance"):
        select_most_important(torch.ones(2, 2), 1)
    with pytest.raises(ValueError, match="count"):
        select_most_important(torch.ones(2), 0)
