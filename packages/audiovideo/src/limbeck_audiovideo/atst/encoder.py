"""ATST's encoders: a Transformer over 40 ms columns of a log-mel spectrogram, for clips and for frames.

Names of weights are those of the authors' code (Audio-WestlakeU/audiossl), so that released encoders load.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from limbeck_core.checks import check_between, check_positive
from limbeck_core.errors import ShapeError

PATCH = 4  # frames of a token: 40 ms
MELS = 64
MAX_FRAMES = 1001  # 10 s
_OUT_OF_SIGHT = -10000.0  # added to the attention of padding, as the authors do
_INIT_STD = 0.02


class _DropPath(nn.Module):
    """Leave a residual branch out for some samples, and enlarge it for the others."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        kept = torch.rand(len(x), *([1] * (x.ndim - 1)), dtype=x.dtype, device=x.device) < keep
        return x * kept / keep


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, hidden: Tensor | None) -> Tensor:
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=hidden)
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim))
        return projected


class _MLP(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class _Block(nn.Module):
    """Pre-norm attention and MLP, each with a residual path that may be left out in training."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = _Attention(dim, heads)
        self.drop_path = _DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = _MLP(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, hidden: Tensor | None) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), hidden))
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return out


class _Patches(nn.Module):
    """Columns of the full height and four frames, projected; frames left over are dropped."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.patch_embed = nn.Linear(MELS * PATCH, dim)

    def forward(self, mel: Tensor) -> Tensor:
        tokens = mel.shape[3] // PATCH
        columns = mel[:, 0, :, : tokens * PATCH].reshape(mel.shape[0], MELS, tokens, PATCH)
        out: Tensor = self.patch_embed(columns.permute(0, 2, 1, 3).flatten(2))
        return out


class _Encoder(nn.Module):
    """What both encoders share: patches, positions, blocks."""

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        *,
        mlp_ratio: float,
        drop_path: float,
        max_frames: int,
    ) -> None:
        super().__init__()
        for name, value in dict(dim=dim, depth=depth, heads=heads, mlp_ratio=mlp_ratio).items():
            check_positive(value, name)
        check_between(drop_path, "drop_path", 0.0, 1.0)
        if dim % heads or max_frames < PATCH:
            raise ShapeError(
                f"dim must be a multiple of heads and max_frames {PATCH} or more, got dim={dim}, heads={heads}, "
                f"max_frames={max_frames}"
            )
        self.dim = dim
        self.max_frames = max_frames
        self.patch_embed = _Patches(dim)
        self.mask_embed = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, max_frames // PATCH + 1, dim))
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(_Block(dim, heads, mlp_ratio, rate) for rate in rates)

    def _initialise(self, *embeddings: nn.Parameter) -> None:
        for embedding in (self.mask_embed, self.pos_embed, *embeddings):
            nn.init.trunc_normal_(embedding, std=_INIT_STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=_INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def tokens(self, lengths: Tensor) -> Tensor:
        """Tokens that stand on a clip's own frames.

        Args:
            lengths: Frames of each clip, ``(N,)``.
        """
        return torch.div(lengths, PATCH, rounding_mode="floor")

    def _embed(self, mel: Tensor, mask: Tensor | None) -> Tensor:
        if mel.ndim != 4 or mel.shape[1:3] != (1, MELS):
            raise ShapeError(f"the encoder takes spectrograms (N, 1, {MELS}, frames), got {tuple(mel.shape)}")
        if not PATCH <= mel.shape[3] <= self.max_frames:
            raise ShapeError(
                f"the encoder has positions for {PATCH} to {self.max_frames} frames (10 ms each), got {mel.shape[3]}: "
                "cut longer clips into windows (scene_embedding and limbeck_audiovideo.atst.stream_frames do), and "
                "extend shorter ones by zeros"
            )
        x: Tensor = self.patch_embed(mel)
        if mask is None:
            return x
        if mask.shape != x.shape[:2]:
            raise ShapeError(f"mask must say of each token whether it is hidden, {tuple(x.shape[:2])}, got "
                             f"{tuple(mask.shape)}")  # fmt: skip
        return torch.where(mask.unsqueeze(-1).bool(), self.mask_embed.to(x.dtype), x)

    def _run(self, x: Tensor, valid: Tensor | None, last: int = 1) -> list[Tensor]:
        """Outputs of the last blocks, before the final norm; ``valid`` counts the tokens that may be seen."""
        hidden = None
        if valid is not None:
            beyond = torch.arange(x.shape[1], device=x.device) >= valid.unsqueeze(1)
            hidden = (_OUT_OF_SIGHT * beyond.to(x.dtype))[:, None, None, :]
        outputs = []
        for block in self.blocks:
            x = block(x, hidden)
            outputs.append(x)
        return outputs[-last:]

    def _check_lengths(self, mel: Tensor, lengths: Tensor | None) -> Tensor | None:
        if lengths is None:
            return None
        if lengths.shape != mel.shape[:1]:
            raise ShapeError(f"lengths must hold the frames of each of {len(mel)} clips, got {tuple(lengths.shape)}")
        return self.tokens(lengths.clamp(PATCH, mel.shape[3]))


def _mean(tokens: Tensor, valid: Tensor | None) -> Tensor:
    if valid is None:
        return tokens.mean(1)
    counts = torch.arange(tokens.shape[1], device=tokens.device) < valid.unsqueeze(1)
    return (tokens * counts.unsqueeze(-1)).sum(1) / valid.unsqueeze(1).to(tokens.dtype)


class ClipEncoder(_Encoder):
    """ATST-Clip: one vector a clip, that of a class token.

    Args:
        dim: Width of a token.
        depth: Number of blocks.
        heads: Attention heads of a block.
        mlp_ratio: Hidden width of the MLPs over ``dim``.
        drop_path: Share of samples that the last block leaves out in training; the first leaves out none.
        max_frames: Frames (10 ms) for which there are positions.

    Raises:
        ShapeError: if ``dim`` is no multiple of ``heads``.
        ValueError: if a size is not above zero.

    Reference:
        Li and Li, ATST: Audio Representation Learning with Teacher-Student Transformer, arXiv:2204.12076; Li, Shao and
        Li, arXiv:2306.04186, section III.
    """

    def __init__(
        self,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        *,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.1,
        max_frames: int = MAX_FRAMES,
    ) -> None:
        super().__init__(dim, depth, heads, mlp_ratio=mlp_ratio, drop_path=drop_path, max_frames=max_frames)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self._initialise(self.cls_token)
        self.mask_embed.requires_grad_(False)  # released files have it, and nothing here is hidden

    def hidden(
        self, mel: Tensor, lengths: Tensor | None = None, *, last: int = 1
    ) -> tuple[list[Tensor], Tensor | None]:
        """Return the normalised outputs ``(N, 1 + tokens, D)`` of the last blocks, and each clip's count of tokens."""
        valid = self._check_lengths(mel, lengths)
        x = self._embed(mel, None)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + self.pos_embed[:, : x.shape[1]]
        return [self.norm(out) for out in self._run(x, None if valid is None else valid + 1, last)], valid

    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the class token, ``(N, D)``.

        Args:
            mel: Normalised log-mel spectrograms, ``(N, 1, 64, frames)``.
            lengths: Frames of each clip that are its own, ``(N,)``; default: all.

        Raises:
            ShapeError: if the spectrograms have another form or more frames than there are positions.
        """
        return self.hidden(mel, lengths)[0][-1][:, 0]

    def embed(self, mel: Tensor, lengths: Tensor | None = None, *, last: int = 12) -> Tensor:
        """Return class token and mean of the tokens of the last blocks, ``(N, 2 * blocks * D)``, for a probe."""
        outputs, valid = self.hidden(mel, lengths, last=last)
        return torch.cat([out[:, 0] for out in outputs] + [_mean(out[:, 1:], valid) for out in outputs], dim=-1)


class FrameEncoder(_Encoder):
    """ATST-Frame: one vector for 40 ms; hidden tokens are replaced by a learned one.

    Args:
        dim: Width of a token.
        depth: Number of blocks.
        heads: Attention heads of a block.
        mlp_ratio: Hidden width of the MLPs over ``dim``.
        drop_path: Share of samples that the last block leaves out in training; the first leaves out none.
        max_frames: Frames (10 ms) for which there are positions.

    Raises:
        ShapeError: if ``dim`` is no multiple of ``heads``.
        ValueError: if a size is not above zero.

    Reference:
        Li, Shao and Li, arXiv:2306.04186, section IV.
    """

    def __init__(
        self,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        *,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.1,
        max_frames: int = MAX_FRAMES,
    ) -> None:
        super().__init__(dim, depth, heads, mlp_ratio=mlp_ratio, drop_path=drop_path, max_frames=max_frames)
        self.norm_frame = nn.LayerNorm(dim, eps=1e-6)
        self._initialise()

    def hidden(
        self, mel: Tensor, lengths: Tensor | None = None, *, mask: Tensor | None = None, last: int = 1
    ) -> tuple[list[Tensor], Tensor | None]:
        """Return the normalised outputs ``(N, tokens, D)`` of the last blocks, and each clip's count of tokens."""
        valid = self._check_lengths(mel, lengths)
        x = self._embed(mel, mask)
        x = x + self.pos_embed[:, 1 : x.shape[1] + 1]  # position 0 is that of the class token, which is not here
        return [self.norm_frame(out) for out in self._run(x, valid, last)], valid

    def forward(self, mel: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return a vector for each token, ``(N, tokens, D)``.

        Args:
            mel: Normalised log-mel spectrograms, ``(N, 1, 64, frames)``.
            lengths: Frames of each clip that are its own, ``(N,)``; default: all.
            mask: Tokens that are hidden from the encoder, boolean ``(N, tokens)``; default: none.

        Raises:
            ShapeError: if the spectrograms have another form or more frames than there are positions.
        """
        return self.hidden(mel, lengths, mask=mask)[0][-1]

    def embed(self, mel: Tensor, lengths: Tensor | None = None, *, last: int = 12) -> Tensor:
        """Return the mean of the tokens of the last blocks, ``(N, blocks * D)``, for a probe of clips."""
        outputs, valid = self.hidden(mel, lengths, last=last)
        return torch.cat([_mean(out, valid) for out in outputs], dim=-1)


def atst_clip_small(*, drop_path: float = 0.1, max_frames: int = MAX_FRAMES) -> ClipEncoder:
    """ATST-Clip of width 384, 12 blocks and 6 heads: 21,476,352 parameters."""
    return ClipEncoder(384, 12, 6, drop_path=drop_path, max_frames=max_frames)


def atst_clip_base(*, drop_path: float = 0.1, max_frames: int = MAX_FRAMES) -> ClipEncoder:
    """ATST-Clip of width 768, 12 blocks and 12 heads: 85,420,032 parameters."""
    return ClipEncoder(768, 12, 12, drop_path=drop_path, max_frames=max_frames)


def atst_frame_small(*, drop_path: float = 0.1, max_frames: int = MAX_FRAMES) -> FrameEncoder:
    """ATST-Frame of width 384, 12 blocks and 6 heads: 21,475,968 parameters."""
    return FrameEncoder(384, 12, 6, drop_path=drop_path, max_frames=max_frames)


def atst_frame_base(*, drop_path: float = 0.1, max_frames: int = MAX_FRAMES) -> FrameEncoder:
    """ATST-Frame of width 768, 12 blocks and 12 heads: 85,419,264 parameters."""
    return FrameEncoder(768, 12, 12, drop_path=drop_path, max_frames=max_frames)


@torch.no_grad()
def scene_embedding(
    encoder: ClipEncoder | FrameEncoder,
    mel: Tensor,
    lengths: Tensor | None = None,
    *,
    window: int | None = None,
    last: int = 12,
) -> Tensor:
    """One vector a clip of any length, as ATST's linear probes take it.

    Spectrograms are cut into windows; a later window counts where more than half of it is the clip's own, and the
    windows' embeddings are averaged.

    Args:
        encoder: In evaluation mode, if drop path is not wanted.
        mel: Normalised log-mel spectrograms, ``(N, 1, 64, frames)``.
        lengths: Frames of each clip that are its own, ``(N,)``; default: all.
        window: Frames of a window. Default: 601 for clips and 1001 for frames, or the encoder's largest if smaller.
        last: Blocks whose outputs are taken; fewer if the encoder has fewer.

    Returns:
        ``(N, 2 * blocks * D)`` for a clip encoder, ``(N, blocks * D)`` for a frame encoder.

    Reference:
        arXiv:2306.04186, section V; the rule for windows is that of the released code.
    """
    usual = 601 if isinstance(encoder, ClipEncoder) else MAX_FRAMES
    window = min(usual, encoder.max_frames) if window is None else window
    own = torch.full((len(mel),), mel.shape[3], device=mel.device) if lengths is None else lengths
    total: Tensor | None = None
    count = torch.zeros(len(mel), 1, device=mel.device)
    for start in range(0, mel.shape[3], window):
        part, left = mel[..., start : start + window], (own - start).clamp(0, window)
        counts = left > window // 2 if start else torch.ones_like(left, dtype=torch.bool)
        if part.shape[3] < PATCH or not bool(counts.any()):
            continue
        weight = counts.unsqueeze(1).to(mel.dtype)
        embedded = encoder.embed(part, left, last=last) * weight
        total = embedded if total is None else total + embedded
        count = count + weight
    if total is None:
        raise ShapeError(f"a clip needs {PATCH} frames (10 ms each) or more, got {mel.shape[3]}: extend it by zeros")
    return total / count
