"""Auxiliary classifiers: what follows a stage, repeated beside the network, with a head of class and rotation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from limbeck_core.checks import check_ndim
from limbeck_core.errors import ConfigError, ShapeError
from limbeck_core.tap import unwrap
from limbeck_vision.models import StagedModel
from limbeck_vision.models.resnet import BasicBlock
from limbeck_vision.models.stages import GlobalPool, init_convolutions, stage


class AuxiliaryBranch(nn.Module):
    """Residual stages on the features of a stage of the network, global pooling and a linear classifier.

    Args:
        in_channels: Channels of the features that it reads.
        widths: Channels of each of its stages.
        strides: Stride of each of its stages.
        num_outputs: Scores that it gives.
        embedding: Width in which its pooled features are compared with the network's; if it is not the last of
            ``widths``, a linear layer projects them for that comparison (the classifier reads them as they are).
        blocks: Residual blocks of each stage.

    Raises:
        ConfigError: if there is no stage, or not one stride for each.
        ValueError: if ``blocks`` is below 1.

    Reference:
        Yang et al., Hierarchical Self-supervised Augmented Knowledge Distillation, arXiv:2107.13715, section 3.2.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        strides: Sequence[int],
        num_outputs: int,
        *,
        embedding: int,
        blocks: int = 1,
    ) -> None:
        super().__init__()
        if not widths or len(widths) != len(strides):
            raise ConfigError(f"a branch needs a stride for each of its stages, got widths {widths}, strides {strides}")
        if blocks < 1:
            raise ValueError(f"blocks must be 1 or more, got {blocks}")
        self.in_channels = in_channels
        layers, channels = [], in_channels
        for width, stride in zip(widths, strides, strict=True):
            parts: list[nn.Module] = []
            for position in range(blocks):
                parts.append(BasicBlock(channels, width, 1 if position else stride, last=position == blocks - 1))
                channels = width
            layers.append(stage(parts))
        self.stages = nn.Sequential(*layers)
        self.pool = GlobalPool()
        self.project = nn.Identity() if channels == embedding else nn.Linear(channels, embedding)
        self.fc = nn.Linear(channels, num_outputs)
        init_convolutions(self)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Classify features of shape ``(N, in_channels, H, W)``.

        Returns:
            Logits ``(N, num_outputs)`` and the pooled features, projected where widths differ, ``(N, embedding)``.

        Raises:
            ShapeError: if the features are no maps of ``in_channels``.
        """
        check_ndim(features, "features", "(N, C, H, W)", at_least=4, at_most=4)
        if features.shape[1] != self.in_channels:
            raise ShapeError(
                f"this branch reads {self.in_channels} channels, got features of shape {tuple(features.shape)}: give "
                "each tap the branch that was built for it"
            )
        pooled = self.pool(self.stages(features))
        return self.fc(pooled), self.project(pooled)


def auxiliary_branches(model: nn.Module, num_outputs: int, *, blocks: int = 1) -> dict[str, AuxiliaryBranch]:
    """Return a branch for each stage of a network: its remaining stages once more.

    Widths and strides are those of the stages that follow, so that every branch ends with the features of the last
    stage's width and size; the last branch adds one stage of the last width and stride 1.

    Args:
        model: The network, one of the CIFAR models here.
        num_outputs: Scores of each branch.
        blocks: Residual blocks of each stage. HSAKD takes as many as the backbone has.

    Raises:
        ConfigError: if the model has no named stages.

    Reference:
        Yang et al., arXiv:2107.13715, section 3.2, for the shape of the branches; LSSKD (arXiv:2506.07055) calls them a
        feature extraction module, global pooling and a linear layer. Basic residual blocks in all of them are a choice
        made here.
    """
    inner = unwrap(model)
    if not isinstance(inner, StagedModel):
        raise ConfigError(
            f"{type(inner).__name__} has no named stages to build branches for: pass them yourself, as "
            "branches={TAP: AuxiliaryBranch(...)}, from the shallowest to the deepest"
        )
    infos = list(inner.stages.values())
    branches = {}
    for index, (name, info) in enumerate(inner.stages.items()):
        rest = infos[index + 1 :]
        widths = [later.channels for later in rest] or [info.channels]
        before = [info, *rest]
        strides = [later.stride // earlier.stride for earlier, later in zip(before, rest, strict=False)] or [1]
        branches[name] = AuxiliaryBranch(
            info.channels, widths, strides, num_outputs, embedding=inner.fc.in_features, blocks=blocks
        )
    return branches
