"""Any vision transformer of timm as student, any model of timm as expert: tokens of the image and of its patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from limbeck_core.build import build
from limbeck_core.errors import ConfigError, ShapeError, closest

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def timm_model(name: str, **options: Any) -> nn.Module:
    """Build a model of timm without its classifier and without downloading anything.

    Args:
        name: Such as ``"vit_large_patch14_dinov2"``; for an expert also ``"resnet50"``.
        options: Passed to ``timm.create_model``: ``img_size``, ``dynamic_img_size``, ``drop_path_rate``, ...

    Raises:
        ConfigError: if timm has no such model, with the closest names, or ``pretrained`` is asked for.
    """
    if options.get("pretrained"):
        raise ConfigError("nothing is downloaded here: read the weights from a file, with limbeck_core.pretrained")
    if not timm.is_model(name):
        raise ConfigError(f"timm {timm.__version__} has no model {name!r}: {closest(name, timm.list_models())}")
    model: nn.Module = timm.create_model(name, num_classes=0, **options)
    return model


class _Normalizing(nn.Module):
    """Images in [0, 1] in, normalised inside: models that disagree about constants see the same batch."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        # constants of the config, so weights of the plain network load without them
        self.register_buffer("mean", torch.tensor(tuple(mean))[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(tuple(std))[:, None, None], persistent=False)

    def normalized(self, images: Tensor) -> Tensor:
        """Return ``(images - mean) / std`` by channel."""
        if images.ndim != 4 or images.shape[1] != len(self.mean):
            raise ShapeError(
                f"{type(self).__name__} expects images (N, {len(self.mean)}, H, W) in [0, 1], got {tuple(images.shape)}"
            )
        return (images - self.mean) / self.std


class TileEncoder(_Normalizing):
    """A vision transformer of timm that gives the class token and the patch tokens, some patches hidden if asked.

    Hidden patches are replaced by one learned token right after the patch embedding, before positions are added.

    Args:
        vit: The transformer, or a config of it (:func:`timm_model`). For crops of several sizes it needs
            ``dynamic_img_size=True``.
        mean: By channel, of images in [0, 1]. Default: ImageNet's.
        std: As ``mean``.

    Raises:
        ConfigError: if the model is no vision transformer with a class token.

    Reference:
        Ma et al., Towards A Generalizable Pathology Foundation Model via Unified Knowledge Distillation,
        arXiv:2407.18449; hidden tokens as in iBOT, arXiv:2111.07832.
    """

    def __init__(
        self,
        vit: nn.Module | Mapping[str, Any],
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__(mean, std)
        self.vit: Any = build(vit)
        if not hasattr(self.vit, "patch_embed") or getattr(self.vit, "cls_token", None) is None:
            raise ConfigError(
                f"TileEncoder needs a vision transformer of timm with patch_embed and a class token, got "
                f"{type(self.vit).__name__}: choose one such as vit_small_patch16_224 (experts may be of any kind)"
            )
        self.width = int(self.vit.num_features)
        self.mask_token = nn.Parameter(torch.zeros(self.width))

    def forward(self, images: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Return ``cls`` ``(N, D)`` and ``patch`` ``(N, D, h, w)`` of images ``(N, 3, H, W)`` in [0, 1].

        Args:
            images: Sides are multiples of the patch's.
            mask: Patches to hide, boolean ``(N, h, w)``.

        Raises:
            ShapeError: if images or mask do not fit.
        """
        grid = self.grid(images)
        if mask is not None and tuple(mask.shape) != (len(images), *grid):
            raise ShapeError(
                f"the mask must have one entry a patch, {(len(images), *grid)} for images {tuple(images.shape)}, got "
                f"{tuple(mask.shape)}"
            )
        x = self.normalized(images)
        if mask is None:
            tokens = self.vit.forward_features(x)
        else:
            handle = self.vit.patch_embed.register_forward_hook(lambda _, __, embedded: self._hide(embedded, mask))
            try:
                tokens = self.vit.forward_features(x)
            finally:
                handle.remove()
        return _split(tokens, self.vit.num_prefix_tokens, grid)

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Return the patches of images along height and width.

        Raises:
            ShapeError: if a side is no multiple of the patch's, with the next sizes that are.
        """
        height, width = images.shape[-2:]
        down, right = self.vit.patch_embed.patch_size
        if height % down or width % right or not height or not width:
            good = (max(1, round(height / down)) * down, max(1, round(width / right)) * right)
            raise ShapeError(
                f"images {tuple(images.shape)} do not divide into patches of {down} x {right}: the nearest size that "
                f"does is {good[0]} x {good[1]}"
            )
        return height // down, width // right

    def _hide(self, embedded: Tensor, mask: Tensor) -> Tensor:
        hidden = mask.reshape(*embedded.shape[:-1], 1)
        return torch.where(hidden, self.mask_token.to(embedded.dtype), embedded)


class Expert(_Normalizing):
    """A frozen model of timm that says what it sees: a transformer's tokens, or a convolutional network's map.

    Without a class token, and for maps, ``cls`` is the mean over places.

    Args:
        model: The model, or a config of it (:func:`timm_model`).
        mean: By channel, of images in [0, 1]: the constants it was trained with. The authors' code feeds every expert
            the student's normalised crops; here each has its own.
        std: As ``mean``.
        normalize_output: Divide ``cls`` by its length, as CONCH does.
        num_classes: Of a linear classifier on ``cls``, whose scores are ``logits``: for an expert that is trained here.
            0 for none.

    Raises:
        ConfigError: if the model has no ``forward_features``.
    """

    def __init__(
        self,
        model: nn.Module | Mapping[str, Any],
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        normalize_output: bool = False,
        num_classes: int = 0,
    ) -> None:
        super().__init__(mean, std)
        self.model: Any = build(model)
        if not hasattr(self.model, "forward_features") or not hasattr(self.model, "num_features"):
            raise ConfigError(
                f"an expert is a model of timm with forward_features and num_features, got "
                f"{type(self.model).__name__}: build it with timm_model, or give yours these two"
            )
        self.width = int(self.model.num_features)
        self.normalize_output = normalize_output
        self.classifier = nn.Linear(self.width, num_classes) if num_classes else None

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return ``cls`` ``(N, D)`` and ``patch`` ``(N, D, h, w)`` of images ``(N, 3, H, W)`` in [0, 1].

        With a classifier also ``logits`` ``(N, classes)``.

        Raises:
            ShapeError: if the images do not fit, or its tokens form no grid.
        """
        found = self.model.forward_features(self.normalized(images))
        if found.ndim == 4:
            # some of timm's networks have the channels last
            patch = found if found.shape[1] == self.width else found.permute(0, 3, 1, 2)
            tokens = {"cls": patch.mean((2, 3)), "patch": patch}
        else:
            prefix = int(getattr(self.model, "num_prefix_tokens", 0))
            down, right = self.model.patch_embed.patch_size
            tokens = _split(found, prefix, (images.shape[-2] // down, images.shape[-1] // right))
            if getattr(self.model, "cls_token", None) is None:
                tokens["cls"] = tokens["patch"].mean((2, 3))
        if self.normalize_output:
            tokens["cls"] = normalize(tokens["cls"], dim=1)
        if self.classifier is not None:
            tokens["logits"] = self.classifier(tokens["cls"])
        return tokens


def _split(tokens: Tensor, prefix: int, grid: tuple[int, int]) -> dict[str, Tensor]:
    """Class token, then registers, then patches row by row."""
    patches = tokens[:, prefix:]
    if patches.shape[1] != grid[0] * grid[1]:
        raise ShapeError(
            f"{tokens.shape[1]} tokens, {prefix} of them no patches, do not form a grid of {grid[0]} x {grid[1]}: "
            "switch patch dropping and pooling off"
        )
    return {"cls": tokens[:, 0], "patch": patches.transpose(1, 2).reshape(tokens.shape[0], -1, *grid)}
