"""Probes inside a run: trained on one part, asked about the other."""

from __future__ import annotations

import pytest
import torch

from limbeck_audiovideo.evaluation.split_probes import SplitProbes
from limbeck_core.errors import DataError, ShapeError


def clusters(count: int, *, flip: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    targets = torch.arange(count) % 3
    embeddings = torch.eye(3)[targets] + 0.05 * torch.randn(count, 3)
    return embeddings, (targets + 1) % 3 if flip else targets


def test_the_test_part_is_judged_by_the_train_part() -> None:
    metric = SplitProbes(neighbours=5)
    train, known = clusters(30)
    test, truth = clusters(12)
    metric.process({"targets": {"a": known, "b": known % 2}, "split": ["TRAIN"] * 30}, train)
    metric.process({"targets": {"a": (truth + 1) % 3, "b": truth % 2}, "split": ["TEST"] * 12}, test)
    found = metric.evaluate(size=42)
    assert found["a/knn"] == found["a/linear"] == 0, "the truth of the test part is not what the probes learnt"
    assert found["b/knn"] == found["b/linear"] == found["b/knn_f1"] == found["b/linear_balanced"] == 100
    assert metric.per_sample["b/knn"] == [100.0] * 12


def test_one_task_needs_no_name() -> None:
    metric = SplitProbes(train="a", test="b", neighbours=5)
    embeddings, targets = clusters(30)
    metric.process({"targets": targets, "split": ["a"] * 15 + ["b"] * 10 + ["neither"] * 5}, embeddings)
    assert metric.evaluate(size=30)["knn"] == 100
    assert len(metric.per_sample["knn"]) == 10


def test_what_is_missing() -> None:
    metric = SplitProbes()
    embeddings, targets = clusters(6)
    with pytest.raises(DataError, match="probes need 'split'"):
        metric.process({"targets": targets}, embeddings)
    with pytest.raises(ShapeError, match="pool over time"):
        metric.process({"targets": targets, "split": ["TRAIN"] * 6}, embeddings[:, :, None])
    metric.process({"targets": targets, "split": ["TRAIN"] * 6}, embeddings)
    with pytest.raises(DataError, match="no sample of the evaluation data is of the part 'TEST'; there are: TRAIN"):
        metric.evaluate(size=6)
