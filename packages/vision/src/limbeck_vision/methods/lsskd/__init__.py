"""LSSKD: a classifier after every stage that tells class and rotation at once; knowledge flows from deep to shallow."""

from limbeck_vision.methods.lsskd.branches import AuxiliaryBranch, auxiliary_branches
from limbeck_vision.methods.lsskd.distiller import LayeredDistiller, RotationCall

__all__ = ["AuxiliaryBranch", "LayeredDistiller", "RotationCall", "auxiliary_branches"]
