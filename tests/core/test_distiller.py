"""The distiller: losses by name, teachers outside of everything, faults told at construction or on the first step."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from limbeck_core.calls import TensorCall
from limbeck_core.distiller import Distiller
from limbeck_core.errors import MatchError, NonFiniteError, ShapeError, TapError, TargetError
from limbeck_core.functional import kl_divergence_loss
from limbeck_core.losses import KLDivergenceLoss
from limbeck_core.match import Match
from limbeck_core.schedules import Linear, Progress
from limbeck_core.tap import Tap
from limbeck_core.teacher import EMATeacher, FrozenTeacher, PastSelf, Peers


class Net(nn.Module):
    def __init__(self, width: int = 4, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Linear(5, width)
        self.norm = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.norm(self.body(x))))


def data(n: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 5), torch.arange(n) % 3


def kd(weight: Any = 0.9, **options: Any) -> Match:
    return Match(KLDivergenceLoss(temperature=4.0), "fc", "fc", weight=weight, **options)


def make(**options: Any) -> Distiller:
    options = {"task_loss": nn.CrossEntropyLoss(), "matches": {"kd": kd()}, **options}
    return Distiller(options.pop("student", Net()), options.pop("teacher", Net(8)), **options)


class TestLosses:
    def test_values_are_the_formulas(self) -> None:
        student, teacher, (x, y) = Net().eval(), Net(8), data()
        distiller = make(student=student, teacher=teacher).eval()
        losses = distiller(x, y)
        assert list(losses) == ["loss/task", "loss/kd"]
        torch.testing.assert_close(losses["loss/task"], cross_entropy(student(x), y))
        expected = 0.9 * kl_divergence_loss(student(x), teacher(x), temperature=4.0)
        torch.testing.assert_close(losses["loss/kd"], expected)

    def test_every_key_counts_for_mmengine(self) -> None:
        losses = make()(*data())
        total, _ = make().parse_losses(losses)
        torch.testing.assert_close(total, sum(losses.values()))

    def test_forms_of_a_batch(self) -> None:
        x, y = data()
        distiller = make().eval()
        forms = [distiller(x, y), distiller(inputs=x, targets=y), distiller({"inputs": x, "targets": y})]
        assert all(torch.equal(form["loss/kd"], forms[0]["loss/kd"]) for form in forms)

    def test_same_field_twice(self) -> None:
        x, y = data()
        with pytest.raises(MatchError, match=r"\['inputs'\] both by position and by name"):
            make()(x, y, inputs=x)

    def test_modes(self) -> None:
        x, _ = data()
        distiller = make().eval()
        torch.testing.assert_close(distiller(x, mode="predict"), distiller.student(x))
        torch.testing.assert_close(distiller(x, mode="tensor"), distiller.student(x))
        with pytest.raises(MatchError, match="mode must be 'loss', 'predict' or 'tensor', got 'train'"):
            distiller(x, mode="train")

    def test_without_labels(self) -> None:
        assert list(make(task_loss=None)(data()[0])) == ["loss/kd"]

    def test_missing_targets_are_told(self) -> None:
        with pytest.raises(MatchError, match="the task loss needs 'targets' of the batch"):
            make()(data()[0])

    def test_name_of_a_match_must_be_loggable(self) -> None:
        with pytest.raises(MatchError, match="must be a valid Python name.*'k d'"):
            make(matches={"k d": kd()})

    def test_collision_with_the_student_is_refused(self) -> None:
        with pytest.raises(MatchError, match=r"the student itself returns \['loss/task'\]"):
            make(matches={"task": kd()})(*data())


class TestViews:
    def test_teacher_takes_its_own_view(self) -> None:
        x, y = data()
        clean = torch.randn(6, 5)
        teacher = Net(8)
        distiller = make(teacher=teacher, teacher_view="clean").eval()
        losses = distiller(inputs=x, targets=y, clean=clean)
        expected = 0.9 * kl_divergence_loss(distiller.student(x), teacher(clean), temperature=4.0)
        torch.testing.assert_close(losses["loss/kd"], expected)

    def test_view_that_the_batch_lacks(self) -> None:
        x, y = data()
        with pytest.raises(MatchError, match="Net needs 'clean' of the batch: .*inputs, targets"):
            make(teacher_view="clean")(x, y)


class TestTeacherStandsOutside:
    def test_not_in_parameters_or_state(self) -> None:
        distiller = make()
        assert all(name.startswith(("student.", "matches.")) for name in distiller.state_dict())
        ours = {id(p) for p in distiller.parameters()}
        assert not any(id(p) in ours for p in distiller.teacher.parameters())
        assert set(distiller.state_dict()) == {f"student.{name}" for name in Net().state_dict()}

    def test_follows_to(self) -> None:
        distiller = make().double()
        assert distiller.teacher.model.fc.weight.dtype == torch.float64
        distiller(data()[0].double(), data()[1])

    def test_shared_by_deepcopy(self) -> None:
        distiller = make()
        twin = copy.deepcopy(distiller)
        assert twin.teacher is distiller.teacher
        assert twin.student is not distiller.student

    def test_deepcopy_reads_its_own_student(self) -> None:
        """An EMA hook copies the whole model; a closure's copy would read the original's values."""
        distiller = make().eval()
        twin = copy.deepcopy(distiller)
        with torch.no_grad():
            twin.student.fc.weight.zero_()
            twin.student.fc.bias.zero_()
        x, y = data()
        zero = torch.zeros(6, 3)
        torch.testing.assert_close(
            twin(x, y)["loss/kd"], 0.9 * kl_divergence_loss(zero, twin.teacher(x), temperature=4.0)
        )
        assert not torch.equal(twin(x, y)["loss/kd"], distiller(x, y)["loss/kd"])

    def test_pickle(self) -> None:
        distiller = make().eval()
        x, y = data()
        twin = pickle.loads(pickle.dumps(distiller))
        torch.testing.assert_close(twin(x, y)["loss/kd"], distiller(x, y)["loss/kd"])

    def test_train_leaves_teacher_in_eval_and_unchanged(self) -> None:
        distiller = make().train()
        state = {name: value.clone() for name, value in distiller.teacher.state_dict().items()}
        distiller.teacher.model.norm.train()
        distiller(*data())
        assert all(torch.equal(distiller.teacher.state_dict()[name], value) for name, value in state.items())

    @pytest.mark.parametrize("inference_mode", [False, True])
    def test_inference_mode_gives_the_same_and_enters_losses_that_save_the_teacher(self, inference_mode: bool) -> None:
        """Tried: without the copy, mse and products fail, since inference tensors cannot be saved for backward."""
        torch.manual_seed(1)
        student, teacher = Net(), FrozenTeacher(Net(), inference_mode=inference_mode)
        matches = {
            "mse": Match(nn.MSELoss(), "body", "body", teacher_adapter=nn.Linear(4, 4)),
            "product": Match(_Product(), "body", "body"),
        }
        distiller = Distiller(student, teacher, matches)
        x, _ = data()
        for _ in range(3):
            sum(distiller(x).values()).backward()
        assert student.body.weight.grad is not None

    def test_control_inference_tensors_fail_in_a_product(self) -> None:
        with torch.inference_mode():
            teacher = torch.randn(3)
        with pytest.raises(RuntimeError, match=r"Inference tensors cannot be saved for backward"):
            (torch.randn(3, requires_grad=True) * teacher).sum().backward()


class _Product(nn.Module):
    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        return (student_features * teacher_features).mean()


class TestConstructionTellsFaults:
    def test_student_tap(self) -> None:
        with pytest.raises(TapError, match=r"tap 'fcc' is not a submodule of the student \(Net\): did you mean 'fc'"):
            make(matches={"kd": Match(KLDivergenceLoss(), "fcc", "fc")})

    def test_teacher_tap(self) -> None:
        with pytest.raises(TapError, match=r"tap 'head' is not a submodule of the teacher \(Net\): it has: body, norm"):
            make(matches={"kd": Match(KLDivergenceLoss(), "fc", "head")})

    def test_no_teacher(self) -> None:
        with pytest.raises(TapError, match=r"there is none: .*of='student'"):
            make(teacher=None)

    def test_which_of_several_teachers(self) -> None:
        with pytest.raises(TapError, match=r"does not say which teacher: write of=\.\.\. with one of \['a', 'b'\]"):
            make(teacher={"a": Net(), "b": Net()})

    def test_owner_that_does_not_exist(self) -> None:
        with pytest.raises(TapError, match="names the owner 'techer': did you mean 'teacher'"):
            make(matches={"kd": Match(KLDivergenceLoss(), "fc", Tap("fc", of="techer"))})

    def test_class_counts(self) -> None:
        with pytest.raises(MatchError, match=r"the student scores 3 classes at 'student:fc', the teacher 7"):
            make(teacher=Net(8, classes=7))

    def test_view_of_unknown_teacher(self) -> None:
        with pytest.raises(MatchError, match="teacher_view names the teacher 'b': it has: teacher"):
            make(teacher_view={"b": "inputs"})

    def test_each_teacher_may_be_called_its_own_way(self) -> None:
        class Halved(TensorCall):
            def capture(self, model: nn.Module, batch: Any, view: str) -> Any:
                return model(batch[view] / 2)

        plain, halved, (x, y) = Net(8), Net(8), data()
        matches = {name: Match(KLDivergenceLoss(), "fc", Tap("fc", of=name)) for name in ("plain", "halved")}
        calls = {"plain": TensorCall(), "halved": {"type": Halved}}
        distiller = make(teacher={"plain": plain, "halved": halved}, matches=matches, teacher_call=calls).eval()
        found, student = distiller(x, y), distiller.student(x)
        torch.testing.assert_close(found["loss/plain"], kl_divergence_loss(student, plain.eval()(x)))
        torch.testing.assert_close(found["loss/halved"], kl_divergence_loss(student, halved.eval()(x / 2)))

    def test_freeze_of_unknown_module(self) -> None:
        with pytest.raises(TapError, match="did you mean 'body'"):
            make(freeze=("bod",))


class TestBadBatches:
    def test_label_out_of_range(self) -> None:
        x, y = data()
        y[2] = 3
        with pytest.raises(TargetError, match="targets must hold labels from 0 to 2 .*, got 3 at position 2"):
            make()(x, y)

    def test_targets_of_another_shape(self) -> None:
        x, y = data()
        with pytest.raises(ShapeError, match=r"targets must have shape \(6,\) to fit logits .*, got \(5,\)"):
            make()(x, y[:5])

    def test_task_loss_of_another_kind(self) -> None:
        x, y = data()
        with pytest.raises(MatchError, match=r"BCEWithLogitsLoss failed on an output \(6, 3\) and targets \(6,\)"):
            make(task_loss=nn.BCEWithLogitsLoss())(x, y.float())

    def test_nan_is_traced_to_the_match_and_the_tensor(self) -> None:
        distiller = make(task_loss=None)
        with torch.no_grad():
            distiller.teacher.model.fc.bias[1] = float("nan")
        with pytest.raises(NonFiniteError, match=r"match 'kd': teacher_logits of shape \(6, 3\) holds NaN in 6 of 6"):
            distiller(data()[0])

    def test_nan_in_a_foreign_loss_names_the_tap(self) -> None:
        distiller = make(task_loss=None, matches={"mse": Match(nn.MSELoss(), "fc", "fc")})
        x = data()[0]
        with torch.no_grad():
            distiller.teacher.model.fc.bias[1] = float("inf")
        with pytest.raises(NonFiniteError, match="match 'mse': tap 'teacher:fc' of shape .* holds infinity"):
            distiller(x)

    def test_nan_in_the_task_loss_is_named(self) -> None:
        x, y = data()
        distiller = make(matches={})
        with torch.no_grad():
            distiller.student.fc.weight.fill_(float("nan"))
        with pytest.raises(NonFiniteError, match="loss/task is NaN or infinite"):
            distiller(x, y)

    def test_empty_batch(self) -> None:
        distiller = make(task_loss=None).eval()
        losses = distiller(torch.zeros(0, 5))
        assert float(losses["loss/kd"].detach()) == 0.0
        losses["loss/kd"].backward()

    def test_shape_mismatch_on_the_first_step(self) -> None:
        with pytest.raises(
            MatchError,
            match="match 'mse': MSELoss failed on student 'student:body' .6, 4., teacher 'teacher:body' .6, 8.",
        ):
            make(matches={"mse": Match(nn.MSELoss(), "body", "body")})(*data())


class TestCheck:
    def test_rows(self) -> None:
        (row,) = make().check(*data())
        assert (row.match, row.student, row.teacher) == ("kd", "student:fc (6, 3)", "teacher:fc (6, 3)")
        assert row.weight == 0.9
        assert row.loss > 0

    def test_wrong_shapes_name_the_match(self) -> None:
        matches = {"hint": Match(KLDivergenceLoss(), Tap("body", at="output"), Tap("body", at="input"))}
        with pytest.raises(ShapeError, match=r"match 'hint': .*\(6, 4\) and \(6, 5\)"):
            make(matches=matches).check(*data())

    def test_leaves_no_trace(self) -> None:
        past = PastSelf(6, 3, logits="fc")
        matches = {"kd": kd(), "past": Match(nn.MSELoss(), "fc", Tap("", of="past"))}
        matches["kd"] = Match(KLDivergenceLoss(), "fc", Tap("fc", of="big"))
        distiller = make(teacher={"big": Net(8), "past": past}, matches=matches).train()
        before = {name: value.clone() for name, value in distiller.state_dict().items()}
        x, y = data()
        generator = torch.get_rng_state()
        distiller.check(inputs=x, targets=y, ids=torch.arange(6))
        assert all(torch.equal(distiller.state_dict()[name], value) for name, value in before.items())
        assert torch.equal(torch.get_rng_state(), generator)
        assert not past.seen.any()


class TestWeights:
    def test_scheduled_weight_follows_progress(self) -> None:
        distiller = make(matches={"kd": kd(Linear(1.0, 0.0))}).eval()
        x, y = data()
        values = []
        for step in (0, 5):
            distiller.set_progress(Progress(step=step, epoch=0, max_steps=10, max_epochs=1))
            values.append(float(distiller(x, y)["loss/kd"]))
        assert values[1] == pytest.approx(values[0] / 2)

    def test_task_weight(self) -> None:
        x, y = data()
        distiller = make(task_weight=0.1).eval()
        torch.testing.assert_close(distiller(x, y)["loss/task"], 0.1 * cross_entropy(distiller.student(x), y))

    def test_teacher_rests_when_nothing_weighs(self) -> None:
        distiller = make(matches={"kd": kd(0.0)})
        calls = []
        distiller.teacher.model.register_forward_hook(lambda *_: calls.append(1))
        assert float(distiller(*data())["loss/kd"]) == 0.0
        assert not calls


class TestFreeze:
    def test_frozen_part_stays(self) -> None:
        distiller = make(freeze=("body", "norm")).train()
        mean = distiller.student.norm.running_mean.clone()
        sum(distiller(*data()).values()).backward()
        assert distiller.student.body.weight.grad is None
        assert not distiller.student.norm.training
        assert torch.equal(distiller.student.norm.running_mean, mean)
        assert distiller.student.fc.weight.grad is not None


class TestRegimes:
    def test_self_distillation(self) -> None:
        matches = {"self": Match(nn.MSELoss(), "body", Tap("norm", of="student"))}
        losses = make(teacher=None, matches=matches)(*data())
        losses["loss/self"].backward()

    def test_several_teachers(self) -> None:
        matches = {name: Match(KLDivergenceLoss(), "fc", Tap("fc", of=name)) for name in ("a", "b")}
        distiller = make(teacher={"a": Net(6), "b": Net(7)}, matches=matches).eval()
        x, y = data()
        losses = distiller(x, y)
        for name in ("a", "b"):
            expected = kl_divergence_loss(distiller.student(x), distiller.teachers[name](x))
            torch.testing.assert_close(losses[f"loss/{name}"], expected)

    def test_deep_mutual_learning(self) -> None:
        """Each peer: cross-entropy plus KL from the other, detached."""
        peers, (x, y) = Peers(Net(), Net(8)), data()
        matches = {
            "a_from_b": Match(KLDivergenceLoss(), "a.fc", Tap("b.fc", of="student")),
            "b_from_a": Match(KLDivergenceLoss(), "b.fc", Tap("a.fc", of="student")),
        }
        distiller = make(student=peers, teacher=None, matches=matches).eval()
        losses = distiller(x, y)
        a, b = peers.a(x), peers.b(x)
        torch.testing.assert_close(losses["loss/task.b"], cross_entropy(b, y))
        torch.testing.assert_close(losses["loss/a_from_b"], kl_divergence_loss(a, b))
        gradient = torch.autograd.grad(losses["loss/a_from_b"], peers.b.fc.weight, allow_unused=True)[0]
        assert gradient is None
        torch.testing.assert_close(distiller(x, mode="predict"), a)

    def test_past_self(self) -> None:
        past = PastSelf(6, 3, logits="fc")
        distiller = make(
            teacher={"past": past}, matches={"past": Match(nn.MSELoss(), "fc", Tap("", of="past"))}
        ).train()
        distiller.student.drop.p = 0.0
        x, y = data()
        first = distiller(x, y, torch.arange(6))
        torch.testing.assert_close(first["loss/past"], mse_loss(distiller.student(x), nn.functional.one_hot(y).float()))
        torch.testing.assert_close(past.recall({"ids": torch.arange(6), "targets": y}), distiller.student(x).softmax(1))

    def test_past_self_is_not_written_in_evaluation(self) -> None:
        past = PastSelf(6, 3, logits="fc")
        distiller = make(teacher={"past": past}, matches={"past": Match(nn.MSELoss(), "fc", Tap("", of="past"))}).eval()
        distiller(*data(), torch.arange(6))
        assert not past.seen.any()

    def test_ema_teacher_from_a_config_gets_the_student(self) -> None:
        distiller = make(teacher=dict(type=EMATeacher, momentum=0.5))
        assert torch.equal(distiller.teacher.model.fc.weight, distiller.student.fc.weight)
        assert distiller.teacher.model is not distiller.student
        state = distiller.state_dict_extra()
        assert list(state["teachers"]) == ["teacher"]
        other = make(teacher=dict(type=EMATeacher, momentum=0.5))
        other.load_state_dict_extra(state)
        assert torch.equal(other.teacher.model.fc.weight, distiller.student.fc.weight)

    def test_missing_teacher_state_is_told(self) -> None:
        with pytest.raises(MatchError, match="holds no state of the teacher 'teacher'"):
            make(teacher=dict(type=EMATeacher)).load_state_dict_extra({})

    def test_subclass_writes_its_own_losses(self) -> None:
        class Own(Distiller):
            def compute_losses(self, batch: Any, weights: Any) -> dict[str, Tensor]:
                return {"loss/gap": (self.read("mine") - self.read("theirs")).abs().mean()}

        taps = {"mine": Tap("fc", of="student"), "theirs": Tap("fc", of="teacher")}
        distiller = Own(Net(), Net(8), task_loss=nn.CrossEntropyLoss(), taps=taps).eval()
        x, y = data()
        expected = (distiller.student(x) - distiller.teacher(x)).abs().mean()
        torch.testing.assert_close(distiller(x, y)["loss/gap"], expected)
        with pytest.raises(TapError, match="can be read only during a step"):
            distiller.read("mine")


class TestConfigForm:
    def test_everything_from_plain_dictionaries(self) -> None:
        distiller = Distiller(
            student=dict(type=Net, width=4),
            teacher=dict(type=Net, width=8),
            task_loss=dict(type=nn.CrossEntropyLoss),
            matches=dict(
                kd=dict(type=Match, loss=dict(type=KLDivergenceLoss, temperature=4.0), student="fc", teacher="fc")
            ),
        )
        assert set(distiller(*data())) == {"loss/task", "loss/kd"}

    def test_init_weights_draws_nothing(self) -> None:
        """Tried: Runner calls init_weights, and BaseModel's would draw a timm model's tensors again."""
        distiller = make()
        before = {name: value.clone() for name, value in distiller.state_dict().items()}
        distiller.init_weights()
        assert all(torch.equal(distiller.state_dict()[name], value) for name, value in before.items())


class TestCompile:
    """With the tracer's eager backend: what matters is that the taps are read inside the graph."""

    def expected(self, distiller: Distiller, x: Tensor, y: Tensor) -> Tensor:
        return 0.9 * kl_divergence_loss(distiller.student(x), distiller.teacher(x), temperature=4.0)

    def test_student_compiled_before(self) -> None:
        torch._dynamo.reset()
        student, (x, y) = Net().eval(), data()
        distiller = make(student=torch.compile(student, backend="eager")).eval()
        for _ in range(2):
            torch.testing.assert_close(distiller(x, y)["loss/kd"], self.expected(distiller, x, y))

    def test_student_compiled_in_place_afterwards(self) -> None:
        torch._dynamo.reset()
        distiller, (x, y) = make().eval(), data()
        distiller.student.compile(backend="eager")
        for _ in range(2):
            torch.testing.assert_close(distiller(x, y)["loss/kd"], self.expected(distiller, x, y))

    def test_student_that_ran_compiled_before_it_was_tapped(self) -> None:
        """The graph was captured without hooks; reading must not go silent or stale."""
        torch._dynamo.reset()
        student, (x, y) = torch.compile(Net().eval(), backend="eager"), data()
        student(x)
        distiller = make(student=student).eval()
        for _ in range(2):
            torch.testing.assert_close(distiller(x, y)["loss/kd"], self.expected(distiller, x, y))

    def test_whole_distiller(self) -> None:
        torch._dynamo.reset()
        distiller, (x, y) = make().eval(), data()
        compiled = torch.compile(distiller, backend="eager")
        for _ in range(2):
            torch.testing.assert_close(compiled(x, y)["loss/kd"], self.expected(distiller, x, y))
