"""D-FINE: a detector whose decoder layers teach one another.

Reference: Peng et al., D-FINE: Redefine Regression Task in DETRs as Fine-grained Distribution Refinement,
arXiv:2410.13842.
"""

from limbeck_detection.dfine.checkpoints import OBJECTS365_TO_COCO, from_pretrained, load_dfine
from limbeck_detection.dfine.criterion import DFINECriterion
from limbeck_detection.dfine.deploy import DeployedDFINE, to_deploy
from limbeck_detection.dfine.matcher import HungarianMatcher
from limbeck_detection.dfine.model import DFINE, dfine, dfine_l, dfine_m, dfine_n, dfine_s, dfine_x
from limbeck_detection.dfine.postprocess import PostProcess

__all__ = [
    "DFINE",
    "OBJECTS365_TO_COCO",
    "DFINECriterion",
    "DeployedDFINE",
    "HungarianMatcher",
    "PostProcess",
    "dfine",
    "dfine_l",
    "dfine_m",
    "dfine_n",
    "dfine_s",
    "dfine_x",
    "from_pretrained",
    "load_dfine",
    "to_deploy",
]
