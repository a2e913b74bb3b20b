"""D-FINE's edge distributions and self-distillation (FDR and GO-LSD) for other detectors of the DETR family.

Reference: Peng et al., D-FINE: Redefine Regression Task in DETRs as Fine-grained Distribution Refinement,
arXiv:2410.13842.
"""

from limbeck_detection.refinement._mmdet import refine_mmdet
from limbeck_detection.refinement._transformers import refine_transformers
from limbeck_detection.refinement.criterion import RefinementCriterion
from limbeck_detection.refinement.heads import EdgeRefinement, Refined

__all__ = ["EdgeRefinement", "Refined", "RefinementCriterion", "refine_mmdet", "refine_transformers"]
