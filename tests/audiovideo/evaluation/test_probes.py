"""Nearest neighbours, the linear probe and retrieval: against scikit-learn, by hand, and on bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from limbeck_audiovideo.evaluation.probes import linear_probe, nearest_neighbours, retrieval_recall
from limbeck_core.errors import NonFiniteError, ShapeError, TargetError


def blobs(samples: int = 60, classes: int = 3, width: int = 8, spread: float = 0.3, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    targets = torch.arange(samples) % classes
    return centres[targets] + spread * torch.randn(samples, width, generator=generator), targets


class TestNearestNeighbours:
    def test_equals_the_weighted_votes_of_scikit_learn(self) -> None:
        train, targets = blobs(spread=1.5)
        test, _ = blobs(20, spread=1.5, seed=1)
        votes = nearest_neighbours(train, targets, test, neighbours=7, temperature=0.1)
        other = KNeighborsClassifier(7, metric="cosine", weights=lambda distance: np.exp(-distance / 0.1))
        expected = other.fit(train.double().numpy(), targets.numpy()).predict_proba(test.double().numpy())
        np.testing.assert_allclose(votes.numpy(), expected, rtol=1e-9, atol=1e-12)

    def test_several_labels_share_the_votes(self) -> None:
        train = torch.eye(3)
        targets = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]])
        votes = nearest_neighbours(train, targets, torch.tensor([[2.0, 0.0, 0.0]]), neighbours=1)
        assert votes.tolist() == [[1.0, 1.0, 0.0]]

    def test_a_high_temperature_counts_heads(self) -> None:
        train, targets = blobs(9)
        votes = nearest_neighbours(train, targets, train[:1], neighbours=100, temperature=1e9)
        torch.testing.assert_close(votes, torch.full((1, 3), 1 / 3, dtype=torch.float64))

    def test_no_test_sample_is_no_row(self) -> None:
        train, targets = blobs(9)
        assert nearest_neighbours(train, targets, train[:0]).shape == (0, 3)


class TestLinearProbe:
    def test_tells_blobs_apart_and_noise_not(self) -> None:
        train, targets = blobs()
        test, truth = blobs(seed=1)
        probed = linear_probe(train, targets, test)
        assert (probed.probabilities.argmax(1) == truth).all()
        torch.testing.assert_close(probed.probabilities.sum(1), torch.ones(60, dtype=torch.float64))
        blind = linear_probe(torch.randn(60, 8, generator=torch.Generator().manual_seed(3)), targets, test)
        assert (blind.probabilities.argmax(1) == truth).double().mean() < 0.8

    def test_the_scale_of_features_does_not_matter(self) -> None:
        train, targets = blobs(spread=1.0)
        scale = torch.logspace(-3, 3, 8)
        plain = linear_probe(train, targets, train, strengths=(1.0,)).probabilities
        scaled = linear_probe(train * scale, targets, train * scale, strengths=(1.0,)).probabilities
        torch.testing.assert_close(plain, scaled, rtol=1e-3, atol=1e-3)

    def test_a_class_without_a_sample_has_no_probability(self) -> None:
        train, targets = blobs()
        probed = linear_probe(train, torch.where(targets == 2, 4, targets), train, classes=6)
        assert probed.probabilities.shape == (60, 6)
        assert (probed.probabilities[:, [2, 3, 5]] == 0).all()

    def test_few_labels_take_the_strength_nearest_to_one(self) -> None:
        train, targets = blobs(6)
        assert linear_probe(train, targets, train, strengths=(0.01, 2.0, 100.0)).strength == 2.0

    def test_several_labels(self) -> None:
        train, targets = blobs(spread=0.1)
        many = torch.stack([targets == 0, targets != 1, torch.zeros(60, dtype=torch.bool)], 1).long()
        found = linear_probe(train, many, train).probabilities
        assert ((found > 0.5) == many.bool()).all()

    def test_the_test_samples_choose_nothing(self) -> None:
        train, targets = blobs(spread=2.0)
        test, _ = blobs(30, spread=2.0, seed=1)
        together = linear_probe(train, targets, test)
        alone = linear_probe(train, targets, test[:1])
        assert together.strength == alone.strength
        torch.testing.assert_close(together.probabilities[:1], alone.probabilities)


class TestRetrieval:
    def test_by_hand(self) -> None:
        gallery = torch.eye(4)
        queries = torch.tensor([[1.0, 0, 0, 0], [0.9, 1.0, 0, 0], [1.0, 0, 0.9, 0], [3.0, 2.0, 1.0, 0.5]])
        found = retrieval_recall(queries, gallery, at=(1, 2, 4))
        assert found == {"recall@1": 50.0, "recall@2": 75.0, "recall@4": 100.0, "median_rank": 1.5}

    def test_features_that_are_all_alike_retrieve_nothing(self) -> None:
        same = torch.ones(10, 3)
        assert retrieval_recall(same, same, at=(1, 9))["recall@9"] == 0.0

    def test_relevant_entries_of_a_label(self) -> None:
        gallery, labels = blobs(30)
        queries, asked = blobs(12, seed=1)
        relevant = asked[:, None] == labels[None, :]
        assert retrieval_recall(queries, gallery, relevant=relevant)["recall@1"] == 100.0
        relevant[0] = False  # a query without a right entry is left out
        assert retrieval_recall(queries, gallery, relevant=relevant)["recall@1"] == 100.0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(train=torch.ones(4, 2, 3)), ShapeError, "pool over time and space first"),
        (dict(train=torch.ones(4, 2), test=torch.ones(4, 3)), ShapeError, "2 features a sample and test 3"),
        (dict(train=torch.full((4, 2), torch.nan)), NonFiniteError, "train"),
        (dict(targets=torch.arange(3)), TargetError, r"\(4,\) or zeros and ones"),
        (dict(targets=torch.tensor([0, 1, 2, 9]), classes=3), TargetError, r"lie in \[0, 2\], got 0 to 9"),
        (dict(targets=torch.tensor([0.0, 1.0, 0.0, 1.0])), TargetError, "whole numbers"),
        (dict(targets=torch.full((4, 2), 2)), TargetError, "zeros and ones"),
        (dict(train=torch.ones(0, 2), targets=torch.ones(0, dtype=torch.long)), ShapeError, "no sample"),
    ],
)
@pytest.mark.parametrize("probe", [nearest_neighbours, linear_probe])
def test_bad_input_is_named(probe, change, error, message) -> None:
    given = dict(train=torch.randn(4, 2), targets=torch.tensor([0, 1, 0, 1]), test=torch.randn(2, 2)) | change
    classes = given.pop("classes", None)
    with pytest.raises(error, match=message):
        probe(*given.values(), classes=classes)


def test_other_bad_input_is_named() -> None:
    rows = torch.randn(4, 2)
    with pytest.raises(TargetError, match="all 4 training samples are of class"):
        linear_probe(rows, torch.zeros(4, dtype=torch.long), rows)
    with pytest.raises(ValueError, match="neighbours must be 1 or more"):
        nearest_neighbours(rows, torch.arange(4), rows, neighbours=0)
    with pytest.raises(ShapeError, match="4 queries and 3"):
        retrieval_recall(rows, rows[:3])
    with pytest.raises(ShapeError, match="none of the 4 queries"):
        retrieval_recall(rows, rows, relevant=torch.zeros(4, 4, dtype=torch.bool))
