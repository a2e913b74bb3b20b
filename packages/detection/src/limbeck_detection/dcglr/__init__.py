"""DCGLR: clouds learnt without labels, by a moving average of oneself and other views (arXiv:2202.04241)."""

from limbeck_detection.dcglr.encoders import PointNet, PointTransformer
from limbeck_detection.dcglr.evaluation import CloudProbes, draw_attention
from limbeck_detection.dcglr.losses import InfoNCELoss, NPairContrastLoss, info_nce_loss, n_pair_contrast_loss
from limbeck_detection.dcglr.model import CloudModel, PrototypeHead
from limbeck_detection.dcglr.sampling import farthest_points, nearest_points
from limbeck_detection.dcglr.shapes import ModelNet, Shapes, clouds_batch
from limbeck_detection.dcglr.training import ClippedOneByOne, RestingPrototypes
from limbeck_detection.dcglr.views import MultiCrop, views_batch

__all__ = [
    "ClippedOneByOne",
    "CloudModel",
    "CloudProbes",
    "InfoNCELoss",
    "ModelNet",
    "MultiCrop",
    "NPairContrastLoss",
    "PointNet",
    "PointTransformer",
    "PrototypeHead",
    "RestingPrototypes",
    "Shapes",
    "clouds_batch",
    "draw_attention",
    "farthest_points",
    "info_nce_loss",
    "n_pair_contrast_loss",
    "nearest_points",
    "views_batch",
]
