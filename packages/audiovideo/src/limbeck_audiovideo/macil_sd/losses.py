"""MACIL-SD's contrast between what is violent in one modality and what is not in the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from limbeck_audiovideo.macil_sd.model import snippets_kept
from limbeck_core.checks import check_positive, explain_non_finite
from limbeck_core.errors import ShapeError
from limbeck_core.functional.precision import all_finite, at_least_float32, reads_at_once


def modality_contrast_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    *,
    student_logits: Tensor,
    teacher_logits: Tensor,
    bag_logits: Tensor,
    length: Tensor,
    temperature: float = 0.1,
) -> Tensor:
    r"""Violent rows of one modality draw the other's near, and push its background and normal rows away.

    Bags that the network itself calls violent (``bag_logits > 0``) give one violent row a modality, the mean of its k
    highest snippets, which counts k times; the k highest snippets of the other bags are normal rows; the k lowest of
    all are background.

    .. math:: L = I(A_v; V_v; V_b) + I(V_v; A_v; A_b) + I(A_v; V_v; V_n) + I(V_v; A_v; A_n)

    with :math:`I(q; p; N)` the mean cross-entropy of :math:`q \cdot p` among :math:`q \cdot N`, all of unit length. The
    two modalities are peers: "student" is audio and "teacher" is video here, and both get a gradient. The paper's two
    weights grow alike, so the match's weight is both.

    Snippets are ranked by the logits of their own modality, as the paper says. The released code, by a swap of names,
    ranks each by the other's, and its published number was obtained so; hand the logits over crosswise to do the same.

    Args:
        student_features: Audio, ``(B, T, D)``.
        teacher_features: Video, ``(B, T, D)``.
        student_logits: Logit of each audio snippet, ``(B, T)``.
        teacher_logits: Logit of each video snippet, ``(B, T)``.
        bag_logits: Logit of each bag, ``(B,)``.
        length: Snippets of each bag that count, ``(B,)``; 0 counts as 1.
        temperature: Softness of the products, above 0.

    Returns:
        A scalar in nats; a differentiable zero if the network calls no bag violent, or none normal.

    Raises:
        ShapeError: if shapes do not fit.
        NonFiniteError: if the loss is not finite (CPU), naming what holds NaN or infinity.
        ValueError: if ``temperature`` is not above 0.

    Reference:
        Yu et al., Modality-Aware Contrastive Instance Learning with Self-Distillation for Weakly-Supervised
        Audio-Visual Violence Detection, arXiv:2207.05500, section on modality-aware contrastive instance learning.
    """
    check_positive(temperature, "temperature")
    _check(student_features, teacher_features, student_logits, teacher_logits, bag_logits, length)
    audio, video = at_least_float32(student_features), at_least_float32(teacher_features)
    violent = bag_logits.detach() > 0
    nothing = (audio.sum() + video.sum()) * 0
    kept = snippets_kept(length)
    sides = [_Rows(f, s, violent, length, kept) for f, s in ((audio, student_logits), (video, teacher_logits))]
    if not bool(violent.any()) or bool(violent.all()):
        loss = nothing
    else:
        weights = kept[violent].to(audio.dtype)
        loss = nothing
        for one, other in (sides, sides[::-1]):
            for negatives in (other.background, other.normal):
                loss = loss + _info_nce(one.violent, other.violent, negatives, weights, temperature)
    if reads_at_once(loss) and not all_finite(loss):
        explain_non_finite(student_features, "student_features")
        explain_non_finite(teacher_features, "teacher_features")
        explain_non_finite(bag_logits, "bag_logits")
    return loss


class ModalityContrastLoss(nn.Module):
    """Module twin of :func:`modality_contrast_loss`; with several ranks it sees the bags of all.

    Args:
        temperature: Softness of the products, above 0.

    Raises:
        ValueError: if ``temperature`` is not above 0.
    """

    relational = True

    def __init__(self, *, temperature: float = 0.1) -> None:
        super().__init__()
        check_positive(temperature, "temperature")
        self.temperature = temperature

    def forward(
        self,
        student_features: Tensor,
        teacher_features: Tensor,
        *,
        student_logits: Tensor,
        teacher_logits: Tensor,
        bag_logits: Tensor,
        length: Tensor,
    ) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return modality_contrast_loss(
            student_features,
            teacher_features,
            student_logits=student_logits,
            teacher_logits=teacher_logits,
            bag_logits=bag_logits,
            length=length,
            temperature=self.temperature,
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"temperature={self.temperature}"


class _Rows:
    """The three groups of rows of one modality, of unit length."""

    def __init__(self, features: Tensor, logits: Tensor, violent: Tensor, length: Tensor, kept: Tensor) -> None:
        places = torch.arange(features.shape[1], device=features.device)
        inside = places < length.clamp(min=1).unsqueeze(1)
        counts = places < kept.unsqueeze(1)
        scores = logits.detach()
        high = _ordered(features, scores.masked_fill(~inside, -torch.inf), descending=True)
        low = _ordered(features, scores.masked_fill(~inside, torch.inf), descending=False)
        mean = (high * counts.unsqueeze(-1)).sum(1) / kept.unsqueeze(1)
        self.violent = normalize(mean[violent], dim=1)
        self.normal = normalize(high[~violent][counts[~violent]], dim=1)
        self.background = normalize(low[counts], dim=1)


def _ordered(features: Tensor, scores: Tensor, *, descending: bool) -> Tensor:
    order = scores.argsort(stable=True, dim=1, descending=descending)
    return features.gather(1, order.unsqueeze(-1).expand_as(features))


def _info_nce(query: Tensor, positive: Tensor, negatives: Tensor, weights: Tensor, temperature: float) -> Tensor:
    logits = torch.cat([(query * positive).sum(1, keepdim=True), query @ negatives.T], dim=1) / temperature
    first = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    each = cross_entropy(logits, first, reduction="none")
    return (each * weights).sum() / weights.sum()


def _check(
    audio: Tensor, video: Tensor, audio_logits: Tensor, video_logits: Tensor, bag_logits: Tensor, length: Tensor
) -> None:
    if audio.ndim != 3 or audio.shape != video.shape:
        raise ShapeError(
            f"student_features and teacher_features must have one shape (B, T, D), got {tuple(audio.shape)} and "
            f"{tuple(video.shape)}"
        )
    for tensor, name, shape in (
        (audio_logits, "student_logits", audio.shape[:2]),
        (video_logits, "teacher_logits", audio.shape[:2]),
        (bag_logits, "bag_logits", audio.shape[:1]),
        (length, "length", audio.shape[:1]),
    ):
        if tensor.shape != shape:
            raise ShapeError(f"{name} must have shape {tuple(shape)}, got {tuple(tensor.shape)}")


__all__ = ["ModalityContrastLoss", "modality_contrast_loss"]
