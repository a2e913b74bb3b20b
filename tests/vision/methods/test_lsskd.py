"""LSSKD: heads of class and rotation, what each term compares, memory by rotation, and a student without any of it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from limbeck_core.build import build
from limbeck_core.engine.commands import train
from limbeck_core.engine.config import load_config
from limbeck_core.engine.export import student_alone
from limbeck_core.errors import ConfigError, MatchError, ShapeError, TargetError
from limbeck_core.schedules import Progress
from limbeck_vision.methods.lsskd import AuxiliaryBranch, LayeredDistiller, auxiliary_branches
from limbeck_vision.methods.sla import transformed_views
from limbeck_vision.models import mobilenet_v2, resnet8, resnet8_quarter, wrn_16_1

CLASSES, SAMPLES = 10, 9


def layered(**options: Any) -> LayeredDistiller:
    torch.manual_seed(0)
    options = {"task_loss": nn.CrossEntropyLoss(), **options}
    distiller = LayeredDistiller(options.pop("student", None) or resnet8_quarter(), SAMPLES, **options)
    distiller.set_progress(Progress(epoch=0, max_epochs=2))
    return distiller.train()


def batch(count: int = 4, size: int = 8) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 3, size, size, generator=generator)
    return {"inputs": images, "targets": torch.arange(count) % CLASSES, "ids": torch.arange(count) * 2 % SAMPLES}


class Plain(nn.Module):
    """Two stages without batch norm; names as in the CIFAR models."""

    normalization = None
    num_classes = CLASSES

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2 = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.pool, self.fc = nn.Flatten(), nn.Linear(32, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.pool(self.layer2(self.layer1(images).tanh()).tanh()))


class Branch(nn.Module):
    """A branch without batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embed, self.fc = nn.Linear(channels, 32), nn.Linear(32, 4 * CLASSES)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.embed(features.mean((2, 3)))
        return self.fc(pooled), pooled


def simple(**options: Any) -> LayeredDistiller:
    torch.manual_seed(0)
    student, branches = Plain(), {"layer1": Branch(6), "layer2": Branch(8)}
    return layered(student=student, branches=branches, **options).double()


class TestBranches:
    """Their shape follows the network's."""

    @pytest.mark.parametrize("make", [resnet8_quarter, resnet8, wrn_16_1, mobilenet_v2])
    def test_each_ends_like_the_network(self, make: Any) -> None:
        model = make(num_classes=CLASSES)
        width, features = model.fc.in_features, torch.rand(2, 3, 32, 32)
        last = list(model.stages.values())[-1]
        for name, branch in auxiliary_branches(model, 40).items():
            info = model.stages[name]
            maps = torch.rand(2, info.channels, 32 // info.stride, 32 // info.stride)
            assert branch.stages(maps).shape == (2, last.channels, 32 // last.stride, 32 // last.stride)
            logits, pooled = branch(maps)
            assert (logits.shape, pooled.shape) == ((2, 40), (2, width))
        assert model(features).shape == (2, CLASSES)

    def test_blocks_of_each_stage(self) -> None:
        one, three = (auxiliary_branches(resnet8(), 40, blocks=n)["layer1"].stages for n in (1, 3))
        assert [sum(type(m).__name__ == "BasicBlock" for m in s.modules()) for s in (one, three)] == [2, 6]

    def test_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"Linear has no named stages .*branches=\{TAP: AuxiliaryBranch"):
            auxiliary_branches(nn.Linear(2, 2), 40)
        with pytest.raises(ConfigError, match="a stride for each of its stages"):
            AuxiliaryBranch(4, [8, 16], [2], 40, embedding=16)
        with pytest.raises(ValueError, match="blocks must be 1 or more, got 0"):
            AuxiliaryBranch(4, [8], [2], 40, embedding=8, blocks=0)
        with pytest.raises(ShapeError, match=r"this branch reads 4 channels, got features of shape \(2, 5, 8, 8\)"):
            AuxiliaryBranch(4, [8], [2], 40, embedding=8)(torch.rand(2, 5, 8, 8))


class TestLosses:
    """Each term against its formula."""

    def parts(self, distiller: LayeredDistiller, data: dict[str, Tensor]) -> tuple[Tensor, list[Any], Tensor]:
        """Logits, branches' outputs and pooled features of all rotations."""
        student, views = distiller.student, transformed_views(data["inputs"])
        first = student.layer1(views)
        second = student.layer2(first.tanh())
        embedding = student.pool(second.tanh())
        said = [branch(maps) for branch, maps in zip(distiller.branches, (first, second), strict=True)]
        return student.fc(embedding), said, embedding

    def test_first_epoch(self) -> None:
        distiller, data = simple(), {**batch(), "inputs": batch()["inputs"].double()}
        losses = distiller(data)
        logits, said, embedding = self.parts(distiller, data)
        joint = (data["targets"][:, None] * 4 + torch.arange(4)).flatten()
        plain = cross_entropy(logits[::4], data["targets"])
        torch.testing.assert_close(losses["loss/task"] + losses["loss/past"], plain)
        torch.testing.assert_close(losses["loss/past"], 0.4 * plain)
        torch.testing.assert_close(losses["loss/branches"], sum(cross_entropy(a, joint) for a, _ in said))
        shallow, deep = (a for a, _ in said)
        kl = 9 * kl_div((shallow / 3).log_softmax(1), (deep / 3).softmax(1), reduction="batchmean")
        torch.testing.assert_close(losses["loss/deep_to_shallow"], kl)
        distance = sum((f - embedding).square().sum(1).mean() for _, f in said)
        torch.testing.assert_close(losses["loss/features"], 0.03 * distance)

    def test_second_epoch_softens_every_head_by_its_own_past(self) -> None:
        distiller, data = simple(past_temperature=2.0), {**batch(), "inputs": batch()["inputs"].double()}
        distiller(data)
        logits, said, _ = self.parts(distiller, data)
        distiller.set_progress(Progress(epoch=1, max_epochs=2))
        losses = distiller(data)
        past = (logits[::4] / 2).softmax(1)
        torch.testing.assert_close(
            losses["loss/past"], 0.8 * cross_entropy(logits[::4], past), rtol=1e-3, atol=1e-4
        )  # remembered in float16
        joint = (data["targets"][:, None] * 4 + torch.arange(4)).flatten()
        label = nn.functional.one_hot(joint, 4 * CLASSES)
        expected = sum(cross_entropy(a, 0.2 * label + 0.8 * (a.detach() / 2).softmax(1)) for a, _ in said)
        torch.testing.assert_close(losses["loss/branches"], expected, rtol=1e-3, atol=1e-4)

    def test_deep_teaches_shallow_and_nothing_comes_back(self) -> None:
        distiller, data = simple(), {**batch(), "inputs": batch()["inputs"].double()}
        losses = distiller(data)
        student, (first, second) = distiller.student, distiller.branches

        def reached(name: str) -> list[bool]:
            places = [
                student.layer1.weight,
                student.layer2.weight,
                student.fc.weight,
                first.fc.weight,
                second.fc.weight,
            ]
            found = torch.autograd.grad(losses[name], places, retain_graph=True, allow_unused=True)
            return [g is not None and bool(g.abs().sum() > 0) for g in found]

        assert reached("loss/deep_to_shallow") == [True, False, False, True, False]
        assert reached("loss/features") == [True, True, False, False, False]
        assert reached("loss/branches") == [True, True, False, True, True]
        assert reached("loss/past") == [True, True, True, False, False]

    def test_without_weights_it_is_cross_entropy_on_the_unturned_images(self) -> None:
        off = {"past_weight": 0.0, "branch_weight": 0.0, "divergence_weight": 0.0, "feature_weight": 0.0}
        distiller, data = simple(**off), {**batch(), "inputs": batch()["inputs"].double()}
        plain = copy.deepcopy(distiller.student)
        for model, loss in (
            (distiller, lambda: sum(distiller(data).values())),
            (plain, lambda: cross_entropy(plain(data["inputs"]), data["targets"])),
        ):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
            for _ in range(4):
                optimizer.zero_grad()
                loss().backward()
                optimizer.step()
        for mine, theirs in zip(distiller.student.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs)

    def test_one_branch_has_nobody_to_teach(self) -> None:
        torch.manual_seed(0)
        distiller = layered(student=Plain(), branches={"layer1": Branch(6)})
        losses = distiller(batch())
        assert losses["loss/deep_to_shallow"] == 0
        sum(losses.values()).backward()

    def test_an_empty_batch_is_a_zero_with_a_gradient(self) -> None:
        distiller = simple(task_loss=None)
        losses = distiller({**batch(0), "inputs": batch(0)["inputs"].double()})
        total = sum(losses.values())
        assert total == 0
        total.backward()


class TestMemory:
    """Past predictions by sample and rotation."""

    def test_rows_are_those_of_sample_and_rotation(self) -> None:
        distiller, data = simple(), {**batch(), "inputs": batch()["inputs"].double()}
        distiller(data)
        ids = data["ids"].tolist()
        assert distiller.teachers["past"].seen.nonzero().flatten().tolist() == sorted(ids)
        rows = distiller.teachers["past_stage0"].seen.nonzero().flatten().tolist()
        assert rows == sorted(4 * n + j for n in ids for j in range(4))

    def test_nothing_is_remembered_in_evaluation(self) -> None:
        distiller = layered().eval()
        distiller(batch())
        distiller.check(batch())
        assert not any(teacher.seen.any() for teacher in distiller.teachers.values())

    def test_it_is_in_the_checkpoints_own_part(self) -> None:
        distiller = layered()
        distiller(batch())
        assert {name.split(".")[0] for name in distiller.state_dict()} == {"student", "branches"}
        other = layered()
        other.load_state_dict_extra(distiller.state_dict_extra())
        for name, teacher in distiller.teachers.items():
            assert torch.equal(other.teachers[name].bank, teacher.bank)
            assert teacher.seen.any()


class TestStudentAlone:
    """Every branch is gone from what is kept."""

    def test_predictions_do_not_know_of_branches(self) -> None:
        torch.manual_seed(0)
        student = resnet8_quarter()
        names, images = list(student.state_dict()), batch()["inputs"]
        expected = student.eval()(images)
        distiller = layered(student=student).eval()
        assert torch.equal(distiller(batch(), mode="predict"), expected)
        assert torch.equal(copy.deepcopy(student)(images), expected)
        assert list(student.state_dict()) == names

    def test_what_a_run_leaves_loads_into_the_plain_network(self, tmp_path: Path) -> None:
        overrides = {"train_cfg.max_epochs": 1, "train_dataloader.dataset.labels_per_class": 1, "+log_level": "ERROR"}
        runner = train("vision/lsskd/digits", work_dir=tmp_path, seed=0, overrides=overrides)
        weights = torch.load(tmp_path / "student.pth", weights_only=True)
        weights = weights.get("state_dict", weights)
        plain = resnet8(num_classes=10, normalization=None)
        assert weights.keys() == plain.state_dict().keys()
        alone = student_alone(load_config("vision/lsskd/digits"), tmp_path / "student.pth")
        assert sum(p.numel() for p in alone.model.parameters()) == sum(p.numel() for p in plain.parameters())
        images = batch()["inputs"]
        torch.testing.assert_close(alone.model.eval()(images), runner.model.student.cpu().eval()(images))

    def test_branches_can_be_asked(self) -> None:
        distiller = layered().eval()
        found = distiller.branch_probabilities(batch())
        assert list(found) == ["layer1", "layer2", "layer3"]
        for rows in found.values():
            torch.testing.assert_close(rows.sum(1), torch.ones(4))
            assert rows.shape == (4, CLASSES)


class TestRefused:
    """Bad input: a sentence with what was expected, what came, and the way out."""

    def test_batches(self) -> None:
        distiller, data = layered(), batch()
        with pytest.raises(ShapeError, match=r"need square images.* got shape \(4, 3, 8, 6\)"):
            distiller({**data, "inputs": data["inputs"][..., :6]})
        with pytest.raises(TargetError, match="needs class indices as targets, got soft labels"):
            distiller({**data, "targets": torch.full((4, CLASSES), 0.1)})
        with pytest.raises(MatchError, match="LSSKD needs the labels 'targets' of the batch; it has: inputs, ids"):
            distiller({name: data[name] for name in ("inputs", "ids")})
        with pytest.raises(MatchError, match="LSSKD needs 'ids' of the batch"):
            distiller({name: data[name] for name in ("inputs", "targets")})
        with pytest.raises(MatchError, match=r"was built for 9 samples \(ids 0 to 8\)"):
            distiller({**data, "ids": data["ids"] + SAMPLES})

    def test_branches_that_do_not_fit(self) -> None:
        with pytest.raises(ConfigError, match="a branch after at least one stage, got none"):
            layered(branches={})
        branch = AuxiliaryBranch(4, [16], [4], CLASSES, embedding=16)
        with pytest.raises(ShapeError, match=r"branch on tap 'layer1' must give logits \(N, 40\).*\(16, 10\)"):
            layered(branches={"layer1": branch})(batch())

    def test_numbers(self) -> None:
        with pytest.raises(ValueError, match="branch_weight"):
            layered(branch_weight=-1.0)
        with pytest.raises(ValueError, match="past_temperature"):
            layered(past_temperature=0.0)
        with pytest.raises(ConfigError, match="does not say how many classes it scores: give num_classes"):
            LayeredDistiller(nn.Linear(2, 2), 3)


def test_config_with_a_branch_written_out() -> None:
    config = {
        "type": LayeredDistiller,
        "student": {"type": resnet8_quarter},
        "num_samples": SAMPLES,
        "branches": {
            "layer2": {
                "type": AuxiliaryBranch,
                "in_channels": 8,
                "widths": [16],
                "strides": [2],
                "num_outputs": 40,
                "embedding": 16,
            }
        },
        "past_weight": 0.5,
        "task_loss": {"type": nn.CrossEntropyLoss},
    }
    losses = build(config).train()(batch())
    assert losses.keys() == {f"loss/{n}" for n in ("task", "past", "branches", "deep_to_shallow", "features")}
