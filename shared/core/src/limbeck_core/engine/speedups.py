"""A hook that writes down how fast teachers chose to run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.hooks import Hook

from limbeck_core.fast_teacher import FastTeacher
from limbeck_core.tap import unwrap


def fast_teachers(model: Any) -> dict[str, FastTeacher]:
    """The model's teachers that choose how they run, by name."""
    teachers = getattr(unwrap(model), "teachers", {})
    return {name: teacher for name, teacher in teachers.items() if isinstance(teacher, FastTeacher)}


class SpeedupHook(Hook):
    """Log what a fast teacher tried, and put its choice into the config that the run leaves in its folder.

    The runner adds this hook wherever a teacher is a :class:`~limbeck_core.fast_teacher.FastTeacher`.
    """

    priority = "LOW"

    def __init__(self) -> None:
        self._told: set[str] = set()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Tell once what each teacher chose; one whose matches rest chooses later."""
        new = {
            name: teacher
            for name, teacher in fast_teachers(runner.model).items()
            if teacher.choice is not None and name not in self._told
        }
        if not new:
            return
        for name, teacher in new.items():
            chosen = ", ".join(teacher.choice or ()) or "nothing"
            runner.logger.info(f"teacher {name!r} runs with {chosen}\n{teacher.explain()}")
            for described in self._descriptions(runner, name):
                described["choice"] = list(teacher.choice or ())
        self._told |= new.keys()
        runner.dump_config()

    @staticmethod
    def _descriptions(runner: Any, name: str) -> Iterator[Any]:
        """The teacher's own part of the config, if the model was built from one."""
        model = runner.cfg.get("model")
        teacher = model.get("teacher") if isinstance(model, Mapping) else None
        if isinstance(teacher, Mapping):
            found = teacher if "type" in teacher else teacher.get(name)
            if isinstance(found, Mapping):
                yield found


__all__ = ["SpeedupHook", "fast_teachers"]
