"""The training engine: MMEngine's Runner with loops that resume exactly, and checkpoints that never run code.

Names are loaded when they are asked for, so that importing one light module of this package does not import MMEngine's
runner.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck_core.engine.checkpoints import load_student, save_student
    from limbeck_core.engine.export import export_student
    from limbeck_core.engine.held_out import held_out_part
    from limbeck_core.engine.hooks import CheckpointHook, EarlyStoppingHook, EMAHook, EMATeacherHook, ProgressHook
    from limbeck_core.engine.loop import EpochLoop, StepLoop, TestLoop, ValLoop
    from limbeck_core.engine.progress import ProgressBarHook
    from limbeck_core.engine.runner import Runner
    from limbeck_core.engine.sampler import EpochSampler, build_dataloader, sample_seed, stack
    from limbeck_core.engine.state import Stateful

_HOME = {
    "CheckpointHook": "hooks",
    "EMAHook": "hooks",
    "EMATeacherHook": "hooks",
    "EarlyStoppingHook": "hooks",
    "EpochLoop": "loop",
    "EpochSampler": "sampler",
    "ProgressBarHook": "progress",
    "ProgressHook": "hooks",
    "Runner": "runner",
    "Stateful": "state",
    "StepLoop": "loop",
    "TestLoop": "loop",
    "ValLoop": "loop",
    "build_dataloader": "sampler",
    "export_student": "export",
    "held_out_part": "held_out",
    "load_student": "checkpoints",
    "sample_seed": "sampler",
    "save_student": "checkpoints",
    "stack": "sampler",
}
__all__ = [
    "CheckpointHook",
    "EMAHook",
    "EMATeacherHook",
    "EarlyStoppingHook",
    "EpochLoop",
    "EpochSampler",
    "ProgressBarHook",
    "ProgressHook",
    "Runner",
    "Stateful",
    "StepLoop",
    "TestLoop",
    "ValLoop",
    "build_dataloader",
    "export_student",
    "held_out_part",
    "load_student",
    "sample_seed",
    "save_student",
    "stack",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
