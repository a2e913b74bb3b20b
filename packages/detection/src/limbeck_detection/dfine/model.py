"""D-FINE, whole, in its five released sizes.

Reference: Peng et al., D-FINE: Redefine Regression Task in DETRs as Fine-grained Distribution Refinement,
arXiv:2410.13842, table 1 and appendix A.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from limbeck_core.checks import check_floating
from limbeck_core.errors import ShapeError
from limbeck_detection.dfine.attention import Sampling
from limbeck_detection.dfine.denoising import Targets
from limbeck_detection.dfine.encoder import HybridEncoder
from limbeck_detection.dfine.hgnetv2 import BackboneName, HGNetV2
from limbeck_detection.dfine.transformer import DFINETransformer, QuerySelection


class DFINE(nn.Module):
    """Backbone, encoder and decoder of D-FINE.

    Args:
        backbone: Image to maps, fine to coarse.
        encoder: Maps to maps of one width.
        decoder: Maps, and targets in training, to predictions.
    """

    def __init__(self, backbone: nn.Module, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.encoder = encoder

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Any]:
        """Detect.

        Args:
            images: RGB in [0, 1] without further normalisation, shape ``(B, 3, H, W)``, of any size from which the
                maps have at least as many places as there are queries.
            targets: As for :meth:`limbeck_detection.dfine.transformer.DFINETransformer.forward`.

        Returns: As there.

        Raises:
            ShapeError: if the images do not have that shape or are not floating-point numbers; or as there.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ShapeError(f"images must have shape (B, 3, H, W), got {tuple(images.shape)}")
        check_floating(images, "images")
        out: dict[str, Any] = self.decoder(self.encoder(self.backbone(images)), targets)
        return out


def dfine(
    num_classes: int = 80,
    *,
    backbone: BackboneName = "B4",
    affine: bool = False,
    frozen: bool = False,
    out_stages: Sequence[int] = (1, 2, 3),
    encoder_dim: int = 256,
    encoder_feedforward: int = 1024,
    expansion: float = 1.0,
    depth_mult: float = 1.0,
    decoder_dim: int = 256,
    decoder_feedforward: int = 1024,
    layers: int = 6,
    heads: int = 8,
    points: Sequence[int] = (3, 6, 3),
    reg_scale: float = 4.0,
    reg_max: int = 32,
    num_queries: int = 300,
    num_denoising: int = 100,
    learn_query_content: bool = False,
    eval_idx: int = -1,
    sampling: Sampling = "default",
    query_select: QuerySelection = "default",
    input_size: tuple[int, int] = (640, 640),
) -> DFINE:
    """Build a D-FINE of any size; :func:`dfine_n` to :func:`dfine_x` are the released ones.

    Args:
        num_classes: Number of classes.
        backbone: Size of the :class:`~limbeck_detection.dfine.hgnetv2.HGNetV2`.
        affine: Whether its ReLUs are followed by a learnable affine.
        frozen: Whether its stem and all its BatchNorms are frozen.
        out_stages: Its stages that are used: 1, 2 and 3 have strides 8, 16 and 32.
        encoder_dim: Width of the encoder.
        encoder_feedforward: Width of the feed-forward part of its attention.
        expansion: Width of its GELAN branches as a multiple of ``encoder_dim / 2``.
        depth_mult: Depth of its GELAN branches as a multiple of 3.
        decoder_dim: Width of a query.
        decoder_feedforward: Width of the feed-forward part of a decoder layer.
        layers: Decoder layers.
        heads: Attention heads of encoder and decoder.
        points: Deformable points in each used stage.
        reg_scale: Curvature of the edge bins.
        reg_max: Number of edge bins, less one.
        num_queries: Number of queries.
        num_denoising: Denoising slots; 0 trains without.
        learn_query_content: Whether queries start from a learnt embedding.
        eval_idx: Decoder layer whose output counts in evaluation.
        sampling: How deformable attention reads the maps.
        query_select: How queries are chosen.
        input_size: Height and width of the image for which anchors are stored.

    Raises:
        ValueError: as the parts.
    """
    body = HGNetV2(backbone, out_stages=out_stages, affine=affine, freeze_stem=frozen, freeze_norm=frozen)
    neck = HybridEncoder(
        body.out_channels,
        hidden_dim=encoder_dim,
        heads=heads,
        feedforward=encoder_feedforward,
        expansion=expansion,
        depth_mult=depth_mult,
    )
    head = DFINETransformer(
        num_classes,
        hidden_dim=decoder_dim,
        in_channels=[encoder_dim] * len(body.out_channels),
        strides=body.out_strides,
        num_queries=num_queries,
        points=points,
        heads=heads,
        layers=layers,
        feedforward=decoder_feedforward,
        num_denoising=num_denoising,
        learn_query_content=learn_query_content,
        eval_idx=eval_idx,
        sampling=sampling,
        query_select=query_select,
        reg_max=reg_max,
        reg_scale=reg_scale,
        input_size=input_size,
    )
    return DFINE(body, neck, head)


_SIZES: dict[str, dict[str, Any]] = {
    "n": dict(
        backbone="B0",
        affine=True,
        out_stages=(2, 3),
        encoder_dim=128,
        encoder_feedforward=512,
        expansion=0.34,
        depth_mult=0.5,
        decoder_dim=128,
        decoder_feedforward=512,
        layers=3,
        points=(6, 6),
    ),
    "s": dict(backbone="B0", affine=True, expansion=0.5, depth_mult=0.34, layers=3),
    "m": dict(backbone="B2", affine=True, depth_mult=0.67, layers=4),
    "l": dict(backbone="B4", frozen=True),
    "x": dict(backbone="B5", frozen=True, encoder_dim=384, encoder_feedforward=2048, reg_scale=8.0),
}


def dfine_n(num_classes: int = 80, **options: Any) -> DFINE:
    """D-FINE-N: 3.8 million parameters, strides 16 and 32; ``options`` as for :func:`dfine`."""
    return dfine(num_classes, **{**_SIZES["n"], **options})


def dfine_s(num_classes: int = 80, **options: Any) -> DFINE:
    """D-FINE-S: 10.3 million parameters; ``options`` as for :func:`dfine`."""
    return dfine(num_classes, **{**_SIZES["s"], **options})


def dfine_m(num_classes: int = 80, **options: Any) -> DFINE:
    """D-FINE-M: 19.6 million parameters; ``options`` as for :func:`dfine`."""
    return dfine(num_classes, **{**_SIZES["m"], **options})


def dfine_l(num_classes: int = 80, **options: Any) -> DFINE:
    """D-FINE-L: 31.2 million parameters; ``options`` as for :func:`dfine`."""
    return dfine(num_classes, **{**_SIZES["l"], **options})


def dfine_x(num_classes: int = 80, **options: Any) -> DFINE:
    """D-FINE-X: 62.6 million parameters; ``options`` as for :func:`dfine`."""
    return dfine(num_classes, **{**_SIZES["x"], **options})
