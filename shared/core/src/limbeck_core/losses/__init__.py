"""Distillation losses as modules: each stores hyper-parameters and calls its function."""

from limbeck_core.losses.logits import KLDivergenceLoss

__all__ = ["KLDivergenceLoss"]
