"""Models as people have them (timm, torchvision, transformers): what hooks, compilers and loops make of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.model import BaseModel
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.models import resnet18
from transformers import BertConfig, BertForSequenceClassification

from limbeck_core import Distiller, EMATeacher, FrozenTeacher, MappingCall, Match, Tap
from limbeck_core.engine import EpochLoop, Runner
from limbeck_core.errors import MatchError, TapError
from limbeck_core.inspect import diagnose
from limbeck_core.losses import KLDivergenceLoss

CLASSES = 5


def vit(width: int = 24, depth: int = 2) -> nn.Module:
    return VisionTransformer(
        img_size=16, patch_size=8, embed_dim=width, depth=depth, num_heads=2, num_classes=CLASSES, pos_drop_rate=0.1
    )


def resnet(width: int = 8) -> nn.Module:
    channels = (width, width, 2 * width, 2 * width)
    return ResNet(BasicBlock, (1, 1, 1, 1), channels=channels, num_classes=CLASSES, stem_width=width)


def bert(width: int = 16, depth: int = 2, dropout: float = 0.1) -> nn.Module:
    config = BertConfig(
        vocab_size=40,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
        num_labels=CLASSES,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation="eager",  # the other implementations never form the attention's probabilities
    )
    return BertForSequenceClassification(config)


def images() -> dict[str, Any]:
    return {"inputs": torch.randn(3, 3, 16, 16), "targets": torch.tensor([0, 3, 1])}


def large_images() -> dict[str, Any]:
    return {"inputs": torch.randn(3, 3, 32, 32), "targets": torch.tensor([0, 3, 1])}


def sentences() -> dict[str, Any]:
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[0, 4:] = 0
    return {
        "inputs": {"input_ids": torch.randint(40, (3, 7)), "attention_mask": mask},
        "targets": torch.tensor([0, 3, 1]),
    }


def between(student: str, teacher: str, widths: tuple[int, int], **options: Any) -> Match:
    """Mean squares between two places of other widths, through a linear adapter on the last axis."""
    return Match(nn.MSELoss(), student, teacher, adapter=nn.Linear(*widths), **options)


@dataclass(frozen=True)
class Family:
    """A student and a larger teacher of one library, and a distiller of both."""

    student: Callable[[], nn.Module]
    teacher: Callable[[], nn.Module]
    batch: Callable[[], dict[str, Any]]
    matches: Callable[[], dict[str, Match]]
    options: Mapping[str, Any]

    def distiller(self, student: nn.Module | None = None, teacher: Any = None) -> Distiller:
        """Weights and adapters are the same at every call, unless models are given."""
        torch.manual_seed(3)
        # compared with None: a compiled model has a length, or fails to
        student = self.student() if student is None else student
        teacher = self.teacher() if teacher is None else teacher
        torch.manual_seed(4)
        return Distiller(student, teacher, self.matches(), **self.options)


def logits(path: str) -> Match:
    return Match(KLDivergenceLoss(temperature=2.0), path, path)


FAMILIES = {
    "timm_vit": Family(
        vit,
        lambda: vit(32, 3),
        images,
        lambda: {"kd": logits("head"), "tokens": between("blocks.1", "blocks.2", (24, 32))},
        {"task_loss": nn.CrossEntropyLoss()},
    ),
    "timm_resnet": Family(
        resnet,
        lambda: resnet(16),
        large_images,
        lambda: {"kd": logits("fc"), "maps": Match(nn.MSELoss(), "layer3", "layer3", adapter=nn.Conv2d(16, 32, 1))},
        {"task_loss": nn.CrossEntropyLoss()},
    ),
    "transformers_bert": Family(
        bert,
        lambda: bert(32, 3),
        sentences,
        lambda: {
            "kd": logits("classifier"),
            "hidden": between("bert.encoder.layer.0", "bert.encoder.layer.2", (16, 32)),
            "attention": Match(nn.MSELoss(), *2 * (Tap("bert.encoder.layer.1.attention.self", pick=1),)),
        },
        {"call": MappingCall()},
    ),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


def values(losses: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(loss.detach()) for name, loss in losses.items()}


def gradients(distiller: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in distiller.named_parameters() if p.grad is not None}


class TestEveryTensorStays:
    """Construction decides weights: whoever trains with learning rate 0 gets back what was passed in."""

    @staticmethod
    def changed(before: Mapping[str, Tensor], model: nn.Module) -> list[str]:
        after = model.state_dict()
        assert before.keys() == after.keys()
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        return [name for name in before if not name.endswith(statistics) and not torch.equal(before[name], after[name])]

    def test_in_a_plain_loop(self, family: Family) -> None:
        distiller = family.distiller()
        before = copy.deepcopy(distiller.student.state_dict())
        distiller.init_weights()
        optimizer = torch.optim.SGD(distiller.parameters(), lr=0.0)
        for _ in range(2):
            optimizer.zero_grad()
            sum(distiller(family.batch()).values()).backward()
            optimizer.step()
        assert self.changed(before, distiller.student) == []

    def test_through_the_runner(self, family: Family, tmp_path: Path) -> None:
        distiller = family.distiller()
        before = copy.deepcopy(distiller.student.state_dict())
        batch = family.batch()
        samples = [{"inputs": _row(batch["inputs"], i), "targets": batch["targets"][i]} for i in range(3)]
        runner = Runner(
            distiller,
            str(tmp_path),
            train_dataloader={"dataset": samples, "batch_size": 3},
            train_cfg={"type": EpochLoop, "max_epochs": 2},
            optim_wrapper={"optimizer": {"type": torch.optim.SGD, "lr": 0.0}},
            default_hooks={"progress_bar": None},
            log_level="ERROR",
        )
        runner.train()
        assert self.changed(before, distiller.student) == []

    def test_control_drawing_weights_anew_changes_many(self) -> None:
        distiller = FAMILIES["timm_vit"].distiller()
        before = copy.deepcopy(distiller.student.state_dict())
        BaseModel.init_weights(distiller)
        assert len(self.changed(before, distiller.student)) > 3


def _row(value: Any, index: int) -> Any:
    return {name: item[index] for name, item in value.items()} if isinstance(value, dict) else value[index]


def tapped(model: nn.Module, tap: Tap | str, batch: Mapping[str, Any], **options: Any) -> Tensor:
    """Value of a tap on a student in evaluation mode, as a match receives it."""
    seen: list[Any] = []

    def keep(student_value: Any, teacher_value: Any) -> Tensor:
        seen.append(student_value)
        return student_value.sum()

    Distiller(model, None, {"seen": Match(keep, tap, Tap("targets", of="batch"))}, **options).eval()(batch)
    return seen[0]


class TestTaps:
    def test_block_of_a_timm_vit(self) -> None:
        model, batch = vit().eval(), images()
        expected = model.forward_intermediates(batch["inputs"], indices=[1], output_fmt="NLC", intermediates_only=True)
        value = tapped(model, "blocks.1", batch)
        torch.testing.assert_close(value[:, 1:], expected[0])

    def test_layer_of_a_timm_resnet(self) -> None:
        model, batch = resnet().eval(), large_images()
        expected = model.forward_intermediates(batch["inputs"], indices=[3], intermediates_only=True)
        torch.testing.assert_close(tapped(model, "layer3", batch), expected[0])

    def test_layer_and_attention_of_a_bert(self) -> None:
        model, batch = bert().eval(), sentences()
        expected = model(**batch["inputs"], output_hidden_states=True, output_attentions=True)
        call = MappingCall(labels=None)
        torch.testing.assert_close(tapped(model, "bert.encoder.layer.0", batch, call=call), expected.hidden_states[1])
        torch.testing.assert_close(
            tapped(model, Tap("bert.encoder.layer.0", at="input"), batch, call=call), expected.hidden_states[0]
        )
        attention = Tap("bert.encoder.layer.1.attention.self", pick=1)
        torch.testing.assert_close(tapped(model, attention, batch, call=call), expected.attentions[1])

    def test_hidden_states_of_the_output_itself(self) -> None:
        model, batch = bert().eval(), sentences()
        tap, call = Tap("", pick=("hidden_states", 1)), MappingCall(labels=None)
        with pytest.raises(
            TapError, match="nothing at 'hidden_states' in a SequenceClassifierOutput: it has: .*logits"
        ):
            tapped(model, tap, batch, call=call)
        model.config.output_hidden_states = True
        assert tapped(model, tap, batch, call=call).shape == (3, 7, 16)

    @pytest.mark.parametrize("path", ["bn1", "layer1.0.bn1", "layer1.0.bn2"])
    def test_what_a_torchvision_resnet_changes_in_place_is_told(self, path: str) -> None:
        model, batch = resnet18(num_classes=CLASSES).eval(), large_images()
        with pytest.raises(TapError, match=f"'student:{path}' of the student was changed in place.*set clone=True"):
            tapped(model, path, batch)
        assert bool((tapped(model, Tap(path, clone=True), batch) < 0).any())  # before the ReLU

    def test_relu_that_a_block_calls_twice(self) -> None:
        model, batch = resnet18(num_classes=CLASSES).eval(), large_images()
        with pytest.raises(TapError, match="was called 2 times in this forward: say which with call=0 to call=1"):
            tapped(model, "layer1.0.relu", batch)
        torch.testing.assert_close(
            tapped(model, Tap("layer1.0.relu", call=-1), batch), tapped(model, "layer1.0", batch)
        )


@pytest.fixture
def _fresh_compiler() -> Any:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh_compiler")
class TestCompile:
    """torch.compile does not guard on hooks: a naive tap reads nothing, or the values of an earlier step."""

    @staticmethod
    def compiled(family: Family, how: str) -> tuple[Distiller, Callable[..., Any]]:
        if how == "models before":
            student, teacher = family.distiller().student, family.distiller().teacher.model
            distiller = family.distiller(
                torch.compile(student, backend="eager"), torch.compile(teacher, backend="eager")
            )
            return distiller, distiller
        distiller = family.distiller()
        if how == "models after":
            distiller.student.compile(backend="eager")
            distiller.teacher.model.compile(backend="eager")
            return distiller, distiller
        return distiller, torch.compile(distiller, backend="eager", fullgraph=True)

    @pytest.mark.parametrize(
        ("name", "how"),
        [("timm_vit", "models before"), ("timm_vit", "models after"), *((name, "distiller") for name in FAMILIES)],
    )
    def test_same_losses_and_gradients(self, name: str, how: str) -> None:
        family = FAMILIES[name]
        # evaluation mode of the student: dropout draws other numbers in a compiled graph
        plain = family.distiller().eval()
        distiller, call = self.compiled(family, how)
        distiller.eval()
        for _ in range(2):
            batch = family.batch()
            plain.zero_grad()
            distiller.zero_grad()
            expected, got = plain(batch), call(batch)
            assert values(got) == pytest.approx(values(expected), rel=1e-4, abs=1e-6)
            sum(expected.values()).backward()
            sum(got.values()).backward()
            ours = {name.replace("_orig_mod.", ""): grad for name, grad in gradients(distiller).items()}
            torch.testing.assert_close(ours, gradients(plain), rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize("whole", [False, True])
    def test_values_from_before_a_change_in_place(self, whole: bool) -> None:
        """Compiled code has no counters that tell of the change, so the value itself must be right."""
        model, batch = resnet18(num_classes=CLASSES).eval(), large_images()
        expected = tapped(model, Tap("bn1", clone=True), batch)
        match = Match(_mean, "bn1", Tap("targets", of="batch"))
        student = model if whole else torch.compile(model, backend="aot_eager")
        distiller = Distiller(student, None, {"mean": match}).eval()
        call = torch.compile(distiller, backend="aot_eager") if whole else distiller
        torch.testing.assert_close(call(batch)["loss/mean"], expected.mean())

    @pytest.mark.parametrize("whole", [False, True])
    def test_teacher_under_inference_mode(self, whole: bool) -> None:
        family = FAMILIES["timm_vit"]
        plain = family.distiller().eval()
        teacher = family.distiller().teacher.model
        if not whole:
            teacher.compile(backend="aot_eager")
        distiller = family.distiller(teacher=FrozenTeacher(teacher, inference_mode=True)).eval()
        call = torch.compile(distiller, backend="aot_eager") if whole else distiller
        for _ in range(3):
            batch = family.batch()
            got = call(batch)
            assert values(got) == pytest.approx(values(plain(batch)), rel=1e-4, abs=1e-6)
            sum(got.values()).backward()


def _mean(student_value: Tensor, teacher_value: Tensor) -> Tensor:
    return student_value.mean()


class TestAutocast:
    def test_bfloat16(self, family: Family) -> None:
        distiller, batch = family.distiller().eval(), family.batch()
        expected = values(distiller(batch))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = distiller(batch)
        assert values(losses) == pytest.approx(expected, rel=0.1, abs=0.05)
        assert all(loss.dtype == torch.float32 for loss in losses.values())
        sum(losses.values()).backward()
        assert all(torch.isfinite(grad).all() for grad in gradients(distiller).values())


class TestActivationCheckpointing:
    FAMILY = FAMILIES["transformers_bert"]

    def checkpointed(self, **options: Any) -> Distiller:
        distiller = self.FAMILY.distiller(bert(dropout=0.0))
        distiller.student.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
        return distiller.train()

    def test_same_losses_and_gradients(self) -> None:
        torch.manual_seed(3)
        student = bert(dropout=0.0)
        plain, ours, batch = self.FAMILY.distiller(student), self.checkpointed(use_reentrant=False), self.FAMILY.batch()
        ours.load_state_dict(plain.state_dict())
        ours.teacher.load_state_dict(plain.teacher.state_dict())
        expected, got = plain.train()(batch), ours(batch)
        assert values(got) == pytest.approx(values(expected))
        sum(expected.values()).backward()
        sum(got.values()).backward()
        torch.testing.assert_close(gradients(ours), gradients(plain))

    def test_tap_without_a_gradient_is_told(self) -> None:
        """Reentrant checkpointing runs layers without gradient first: a tap inside would teach nothing, silently."""
        distiller = self.checkpointed(use_reentrant=True)
        message = r"match 'attention': no gradient reaches the student.*use_reentrant=True \(set it to False\)"
        with pytest.raises(MatchError, match=message):
            distiller(self.FAMILY.batch())
        found = diagnose(distiller, [self.FAMILY.batch()])
        assert any(finding.level == "error" and "no gradient reaches" in finding.sentence for finding in found)

    def test_frozen_part_is_told_and_an_adapter_that_trains_is_fine(self) -> None:
        def distiller(**options: Any) -> Distiller:
            matches = {"maps": Match(nn.MSELoss(), "layer2", "layer2", **options)}
            return Distiller(resnet(), resnet(), matches, freeze=("conv1", "bn1", "layer1", "layer2")).train()

        with pytest.raises(MatchError, match="match 'maps': no gradient .*'student:layer2' .*in a frozen part"):
            distiller()(large_images())
        assert distiller(adapter=nn.Conv2d(8, 8, 1))(large_images())["loss/maps"].requires_grad


class TestCopies:
    def test_deepcopy_reads_its_own_student(self, family: Family) -> None:
        distiller, batch = family.distiller().eval(), family.batch()
        before = values(distiller(batch))
        twin = copy.deepcopy(distiller)
        with torch.no_grad():
            for parameter in twin.student.parameters():
                parameter.mul_(1.5)
        assert twin.teacher is distiller.teacher
        assert values(distiller(batch)) == before
        assert all(value != before[name] for name, value in values(twin(batch)).items())

    def test_moving_average_of_the_student_teaches(self, family: Family) -> None:
        student = family.student()
        place = {"timm_vit": "head", "timm_resnet": "fc", "transformers_bert": "classifier"}
        path = place[next(name for name, known in FAMILIES.items() if known is family)]
        distiller = Distiller(student, EMATeacher(student, momentum=0.5), {"kd": logits(path)}, **family.options).eval()
        batch = family.batch()
        assert float(distiller(batch)["loss/kd"].detach()) == pytest.approx(0.0, abs=1e-6)
        with torch.no_grad():
            student.get_submodule(path).weight.add_(torch.randn_like(student.get_submodule(path).weight))
        apart = float(distiller(batch)["loss/kd"].detach())
        distiller.teacher.update(student, 0)
        assert 0 < float(distiller(batch)["loss/kd"].detach()) < apart
