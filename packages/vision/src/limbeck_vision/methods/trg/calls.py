"""Vision transformers take one image size: say so before they fail inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from limbeck_core.errors import ShapeError
from limbeck_core.tap import unwrap
from limbeck_vision.models.normalization import ImageCall


def check_image_size(model: nn.Module, images: Tensor) -> None:
    """Raise :class:`~limbeck_core.errors.ShapeError` if a vision transformer cannot take images of this size.

    Reads ``patch_embed`` of timm's models (those built with ``dynamic_img_size=True`` need multiples of the patch, or
    nothing with ``dynamic_img_pad=True``) and ``image_size`` of torchvision's; other models pass.

    Args:
        model: The model; teachers and other wrappers that hold it as ``model`` are looked through.
        images: Shape ``(N, C, H, W)``.
    """
    inner: Any = unwrap(model)
    while isinstance(wrapped := getattr(inner, "model", None), nn.Module):
        inner = unwrap(wrapped)
    height, width = images.shape[-2:]
    embed = getattr(inner, "patch_embed", None)
    name = type(inner).__name__
    if embed is None and isinstance(size := getattr(inner, "image_size", None), int):
        if (height, width) != (size, size):
            raise ShapeError(
                f"{name} takes images of {size} x {size}, got {height} x {width}: resize them, or build the model with "
                f"image_size={height}"
            )
        return
    patch = getattr(embed, "patch_size", None)
    if patch is None or getattr(embed, "dynamic_img_pad", False):
        return
    size = getattr(embed, "img_size", None)
    if size is not None and getattr(embed, "strict_img_size", True):
        if (height, width) != tuple(size):
            raise ShapeError(
                f"{name} takes images of {size[0]} x {size[1]}, got {height} x {width}: resize them, or build the "
                f"model with img_size=({height}, {width}) (multiples of its patch size {tuple(patch)}) or "
                "dynamic_img_size=True"
            )
    elif height % patch[0] or width % patch[1]:
        raise ShapeError(
            f"{name} cuts images into patches of {patch[0]} x {patch[1]}, into which {height} x {width} does not "
            "divide: crop or resize them, or build the model with dynamic_img_pad=True"
        )


class TokenCall(ImageCall):
    """:class:`~limbeck_vision.models.ImageCall` that names the sizes when a transformer gets images it cannot take."""

    def capture(self, model: nn.Module, batch: Mapping[str, Any], view: str) -> Any:
        """Run the model on its own normalisation of the view.

        Raises:
            ShapeError: if the model is a vision transformer of another image size.
            MatchError: as :meth:`ImageCall.capture`.
        """
        images = batch.get(view)
        if isinstance(images, Tensor) and images.ndim == 4:
            check_image_size(model, images)
        return super().capture(model, batch, view)
