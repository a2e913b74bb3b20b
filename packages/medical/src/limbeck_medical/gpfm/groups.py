"""The optimiser of GPFM's recipe: lower rates for the layers near the pixels, no decay of norms and biases."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from limbeck_core.errors import ConfigError
from limbeck_core.tap import unwrap

_BLOCK = re.compile(r"\.vit\.blocks\.(\d+)\.")
_BEFORE_BLOCKS = re.compile(r"\.(mask_token|vit\.(patch_embed|cls_token|reg_token|pos_embed|norm_pre)\b)")


class TileParameterGroups:
    """Build the optimiser with a learning rate by layer of the transformer.

    Used by name in a config: ``optim_wrapper = dict(constructor=TileParameterGroups, paramwise_cfg=dict(
    layer_decay=0.9, patch_embed=0.2), optimizer=...)``. Block l of L has the rate times ``layer_decay ** (L - l)``, l
    from 0; what stands before the blocks one power more; the last norm and all heads the rate itself. Parameters of one
    axis (norms, biases, lengths of prototypes) and the learned tokens do not decay.

    Args:
        optim_wrapper_cfg: What MMEngine builds the wrapper from, with ``optimizer``.
        paramwise_cfg: ``layer_decay`` (default 1) and ``patch_embed``, a further factor of the patch embedding's rate
            (default 1). Paper: 0.9 and 0.2.

    Raises:
        ConfigError: if ``paramwise_cfg`` holds anything else, or a factor is not above 0.

    Reference:
        Ma et al., arXiv:2407.18449, with the constants of the authors' config; the rule is DINOv2's.
    """

    def __init__(self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: Mapping[str, Any] | None = None) -> None:
        options = dict(paramwise_cfg or {})
        self.layer_decay = float(options.pop("layer_decay", 1.0))
        self.patch_embed = float(options.pop("patch_embed", 1.0))
        if options or min(self.layer_decay, self.patch_embed) <= 0:
            raise ConfigError(
                f"TileParameterGroups takes layer_decay and patch_embed, both above 0, got {dict(paramwise_cfg or {})}"
            )
        self.wrapper = dict(optim_wrapper_cfg)
        self.optimizer = dict(self.wrapper.pop("optimizer"))

    def __call__(self, model: nn.Module) -> Any:
        """Return the optimiser's wrapper."""
        named = [(f".{name}", p) for name, p in unwrap(model).named_parameters() if p.requires_grad]
        depth = 1 + max((int(found[1]) for name, _ in named if (found := _BLOCK.search(name))), default=-1)
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in named:
            plain = parameter.ndim < 2 or name.rpartition(".")[2] in ("cls_token", "reg_token", "pos_embed")
            plain = plain or name.endswith(".original0")  # lengths of weight normalisation
            groups.setdefault((self._factor(name, depth), plain), []).append(parameter)
        rate = float(self.optimizer["lr"])
        options = [
            {"params": parameters, "lr": rate * factor, **({"weight_decay": 0.0} if plain else {})}
            for (factor, plain), parameters in groups.items()
        ]
        optimizer = OPTIMIZERS.build({**self.optimizer, "params": options})
        return OPTIM_WRAPPERS.build({"type": "OptimWrapper", **self.wrapper}, default_args={"optimizer": optimizer})

    def _factor(self, name: str, depth: int) -> float:
        block = _BLOCK.search(name)
        if block:
            return self.layer_decay ** (depth - int(block[1]))
        if not _BEFORE_BLOCKS.search(name):
            return 1.0
        return self.layer_decay ** (depth + 1) * (self.patch_embed if ".patch_embed." in name else 1.0)
