"""RTMPose's head: key points as tokens, one gated attention unit, and a classifier of positions along each axis.

Jiang et al., RTMPose: Real-Time Multi-Person Pose Estimation based on MMPose, arXiv:2303.07399, section 3; the gated
attention unit is that of Hua et al., Transformer Quality in Linear Time, arXiv:2202.10447. Names of weights are
those of mmpose.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, silu

from limbeck_core.errors import ShapeError
from limbeck_pose.rtmpose.cspnext import STRIDE


class ScaleNorm(nn.Module):
    """Divide by the root mean square over the last axis, times one learnt number.

    Args:
        dim: Length of the last axis.
        eps: Smallest divisor.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.scale = dim**-0.5
        self.eps = eps
        self.g = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape ``(..., dim)``."""
        norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True) * self.scale
        return x / norm.clamp(min=self.eps) * self.g


class Scale(nn.Module):
    """One learnt factor a channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape ``(..., dim)``."""
        return x * self.scale


class GatedAttention(nn.Module):
    """Gated attention unit with squared ReLU attention, without position codes.

    Args:
        dim: Width of a token.
        expansion: Width of gate and value over ``dim``.
        attention_dim: Width of queries and keys.
    """

    def __init__(self, dim: int, *, expansion: int = 2, attention_dim: int = 128) -> None:
        super().__init__()
        self.inner, self.attention_dim = expansion * dim, attention_dim
        self.ln = ScaleNorm(dim)
        self.uv = nn.Linear(dim, 2 * self.inner + attention_dim, bias=False)
        self.gamma = nn.Parameter(torch.rand(2, attention_dim))
        self.beta = nn.Parameter(torch.rand(2, attention_dim))
        self.o = nn.Linear(self.inner, dim, bias=False)
        self.res_scale = Scale(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Keep the shape ``(N, K, dim)``."""
        gate, value, base = torch.split(
            silu(self.uv(self.ln(tokens))), [self.inner, self.inner, self.attention_dim], -1
        )
        query, key = (base.unsqueeze(2) * self.gamma + self.beta).unbind(2)
        attention = relu(query @ key.transpose(1, 2) / self.attention_dim**0.5).square()
        kept: Tensor = self.res_scale(tokens)
        added: Tensor = self.o(gate * (attention @ value))
        return kept + added


class SimCCHead(nn.Module):
    """Scores of every position along x and along y, for each key point.

    Args:
        in_channels: Channels of the backbone's last map.
        keypoints: Number of key points K.
        input_size: Height and width of the person's crop in pixels, each divisible by ``stride``.
        bins_per_pixel: Positions a pixel; 2 gives half-pixel bins.
        hidden_dim: Width of a token.
        stride: Pixels of the crop a cell of the map.

    Raises:
        ShapeError: if ``input_size`` is not divisible by ``stride``.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        keypoints: int,
        input_size: tuple[int, int],
        bins_per_pixel: float = 2.0,
        hidden_dim: int = 256,
        stride: int = STRIDE,
    ) -> None:
        super().__init__()
        height, width = input_size
        if height % stride or width % stride:
            raise ShapeError(f"input_size must be (height, width) divisible by {stride}, got {input_size}")
        self.stride = stride
        self.cells = (height // stride, width // stride)
        flat = self.cells[0] * self.cells[1]
        self.final_layer = nn.Conv2d(in_channels, keypoints, 7, padding=3)
        self.mlp = nn.Sequential(ScaleNorm(flat), nn.Linear(flat, hidden_dim, bias=False))
        self.gau = GatedAttention(hidden_dim)
        self.cls_x = nn.Linear(hidden_dim, int(width * bins_per_pixel), bias=False)
        self.cls_y = nn.Linear(hidden_dim, int(height * bins_per_pixel), bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew, as a head that was never trained; the second stage of DWPose begins so."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.001)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
            elif isinstance(module, ScaleNorm):
                nn.init.ones_(module.g)
            elif isinstance(module, Scale):
                nn.init.ones_(module.scale)
            elif isinstance(module, GatedAttention):
                nn.init.uniform_(module.gamma)
                nn.init.uniform_(module.beta)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores along x, ``(N, K, bins of the width)``, and along y, ``(N, K, bins of the height)``.

        Args:
            features: The backbone's last map, ``(N, C, H / stride, W / stride)``.

        Raises:
            ShapeError: if the map has another size than the head was built for.
        """
        if tuple(features.shape[2:]) != self.cells:
            height, width = (self.stride * side for side in self.cells)
            raise ShapeError(
                f"this head was built for crops of {height} by {width} pixels, that is maps of {self.cells}, got maps "
                f"of {tuple(features.shape[2:])}: crop people to that size, or build the model with input_size=..."
            )
        tokens = self.gau(self.mlp(self.final_layer(features).flatten(2)))
        return self.cls_x(tokens), self.cls_y(tokens)
