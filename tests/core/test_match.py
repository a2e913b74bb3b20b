"""Matches: held against the loss's signature at construction, told by name when they fail."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck_core.errors import MatchError, ShapeError
from limbeck_core.losses import KLDivergenceLoss
from limbeck_core.match import Match
from limbeck_core.schedules import Linear, Progress
from limbeck_core.tap import Tap


class Weighted(nn.Module):
    def forward(self, student_x: Tensor, teacher_x: Tensor, *, scores: Tensor, target: Tensor | None = None) -> Tensor:
        offset = 0.0 if target is None else target.sum()
        return ((student_x - teacher_x).square().mean(1) * scores).mean() + offset


def run(match: Match, values: dict[str, Any], batch: dict[str, Any] | None = None) -> Tensor:
    batch = batch or {}
    return match(lambda tap: batch[tap.path] if tap.of == "batch" else values[f"{tap.of}:{tap.path}"], batch)


class TestSignature:
    def test_unknown_extra_offers_the_closest(self) -> None:
        with pytest.raises(MatchError, match="argument 'score', which Weighted does not take: did you mean 'scores'"):
            Match(Weighted(), "fc", "fc", extras={"score": "weights"})

    def test_required_argument_that_nothing_fills(self) -> None:
        with pytest.raises(MatchError, match="Weighted requires the argument 'scores', which nothing fills"):
            Match(Weighted(), "fc", "fc")

    def test_extras_come_from_the_batch(self) -> None:
        match = Match(Weighted(), "fc", "fc", extras={"scores": "weights"})
        values = {"student:fc": torch.ones(2, 3), "teacher:fc": torch.zeros(2, 3)}
        assert float(run(match, values, {"weights": torch.tensor([1.0, 3.0])})) == 2.0

    def test_target_is_filled_when_the_batch_has_it(self) -> None:
        match = Match(Weighted(), "fc", "fc", extras={"scores": "weights"})
        values = {"student:fc": torch.ones(2, 3), "teacher:fc": torch.zeros(2, 3)}
        batch = {"weights": torch.tensor([1.0, 3.0]), "targets": torch.tensor([10, 20])}
        assert float(run(match, values, batch)) == 32.0

    def test_mask_reaches_a_loss_that_takes_one(self) -> None:
        match = Match(KLDivergenceLoss(), "fc", "fc")
        student, teacher = torch.randn(2, 3), torch.randn(2, 3)
        values = {"student:fc": student, "teacher:fc": teacher}
        mask = torch.tensor([True, False])
        torch.testing.assert_close(run(match, values, {"mask": mask}), KLDivergenceLoss()(student[:1], teacher[:1]))

    def test_cross_entropy_against_the_batch(self) -> None:
        """The second argument of torch's loss is called target: it is the teacher's side, and filled once."""
        match = Match(nn.CrossEntropyLoss(), "aux", Tap("targets", of="batch"))
        logits, targets = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
        value = run(match, {"student:aux": logits}, {"targets": targets})
        torch.testing.assert_close(value, nn.functional.cross_entropy(logits, targets))

    def test_sequences_of_taps(self) -> None:
        class Levels(nn.Module):
            def forward(self, student_features: list[Tensor], teacher_features: list[Tensor]) -> Tensor:
                return sum(s.sum() for s in student_features) - sum(t.sum() for t in teacher_features)

        match = Match(Levels(), ["a", "b"], ["c"])
        values = {"student:a": torch.ones(1), "student:b": torch.ones(2), "teacher:c": torch.ones(5)}
        assert float(run(match, values)) == -2.0

    def test_config_form(self) -> None:
        config = dict(
            loss=dict(type=KLDivergenceLoss, temperature=2.0), student="fc", teacher=dict(type=Tap, path="head")
        )
        match = Match(**config, adapter=dict(type=nn.Linear, in_features=3, out_features=3))
        assert match.loss.temperature == 2.0
        assert match.teacher == (Tap("head", of="teacher"),)
        assert match.trainable


class TestWeight:
    def test_schedule(self) -> None:
        match = Match(KLDivergenceLoss(), "fc", "fc", weight=Linear(1.0, 0.0))
        assert match.scale(Progress(step=5, epoch=0, max_steps=10, max_epochs=1)) == pytest.approx(0.5)

    def test_schedule_without_progress_is_a_sentence(self) -> None:
        match = Match(KLDivergenceLoss(), "fc", "fc", weight=Linear(1.0, 0.0))
        with pytest.raises(ValueError, match="max_steps"):
            match.scale(None)


class TestFailures:
    def test_shapes_and_taps_are_named(self) -> None:
        match = Match(KLDivergenceLoss(), "fc", "head")
        values = {"student:fc": torch.randn(2, 3), "teacher:head": torch.randn(2, 4)}
        with pytest.raises(ShapeError, match=r"student 'student:fc' \(2, 3\), teacher 'teacher:head' \(2, 4\)"):
            run(match, values)

    def test_foreign_error_is_explained(self) -> None:
        match = Match(nn.MSELoss(), "a", "b")
        values = {"student:a": torch.randn(2, 3, 4, 4), "teacher:b": torch.randn(2, 5, 7, 7)}
        with pytest.raises(MatchError, match=r"MSELoss failed on student 'student:a' \(2, 3, 4, 4\)"):
            run(match, values)

    def test_adapter_error_is_explained(self) -> None:
        match = Match(nn.MSELoss(), "a", "b", adapter=nn.Linear(7, 3))
        with pytest.raises(
            MatchError, match=r"adapter Linear failed on the value of tap 'student:a' with shape \(2, 3\)"
        ):
            run(match, {"student:a": torch.randn(2, 3), "teacher:b": torch.randn(2, 3)})

    def test_unreduced_loss_is_refused(self) -> None:
        match = Match(KLDivergenceLoss(reduction="none"), "fc", "fc")
        with pytest.raises(MatchError, match=r"must return one number, got shape \(2,\): set reduction"):
            run(match, {"student:fc": torch.randn(2, 3), "teacher:fc": torch.randn(2, 3)})
