"""The precision in which losses compute, and the infinities they meet."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Raise half precision to float32; float32 and float64 pass unchanged.

    Softmax, logarithms, norms and sums over many elements lose too much in 8 or 11 bits.
    """
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def in_one_precision(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Raise both to the wider of their types, float32 at least: products and fused kernels take one type only."""
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), teacher.to(dtype)


def all_finite(values: Tensor) -> bool:
    """Tell whether a few values are known to be finite: read on the CPU, not known elsewhere or while tracing.

    Losses compute without guards against 0 * infinity first and repeat with them if the answer is no, since the guards
    cost as much as the loss itself. Ask :func:`reads_at_once` before, so that nothing is computed twice in vain.
    """
    return reads_at_once(values) and math.isfinite(values.detach().sum().item())


def reads_at_once(tensor: Tensor) -> bool:
    """Tell whether a value of ``tensor`` can be read without waiting for a device or breaking a trace."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def without_autocast(tensor: Tensor) -> torch.autocast:
    """Context in which products keep the precision of their inputs, whatever autocast surrounds the loss."""
    # the meta device, on which shapes are looked at, knows no autocast
    return torch.autocast(tensor.device.type if tensor.device.type != "meta" else "cpu", enabled=False)
