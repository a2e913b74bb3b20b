"""Probes of frozen features: votes by hand, the linear one against scikit-learn, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from limbeck_core.errors import NonFiniteError, ShapeError, TargetError
from limbeck_core.probes import linear_probe, nearest_neighbours, retrieval_recall
from loss_contract import randn


def clouds(count: int, seed: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Overlapping clouds of features, sample by sample of another class."""
    targets = torch.arange(count) % classes
    centres = 1.5 * randn(classes, 6, seed=100)
    return centres[targets] + randn(count, 6, seed=seed), targets


def test_votes_by_hand() -> None:
    train = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    asked = torch.tensor([[3.0, 4.0]])  # cosines 0.6, 0.8, -0.6
    found = nearest_neighbours(train, torch.tensor([0, 1, 1]), asked, neighbours=2, temperature=0.5)
    share = math.exp(0.6 / 0.5) / (math.exp(0.6 / 0.5) + math.exp(0.8 / 0.5))
    torch.testing.assert_close(found, torch.tensor([[share, 1 - share]], dtype=torch.float64))
    several = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1]])
    found = nearest_neighbours(train, several, asked, neighbours=2, temperature=0.5)
    torch.testing.assert_close(found, torch.tensor([[1.0, 1 - share, 0.0]], dtype=torch.float64))


def test_more_neighbours_than_samples_and_no_test_samples() -> None:
    train, targets = clouds(9, seed=1)
    torch.testing.assert_close(nearest_neighbours(train, targets, train, neighbours=99).sum(1), torch.ones(9).double())
    assert nearest_neighbours(train, targets, train[:0], classes=5).shape == (0, 5)


@pytest.mark.parametrize("strength", [0.1, 10.0])
def test_the_linear_probe_is_scikit_learns_logistic_regression(strength: float) -> None:
    (train, targets), (test, _) = clouds(60, seed=1), clouds(20, seed=2)
    found = linear_probe(train, targets, test, strengths=(strength,))
    scaler = StandardScaler().fit(train.numpy())
    model = LogisticRegression(C=strength, tol=1e-9, max_iter=5000).fit(scaler.transform(train.numpy()), targets)
    expected = torch.from_numpy(model.predict_proba(scaler.transform(test.numpy())))
    torch.testing.assert_close(found.probabilities, expected, rtol=0, atol=1e-4)
    assert found.strength == strength


def test_several_labels_are_as_many_problems() -> None:
    (train, targets), (test, _) = clouds(60, seed=1), clouds(20, seed=2)
    rows = torch.nn.functional.one_hot(targets)
    found = linear_probe(train, rows, test, strengths=(1.0,)).probabilities
    scaler = StandardScaler().fit(train.numpy())
    for label in range(3):
        model = LogisticRegression(C=1.0, tol=1e-9, max_iter=5000).fit(scaler.transform(train.numpy()), rows[:, label])
        expected = torch.from_numpy(model.predict_proba(scaler.transform(test.numpy()))[:, 1])
        torch.testing.assert_close(found[:, label], expected, rtol=0, atol=1e-4)


def test_the_penalty_is_chosen_on_training_samples() -> None:
    """Noise asks for a strong penalty, whatever the test samples look like."""
    train, targets = randn(60, 30, seed=1), torch.arange(60) % 2
    first = linear_probe(train, targets, randn(4, 30, seed=2))
    second = linear_probe(train, targets, 100 * randn(7, 30, seed=3))
    assert first.strength == second.strength == 0.01
    assert linear_probe(train[:8], targets[:8], train).strength == 1.0  # too few to hold any out


def test_a_class_without_samples_and_a_constant_feature() -> None:
    train, targets = clouds(30, seed=1)
    train[:, 0] = 7.0
    found = linear_probe(train, targets * 2, train, classes=6).probabilities
    assert found.shape == (30, 6)
    assert float(found[:, [1, 3, 5]].sum()) == 0.0
    assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"train": randn(4, 2, 3)}, ShapeError, "train must be floating-point features .samples, width., got"),
        ({"test": randn(4, 2)}, ShapeError, "train has 3 features a sample and test 2"),
        ({"train": randn(0, 3), "targets": torch.zeros(0).long()}, ShapeError, "train holds no sample"),
        (
            {"targets": torch.zeros(3).long()},
            TargetError,
            r"indices \(4,\) or zeros and ones \(4, C\), got \(3,\)",
        ),
        ({"targets": torch.tensor([0, 1, 2, -1])}, TargetError, "must lie in 0 to 2, got -1 to 2"),
        ({"targets": torch.zeros(4)}, TargetError, "class indices must be whole numbers, got torch.float32"),
        ({"targets": torch.full((4, 2), 2)}, TargetError, "must be zeros and ones"),
        ({"targets": torch.zeros(4, 2).long(), "classes": 3}, TargetError, "targets have 2 columns for 3 classes"),
        ({"train": torch.full((4, 3), math.nan)}, NonFiniteError, "train of shape .4, 3. holds NaN"),
    ],
)
def test_what_does_not_fit(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"train": randn(4, 3), "targets": torch.tensor([0, 1, 0, 1]), "test": randn(2, 3)}
    for probe in (nearest_neighbours, linear_probe):
        with pytest.raises(error, match=message):
            probe(**{**arguments, **change})


def test_wrong_options() -> None:
    train, targets = clouds(6, seed=1)
    with pytest.raises(ValueError, match="neighbours must be 1 or more, got 0"):
        nearest_neighbours(train, targets, train, neighbours=0)
    with pytest.raises(ValueError, match="temperature must be a finite number above 0"):
        nearest_neighbours(train, targets, train, temperature=0.0)
    with pytest.raises(ValueError, match="strengths must be numbers above 0, one or more, got"):
        linear_probe(train, targets, train, strengths=())
    with pytest.raises(TargetError, match="all 6 training samples are of class .1."):
        linear_probe(train, torch.ones(6).long(), train)


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
        gallery, labels = clouds(30, 0)
        queries, asked = clouds(12, 1)
        relevant = asked[:, None] == labels[None, :]
        assert retrieval_recall(queries, gallery, relevant=relevant)["recall@1"] > 50.0  # by chance a third
        relevant[1:] = False  # queries without a right entry are left out
        assert retrieval_recall(queries, gallery, relevant=relevant)["recall@10"] == 100.0

    def test_what_does_not_fit(self) -> None:
        rows = randn(4, 2, seed=0)
        with pytest.raises(ShapeError, match="4 queries and 3"):
            retrieval_recall(rows, rows[:3])
        with pytest.raises(ShapeError, match="relevant must have the shape"):
            retrieval_recall(rows, rows, relevant=torch.zeros(3, 4, dtype=torch.bool))
        with pytest.raises(ShapeError, match="none of the 4 queries"):
            retrieval_recall(rows, rows, relevant=torch.zeros(4, 4, dtype=torch.bool))
        with pytest.raises(NonFiniteError, match="gallery"):
            retrieval_recall(rows, rows * float("nan"))
        with pytest.raises(ValueError, match="numbers of 1 or more"):
            retrieval_recall(rows, rows, at=(0,))


def test_the_scale_of_features_does_not_matter_to_the_linear_probe() -> None:
    (train, targets), scale = clouds(60, 1), torch.logspace(-3, 3, 6)
    plain = linear_probe(train, targets, train, strengths=(1.0,)).probabilities
    torch.testing.assert_close(
        linear_probe(train * scale, targets, train * scale, strengths=(1.0,)).probabilities, plain
    )
