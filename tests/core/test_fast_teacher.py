"""A fast teacher says what the plain one says, and chooses by what it measured."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from limbeck_core import fast_teacher
from limbeck_core.bank.storage import Bank
from limbeck_core.bank.teacher import BankTeacher
from limbeck_core.bank.writing import BankWriter
from limbeck_core.distiller import Distiller
from limbeck_core.engine.config import load_config
from limbeck_core.engine.loop import EpochLoop
from limbeck_core.engine.runner import Runner
from limbeck_core.errors import ConfigError
from limbeck_core.fast_teacher import FastTeacher, Trial
from limbeck_core.match import Match
from limbeck_core.tap import Tap
from limbeck_core.teacher import FrozenTeacher


class Block(nn.Module):
    """A convolution and its normalisation with a shortcut, as residual networks have."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(features)) + features)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.block = Block(8)
        self.neck = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
        self.fc = nn.Linear(8, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.fc(self.neck(self.block(self.stem(inputs)).mean((2, 3))))


def net() -> Net:
    torch.manual_seed(2)
    model = Net()
    with torch.no_grad():
        model.train()(torch.randn(64, 3, 7, 7) * 2 + 1)
    return model


def distiller(teacher: Any, tap: str | Tap = "fc", **taps: Tap) -> Distiller:
    torch.manual_seed(4)
    return Distiller(
        Net(), teacher, {"x": Match(nn.MSELoss(), tap if isinstance(tap, str) else tap.path, tap)}, taps=taps
    )


BATCH = {"inputs": torch.randn(6, 3, 7, 7, generator=torch.Generator().manual_seed(1))}


def values(model: Distiller, times: int = 2) -> Tensor:
    for _ in range(times):
        found = model.read_teachers(BATCH, ["teacher"])["teacher"]
    return next(iter(found.values()))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Gains that trials measure, by name of the last speed-up; 1.5 unless the test says otherwise."""
    gains: dict[str, float] = {}

    def gain(self: FastTeacher, recorder: Any, call: Any, batch: Any, view: str, before: Any, after: Any) -> float:
        return gains.get(after[1][-1], 1.5)

    monkeypatch.setattr(FastTeacher, "_gain", gain)
    return gains


class TestSameValues:
    @pytest.mark.parametrize("choice", [(), ("fold",), ("channels_last",), ("channels_last", "fold", "inference_mode")])
    @pytest.mark.parametrize("tap", ["fc", "stem", "stem.1", "block.bn", "block", "neck"])
    def test_whatever_is_chosen(self, choice: tuple[str, ...], tap: str) -> None:
        live, fast = distiller(net(), tap), distiller(FastTeacher(net(), choice=choice), tap)
        torch.testing.assert_close(values(fast), values(live), rtol=1e-5, atol=1e-5)
        loss = fast(BATCH["inputs"])["loss/x"]
        loss.backward()
        assert loss.requires_grad

    def test_folding_leaves_no_normalisation(self) -> None:
        model = distiller(FastTeacher(net(), choice=["fold"]))
        values(model)
        kinds = [type(m).__name__ for m in model.teacher.model.modules()]
        assert not [kind for kind in kinds if kind.startswith("BatchNorm")]
        assert kinds.count("Identity") == 3
        assert any(isinstance(m, nn.BatchNorm2d) for m in model.teacher.original.modules())

    @pytest.mark.parametrize(
        "tap",
        [
            Tap("block.conv", of="teacher"),
            Tap("block.bn", of="teacher", at="input"),
            Tap("block.conv.weight", of="teacher"),
            Tap("block.bn.weight", of="teacher"),
        ],
    )
    def test_what_a_tap_looks_at_is_not_folded(self, tap: Tap) -> None:
        live, fast = (
            Distiller(Net(), t, {"x": Match(nn.MSELoss(), "fc", "fc")}, taps={"extra": tap})
            for t in (net(), FastTeacher(net(), choice=["fold"]))
        )
        found = [m.read_teachers(BATCH, ["teacher"])["teacher"] for m in (live, fast)]
        torch.testing.assert_close(found[1][tap], found[0][tap])
        assert isinstance(fast.teacher.model.block.bn, nn.BatchNorm2d)
        assert isinstance(fast.teacher.model.stem[1], nn.Identity)

    def test_values_under_inference_mode_may_enter_a_loss(self) -> None:
        model = distiller(FastTeacher(net(), choice=["inference_mode"]))
        assert not any(v.is_inference() for v in (values(model, 1), values(model, 1)))
        assert model.teacher.inference_mode

    def test_compiled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fast_teacher, "_compile", lambda model: model.compile(backend="eager"))
        live, fast = distiller(net(), "block"), distiller(FastTeacher(net(), choice=["fold", "compile"]), "block")
        torch.testing.assert_close(values(fast), values(live))
        assert fast.teacher.model._compiled_call_impl is not None
        torch.compiler.reset()

    def test_low_precision(self) -> None:
        live, fast = distiller(net()), distiller(FastTeacher(net(), choice=["bfloat16"]))
        error = float((values(fast).float() - values(live)).abs().max() / values(live).abs().max())
        assert 0 < error < 0.05


class TestFolding:
    """Only where nothing else reads what stands between."""

    def pairs(self, model: nn.Module, tap: str = "") -> list[tuple[str, str]]:
        built = Distiller(
            model, FastTeacher(copy.deepcopy(model), choice=["fold"]), {"x": Match(nn.MSELoss(), tap, tap)}
        )
        teacher = built.teacher
        assert isinstance(teacher, FastTeacher)
        return teacher._foldable(built._recorders["teacher"], built.call, BATCH, "inputs")

    def test_in_sequence_and_across_modules(self) -> None:
        assert self.pairs(net()) == [("stem.0", "stem.1"), ("block.conv", "block.bn"), ("neck.0", "neck.1")]

    def test_a_layer_that_runs_twice(self) -> None:
        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.bn = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

            def forward(self, inputs: Tensor) -> Tensor:
                return self.bn(self.conv(self.conv(inputs)))

        assert self.pairs(Twice()) == []

    def test_layers_with_another_weight_than_they_show(self) -> None:
        convolution = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3))
        assert self.pairs(nn.Sequential(convolution, nn.BatchNorm2d(3))) == []
        assert self.pairs(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, track_running_stats=False))) == []
        assert self.pairs(nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.BatchNorm2d(3))) == []

    def test_a_shortcut_around_the_normalisation_is_found_by_its_values(self, measured: dict[str, float]) -> None:
        class Around(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.bn = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

            def forward(self, inputs: Tensor) -> Tensor:
                between = self.conv(inputs)
                return self.bn(between) + between

        torch.manual_seed(1)
        model = Around()
        model.bn.running_var.fill_(4.0)
        built = Distiller(
            copy.deepcopy(model), FastTeacher(model, speedups=["fold"]), {"x": Match(nn.MSELoss(), "", "")}
        )
        values(built)
        teacher = built.teacher
        assert isinstance(teacher, FastTeacher)
        assert teacher.choice == ()
        assert teacher.trials[0].error > 0.1
        assert "more than the tolerance" in teacher.explain()


class TestChoosing:
    def chosen(self, **options: Any) -> FastTeacher:
        model = distiller(FastTeacher(net(), **options))
        values(model)
        teacher = model.teacher
        assert isinstance(teacher, FastTeacher)
        return teacher

    def test_what_is_faster_is_kept(self, measured: dict[str, float]) -> None:
        measured.update(fold=1.01, inference_mode=2.0)
        teacher = self.chosen()
        assert teacher.choice == ("channels_last", "inference_mode")
        assert [(t.name, t.kept) for t in teacher.trials] == [
            ("channels_last", True),
            ("fold", False),
            ("inference_mode", True),
        ]
        lines = teacher.explain().splitlines()
        assert lines[0].startswith("channels_last: 1.50x, off by ")
        assert lines[1].endswith("left out: no faster here")

    def test_low_precision_needs_a_tolerance(self, measured: dict[str, float]) -> None:
        assert self.chosen(speedups=["bfloat16"]).trials == []
        assert self.chosen(speedups=["bfloat16", "float16"], tolerance=0.05).choice == ("bfloat16",)
        strict = self.chosen(speedups=["bfloat16"], tolerance=1e-3)
        assert strict.choice == ()
        assert strict.trials[0].error > 1e-3

    def test_what_fails_is_left_out(self, measured: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(model: nn.Module) -> None:
            raise RuntimeError("no compiler")

        monkeypatch.setattr(fast_teacher, "_compile", broken)
        teacher = self.chosen(speedups=["compile", "inference_mode"])
        assert teacher.choice == ("inference_mode",)
        assert teacher.explain().splitlines()[0] == (
            "compile: not timed, off by inf, left out: RuntimeError: no compiler"
        )

    def test_measured_for_good(self) -> None:
        """Nothing is faked: at least three pairs, a gain that is a number, and values that are the plain ones."""
        teacher = self.chosen(seconds=0.05)
        assert {trial.name for trial in teacher.trials} == {"channels_last", "fold", "inference_mode"}
        assert all(trial.gain and 0.05 < trial.gain < 20 and trial.error < 1e-5 for trial in teacher.trials)
        kept = tuple(trial.name for trial in teacher.trials if trial.kept)
        assert teacher.choice == teacher._applied == kept

    def test_a_real_gain_is_seen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import time

        class Slow(nn.BatchNorm2d):
            pass

        def slow(self: nn.BatchNorm2d, features: Tensor) -> Tensor:
            time.sleep(0.004)
            return nn.functional.batch_norm(features, self.running_mean, self.running_var, self.weight, self.bias)

        monkeypatch.setattr(nn.BatchNorm2d, "forward", slow)
        teacher = self.chosen(speedups=["fold"], seconds=0.1)
        assert teacher.choice == ("fold",)
        assert teacher.trials[0].gain is not None
        assert teacher.trials[0].gain > 1.5

    def test_nothing_is_tried_where_algorithms_must_be_deterministic(self) -> None:
        torch.use_deterministic_algorithms(True)
        try:
            teacher = self.chosen()
        finally:
            torch.use_deterministic_algorithms(False)
        assert (teacher.choice, teacher.trials) == ((), [])
        assert teacher.explain() == "runs with no speed-up, as told"

    def test_nothing_is_tried_while_the_matches_rest(self, measured: dict[str, float]) -> None:
        teacher = FastTeacher(net())
        model = Distiller(Net(), teacher, {"x": Match(nn.MSELoss(), "fc", "fc", weight=0.0)})
        model(BATCH["inputs"])
        assert teacher.choice is None

    @pytest.mark.parametrize(
        ("options", "kind", "sentence"),
        [
            ({"speedups": ["folding"]}, ConfigError, "FastTeacher knows no speed-up 'folding': did you mean 'fold'"),
            ({"choice": ["int8"]}, ConfigError, "FastTeacher knows no speed-up 'int8': it has: channels_last, fold"),
            ({"tolerance": 0.0}, ValueError, "tolerance must be a finite number above 0"),
            ({"seconds": -1}, ValueError, "seconds must be a finite number above 0"),
        ],
    )
    def test_arguments(self, options: dict[str, Any], kind: type[Exception], sentence: str) -> None:
        with pytest.raises(kind, match=sentence):
            FastTeacher(net(), **options)


class TestState:
    def test_weights_are_in_no_checkpoint_and_follow_the_model(self, measured: dict[str, float]) -> None:
        model = distiller(FastTeacher(FrozenTeacher(net())))
        values(model)
        assert model.state_dict_extra() == {
            "teachers": {"teacher": {"choice": ["channels_last", "fold", "inference_mode"]}}
        }
        assert not [name for name in model.state_dict() if "teacher" in name]
        model.double()
        teacher = model.teacher
        assert isinstance(teacher, FastTeacher)
        for part in (teacher.model, teacher.original):
            assert {p.dtype for p in part.parameters()} == {torch.float64}
        assert not any(p.requires_grad for p in teacher.parameters())

    def test_a_choice_that_comes_back_is_used(self, measured: dict[str, float]) -> None:
        model = distiller(FastTeacher(net()))
        values(model)
        teacher = model.teacher
        assert isinstance(teacher, FastTeacher)
        model.load_state_dict_extra({"teachers": {"teacher": {"choice": ["fold"]}}})
        values(model)
        assert teacher._applied == ("fold",)
        model.load_state_dict_extra({"teachers": {"teacher": {"choice": None}}})
        values(model)
        assert teacher.choice == ("channels_last", "fold", "inference_mode")

    def test_a_check_leaves_no_trace(self, measured: dict[str, float]) -> None:
        model = distiller(FastTeacher(net()))
        model.check(BATCH["inputs"])
        assert model.state_dict_extra() == {"teachers": {"teacher": {"choice": None}}}

    def test_prediction_is_that_of_the_fast_model(self, measured: dict[str, float]) -> None:
        model = distiller(FastTeacher(net()))
        values(model)
        torch.testing.assert_close(model.predict_teacher("teacher", BATCH), net().eval()(BATCH["inputs"]))


class Points(Dataset[Any]):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"inputs": torch.randn(3, 7, 7, generator=torch.Generator().manual_seed(index)), "targets": index % 5}


class TestRuns:
    def config(self, folder: Path, teacher: Any, **options: Any) -> dict[str, Any]:
        return {
            "model": {
                "type": Distiller,
                "student": {"type": net},
                "teacher": teacher,
                "task_loss": {"type": nn.CrossEntropyLoss},
                "matches": {"x": {"type": Match, "loss": {"type": nn.MSELoss}, "student": "fc", "teacher": "fc"}},
            },
            "work_dir": str(folder),
            "train_dataloader": {"dataset": {"type": Points}, "batch_size": 4},
            "train_cfg": {"type": EpochLoop, "max_epochs": 2},
            "optim_wrapper": {"optimizer": {"type": torch.optim.SGD, "lr": 0.01}},
            "default_hooks": {"progress_bar": None},
            "randomness": {"seed": 4},
            "log_level": "INFO",
        } | options

    @pytest.fixture
    def written(self, tmp_path: Path) -> Callable[[str], Path]:
        """A config as a file, with this test's pieces importable from it."""
        (tmp_path / "config.py").write_text(
            "from limbeck_core import Distiller, Match\n"
            "from limbeck_core.engine import EpochLoop\n"
            "from limbeck_core.fast_teacher import FastTeacher\n"
            "from cli_toys import Accuracy, Points, linear\n"
            "from torch.nn import CrossEntropyLoss, MSELoss\n"
            "from torch.optim import SGD\n"
            "train_dataloader = dict(batch_size=8, dataset=dict(type=Points, root='points'))\n"
            "val_dataloader = dict(batch_size=8, dataset=dict(type=Points, root='points', samples=20))\n"
            "train_cfg = dict(type=EpochLoop, max_epochs=2)\n"
            "val_cfg = dict()\n"
            "val_evaluator = dict(type=Accuracy)\n"
            "optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.5))\n"
            "default_hooks = dict(progress_bar=None)\n"
            "randomness = dict(seed=3)\n"
            "model = dict(type=Distiller, student=dict(type=linear),\n"
            "    teacher=dict(type=FastTeacher, model=dict(type=linear)), task_loss=dict(type=CrossEntropyLoss),\n"
            "    matches=dict(x=dict(type=Match, loss=dict(type=MSELoss), student='fc', teacher='fc')))\n"
        )

        def run(work: str) -> Path:
            from limbeck_core.engine.commands import train

            train(tmp_path / "config.py", work_dir=tmp_path / work)
            return tmp_path / work

        return run

    def test_the_choice_is_in_the_log_and_in_the_config_that_is_left(
        self, written: Callable[[str], Path], measured: dict[str, float]
    ) -> None:
        work = written("work")
        left = load_config(work / "config.py")
        assert left.model.teacher.choice == ["channels_last", "inference_mode"]
        log = "".join(path.read_text() for path in work.glob("*/*.log"))
        assert "teacher 'teacher' runs with channels_last, inference_mode\nchannels_last: 1.50x" in log
        # a frozen teacher is judged once a run, a moving one each time
        assert log.count("teacher/top1") == 2

    def test_a_resumed_run_does_not_decide_anew(self, tmp_path: Path, measured: dict[str, float]) -> None:
        teacher = FastTeacher(net())
        Runner(**(self.config(tmp_path, None) | {"model": self.model(teacher)})).train()
        assert teacher.choice == ("channels_last", "fold", "inference_mode")
        measured.update(fold=0.5)
        again = FastTeacher(net())
        more = self.config(tmp_path, None, train_cfg={"type": EpochLoop, "max_epochs": 3}, resume=True)
        Runner(**(more | {"model": self.model(again)})).train()
        assert again.choice == teacher.choice
        assert again.trials == []

    def model(self, teacher: FastTeacher) -> Distiller:
        return Distiller(net(), teacher, {"x": Match(nn.MSELoss(), "fc", "fc")}, task_loss=nn.CrossEntropyLoss())

    def test_the_choice_is_part_of_the_key_of_a_bank(self, tmp_path: Path, measured: dict[str, float]) -> None:
        loader = {"dataset": Points(), "batch_size": 4}
        assert BankWriter(self.model(FastTeacher(net())), loader, tmp_path / "b").write()
        key = Bank(tmp_path / "b").manifest.key["teacher"]
        assert key["speedups"] == ["channels_last", "fold", "inference_mode"]
        measured.update(fold=0.5)
        later = FastTeacher(net())
        assert BankWriter(self.model(later), loader, tmp_path / "b").verify() == []
        assert list(later.choice or ()) == key["speedups"], "a bank that was begun goes on as it was begun"
        for source in (net(), FastTeacher(net()), later):
            BankTeacher(tmp_path / "b", source)


def test_a_trial_in_words() -> None:
    assert str(Trial("fold", 1.234, 2e-6, True)) == "fold: 1.23x, off by 2.0e-06, kept"
