"""USKD: self-distillation towards soft labels of the student's own and a weak head's ranking. Loss: core's."""

from limbeck_vision.methods.uskd.taps import ChannelsFirst, ClassToken, MiddleStage, middle_stage, uskd_match

__all__ = ["ChannelsFirst", "ClassToken", "MiddleStage", "middle_stage", "uskd_match"]
