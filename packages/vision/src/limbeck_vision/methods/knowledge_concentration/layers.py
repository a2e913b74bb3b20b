r"""The student's last layers: dense or one block a vertical, and the self-paced scale of its logits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from limbeck_core.build import build
from limbeck_core.errors import ConfigError, ShapeError
from limbeck_vision.methods.knowledge_concentration.verticals import check_sizes, starts

Structure = Literal["full", "structured"]
Level = Literal["vertical", "class"]
_EPSILON = 1e-12  # under the root of the norm, for a vertical whose logits are all zero
_SPREAD = math.sqrt(1e-3)  # of the first scales; the paper gives the variance


class BlockLinear(nn.Module):
    """A linear classifier in which the labels of a vertical read the hidden units of that vertical only.

    It equals a dense layer from all hidden units whose other weights are zero, with one M-th of its weights.

    Args:
        width: Hidden units of each vertical.
        sizes: Labels of each vertical.
    """

    def __init__(self, width: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = check_sizes(sizes)
        self.width = width
        total = sum(self.sizes)
        self.weight = nn.Parameter(torch.empty(total, width))
        self.bias = nn.Parameter(torch.zeros(total))
        nn.init.uniform_(self.weight, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, hidden: Tensor) -> Tensor:
        """Score hidden units ``(N, M, width)``; the logits have shape ``(N, sum(sizes))``.

        Raises:
            ShapeError: if the hidden units have another shape.
        """
        if hidden.ndim != 3 or hidden.shape[1:] != (len(self.sizes), self.width):
            raise ShapeError(
                f"hidden must have shape (N, {len(self.sizes)}, {self.width}), verticals by units, got "
                f"{tuple(hidden.shape)}"
            )
        weights, biases = (torch.split(values, list(self.sizes)) for values in (self.weight, self.bias))
        parts = [
            linear(hidden[:, v], weight, bias) for v, (weight, bias) in enumerate(zip(weights, biases, strict=True))
        ]
        return torch.cat(parts, dim=1)

    def as_dense(self) -> nn.Linear:
        """Return the dense layer from ``M * width`` units that computes the same."""
        dense = nn.Linear(len(self.sizes) * self.width, sum(self.sizes)).to(self.weight)
        with torch.no_grad():
            dense.weight.zero_()
            dense.bias.copy_(self.bias)
            for vertical, (start, size) in enumerate(zip(starts(self.sizes), self.sizes, strict=True)):
                columns = slice(vertical * self.width, (vertical + 1) * self.width)
                dense.weight[start : start + size, columns] = self.weight[start : start + size]
        return dense


class SelfPacedScale(nn.Module):
    r"""Trainable size of the logits of each vertical: :math:`y_v = \gamma_v \, a_v / \|a_v\|_2`.

    Gradients through the normalised logits shrink with the size of a vertical; the scale gives each a pace of its own.

    Args:
        sizes: Labels of each vertical.
        level: ``"vertical"``: one scale a vertical (the paper's best). ``"class"``: one a label; the norm is the
            vertical's in both.
        initial: Mean of the first scales; ``None`` is the root of the vertical's size (the paper's best). They are
            drawn with variance 1e-3.

    The scale is a softplus of the parameter, so that it cannot turn negative; the paper leaves it free.

    Raises:
        ConfigError: if ``level`` is unknown or ``initial`` is not above 0.

    Reference:
        Gao et al., Knowledge Concentration, arXiv:1711.07607, section on self-paced learning.
    """

    def __init__(self, sizes: Sequence[int], *, level: Level = "vertical", initial: float | None = None) -> None:
        super().__init__()
        if level not in get_args(Level):
            raise ConfigError(f"level must be 'vertical' or 'class', got {level!r}")
        if initial is not None and not initial > 0:
            raise ConfigError(f"initial must be above 0, got {initial!r}")
        self.sizes = check_sizes(sizes)
        self.level = level
        counts = [1 if level == "vertical" else size for size in self.sizes]
        means = [math.sqrt(size) if initial is None else float(initial) for size in self.sizes]
        drawn = torch.cat([mean + _SPREAD * torch.randn(count) for count, mean in zip(counts, means, strict=True)])
        # inverse of the softplus, in a form that large scales do not overflow
        self.raw = nn.Parameter(drawn + torch.log(-torch.expm1(-drawn)))
        self._counts = counts

    @property
    def gamma(self) -> Tensor:
        """The scales, shape ``(M,)`` or ``(sum(sizes),)``."""
        return nn.functional.softplus(self.raw)

    def forward(self, logits: Tensor) -> Tensor:
        """Scale logits of shape ``(N, sum(sizes))``."""
        parts = torch.split(logits, list(self.sizes), dim=1)
        scales = torch.split(self.gamma, self._counts)
        scaled = [
            part * torch.rsqrt(part.square().sum(1, keepdim=True) + _EPSILON) * scale
            for part, scale in zip(parts, scales, strict=True)
        ]
        return torch.cat(scaled, dim=1)


class ConcentrationHead(nn.Module):
    """Two hidden layers and the classifier, each hidden layer dense or with one block a vertical.

    ``first="full", second="full"`` is FC-FC; ``"full", "structured"`` FC-SC (the paper's best); ``"structured",
    "structured"`` SC-SC; with ``shared`` of the second layer's units common to all verticals it is FC-SC(s2, x). ReLU
    follows each hidden layer; the paper's activation was not established.

    Args:
        in_features: Width of the embeddings (s_b).
        sizes: Labels of each vertical; logits are ordered by vertical.
        first_width: Units of the first hidden layer (s1), of each vertical if it is structured.
        second_width: Units of the second hidden layer (s2), which each label reads.
        first: Structure of the first layer.
        second: Structure of the second layer and the classifier.
        shared: Units of a structured second layer that all verticals share (x).
        rare: Start the classifier's biases at the log-odds of one label in all (they are rare), which keeps the first
            loss small. Without effect on the order of labels; leave it out with a self-paced scale, whose norm it
            would fill.

    Raises:
        ConfigError: if a structured first layer is followed by a dense one, or ``shared`` does not fit.

    Reference:
        Gao et al., Knowledge Concentration, arXiv:1711.07607, section on structurally connected layers.
    """

    def __init__(
        self,
        in_features: int,
        sizes: Sequence[int],
        *,
        first_width: int,
        second_width: int,
        first: Structure = "full",
        second: Structure = "structured",
        shared: int = 0,
        rare: bool = False,
    ) -> None:
        super().__init__()
        self.sizes = check_sizes(sizes)
        verticals, labels = len(self.sizes), sum(self.sizes)
        for name, structure in (("first", first), ("second", second)):
            if structure not in get_args(Structure):
                raise ConfigError(f"{name} must be 'full' or 'structured', got {structure!r}")
        if first == "structured" and second == "full":
            raise ConfigError(
                "a structured first layer needs a structured second one: first='full', or second='structured'"
            )
        if shared and (first != "full" or second != "structured" or not 0 <= shared < second_width):
            raise ConfigError(
                f"shared units need first='full', second='structured' and 0 <= shared < second_width ({second_width}), "
                f"got {shared}"
            )
        self.second_width, self.shared_width, self.structured_first = second_width, shared, first == "structured"
        self.first = nn.Linear(in_features, first_width * (verticals if self.structured_first else 1))
        self.shared = nn.Linear(first_width, shared) if shared else None
        self.second: nn.Module
        self.classifier: nn.Module
        own = second_width - shared
        if second == "full":
            self.second, self.classifier = nn.Linear(first_width, second_width), nn.Linear(second_width, labels)
        else:
            blocks = [first_width] * verticals if self.structured_first else []
            self.second = _Blocks(verticals, first_width, own) if blocks else nn.Linear(first_width, own * verticals)
            self.classifier = BlockLinear(second_width, self.sizes)
        if rare:
            nn.init.constant_(self.classifier.bias, -math.log(max(labels - 1, 1)))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Score embeddings ``(N, in_features)``; the logits have shape ``(N, sum(sizes))``."""
        hidden = relu(self.first(embeddings))
        if not isinstance(self.classifier, BlockLinear):
            logits: Tensor = self.classifier(relu(self.second(hidden)))
            return logits
        verticals = len(self.sizes)
        if self.structured_first:
            hidden = torch.unflatten(hidden, 1, (verticals, -1))
        units = relu(self.second(hidden))
        units = units if self.structured_first else torch.unflatten(units, 1, (verticals, -1))
        if self.shared is not None:
            common = relu(self.shared(hidden)).unsqueeze(1).expand(-1, verticals, -1)
            units = torch.cat([common, units], dim=2)
        scores: Tensor = self.classifier(units)
        return scores


class _Blocks(nn.Module):
    """One linear layer a vertical, all of one shape."""

    def __init__(self, verticals: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(verticals, in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(verticals, 1, out_features))
        nn.init.uniform_(self.weight, -1 / math.sqrt(in_features), 1 / math.sqrt(in_features))

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, hidden.transpose(0, 1), self.weight).transpose(0, 1)


def head_weights(
    in_features: int,
    sizes: Sequence[int],
    *,
    first_width: int,
    second_width: int,
    first: Structure = "full",
    second: Structure = "structured",
    shared: int = 0,
) -> int:
    """Count the weights of a :class:`ConcentrationHead`, without biases, by the paper's formulas; nothing is allocated.

    Arguments as :class:`ConcentrationHead`.

    >>> head_weights(8500, [5000] * 20, first_width=4096, second_width=512) // 10**6
    127
    """
    verticals, labels = len(check_sizes(sizes)), sum(sizes)
    into_first = in_features * first_width * (verticals if first == "structured" else 1)
    if second == "full":
        return into_first + first_width * second_width + second_width * labels
    return into_first + first_width * (shared + (second_width - shared) * verticals) + second_width * labels


class ConcentratedModel(nn.Module):
    """A backbone, the head, and its self-paced scale.

    Taps: ``backbone`` (embeddings), ``logits`` (what the loss sees, after the scale).

    Args:
        backbone: A model whose output is embeddings ``(N, D)``, or a config of one; a model of this package with a
            classifier ``fc`` gives what that read.
        head: The head without ``in_features``, as a config; ``in_features`` is taken from the backbone.
        scale: Config of a :class:`SelfPacedScale` without ``sizes``, or ``None`` for logits as they are.

    Raises:
        ConfigError: if the width of the embeddings cannot be told.
    """

    def __init__(
        self,
        backbone: nn.Module | Mapping[str, Any],
        head: Mapping[str, Any],
        *,
        scale: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone: nn.Module = build(backbone)
        self.head = ConcentrationHead(_take_classifier(self.backbone), **head)
        self.scale = None if scale is None else SelfPacedScale(self.head.sizes, **scale)
        self.logits = nn.Identity()
        self.num_classes = sum(self.head.sizes)
        if hasattr(self.backbone, "normalization"):
            self.normalization = self.backbone.normalization

    def forward(self, images: Tensor) -> Tensor:
        """Score normalised images ``(N, C, H, W)``; the logits have shape ``(N, labels)``, ordered by vertical."""
        logits = self.head(self.backbone(images))
        scores: Tensor = self.logits(logits if self.scale is None else self.scale(logits))
        return scores


def _take_classifier(backbone: Any) -> int:
    classifier = getattr(backbone, "fc", None)
    if isinstance(classifier, nn.Linear):
        backbone.fc = nn.Identity()
        return classifier.in_features
    width = getattr(backbone, "num_features", None)
    if getattr(backbone, "num_classes", None) == 0 and isinstance(width, int):
        return width
    raise ConfigError(
        f"{type(backbone).__name__} does not say how wide its embeddings are: use a model of limbeck_vision.models, or "
        "timm_model(name, num_classes=0)"
    )
