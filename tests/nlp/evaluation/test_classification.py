"""Measures of predicted classes, by names or numbers, and what cannot be judged."""

from __future__ import annotations

import pytest
import torch

from limbeck_core.errors import DataError, ShapeError
from limbeck_nlp.evaluation import TextClassificationMetric
from limbeck_nlp.evaluation.classification import evaluate


def test_names_and_numbers_are_judged_alike() -> None:
    by_name = evaluate(["yes", "no", "no", "no"], ["yes", "yes", "no", "no"])
    assert by_name == evaluate([1, 0, 0, 0], [1, 1, 0, 0])
    assert by_name["accuracy"] == 75.0
    assert by_name["f1"] == pytest.approx(100 * (2 / 3 + 4 / 5) / 2)
    assert by_name["matthews"] == pytest.approx(100 / 3**0.5)


def test_the_metric_of_a_run_gives_the_same() -> None:
    metric = TextClassificationMetric()
    metric.process({"targets": torch.tensor([1, 1, 0, 0])}, torch.eye(2)[[1, 0, 0, 0]])
    found = metric.evaluate(4)
    assert {name: found[name] for name in ("accuracy", "f1", "matthews")} == evaluate([1, 0, 0, 0], [1, 1, 0, 0])
    assert metric.per_sample == {"accuracy": [100.0, 0.0, 100.0, 100.0]}


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ShapeError, match="rows of one length"):
        evaluate([1, 2], [1])
    with pytest.raises(DataError, match="nothing to judge"):
        evaluate([], [])
