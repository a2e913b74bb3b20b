r"""A vision transformer as the explicit sum of its paths, of which some may be dropped, weighed, or taught by others.

A pre-norm layer adds attention and feed-forward network to what comes in, so that the tokens before the final norm are

.. math:: X_L = X_0 + \sum_{l=1}^{L} (a_l + f_l), \quad a_l = A_l(X_{l-1}), \quad f_l = F_l(X_{l-1} + a_l)

exactly: 2 L + 1 components, called ``"input"``, ``"attention1"``, ``"ffn1"``, ``"attention2"``, ... here. ``"layer1"``
stands for both components of a layer, which gives the L + 1 paths of the other way to count. Each component is added to
the final sum and is read by the layers after it; pruning and weights change the final sum only.

Reference:
    Chang et al., Revisiting Vision Transformer from the View of Path Ensemble, arXiv:2308.06548, sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from limbeck_core.build import build
from limbeck_core.errors import ConfigError, closest

Granularity = Literal["channel", "scalar"]
Grouping = Literal["component", "layer"]
INPUT = "input"


class EnsembleScale(nn.Module):
    """Learnable weights of the components in the final sum, all 1 at the start, so that nothing changes then.

    Args:
        groups: Names of what is weighed together.
        channels: Width of the tokens.
        granularity: ``"channel"``: one weight a channel, as LayerScale has; ``"scalar"``: one a group. The paper's
            granularity was not established.
    """

    def __init__(self, groups: Sequence[str], channels: int, *, granularity: Granularity = "channel") -> None:
        super().__init__()
        self.groups = tuple(groups)
        width = channels if granularity == "channel" else 1
        self.weight = nn.Parameter(torch.ones(len(self.groups), width))

    def forward(self, index: int, component: Tensor) -> Tensor:
        """Weigh a component, shape ``(N, T, D)``, by the weight of its group."""
        return component * self.weight[index]

    def summary(self) -> dict[str, float]:
        """Mean absolute weight of each group."""
        values = self.weight.detach().abs().mean(1).tolist()
        return dict(zip(self.groups, values, strict=True))


class PathEnsembleViT(nn.Module):
    """A pre-norm vision transformer of timm whose final sum is made of named components.

    Unpruned and unscaled, its output is that of the transformer. The transformer keeps its weights under ``vit``; load
    a checkpoint into it before wrapping, or with the prefix.

    For self-distillation, ``boundaries`` names layers l after which the partial sum is classified as if it were the
    last: its logits, by the transformer's own final norm and classifier, stand at the tap ``partial_logits.<l>``, its
    pooled features at ``partial_features.<l>``; the whole sum is at ``partial_features.final`` and
    ``partial_logits.final``. Without boundaries nothing of that is computed.

    Args:
        vit: timm's ``VisionTransformer`` with its usual blocks (DeiT, DeiT III, AugReg, ...), or a config of one.
            LayerScale, dropout and stochastic depth act inside of the components.
        pruned: Components left out of the final sum: ``"input"``, ``"attention3"``, ``"ffn3"``, or ``"layer3"`` for
            both. What later layers read is unchanged.
        scale: Weigh the components by an :class:`EnsembleScale` of this granularity; ``None``: no weights.
        grouping: Whether the weights tell attention and feed-forward network apart (``"component"``) or weigh a layer
            as a whole (``"layer"``).
        boundaries: Layers, from 1 to L - 1, whose partial sums may be tapped.

    Raises:
        ConfigError: if the model is no such transformer, a name or layer does not exist, or nothing would be left of
            the sum.
    """

    def __init__(
        self,
        vit: nn.Module | Mapping[str, Any],
        *,
        pruned: Sequence[str] = (),
        scale: Granularity | None = None,
        grouping: Grouping = "component",
        boundaries: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.vit: Any = _checked(build(vit))
        if scale is not None and scale not in get_args(Granularity):
            raise ConfigError(f"scale must be 'channel', 'scalar' or None, got {scale!r}")
        if grouping not in get_args(Grouping):
            raise ConfigError(f"grouping must be 'component' or 'layer', got {grouping!r}")
        if hasattr(self.vit, "normalization"):
            self.normalization = self.vit.normalization
        self.num_classes: int = self.vit.num_classes
        self.depth = len(self.vit.blocks)
        self.grouping = grouping
        self.boundaries = tuple(boundaries)
        outside = [layer for layer in self.boundaries if not 1 <= layer < self.depth]
        if outside:
            raise ConfigError(
                f"boundaries must be layers from 1 to {self.depth - 1} of {self.depth}, got {outside[0]}: the whole "
                "sum is the tap partial_logits.final"
            )
        self.pruned = tuple(pruned)
        self.scale: EnsembleScale | None = None
        if scale is not None:
            self.scale = EnsembleScale(self.groups, self.vit.embed_dim, granularity=scale)
        tapped = [*map(str, self.boundaries), "final"] if self.boundaries else []
        self.partial_logits = nn.ModuleDict({name: nn.Identity() for name in tapped})
        self.partial_features = nn.ModuleDict({name: nn.Identity() for name in tapped})

    @property
    def component_names(self) -> tuple[str, ...]:
        """All 2 L + 1 components, in the order of the sum."""
        return (INPUT, *(f"{kind}{layer}" for layer in range(1, self.depth + 1) for kind in ("attention", "ffn")))

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The input and the L layers: L + 1 paths."""
        return (INPUT, *(f"layer{layer}" for layer in range(1, self.depth + 1)))

    @property
    def groups(self) -> tuple[str, ...]:
        """What :class:`EnsembleScale` weighs: the components, or the input and the layers."""
        return self.component_names if self.grouping == "component" else self.layer_names

    @property
    def pruned(self) -> tuple[str, ...]:
        """Components left out of the final sum, in the order of the sum; may be assigned."""
        return self._pruned

    @pruned.setter
    def pruned(self, names: Sequence[str]) -> None:
        chosen = {component for name in names for component in self.expand(name)}
        if len(chosen) == len(self.component_names):
            raise ConfigError("pruned names every component: one at least must stay in the final sum")
        if self.boundaries and not set(self.component_names[: 2 * min(self.boundaries) + 1]) - chosen:
            raise ConfigError(
                f"pruned names everything up to boundary {min(self.boundaries)}: there is no partial sum to teach"
            )
        self._pruned = tuple(name for name in self.component_names if name in chosen)

    def expand(self, name: str) -> tuple[str, ...]:
        """Return the components that a name stands for: itself, or both of ``"layer3"``.

        Raises:
            ConfigError: if there is no such component, with the closest names.
        """
        if name in self.component_names:
            return (name,)
        layer = name.removeprefix("layer")
        if layer != name and f"ffn{layer}" in self.component_names:
            return (f"attention{layer}", f"ffn{layer}")
        known = [*self.component_names, *self.layer_names]
        raise ConfigError(f"{name!r} is no component of a transformer of {self.depth} layers: {closest(name, known)}")

    def components(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield name and value, ``(N, T, D)``, of every component in the order of the sum, pruned ones included.

        Args:
            images: Normalised images, ``(N, C, H, W)``.
        """
        tokens = self.vit.norm_pre(self.vit.patch_drop(self.vit._pos_embed(self.vit.patch_embed(images))))
        yield INPUT, tokens
        for layer, block in enumerate(self.vit.blocks, start=1):
            attention = block.drop_path1(block.ls1(block.attn(block.norm1(tokens))))
            yield f"attention{layer}", attention
            tokens = tokens + attention
            ffn = block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))
            yield f"ffn{layer}", ffn
            tokens = tokens + ffn

    def weigh(self, name: str, component: Tensor) -> Tensor | None:
        """Return what a component adds to the final sum, ``(N, T, D)``; ``None`` if it is pruned."""
        if name in self._pruned:
            return None
        if self.scale is None:
            return component
        place = self.component_names.index(name)
        # the input comes first; then there are two components a layer
        weighed: Tensor = self.scale(place if self.grouping == "component" else (place + 1) // 2, component)
        return weighed

    def classify(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return pooled features, ``(N, D)``, and logits, ``(N, classes)``, of a sum of components, ``(N, T, D)``."""
        features = self.vit.forward_head(self.vit.norm(tokens), pre_logits=True)
        return features, self.vit.head(features)

    def forward(self, images: Tensor) -> Tensor:
        """Score normalised images ``(N, C, H, W)``; the logits have shape ``(N, classes)``."""
        total: Any = None
        ends = {f"ffn{layer}": str(layer) for layer in self.boundaries}
        last = [name for name in self.component_names if name not in self._pruned][-1]
        for name, component in self.components(images):
            addend = self.weigh(name, component)
            if addend is not None:
                total = addend if total is None else total + addend
            if name == last:
                break  # nothing after it reaches the output
            if name in ends:
                self._tap(ends[name], total)
        if self.boundaries:
            return self._tap("final", total)
        return self.classify(total)[1]

    def _tap(self, name: str, total: Tensor) -> Tensor:
        features, logits = self.classify(total)
        self.partial_features[name](features)
        scores: Tensor = self.partial_logits[name](logits)
        return scores


def _checked(vit: Any) -> Any:
    """Refuse what does not decompose in this way."""
    from timm.models.vision_transformer import Block, VisionTransformer  # noqa: PLC0415  takes seconds

    if not isinstance(vit, VisionTransformer):
        raise ConfigError(
            f"PathEnsembleViT takes a VisionTransformer of timm, got {type(vit).__name__}: build one with "
            "timm_model('deit_small_patch16_224', num_classes). Swin and others with stages between which tokens are "
            "merged are no single sum"
        )
    for method in ("forward_features", "forward_head"):
        if getattr(type(vit), method) is not getattr(VisionTransformer, method):
            raise ConfigError(f"{type(vit).__name__} has a {method} of its own, which the decomposition does not know")
    for number, block in enumerate(vit.blocks, start=1):
        if type(block) is not Block:
            raise ConfigError(
                f"layer {number} is a {type(block).__name__}; only timm's pre-norm Block adds its parts to the tokens "
                "so that the output is their sum"
            )
    if not vit.num_classes:
        raise ConfigError("the transformer has no classifier: give it num_classes of 1 or more")
    return vit
