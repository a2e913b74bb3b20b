"""The runner by itself: what resuming stands on, what it refuses, and what a run leaves behind."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook as MMCheckpointHook
from mmengine.hooks import EarlyStoppingHook as MMEarlyStoppingHook
from mmengine.hooks import EMAHook as MMEMAHook
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop
from mmengine.runner import Runner as MMRunner
from torch import nn

import engine_toys
from engine_toys import Accuracy, Augmented, Plan, ToyDistiller, remembered
from limbeck_core.engine import CheckpointHook, EarlyStoppingHook, EMAHook, EMATeacherHook, EpochLoop, StepLoop
from limbeck_core.engine.checkpoints import load_student, read_checkpoint
from limbeck_core.engine.loop import TrainLoop, ValLoop
from limbeck_core.engine.runner import Runner
from limbeck_core.errors import CheckpointError, ConfigError


class Crash(Exception):
    """Stands for a kill where the test itself has to live on."""


class Crasher(Hook):
    priority = "LOWEST"

    def __init__(self, step: int) -> None:
        self.step = step

    def save_point(self, runner: Any, moment: str) -> None:
        if runner.iter == self.step and moment == "step":
            raise Crash


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def runner(folder: Path, **changes: Any) -> Runner:
    plan = {name: changes.pop(name) for name in list(changes) if name in Plan.__dataclass_fields__}
    hooks = changes.pop("hooks", [])
    config = Plan(str(folder), **plan).config() | changes
    config["custom_hooks"] = [*config["custom_hooks"], *hooks]
    torch.manual_seed(1)
    random.seed(1)
    config["model"] = changes.get("model") or ToyDistiller()
    return Runner(**config)


# ---------------------------------------------------------------------- what resuming stands on

MIDDLE = {"accumulate": 4, "every_steps": 3}  # the checkpoint at step 9 is inside an epoch and inside a group


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("straight")
    runner(folder, **MIDDLE).train()
    return remembered(folder)


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crashed")
    with pytest.raises(Crash):
        runner(folder, **MIDDLE, hooks=[Crasher(10)]).train()
    return folder


def resumed(crashed: Path, folder: Path) -> dict[str, str]:
    shutil.copytree(crashed, folder, dirs_exist_ok=True)
    runner(folder, **MIDDLE).train()
    return remembered(folder)


def test_control_nothing_is_taken_away(straight: Any, crashed: Path, tmp_path: Path) -> None:
    assert (crashed / "last_checkpoint").read_text() == "step_9.pth"
    assert resumed(crashed, tmp_path) == straight


def forget(*_: Any, **__: Any) -> None:
    return None


def repeat_the_epoch(loop: TrainLoop, state: Any) -> None:
    loop._epoch, loop._position = state["epoch"], 0
    loop._iter = loop._epoch * loop.batches_per_epoch


def plan_from_zero(original: Callable[..., None]) -> Callable[..., None]:
    return lambda wrapper, done, total: original(wrapper, 0, total)


NAIVE = {
    "generators are not restored": ("limbeck_core.engine.loop.restore_generators", forget),
    "partial gradients are lost": ("limbeck_core.engine.loop.restore_gradients", forget),
    "the epoch is repeated": ("limbeck_core.engine.loop.TrainLoop.load_state_dict", repeat_the_epoch),
    "schedulers start anew": ("limbeck_core.engine.runner.Runner._restore_schedulers", forget),
    "the average starts anew": ("limbeck_core.engine.hooks.EMAHook.load_state_dict_extra", forget),
    "the teacher starts anew": ("engine_toys.ToyDistiller.load_state_dict_extra", forget),
    "files and best score are forgotten": ("limbeck_core.engine.hooks.CheckpointHook.load_state_dict_extra", forget),
    "logs start anew": ("limbeck_core.engine.runner.restore_messages", forget),
    "the optimiser starts anew": ("mmengine.optim.OptimWrapper.load_state_dict", forget),
}


@pytest.mark.parametrize("fault", NAIVE)
def test_each_part_is_needed(
    fault: str, straight: Any, crashed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above would see each of these faults."""
    monkeypatch.setattr(*NAIVE[fault])
    assert resumed(crashed, tmp_path) != straight


def test_counting_batches_from_zero_would_shift_the_groups(
    straight: Any, crashed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from limbeck_core.engine import loop

    monkeypatch.setattr(loop, "plan_accumulation", plan_from_zero(loop.plan_accumulation))
    assert resumed(crashed, tmp_path)["student"] != straight["student"]


def test_checkpoints_of_mmengine_itself_do_not_load(tmp_path: Path) -> None:
    """What the stock runner writes: PyTorch refuses it, and inside an epoch nothing is known."""
    config = Plan(str(tmp_path), every_steps=None).config()
    config |= {"train_cfg": {"by_epoch": True, "max_epochs": 1}, "custom_hooks": [], "resume": False}
    config |= {"val_dataloader": None, "val_cfg": None, "val_evaluator": None, "default_hooks": {}}
    config["train_dataloader"] |= {"sampler": {"type": "DefaultSampler"}, "collate_fn": {"type": "default_collate"}}
    config["model"] = Plain()
    MMRunner(**config).train()
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "epoch_1.pth", weights_only=True)
    content = torch.load(tmp_path / "epoch_1.pth", weights_only=False)
    assert sorted(content) == ["message_hub", "meta", "optimizer", "param_schedulers", "state_dict"]


class Plain(ToyDistiller):
    """For the stock runner, which adds no ids and sets no progress."""

    def forward(self, inputs: Any, targets: Any, mode: str = "tensor") -> Any:  # type: ignore[override]
        logits = self.student(inputs)
        return {"loss": nn.functional.cross_entropy(logits, targets)} if mode == "loss" else logits


# ---------------------------------------------------------------------- streams


def weights_after(folder: Path, **changes: Any) -> torch.Tensor:
    trained = runner(folder, length=2, **changes)
    trained.train()
    return torch.cat([p.detach().flatten() for p in trained.model.student.parameters()])


NO_VALIDATION = {"val_dataloader": None, "val_cfg": None, "val_evaluator": None}


def test_validation_does_not_consume_the_training_stream(tmp_path: Path) -> None:
    quiet = {"checkpoint": {"type": CheckpointHook}}
    with_validation = weights_after(tmp_path / "a", default_hooks=quiet)
    assert torch.equal(with_validation, weights_after(tmp_path / "b", default_hooks=quiet, **NO_VALIDATION))


def test_unguarded_validation_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck_core.engine.loop.isolated", lambda seed=None: nullcontext())
    monkeypatch.setattr("limbeck_core.engine.sampler.isolated", lambda seed=None: nullcontext())
    monkeypatch.setattr("limbeck_core.engine.sampler.seed_generators", lambda seed: None)
    quiet = {"checkpoint": {"type": CheckpointHook}}
    with_validation = weights_after(tmp_path / "a", default_hooks=quiet)
    assert not torch.equal(with_validation, weights_after(tmp_path / "b", default_hooks=quiet, **NO_VALIDATION))


def test_construction_does_not_move_the_training_stream(tmp_path: Path) -> None:
    """What was drawn before training, by a model with more layers to initialise, say, is not felt."""

    def trained(folder: Path, drawn: int) -> torch.Tensor:
        ready = runner(folder, length=1)
        torch.rand(drawn)
        ready.train()
        return torch.cat([p.detach().flatten() for p in ready.model.student.parameters()])

    assert torch.equal(trained(tmp_path / "a", 1), trained(tmp_path / "b", 100))


def test_the_model_sees_every_sample_once_an_epoch_and_where_the_run_stands(tmp_path: Path) -> None:
    trained = runner(tmp_path, length=2)
    trained.train()
    model = trained.model
    for epoch in range(2):
        seen = [i for batch in model.seen[epoch * 6 : epoch * 6 + 6] for i in batch]
        assert sorted(seen) == list(range(22))
    progress = model.progress
    assert (progress.step, progress.epoch, progress.max_steps, progress.max_epochs) == (11, 1, 12, 2)


def test_steps_go_over_the_data_again(tmp_path: Path) -> None:
    trained = runner(tmp_path, loop="step", length=3)
    trained.train()
    seen = trained.model.seen
    assert [len(batch) for batch in seen] == ([4] * 5 + [2]) * 2 + [4] * 5
    assert (trained.iter, trained.epoch, trained.max_epochs, trained.max_iters) == (17, 2, 3, 17)


def test_learning_rate_zero_keeps_every_weight(tmp_path: Path) -> None:
    """Construction decides the weights: nothing draws them again, though the model could."""

    class Redrawn(ToyDistiller):
        def init_weights(self) -> None:
            raise AssertionError("the runner drew the weights anew")

    torch.manual_seed(4)
    model = Redrawn()
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimiser = {"optimizer": {"type": torch.optim.SGD, "lr": 0.0}}
    runner(tmp_path, length=1, model=model, optim_wrapper=optimiser, param_scheduler=None).train()
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


# ---------------------------------------------------------------------- files of a run


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    trained = runner(tmp_path, length=2)
    trained.train()
    assert {p.name for p in tmp_path.iterdir() if p.suffix == ".pth"} == {
        "step_9.pth",
        "step_12.pth",
        "best_confidence.pth",
        "student.pth",
    }
    content = torch.load(tmp_path / "step_12.pth", weights_only=True)
    bare = engine_toys.Student()
    bare.load_state_dict(content["state_dict"])  # the student alone, under its own names
    assert sorted(content["limbeck"]["matches"]) == ["centre", "matches.kd.bias", "matches.kd.weight"]
    assert not any("teacher" in name for name in content["state_dict"])
    average = next(hook for hook in trained.hooks if isinstance(hook, EMAHook)).average
    exported = torch.load(tmp_path / "student.pth", weights_only=True)
    assert exported["meta"] == {"step": 12, "average": True}
    assert torch.equal(exported["state_dict"]["fc.weight"], average.fc.weight)
    assert not torch.equal(bare.fc.weight, average.fc.weight)
    load_student(bare, tmp_path / "step_12.pth", average=True)
    assert torch.equal(bare.fc.weight, average.fc.weight)
    assert (tmp_path / trained.timestamp / "vis_data").exists()


class Scores(Accuracy):
    """Scores that are known before: the best comes early."""

    VALUES = (0.2, 0.9, 0.4, 0.6)

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return {"score": self.VALUES[Scores.epoch]}


def test_the_best_score_survives(tmp_path: Path) -> None:
    """A run that forgot it would put a worse model in the place of the better one."""

    class Count(Hook):
        def before_val(self, runner: Any) -> None:
            Scores.epoch = runner.epoch - 1

    def ready(*hooks: Hook) -> Runner:
        checkpoint = {"checkpoint": {"type": CheckpointHook, "save_best": "score", "rule": "greater"}}
        return runner(
            tmp_path, length=4, val_evaluator={"type": Scores}, default_hooks=checkpoint, hooks=[Count(), *hooks]
        )

    with pytest.raises(Crash):
        ready(Crasher(14)).train()
    best = (tmp_path / "best_score.pth").read_bytes()
    ready().train()
    assert (tmp_path / "best_score.pth").read_bytes() == best
    ours = read_checkpoint(tmp_path / "step_24.pth")["limbeck"]["hooks"]["CheckpointHook"]
    assert (ours["best_score"], ours["best_step"]) == (0.9, 12)


def test_a_damaged_file_falls_back(
    straight: Any, crashed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(crashed, tmp_path, dirs_exist_ok=True)
    newest = tmp_path / "step_9.pth"
    newest.write_bytes(newest.read_bytes()[:2000])
    ready = runner(tmp_path, **MIDDLE)
    said: list[str] = []
    ready.logger.warning = said.append
    ready.train()
    assert any("step_9.pth" in line and "damaged" in line and "Falling back to step_6.pth" in line for line in said)
    assert remembered(tmp_path) == straight


def test_a_full_disk_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, said = os.fsync, []

    def full_until_step_10(handle: int) -> None:
        if ready.iter < 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    ready = runner(tmp_path, length=2)
    ready.logger.error = said.append
    monkeypatch.setattr("os.fsync", full_until_step_10)
    ready.train()
    assert any("could not be written" in line and "Training goes on" in line for line in said)
    assert sorted(p.name for p in tmp_path.glob("step_*")) == ["step_12.pth"]
    monkeypatch.setattr("os.fsync", lambda handle: full_until_step_10(-1))
    again = runner(tmp_path / "always_full", length=1)
    monkeypatch.setattr(type(again), "iter", 0)
    with pytest.raises(CheckpointError, match="could not be written .*No space left"):
        again.train()


def test_weights_to_start_from(tmp_path: Path, crashed: Path) -> None:
    """``load_from`` fills the student; a teacher that is its moving average starts from the same weights."""
    file = crashed / "step_9.pth"
    ready = runner(tmp_path, length=1, resume=False, load_from=str(file))
    teacher = ready.model.teachers["teacher"]
    teacher.follows = ""
    ready._train_loop = ready.build_train_loop(ready._train_loop)
    ready.load_or_resume()
    wanted = torch.load(file, weights_only=True)["state_dict"]
    assert torch.equal(ready.model.student.fc.weight, wanted["fc.weight"])
    assert torch.equal(teacher.model.fc.weight, wanted["fc.weight"])
    assert ready.iter == 0
    torch.save({"fc.weight": wanted["fc.weight"]}, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match=r"\d missing"):
        runner(tmp_path, resume=False).load_checkpoint(str(tmp_path / "part.pth"))
    lenient = runner(tmp_path, resume=False, cfg=Config({"partial": True}))
    assert lenient.load_checkpoint(str(tmp_path / "part.pth")).matched == ["fc.weight"]


def test_which_file_a_run_goes_on_from(tmp_path: Path, crashed: Path) -> None:
    def begun(folder: Path, load_from: Path | None) -> tuple[int, Any]:
        ready = runner(folder, **MIDDLE, load_from=str(load_from) if load_from else None)
        ready._train_loop = ready.build_train_loop(ready._train_loop)
        ready.optim_wrapper = ready.build_optim_wrapper(ready.optim_wrapper)
        ready.param_schedulers = ready.build_param_scheduler(ready.param_schedulers)
        ready.load_or_resume()
        return ready.iter, ready.model.student.fc.weight

    here = tmp_path / "here"
    shutil.copytree(crashed, here)
    assert begun(here, None)[0] == 9
    assert begun(here, here / "step_6.pth")[0] == 6  # chosen in its own folder
    assert begun(here, crashed / "step_6.pth")[0] == 9  # its own newest comes before another run's
    assert begun(tmp_path / "empty", crashed / "step_6.pth")[0] == 6
    step, weight = begun(tmp_path / "empty", crashed / "best_confidence.pth")  # no run in it: a beginning
    assert step == 0
    assert torch.equal(
        weight, torch.load(crashed / "best_confidence.pth", weights_only=True)["state_dict"]["fc.weight"]
    )


def test_a_file_of_weights_or_of_another_model_is_not_resumed_from(tmp_path: Path, crashed: Path) -> None:
    with pytest.raises(CheckpointError, match="holds weights only and no state of a run"):
        runner(tmp_path / "a").resume(str(crashed / "best_confidence.pth"))

    class Wider(ToyDistiller):
        def __init__(self) -> None:
            super().__init__()
            self.student.head = nn.Linear(2, 2)

    with pytest.raises(CheckpointError, match=r"had another model: .*2 missing \(student\.head"):
        runner(tmp_path / "b", load_from=str(crashed / "step_9.pth"), model=Wider()).train()
    with pytest.raises(CheckpointError, match="3 parameter schedulers, the config has 0"):
        runner(tmp_path / "c", load_from=str(crashed / "step_9.pth"), param_scheduler=None).train()


def test_another_batch_size_goes_on_nearby_and_says_so(tmp_path: Path, crashed: Path) -> None:
    shutil.copytree(crashed, tmp_path, dirs_exist_ok=True)
    ready = runner(tmp_path, batch_size=8)
    said: list[str] = []
    ready.logger.warning = said.append
    ready.train()
    assert any("an epoch had 6 batches and now has 3" in line and "not bit for bit" in line for line in said)
    assert ready.iter == 9


def test_several_runs_share_nothing(tmp_path: Path) -> None:
    first, second = (runner(tmp_path / name, length=1) for name in "ab")
    assert first.experiment_name != second.experiment_name
    assert first.message_hub is not second.message_hub


# ---------------------------------------------------------------------- evaluation


def test_the_teacher_stands_beside_the_student(tmp_path: Path) -> None:
    ready = runner(tmp_path, length=1)
    ready._train_loop = None
    metrics = ready.val()
    assert sorted(metrics) == sorted(f"{who}{m}" for who in ("", "teacher/") for m in ("top1", "confidence", "count"))
    assert metrics["count"] == metrics["teacher/count"] == 9
    with torch.no_grad():
        data = Augmented(9)
        ready.model.eval()
        predictions = ready.model.teachers["teacher"].model
    assert (
        metrics["teacher/top1"]
        == metrics["top1"]
        == pytest.approx(  # untrained: the teacher is a copy
            float((predictions(stacked(ready, data)).argmax(1) == data.targets).float().mean())
        )
    )


def stacked(ready: Runner, data: Augmented) -> torch.Tensor:
    return torch.cat([batch["inputs"] for batch in ready.val_dataloader])


def test_a_frozen_teacher_is_judged_once(tmp_path: Path) -> None:
    ready = runner(tmp_path, length=3)
    ready.model.teachers["teacher"].stateful = False
    ready.model.teachers["teacher"].update = None
    asked: list[str] = []
    predict = ready.model.predict_teacher
    ready.model.__dict__["predict_teacher"] = lambda name, batch: (asked.append(name), predict(name, batch))[1]
    ready.train()
    assert len(asked) == 3  # the batches of one validation
    assert ready.message_hub.get_scalar("val/teacher/top1").data[0].size == 3


def test_teachers_that_predict_nothing_can_be_left_out(tmp_path: Path) -> None:
    ready = runner(tmp_path, val_cfg={"type": ValLoop, "teacher": False})
    ready._train_loop = None
    assert sorted(ready.val()) == ["confidence", "count", "top1"]


def test_testing_takes_averages_from_the_checkpoint(tmp_path: Path) -> None:
    runner(tmp_path, length=2).train()
    part = {
        "test_dataloader": {"dataset": {"type": Augmented, "samples": 9}, "batch_size": 4},
        "test_cfg": {"type": ValLoop},
    }
    part |= {"test_evaluator": {"type": Accuracy}, "resume": False, "load_from": str(tmp_path / "step_12.pth")}
    metrics = runner(tmp_path / "test", **part).test()
    last = read_checkpoint(tmp_path / "step_12.pth")["message_hub"]["scalars"]
    assert set(metrics) == {name[4:] for name in last if name.startswith("val/") and not name.endswith("time")}
    for name, value in metrics.items():
        assert value == pytest.approx(float(last[f"val/{name}"]["values"][-1]), abs=0.02), name


# ---------------------------------------------------------------------- hooks


def test_needed_hooks_cannot_be_dropped(tmp_path: Path) -> None:
    for name in ("checkpoint", "progress", "param_scheduler", "runtime_info"):
        with pytest.raises(ConfigError, match=f"default_hooks takes out '{name}'"):
            runner(tmp_path, default_hooks={name: None})
    with pytest.raises(ConfigError, match="replaced CheckpointHook by another hook"):
        runner(tmp_path, default_hooks={"checkpoint": {"type": "IterTimerHook"}})
    with pytest.raises(ConfigError, match="no entry 'checkpoints' to change"):
        runner(tmp_path, default_hooks={"checkpoints": {"keep": 3}})


@pytest.mark.parametrize(
    "hook", [MMCheckpointHook(interval=1), MMEMAHook(), MMEarlyStoppingHook(monitor="top1", rule="greater")]
)
def test_hooks_that_forget_are_refused(tmp_path: Path, hook: Hook) -> None:
    with pytest.raises(ConfigError, match=f"{type(hook).__name__} forgets part of its state .*limbeck_core.engine"):
        runner(tmp_path, hooks=[hook])


def test_options_of_default_hooks_can_be_changed(tmp_path: Path) -> None:
    ready = runner(tmp_path, default_hooks={"checkpoint": {"keep": 5}, "timer": None, "logger": {"interval": 7}})
    hook = next(hook for hook in ready.hooks if isinstance(hook, CheckpointHook))
    assert (hook.keep, hook.every_epochs) == (5, 1)
    assert "IterTimerHook" not in [type(hook).__name__ for hook in ready.hooks]


def test_a_teacher_that_follows_gets_its_hook(tmp_path: Path) -> None:
    ready = runner(tmp_path)
    assert sum(isinstance(hook, EMATeacherHook) for hook in ready.hooks) == 1
    frozen = ToyDistiller()
    frozen.teachers["teacher"].update = None
    assert not any(isinstance(hook, EMATeacherHook) for hook in runner(tmp_path, model=frozen).hooks)
    assert sum(isinstance(hook, EMATeacherHook) for hook in runner(tmp_path, hooks=[EMATeacherHook()]).hooks) == 1


def test_averages_move_with_the_optimiser_only(tmp_path: Path) -> None:
    calls: list[int] = []
    ready = runner(tmp_path, length=1, accumulate=4)
    ready.model.teachers["teacher"].update = lambda student, progress: calls.append(progress.step)
    ready.train()
    assert calls == [3, 5]  # a group of four, and the last group of two


def test_the_average_by_hand(tmp_path: Path) -> None:
    expected: list[torch.Tensor] = []

    class ByHand(Hook):
        priority = "VERY_HIGH"

        def before_train(self, runner: Any) -> None:
            expected.append(runner.model.student.fc.bias.detach().clone())

        def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
            expected[0] = 0.8 * expected[0] + 0.2 * runner.model.student.fc.bias.detach()

    ready = runner(tmp_path, length=1, hooks=[ByHand()])
    ready.train()
    hook = next(hook for hook in ready.hooks if isinstance(hook, EMAHook))
    assert torch.allclose(hook.average.fc.bias, expected[0], atol=1e-6)
    assert torch.equal(hook.average.body[1].running_mean, ready.model.student.body[1].running_mean)


def test_early_stopping_goes_on_counting(tmp_path: Path) -> None:
    Scores.epoch = 0
    still = {"val_evaluator": {"type": Scores}, "default_hooks": {"checkpoint": {"type": CheckpointHook}}}

    def ready(*hooks: Hook) -> Runner:
        stop = EarlyStoppingHook(monitor="score", rule="greater", patience=3)
        return runner(tmp_path, length=9, hooks=[stop, *hooks], **still)

    with pytest.raises(Crash):
        ready(Crasher(14)).train()
    trained = ready()
    trained.train()
    assert trained.iter == 24  # one score, and three that are no better; a count begun anew would need two epochs more


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 1}, "keep of CheckpointHook must be 2 or more, got 1"),
        ({"every_steps": 0}, "every_steps of CheckpointHook must be a whole number"),
        ({"rule": "more"}, "rule of CheckpointHook must be 'greater', 'less' or None, got 'more'"),
        ({"save_best": "wibble"}, "cannot be told from its name"),
    ],
)
def test_checkpoint_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CheckpointHook(**options)


@pytest.mark.parametrize(
    ("metric", "rule"),
    [("top1", "greater"), ("coco/AP50", "greater"), ("mDice", "greater"), ("FPR95", "less"), ("val_loss", "less")],
)
def test_common_metrics_have_a_rule(metric: str, rule: str) -> None:
    assert CheckpointHook(save_best=metric).rule == rule


def test_a_metric_that_does_not_exist(tmp_path: Path) -> None:
    hooks = {"checkpoint": {"type": CheckpointHook, "save_best": "top5"}}
    with pytest.raises(ConfigError, match=r"save_best='top5' .* is no metric of the validation: did you mean 'top1'"):
        runner(tmp_path, length=1, default_hooks=hooks).train()


# ---------------------------------------------------------------------- loops


def test_loops_that_cannot_resume_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train_cfg asks for EpochBasedTrainLoop, which cannot resume"):
        runner(tmp_path, train_cfg={"type": EpochBasedTrainLoop, "max_epochs": 1}).train()
    for train_cfg, kind in (
        ({"by_epoch": True, "max_epochs": 2}, EpochLoop),
        ({"by_epoch": False, "max_iters": 4}, StepLoop),
        ({"max_steps": 4}, StepLoop),
        ({"max_epochs": 4}, EpochLoop),
    ):
        assert type(runner(tmp_path, train_cfg=train_cfg).train_loop) is kind


def test_numbers_of_loops_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_epochs of EpochLoop must be a whole number >= 1, got 1\.5"):
        runner(tmp_path, train_cfg={"type": EpochLoop, "max_epochs": 1.5}).train()
    with pytest.raises(ConfigError, match="val_interval of StepLoop must be a whole number >= 1, got 0"):
        runner(tmp_path, train_cfg={"type": StepLoop, "max_steps": 4, "val_interval": 0}).train()
    with pytest.raises(ConfigError, match="there is nothing to train on"):
        runner(tmp_path, train_cfg=None, train_dataloader=None, optim_wrapper=None, param_scheduler=None).train()


def test_ranks_have_streams_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="diff_rank_seed=True would give each rank another order"):
        runner(tmp_path, randomness={"seed": 1, "diff_rank_seed": True})


def test_numpy_metrics_are_plain_in_the_file(tmp_path: Path) -> None:
    class Odd(Accuracy):
        def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
            return {"top1": np.float64(0.5), "confidence": 0.25, "table": np.arange(3), "object": object()}

    ready = runner(tmp_path, length=1, val_evaluator={"type": Odd})
    said: list[str] = []
    ready.logger.warning = said.append
    ready.train()
    info = read_checkpoint(tmp_path / "step_6.pth")["message_hub"]["info"]
    assert info["val/table"].tolist() == [0, 1, 2]
    assert any("val/object" in line and "cannot be stored as plain data" in line for line in said)
