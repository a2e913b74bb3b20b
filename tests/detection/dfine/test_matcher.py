"""One query for each true box, and the union over heads."""

from __future__ import annotations

import itertools

import pytest
import torch

from limbeck_core.errors import NonFiniteError, ShapeError, TargetError
from limbeck_detection.dfine.matcher import HungarianMatcher, Pairs, union_of_matches
from loss_contract import randn


def target(*rows: tuple[int, float, float, float, float]) -> dict[str, torch.Tensor]:
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 5)
    return {"labels": table[:, 0].long(), "boxes": table[:, 1:]}


def outputs(images: int = 2, queries: int = 5, classes: int = 3) -> dict[str, torch.Tensor]:
    boxes = randn(images, queries, 4, seed=1).sigmoid() * 0.5 + 0.2
    return {"pred_logits": randn(images, queries, classes), "pred_boxes": boxes}


class TestHungarianMatcher:
    def test_obvious_pairs(self) -> None:
        truth = target((1, 0.2, 0.2, 0.1, 0.1), (0, 0.7, 0.7, 0.2, 0.3))
        boxes = torch.full((1, 4, 4), 0.5, dtype=torch.float64)
        boxes[0, 3], boxes[0, 1] = truth["boxes"]
        (pairs,) = HungarianMatcher()({"pred_logits": torch.zeros(1, 4, 2).double(), "pred_boxes": boxes}, [truth])
        assert pairs.queries.tolist() == [1, 3]
        assert pairs.targets.tolist() == [1, 0]

    def test_the_cheapest_of_all_assignments(self) -> None:
        found, matcher = outputs(images=1), HungarianMatcher()
        truth = [target((0, 0.3, 0.4, 0.2, 0.2), (2, 0.6, 0.5, 0.3, 0.1), (1, 0.5, 0.5, 0.4, 0.4))]
        (cost,) = matcher.cost(found, truth)
        (pairs,) = matcher(found, truth)
        best = min(sum(float(cost[q, t]) for t, q in enumerate(p)) for p in itertools.permutations(range(5), 3))
        assert float(cost[pairs.queries, pairs.targets].sum()) == pytest.approx(best)

    def test_no_true_box_and_more_than_queries(self) -> None:
        many = target(*[(0, 0.1 * i + 0.1, 0.5, 0.1, 0.1) for i in range(7)])
        empty, full = HungarianMatcher()(outputs(), [target(), many])
        assert len(empty.queries) == len(empty.targets) == 0
        assert full.queries.tolist() == [0, 1, 2, 3, 4]
        assert len(set(full.targets.tolist())) == 5

    def test_several_heads_at_once_are_each_alone(self) -> None:
        heads = [outputs(), {name: value.flip(1) for name, value in outputs().items()}]
        truth = [target((0, 0.3, 0.4, 0.2, 0.2)), target((1, 0.5, 0.5, 0.2, 0.2), (2, 0.6, 0.5, 0.3, 0.1))]
        matcher = HungarianMatcher()
        together = matcher.match(heads, truth)
        for found, head in zip(together, heads, strict=True):
            for pairs, alone in zip(found, matcher(head, truth), strict=True):
                assert torch.equal(torch.stack(pairs), torch.stack(alone))

    def test_errors_say_what_does_not_fit(self) -> None:
        found, matcher = outputs(), HungarianMatcher()
        with pytest.raises(TargetError, match="lie from 3 to 3, but the model scores the classes 0 to 2"):
            matcher(found, [target((3, 0.5, 0.5, 0.1, 0.1)), target()])
        with pytest.raises(ShapeError, match="a batch of 2 images needs as many targets, got 1"):
            matcher(found, [target()])
        with pytest.raises(TargetError, match="target 0 has no 'boxes'"):
            matcher(found, [{"labels": torch.zeros(0)}, target()])
        with pytest.raises(TargetError, match="labels of target 0 must be integers"):
            matcher(found, [{"labels": torch.zeros(1), "boxes": torch.zeros(1, 4)}, target()])
        with pytest.raises(NonFiniteError, match="pred_boxes"):
            matcher({**found, "pred_boxes": found["pred_boxes"] * float("nan")}, [target((0, 0.5, 0.5, 0.1, 0.1))] * 2)
        with pytest.raises(ValueError, match="giou_cost"):
            HungarianMatcher(giou_cost=-1.0)


def pairs(*rows: tuple[int, int]) -> list[Pairs]:
    table = torch.tensor(rows, dtype=torch.int64).reshape(-1, 2)
    return [Pairs(table[:, 0], table[:, 1])]


class TestUnion:
    def test_a_true_box_may_own_several_queries(self) -> None:
        (union,) = union_of_matches([pairs((3, 0)), pairs((7, 0))])
        assert sorted(union.queries.tolist()) == [3, 7]
        assert union.targets.tolist() == [0, 0]

    def test_a_query_keeps_the_box_that_most_heads_gave_it(self) -> None:
        (union,) = union_of_matches([pairs((3, 1), (2, 0)), pairs((3, 0), (2, 1)), pairs((3, 1), (4, 0))])
        assert dict(zip(union.queries.tolist(), union.targets.tolist(), strict=True)) == {3: 1, 2: 0, 4: 0}
        assert union.queries.tolist()[0] == 3

    def test_ties_do_not_depend_on_the_order_of_heads(self) -> None:
        heads = [pairs((1, 2), (0, 1)), pairs((1, 0), (0, 1)), pairs((1, 1), (5, 0))]
        unions = [union_of_matches(order)[0] for order in itertools.permutations(heads)]
        rows = {tuple(torch.stack(union).flatten().tolist()) for union in unions}
        assert rows == {(0, 1, 5, 1, 0, 0)}

    def test_nothing_matched(self) -> None:
        (union,) = union_of_matches([pairs(), pairs()])
        assert len(union.queries) == 0
        assert union.queries.dtype == torch.int64
