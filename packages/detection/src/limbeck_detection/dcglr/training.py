"""What DCGLR's training needs beside the engine: prototypes that rest at first, and gradients cut one by one."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper

from limbeck_core.checks import check_positive
from limbeck_core.tap import unwrap


class ClippedOneByOne(OptimWrapper):  # type: ignore[misc]  # mmengine is untyped
    """Optimiser's wrapper that cuts the gradient of every parameter to a length of its own.

    MMEngine's ``clip_grad`` cuts them all together.

    Args:
        optimizer: As for MMEngine's wrapper.
        max_norm: Longest gradient of a parameter, above 0.
        options: Further arguments of MMEngine's wrapper.
    """

    def __init__(self, optimizer: Any, *, max_norm: float = 3.0, **options: Any) -> None:
        check_positive(max_norm, "max_norm")
        super().__init__(optimizer, **options)
        self.max_norm = max_norm

    def step(self, **kwargs: Any) -> None:
        """Cut, then step."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    torch.nn.utils.clip_grad_norm_([parameter], self.max_norm)
        super().step(**kwargs)


class RestingPrototypes(Hook):  # type: ignore[misc]  # mmengine is untyped
    """Leave the prototypes of the student's head as they are in the first epochs, as DINO does.

    Args:
        epochs: How many.
    """

    def __init__(self, epochs: int = 1) -> None:
        self.epochs = epochs

    def before_train_epoch(self, runner: Any) -> None:
        """Let them rest, or wake them."""
        head: Any = unwrap(runner.model).get_submodule("student.head")
        head.prototypes.requires_grad_(runner.train_loop.epoch >= self.epochs)
