"""DISCOVR's student: a video and an image branch, each with a head, and the decoder that predicts clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from limbeck_audiovideo.discovr.encoder import (
    Block,
    Encoded,
    ViTEncoder,
    draw_weights,
    image_mean,
    sinusoids,
    token_positions,
)
from limbeck_audiovideo.discovr.masks import Views
from limbeck_core.build import build
from limbeck_core.calls import Batch, TensorCall
from limbeck_core.errors import ConfigError, MatchError, ShapeError
from limbeck_core.functional.relations import unit_vectors


class _UnitLinear(nn.Module):
    """Products with rows of length 1: a weight-normed layer whose lengths are fixed."""

    weight_g: Tensor

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.weight_v = nn.Parameter(torch.empty(out, dim))
        self.register_buffer("weight_g", torch.ones(out, 1))
        nn.init.trunc_normal_(self.weight_v, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(rows, out)``."""
        return linear(x, unit_vectors(self.weight_v).to(x.dtype) * self.weight_g)


class DINOHead(nn.Module):
    """Projection whose output scores the prototypes of a DINO loss.

    Three layers with GELU between them, then a vector of length 1 against ``out`` vectors of length 1.

    Args:
        dim: Width of the embedding.
        out: Number of prototypes. DISCOVR: 16384 in the shipped recipe.
        hidden: Width of the hidden layers.
        bottleneck: Width of the normalised vector.

    Reference:
        Caron et al., Emerging Properties in Self-Supervised Vision Transformers, arXiv:2104.14294, appendix C.
    """

    def __init__(self, dim: int, out: int = 16384, *, hidden: int = 2048, bottleneck: int = 256) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = _UnitLinear(bottleneck, out)

    def forward(self, embedding: Tensor) -> Tensor:
        """Score embeddings ``(rows, dim)`` against the prototypes, ``(rows, out)``, in [-1, 1]."""
        x = self.mlp(embedding)
        out: Tensor = self.last_layer(unit_vectors(x).to(x.dtype))
        return out


class Branch(nn.Module):
    """An encoder and its head; as an EMA teacher it sees whole clips.

    Args:
        encoder: Encodes clips, or single frames (``frames=1``) of which a clip is then taken apart.
        head: Scores class tokens; ``None`` for an encoder alone.
    """

    def __init__(self, encoder: ViTEncoder, head: DINOHead | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    @property
    def by_frame(self) -> bool:
        """Whether frames are encoded one by one."""
        return self.encoder.frames == 1

    def rows(self, video: Tensor) -> Tensor:
        """Return what the encoder takes: the clips, or their frames as clips of one, ``(B * T, C, 1, H, W)``."""
        if video.ndim != 5:
            raise ShapeError(f"a clip must be (B, C, T, H, W), got {tuple(video.shape)}")
        return video.transpose(1, 2).flatten(0, 1).unsqueeze(2) if self.by_frame else video

    def embed(self, video: Tensor) -> Tensor:
        """Return one embedding a clip, ``(B, D)``; of single frames the mean of theirs."""
        embedding = self.encoder(self.rows(video)).embedding
        return image_mean(embedding, video.shape[0]) if self.by_frame else embedding

    def forward(self, video: Tensor) -> Encoded:
        """Encode whole clips ``(B, C, T, H, W)`` and let the head score their class tokens, for its tap.

        Returns:
            Embeddings of clips ``(B, D)`` or frames ``(B * T, D)``, and tokens by clip, time and place
            ``(B, T', P, D)``.
        """
        found: Encoded = self.encoder(self.rows(video))
        if self.head is not None:
            self.head(found.embedding)
        times = video.shape[2] if self.by_frame else self.encoder.times
        return Encoded(found.embedding, found.tokens.reshape(video.shape[0], times, *found.tokens.shape[2:]))


class TokenDecoder(nn.Module):
    """Predicts a token for every patch of a clip from those of the visible ones.

    Args:
        times: Number of tubelets along time.
        places: Number of patches in a picture.
        dim: Width of the encoder.
        out: Width of the predicted tokens: that of the image branch.
        width: Width of the decoder.
        depth: Number of blocks.
        heads: Number of heads.
        qkv_bias: As :class:`~limbeck_audiovideo.discovr.encoder.Attention`.
        norm_eps: Epsilon of the layer norms.
        aligned: Return tokens by time and place. ``False`` returns the visible ones first, then the hidden ones, which
            is the reference's order: its targets are then of other patches.
    """

    pos_embed: Tensor

    def __init__(
        self,
        *,
        times: int,
        places: int,
        dim: int = 768,
        out: int = 768,
        width: int = 384,
        depth: int = 4,
        heads: int = 6,
        qkv_bias: bool = True,
        norm_eps: float = 1e-6,
        aligned: bool = True,
    ) -> None:
        super().__init__()
        self.times, self.places, self.aligned = times, places, aligned
        self.encoder_to_decoder = nn.Linear(dim, width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        # positions count the class token, which the decoder does not take
        self.register_buffer("pos_embed", sinusoids(times * places + 1, width)[None, 1:], persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads, qkv_bias=qkv_bias, norm_eps=norm_eps) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.head = nn.Linear(width, out)
        self.apply(draw_weights)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Predict all tokens.

        Args:
            tokens: Encoded visible patches, by time and place, ``(B, T, n, D)``.
            visible: Their places, integers ``(B, n)``.

        Returns:
            ``(B, T * P, out)``.
        """
        seen = self.encoder_to_decoder(tokens.flatten(1, 2))
        index = token_positions(visible.to(seen.device), self.times, self.places).unsqueeze(-1).expand_as(seen)
        # everybody starts as a mask token; what was seen takes its own place
        x = self.mask_token.expand(len(seen), self.times * self.places, -1).to(seen.dtype).scatter(1, index, seen)
        x = x + self.pos_embed.to(seen.dtype)
        for block in self.blocks:
            x = block(x)
        x = self.head(self.norm(x))
        return x if self.aligned else visible_first(x, index[..., 0])


def visible_first(tokens: Tensor, index: Tensor) -> Tensor:
    """Put tokens ``(B, N, D)`` at some positions ``(B, n)`` first, and the others after them, each in their order."""
    hidden = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device).scatter(1, index, False)
    order = hidden.to(torch.int8).argsort(dim=1, stable=True)
    return tokens.gather(1, order.unsqueeze(-1).expand_as(tokens))


class DISCOVR(nn.Module):
    """The student: any of a video branch, an image branch, and a decoder on the video branch.

    Called with a clip alone it returns one embedding a clip, that of the video branch, or the mean over frames of the
    image branch where there is no other. That is what is exported. Called with views as well it runs both branches on
    masked clips and frames, for the taps ``video.head``, ``image.head`` and ``decoder``.

    Args:
        video: Branch of clips.
        image: Branch of single frames.
        decoder: Predicts tokens of the image branch's teacher from the video branch.

    Raises:
        ConfigError: if there is no branch, one takes clips for frames, or the decoder has nothing to read.
    """

    def __init__(
        self, video: Branch | None = None, image: Branch | None = None, decoder: TokenDecoder | None = None
    ) -> None:
        super().__init__()
        if video is None and image is None:
            raise ConfigError("DISCOVR needs a video branch, an image branch, or both")
        if image is not None and not image.by_frame:
            raise ConfigError(f"the image branch encodes single frames, its encoder takes {image.encoder.frames}")
        if decoder is not None and video is None:
            raise ConfigError("the decoder reads the video branch, and there is none")
        self.video = video
        self.image = image
        self.decoder = decoder

    def forward(self, video: Tensor, views: Views | None = None) -> Tensor | dict[str, Tensor]:
        """Embed clips, or run both branches on masked views of them.

        Args:
            video: Clips ``(B, C, T, H, W)``, bytes or numbers in [0, 1].
            views: Which views to draw; ``None`` embeds.

        Returns:
            ``(B, D)``; with views a mapping with ``hidden``, which tokens the decoder had to guess, boolean
            ``(B, T * P)`` by time and place (visible ones first if the decoder returns them so).
        """
        if views is None:
            branch = self.video if self.video is not None else self.image
            if branch is None:
                raise ConfigError("DISCOVR needs a video branch, an image branch, or both")
            return branch.embed(video)
        out: dict[str, Tensor] = {}
        if self.video is not None:
            out |= self._video_views(self.video, video, views)
        if self.image is not None and self.image.head is not None:
            frames, side = self.image.rows(video), self.image.encoder.side
            visible = views.image.draw(views.local, len(frames), side, side)
            out["image"] = self.image.head(self.image.encoder(frames, visible).embedding)
        return out

    def _video_views(self, branch: Branch, video: Tensor, views: Views) -> dict[str, Tensor]:
        side, clips = branch.encoder.side, len(video)
        whole = int(self.decoder is not None)  # the view that tokens are predicted from comes first
        local = views.local if branch.head is not None else 0
        visible = views.video.draw(whole + local, clips, side, side)
        found = branch.encoder(video, visible)
        out: dict[str, Tensor] = {}
        if branch.head is not None:
            out["video"] = branch.head(found.embedding[whole * clips :])
        if self.decoder is not None:
            out["tokens"] = self.decoder(found.tokens[:clips], visible[0])
            hidden = torch.ones(clips, branch.encoder.times, side**2, dtype=torch.bool, device=video.device)
            index = visible[0].to(video.device).unsqueeze(1).expand(-1, branch.encoder.times, -1)
            hidden = hidden.scatter(2, index, False).flatten(1)
            out["hidden"] = hidden if self.decoder.aligned else hidden.sort(dim=1).values
        return out


class MaskedCall(TensorCall):
    """Shows the student masked views in training, and teachers and evaluators whole clips.

    Args:
        views: Which views to draw, or a config of them.
    """

    def __init__(self, views: Views | Mapping[str, Any] | None = None) -> None:
        self.views: Views = build(views) or Views()

    def loss(self, model: nn.Module, batch: Batch, view: str, task_loss: nn.Module | None) -> dict[str, Any]:
        """Run the student on masked views, for its taps.

        Raises:
            MatchError: if a task loss is given, since there is nothing to compare with labels.
        """
        if task_loss is not None:
            raise MatchError("DISCOVR trains without labels: leave task_loss out")
        if view not in batch:
            raise MatchError(f"DISCOVR needs {view!r} of the batch, it has {', '.join(map(str, batch))}")
        model(batch[view], self.views)
        return {}

    def predict(self, model: nn.Module, batch: Batch, view: str) -> Any:
        """Return one embedding a clip, of the student or of a teacher that is one of its branches."""
        return model.embed(batch[view]) if isinstance(model, Branch) else self.capture(model, batch, view)
