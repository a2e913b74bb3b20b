"""Distillation losses as pure functions: tensors in, tensor out; torch is all they import."""

from limbeck_core.functional.logits import kl_divergence_loss
from limbeck_core.functional.reduction import Reduction, reduce_loss

__all__ = ["Reduction", "kl_divergence_loss", "reduce_loss"]
