"""PS-KD: the prediction of an epoch ago softens the label. Loss and memory are core's; mixed batches are added here."""

from limbeck_vision.methods.ps_kd.mixing import MixedPastSelf

__all__ = ["MixedPastSelf"]
