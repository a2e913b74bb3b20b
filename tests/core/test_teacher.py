"""Teachers: frozen whatever is called, averaging as told, remembering per sample."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, softmax

from limbeck_core.errors import CheckpointError, ConfigError, MatchError, NonFiniteError, ShapeError
from limbeck_core.schedules import Cosine, Progress
from limbeck_core.teacher import EMATeacher, FrozenTeacher, PastSelf, Peers, pretrained


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


def running_mean(model: nn.Module) -> Tensor:
    return next(b for name, b in model.named_buffers() if name.endswith("running_mean")).clone()


class TestFrozenTeacher:
    def test_train_does_not_reach_the_model(self) -> None:
        teacher = FrozenTeacher(net())
        teacher.train()
        assert not any(m.training for m in teacher.model.modules())

    def test_a_submodule_switched_by_hand_is_switched_back(self) -> None:
        teacher = FrozenTeacher(net())
        teacher.model[2].train()
        x = torch.randn(8, 3)
        torch.testing.assert_close(teacher(x), teacher(x))

    def test_no_drift_no_graph_no_parameters_that_train(self) -> None:
        teacher = FrozenTeacher(net())
        before = running_mean(teacher)
        out = teacher(torch.randn(8, 3))
        assert not out.requires_grad
        assert torch.equal(running_mean(teacher), before)
        assert not any(p.requires_grad for p in teacher.parameters())

    def test_control_a_plain_module_drifts(self) -> None:
        model = net().train()
        before = running_mean(model)
        model(torch.randn(8, 3))
        assert not torch.equal(running_mean(model), before)

    def test_inference_mode_from_the_second_forward_on(self) -> None:
        teacher = FrozenTeacher(net(), inference_mode=True)
        assert not teacher(torch.randn(2, 3)).is_inference()
        assert teacher(torch.randn(2, 3)).is_inference()


class TestPretrained:
    def test_reads_the_file(self, tmp_path: Path) -> None:
        source = net()
        torch.save(source.state_dict(), tmp_path / "t.pth")
        teacher = pretrained(net(), tmp_path / "t.pth")
        assert torch.equal(teacher.model[0].weight, source[0].weight)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="there is no checkpoint file"):
            pretrained(net(), tmp_path / "t.pth")

    def test_on_the_meta_device_nothing_is_read(self) -> None:
        with torch.device("meta"):
            assert pretrained(net(), "no/such/file.pth").model[0].weight.is_meta


class TestEMATeacher:
    def test_formula(self) -> None:
        student = net()
        teacher = EMATeacher(student, momentum=0.9)
        start = teacher.model[0].weight.clone()
        with torch.no_grad():
            student[0].weight.add_(1.0)
        teacher.update(student, 0)
        torch.testing.assert_close(teacher.model[0].weight, 0.9 * start + 0.1 * student[0].weight)

    def test_scheduled_momentum(self) -> None:
        student = net()
        teacher = EMATeacher(student, momentum=Cosine(0.5, 1.0))
        progress = Progress(step=5, epoch=0, max_steps=10, max_epochs=1)
        m = Cosine(0.5, 1.0)(progress)
        start = teacher.model[0].weight.clone()
        with torch.no_grad():
            student[0].weight.add_(1.0)
        teacher.update(student, progress)
        torch.testing.assert_close(teacher.model[0].weight, m * start + (1 - m) * student[0].weight)

    @pytest.mark.parametrize("rule", ["copy", "ema", "own"])
    def test_buffers(self, rule: str) -> None:
        student = net()
        teacher = EMATeacher(student, momentum=0.9, buffers=rule)
        start = running_mean(teacher)
        student.train()(torch.randn(16, 3) + 5)
        teacher.update(student, 0)
        theirs = running_mean(student)
        expected = {"copy": theirs, "ema": 0.9 * start + 0.1 * theirs, "own": start}[rule]
        torch.testing.assert_close(running_mean(teacher), expected)

    def test_batch_stats_uses_the_batch_but_no_dropout(self) -> None:
        teacher = EMATeacher(net(), mode="batch_stats")
        x = torch.randn(16, 3) * 3 + 7
        first = teacher(x)
        torch.testing.assert_close(first, teacher(x))  # dropout would differ
        hidden = teacher.model[1](teacher.model[0](x))
        torch.testing.assert_close(hidden.mean(0), torch.zeros(4), atol=1e-5, rtol=0)

    def test_batch_stats_survives_train_and_eval(self) -> None:
        teacher = EMATeacher(net(), mode="batch_stats")
        teacher.eval()
        teacher.model.eval()
        teacher(torch.randn(4, 3))
        assert teacher.model[1].training
        assert not teacher.model[2].training

    def test_changed_student_is_told(self) -> None:
        student = net()
        teacher = EMATeacher(student)
        student.append(nn.Linear(2, 2))
        with pytest.raises(
            ShapeError, match=r"parameters changed since the EMA teacher copied it \(4\.bias, 4\.weight\)"
        ):
            teacher.update(student, 0)

    def test_follows_a_part(self) -> None:
        student = nn.ModuleDict({"encoder": nn.Linear(2, 2), "predictor": nn.Linear(2, 2)})
        teacher = EMATeacher(student, follows="encoder")
        assert isinstance(teacher.model, nn.Linear)
        teacher.update(student, 0)

    @pytest.mark.parametrize(("argument", "value"), [("mode", "train"), ("buffers", "none")])
    def test_unknown_option(self, argument: str, value: str) -> None:
        with pytest.raises(ConfigError, match=f"{argument} of EMATeacher must be .* got '{value}'"):
            EMATeacher(net(), **{argument: value})


class TestPastSelf:
    def batch(self, **extra: object) -> dict[str, object]:
        return {"ids": torch.tensor([4, 1]), "targets": torch.tensor([2, 0]), **extra}

    def test_first_epoch_is_the_one_hot(self) -> None:
        past = PastSelf(6, 3)
        torch.testing.assert_close(past.recall(self.batch()), one_hot(torch.tensor([2, 0]), 3).float())

    def test_remembers_the_softmax_of_each_sample(self) -> None:
        past, logits = PastSelf(6, 3), torch.randn(2, 3)
        past.observe(self.batch(), {"logits": logits})
        torch.testing.assert_close(past.recall(self.batch()), softmax(logits, 1))
        untouched = past.recall({"ids": torch.tensor([0]), "targets": torch.tensor([1])})
        torch.testing.assert_close(untouched, torch.tensor([[0.0, 1.0, 0.0]]))

    def test_half_storage_rows_sum_to_one_within_a_thousandth(self) -> None:
        past = PastSelf(6, 3, dtype=torch.float16)
        past.observe(self.batch(), {"logits": torch.randn(2, 3)})
        assert (past.recall(self.batch()).sum(1) - 1).abs().max() < 1e-3

    def test_nan_never_reaches_the_bank(self) -> None:
        past = PastSelf(6, 3)
        with pytest.raises(NonFiniteError, match="which PastSelf would store"):
            past.observe(self.batch(), {"logits": torch.tensor([[0.0, float("nan"), 0.0], [0.0, 0.0, 0.0]])})
        assert not past.seen.any()
        assert torch.isfinite(past.bank).all()

    def test_unknown_id(self) -> None:
        with pytest.raises(MatchError, match=r"built for 3 samples \(ids 0 to 2\), the batch has ids from 1 to 4"):
            PastSelf(3, 3).recall(self.batch())

    def test_batch_without_ids(self) -> None:
        with pytest.raises(MatchError, match="needs 'ids' of the batch"):
            PastSelf(3, 3).recall({"targets": torch.tensor([0])})

    def test_state_survives(self) -> None:
        past = PastSelf(6, 3)
        past.observe(self.batch(), {"logits": torch.randn(2, 3)})
        other = PastSelf(6, 3)
        other.load_state_dict(copy.deepcopy(past.state_dict()))
        torch.testing.assert_close(other.recall(self.batch()), past.recall(self.batch()))


class TestPeers:
    def test_names(self) -> None:
        peers = Peers(nn.Linear(2, 2), nn.Linear(2, 2))
        assert list(peers(torch.randn(1, 2))) == ["a", "b"]

    def test_one_is_not_enough(self) -> None:
        with pytest.raises(ConfigError, match="two or more models, got 1"):
            Peers(nn.Linear(2, 2))
