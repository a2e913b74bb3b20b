"""Adapters from golden items to this package, announced by the entry-point group ``limbeck.conformance``."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from monai.losses import DiceCELoss
from torch import Tensor

from limbeck_core.conformance import Adapter, GoldenCase
from limbeck_medical.dsd import self_distillation_loss

_SUPERVISED = ("main", "dec4", "dec3", "dec2", "dec1")
_PAIRS = (("dec4", "dec1"), ("dec3", "dec1"), ("dec2", "dec1"), ("enc1", "enc4"), ("enc2", "enc4"), ("enc3", "enc4"))


def _dsd(case: GoldenCase) -> Mapping[str, Tensor]:
    """The released code never applies its weight ``alpha_KL``.

    Its ``include_background`` drops the background's logit before the softmax of the divergence, and leaves DiceCE
    alone.
    """
    heads = {name.removeprefix("out_"): value for name, value in case.inputs.items() if name.startswith("out_")}
    background, temperature = case.params["include_background"], case.params["T"]
    kept = {name: logits if background else logits[:, 1:] for name, logits in heads.items()}
    terms = torch.stack([self_distillation_loss(kept[s], kept[t], temperature=temperature) for s, t in _PAIRS])
    segmentation = DiceCELoss(softmax=True, to_onehot_y=True)
    labels = case.inputs["label"]
    supervised = torch.stack([segmentation(heads[name], labels) for name in _SUPERVISED])
    divergence = terms.sum()
    through_divergence = [name for name in heads if name != "main"]
    grads = torch.autograd.grad(divergence, [heads[name] for name in through_divergence], retain_graph=True)
    return {
        "value": divergence + supervised.sum(),
        "out_kl": divergence,
        "out_kl_terms": terms / temperature**2,
        "out_dice_ce": supervised.sum(),
        "out_dicece_each": supervised,
        **{f"out_gradkl_{name}": grad for name, grad in zip(through_divergence, grads, strict=True)},
    }


ADAPTERS: dict[str, Adapter] = {"dsd": _dsd}
