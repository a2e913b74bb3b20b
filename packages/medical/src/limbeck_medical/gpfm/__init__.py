"""GPFM: a vision transformer for pathology learns from itself and several experts (Ma et al., arXiv:2407.18449)."""

from limbeck_medical.gpfm.data import TileFolder, TileViews
from limbeck_medical.gpfm.distiller import ExpertCall, GPFMDistiller, StudentCall, TeacherCall
from limbeck_medical.gpfm.encoder import Expert, TileEncoder, timm_model
from limbeck_medical.gpfm.evaluation import Features, embed, probe
from limbeck_medical.gpfm.groups import TileParameterGroups
from limbeck_medical.gpfm.heads import ProjectionHead, TileStudent
from limbeck_medical.gpfm.losses import (
    PatchAlignmentLoss,
    TokenAlignmentLoss,
    patch_alignment_loss,
    token_alignment_loss,
)
from limbeck_medical.gpfm.masks import block_mask

__all__ = [
    "Expert",
    "ExpertCall",
    "Features",
    "GPFMDistiller",
    "PatchAlignmentLoss",
    "ProjectionHead",
    "StudentCall",
    "TeacherCall",
    "TileEncoder",
    "TileFolder",
    "TileParameterGroups",
    "TileStudent",
    "TileViews",
    "TokenAlignmentLoss",
    "block_mask",
    "embed",
    "patch_alignment_loss",
    "probe",
    "timm_model",
    "token_alignment_loss",
]
