"""AUROC, AUPR and FPR95 against scikit-learn and against their definitions; files and pictures of scores."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score, roc_curve

from limbeck_core.errors import DataError, ShapeError
from limbeck_nlp.evaluation import OodMetric
from limbeck_nlp.evaluation.ood import draw_roc, draw_scores, evaluate, false_alarms, read_scores, write_scores


def scores_of(seed: int, ties: bool) -> tuple[Any, Any]:
    draw = np.random.RandomState(seed)
    outliers = draw.rand(203) < 0.4
    scores = draw.randn(203) + outliers
    return (scores.round(1) if ties else scores), outliers


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [False, True])
def test_the_measures_are_scikit_learns(seed: int, ties: bool) -> None:
    scores, outliers = scores_of(seed, ties)
    found = evaluate(scores, outliers)
    precision, recall, _ = precision_recall_curve(outliers, scores)
    alarms, hits, _ = roc_curve(outliers, scores, drop_intermediate=False)
    assert found["auroc"] == pytest.approx(100 * roc_auc_score(outliers, scores))
    assert found["aupr"] == pytest.approx(100 * auc(recall, precision))
    assert found["fpr95"] == pytest.approx(100 * alarms[hits >= 0.95].min())


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_is_the_chance_that_an_outlier_scores_higher(ties: bool) -> None:
    scores, outliers = scores_of(7, ties)
    gaps = scores[outliers][:, None] - scores[~outliers][None]
    chance = (gaps > 0).mean() + 0.5 * (gaps == 0).mean()
    assert evaluate(scores, outliers)["auroc"] == pytest.approx(100 * chance)


def test_the_threshold_leaves_one_in_twenty_outliers_below() -> None:
    scores = [*range(20), *(x + 0.5 for x in range(20))]  # outliers 0 to 19: the threshold is 1
    outliers = [True] * 20 + [False] * 20
    assert false_alarms(scores, outliers) == pytest.approx(95.0)
    assert false_alarms(scores, outliers, found=1.0) == pytest.approx(100.0)
    assert false_alarms([3.0, 1.0, 4.0], [True, False, False]) == pytest.approx(50.0)  # fewer than 20: the least


def test_limits() -> None:
    outliers = [False, False, True, True]
    perfect = evaluate([0.0, 1.0, 2.0, math.inf], outliers)
    assert (perfect["auroc"], perfect["aupr"], perfect["fpr95"]) == (100.0, 100.0, 0.0)
    blind = evaluate([1.0] * 4, outliers)
    assert (blind["auroc"], blind["fpr95"]) == (50.0, 100.0)
    assert evaluate([math.inf, 1.0, math.inf, 2.0], outliers)["auroc"] == pytest.approx(62.5)


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(DataError, match="1 of 2 scores are NaN"):
        evaluate([math.nan, 1.0], [True, False])
    with pytest.raises(DataError, match="2 inside and 0 outside"):
        evaluate([1.0, 2.0], [False, False])
    with pytest.raises(ShapeError, match="rows of one length"):
        evaluate([1.0, 2.0], [True])


def test_the_metric_of_a_run_writes_its_scores(tmp_path: Path) -> None:
    metric = OodMetric(results=tmp_path / "deep" / "scores.jsonl")
    logits = torch.zeros(3, 2, 4)
    logits[0, 0, 1] = 9.0
    batch = {
        "targets": torch.tensor([[1, -100], [1, -100], [-100, -100]]),
        "outlier": torch.tensor([False, True, True]),
        "ids": torch.tensor([4, 5, 6]),
    }
    metric.process(batch, logits)
    found = metric.evaluate(3)
    scores, outliers = read_scores(tmp_path / "deep" / "scores.jsonl")
    assert found["auroc"] == 100.0
    assert found["nll"] == pytest.approx(scores[0])
    assert outliers.tolist() == [False, True, True]
    assert scores[1:].tolist() == [pytest.approx(math.log(4)), math.inf]
    with pytest.raises(DataError, match="needs 'outlier' in the batch"):
        metric.process({"targets": batch["targets"]}, logits)


def test_files_of_scores(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    write_scores(path, [0.5, math.inf], [False, True])
    scores, outliers = read_scores(path)
    assert scores.tolist() == [0.5, math.inf]
    assert outliers.tolist() == [False, True]
    for line, message in (('{"score": 1}', "line 1.*outlier"), ("[", "line 1"), ('{"score":1,"outlier":3}', "got 3")):
        path.write_text(line, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read_scores(path)
    with pytest.raises(DataError, match="there is no file"):
        read_scores(tmp_path / "other.jsonl")


def test_pictures_show_both_kinds_and_every_run() -> None:
    scores, outliers = scores_of(0, False)
    scores[0] = math.inf
    histogram = draw_scores(scores, outliers).axes[0]
    assert [text.get_text() for text in histogram.get_legend().get_texts()] == [
        f"inside ({(~outliers).sum()})",
        f"outliers ({outliers.sum()})",
    ]
    curves = draw_roc({"a": (scores, outliers), "b": (-scores, outliers)}).axes[0]
    assert len(curves.get_lines()) == 3
    assert curves.get_lines()[0].get_xydata()[-1].tolist() == [100.0, 100.0]
