"""The teacher bank: what a frozen teacher says of every sample, written to the disk once, read by any number of runs.

:class:`~limbeck_core.bank.writing.BankWriter` writes one, :class:`~limbeck_core.bank.teacher.BankTeacher` takes the
teacher's place in training, and :mod:`limbeck_core.bank.storage` says what the files look like. Names are loaded when
they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck_core.bank.storage import Bank
    from limbeck_core.bank.teacher import BankTeacher
    from limbeck_core.bank.writing import BankWriter

_HOMES = {"Bank": "storage", "BankTeacher": "teacher", "BankWriter": "writing"}
__all__ = ["Bank", "BankTeacher", "BankWriter"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
