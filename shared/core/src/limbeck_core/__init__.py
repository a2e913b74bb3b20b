"""Knowledge distillation for any PyTorch model.

The names below are loaded when they are first used, so that importing ``limbeck_core.functional`` costs no more than
torch does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from limbeck_core.errors import closest

if TYPE_CHECKING:
    from limbeck_core.calls import MappingCall, OpenMMLabCall, TensorCall
    from limbeck_core.distiller import Distiller
    from limbeck_core.fast_teacher import FastTeacher
    from limbeck_core.match import Match
    from limbeck_core.openmmlab_models import openmmlab
    from limbeck_core.tap import Tap
    from limbeck_core.teacher import EMATeacher, FrozenTeacher, PastSelf, Peers, pretrained

__version__ = "0.1.0"

_HOMES = {
    "Distiller": "distiller",
    "EMATeacher": "teacher",
    "FastTeacher": "fast_teacher",
    "FrozenTeacher": "teacher",
    "MappingCall": "calls",
    "Match": "match",
    "OpenMMLabCall": "calls",
    "PastSelf": "teacher",
    "Peers": "teacher",
    "Tap": "tap",
    "TensorCall": "calls",
    "openmmlab": "openmmlab_models",
    "pretrained": "teacher",
}

__all__ = [
    "Distiller",
    "EMATeacher",
    "FastTeacher",
    "FrozenTeacher",
    "MappingCall",
    "Match",
    "OpenMMLabCall",
    "PastSelf",
    "Peers",
    "Tap",
    "TensorCall",
    "openmmlab",
    "pretrained",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"limbeck_core.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'limbeck_core' has no attribute {name!r}: {closest(name, __all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
