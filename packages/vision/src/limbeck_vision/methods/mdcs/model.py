"""A residual network whose later stages exist once for each expert, computed side by side.

The weights of all experts lie in one tensor a layer, and a layer is one convolution: the first one reads the shared
features and writes the channels of all experts, the later ones have a group for each expert. Batch norm works by
channel, so that experts do not touch each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from limbeck_core.errors import ConfigError, ShapeError
from limbeck_vision.models.normalization import CIFAR100_NORMALIZATION, Statistics, as_normalization
from limbeck_vision.models.resnet import BasicBlock
from limbeck_vision.models.stages import conv_bn_act, init_convolutions, stage


class CosineExperts(nn.Module):
    r"""A classifier for each expert, by the cosine between embedding and class: :math:`z = s \, \hat f \cdot \hat w`.

    Args:
        experts: Number of experts E.
        embedding: Width D of an expert's embedding.
        num_classes: Number of classes C.
        scale: Largest logit :math:`s`.
    """

    def __init__(self, experts: int, embedding: int, num_classes: int, *, scale: float = 30.0) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(experts, embedding, num_classes))
        nn.init.uniform_(self.weight, -1.0, 1.0)
        with torch.no_grad():
            self.weight.copy_(normalize(self.weight, dim=1))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Score embeddings ``(N, E, D)``; the logits have shape ``(N, E, C)``."""
        logits = torch.einsum("ned,edc->nec", normalize(embeddings, dim=-1), normalize(self.weight, dim=1))
        scaled: Tensor = self.scale * logits
        return scaled

    def extra_repr(self) -> str:
        """Show the sizes in ``repr``."""
        return f"experts, embedding, classes={tuple(self.weight.shape)}, scale={self.scale}"


class _SplitExperts(nn.Module):
    """Mean over positions, then the channels of each expert: ``(N, E * D, H, W)`` to ``(N, E, D)``."""

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.experts = experts

    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3)).reshape(len(features), self.experts, -1)


class ExpertResNet(nn.Module):
    """Residual network with a shared stem and first stage, later stages for each expert, and cosine classifiers.

    The output is the mean of the experts' raw logits, ``(N, C)``, in training and evaluation; the tap ``experts`` gives
    them one by one, ``(N, E, C)``, and ``pool`` their embeddings ``(N, E, D)``.

    Args:
        depths: Blocks of each stage.
        stem_channels: Channels of the stem.
        widths: Channels of each stage; of the later ones, for each expert.
        experts: Number of experts E, at least 1.
        num_classes: Number of classes C.
        scale: Largest logit of the cosine classifiers.
        normalization: Statistics of the images.

    Raises:
        ConfigError: if there are fewer than two stages, or no expert.

    Reference:
        Zhao et al., arXiv:2308.09922, section 4.1; the shared stem and reduced widths follow Wang et al., RIDE,
        arXiv:2010.01809.
    """

    def __init__(
        self,
        depths: Sequence[int],
        stem_channels: int,
        widths: Sequence[int],
        *,
        experts: int = 3,
        num_classes: int,
        scale: float = 30.0,
        normalization: Statistics = CIFAR100_NORMALIZATION,
    ) -> None:
        super().__init__()
        if len(depths) < 2 or len(depths) != len(widths) or experts < 1:
            raise ConfigError(
                f"ExpertResNet needs two or more stages with a depth and a width each, and one expert or more, got "
                f"depths {list(depths)}, widths {list(widths)}, {experts} experts"
            )
        self.num_experts = experts
        self.num_classes = num_classes
        self.normalization = as_normalization(normalization)
        self._arguments = (tuple(depths), stem_channels, tuple(widths))
        self.stem = conv_bn_act(3, stem_channels, 3)
        channels, private = stem_channels, []
        for index, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks: list[nn.Module] = []
            for position in range(depth):
                stride = 2 if index and not position else 1
                total = width * (experts if index else 1)
                block = BasicBlock(channels, total, stride, last=position == depth - 1)
                if index:
                    _group(block, experts, shared_input=index == 1 and not position)
                blocks.append(block)
                channels = total
            private.append(stage(blocks))
            self.add_module(f"layer{index + 1}", private[-1])
        self._layers = [f"layer{index + 1}" for index in range(len(depths))]
        self.pool = _SplitExperts(experts)
        self.experts = CosineExperts(experts, widths[-1], num_classes, scale=scale)
        init_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Score images ``(N, 3, H, W)``: the mean of all experts' logits, ``(N, C)``."""
        return self.expert_logits(images).mean(1)

    def expert_logits(self, images: Tensor) -> Tensor:
        """Score images ``(N, 3, H, W)``; every expert's raw logits, ``(N, E, C)``."""
        return self.private(self.shared(images))

    def shared(self, images: Tensor) -> Tensor:
        """Features that all experts read, ``(N, channels, H, W)``."""
        features: Tensor = getattr(self, self._layers[0])(self.stem(images))
        return features

    def private(self, features: Tensor) -> Tensor:
        """Every expert's raw logits from the shared features, ``(N, E, C)``."""
        for name in self._layers[1:]:
            features = getattr(self, name)(features)
        logits: Tensor = self.experts(self.pool(features))
        return logits

    @torch.no_grad()
    def expert(self, index: int) -> ExpertResNet:
        """Return one expert as a network of its own, with copies of the shared and of its private weights.

        Args:
            index: Which, from 0.

        Raises:
            ShapeError: if there is no such expert.
        """
        if not 0 <= index < self.num_experts:
            raise ShapeError(f"expert must lie between 0 and {self.num_experts - 1}, got {index}")
        depths, stem, widths = self._arguments
        alone = ExpertResNet(
            depths,
            stem,
            widths,
            experts=1,
            num_classes=self.num_classes,
            scale=self.experts.scale,
            normalization=self.normalization,
        )
        mine = self.state_dict()
        for name, value in alone.state_dict().items():
            whole = mine[name]
            own = whole if whole.shape == value.shape else whole.chunk(self.num_experts)[index]
            value.copy_(own)
        return alone.to(next(self.parameters())).train(self.training)


def _group(block: BasicBlock, experts: int, *, shared_input: bool) -> None:
    """Give every convolution of a block a group for each expert, but those that read the shared features."""
    reads_input = {"conv1", "downsample.0"}
    for name, module in list(block.named_modules()):
        if not isinstance(module, nn.Conv2d) or (shared_input and name in reads_input):
            continue
        grouped = nn.Conv2d(
            module.in_channels,
            module.out_channels,
            module.kernel_size[0],
            module.stride[0],
            module.kernel_size[0] // 2,
            groups=experts,
            bias=False,
        )
        parent, _, child = name.rpartition(".")
        setattr(block.get_submodule(parent), child, grouped)


def expert_resnet32(
    num_classes: int = 100, *, experts: int = 3, normalization: Statistics = CIFAR100_NORMALIZATION
) -> ExpertResNet:
    """ResNet-32 with 16 shared channels, then 24 and 48 for each expert (arXiv:2308.09922, CIFAR)."""
    return ExpertResNet(
        (5, 5, 5), 16, (16, 24, 48), experts=experts, num_classes=num_classes, normalization=normalization
    )


def expert_resnet8(num_classes: int = 10, *, experts: int = 3, normalization: Statistics = None) -> ExpertResNet:
    """ResNet-8 with 16 shared channels, then 16 and 32 for each expert: for 8x8 digits."""
    return ExpertResNet(
        (1, 1, 1), 16, (16, 16, 32), experts=experts, num_classes=num_classes, normalization=normalization
    )
