"""Small models of timm, and batches of noise, that the tests of GPFM share."""

from __future__ import annotations

from typing import Any

import torch

from limbeck_medical.gpfm import Expert, TileEncoder, TileStudent, timm_model


def small_vit(**options: Any) -> torch.nn.Module:
    """A transformer of two layers with patches of 8 on tiles of 24."""
    settings = {"img_size": 24, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "dynamic_img_size": True}
    return timm_model("vit_tiny_patch16_224", **{**settings, **options})


def small_student(prototypes: int = 12) -> TileStudent:
    """A student that a step takes milliseconds."""
    return TileStudent(TileEncoder(small_vit()), prototypes=prototypes, layers=2, hidden=8, bottleneck=6)


def small_expert(**options: Any) -> Expert:
    """A transformer with larger patches, so another grid."""
    return Expert(small_vit(patch_size=12, embed_dim=10), **options)


def views(samples: int = 2, local: int = 2, *, seed: int = 0, hidden: bool = True) -> dict[str, torch.Tensor]:
    """A batch such as TileViews gives, of noise."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(samples, 2, 3, 3, dtype=torch.bool)
    if hidden:
        masks[0, 0, 0], masks[-1, 1, 1:, 1] = True, True  # three patches of one view, two of another
    return {
        "global_views": torch.rand(samples, 2, 3, 24, 24, generator=generator),
        "local_views": torch.rand(samples, local, 3, 16, 16, generator=generator),
        "masks": masks,
    }
