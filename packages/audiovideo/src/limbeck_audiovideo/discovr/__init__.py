"""DISCOVR: a video encoder taught by itself and, through clusters, by an image encoder, both without labels."""

from limbeck_audiovideo.discovr.encoder import Encoded, ViTEncoder
from limbeck_audiovideo.discovr.losses import ClusterDistillationLoss, cluster_distillation_loss, standardized
from limbeck_audiovideo.discovr.masks import Mask, MixedMask, RandomMask, RegionMask, Views
from limbeck_audiovideo.discovr.model import DISCOVR, Branch, DINOHead, MaskedCall, TokenDecoder
from limbeck_audiovideo.discovr.presets import discovr, discovr_base, discovr_small, discovr_tiny

__all__ = [
    "DISCOVR",
    "Branch",
    "ClusterDistillationLoss",
    "DINOHead",
    "Encoded",
    "Mask",
    "MaskedCall",
    "MixedMask",
    "RandomMask",
    "RegionMask",
    "TokenDecoder",
    "ViTEncoder",
    "Views",
    "cluster_distillation_loss",
    "discovr",
    "discovr_base",
    "discovr_small",
    "discovr_tiny",
    "standardized",
]
