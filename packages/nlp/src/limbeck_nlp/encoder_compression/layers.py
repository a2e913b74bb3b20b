"""Layers that teach layers: which goes with which, what is compared, and a student that begins as some of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.build import build
from limbeck_core.errors import ConfigError, ShapeError
from limbeck_nlp.models import transformer

_STACKS = ("layer", "layers", "h", "block")


def layer_map(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    r"""Return, for each layer of the student, the teacher's layer that teaches it, evenly spread (TinyBERT's map).

    .. math:: g(m) = \operatorname{round}(m \, N / M), \quad m = 1 \dots M

    Args:
        student_layers: M.
        teacher_layers: N, at least M.

    Returns:
        M numbers of layers, counted from 1 as hidden states are (0 is the embedding); the last one is N.

    Raises:
        ConfigError: if the student is deeper than the teacher.

    Reference:
        Jiao et al., TinyBERT: Distilling BERT for Natural Language Understanding, arXiv:1909.10351, section 4.1. Depths
        that do not divide are rounded, a choice of ours.

    >>> layer_map(4, 12)
    (3, 6, 9, 12)
    """
    if not 1 <= student_layers <= teacher_layers:
        raise ConfigError(
            f"the student must have 1 to {teacher_layers} layers, the teacher's number, got {student_layers}"
        )
    return tuple(round(m * teacher_layers / student_layers) for m in range(1, student_layers + 1))


class AttentionScores(nn.Module):
    r"""Queries and keys to attention scores before the softmax, :math:`Q K^\top / \sqrt{d / H}`.

    It is the adapter of a match that taps both: ``student=(query, key)``. Dropout plays no part, and fast
    implementations of attention, which give no scores, need not be left.

    Args:
        heads: Number H of attention heads.
        mean: Average over the heads, for models with different numbers of them.

    Shapes: two of ``(N, L, D)`` to ``(N, H, L, L)``, or ``(N, L, L)`` with ``mean``.

    Raises:
        ConfigError: if ``heads`` is below 1.
        ShapeError: if the value is not queries and keys of one shape whose width ``heads`` divides.
    """

    def __init__(self, heads: int, *, mean: bool = False) -> None:
        super().__init__()
        if heads < 1:
            raise ConfigError(f"heads must be at least 1, got {heads}")
        self.heads = heads
        self.mean = mean

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Return the scores."""
        shapes = [tuple(s.shape) for s in states]
        if len(states) != 2 or shapes[0] != shapes[1] or len(shapes[0]) != 3 or shapes[0][2] % self.heads:
            raise ShapeError(
                f"AttentionScores expects queries and keys of one shape (N, L, D), D divisible by {self.heads} heads, "
                f"got {shapes}: tap both, and give the model's own number of heads"
            )
        query, key = (s.reshape(*s.shape[:2], self.heads, -1).transpose(1, 2) for s in states)
        scores: Tensor = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
        return scores.mean(1) if self.mean else scores

    def extra_repr(self) -> str:
        """Show the options in ``repr``."""
        return f"heads={self.heads}, mean={self.mean}"


class EachLayer(nn.Module):
    """Apply an adapter to each of several values: one for all (as TinyBERT's matrix), or one each.

    Args:
        adapters: One adapter or a config of one; or a sequence of them, one for each value.
        groups: So many values in a row go into an adapter together, as queries and keys do.

    Raises:
        ConfigError: if ``groups`` is below 1.
        ShapeError: if the number of values does not fit.
    """

    def __init__(
        self, adapters: nn.Module | Mapping[str, Any] | Sequence[nn.Module | Mapping[str, Any]], *, groups: int = 1
    ) -> None:
        super().__init__()
        if groups < 1:
            raise ConfigError(f"groups must be at least 1, got {groups}")
        self.shared = isinstance(adapters, (nn.Module, Mapping))
        found = [adapters] if isinstance(adapters, (nn.Module, Mapping)) else list(adapters)
        self.adapters = nn.ModuleList([build(adapter) for adapter in found])
        self.groups = groups

    def forward(self, values: Sequence[Any]) -> list[Any]:
        """Return what the adapters give, one value a layer."""
        expected = "a multiple of" if self.shared else f"{len(self.adapters)} times"
        layers, rest = divmod(len(values), self.groups)
        if rest or (not self.shared and layers != len(self.adapters)):
            raise ShapeError(f"EachLayer expects {expected} {self.groups} values, got {len(values)}: one tap each")
        parts = [values[i * self.groups : (i + 1) * self.groups] for i in range(layers)]
        adapters = [self.adapters[0 if self.shared else i] for i in range(layers)]
        return [adapter(part[0] if self.groups == 1 else part) for adapter, part in zip(adapters, parts, strict=True)]


class SumOverLayers(nn.Module):
    """A loss on each of several layers, added up.

    Args:
        loss: The loss of one layer, or a config of it; called as ``loss(student, teacher, mask=mask)``.

    Raises:
        ShapeError: if the numbers of layers differ.
    """

    def __init__(self, loss: nn.Module | Mapping[str, Any]) -> None:
        super().__init__()
        self.loss: nn.Module = build(loss)

    @property
    def reduction(self) -> str:
        """How the loss of one layer reduces."""
        return str(getattr(self.loss, "reduction", "mean"))

    def forward(
        self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], *, mask: Tensor | None = None
    ) -> Tensor:
        """Return the sum.

        Args:
            student_features: One value a layer.
            teacher_features: As many.
            mask: Tokens that count, shape ``(N, L)``.
        """
        if len(student_features) != len(teacher_features) or not len(student_features):
            raise ShapeError(
                f"a loss over layers compares as many of the student's as of the teacher's, at least one, got "
                f"{len(student_features)} and {len(teacher_features)}: name one of the teacher's taps for each"
            )
        pairs = zip(student_features, teacher_features, strict=True)
        return torch.stack([self.loss(student, teacher, mask=mask) for student, teacher in pairs]).sum()


def thinned(
    task: str, weights: str | Path, layers: Sequence[int], model_type: str | None = None, **config: Any
) -> nn.Module:
    """Build a student that begins as some of the teacher's layers, with its embeddings and its head (DistilBERT).

    Args:
        task: See :func:`~limbeck_nlp.models.transformer`.
        weights: The teacher's local folder.
        layers: The layers that are kept, counted from 0; DistilBERT keeps every second one.
        model_type: See :func:`~limbeck_nlp.models.transformer`; needed where the folder is not read (meta device).
        config: Further entries of the configuration.

    Raises:
        ConfigError: if ``layers`` is empty, or a layer is not there.
        CheckpointError: as :func:`~limbeck_nlp.models.transformer`.

    Reference:
        Sanh et al., DistilBERT, a Distilled Version of BERT, arXiv:1910.01108, section 2 ("Student initialization").
    """
    model = transformer(task, model_type, weights=weights, **config)
    stack = layers_of(model)
    if not layers or not all(0 <= index < len(stack) for index in layers):
        raise ConfigError(f"layers must name some of the teacher's layers 0 to {len(stack) - 1}, got {list(layers)}")
    kept = [stack[index] if layers.count(index) == 1 else copy.deepcopy(stack[index]) for index in layers]
    path = next(name for name, module in model.named_modules() if module is stack)
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.ModuleList(kept))
    settings: Any = model.config
    settings.num_hidden_layers = len(kept)
    return model


def layers_of(model: nn.Module) -> nn.ModuleList:
    """Return the stack of a model's layers.

    Raises:
        ConfigError: if there is none, or more than one (encoder-decoders).
    """
    stacks = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in _STACKS
    ]
    if len(stacks) != 1:
        raise ConfigError(
            f"{type(model).__name__} has {len(stacks)} stacks of layers, expected one: choose a model that is an "
            "encoder or a decoder alone"
        )
    return stacks[0]
