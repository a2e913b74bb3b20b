"""The precision in which losses compute."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Raise half precision to float32; float32 and float64 pass unchanged.

    Softmax, logarithms, norms and sums over many elements lose too much in 8 or 11 bits.
    """
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
