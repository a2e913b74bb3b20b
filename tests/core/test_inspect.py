"""Doctor: every fault it promises to see is planted here, beside a healthy control in which it sees nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from limbeck_core import Distiller, FrozenTeacher, Match, Tap
from limbeck_core.inspect import Finding, diagnose
from limbeck_core.losses import KLDivergenceLoss


class Net(nn.Module):
    def __init__(self, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.norm(self.body(x)).mean((2, 3))))


class Oracle(nn.Module):
    """Reads the class from the brightness of the image, so that its accuracy is known."""

    def __init__(self, order: tuple[int, ...] = (0, 1, 2), classes: int = 3) -> None:
        super().__init__()
        self.fc = nn.Identity()
        self.order, self.classes = order, classes

    def forward(self, x: Tensor) -> Tensor:
        level = (x[:, 0, 0, 0] * 3).long().clamp(0, 2)
        return self.fc(5.0 * functional.one_hot(torch.tensor(self.order)[level], self.classes).float())


def batches(n: int = 12) -> list[dict[str, Tensor]]:
    made = []
    for seed in range(2):
        targets = torch.arange(n) % 3
        inputs = torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
        inputs[:, 0, 0, 0] = (targets + 0.5) / 3
        made.append({"inputs": inputs, "targets": targets, "ids": torch.arange(n)})
    return made


def make(teacher: nn.Module | None = None, **options: Any) -> Distiller:
    options = {
        "task_loss": nn.CrossEntropyLoss(),
        "matches": {"kd": Match(KLDivergenceLoss(4.0), "fc", "fc")},
        **options,
    }
    return Distiller(options.pop("student", Net()), teacher if teacher is not None else Oracle(), **options)


def troubles(findings: list[Finding]) -> list[str]:
    return [str(finding) for finding in findings if finding.level != "note"]


def only(findings: list[Finding], words: str) -> None:
    found = troubles(findings)
    assert len(found) == 1, found
    assert words in found[0]


def test_healthy_control() -> None:
    findings = diagnose(make(), batches())
    assert troubles(findings) == []
    assert any("accuracy on these 24 samples is 100%" in finding.sentence for finding in findings)
    assert any(
        finding.subject == "loss/kd" and "% of the student's gradient" in finding.sentence for finding in findings
    )


def test_leaves_everything_as_it_was() -> None:
    distiller = make().eval()
    state = {name: value.clone() for name, value in distiller.state_dict().items()}
    generator = torch.get_rng_state()
    diagnose(distiller, batches())
    assert all(torch.equal(distiller.state_dict()[name], value) for name, value in state.items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert not distiller.training
    assert all(p.grad is None for p in distiller.parameters())


class Careless(FrozenTeacher):
    """What a hand-written loop does: the mode is set once, and whoever calls .train() later undoes it."""

    def keep_modes(self) -> None:
        pass


class TestTeacher:
    def test_training_mode(self) -> None:
        teacher = Careless(Net())
        nn.Module.train(teacher.model, True)
        found = troubles(diagnose(make(teacher), batches()))
        assert any("modules are in training mode (the model, body, norm)" in line for line in found)

    def test_drifting_batch_norm(self) -> None:
        teacher = Careless(Net())
        teacher.model.norm.train()
        found = troubles(diagnose(make(teacher), batches()))
        assert any("its state changes when it runs (norm.running_mean" in line for line in found)

    def test_functional_dropout(self) -> None:
        class Noisy(Oracle):
            def forward(self, x: Tensor) -> Tensor:
                return functional.dropout(super().forward(x), 0.2)

        only(diagnose(make(Noisy()), batches()), "two runs on one batch differ")

    def test_gradient_graph(self) -> None:
        class WithGraph(FrozenTeacher):
            def running(self) -> Any:
                return torch.enable_grad()

        teacher = WithGraph(Net())
        teacher.model.requires_grad_(True)
        found = troubles(diagnose(make(teacher), batches()))
        assert any("its output carries a gradient graph" in line for line in found)

    def test_class_order(self) -> None:
        only(diagnose(make(Oracle(order=(2, 0, 1))), batches()), "in different orders; join them with ClassMap")

    def test_luck_is_no_class_order(self) -> None:
        """A handful of samples of many classes can be renamed well whatever the teacher says."""

        class Guessing(Oracle):
            def forward(self, x: Tensor) -> Tensor:
                return self.fc(functional.one_hot((x[:, 1, 0, 0] * 12).long(), 12).float())

        torch.manual_seed(0)
        samples = [{**batch, "targets": torch.randperm(12)} for batch in batches()]
        found = troubles(diagnose(make(Guessing(), student=Net(classes=12)), samples))
        assert not any("different orders" in line for line in found)

    def test_untrained(self) -> None:
        class Constant(Oracle):
            def forward(self, x: Tensor) -> Tensor:
                return self.fc(torch.tensor([[0.0, 0.1, 5.0, 0.0, 0.2, 0.3]]).repeat(len(x), 1))

        found = troubles(diagnose(make(Constant(), student=Net(classes=6)), [_six(b) for b in batches()]))
        assert any("which is chance for 6 classes" in line for line in found)

    def test_too_few_classes(self) -> None:
        found = troubles(diagnose(make(Net(classes=2), matches={}), batches()))
        assert any("it scores 2 classes, the labels go up to 2" in line for line in found)


def _six(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    targets = torch.tensor([0, 1, 3, 4, 5, 3, 0, 1, 4, 5, 0, 1])
    return {**batch, "targets": targets}


class TestTapsAndShapes:
    def test_tap_that_never_fires(self) -> None:
        class Bypassed(Net):
            def forward(self, x: Tensor) -> Tensor:
                h = self.norm(self.body(x)).mean((2, 3))
                return functional.linear(h, self.fc.weight, self.fc.bias)

        only(diagnose(make(student=Bypassed()), batches()), "tap 'student:fc' of the student was not called")

    def test_vocabularies(self) -> None:
        """Class counts that construction cannot know, since the tap is no linear layer."""
        only(diagnose(make(Oracle(classes=5)), batches()), "(12, 3) and (12, 5)")


class _Large(nn.Module):
    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        return 1e6 * student_features.square().mean() + 0 * teacher_features.mean()


class TestLosses:
    def test_a_loss_that_drowns_the_others(self) -> None:
        matches = {"kd": Match(KLDivergenceLoss(4.0), "fc", "fc"), "big": Match(_Large(), "fc", "fc")}
        found = troubles(diagnose(make(matches=matches), batches()))
        assert any("loss/big" in line and "times all others together: lower its weight" in line for line in found)

    def test_a_loss_that_teaches_nothing(self) -> None:
        matches = {"kd": Match(KLDivergenceLoss(4.0), "fc", "fc", weight=1e-9)}
        only(diagnose(make(matches=matches), batches()), "it teaches nothing; raise its weight")

    def test_a_loss_without_a_gradient(self) -> None:
        matches = {"same": Match(nn.MSELoss(), Tap("fc", of="teacher"), Tap("fc", of="teacher"))}
        found = troubles(diagnose(make(matches=matches), batches()))
        assert any("nothing that trains contributes to it" in line for line in found)
        assert any("its loss is exactly zero on this batch" in line for line in found)

    def test_unused_parameter(self) -> None:
        student = Net()
        student.forgotten = nn.Linear(2, 2)
        only(diagnose(make(student=student), batches()), "student.forgotten.weight, student.forgotten.bias")


class TestNormalization:
    IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

    def teacher(self, normalization: dict[str, Any], *, inside: bool = False) -> nn.Module:
        teacher = Oracle()
        teacher.normalization = normalization
        teacher.normalizes_input = inside
        return teacher

    def test_raw_images_for_a_model_that_wants_normalised_ones(self) -> None:
        only(diagnose(make(self.teacher(self.IMAGENET)), batches()), "what arrives lies in [0, 1]")

    def test_normalised_twice(self) -> None:
        made = batches()
        for batch in made:
            batch["normalised"] = (batch["inputs"] - 0.5) / 0.25
        distiller = make(self.teacher(self.IMAGENET, inside=True), teacher_view="normalised")
        assert any("it is normalised twice" in line for line in troubles(diagnose(distiller, made)))

    def test_two_normalisations_on_one_view(self) -> None:
        student = Net()
        student.normalization = self.HALF
        found = troubles(diagnose(make(self.teacher(self.IMAGENET), student=student), batches()))
        assert any("trained with different normalisations read one view" in line for line in found)

    @pytest.mark.parametrize("inside", [True])
    def test_control_a_model_that_normalises_itself(self, inside: bool) -> None:
        assert troubles(diagnose(make(self.teacher(self.IMAGENET, inside=inside)), batches())) == []
