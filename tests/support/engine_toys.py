"""A small run that remembers everything a real one does, and a way to kill it anywhere.

Run as a script, this file is a nursery: it imports PyTorch and MMEngine once and then forks a process for every run
that it is told of, since starting an interpreter for each would take most of the time. Runs are described by ``Plan``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.utils.data import Dataset

from limbeck_core.distiller import Distiller
from limbeck_core.engine import EpochLoop, StepLoop
from limbeck_core.engine.checkpoints import digest_of, read_checkpoint
from limbeck_core.engine.hooks import CheckpointHook, EMAHook
from limbeck_core.engine.runner import Runner
from limbeck_core.losses import KLDivergenceLoss
from limbeck_core.match import Match
from limbeck_core.schedules import Linear, WarmUp
from limbeck_core.tap import Tap
from limbeck_core.teacher import EMATeacher, PastSelf

FEATURES, CLASSES, SAMPLES = 6, 3, 22


class Augmented(Dataset[Any]):
    """Samples whose augmentation draws from every generator."""

    def __init__(self, samples: int = SAMPLES) -> None:
        generator = torch.Generator().manual_seed(7)
        self.inputs = torch.randn(samples, FEATURES, generator=generator)
        self.targets = torch.randint(CLASSES, (samples,), generator=generator)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        noise = torch.randn(FEATURES) * random.uniform(0.1, 0.2) + np.random.normal()
        return {"inputs": self.inputs[index] + 0.1 * noise, "targets": self.targets[index]}


class Follower:
    """A teacher that is a moving average of the student, outside of the module tree."""

    stateful = True

    def __init__(self, student: nn.Module) -> None:
        self.model = type(student)()
        self.model.load_state_dict(student.state_dict())
        self.model.requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, student: nn.Module, progress: Any) -> None:
        momentum = 0.5 + 0.4 * progress.step / progress.max_steps
        for mine, theirs in zip(self.model.parameters(), student.parameters(), strict=True):
            mine.mul_(momentum).add_(theirs, alpha=1 - momentum)


class Student(nn.Module):
    """Dropout draws random numbers, batch normalisation keeps statistics that differ from rank to rank."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3))
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        # one more normalisation than a batch of one sample has statistics for
        return self.fc(self.body(inputs)) if len(inputs) > 1 or not self.training else self.fc(self.body[0](inputs))


class ToyDistiller(BaseModel):  # type: ignore[misc]
    """The distiller's outside: a student, a teacher that is not registered, extra state, progress."""

    def __init__(self) -> None:
        super().__init__()
        self.student = Student()
        self.matches = nn.ModuleDict({"kd": nn.Linear(CLASSES, CLASSES)})
        self.register_buffer("centre", torch.zeros(CLASSES))
        self.__dict__["teachers"] = {"teacher": Follower(self.student)}
        self.progress: Any = None
        self.seen: list[Any] = []

    def set_progress(self, progress: Any) -> None:
        self.progress = progress

    def state_dict_extra(self) -> Mapping[str, Any]:
        return {"teacher": self.teachers["teacher"].model.state_dict()}

    def load_state_dict_extra(self, state: Mapping[str, Any]) -> None:
        self.teachers["teacher"].model.load_state_dict(state["teacher"])

    def predict_teacher(self, name: str, batch: Mapping[str, Any]) -> Tensor:
        return self.teachers[name].model(batch["inputs"])

    def forward(self, inputs: Tensor, targets: Tensor, ids: Tensor, mode: str = "tensor") -> Any:
        logits = self.student(inputs)
        if mode != "loss":
            return logits
        self.seen.append(ids.tolist())
        with torch.no_grad():
            teacher = self.teachers["teacher"].model(inputs)
            self.centre.mul_(0.9).add_(teacher.mean(0), alpha=0.1)
        weight = 0.1 + self.progress.step / self.progress.max_steps + random.random() * 0.01
        kd = nn.functional.mse_loss(self.matches["kd"](logits), teacher - self.centre)
        return {"loss/task": nn.functional.cross_entropy(logits, targets), "loss/kd": weight * kd}


def distiller() -> Distiller:
    """The real thing, with a teacher that averages, one that remembers predictions, and weights that change."""
    student = Student()
    return Distiller(
        student,
        teacher={
            "average": EMATeacher(student, momentum=Linear(0.5, 0.9)),
            "past": PastSelf(SAMPLES, CLASSES, logits="fc"),
        },
        task_loss=nn.CrossEntropyLoss(),
        matches={
            "kd": Match(KLDivergenceLoss(temperature=2.0), "fc", Tap("fc", of="average"), weight=Linear(0.1, 1.0)),
            "hint": Match(
                nn.MSELoss(),
                "body.0",
                Tap("body.0", of="average"),
                adapter=nn.Linear(8, 8),
                weight=WarmUp(0.5, length=9),
            ),
            "past": Match(SoftTargets(), "fc", Tap("", of="past")),
        },
    )


class SoftTargets(nn.Module):
    """Cross-entropy with the probabilities that a teacher remembers."""

    def forward(self, student_logits: Tensor, teacher_probabilities: Tensor) -> Tensor:
        return nn.functional.cross_entropy(student_logits, teacher_probabilities)


class Accuracy(BaseMetric):  # type: ignore[misc]
    """Top-1 accuracy, from predictions that are rows of logits, and a smooth score beside it."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        for target, logits in zip(data_batch["targets"], data_samples, strict=True):
            self.results.append((int(logits.argmax() == target), float(logits.softmax(0)[target])))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        rows = np.array(results)
        return {"top1": float(rows[:, 0].mean()), "confidence": float(rows[:, 1].mean()), "count": float(len(rows))}


@dataclass
class Plan:
    """One run: how it trains, and where it is killed."""

    folder: str
    loop: str = "epoch"
    workers: int = 0
    accumulate: int = 1
    seed: int | None = 3
    batch_size: int = 4
    every_steps: int | None = 3
    every_epochs: int | None = 1
    length: int = 3  # epochs, or tens of steps
    world: int = 1
    threads: int = 1
    real: bool = False  # the distiller itself instead of the toy
    kill: tuple[str, int] | None = None  # a moment and a step

    def config(self) -> dict[str, Any]:
        """Arguments of the runner."""
        steps = self.length * 6 - 1
        train_cfg = (
            {"type": EpochLoop, "max_epochs": self.length}
            if self.loop == "epoch"
            else {"type": StepLoop, "max_steps": steps, "val_interval": 4}
        )
        loader = {"dataset": {"type": Augmented}, "batch_size": self.batch_size, "num_workers": self.workers}
        return {
            "model": distiller() if self.real else ToyDistiller(),
            "work_dir": self.folder,
            "train_dataloader": loader,
            "train_cfg": train_cfg,
            "val_dataloader": {"dataset": {"type": Augmented, "samples": 9}, "batch_size": 4},
            "val_cfg": {},
            "val_evaluator": {"type": Accuracy},
            "optim_wrapper": {
                "optimizer": {"type": torch.optim.AdamW, "lr": 0.05},
                "accumulative_counts": self.accumulate,
                "clip_grad": {"max_norm": 1.0},
            },
            "param_scheduler": [
                {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "end": 5},
                {"type": "CosineAnnealingLR", "T_max": self.length, "by_epoch": True},
                {"type": "OneCycleLR", "eta_max": 0.1, "total_steps": 60, "by_epoch": False},
            ],
            "default_hooks": {
                "checkpoint": {
                    "type": CheckpointHook,
                    "every_steps": self.every_steps,
                    "every_epochs": self.every_epochs,
                    "save_best": "confidence",
                    "rule": "greater",
                },
            },
            "custom_hooks": [EMAHook(momentum=0.8), *([Killer(*self.kill)] if self.kill else [])],
            "randomness": {"seed": self.seed},
            "launcher": "pytorch" if self.world > 1 else "none",
            "resume": True,
            "log_level": "WARNING",
        }


class Killer(Hook):  # type: ignore[misc]
    """Ends this process as the kernel does when memory runs out: at once, with no clean-up."""

    priority = "LOWEST"

    def __init__(self, moment: str, step: int) -> None:
        self.moment, self.step = moment, step

    def _perhaps(self, runner: Any, moment: str) -> None:
        if moment == self.moment and runner.iter >= self.step:
            os.kill(os.getpid(), signal.SIGKILL)
        asked = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM}.get(self.moment)
        # one rank is asked, and all of them stop
        if asked and moment == "before_step" and runner.iter == self.step and runner.rank == 0:
            os.kill(os.getpid(), asked)

    def before_train(self, runner: Any) -> None:
        if self.moment in ("write", "pointer"):
            sync, count = os.fsync, [0]

            def dying(handle: int) -> None:
                count[0] += 1
                # the first sync of a checkpoint is its content; the third is the pointer's
                if runner.iter >= self.step and count[0] % 4 == (1 if self.moment == "write" else 3):
                    os.kill(os.getpid(), signal.SIGKILL)
                sync(handle)

            os.fsync = dying

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self._perhaps(runner, "before_step")

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._perhaps(runner, "after_step")

    def after_train_epoch(self, runner: Any) -> None:
        self._perhaps(runner, "epoch_end")

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._perhaps(runner, "validation")

    def save_point(self, runner: Any, moment: str) -> None:
        self._perhaps(runner, "saved")


def remembered(folder: str | Path) -> dict[str, str]:
    """Digest of each part of the state in which a run ended; the time that steps took is left out."""
    path = max(Path(folder).glob("step_*.pth"), key=lambda p: int(p.stem.split("_")[1]))
    content = read_checkpoint(path)
    ours = content["limbeck"]
    scalars = {k: v for k, v in content["message_hub"]["scalars"].items() if not k.endswith("time")}
    parts = {
        "student": content["state_dict"],
        "matches": ours["matches"],
        "teacher": ours["model"],
        "average": ours["hooks"]["EMAHook"],
        "checkpoints": ours["hooks"]["CheckpointHook"],
        "optimizer": content["optimizer"],
        "schedules": content["param_schedulers"],
        "loop": ours["loop"],
        "ranks": ours["ranks"],
        "log": scalars,
        "best": torch.load(Path(folder) / "best_confidence.pth", weights_only=True)["state_dict"],
        "exported": torch.load(Path(folder) / "student.pth", weights_only=True)["state_dict"],
    }
    return {name: digest_of(part) for name, part in parts.items()} | {"file": path.name}


def train(plan: Plan) -> None:
    torch.set_num_threads(plan.threads)
    torch.manual_seed(1)
    random.seed(1)
    Runner(**plan.config()).train()


def _fork(plan: Plan, rank: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    os.dup2(2, 1)  # standard output carries the nursery's answers
    try:
        if plan.world > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(plan.world)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        train(plan)
        status = 0
    except SystemExit as leaving:
        status = leaving.code  # type: ignore[assignment]
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run(plan: Plan) -> list[int]:
    """Run in processes of their own; their wait statuses. When one dies, the others are ended as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alive = {_fork(plan, rank, port): rank for rank in range(plan.world)}
    statuses = [0] * plan.world
    while alive:
        pid, status = os.waitpid(-1, 0)
        statuses[alive.pop(pid)] = status
        if status:
            time.sleep(0.05)
            for other in alive:
                os.kill(other, signal.SIGKILL)
    return [os.waitstatus_to_exitcode(status) for status in statuses]


def nursery() -> None:
    """Read plans from standard input, one JSON object a line; answer each with what happened."""
    import matplotlib.pyplot  # noqa: F401  what every run would import for itself otherwise
    import torch.utils.tensorboard  # noqa: F401

    for line in sys.stdin:
        plan = Plan(**json.loads(line))
        plan.kill = tuple(plan.kill) if plan.kill else None  # type: ignore[assignment]
        codes = run(plan)
        answer = {"codes": codes, "remembered": {} if any(codes) else remembered(plan.folder)}
        print(json.dumps(answer), flush=True)


def ask(process: Any, plan: Plan) -> dict[str, Any]:
    """Send one plan to a nursery and wait for its answer."""
    process.stdin.write(json.dumps(asdict(plan)) + "\n")
    process.stdin.flush()
    return dict(json.loads(process.stdout.readline()))


if __name__ == "__main__":
    nursery()
