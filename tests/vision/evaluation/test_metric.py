"""The evaluator of a run: same numbers as one evaluation of everything, whatever the batches."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator

from limbeck_core.errors import DataError, ShapeError
from limbeck_vision import evaluation
from limbeck_vision.evaluation import ClassificationMetric, evaluate

LOGITS = torch.randn(30, 7, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randint(0, 7, (30,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("as_list", [False, True])
def test_batches_add_up(as_list: bool) -> None:
    metric = ClassificationMetric(train_counts=[200, 200, 200, 50, 50, 50, 50])
    for part in torch.arange(30).split(8):
        logits = list(LOGITS[part]) if as_list else LOGITS[part]
        metric.process({"inputs": None, "targets": TARGETS[part]}, logits)
    got = metric.evaluate(size=30)
    expected = evaluate({"logits": LOGITS, "targets": TARGETS}, train_counts=[200] * 3 + [50] * 4)
    assert set(got) == {"top1", "top5", "nll", "ece", "aurc", "eaurc", "many", "medium"}
    for name, value in got.items():
        assert value == pytest.approx(expected[name]), name
        assert isinstance(value, float)


def test_in_mmengines_evaluator_with_a_config() -> None:
    evaluator = Evaluator({"type": ClassificationMetric})
    for part in torch.arange(30).split(7):
        evaluator.process(data_samples=LOGITS[part].half(), data_batch={"targets": TARGETS[part]})
    got = evaluator.evaluate(30)
    assert got["top1"] == pytest.approx(evaluate({"logits": LOGITS, "targets": TARGETS})["top1"])
    assert evaluator.metrics[0].results == []


def test_samples_repeated_to_fill_up_ranks_are_dropped() -> None:
    metric = ClassificationMetric()
    order = torch.cat([torch.arange(30), torch.arange(5)])
    metric.process({"targets": TARGETS[order]}, LOGITS[order])
    expected = evaluate({"logits": LOGITS, "targets": TARGETS})
    assert metric.evaluate(size=30)["nll"] == pytest.approx(expected["nll"])


def test_prefix_and_silence(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ClassificationMetric()
    assert not caplog.records
    metric = ClassificationMetric(prefix="teacher", bins=5)
    metric.process({"targets": TARGETS}, LOGITS)
    got = metric.evaluate(size=30)
    assert got["teacher/ece"] == pytest.approx(evaluate({"logits": LOGITS, "targets": TARGETS}, bins=5)["ece"])


def test_one_sample_carries_its_own_bytes_only() -> None:
    """Ranks exchange samples one by one; a row must not drag its whole batch along."""
    import pickle

    metric = ClassificationMetric()
    metric.process({"targets": torch.zeros(2000, dtype=torch.long)}, torch.zeros(2000, 10))
    assert len(pickle.dumps(metric.results[0])) < 1000


def test_wrong_batches_are_named() -> None:
    with pytest.raises(DataError, match="evaluation needs 'targets' in the batch, it has inputs"):
        ClassificationMetric().process({"inputs": LOGITS}, LOGITS)
    with pytest.raises(ShapeError, match=r"logits of shape \(30, C\), .* got \(4, 7\)"):
        ClassificationMetric().process({"targets": TARGETS}, LOGITS[:4])
    with pytest.raises(ShapeError, match=r"got \(30,\)"):
        ClassificationMetric().process({"targets": TARGETS}, LOGITS[:, 0])


def test_face_is_complete_and_brings_no_mmengine() -> None:
    assert all(hasattr(evaluation, name) for name in evaluation.__all__)
    with pytest.raises(AttributeError, match="did you mean 'ClassificationMetric'"):
        evaluation.ClassificationMetrik
    code = "import sys, limbeck_vision.evaluation; sys.exit('mmengine' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_double_precision_is_kept() -> None:
    metric = ClassificationMetric()
    metric.process({"targets": TARGETS}, LOGITS.double())
    assert metric.results[0][0].dtype == np.float64
