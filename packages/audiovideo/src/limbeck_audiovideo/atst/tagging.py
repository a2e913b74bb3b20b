"""ATST downstream: classes of a waveform, and of every 40 ms of it; losses and learning rates of fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from limbeck_audiovideo.atst.encoder import ClipEncoder, FrameEncoder
from limbeck_audiovideo.audio.front_end import LogMel
from limbeck_core.build import build
from limbeck_core.checks import check_between, check_positive, check_same_shape
from limbeck_core.errors import ConfigError, ShapeError, TargetError
from limbeck_core.functional import Reduction, reduce_loss

Encoder = ClipEncoder | FrameEncoder
_SMALLEST = 1e-7  # of shares and probabilities


class ClipTagger(nn.Module):
    """A waveform to class scores: front end, encoder, and a linear head on its last block.

    The head takes class token and mean token of a clip encoder, and the mean token of a frame encoder. Taps of
    interest: ``encoder`` and ``head``.

    Args:
        encoder: :class:`ClipEncoder` or :class:`FrameEncoder`, or a config of one.
        classes: Number of classes.
        front_end: From waveform to spectrogram, or its config; :class:`LogMel` by default.

    Reference:
        Li, Shao and Li, arXiv:2306.04186, section V.
    """

    def __init__(
        self,
        encoder: Encoder | Mapping[str, Any],
        classes: int,
        *,
        front_end: LogMel | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_positive(classes, "classes")
        self.front_end: LogMel = build(front_end) or LogMel()
        self.encoder: Encoder = build(encoder) if isinstance(encoder, Mapping) else encoder
        self.encoder.mask_embed.requires_grad_(False)  # nothing is hidden; data-parallel training refuses idle weights
        width = self.encoder.dim * (2 if isinstance(self.encoder, ClipEncoder) else 1)
        self.head = _linear(width, classes)

    def forward(
        self, waveform: Tensor | None = None, length: Tensor | None = None, *, mel: Tensor | None = None
    ) -> Tensor:
        """Return class scores, ``(N, C)``.

        Args:
            waveform: Mono at the front end's rate, ``(N, samples)``.
            length: Samples of each clip that are its own, ``(N,)``; default: all.
            mel: Spectrograms ``(N, 1, 64, frames)`` instead of waveforms, from augmentation.

        Raises:
            ShapeError: unless one of waveform and spectrogram is given, in the form above.
        """
        spectrogram, frames = _spectrogram(self.front_end, waveform, length, mel)
        scores: Tensor = self.head(self.encoder.embed(spectrogram, frames, last=1))
        return scores


class FrameTagger(nn.Module):
    r"""A waveform to class scores for every 40 ms and for the clip.

    .. math:: p_{tc} = \sigma(W x_t), \qquad
              p_c = \sum_t p_{tc} a_{tc} \Big/ \sum_t a_{tc}, \qquad a_t = \mathrm{softmax}_c(V x_t)

    with a of 1e-7 or more. Both are returned as logits, those of the clip as :math:`\log p_c / (1 - p_c)`; tokens
    beyond a clip's own length do not count in its mean. Taps of interest: ``encoder``, ``strong``.

    Args:
        encoder: :class:`FrameEncoder`, or a config of one.
        classes: Number of classes.
        front_end: From waveform to spectrogram, or its config; :class:`LogMel` by default.

    Reference:
        Li, Shao and Li, arXiv:2306.04186, section V (sound event detection); the pooling is that of DCASE's baseline.
    """

    def __init__(
        self,
        encoder: FrameEncoder | Mapping[str, Any],
        classes: int,
        *,
        front_end: LogMel | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_positive(classes, "classes")
        self.front_end: LogMel = build(front_end) or LogMel()
        self.encoder: FrameEncoder = build(encoder) if isinstance(encoder, Mapping) else encoder
        self.encoder.mask_embed.requires_grad_(False)
        self.strong = _linear(self.encoder.dim, classes)
        self.attention = _linear(self.encoder.dim, classes)

    def forward(
        self, waveform: Tensor | None = None, length: Tensor | None = None, *, mel: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return logits of every token, ``(N, tokens, C)``, and of the clip, ``(N, C)``.

        Args:
            waveform: As :meth:`ClipTagger.forward`.
            length: As :meth:`ClipTagger.forward`.
            mel: As :meth:`ClipTagger.forward`.

        Raises:
            ShapeError: as :meth:`ClipTagger.forward`.
        """
        spectrogram, frames = _spectrogram(self.front_end, waveform, length, mel)
        tokens = self.encoder(spectrogram, frames)
        strong = self.strong(tokens)
        share = self.attention(tokens).softmax(-1).clamp(min=_SMALLEST)
        if frames is not None:
            own = self.encoder.tokens(frames).clamp(min=1).unsqueeze(1)
            share = share * (torch.arange(tokens.shape[1], device=tokens.device) < own).unsqueeze(-1)
        weak = (strong.sigmoid() * share).sum(1) / share.sum(1)
        return strong, torch.logit(weak, eps=_SMALLEST)


def _linear(width: int, classes: int) -> nn.Linear:
    layer = nn.Linear(width, classes)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer


def _spectrogram(
    front_end: LogMel, waveform: Tensor | None, length: Tensor | None, mel: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    if (waveform is None) == (mel is None):
        raise ShapeError("give a waveform (N, samples), or a spectrogram mel (N, 1, 64, frames), one of them")
    frames = None if length is None else front_end.lengths(length)
    if mel is not None:
        return mel, frames
    return front_end(waveform), frames


def soft_label_binary_loss(student_logits: Tensor, teacher_logits: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Cross-entropy of yes-or-no answers with the teacher's probabilities: Clip to Frame, for several labels.

    .. math:: L = -\frac{1}{C} \sum_c \sigma(t_c) \log \sigma(s_c) + (1 - \sigma(t_c)) \log (1 - \sigma(s_c))

    Args:
        student_logits: ``(N, ..., C)``.
        teacher_logits: Same shape. Gradients never flow into it.
        reduction: ``"none"`` gives one value per sample, ``(N,)``.

    Returns:
        Loss in nats, the mean over classes (and times).

    Raises:
        ShapeError: if shapes differ.
        ValueError: if ``reduction`` is unknown.

    Reference:
        Li, Shao and Li, arXiv:2306.04186, section IV-C; no temperature.
    """
    check_same_shape(student_logits, teacher_logits, "student_logits", "teacher_logits")
    target = teacher_logits.detach().sigmoid()
    per_answer = binary_cross_entropy_with_logits(student_logits, target, reduction="none")
    if not per_answer.numel():
        return student_logits.sum() * 0
    return reduce_loss(per_answer.flatten(1).mean(1), reduction)


class SoftLabelBinaryLoss(nn.Module):
    """Module twin of :func:`soft_label_binary_loss`.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction: Reduction = reduction

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return the loss."""
        return soft_label_binary_loss(student_logits, teacher_logits, reduction=self.reduction)


class SoundEventLoss(nn.Module):
    r"""Half the binary cross-entropy of tokens, where they are labelled, and half that of clips.

    A batch without strong labels has no term of tokens, and the other way round it is never: strong labels tell the
    clip's classes too.

    Args:
        strong_weight: Factor of the tokens' term.
        weak_weight: Factor of the clips' term.

    Reference:
        Li, Shao and Li, arXiv:2306.04186, section V (DESED).
    """

    def __init__(self, *, strong_weight: float = 0.5, weak_weight: float = 0.5) -> None:
        super().__init__()
        check_between(strong_weight, "strong_weight", 0.0, float("inf"))
        check_between(weak_weight, "weak_weight", 0.0, float("inf"))
        self.strong_weight = strong_weight
        self.weak_weight = weak_weight

    def forward(self, outputs: tuple[Tensor, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the loss.

        Args:
            outputs: Of :class:`FrameTagger`.
            targets: ``strong`` ``(N, tokens, C)``, ``weak`` ``(N, C)`` and ``strong_known`` ``(N,)``, as
                :class:`~limbeck_audiovideo.audio.SoundEvents` gives them.

        Raises:
            TargetError: if the labels have another shape than the scores.
        """
        strong, weak = outputs
        for name, scores in (("strong", strong), ("weak", weak)):
            if targets[name].shape != scores.shape:
                raise TargetError(
                    f"{name} labels must be {tuple(scores.shape)} as the scores are, got {tuple(targets[name].shape)}: "
                    "give data set and model the same length and classes"
                )
        known = targets["strong_known"].to(strong.dtype)
        per_clip = binary_cross_entropy_with_logits(strong, targets["strong"].to(strong), reduction="none").mean((1, 2))
        of_tokens = (per_clip * known).sum() / known.sum().clamp(min=1)
        of_clips = binary_cross_entropy_with_logits(weak, targets["weak"].to(weak))
        return self.strong_weight * of_tokens + self.weak_weight * of_clips


class LayerDecay(DefaultOptimWrapperConstructor):  # type: ignore[misc]  # mmengine is untyped
    """MMEngine's constructor of optimisers with a learning rate that falls from the head to the first block.

    The head has the full rate, the final norm ``decay``, block i of L ``decay ** (L - i)`` counted from 0, and the
    embeddings ``decay ** L``. In a config:
    ``optim_wrapper = dict(constructor=LayerDecay, paramwise_cfg=dict(decay=0.75), ...)``.

    Raises:
        ConfigError: if ``paramwise_cfg`` has no ``decay`` in (0, 1], or the model has no encoder with blocks.

    Reference:
        Li, Shao and Li, arXiv:2306.04186, section V: 0.75; the scheme is BEiT's (arXiv:2106.08254).
    """

    def __call__(self, model: nn.Module) -> Any:
        """Build the optimiser."""
        options: dict[str, Any] = dict(getattr(self, "paramwise_cfg", None) or {})
        decay = options.pop("decay", None)
        encoder = next((m for m in model.modules() if isinstance(m, (ClipEncoder, FrameEncoder))), None)
        if encoder is None or not isinstance(decay, (int, float)) or not 0 < decay <= 1:
            raise ConfigError(
                f"LayerDecay needs paramwise_cfg=dict(decay=...) in (0, 1] and a model with an encoder of ATST, got "
                f"decay={decay!r}"
            )
        depth = len(encoder.blocks)
        multipliers = {f"encoder.blocks.{number}.": decay ** (depth - number) for number in range(depth)}
        multipliers |= {"encoder.norm": decay}
        multipliers |= {
            f"encoder.{name}": decay**depth for name in ("patch_embed", "pos_embed", "cls_token", "mask_embed")
        }
        self.paramwise_cfg = {
            **options,
            "custom_keys": {key: dict(lr_mult=value) for key, value in multipliers.items()},
        }
        return super().__call__(model)
