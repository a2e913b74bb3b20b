"""What all CIFAR models here share: named stages, each with a place to tap before and after its last ReLU.

Every model is ``stem``, ``layer1``, ``layer2``, ..., ``pool``, ``fc`` (and ``head`` before ``pool`` where the paper has
a last convolution). Taps read the same for all of them:

======================  ===============================================================================================
``layerK``              features of the stage after its last ReLU, ``(N, C, H, W)``: what the next stage reads
``layerK.preact``       the same features before that ReLU (OFD, AB and ReviewKD compare these)
``pool``                embeddings, ``(N, D)``: what the classifier reads
``fc``                  logits, ``(N, classes)``
======================  ===============================================================================================

No ReLU works in place, so any other module may be tapped as well. ``model.stages`` holds channels, stride and the batch
norm before ``layerK.preact`` of each stage as plain data.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from limbeck_vision.models.normalization import CIFAR100_NORMALIZATION, Statistics, as_normalization


class StageInfo(NamedTuple):
    """Facts of one stage.

    Args:
        channels: Channels of its features.
        stride: Pixels of the image for each of its positions, along one side.
        norm: Path of the batch norm that feeds ``preact``, whose weight and bias give the margin of OFD; ``None`` where
            the features are joined from several.
    """

    channels: int
    stride: int
    norm: str | None


class GlobalPool(nn.Module):
    """Mean over all positions, ``(N, C, H, W)`` to ``(N, C)``."""

    def forward(self, features: Tensor) -> Tensor:
        """Average the maps."""
        return features.mean((2, 3))


class StagedModel(nn.Module):
    """A stem, stages, global pooling and a linear classifier.

    Args:
        stem: First layers.
        layers: The stages, as :func:`stage` makes them.
        infos: Facts of each stage.
        embedding: Width of what ``pool`` gives.
        num_classes: Number of classes, at least 1.
        head: Layers between the last stage and ``pool``.
        normalization: What the images in [0, 1] are normalised with before they reach the model.
    """

    def __init__(
        self,
        stem: nn.Module,
        layers: Sequence[nn.Module],
        infos: Sequence[StageInfo],
        *,
        embedding: int,
        num_classes: int,
        head: nn.Module | None = None,
        normalization: Statistics = CIFAR100_NORMALIZATION,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes = num_classes
        self.normalization = as_normalization(normalization)
        self.stages = {f"layer{index}": info for index, info in enumerate(infos, start=1)}
        self.stem = stem
        for name, layer in zip(self.stages, layers, strict=True):
            self.add_module(name, layer)
        if head is not None:
            self.head = head
        self.pool = GlobalPool()
        self.fc = nn.Linear(embedding, num_classes)
        self._trunk = ("stem", *self.stages, *(("head",) if head is not None else ()))

    def forward(self, images: Tensor) -> Tensor:
        """Score images of shape ``(N, 3, H, W)``; the logits have shape ``(N, num_classes)``."""
        features = images
        for name in self._trunk:
            features = getattr(self, name)(features)
        logits: Tensor = self.fc(self.pool(features))
        return logits


def stage(
    blocks: Sequence[nn.Module] | Mapping[str, nn.Module], *, preact: nn.Module | None = None, act: bool = True
) -> nn.Sequential:
    """Chain blocks, then ``preact`` and ``act``, so that both sides of the last ReLU can be tapped.

    Args:
        blocks: The stage's blocks, by name or named by number; the last one leaves its final ReLU to ``act``.
        preact: What gives the features before the ReLU; by default they are the last block's output.
        act: Whether there is a final ReLU (linear bottlenecks have none).
    """
    named = blocks if isinstance(blocks, Mapping) else {str(index): block for index, block in enumerate(blocks)}
    parts = list(named.items())
    parts.append(("preact", nn.Identity() if preact is None else preact))
    if act:
        parts.append(("act", nn.ReLU()))
    return nn.Sequential(OrderedDict(parts))


def conv_bn_act(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, bias: bool = False, act: bool = True
) -> nn.Sequential:
    """Convolution that keeps the size (up to its stride), batch norm and, unless told otherwise, a ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=bias)
    parts: list[tuple[str, nn.Module]] = [("conv", conv), ("bn", nn.BatchNorm2d(out_channels))]
    if act:
        parts.append(("act", nn.ReLU()))
    return nn.Sequential(OrderedDict(parts))


def init_convolutions(model: nn.Module) -> None:
    """Draw convolutions from a normal distribution of variance 2 / (kernel area * output channels); biases are zero.

    Reference:
        He et al., Delving Deep into Rectifiers, arXiv:1502.01852, eq. 14.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
