"""Knowledge Concentration: many specialists, each of a part of the labels, teach one student of all of them."""

from limbeck_vision.methods.knowledge_concentration.data import DigitPairs, OneVertical
from limbeck_vision.methods.knowledge_concentration.layers import (
    BlockLinear,
    ConcentratedModel,
    ConcentrationHead,
    SelfPacedScale,
    head_weights,
)
from limbeck_vision.methods.knowledge_concentration.losses import (
    SigmoidCrossEntropyLoss,
    SpecialistLoss,
    specialist_loss,
)
from limbeck_vision.methods.knowledge_concentration.metrics import VerticalPrecision, vertical_average_precision
from limbeck_vision.methods.knowledge_concentration.specialists import (
    SpecialistCall,
    Specialists,
    pretrained_specialists,
)
from limbeck_vision.methods.knowledge_concentration.verticals import vertical_of

__all__ = [
    "BlockLinear",
    "ConcentratedModel",
    "ConcentrationHead",
    "DigitPairs",
    "OneVertical",
    "SelfPacedScale",
    "SigmoidCrossEntropyLoss",
    "SpecialistCall",
    "SpecialistLoss",
    "Specialists",
    "VerticalPrecision",
    "head_weights",
    "pretrained_specialists",
    "specialist_loss",
    "vertical_average_precision",
    "vertical_of",
]
