"""Measures against hand calculations, scikit-learn, and loops written from the definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss, top_k_accuracy_score

from limbeck_core.errors import LimbeckError, NonFiniteError, ShapeError, TargetError
from limbeck_vision.evaluation import (
    Predictions,
    area_under_risk_coverage,
    excess_area_under_risk_coverage,
    expected_calibration_error,
    negative_log_likelihood,
    per_class,
    reliability,
    risk_coverage,
    shot_accuracy,
    top_k_accuracy,
)


def two_classes(confidences: list[float], correct: list[bool]) -> Predictions:
    """Class 0 is always predicted, with these confidences, and is the label where the prediction is correct."""
    first = np.array(confidences)
    return Predictions.from_probabilities(np.stack([first, 1 - first], 1), [0 if right else 1 for right in correct])


def drawn(samples: int = 400, classes: int = 12) -> Predictions:
    draw = np.random.RandomState(0)
    targets = draw.randint(0, classes, samples)
    logits = draw.standard_normal((samples, classes)) * 2
    logits[np.arange(samples), targets] += 1.5
    return Predictions.from_logits(logits, targets)


class TestCalibration:
    def test_by_hand(self) -> None:
        """Gaps 0.45 (twice), 0.35 and 0.55 over four samples."""
        predictions = two_classes([0.95, 0.95, 0.65, 0.55], [True, False, True, False])
        assert expected_calibration_error(predictions) == pytest.approx(100 * (2 * 0.45 + 0.35 + 0.55) / 4)

    def test_perfect_calibration_is_zero(self) -> None:
        predictions = two_classes([0.75] * 4, [True, True, True, False])
        assert expected_calibration_error(predictions) == pytest.approx(0, abs=1e-12)

    def test_bins_are_open_below_and_closed_above(self) -> None:
        """0.75 and 0.5 are exact in binary: each lies in the bin that it closes."""
        diagram = reliability(two_classes([0.75, 0.75, 0.5, 0.8], [True] * 4), bins=4)
        assert diagram.edges == [0, 0.25, 0.5, 0.75, 1]
        assert diagram.samples == [0, 1, 2, 1]
        assert diagram.confidence == [None, pytest.approx(0.5), pytest.approx(0.75), pytest.approx(0.8)]
        assert diagram.accuracy == [None, 1, 1, 1]

    def test_against_scikit_learn(self) -> None:
        predictions = drawn()
        diagram = reliability(predictions, bins=10)
        accuracy, confidence = calibration_curve(predictions.correct, predictions.confidences, n_bins=10)
        np.testing.assert_allclose([a for a in diagram.accuracy if a is not None], accuracy)
        np.testing.assert_allclose([c for c in diagram.confidence if c is not None], confidence)

    def test_certainty(self) -> None:
        assert expected_calibration_error(two_classes([1.0, 1.0], [True, False])) == pytest.approx(50)

    def test_number_of_bins_is_checked(self) -> None:
        with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
            reliability(drawn(), bins=0)


class TestRanking:
    def test_by_hand(self) -> None:
        """Error rates 0, 1/2, 1/3, 2/4; the best order of two errors has 0, 0, 1/3, 2/4."""
        predictions = two_classes([0.8, 0.9, 0.6, 0.7], [False, True, False, True])
        assert risk_coverage(predictions).coverage == [0.25, 0.5, 0.75, 1.0]
        assert risk_coverage(predictions).risk == pytest.approx([0, 1 / 2, 1 / 3, 2 / 4])
        assert area_under_risk_coverage(predictions) == pytest.approx(1000 * (1 / 2 + 1 / 3 + 1 / 2) / 4)
        assert excess_area_under_risk_coverage(predictions) == pytest.approx(1000 * (1 / 2) / 4)

    def test_best_order_has_no_excess(self) -> None:
        predictions = two_classes([0.9, 0.8, 0.7, 0.6], [True, True, False, False])
        assert excess_area_under_risk_coverage(predictions) == pytest.approx(0, abs=1e-9)

    def test_without_errors(self) -> None:
        predictions = two_classes([0.9, 0.8], [True, True])
        assert area_under_risk_coverage(predictions) == excess_area_under_risk_coverage(predictions) == 0

    def test_equal_confidences_have_no_order(self) -> None:
        first = two_classes([0.75, 0.75, 0.75, 0.6], [True, False, False, True])
        second = two_classes([0.75, 0.75, 0.75, 0.6], [False, False, True, True])
        assert risk_coverage(first).risk == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1 / 2])
        assert risk_coverage(first) == risk_coverage(second)

    def test_against_a_loop(self) -> None:
        predictions = drawn()
        order = sorted(range(len(predictions)), key=lambda i: -predictions.confidences[i])
        wrong, risks = 0, []
        for count, index in enumerate(order, start=1):
            wrong += int(predictions.labels[index] != predictions.targets[index])
            risks.append(wrong / count)
        best = sum(j / (len(order) - wrong + j) for j in range(1, wrong + 1)) / len(order)
        assert area_under_risk_coverage(predictions) == pytest.approx(1000 * np.mean(risks))
        assert excess_area_under_risk_coverage(predictions) == pytest.approx(1000 * (np.mean(risks) - best))

    def test_thinned_curve_keeps_both_ends(self) -> None:
        whole, thin = risk_coverage(drawn()), risk_coverage(drawn(), points=7)
        assert len(thin.risk) == 7
        assert (thin.coverage[0], thin.coverage[-1]) == (1 / 400, 1.0)
        assert (thin.risk[0], thin.risk[-1]) == (whole.risk[0], whole.risk[-1])
        with pytest.raises(ValueError, match="points must be at least 2, got 1"):
            risk_coverage(drawn(), points=1)


class TestAccuracy:
    @pytest.mark.parametrize("k", [1, 3, 5, 11])
    def test_top_k_against_scikit_learn(self, k: int) -> None:
        predictions = drawn()
        expected = top_k_accuracy_score(predictions.targets, predictions.log_probabilities, k=k, labels=range(12))
        assert top_k_accuracy(predictions, k) == pytest.approx(100 * expected)

    def test_equal_scores_rank_by_class(self) -> None:
        """A model without opinion names class 0, and its confidence and accuracy agree on that."""
        predictions = Predictions.from_logits(np.zeros((3, 3)), [0, 1, 2])
        assert [top_k_accuracy(predictions, k) for k in (1, 2, 3)] == pytest.approx([100 / 3, 200 / 3, 100])
        assert top_k_accuracy(predictions) == pytest.approx(100 * predictions.correct.mean())

    def test_k_is_checked(self) -> None:
        with pytest.raises(ValueError, match="k must lie between 1 and 12, the number of classes, got 13"):
            top_k_accuracy(drawn(), 13)

    def test_likelihood_against_scikit_learn_and_torch(self) -> None:
        predictions = drawn()
        probabilities = np.exp(predictions.log_probabilities)
        expected = log_loss(predictions.targets, probabilities, labels=range(12))
        assert negative_log_likelihood(predictions) == pytest.approx(expected)
        again = Predictions.from_probabilities(probabilities, predictions.targets)
        assert negative_log_likelihood(again) == pytest.approx(expected)

    def test_likelihood_of_large_logits_and_of_the_impossible(self) -> None:
        assert negative_log_likelihood(Predictions.from_logits([[1000.0, 0.0]], [1])) == pytest.approx(1000)
        assert negative_log_likelihood(Predictions.from_probabilities([[1.0, 0.0]], [1])) == float("inf")
        assert top_k_accuracy(Predictions.from_logits([[0.0, -np.inf, 1.0]], [2])) == 100

    def test_shots_by_hand(self) -> None:
        """Classes with 200, 100, 20, 19 and 1 images; class means, not sample means."""
        targets = np.array([0, 0, 1, 2, 2, 3])
        guesses = np.array([0, 1, 1, 2, 0, 4])
        predictions = Predictions.from_logits(np.eye(5)[guesses], targets)
        shots = shot_accuracy(predictions, [200, 100, 20, 19, 1])
        assert shots == {"many": 50.0, "medium": 75.0, "few": 0.0}
        assert shot_accuracy(predictions, [200] * 5)["few"] is None
        with pytest.raises(ShapeError, match=r"train_counts must have shape \(5,\), got \(4,\)"):
            shot_accuracy(predictions, [1, 2, 3, 4])

    def test_per_class_by_hand(self) -> None:
        guesses, targets = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
        rows = per_class(Predictions.from_logits(np.eye(4)[guesses], targets), ["a", "b", "c", "d"])
        assert rows[0] == {
            "name": "a",
            "samples": 1,
            "predicted": 2,
            "accuracy": 100,
            "precision": 50,
            "f1": pytest.approx(200 / 3),
        }
        assert rows[1]["accuracy"] == pytest.approx(200 / 3)
        assert (rows[2]["accuracy"], rows[2]["precision"], rows[2]["samples"]) == (None, None, 0)
        assert per_class(drawn())[11]["name"] == "11"
        with pytest.raises(ShapeError, match="names must be 12, one for each class, got 2"):
            per_class(drawn(), ["a", "b"])


class TestInput:
    def test_tensors_arrays_and_lists_are_alike(self) -> None:
        logits, targets = np.random.RandomState(0).standard_normal((5, 3)), [0, 1, 2, 0, 1]
        expected = negative_log_likelihood(Predictions.from_logits(logits, targets))
        for scores in (torch.tensor(logits, requires_grad=True), logits.tolist()):
            given = Predictions.from_logits(scores, torch.tensor(targets))
            assert negative_log_likelihood(given) == pytest.approx(expected)
        half = Predictions.from_logits(torch.tensor(logits).bfloat16(), targets)
        assert negative_log_likelihood(half) == pytest.approx(expected, rel=0.02)

    @pytest.mark.parametrize(
        ("logits", "targets", "error", "message"),
        [
            (
                [0.1, 0.2],
                [0, 1],
                ShapeError,
                r"logits must have shape \(N, C\) .* got \(2,\): give a binary problem two",
            ),
            ([[0.1], [0.2]], [0, 0], ShapeError, "at least one sample and two classes"),
            (np.zeros((0, 3)), np.zeros(0, int), ShapeError, r"at least one sample .* got \(0, 3\)"),
            (
                np.zeros((2, 3)),
                [0],
                ShapeError,
                r"targets must have shape \(2,\) to fit logits of \(2, 3\), got \(1,\)",
            ),
            (np.zeros((2, 3)), [0.0, 1.0], TargetError, "targets must be integer labels, got float64"),
            (np.zeros((2, 3)), [0, 3], TargetError, r"between 0 and 2 .* got 3 at position 1 \(1 are outside\)"),
            ([[0, np.nan], [0, 1]], [0, 1], NonFiniteError, r"logits hold NaN, .* in 1 of 2 rows \(first: row 0\)"),
            ([[0, 1], [0, np.inf]], [0, 1], NonFiniteError, r"first: row 1"),
            ([[-np.inf, -np.inf]], [0], NonFiniteError, "-infinity for every class"),
        ],
    )
    def test_logits_are_checked(self, logits: object, targets: object, error: type, message: str) -> None:
        with pytest.raises(error, match=message) as caught:
            Predictions.from_logits(logits, targets)
        assert isinstance(caught.value, LimbeckError)

    @pytest.mark.parametrize("row", [[2.0, 1.0], [0.5, 0.4], [1.2, -0.2]])
    def test_probabilities_are_checked(self, row: list[float]) -> None:
        with pytest.raises(ValueError, match=r"row 1 sums to .*pass raw scores as logits instead"):
            Predictions.from_probabilities([[0.5, 0.5], row], [0, 1])
        with pytest.raises(NonFiniteError, match="probabilities hold NaN or infinity"):
            Predictions.from_probabilities([[np.nan, 0.5]], [0])

    def test_half_precision_probabilities_pass(self) -> None:
        rounded = torch.rand(50, 20).softmax(1).half()
        predictions = Predictions.from_probabilities(rounded, torch.zeros(50, dtype=torch.long))
        np.testing.assert_allclose(np.exp(predictions.log_probabilities).sum(1), 1)
