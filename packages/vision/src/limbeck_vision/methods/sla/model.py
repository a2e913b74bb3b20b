"""A classifier whose last layer is replaced by the joint head of SLA and, for SD, a second head of classes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from limbeck_core.build import build
from limbeck_core.errors import ConfigError, closest
from limbeck_vision.methods.sla.losses import aggregated_logits
from limbeck_vision.methods.sla.views import number_of_views, transformed_views
from limbeck_vision.models.normalization import Normalize, normalization_of

Inference = Literal["aggregated", "single", "distilled"]


class LabelAugmented(nn.Module):
    """A network that tells class and transformation of every view of an image at once.

    In training it takes images, makes their views, runs them through the trunk as ONE batch (batch norm sees all views
    together) and returns joint logits ``(N * M, C * M)``. In evaluation it returns class logits ``(N, C)``. Taps:
    ``joint`` (joint logits) and ``single`` (class logits of the untransformed images).

    Images come in [0, 1]; views are made of them and then normalised with the backbone's own statistics, so that
    exchanged colours are exchanged colours of the image.

    Args:
        backbone: The network, or a config of it. Its linear classifier is taken out.
        num_classes: Number of classes C.
        transformation: See :func:`~limbeck_vision.methods.sla.views.number_of_views`.
        distilled_head: Add the second head, which SD trains.
        inference: What evaluation gives: ``"aggregated"`` (M views of an image), ``"single"`` (one view, the joint
            head's columns of the identity) or ``"distilled"`` (one view, the second head). Default: ``"distilled"`` if
            there is a second head, otherwise ``"aggregated"``.
        classifier: Name of the backbone's linear classifier.

    Raises:
        ConfigError: if the backbone has no linear layer of that name, or ``inference`` asks for a head that is not
            there.
        MatchError: if the backbone does not say how its input is normalised.

    Reference:
        Lee et al., Self-supervised Label Augmentation via Input Transformations, arXiv:1910.05872, section 2.
    """

    normalizes_input = True

    def __init__(
        self,
        backbone: nn.Module | Mapping[str, Any],
        num_classes: int,
        *,
        transformation: str = "rotation",
        distilled_head: bool = False,
        inference: Inference | None = None,
        classifier: str = "fc",
    ) -> None:
        super().__init__()
        self.views = number_of_views(transformation)
        self.transformation = transformation
        self.num_classes = num_classes
        trunk: nn.Module = build(backbone)
        last = dict(trunk.named_children()).get(classifier)
        if not isinstance(last, nn.Linear):
            linear = [name for name, module in trunk.named_children() if isinstance(module, nn.Linear)]
            raise ConfigError(
                f"{type(trunk).__name__} has no linear classifier {classifier!r}: {closest(classifier, linear)}"
            )
        setattr(trunk, classifier, nn.Identity())
        self.classifier = classifier
        self.normalization = normalization_of(trunk)
        self.normalize = nn.Identity() if self.normalization is None else Normalize(self.normalization)
        self.trunk = trunk
        self.joint = nn.Linear(last.in_features, num_classes * self.views)
        self.single = nn.Linear(last.in_features, num_classes) if distilled_head else None
        self.inference: Inference = inference or ("distilled" if distilled_head else "aggregated")
        self._check_inference(self.inference)

    def _check_inference(self, inference: str) -> None:
        if inference not in ("aggregated", "single", "distilled"):
            raise ConfigError(f"inference must be 'aggregated', 'single' or 'distilled', got {inference!r}")
        if inference == "distilled" and self.single is None:
            raise ConfigError(
                "inference='distilled' needs the second head: build the model with distilled_head=True, or use "
                "'aggregated' or 'single'"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Return joint logits ``(N * M, C * M)`` in training, class logits ``(N, C)`` in evaluation."""
        if not self.training:
            return self.class_logits(images, self.inference)
        embeddings = self._embed(transformed_views(images, self.transformation))
        if self.single is not None:
            self.single(embeddings[:: self.views])
        joint: Tensor = self.joint(embeddings)
        return joint

    def class_logits(self, images: Tensor, inference: Inference) -> Tensor:
        """Return class logits ``(N, C)`` in one of the three ways, whatever ``self.inference`` says.

        Args:
            images: In [0, 1], shape ``(N, C, H, W)``.
            inference: ``"aggregated"``, ``"single"`` or ``"distilled"``.

        Raises:
            ConfigError: if the way is unknown or needs a head that is not there.
            ShapeError: as :func:`~limbeck_vision.methods.sla.views.transformed_views`.
        """
        self._check_inference(inference)
        if inference == "aggregated":
            of_views = self.joint(self._embed(transformed_views(images, self.transformation)))
            return aggregated_logits(of_views, views=self.views)
        embeddings = self._embed(images)
        if inference == "distilled" and self.single is not None:
            logits: Tensor = self.single(embeddings)
            return logits
        joint: Tensor = self.joint(embeddings)
        return joint[:, :: self.views].contiguous()  # the columns of the identity

    def _embed(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self.trunk(self.normalize(images))
        return embeddings

    def alone(self) -> nn.Module:
        """Return the plain network with the distilled head as its classifier, and nothing of the joint task.

        Its weights are copies; images are normalised outside of it, as for the backbone.

        Raises:
            ConfigError: if there is no distilled head.
        """
        self._check_inference("distilled")
        plain = copy.deepcopy(self.trunk)
        setattr(plain, self.classifier, copy.deepcopy(self.single))
        return plain
