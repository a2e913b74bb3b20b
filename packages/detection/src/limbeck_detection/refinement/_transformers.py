"""Edge distributions for detectors of transformers; the only file that knows that library."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.build import build
from limbeck_core.errors import MatchError, MissingDependency
from limbeck_detection.refinement.criterion import RefinementCriterion
from limbeck_detection.refinement.heads import BeginRefinement, EdgeRefinement


def refine_transformers(
    model: nn.Module | Mapping[str, Any],
    criterion: RefinementCriterion | Mapping[str, Any] | None = None,
    *,
    reg_max: int = 32,
    reg_scale: float = 4.0,
    up: float = 0.5,
) -> nn.Module:
    """Give a detector of transformers edge distributions and self-distillation of its decoder layers, in place.

    Fits ``RTDetrForObjectDetection``, ``RTDetrV2ForObjectDetection`` and ``DeformableDetrForObjectDetection`` (with and
    without ``with_box_refine`` and ``two_stage``). The model stays what it was to its callers: called with ``labels``
    its ``loss`` and ``loss_dict`` have the terms of the criterion as well (``loss_fgl``, ``loss_ddf``,
    ``loss_first_bbox``, ``loss_first_giou``), in a ``Trainer`` as anywhere else. The first layer's box head is kept
    with its weights; those of the other layers go, so a trained detector needs fine-tuning. New parameters are in
    ``model.refinement``, and checkpoints of the refined model load into a refined model.

    Args:
        model: The detector, or a config of it.
        criterion: The losses, or a config of them; default: D-FINE's weights.
        reg_max: See :class:`EdgeRefinement`.
        reg_scale: See :class:`EdgeRefinement`.
        up: See :class:`EdgeRefinement`.

    Returns: The same model.

    Raises:
        MissingDependency: if transformers is not installed.
        MatchError: if the model is of another kind, or already refined.
    """
    if importlib.util.find_spec("transformers") is None:
        raise MissingDependency("refine_transformers needs transformers: pip install 'limbeck-detection[transformers]'")
    from transformers import (  # noqa: PLC0415  an extra
        DeformableDetrForObjectDetection,
        RTDetrForObjectDetection,
        RTDetrV2ForObjectDetection,
    )

    inner: Any = build(model)
    if hasattr(inner, "refinement"):
        raise MatchError(f"this {type(inner).__name__} has edge distributions already")
    real_time = isinstance(inner, (RTDetrForObjectDetection, RTDetrV2ForObjectDetection))
    if not real_time and not isinstance(inner, DeformableDetrForObjectDetection):
        raise MatchError(
            "refine_transformers fits RTDetrForObjectDetection, RTDetrV2ForObjectDetection and "
            f"DeformableDetrForObjectDetection, got {type(inner).__name__}: for another decoder put "
            "EdgeRefinement(...).branches() in the place of its box heads"
        )
    config, decoder = inner.config, inner.model.decoder
    heads = decoder.bbox_embed if real_time else inner.bbox_embed
    iterative = real_time or bool(config.with_box_refine)
    refinement = EdgeRefinement(
        heads[0],
        config.d_model,
        config.decoder_layers,
        reg_max=reg_max,
        reg_scale=reg_scale,
        up=up,
        iterative=iterative,
    )
    refinement.to(next(heads[0].parameters()).device)
    places = [heads] if real_time or decoder.bbox_embed is None else [heads, decoder.bbox_embed]
    for index, branch in enumerate(refinement.branches()):
        for place in places:
            place[index] = branch
    inner.refinement = refinement
    names = {name for name, _ in inner.named_parameters(remove_duplicate=False)}
    # heads that shared their weights are gone, but for the one of a two-stage detector's proposals
    tied = {target: source for target, source in inner.all_tied_weights_keys.items() if {target, source} <= names}
    inner._tied_weights_keys = inner.all_tied_weights_keys = tied
    inner.refinement_criterion = build(criterion) or RefinementCriterion()
    decoder.register_forward_pre_hook(BeginRefinement(refinement, logits=real_time), with_kwargs=True)
    inner.register_forward_hook(_AddLosses(real_time), with_kwargs=True)
    refined: nn.Module = inner
    return refined


class _AddLosses:
    """Forward hook of a detector: the criterion's terms join its own losses."""

    def __init__(self, real_time: bool) -> None:
        self.real_time = real_time

    def __call__(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        refined = model.refinement.take()
        labels = kwargs.get("labels")
        if labels is None and args:
            names = list(inspect.signature(type(model).forward).parameters)[1:]
            labels = dict(zip(names, args, strict=False)).get("labels")
        if labels is None:
            return
        if isinstance(output, tuple):
            raise MatchError("a refined detector adds its losses to the output by name: call it with return_dict=True")
        config = model.config
        terms: Mapping[str, Tensor] = model.refinement_criterion(
            model.refinement,
            refined,
            self._logits(model, output),
            [{"labels": label["class_labels"], "boxes": label["boxes"]} for label in labels],
            num_queries=_num_queries(config),
        )
        output.loss = output.loss + torch.stack(list(terms.values())).sum().to(output.loss.dtype)
        output.loss_dict = {**(output.loss_dict or {}), **{f"loss_{name}": loss for name, loss in terms.items()}}

    @torch.no_grad()
    def _logits(self, model: Any, output: Any) -> Tensor:
        if self.real_time:
            logits: Tensor = output.intermediate_logits
            return logits.transpose(0, 1)
        hidden = output.intermediate_hidden_states
        return torch.stack([model.class_embed[index](hidden[:, index]) for index in range(hidden.shape[1])])


def _num_queries(config: Any) -> int:
    return int(config.two_stage_num_proposals if getattr(config, "two_stage", False) else config.num_queries)
