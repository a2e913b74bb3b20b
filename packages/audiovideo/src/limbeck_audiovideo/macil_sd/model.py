"""The two networks of MACIL-SD: audio with video, and video alone, over bags of snippet features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from limbeck_core.errors import MatchError, ShapeError

FRAMES_A_SNIPPET = 16


class ModalityLayer(nn.Module):
    """Pre-norm attention from one modality to another, and a feed-forward part.

    Only the query is normalised. Positions after the end of a bag are not attended to (a choice: the released code
    attends to its padding).

    Args:
        width: Width of the features.
        heads: Number of attention heads.
        ffn_dim: Width inside the feed-forward part.
        dropout: Share of activations that training drops.
    """

    def __init__(self, width: int, heads: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, ffn_dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(ffn_dim, width), nn.Dropout(dropout)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, other: Tensor, padding: Tensor) -> Tensor:
        """Return the query's features ``(B, T, width)`` enriched by the other's; ``padding`` is true past the end."""
        attended, _ = self.attention(self.norm1(query), other, other, key_padding_mask=padding, need_weights=False)
        query = query + self.dropout(attended)
        enriched: Tensor = query + self.feed_forward(self.norm2(query))
        return enriched


class BagNet(nn.Module):
    """What both networks share: the visual projection, the layer, and the classifier of a snippet.

    Args:
        visual_dim: Width of the visual features (I3D: 1024).
        width: Width inside. 64 is the light student.
        heads: Number of attention heads; it divides ``width``.
        ffn_dim: Width inside the feed-forward part.
        dropout: Share of activations that training drops.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        *,
        visual_dim: int = 1024,
        width: int = 128,
        heads: int = 4,
        ffn_dim: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if min(visual_dim, width, heads, ffn_dim) < 1 or width % heads:
            raise ValueError(
                "widths must be 1 or more and heads divide width, got "
                f"visual_dim={visual_dim}, width={width}, heads={heads}, ffn_dim={ffn_dim}"
            )
        self.fc_v = nn.Linear(visual_dim, width)
        self.layer = ModalityLayer(width, heads, ffn_dim, dropout)
        self.fc = nn.Linear(width, 1)


class VisualNet(BagNet):
    """The network without audio: self-attention, a score a snippet, the mean of the highest as the bag's."""

    def forward(self, bag: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``frame_logits`` ``(B, T)`` and ``bag_logits`` ``(B,)`` of a bag, see :class:`AudioVisualNet`."""
        length, padding = _lengths(bag, self.fc_v.in_features, None)
        visual = self.fc_v(bag["visual"])
        logits = self.fc(self.layer(visual, visual, padding)).squeeze(-1)
        return {"frame_logits": logits, "bag_logits": highest_mean(logits, length), "length": length}


class AudioVisualNet(BagNet):
    """The network with audio: each modality asks the other through one shared layer, one classifier judges both.

    Args:
        audio_dim: Width of the audio features (VGGish: 128).
        options: As :class:`BagNet`.
    """

    def __init__(self, *, audio_dim: int = 128, **options: float) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.fc_a = nn.Linear(audio_dim, self.fc_v.out_features)

    def forward(self, bag: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Score a bag.

        Args:
            bag: ``visual`` ``(B, T, visual_dim)``, ``audio`` ``(B, T, audio_dim)`` and ``length`` ``(B,)``, the number
                of snippets of each video; a length of 0 counts as one snippet of zeros.

        Returns:
            ``visual_features`` and ``audio_features`` ``(B, T, width)``, ``visual_logits``, ``audio_logits`` and their
            sum ``frame_logits`` ``(B, T)``, ``bag_logits`` ``(B,)``, and ``length``.

        Raises:
            MatchError: if the bag lacks a part.
            ShapeError: if shapes do not fit.
        """
        length, padding = _lengths(bag, self.fc_v.in_features, self.fc_a.in_features)
        visual, audio = self.fc_v(bag["visual"]), self.fc_a(bag["audio"])
        visual, audio = self.layer(visual, audio, padding), self.layer(audio, visual, padding)
        visual_logits, audio_logits = (self.fc(features).squeeze(-1) for features in (visual, audio))
        frame_logits = visual_logits + audio_logits
        return {
            "visual_features": visual,
            "audio_features": audio,
            "visual_logits": visual_logits,
            "audio_logits": audio_logits,
            "frame_logits": frame_logits,
            "bag_logits": highest_mean(frame_logits, length),
            "length": length,
        }


def snippets_kept(length: Tensor) -> Tensor:
    """Number k of snippets that speak for a bag of n: ``n // 16 + 1``; with n = 0 as with 1."""
    return length.clamp(min=1) // 16 + 1


def highest_mean(logits: Tensor, length: Tensor) -> Tensor:
    """Mean of the k highest logits of each bag, ``(B,)``, of ``(B, T)`` of which the first ``length`` count."""
    places = torch.arange(logits.shape[1], device=logits.device)
    inside = places < length.clamp(min=1).unsqueeze(1)
    ordered = logits.masked_fill(~inside, -torch.inf).sort(1, descending=True).values
    kept = places < snippets_kept(length).unsqueeze(1)
    return ordered.masked_fill(~kept, 0.0).sum(1) / kept.sum(1)


class BagLoss(nn.Module):
    """Binary cross-entropy of a bag's logit, the task loss of both networks."""

    def forward(self, output: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        """Compare ``output["bag_logits"]`` with ``targets``, 1 for violent and 0 for normal, ``(B,)``."""
        logits = output["bag_logits"]
        if not len(logits):
            return logits.sum()
        return binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


def _lengths(bag: Mapping[str, Tensor], visual_dim: int, audio_dim: int | None) -> tuple[Tensor, Tensor]:
    wanted = {"visual": visual_dim} | ({} if audio_dim is None else {"audio": audio_dim})
    for name in (*wanted, "length"):
        if name not in bag:
            raise MatchError(f"a bag needs {name!r}, it has {', '.join(bag)}")
    shape = bag["visual"].shape[:2]
    for name, dim in wanted.items():
        if bag[name].ndim != 3 or bag[name].shape != (*shape, dim):
            raise ShapeError(
                f"{name} of a bag must have shape (B, T, {dim}), with B and T of visual, got {tuple(bag[name].shape)}: "
                f"set {name}_dim, or cut both to the shorter one"
            )
    length = bag["length"]
    if length.shape != shape[:1] or (length.device.type == "cpu" and len(length) and int(length.max()) > shape[1]):
        raise ShapeError(f"length must be ({shape[0]},) numbers up to {shape[1]}, got {length.tolist()}")
    padding = torch.arange(shape[1], device=length.device) >= length.clamp(min=1).unsqueeze(1)
    return length, padding


__all__ = ["FRAMES_A_SNIPPET", "AudioVisualNet", "BagLoss", "BagNet", "VisualNet", "highest_mean", "snippets_kept"]
