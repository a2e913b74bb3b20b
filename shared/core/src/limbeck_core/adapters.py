"""Adapters: from the student's width and shape to what a loss compares with the teacher.

An adapter stands in ``Match(adapter=...)`` (student's side) or ``Match(teacher_adapter=...)``. It is trained together
with the student and dropped at export. Several in a row are a :class:`Chain`.

Widths: :class:`LinearAdapter`, :class:`ConvAdapter`, :class:`OFDAdapter`, :class:`SRRLAdapter`, :class:`HintRegressor`.
Shapes: :class:`TokensToMap`, :class:`MapToTokens`, :class:`GlobalPool`, :class:`Resize`. Class lists:
:class:`ClassMap`. Methods with more structure:
:class:`AttentionFusion` and :class:`ReviewFusion` (ReviewKD), :class:`Paraphraser` and :class:`Translator` (FT).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from limbeck_core.build import build
from limbeck_core.errors import ShapeError, closest

Size = int | tuple[int, int]
ResizeMode = Literal["bilinear", "nearest", "area"]

_CONVOLUTIONS: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}
_NORMS: dict[int, type[nn.BatchNorm1d] | type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {
    1: nn.BatchNorm1d,
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}
_LAYOUTS = {1: "L", 2: "H, W", 3: "D, H, W"}


class Chain(nn.Module):
    """Adapters one after the other; in a config, where nothing can be called, a list of their configs.

    Args:
        adapters: The adapters, first to last, or configs of them.

    Raises:
        ValueError: if there is none.

    >>> chain = Chain([TokensToMap(2, 2), {"type": ConvAdapter, "in_channels": 5, "out_channels": 6}])
    >>> chain(torch.zeros(3, 4, 5)).shape
    torch.Size([3, 6, 2, 2])
    """

    def __init__(self, adapters: Sequence[nn.Module | Mapping[str, Any]]) -> None:
        super().__init__()
        if not adapters:
            raise ValueError("Chain needs at least one adapter, got none: leave the adapter out instead")
        self.adapters = nn.ModuleList(build(adapter) for adapter in adapters)

    def forward(self, value: Any) -> Any:
        """Pass a value through all of them."""
        for adapter in self.adapters:
            value = adapter(value)
        return value


class LinearAdapter(nn.Module):
    """Linear projection of the last axis: vectors ``(N, D)`` or token states ``(N, L, D)``.

    Args:
        in_features: Width of the student.
        out_features: Width of the teacher.
        bias: Whether an offset is learned as well.

    Raises:
        ValueError: if a width is below 1.

    >>> LinearAdapter(4, 6)(torch.zeros(2, 5, 4)).shape
    torch.Size([2, 5, 6])
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        _check_counts(in_features=in_features, out_features=out_features)
        self.linear = nn.Linear(in_features, out_features, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        """Project ``(N, in_features)`` or ``(N, L, in_features)`` to ``out_features``.

        Raises:
            ShapeError: if the number of axes or the last one differs.
        """
        width = self.linear.in_features
        if features.ndim not in (2, 3) or features.shape[-1] != width:
            raise ShapeError(
                f"LinearAdapter expects shape (N, {width}) or (N, L, {width}), got {tuple(features.shape)}: set "
                "in_features to the student's last axis, or turn maps into tokens with MapToTokens"
            )
        projected: Tensor = self.linear(features)
        return projected


class ConvAdapter(nn.Module):
    """Convolution of stride 1 from the student's channels to the teacher's; spatial sizes stay.

    Args:
        in_channels: Channels of the student's maps.
        out_channels: Channels of the teacher's maps.
        kernel_size: Odd width of the kernel.
        dims: Number of spatial axes: 1 (sequences), 2 (maps) or 3 (volumes).
        norm: Whether batch normalisation follows; the convolution then has no bias.
        activation: Whether a ReLU ends it.

    Raises:
        ValueError: if a count is below 1, ``kernel_size`` is even, or ``dims`` is not 1, 2 or 3.

    >>> ConvAdapter(4, 6)(torch.zeros(2, 4, 8, 8)).shape
    torch.Size([2, 6, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        dims: int = 2,
        norm: bool = False,
        activation: bool = False,
    ) -> None:
        super().__init__()
        _check_counts(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd so that the spatial size stays, got {kernel_size}")
        if dims not in _CONVOLUTIONS:
            raise ValueError(f"dims must be 1, 2 or 3 spatial axes, got {dims!r}")
        self.conv = _CONVOLUTIONS[dims](in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=not norm)
        self.norm = _NORMS[dims](out_channels) if norm else None
        self.activation = nn.ReLU() if activation else None
        self.dims = dims

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, in_channels, ...)`` to ``(N, out_channels, ...)``.

        Raises:
            ShapeError: if the number of axes or the channels differ.
        """
        _check_map(features, self, self.conv.in_channels, self.dims)
        adapted: Tensor = self.conv(features)
        if self.norm is not None:
            adapted = self.norm(adapted)
        return adapted if self.activation is None else self.activation(adapted)


class OFDAdapter(ConvAdapter):
    """1x1 convolution without bias and batch normalisation: the student's side of OFD.

    Args:
        in_channels: Channels of the student's maps ``(N, in_channels, H, W)``, tapped before the activation.
        out_channels: Channels of the teacher's maps.

    Reference:
        Heo et al., A Comprehensive Overhaul of Feature Distillation, arXiv:1904.01866. The convolution starts from a
        normal distribution of variance ``2 / out_channels``.

    >>> OFDAdapter(4, 6)(torch.zeros(2, 4, 8, 8)).shape
    torch.Size([2, 6, 8, 8])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, norm=True)
        nn.init.normal_(self.conv.weight, std=math.sqrt(2 / out_channels))


class SRRLAdapter(ConvAdapter):
    """1x1 convolution without bias, batch normalisation and ReLU: the student's side of SRRL.

    Args:
        in_channels: Channels of the student's last maps ``(N, in_channels, H, W)``.
        out_channels: Channels that the teacher's classifier takes.

    Reference:
        Yang et al., Knowledge Distillation via Softmax Regression Representation Learning, ICLR 2021.

    >>> SRRLAdapter(4, 6)(torch.zeros(2, 4, 8, 8)).shape
    torch.Size([2, 6, 8, 8])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, norm=True, activation=True)


class HintRegressor(nn.Module):
    """FitNet's regressor: brings channels and spatial size to the teacher's, then batch normalisation and ReLU.

    ========================  ==================================================
    student size              layer
    ========================  ==================================================
    twice the teacher's       convolution 3x3, stride 2, padding 1
    half the teacher's        transposed convolution 4x4, stride 2, padding 1
    at least the teacher's    convolution of kernel ``1 + student - teacher``, no padding (1x1 at equal size)
    ========================  ==================================================

    Args:
        in_channels: Channels of the student's maps.
        out_channels: Channels of the teacher's maps.
        student_size: Height and width of the student's maps; a number means a square.
        teacher_size: Height and width of the teacher's maps.
        activation: Whether the ReLU is there; ``False`` for hints that are read before theirs.

    Raises:
        ValueError: if a count is below 1, or no rule covers the two sizes.

    Reference:
        Romero et al., FitNets: Hints for Thin Deep Nets, arXiv:1412.6550, section 2.2; the three rules are those of the
        common implementations.

    >>> HintRegressor(4, 6, student_size=8, teacher_size=16)(torch.zeros(2, 4, 8, 8)).shape
    torch.Size([2, 6, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        student_size: Size,
        teacher_size: Size,
        *,
        activation: bool = True,
    ) -> None:
        super().__init__()
        student, teacher = _pair(student_size, "student_size"), _pair(teacher_size, "teacher_size")
        _check_counts(in_channels=in_channels, out_channels=out_channels)
        self.conv: nn.Conv2d | nn.ConvTranspose2d
        if student == (2 * teacher[0], 2 * teacher[1]):
            self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)
        elif teacher == (2 * student[0], 2 * student[1]):
            self.conv = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
        elif student[0] >= teacher[0] and student[1] >= teacher[1]:
            kernel = (1 + student[0] - teacher[0], 1 + student[1] - teacher[1])
            self.conv = nn.Conv2d(in_channels, out_channels, kernel, bias=False)
        else:
            raise ValueError(
                f"HintRegressor has no rule from student_size {student} to teacher_size {teacher}: the student's maps "
                "must be half the teacher's, or at least as large; put a Resize in front of a ConvAdapter instead"
            )
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU() if activation else None
        self.student_size = student
        self.teacher_size = teacher

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, in_channels, *student_size)`` to ``(N, out_channels, *teacher_size)``.

        Raises:
            ShapeError: if channels or spatial size differ from what the regressor was built for.
        """
        _check_map(features, self, self.conv.in_channels, 2)
        if tuple(features.shape[2:]) != self.student_size:
            raise ShapeError(
                f"HintRegressor expects maps of size {self.student_size}, got shape {tuple(features.shape)}: set "
                "student_size to the spatial size at the student's tap"
            )
        adapted: Tensor = self.norm(self.conv(features))
        return adapted if self.activation is None else self.activation(adapted)


class AttentionFusion(nn.Module):
    """One stage of ReviewKD: fuse this stage's maps with what comes from the deeper stage, under learned gates.

    The maps are reduced to ``mid_channels``; the residual is enlarged to their size (nearest neighbour); a 1x1
    convolution over both gives two spatial gates between 0 and 1, and the fused maps are the gated sum. A 3x3
    convolution with batch normalisation leads from there to the teacher's channels.

    Args:
        in_channels: Channels of the student's maps.
        out_channels: Channels of the teacher's maps.
        mid_channels: Channels in which stages are fused; the same in all stages.
        fuse: Whether a deeper stage exists; ``False`` for the deepest.

    Raises:
        ValueError: if a count is below 1.

    Reference:
        Chen et al., Distilling Knowledge via Knowledge Review, arXiv:2104.09044, section 3.3 (attention based fusion).

    >>> output, fused = AttentionFusion(4, 6, 5)(torch.rand(2, 4, 8, 8), torch.rand(2, 5, 4, 4))
    >>> output.shape, fused.shape
    (torch.Size([2, 6, 8, 8]), torch.Size([2, 5, 8, 8]))
    """

    def __init__(self, in_channels: int, out_channels: int, mid_channels: int, *, fuse: bool = True) -> None:
        super().__init__()
        _check_counts(in_channels=in_channels, out_channels=out_channels, mid_channels=mid_channels)
        reduce = nn.Conv2d(in_channels, mid_channels, 1, bias=False)
        expand = nn.Conv2d(mid_channels, out_channels, 3, padding=1, bias=False)
        for convolution in (reduce, expand):
            nn.init.kaiming_uniform_(convolution.weight, a=1)
        self.reduce = nn.Sequential(reduce, nn.BatchNorm2d(mid_channels))
        self.gate = nn.Conv2d(2 * mid_channels, 2, 1) if fuse else None
        self.expand = nn.Sequential(expand, nn.BatchNorm2d(out_channels))
        self.in_channels = in_channels
        self.mid_channels = mid_channels

    def forward(
        self, features: Tensor, residual: Tensor | None = None, size: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Fuse one stage.

        Args:
            features: The student's maps ``(N, in_channels, H, W)``.
            residual: Fused maps ``(N, mid_channels, H', W')`` of the deeper stage; ``None`` with ``fuse=False``.
            size: Spatial size of both results; ``None`` keeps ``(H, W)``.

        Returns:
            The output ``(N, out_channels, *size)`` for the loss, and the fused maps ``(N, mid_channels, *size)``, which
            are the residual of the shallower stage.

        Raises:
            ShapeError: if a shape does not fit, or the residual is missing or not expected.
        """
        _check_map(features, self, self.in_channels, 2)
        reduced: Tensor = self.reduce(features)
        if self.gate is None:
            if residual is not None:
                raise ShapeError(
                    f"AttentionFusion with fuse=False takes no residual, got one of shape {tuple(residual.shape)}: "
                    "build the stages above the deepest with fuse=True"
                )
        else:
            expected = (features.shape[0], self.mid_channels)
            if residual is None or residual.ndim != 4 or tuple(residual.shape[:2]) != expected:
                got = "none" if residual is None else str(tuple(residual.shape))
                raise ShapeError(
                    f"AttentionFusion expects a residual of shape ({expected[0]}, {expected[1]}, H, W), got {got}: "
                    "pass the fused maps of the next deeper stage, or build the deepest stage with fuse=False"
                )
            deeper = _resize_nearest(residual, reduced.shape[2:])
            gates = torch.sigmoid(self.gate(torch.cat([reduced, deeper], 1)))
            reduced = reduced * gates[:, :1] + deeper * gates[:, 1:]
        fused = reduced if size is None else _resize_nearest(reduced, size)
        return self.expand(fused), fused


class ReviewFusion(nn.Module):
    """ReviewKD's student side: review all stages from the deepest to the shallowest, one output per stage.

    Give a match the taps of all stages, this as its adapter, and
    :class:`limbeck_core.losses.HierarchicalContextLoss`.

    Args:
        in_channels: Channels of the student's stages, shallow to deep.
        out_channels: Channels of the teacher's stages, as many.
        mid_channels: Channels in which stages are fused; ``None`` takes the smaller of 512 and the deepest stage's.
        out_sizes: Spatial sizes of the teacher's stages, where they differ from the student's; a number means a square.

    Raises:
        ValueError: if the counts differ, there is no stage, or a number is below 1.

    Reference:
        Chen et al., Distilling Knowledge via Knowledge Review, arXiv:2104.09044, section 3. The authors append the
        pooled vector as one more, deepest stage; it may come as ``(N, C)`` and leaves with as many axes.

    >>> fusion = ReviewFusion([4, 8], [6, 12])
    >>> [o.shape for o in fusion([torch.rand(2, 4, 8, 8), torch.rand(2, 8, 4, 4)])]
    [torch.Size([2, 6, 8, 8]), torch.Size([2, 12, 4, 4])]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        *,
        mid_channels: int | None = None,
        out_sizes: Sequence[Size] | None = None,
    ) -> None:
        super().__init__()
        sizes = None if out_sizes is None else [_pair(size, "out_sizes") for size in out_sizes]
        counts = {len(in_channels), len(out_channels), len(in_channels) if sizes is None else len(sizes)}
        if len(counts) != 1 or not in_channels:
            raise ValueError(
                f"in_channels, out_channels and out_sizes must name equally many stages, at least 1, got "
                f"{list(in_channels)}, {list(out_channels)} and {sizes}"
            )
        middle = min(512, in_channels[-1]) if mid_channels is None else mid_channels
        deepest = len(in_channels) - 1
        self.stages = nn.ModuleList(
            AttentionFusion(channels, out, middle, fuse=index < deepest)
            for index, (channels, out) in enumerate(zip(in_channels, out_channels, strict=True))
        )
        self.out_sizes = sizes

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map the stages ``(N, in_channels[i], H_i, W_i)``, shallow to deep, to the teacher's channels and sizes.

        Raises:
            ShapeError: if the number of stages or a stage's channels differ.
        """
        _check_stages(features, len(self.stages))
        outputs: list[Tensor] = []
        residual: Tensor | None = None
        for index in reversed(range(len(self.stages))):
            stage, pooled = features[index], features[index].ndim == 2
            size = None if self.out_sizes is None else self.out_sizes[index]
            output, residual = self.stages[index](stage[:, :, None, None] if pooled else stage, residual, size)
            outputs.append(output.flatten(1) if pooled and output.shape[2:] == (1, 1) else output)
        return outputs[::-1]


class Paraphraser(nn.Module):
    """FT's autoencoder of the teacher's last maps: its code is the factor that the student learns.

    Three 3x3 convolutions with LeakyReLU (0.1), of which the second changes the width, and three transposed ones back.
    It is trained first, alone, to reconstruct: ``hint_loss(paraphraser.reconstruct(maps), maps)``. Then it stands as
    the teacher's adapter; :func:`limbeck_core.functional.factor_transfer_loss` lets no gradient into it.

    Args:
        in_channels: Channels of the teacher's maps.
        out_channels: Channels of the factor; the paper takes about half of ``in_channels``.
        norm: Whether batch normalisation follows each convolution.

    Raises:
        ValueError: if a count is below 1.

    Reference:
        Kim et al., Paraphrasing Complex Network: Network Compression via Factor Transfer, arXiv:1802.04977, section 3.

    >>> paraphraser = Paraphraser(6, 3)
    >>> maps = torch.rand(2, 6, 4, 4)
    >>> paraphraser(maps).shape, paraphraser.reconstruct(maps).shape
    (torch.Size([2, 3, 4, 4]), torch.Size([2, 6, 4, 4]))
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: bool = False) -> None:
        super().__init__()
        _check_counts(in_channels=in_channels, out_channels=out_channels)
        self.encoder = _factor_layers(nn.Conv2d, [in_channels, in_channels, out_channels, out_channels], norm)
        self.decoder = _factor_layers(nn.ConvTranspose2d, [out_channels, out_channels, in_channels, in_channels], norm)
        self.in_channels = in_channels

    def forward(self, features: Tensor) -> Tensor:
        """Return the factor ``(N, out_channels, H, W)`` of maps ``(N, in_channels, H, W)``.

        Raises:
            ShapeError: if the maps have another shape.
        """
        _check_map(features, self, self.in_channels, 2)
        factor: Tensor = self.encoder(features)
        return factor

    def reconstruct(self, features: Tensor) -> Tensor:
        """Return maps ``(N, in_channels, H, W)`` decoded from their own factor.

        Raises:
            ShapeError: if the maps have another shape.
        """
        reconstructed: Tensor = self.decoder(self(features))
        return reconstructed


class Translator(nn.Module):
    """FT's student side: the layers of the paraphraser's encoder, with batch normalisation.

    Args:
        in_channels: Channels of the student's maps.
        out_channels: Channels of the factor, as in the :class:`Paraphraser`.
        norm: Whether batch normalisation follows each convolution.

    Raises:
        ValueError: if a count is below 1.

    Reference:
        Kim et al., Paraphrasing Complex Network: Network Compression via Factor Transfer, arXiv:1802.04977, section 3.

    >>> Translator(4, 3)(torch.rand(2, 4, 4, 4)).shape
    torch.Size([2, 3, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: bool = True) -> None:
        super().__init__()
        _check_counts(in_channels=in_channels, out_channels=out_channels)
        self.encoder = _factor_layers(nn.Conv2d, [in_channels, in_channels, out_channels, out_channels], norm)
        self.in_channels = in_channels

    def forward(self, features: Tensor) -> Tensor:
        """Return the factor ``(N, out_channels, H, W)`` of maps ``(N, in_channels, H, W)``.

        Raises:
            ShapeError: if the maps have another shape.
        """
        _check_map(features, self, self.in_channels, 2)
        factor: Tensor = self.encoder(features)
        return factor


class TokensToMap(nn.Module):
    """Tokens ``(N, prefix_tokens + height * width, D)`` in row order to maps ``(N, D, height, width)``.

    Args:
        height: Rows of patches.
        width: Patches per row.
        prefix_tokens: Tokens in front that are no patches (class token, registers) and are left out.

    Raises:
        ValueError: if a size is below 1 or ``prefix_tokens`` below 0.

    >>> TokensToMap(2, 3, prefix_tokens=1)(torch.zeros(4, 7, 5)).shape
    torch.Size([4, 5, 2, 3])
    """

    def __init__(self, height: int, width: int, *, prefix_tokens: int = 0) -> None:
        super().__init__()
        _check_counts(height=height, width=width)
        if prefix_tokens < 0:
            raise ValueError(f"prefix_tokens must be 0 or more, got {prefix_tokens}")
        self.height = height
        self.width = width
        self.prefix_tokens = prefix_tokens

    def forward(self, tokens: Tensor) -> Tensor:
        """Reshape.

        Raises:
            ShapeError: if the number of tokens is not what the sizes say.
        """
        expected = self.prefix_tokens + self.height * self.width
        if tokens.ndim != 3 or tokens.shape[1] != expected:
            raise ShapeError(
                f"TokensToMap expects shape (N, {expected}, D) = {self.prefix_tokens} prefix tokens + {self.height} x "
                f"{self.width} patches, got {tuple(tokens.shape)}: set height, width and prefix_tokens to the model's"
            )
        patches = tokens[:, self.prefix_tokens :]
        return patches.mT.reshape(*patches.shape[::2], self.height, self.width)

    def extra_repr(self) -> str:
        """Show the sizes in ``repr``."""
        return f"height={self.height}, width={self.width}, prefix_tokens={self.prefix_tokens}"


class MapToTokens(nn.Module):
    """Maps ``(N, C, ...)`` to tokens ``(N, positions, C)`` in row order.

    >>> MapToTokens()(torch.zeros(4, 5, 2, 3)).shape
    torch.Size([4, 6, 5])
    """

    def forward(self, features: Tensor) -> Tensor:
        """Reshape.

        Raises:
            ShapeError: if there is no spatial axis.
        """
        if features.ndim < 3:
            raise ShapeError(
                f"MapToTokens expects maps (N, C, ...), got {tuple(features.shape)}: tap before the pooling"
            )
        return features.flatten(2).mT


class GlobalPool(nn.Module):
    """Maps ``(N, C, ...)`` to their spatial means ``(N, C)``.

    For tokens ``(N, L, D)`` axis 1 is not the channels: put a :class:`TokensToMap` in front.

    >>> GlobalPool()(torch.ones(4, 5, 2, 3)).shape
    torch.Size([4, 5])
    """

    def forward(self, features: Tensor) -> Tensor:
        """Average over all axes after the channels.

        Raises:
            ShapeError: if there is no spatial axis.
        """
        if features.ndim < 3:
            raise ShapeError(
                f"GlobalPool expects maps (N, C, ...), got {tuple(features.shape)}: pooled vectors need no GlobalPool"
            )
        return features.flatten(2).mean(2)


class Resize(nn.Module):
    """Maps ``(N, C, H, W)`` to another spatial size.

    Args:
        size: Height and width; a number means a square.
        mode: ``"bilinear"`` (corners not aligned), ``"nearest"``, or ``"area"`` (adaptive average pooling).

    Raises:
        ValueError: if ``size`` or ``mode`` is out of range.

    >>> Resize(4)(torch.zeros(2, 3, 8, 6)).shape
    torch.Size([2, 3, 4, 4])
    """

    def __init__(self, size: Size, *, mode: ResizeMode = "bilinear") -> None:
        super().__init__()
        if mode not in get_args(ResizeMode):
            raise ValueError(f"mode must be 'bilinear', 'nearest' or 'area', got {mode!r}")
        self.size = _pair(size, "size")
        self.mode: ResizeMode = mode

    def forward(self, features: Tensor) -> Tensor:
        """Resize.

        Raises:
            ShapeError: if the input has not four axes.
        """
        if features.ndim != 4:
            raise ShapeError(
                f"Resize expects maps (N, C, H, W), got {tuple(features.shape)}: turn tokens into maps with TokensToMap"
            )
        if tuple(features.shape[2:]) == self.size:
            return features
        return interpolate(
            features, self.size, mode=self.mode, align_corners=False if self.mode == "bilinear" else None
        )

    def extra_repr(self) -> str:
        """Show the size in ``repr``."""
        return f"size={self.size}, mode={self.mode!r}"


class ClassMap(nn.Module):
    """Put a teacher's scores into the student's class list: select, reorder, and leave out.

    Use it as ``teacher_adapter`` when teacher and student know the same classes by other numbers, or when the teacher
    knows more. A softmax after it renormalises over the classes that were kept.

    Args:
        indices: For each of the student's classes, its index in the teacher's list.

    Shapes: ``(N, C_teacher, ...)`` to ``(N, len(indices), ...)``; the class axis is 1.

    Raises:
        ValueError: if an index is negative or occurs twice, or there is none.
        ShapeError: when called with fewer classes than an index asks for.

    >>> import torch
    >>> ClassMap.of(["cat", "dog"], ["car", "dog", "cat"])(torch.tensor([[0.1, 0.2, 0.3]]))
    tensor([[0.3000, 0.2000]])
    """

    indices: Tensor

    def __init__(self, indices: Sequence[int]) -> None:
        super().__init__()
        listed = [int(index) for index in indices]
        if not listed or min(listed) < 0 or len(set(listed)) != len(listed):
            raise ValueError(f"ClassMap needs one index >= 0 per class of the student, each once, got {listed}")
        self.register_buffer("indices", torch.tensor(listed, dtype=torch.long, device="cpu"), persistent=False)
        self.classes_at_least = max(listed) + 1

    @classmethod
    def of(cls, student_classes: Sequence[str], teacher_classes: Sequence[str]) -> ClassMap:
        """Make the map from two lists of names.

        Args:
            student_classes: Names in the student's order.
            teacher_classes: Names in the teacher's order.

        Raises:
            ValueError: if the teacher lacks one of the student's classes, with the closest names.
        """
        place = {name: index for index, name in enumerate(teacher_classes)}
        for name in student_classes:
            if name not in place:
                raise ValueError(f"the teacher does not know the class {name!r}: {closest(name, teacher_classes)}")
        return cls([place[name] for name in student_classes])

    def forward(self, teacher_logits: Tensor) -> Tensor:
        """Return the teacher's scores in the student's order."""
        if teacher_logits.ndim < 2 or teacher_logits.shape[1] < self.classes_at_least:
            raise ShapeError(
                f"ClassMap expects scores (N, C, ...) of at least {self.classes_at_least} classes, got "
                f"{tuple(teacher_logits.shape)}: make the map from the class list of this teacher"
            )
        return teacher_logits.index_select(1, self.indices)

    def extra_repr(self) -> str:
        """Show the number of classes in ``repr``."""
        return f"{len(self.indices)} of {self.classes_at_least} or more classes"


def _factor_layers(
    convolution: type[nn.Conv2d] | type[nn.ConvTranspose2d], channels: Sequence[int], norm: bool
) -> nn.Sequential:
    """Three 3x3 (transposed) convolutions of stride 1, each with optional batch normalisation and LeakyReLU."""
    layers: list[nn.Module] = []
    for index in range(3):
        layers.append(convolution(channels[index], channels[index + 1], 3, padding=1, bias=not norm))
        if norm:
            layers.append(nn.BatchNorm2d(channels[index + 1]))
        layers.append(nn.LeakyReLU(0.1))
    return nn.Sequential(*layers)


def _resize_nearest(features: Tensor, size: Sequence[int]) -> Tensor:
    return features if tuple(features.shape[2:]) == tuple(size) else interpolate(features, tuple(size), mode="nearest")


def _check_map(features: Tensor, module: nn.Module, channels: int, dims: int) -> None:
    if features.ndim != dims + 2 or features.shape[1] != channels:
        raise ShapeError(
            f"{type(module).__name__} expects shape (N, {channels}, {_LAYOUTS[dims]}), got {tuple(features.shape)}: "
            "set in_channels to the channels at the tap, or turn tokens into maps with TokensToMap"
        )


def _check_stages(features: Any, stages: int) -> None:
    if isinstance(features, Tensor) or len(features) != stages:
        got = tuple(features.shape) if isinstance(features, Tensor) else [tuple(f.shape) for f in features]
        raise ShapeError(
            f"ReviewFusion expects a sequence of {stages} stages, shallow to deep, got {got}: give the match one tap "
            "per entry of in_channels"
        )


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count!r}")


def _pair(size: Size, name: str) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"{name} must be a positive number or (height, width), got {size!r}")
    return height, width
