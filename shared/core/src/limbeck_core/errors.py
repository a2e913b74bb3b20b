"""The exceptions of limbeck. Every message says what was expected, what was got, where, and the way out.

::

    LimbeckError
    +-- ShapeError (ValueError)           tensors whose shapes, dtypes or devices do not fit together
    +-- TargetError (ValueError)          labels outside the classes, or of the wrong type
    +-- NonFiniteError (ValueError)       NaN or infinity, named at its source
    +-- TapError (LookupError)            a place to read that does not exist, never fires, or fires too often
    +-- MatchError (ValueError)           a match whose parts do not fit the loss's signature or the model
    +-- ConfigError (ValueError)          a config that cannot be found, read or overridden as asked
    +-- DataError (ValueError)            a data set that is missing, damaged, or laid out in another way
    +-- CheckpointError (RuntimeError)    a file that is missing, damaged, unsafe or from another model
    +-- ExportError (RuntimeError)        a model that cannot be exported, or a file that disagrees with it
    +-- BankError (RuntimeError)          a teacher bank that is missing, damaged, stale or of another teacher
    +-- MissingDependency (ImportError)   an optional package that a feature needs
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches

DEBUG_VARIABLE = "LIMBECK_DEBUG"


class LimbeckError(Exception):
    """Base of every error that limbeck raises on purpose."""


class ShapeError(LimbeckError, ValueError):
    """Tensors whose shapes, dtypes or devices do not fit together."""


class TargetError(LimbeckError, ValueError):
    """Labels outside the range of classes, or of the wrong type."""


class NonFiniteError(LimbeckError, ValueError):
    """NaN or infinity, reported with the tensor it came from."""


class TapError(LimbeckError, LookupError):
    """A tap that does not exist, never fired, or fired more often than it was told to expect."""


class MatchError(LimbeckError, ValueError):
    """A match whose parts do not fit the signature of its loss or the models."""


class ConfigError(LimbeckError, ValueError):
    """A config that cannot be found, read, or overridden as asked."""


class DataError(LimbeckError, ValueError):
    """A data set that is missing, damaged, unsafe to read, or laid out in another way than expected."""


class CheckpointError(LimbeckError, RuntimeError):
    """A checkpoint that is missing, damaged, unsafe to read, or from another model."""


class ExportError(LimbeckError, RuntimeError):
    """A model that cannot be exported, or an exported file that disagrees with the model it came from."""


class BankError(LimbeckError, RuntimeError):
    """A teacher bank that is missing, unfinished, damaged, or of another teacher, data set or recipe."""


class MissingDependency(LimbeckError, ImportError):
    """An optional package is absent; the message holds the command that installs it."""


def debugging() -> bool:
    """Whether the environment asks for tracebacks (``LIMBECK_DEBUG=1``) where users usually get one sentence."""
    return os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0")


def closest(name: str, known: Iterable[str], *, limit: int = 3, listed: int = 12) -> str:
    """Return the part of an error message that says what exists instead of ``name``.

    Args:
        name: What was asked for.
        known: What exists, in the order in which it should be listed.
        limit: How many close matches are offered at most.
        listed: How many names are listed when none is close.

    Returns: ``"did you mean 'layer1'?"``, or ``"it has: a, b, ..."``, or ``"it has nothing of the kind"``.
    """
    names = list(known)
    if not names:
        return "it has nothing of the kind"
    near = get_close_matches(name, names, n=limit, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(repr(candidate) for candidate in near) + "?"
    shown = ", ".join(names[:listed])
    return f"it has: {shown}" + (", ..." if len(names) > listed else "")
