"""Students of named sizes."""

from __future__ import annotations

from typing import Any, Literal

from limbeck_audiovideo.discovr.encoder import ViTEncoder
from limbeck_audiovideo.discovr.model import DISCOVR, Branch, DINOHead, TokenDecoder
from limbeck_core.errors import ConfigError

Branches = Literal["both", "video", "image"]


def discovr(
    *,
    dim: int,
    depth: int,
    heads: int,
    decoder_dim: int,
    decoder_depth: int = 4,
    decoder_heads: int,
    image_size: int = 112,
    frames: int = 64,
    patch: int = 16,
    tubelet: int = 2,
    channels: int = 3,
    num_prototypes: int | None = 16384,
    head_hidden: int = 2048,
    head_bottleneck: int = 256,
    qkv_bias: bool = True,
    branches: Branches = "both",
    aligned: bool = True,
    recompute: bool = False,
) -> DISCOVR:
    """Build a student whose branches have one size.

    Args:
        dim: Width of both encoders.
        depth: Blocks of both encoders.
        heads: Attention heads of both encoders.
        decoder_dim: Width of the decoder.
        decoder_depth: Blocks of the decoder.
        decoder_heads: Attention heads of the decoder.
        image_size: Height and width of the pictures in pixels.
        frames: Frames of a clip, a multiple of ``tubelet``.
        patch: Side of a patch in pixels.
        tubelet: Frames of a patch of the video branch.
        channels: 3 for colour or 1 for grey.
        num_prototypes: Width of the DINO heads; ``None`` leaves them out (an encoder alone, for its released weights).
        head_hidden: Width of the heads' hidden layers.
        head_bottleneck: Width of the vector that meets the prototypes.
        qkv_bias: Biases of queries and values, in all transformers.
        branches: ``"both"``, or ``"video"`` or ``"image"`` alone, which self-distils without clusters.
        aligned: As :class:`~limbeck_audiovideo.discovr.TokenDecoder`.
        recompute: As :class:`~limbeck_audiovideo.discovr.ViTEncoder`.

    Raises:
        ConfigError: if sizes do not divide, or ``branches`` is unknown.
    """
    if branches not in ("both", "video", "image"):
        raise ConfigError(f"branches must be 'both', 'video' or 'image', got {branches!r}")
    common: dict[str, Any] = {"image_size": image_size, "patch": patch, "channels": channels, "dim": dim}
    common |= {"depth": depth, "heads": heads, "qkv_bias": qkv_bias, "recompute": recompute}

    def head() -> DINOHead | None:
        if num_prototypes is None:
            return None
        return DINOHead(dim, num_prototypes, hidden=head_hidden, bottleneck=head_bottleneck)

    video = image = decoder = None
    if branches != "image":
        video = Branch(ViTEncoder(frames=frames, tubelet=tubelet, **common), head())
    if branches != "video":
        image = Branch(ViTEncoder(frames=1, tubelet=1, **common), head())
    if branches == "both":
        decoder = TokenDecoder(
            times=frames // tubelet,
            places=(image_size // patch) ** 2,
            dim=dim,
            out=dim,
            width=decoder_dim,
            depth=decoder_depth,
            heads=decoder_heads,
            qkv_bias=qkv_bias,
            aligned=aligned,
        )
    return DISCOVR(video, image, decoder)


def discovr_base(**options: Any) -> DISCOVR:
    """DISCOVR's published size: ViT-B encoders (768 wide, 12 blocks, 12 heads), a decoder of 384, 4 blocks, 6 heads."""
    return discovr(**{"dim": 768, "depth": 12, "heads": 12, "decoder_dim": 384, "decoder_heads": 6, **options})


def discovr_small(**options: Any) -> DISCOVR:
    """The small size of its ablation: ViT-S encoders (384 wide, 12 blocks, 6 heads), a decoder of 192 and 3 heads."""
    return discovr(**{"dim": 384, "depth": 12, "heads": 6, "decoder_dim": 192, "decoder_heads": 3, **options})


def discovr_tiny(**options: Any) -> DISCOVR:
    """A size for a processor and of no paper: 64 wide, 3 blocks; clips of 8 frames of 32 x 32 grey pixels."""
    small = {"image_size": 32, "frames": 8, "patch": 8, "channels": 1, "num_prototypes": 64}
    heads = {"head_hidden": 128, "head_bottleneck": 32}
    size = {"dim": 64, "depth": 3, "heads": 4, "decoder_dim": 48, "decoder_depth": 2, "decoder_heads": 4}
    return discovr(**{**size, **small, **heads, **options})
