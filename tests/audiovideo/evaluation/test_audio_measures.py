"""Measures of clips and events against their definitions and the library; pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from limbeck_audiovideo.audio import Event
from limbeck_audiovideo.evaluation.classification import classify, confusion, tag
from limbeck_audiovideo.evaluation.events import _area, event_f1, events_of, psds, segment_f1
from limbeck_audiovideo.evaluation.metric import ClipMetric, EventMetric
from limbeck_audiovideo.evaluation.pictures import draw_confusion, draw_spectrograms, draw_timeline
from limbeck_core.errors import DataError, NonFiniteError, ShapeError, TargetError

SCORES = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [2.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
TARGETS = torch.tensor([0, 1, 1, 2])


class TestClips:
    def test_one_label_by_hand(self) -> None:
        found = classify(SCORES, TARGETS, top=(1, 2, 5))
        expected = {"accuracy": 75.0, "top2": 100.0, "balanced_accuracy": 100 * (1 + 0.5 + 1) / 3}
        expected["macro_f1"] = 100 * (2 / 3 + 2 / 3 + 1) / 3
        assert found == pytest.approx(expected)
        assert confusion(SCORES, TARGETS).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]

    def test_several_labels_by_hand(self) -> None:
        scores = torch.tensor([[4.0, 0.0], [3.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
        targets = torch.tensor([[1, 0], [0, 0], [1, 0], [0, 0]])  # the second class has no clip
        found = tag(scores, targets)
        assert found["map"] == pytest.approx(100 * (1 + 2 / 3) / 2)
        assert found["auc"] == pytest.approx(75.0)
        assert found["d_prime"] == pytest.approx(math.sqrt(2) * 0.6744897)

    def test_what_does_not_fit_is_named(self) -> None:
        with pytest.raises(ShapeError, match="same clips"):
            classify(SCORES, TARGETS[:2])
        with pytest.raises(TargetError, match=r"\[0, 2\], got 0 to 3"):
            classify(SCORES, torch.tensor([0, 1, 2, 3]))
        with pytest.raises(TargetError, match="zeros and ones"):
            tag(SCORES, TARGETS)
        with pytest.raises(TargetError, match="no class has a clip"):
            tag(SCORES, torch.zeros(4, 3))
        with pytest.raises(NonFiniteError, match="scores"):
            classify(SCORES * torch.nan, TARGETS)

    def test_the_evaluator_takes_either(self) -> None:
        metric = ClipMetric()
        metric.process({"targets": TARGETS}, list(SCORES))
        assert metric.evaluate(4)["accuracy"] == 75.0
        assert metric.per_sample["accuracy"] == [100, 100, 0, 100]
        metric.process({"targets": torch.eye(3)[TARGETS]}, SCORES)
        assert "map" in metric.evaluate(4)
        with pytest.raises(DataError, match="'targets'"):
            metric.process({}, SCORES)


class TestEvents:
    def test_runs_above_the_threshold(self) -> None:
        scores = np.zeros((20, 2))
        scores[3:9, 0] = 0.8
        scores[15:, 1] = 0.6
        found = events_of(scores, ["a", "b"], median=1, hop=0.1, start=1.0)
        assert [(e.label, round(e.onset, 6), round(e.offset, 6)) for e in found] == [("a", 1.3, 1.9), ("b", 2.5, 3.0)]
        scores[12, 0] = 0.9  # a blink, which the median takes out
        assert len(events_of(scores, ["a", "b"], median=3)) == 2
        with pytest.raises(ValueError, match="odd"):
            events_of(scores, ["a", "b"], median=4)
        with pytest.raises(ShapeError, match="1 classes"):
            events_of(scores, ["a"])

    def test_segments_by_hand(self) -> None:
        truth = {"r": [Event(0.5, 2.0, "a")], "s": []}
        found = {"r": [Event(1.0, 2.5, "a"), Event(0.0, 0.5, "b")]}
        measures = segment_f1(found, truth, {"r": 4.0, "s": 4.0}, ["a", "b", "c"])
        assert measures["segment_f1_micro"] == pytest.approx(100 * 2 / (2 + 2 + 1))
        assert measures["segment_f1_macro"] == pytest.approx(100 * (0.5 + 0) / 2)

    def test_collars_by_hand(self) -> None:
        truth = {"r": [Event(1.0, 3.0, "a"), Event(4.0, 4.5, "a")]}
        near = {"r": [Event(1.2, 3.4, "a"), Event(4.0, 4.75, "a")]}  # the second offset is 0.25 late
        assert event_f1(near, truth, {"r": 5.0}, ["a"])["event_f1_micro"] == pytest.approx(50.0)

    def test_as_many_pairs_as_possible_fit(self) -> None:
        truth = {"r": [Event(1.0, 2.0, "a"), Event(1.3, 2.3, "a")]}
        found = {"r": [Event(1.15, 2.15, "a"), Event(0.85, 1.85, "a")]}  # a greedy matcher could waste the first
        assert event_f1(found, truth, {"r": 5.0}, ["a"])["event_f1_micro"] == 100.0

    def test_strangers_are_named(self) -> None:
        with pytest.raises(DataError, match="recording 'x'"):
            event_f1({"x": []}, {}, {"r": 1.0}, ["a"])
        with pytest.raises(DataError, match="class 'b'"):
            segment_f1({}, {"r": [Event(0, 1, "b")]}, {"r": 1.0}, ["a"])

    def test_psds_of_perfect_and_of_silent_scores(self) -> None:
        classes, durations = ["a", "b"], {"r": 4.0, "s": 4.0}
        truth = {"r": [Event(0.4, 2.0, "a")], "s": [Event(1.2, 3.2, "b")]}
        perfect = {name: np.full((100, 2), 0.02) for name in durations}
        perfect["r"][10:50, 0] = 0.97
        perfect["s"][30:80, 1] = 0.97
        found = psds(perfect, truth, durations, classes, thresholds=5)
        assert found == pytest.approx({"psds1": 100.0, "psds2": 100.0})
        silent = psds({name: np.zeros((100, 2)) for name in durations}, truth, durations, classes, thresholds=5)
        assert silent == {"psds1": 0.0, "psds2": 0.0}
        with pytest.raises(DataError, match="at least one true event"):
            psds(perfect, {"r": []}, durations, classes)

    def test_the_evaluator(self) -> None:
        strong = torch.zeros(1, 100, 2)
        strong[0, 20:60, 1] = 1
        batch = {
            "recording": ["r"],
            "targets": {"strong": strong, "strong_known": torch.tensor([True])},
            "inputs": {"length": torch.tensor([64000])},
        }
        metric = EventMetric(["a", "b"], thresholds=5)
        metric.process(batch, ((strong - 0.5) * 20, torch.zeros(1, 2)))
        found = metric.evaluate(1)
        assert found["segment_f1_macro"] == found["event_f1_macro"] == 100.0
        assert set(found) >= {"psds1", "psds2"}
        batch["targets"]["strong_known"][:] = False
        with pytest.raises(DataError, match="strong=..."):
            metric.process(batch, (strong, torch.zeros(1, 2)))


def test_pictures_are_written(tmp_path) -> None:
    paths = [
        draw_spectrograms({"one": torch.rand(1, 64, 50), "two": torch.rand(64, 50)}, tmp_path / "new" / "s.png"),
        draw_timeline([Event(0.1, 0.5, "a")], [Event(0.2, 0.6, "b")], ["a", "b"], tmp_path / "t.png", seconds=1.0),
        draw_timeline([], None, ["a"], tmp_path / "e.png", seconds=1.0),
        draw_confusion(np.array([[2, 1], [0, 0]]), ["a", "b"], tmp_path / "c.png"),
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    with pytest.raises(ShapeError, match="no spectrogram"):
        draw_spectrograms({}, tmp_path / "x.png")
    with pytest.raises(ShapeError, match="square"):
        draw_confusion(np.zeros((2, 3), int), ["a", "b"], tmp_path / "x.png")


def test_the_area_is_the_librarys() -> None:
    from psds_eval import PSDSEval

    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = np.sort(rng.random(6)), rng.random(6)
        assert _area(x, y, x[3]) == pytest.approx(PSDSEval._auc(x, y, x[3], True))
    assert _area(np.array([0.0, 1.0]), np.array([0.5, 1.0]), 3.0) == pytest.approx(2.5)  # the last step goes on
