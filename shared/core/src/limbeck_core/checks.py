"""Checks of what users pass in: shapes, ranges, labels, finiteness.

Every check raises a subclass of :class:`limbeck_core.errors.LimbeckError` (or ``ValueError`` for a plain number) whose
message says expected, got, where, and the way out. Nothing here computes; a check that passes has no effect.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from limbeck_core.errors import NonFiniteError, ShapeError, TargetError


def check_positive(value: float, name: str) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number above zero."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")


def check_non_negative(value: float, name: str) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number, zero or above."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")


def check_between(value: float, name: str, low: float, high: float) -> None:
    """Raise ``ValueError`` unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise ValueError(f"{name} must lie between {low} and {high}, got {value!r}")


def check_ndim(tensor: Tensor, name: str, layout: str, *, at_least: int, at_most: int | None = None) -> None:
    """Raise :class:`ShapeError` unless ``tensor`` has a number of axes in ``[at_least, at_most]``.

    Args:
        tensor: What was passed.
        name: The argument's name.
        layout: The expected shape as text, for example ``"(N, C, H, W)"``.
        at_least: Smallest number of axes.
        at_most: Largest number of axes; ``None`` sets no limit.
    """
    if tensor.ndim < at_least or (at_most is not None and tensor.ndim > at_most):
        raise ShapeError(f"{name} must have shape {layout}, got {tuple(tensor.shape)}")


def check_same_shape(first: Tensor, second: Tensor, first_name: str, second_name: str, hint: str = "") -> None:
    """Raise :class:`ShapeError` unless both tensors have one shape and one device.

    Args:
        first: Usually the student's tensor.
        second: Usually the teacher's tensor.
        first_name: Argument name of ``first``.
        second_name: Argument name of ``second``.
        hint: The way out when shapes differ, for example the adapter that would project one onto the other.
    """
    if first.shape != second.shape:
        way_out = hint or "give the match an adapter, or tap tensors of one shape"
        raise ShapeError(
            f"{first_name} and {second_name} must have one shape, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}: {way_out}"
        )
    check_same_device(first, second, first_name, second_name)


def check_same_device(first: Tensor, second: Tensor, first_name: str, second_name: str) -> None:
    """Raise :class:`ShapeError` unless both tensors live on one device."""
    if first.device != second.device:
        raise ShapeError(
            f"{first_name} is on {first.device} and {second_name} on {second.device}: move both to one device"
        )


def check_floating(tensor: Tensor, name: str) -> None:
    """Raise :class:`ShapeError` unless ``tensor`` holds real floating-point numbers."""
    if not tensor.is_floating_point():
        raise ShapeError(f"{name} must be a floating-point tensor, got {tensor.dtype}")


def check_logits(student_logits: Tensor, teacher_logits: Tensor, *, classes_at_least: int = 2) -> None:
    """Check a pair of logits of shape ``(N, C, ...)``: same shape and device, floating, enough classes.

    Args:
        student_logits: Raw scores of the student.
        teacher_logits: Raw scores of the teacher.
        classes_at_least: Smallest C for which the loss has a meaning.

    Raises:
        ShapeError: naming both shapes, with the way out.
    """
    for logits, name in ((student_logits, "student_logits"), (teacher_logits, "teacher_logits")):
        check_ndim(logits, name, "(N, C) or (N, C, ...)", at_least=2)
        check_floating(logits, name)
    check_same_shape(
        student_logits,
        teacher_logits,
        "student_logits",
        "teacher_logits",
        hint="student and teacher must score the same classes in the same order",
    )
    check_classes(student_logits, "student_logits", at_least=classes_at_least)


def check_classes(logits: Tensor, name: str, *, at_least: int) -> None:
    """Raise :class:`ShapeError` unless axis 1 of ``logits`` holds at least ``at_least`` classes."""
    if logits.shape[1] < at_least:
        raise ShapeError(
            f"{name} must score at least {at_least} classes on axis 1, got shape {tuple(logits.shape)}: "
            "give a binary problem two columns (for one score z, stack zeros and z)"
        )


def check_target(target: Tensor, logits: Tensor, *, name: str = "target", ignore_index: int | None = None) -> None:
    """Check class indices against logits of shape ``(N, C, ...)``.

    The range of the labels is read only on the CPU: on an accelerator the check would wait for the device, and the
    gather that follows raises there by itself.

    Args:
        target: Class indices of shape ``(N, ...)``, an integer dtype.
        logits: Scores whose axis 1 holds the classes.
        name: The argument's name.
        ignore_index: A label that marks positions without truth and is therefore in range.

    Raises:
        TargetError: if the dtype is not an integer or a label lies outside ``[0, C)``, with the first such label.
        ShapeError: if the shapes do not fit.
    """
    expected = logits.shape[:1] + logits.shape[2:]
    if target.is_floating_point() or target.dtype == torch.bool:
        raise TargetError(
            f"{name} must hold integer class indices of shape {tuple(expected)}, got {target.dtype} of shape "
            f"{tuple(target.shape)}: pass class indices, or use a loss that takes soft labels"
        )
    if target.shape != expected:
        raise ShapeError(
            f"{name} must have shape {tuple(expected)} to fit logits of shape {tuple(logits.shape)}, "
            f"got {tuple(target.shape)}"
        )
    if target.device.type == "cpu" and target.numel() and not torch.compiler.is_compiling():
        classes = logits.shape[1]
        lowest, highest = target.aminmax()
        if lowest.item() >= 0 and highest.item() < classes:
            return
        bad = (target < 0) | (target >= classes)
        if ignore_index is not None:
            bad &= target != ignore_index
        if bool(bad.any()):
            first = int(bad.flatten().nonzero()[0])
            raise TargetError(
                f"{name} must hold labels from 0 to {classes - 1} (logits of shape {tuple(logits.shape)}), got "
                f"{int(target.flatten()[first])} at position {first} ({int(bad.sum())} of {target.numel()} are "
                "outside): check the class list and the label map of the data set"
            )


def check_finite(result: Tensor, **inputs: Tensor) -> None:
    """Name the input that made ``result`` non-finite.

    Only the small result is read on the good path. On an accelerator nothing is read at all, since the answer would
    have to be waited for at each loss; there the :class:`~limbeck_core.distiller.Distiller` checks once a step. Nothing
    is read while torch.compile traces.

    Args:
        result: The loss, per sample or reduced.
        inputs: The tensors it was computed from, by argument name.

    Raises:
        NonFiniteError: naming the first input that holds NaN or infinity, how many rows, and the first of them.
    """
    if result.device.type != "cpu" or torch.compiler.is_compiling():
        return
    total = result.detach().sum() if result.ndim else result.detach()
    if math.isfinite(total.item()):
        return
    for name, tensor in inputs.items():
        explain_non_finite(tensor, name)


def explain_non_finite(tensor: Tensor, name: str) -> None:
    """Raise :class:`NonFiniteError` if ``tensor`` holds NaN or infinity, naming the rows (axis 0) that do."""
    if not tensor.is_floating_point() or not tensor.numel():
        return
    finite = torch.isfinite(tensor.detach())
    if bool(finite.all()):
        return
    rows = (~finite.reshape(tensor.shape[0], -1).all(1)).nonzero().flatten() if tensor.ndim else torch.zeros(1)
    where = f"{rows.numel()} of {tensor.shape[0]} rows (first: row {int(rows[0])})" if tensor.ndim else "its value"
    kind = "NaN" if bool(torch.isnan(tensor.detach()).any()) else "infinity"
    raise NonFiniteError(
        f"{name} of shape {tuple(tensor.shape)} holds {kind} in {where}: look upstream of the loss (learning rate, "
        "half-precision overflow, a damaged checkpoint, the input data)"
    )
