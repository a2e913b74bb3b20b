"""Dozens of teachers as one: each sample is shown to the specialist of its own vertical, and to no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core import pretrained
from limbeck_core.build import build
from limbeck_core.calls import TensorCall
from limbeck_core.errors import ConfigError, MatchError, ShapeError
from limbeck_vision.methods.knowledge_concentration.verticals import check_sizes, starts, vertical_of
from limbeck_vision.models import normalize
from limbeck_vision.models.normalization import normalization_of


class Specialists(nn.Module):
    """One teacher a vertical, giving the K largest of its probabilities and their labels in the union label set.

    Args:
        models: For each vertical a model that scores its labels, or a config of one, or ``None`` where there is none:
            then the sample's hard labels stand in its place.
        sizes: Labels of each vertical.
        top_k: How many probabilities are kept, the paper's K; all of a vertical that has fewer. The others, and those
            of other verticals, are zero for the student.

    Raises:
        ConfigError: if there are not as many models as verticals, or ``top_k`` is below 1.
    """

    normalizes_input = True

    def __init__(
        self, models: Sequence[nn.Module | Mapping[str, Any] | None], sizes: Sequence[int], *, top_k: int = 100
    ) -> None:
        super().__init__()
        self.sizes = check_sizes(sizes)
        if len(models) != len(self.sizes) or top_k < 1:
            raise ConfigError(
                f"Specialists needs one model (or None) for each of {len(self.sizes)} verticals and top_k of 1 or "
                f"more, got {len(models)} and {top_k}"
            )
        built = {str(vertical): build(model) for vertical, model in enumerate(models) if model is not None}
        self.models = nn.ModuleDict(built)
        self.top_k = min(top_k, max(self.sizes))

    def forward(self, images: Tensor, verticals: Tensor, targets: Tensor | None = None) -> dict[str, Tensor]:
        """Ask the specialists.

        Args:
            images: Images in [0, 1], shape ``(B, C, H, W)``; each specialist normalises for itself.
            verticals: The vertical of each, shape ``(B,)``.
            targets: Class indices ``(B,)`` or multi-hot rows ``(B, N)`` of the union label set; needed where a
                specialist is missing.

        Returns:
            ``probabilities`` and ``labels``, both ``(B, K)``; padding has probability 0.

        Raises:
            ShapeError: if there is not one vertical an image.
            MatchError: if a specialist is missing and there are no targets.
        """
        if verticals.shape != images.shape[:1]:
            raise ShapeError(f"verticals must have shape ({len(images)},), got {tuple(verticals.shape)}")
        probabilities = images.new_zeros(len(images), self.top_k, dtype=torch.float32)
        labels = torch.zeros(len(images), self.top_k, dtype=torch.long, device=images.device)
        for vertical in torch.unique(verticals).tolist():
            rows = (verticals == vertical).nonzero().flatten()
            start, size = starts(self.sizes)[vertical], self.sizes[vertical]
            values = self._ask(vertical, images[rows], None if targets is None else targets[rows])
            kept = min(self.top_k, size)
            largest, index = values.topk(kept, dim=1)
            probabilities[rows, :kept] = largest.to(probabilities.dtype)
            labels[rows] = start
            labels[rows, :kept] = start + index
        return {"probabilities": probabilities, "labels": labels}

    def _ask(self, vertical: int, images: Tensor, targets: Tensor | None) -> Tensor:
        start, size = starts(self.sizes)[vertical], self.sizes[vertical]
        if str(vertical) in self.models:
            model = self.models[str(vertical)]
            logits: Tensor = model(normalize(images, normalization_of(model)))
            if logits.shape != (len(images), size):
                raise ShapeError(
                    f"the specialist of vertical {vertical} must score its {size} labels, got {tuple(logits.shape)}"
                )
            return logits.float().sigmoid()
        if targets is None:
            raise MatchError(f"vertical {vertical} has no specialist, and the batch has no 'targets' to take its place")
        if targets.ndim == 2:
            return targets[:, start : start + size].float()
        return nn.functional.one_hot(targets.long() - start, size).float()


class SpecialistCall(TensorCall):
    """Show each sample to the specialist of its vertical; give it to the distiller as ``teacher_call``.

    The vertical is the batch's field ``verticals`` where there is one, otherwise that of its ``targets``.
    """

    normalizes_input = True

    def capture(self, model: nn.Module, batch: Mapping[str, Any], view: str) -> Any:
        """Run the specialists on the view.

        Raises:
            MatchError: if the batch lacks the view, or says of neither verticals nor targets.
        """
        if view not in batch or not ("verticals" in batch or "targets" in batch):
            raise MatchError(
                f"the specialists need {view!r} and 'targets' or 'verticals' in the batch, got {list(batch)}"
            )
        targets = batch.get("targets")
        specialists = _inside(model)
        verticals = batch["verticals"] if "verticals" in batch else vertical_of(batch["targets"], specialists.sizes)
        return model(batch[view], verticals, targets)

    def predict(self, model: nn.Module, batch: Mapping[str, Any], view: str) -> Tensor:
        """Return logits of all labels for an evaluator: of the sample's own vertical, and very low ones elsewhere."""
        found = self.capture(model, batch, view)
        dense = torch.zeros(len(found["labels"]), sum(_inside(model).sizes), device=found["labels"].device)
        dense.scatter_add_(1, found["labels"], found["probabilities"])
        return torch.logit(dense, eps=1e-6)


def _inside(model: Any) -> Specialists:
    """The specialists inside of a teacher's wrappers."""
    while not isinstance(model, Specialists):
        model = model.model
    return model


def pretrained_specialists(
    model: Mapping[str, Any],
    checkpoints: str,
    sizes: Sequence[int],
    *,
    top_k: int = 100,
    missing: Sequence[int] = (),
) -> Specialists:
    """Return specialists of one architecture with weights read from files.

    Args:
        model: Config of a specialist without ``num_classes``, which is the size of its vertical.
        checkpoints: Their files, with ``{vertical}`` where the number of the vertical, from 0, stands.
        sizes: Labels of each vertical.
        top_k: See :class:`Specialists`.
        missing: Verticals without a specialist.

    Raises:
        ConfigError: if the name of the files does not tell verticals apart, or as :class:`Specialists`.
        CheckpointError: as :func:`limbeck_core.pretrained`.
    """
    if "{vertical}" not in checkpoints:
        raise ConfigError(f"checkpoints must hold {{vertical}} in the place of its number, got {checkpoints!r}")
    models = [
        None
        if vertical in missing
        else pretrained({**model, "num_classes": size}, checkpoints.format(vertical=vertical)).model
        for vertical, size in enumerate(check_sizes(sizes))
    ]
    return Specialists(models, sizes, top_k=top_k)
