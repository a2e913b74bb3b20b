"""A student and a teacher in, a commented config out: which places to tap, what to compare there, and what it costs.

Both models are traced on tensors without memory, so that their size does not matter, and their stages are paired by
stride and depth. Every proposal has been run on the shapes it reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from limbeck_core.build import build
from limbeck_core.calls import Call, TensorCall
from limbeck_core.configs import find
from limbeck_core.engine.batches import first_batches
from limbeck_core.engine.checkpoints import write_atomic
from limbeck_core.engine.config import load_config, read
from limbeck_core.errors import CheckpointError, ConfigError, LimbeckError
from limbeck_core.suggest.described import Described, describe
from limbeck_core.suggest.plan import Plan, make_plan
from limbeck_core.suggest.trace import build_described, trace
from limbeck_core.suggest.write import config_text, report_lines

DEFAULT_SHAPE = (1, 3, 224, 224)
DEFAULT_BATCH = 64


@dataclass(frozen=True)
class Suggestion:
    """What is proposed.

    Args:
        plan: Stages, pairs, proposals with their costs, notes.
        config: The commented config, as text.
    """

    plan: Plan
    config: str

    def lines(self) -> list[str]:
        """The plan in words."""
        return list(report_lines(self.plan))

    def write(self, path: Path) -> None:
        """Write the config into a new file.

        Raises:
            ConfigError: if the file exists, is no ``.py``, or cannot be written.
        """
        if path.suffix != ".py":
            raise ConfigError(f"a config is a Python file, got {path}: end its name in .py")
        if path.exists():
            raise ConfigError(f"{path} exists already and is left as it is: choose another name")
        try:
            write_atomic(path, self.config)
        except CheckpointError as error:
            raise ConfigError(str(error)) from error


def suggest(
    teacher: str,
    student: str,
    *,
    data: str | Path | None = None,
    input_shape: Sequence[int] | None = None,
    data_root: str | Path | None = None,
) -> Suggestion:
    """Propose how a student may learn from a teacher.

    Args:
        teacher: A dotted function such as ``"package.models.resnet56"``, one called with plain arguments
            (``'timm.create_model("resnet18", num_classes=10)'``; nothing is evaluated), or a config, whose teacher or
            else whose student is taken.
        student: The same; of a config, its student.
        data: A config whose data, schedule and way to call models are taken over. Default: the student's config, or
            else the teacher's, where they are configs.
        input_shape: Shape of an input, its first number being the batch. Default: that of the data; or what the student
            says in ``normalization.input_size``; or 1 x 3 x 224 x 224.
        data_root: See :func:`~limbeck_core.engine.config.load_config`.

    Raises:
        ConfigError: if a model cannot be read, built, or run on the input.
    """
    described = {"student": describe(student, "student"), "teacher": describe(teacher, "teacher")}
    origin = data or described["student"].origin or described["teacher"].origin
    settings: Mapping[str, Any] = load_config(origin, data_root=data_root) if origin is not None else {}
    model: Any = settings.get("model") or {}
    call: Call = build(model.get("call")) or TensorCall()
    views = {"student": model.get("student_view", "inputs"), "teacher": model.get("teacher_view", "inputs")}
    if not isinstance(views["teacher"], str):
        views["teacher"] = "inputs"
    batch = _batch(settings, described["student"], views, input_shape)
    traces = {role: trace(found.config, found.title, batch, call, views[role]) for role, found in described.items()}
    loader: Any = settings.get("train_dataloader") or {}
    plan = make_plan(traces["student"], traces["teacher"], int(loader.get("batch_size", DEFAULT_BATCH)))
    values = read(find(origin).resolve()) if origin is not None else {}
    text = config_text(plan, described["student"], described["teacher"], values, str(origin))
    return Suggestion(plan, text)


def _batch(
    settings: Mapping[str, Any],
    student: Described,
    views: Mapping[str, str],
    input_shape: Sequence[int] | None,
) -> Mapping[str, Any]:
    """One sample: of a shape that is said, of the data, or of the student's own size."""
    if input_shape is None and settings.get("train_dataloader") is not None:
        try:
            batches = first_batches(settings["train_dataloader"], 1, seed=0, training=False, batch_size=1)
        except (LimbeckError, OSError):  # no data here: shapes come from elsewhere, and doctor tells of the data
            batches = []
        if batches and isinstance(batches[0], Mapping):
            return batches[0]
    if input_shape is None:
        model, _ = build_described(student.config, student.title)
        declared = getattr(getattr(model, "normalization", None), "input_size", None)
        input_shape = (1, *declared) if declared is not None else DEFAULT_SHAPE
    if len(input_shape) < 2 or min(input_shape) < 1:
        raise ConfigError(
            "--input-shape takes whole numbers above 0, the batch first, such as 1,3,32,32, got "
            + ",".join(map(str, input_shape))
        )
    sample = torch.empty(1, *input_shape[1:], device="meta")
    return dict.fromkeys(views.values(), sample)


__all__ = ["DEFAULT_SHAPE", "Plan", "Suggestion", "suggest"]
