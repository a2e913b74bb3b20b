"""Where USKD's weak head reads: the last stage but one of a convolutional network, the middle of a transformer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from limbeck_core import Match, Tap
from limbeck_core.errors import MatchError, ShapeError, TapError
from limbeck_core.losses import CustomizedSoftLabelLoss
from limbeck_core.tap import unwrap
from limbeck_vision.models import StagedModel


class ClassToken(nn.Module):
    """Tokens ``(N, L, D)`` to the class token ``(N, D)``.

    Args:
        index: Its position among the tokens.

    Raises:
        ValueError: if ``index`` is negative.
    """

    def __init__(self, index: int = 0) -> None:
        super().__init__()
        if index < 0:
            raise ValueError(f"index must be 0 or more, got {index}")
        self.index = index

    def forward(self, tokens: Tensor) -> Tensor:
        """Take the token.

        Raises:
            ShapeError: if the value has no axis of tokens, or too few of them.
        """
        if tokens.ndim != 3 or tokens.shape[1] <= self.index:
            raise ShapeError(
                f"ClassToken expects tokens (N, L, D) with L above {self.index}, got {tuple(tokens.shape)}: tap a "
                "block of a transformer; maps of a convolutional network need no ClassToken"
            )
        return tokens[:, self.index]

    def extra_repr(self) -> str:
        """Show the position in ``repr``."""
        return f"index={self.index}"


class ChannelsFirst(nn.Module):
    """Maps ``(N, H, W, C)``, as Swin has them, to ``(N, C, H, W)``."""

    def forward(self, features: Tensor) -> Tensor:
        """Move the axis.

        Raises:
            ShapeError: if the value has not four axes.
        """
        if features.ndim != 4:
            raise ShapeError(f"ChannelsFirst expects maps (N, H, W, C), got {tuple(features.shape)}")
        return features.movedim(-1, 1)


@dataclass(frozen=True)
class MiddleStage:
    """Where the weak head reads.

    Args:
        path: Dotted name of the module.
        channels: Width of its output.
        adapter: What brings the output into the shape ``(N, channels, ...)``; ``None`` where it is so already.
    """

    path: str
    channels: int
    adapter: nn.Module | None = None


def middle_stage(model: nn.Module) -> MiddleStage:
    """Find the place that USKD reads besides the logits.

    Of a convolutional network or Swin it is the last stage but one, where a last convolution before the pooling counts
    as a stage (MobileNetV2: the bottlenecks of 320 channels at full width); of a vision transformer with L blocks the
    class token after block L // 2, counted from 1. Known are the CIFAR models here, timm's networks with a list of
    stages, timm's and torchvision's vision transformers with a class token, and torchvision's residual networks.

    Args:
        model: The student, with or without the wrapper of ``torch.compile``.

    Returns:
        Path, width and adapter.

    Raises:
        TapError: if the model is none of those, with the way to name the place by hand.

    Reference:
        Yang et al., From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss
        and Customized Soft Labels, arXiv:2303.13005; places as in its released configs.

    >>> from limbeck_vision.models import resnet18
    >>> middle_stage(resnet18())
    MiddleStage(path='layer3', channels=256, adapter=None)
    """
    inner = unwrap(model)
    for find in (_of_staged, _of_transformer, _of_timm, _of_torchvision):
        found = find(inner)
        if found is not None:
            return found
    raise TapError(
        f"USKD does not know the last stage but one of {type(inner).__name__}: name it yourself, as in "
        "Match(CustomizedSoftLabelLoss(feature_channels, num_classes), '', Tap(PATH, of='student')), with "
        "teacher_adapter=ClassToken() for the tokens of a transformer"
    )


def _of_staged(model: nn.Module) -> MiddleStage | None:
    if not isinstance(model, StagedModel):
        return None
    names = list(model.stages)
    name = names[-1] if hasattr(model, "head") or len(names) == 1 else names[-2]
    return MiddleStage(name, model.stages[name].channels)


def _of_transformer(model: nn.Module) -> MiddleStage | None:
    """The vision transformers of timm and torchvision."""
    for path, token in (("blocks", "cls_token"), ("encoder.layers", "class_token")):
        if not isinstance(getattr(model, token, None), Tensor):
            continue
        names = [name for name, _ in model.get_submodule(path).named_children()]
        width = int(getattr(model, token).shape[-1])
        return MiddleStage(f"{path}.{names[max(len(names) // 2 - 1, 0)]}", width, ClassToken())
    return None


def _of_timm(model: nn.Module) -> MiddleStage | None:
    stages: Any = getattr(model, "feature_info", None)
    if not isinstance(stages, list) or len({stage.get("reduction") for stage in stages}) < 2:
        return None  # a transformer without a class token lists blocks of one resolution
    has_head = isinstance(getattr(model, "conv_head", None), nn.Conv2d)
    stage: Mapping[str, Any] = stages[-1 if has_head else -2]
    last = getattr(model, "output_fmt", "NCHW") == "NHWC"
    return MiddleStage(stage["module"], int(stage["num_chs"]), ChannelsFirst() if last else None)


def _of_torchvision(model: nn.Module) -> MiddleStage | None:
    following = getattr(model, "layer4", None)
    if not isinstance(following, nn.Module) or not hasattr(model, "layer3"):
        return None
    convolution = next((module for module in following.modules() if isinstance(module, nn.Conv2d)), None)
    return None if convolution is None else MiddleStage("layer3", convolution.in_channels)


def uskd_match(
    model: nn.Module,
    num_classes: int | None = None,
    *,
    target_weight: float = 1.0,
    non_target_weight: float = 0.1,
    weak_weight: float = 0.005,
) -> Match:
    """Return the match that turns a student into USKD's, with its weak head at :func:`middle_stage`.

    In a config write the match out instead: the loss wants the width that this function looks up.

    Args:
        model: The student.
        num_classes: Number of classes; by default the model's own attribute ``num_classes``.
        target_weight: See :class:`~limbeck_core.losses.CustomizedSoftLabelLoss`; ImageNet's defaults.
        non_target_weight: The same.
        weak_weight: The same.

    Raises:
        TapError: as :func:`middle_stage`.
        MatchError: if the number of classes is neither given nor known.

    Example::

        distiller = Distiller(student, matches={"uskd": uskd_match(student)}, task_loss=nn.CrossEntropyLoss())
    """
    classes = num_classes if num_classes is not None else getattr(unwrap(model), "num_classes", None)
    if not isinstance(classes, int):
        raise MatchError(f"{type(unwrap(model)).__name__} does not say how many classes it scores: give num_classes")
    place = middle_stage(model)
    loss = CustomizedSoftLabelLoss(
        place.channels,
        classes,
        target_weight=target_weight,
        non_target_weight=non_target_weight,
        weak_weight=weak_weight,
    )
    return Match(loss, "", Tap(place.path, of="student"), teacher_adapter=place.adapter)
