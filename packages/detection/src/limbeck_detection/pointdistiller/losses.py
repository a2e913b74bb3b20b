"""Local distillation: the codes of the student's neighbourhoods follow the teacher's, the important ones most."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from limbeck_core.checks import check_finite, check_ndim, check_positive, check_same_shape
from limbeck_core.errors import ShapeError
from limbeck_core.functional.precision import at_least_float32, without_autocast
from limbeck_core.functional.reduction import Reduction, check_reduction, reduce_loss
from limbeck_detection.pointdistiller.graph import Fusion, GraphLayer
from limbeck_detection.pointdistiller.neighbors import nearest_neighbors, rows_by_scene, select_most_important

Weighting = Literal["softmax", "uniform", "scenes"]
Pooling = Literal["none", "max", "mean"]


def importance_weights(importance: Tensor, *, temperature: float, scenes: Tensor | None = None) -> Tensor:
    r"""Weights of the centres, 1 on average.

    .. math:: w_i = n \operatorname{softmax}(s / \tau)_i

    Args:
        importance: :math:`s`, shape ``(n,)``.
        temperature: Softness :math:`\tau > 0`, in units of the importance. As it grows, all weights become 1. One far
            below the differences between importances leaves the largest alone.
        scenes: Scene of each centre, integers ``(n,)``: the softmax and :math:`n` are those of its own scene. Default:
            of the whole batch.

    Returns: Shape ``(n,)``, without a gradient.

    Raises:
        ValueError: if ``temperature`` is not above 0.
        ShapeError: if ``scenes`` does not fit.

    Reference: Zhang et al., PointDistiller, arXiv:2205.11098, section 3.3.

    >>> importance_weights(torch.tensor([1.0, 1.0, 1.0]), temperature=5.0)
    tensor([1., 1., 1.])
    """
    check_positive(temperature, "temperature")
    check_ndim(importance, "importance", "(n,)", at_least=1, at_most=1)
    scores = importance.detach()
    scores = at_least_float32(scores if scores.is_floating_point() else scores.float()) / temperature
    if scenes is None:
        return scores.softmax(0) * len(scores)
    weights = torch.empty_like(scores)
    for rows in rows_by_scene(scenes, len(scores), "importance"):
        weights[rows] = scores[rows].softmax(0) * len(rows)
    return weights


def local_distillation_loss(
    student_codes: Tensor,
    teacher_codes: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Weighted mean square between codes of neighbourhoods (PointDistiller).

    .. math:: L = \frac{1}{n} \sum_i w_i \operatorname{mean}_{jc} (g^S_{ijc} - g^T_{ijc})^2

    Gradient flows into both sides: the teacher's graph layer is trained with the student's. The teacher's features are
    detached before that layer, by the modules below.

    Args:
        student_codes: Shape ``(n, k, C)``, or ``(n, C)`` after pooling over the neighbours.
        teacher_codes: The same shape.
        weight: Importance of each centre, shape ``(n,)``; see :func:`importance_weights`. Default: 1.
        reduction: ``"none"`` gives one value per centre, shape ``(n,)``.

    Returns: The loss; a zero with a graph where there is no centre.

    Raises:
        ShapeError: if shapes differ.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the codes that hold NaN or infinity.

    Reference: Zhang et al., PointDistiller, arXiv:2205.11098, eq. 3-4. The square instead of the norm is that of the
        authors' code. Their factor of 2 belongs into the weight of the match.

    >>> local_distillation_loss(torch.zeros(2, 3, 4), torch.ones(2, 3, 4))
    tensor(1.)
    """
    check_reduction(reduction)
    check_same_shape(student_codes, teacher_codes, "student_codes", "teacher_codes")
    check_ndim(student_codes, "student_codes", "(n, k, C) or (n, C)", at_least=2, at_most=3)
    if weight is not None and weight.shape != student_codes.shape[:1]:
        raise ShapeError(f"weight must have one entry per centre, {len(student_codes)}, got {tuple(weight.shape)}")
    if not student_codes.numel():
        return reduce_loss((student_codes - teacher_codes).flatten(1).sum(1), reduction)
    student, teacher = at_least_float32(student_codes), at_least_float32(teacher_codes)
    per_center = (student - teacher).square().flatten(1).mean(1)
    if weight is not None:
        per_center = per_center * weight.detach().to(per_center.dtype)
    loss = reduce_loss(per_center, reduction)
    check_finite(loss, student_codes=student_codes, teacher_codes=teacher_codes)
    return loss


class _LocalDistillation(nn.Module):
    """What the variants share: two graph layers, neighbourhoods of the teacher, and weights."""

    spread: Tensor

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        *,
        channels: int | None = None,
        centers: int = 6000,
        neighbors: int = 128,
        temperature: float = 5.0,
        weighting: Weighting = "softmax",
        pooling: Pooling = "none",
        fusion: Fusion = "concatenate",
        affine: bool = True,
        chunk_size: int = 256,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        for name, value in (
            ("centers", centers),
            ("neighbors", neighbors),
            ("temperature", temperature),
            ("chunk_size", chunk_size),
        ):
            check_positive(value, name)
        if weighting not in get_args(Weighting):
            raise ValueError(f"weighting must be one of {', '.join(get_args(Weighting))}, got {weighting!r}")
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling must be 'none', 'max' or 'mean', got {pooling!r}")
        check_reduction(reduction)
        width = student_channels if channels is None else channels
        self.student_graph = GraphLayer(student_channels, width, fusion=fusion, affine=affine)
        self.teacher_graph = GraphLayer(teacher_channels, width, fusion=fusion, affine=affine)
        self.centers = centers
        self.neighbors = neighbors
        self.temperature = temperature
        self.weighting = weighting
        self.pooling = pooling
        self.chunk_size = chunk_size
        self.reduction = reduction
        # a plain number to look at: how far the teacher's codes are from one constant
        self.register_buffer("spread", torch.zeros(()), persistent=False)

    def _compare(
        self,
        student: Tensor,
        teacher: Tensor,
        importance: Tensor | None,
        *,
        select_scenes: Tensor | None,
        search_scenes: Tensor | None,
        scenes: int,
    ) -> Tensor:
        """Loss of items ``(M, C_s)`` and ``(M, C_t)``; without ``importance``, codes of the teacher say it."""
        check_finite(student.detach().sum(), student_features=student)
        with without_autocast(student):
            teacher = at_least_float32(teacher.detach()).to(self.teacher_graph.linear.weight.dtype)
            student = at_least_float32(student).to(self.student_graph.linear.weight.dtype)
            chosen_by = teacher.amax(1) if importance is None else importance
            centers = select_most_important(chosen_by, self.centers, scenes=select_scenes)
            neighbors = self._neighbors(teacher, centers, search_scenes)
            teacher_codes = self._pooled(self.teacher_graph(teacher, centers, neighbors))
            student_codes = self._pooled(self.student_graph(student, centers, neighbors))
            self.spread = teacher_codes.detach().flatten(0, -2).std(0, unbiased=False).mean().float()
            weight = None
            if self.weighting == "softmax":
                strength = teacher_codes.detach().flatten(1).amax(1) if importance is None else importance[centers]
                own = None if select_scenes is None else select_scenes[centers]
                weight = importance_weights(strength, temperature=self.temperature, scenes=own)
            loss = local_distillation_loss(student_codes, teacher_codes, weight, reduction=self.reduction)
            return loss * scenes if self.weighting == "scenes" else loss

    def _neighbors(self, teacher: Tensor, centers: Tensor, scenes: Tensor | None) -> Tensor:
        return nearest_neighbors(teacher, centers, self.neighbors, scenes=scenes, chunk_size=self.chunk_size)

    def _pooled(self, codes: Tensor) -> Tensor:
        if self.pooling == "none":
            return codes
        return codes.amax(1) if self.pooling == "max" else codes.mean(1)

    def _nothing(self, student: Tensor) -> Tensor:
        """A zero that depends on everything that trains, for batches without an item."""
        zero = student.sum() * 0 + sum(parameter.sum() * 0 for parameter in self.parameters())
        return zero.expand(0) if self.reduction == "none" else zero

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return (
            f"centers={self.centers}, neighbors={self.neighbors}, temperature={self.temperature}, "
            f"weighting={self.weighting!r}, pooling={self.pooling!r}, reduction={self.reduction!r}"
        )


class VoxelDistillationLoss(_LocalDistillation):
    r"""PointDistiller on voxels (pillars): the fullest ones matter most.

    Around the ``centers`` voxels with the most points, the ``neighbors`` nearest voxels *in the teacher's feature
    space* are encoded by a graph layer on each side, and the student's codes follow the teacher's. Both layers are
    trained with the student and dropped afterwards; the teacher's features carry no gradient.

    Both graph layers train, so the loss can also fall because the teacher's codes become one constant. :attr:`spread`,
    the standard deviation of the teacher's codes in the last call, shows it; ``affine=False`` prevents it.

    Args:
        student_channels: Width :math:`C_s` of the student's voxel features.
        teacher_channels: Width :math:`C_t` of the teacher's.
        channels: Width of the codes; default ``student_channels``.
        centers: Voxels of the batch that are compared. Paper: N.
        neighbors: Neighbours of each, the voxel itself included. Paper: K.
        temperature: Softness of the weights, in points per voxel. Paper: ``tau``. The authors' configs have 0.01, which
            leaves the fullest voxels alone, all with the same weight; 5, the default, is what the paper's text
            describes (a choice made here: no number is given there).
        weighting: ``"softmax"`` by the number of points, or ``"uniform"``.
        pooling: Over the neighbours, before codes are compared: ``"none"``, ``"max"`` or ``"mean"``.
        fusion: See :class:`~limbeck_detection.pointdistiller.graph.GraphLayer`.
        affine: The same.
        chunk_size: Centres whose distances are in memory at a time.
        reduction: ``"none"`` gives one value per centre.

    Raises:
        ValueError: if an argument is out of range.

    Reference: Zhang et al., PointDistiller: Structured Knowledge Distillation Towards Efficient and Compact 3D
        Detection, arXiv:2205.11098, section 3.
    """

    def forward(
        self, student_features: Tensor, teacher_features: Tensor, importance: Tensor, scenes: Tensor | None = None
    ) -> Tensor:
        """Compare.

        Args:
            student_features: Features of the voxels of the whole batch, shape ``(M, C_s)``.
            teacher_features: Features of the same voxels in the same order, shape ``(M, C_t)``. Voxelise once and feed
                both networks.
            importance: Number of points in each voxel, shape ``(M,)``.
            scenes: Scene of each voxel, integers ``(M,)``, so that neighbours come from the voxel's own scene. Default:
                from the whole batch, as in the authors' code.

        Returns: The loss; a zero with a graph where there is no voxel.

        Raises:
            ShapeError: if shapes do not fit.
            NonFiniteError: if a feature or an importance is NaN or infinite (CPU).
        """
        check_ndim(student_features, "student_features", "(M, C)", at_least=2, at_most=2)
        check_ndim(teacher_features, "teacher_features", "(M, C)", at_least=2, at_most=2)
        counts = {"teacher_features": teacher_features, "importance": importance}
        for name, value in counts.items():
            if len(value) != len(student_features):
                raise ShapeError(
                    f"student_features has {len(student_features)} voxels, {name} has {len(value)}: voxelise once and "
                    "feed both networks"
                )
        if not len(student_features):
            return self._nothing(student_features)
        return self._compare(
            student_features, teacher_features, importance, select_scenes=None, search_scenes=scenes, scenes=1
        )


class ShuffledVoxelDistillationLoss(VoxelDistillationLoss):
    """A control for :class:`VoxelDistillationLoss`: the neighbours of all centres change places at random.

    Each neighbourhood keeps its centre, and all of them together keep their voxels; that they belong together is lost.
    What this trains better than no distillation owes nothing to local structure.
    """

    def _neighbors(self, teacher: Tensor, centers: Tensor, scenes: Tensor | None) -> Tensor:
        found = super()._neighbors(teacher, centers, scenes)
        others = found[:, 1:].flatten()
        order = torch.randperm(len(others), device=others.device)
        return torch.cat((found[:, :1], others[order].view(len(found), -1)), 1)


class BEVDistillationLoss(_LocalDistillation):
    r"""PointDistiller on a bird's-eye map (SECOND): cells with the strongest response of the teacher matter most.

    As :class:`VoxelDistillationLoss`, but each image has its own ``centers`` cells, those with the largest value of the
    teacher over channels; neighbours are cells of the same map.

    Args:
        student_channels: Width :math:`C_s` of the student's map.
        teacher_channels: Width :math:`C_t` of the teacher's.
        channels: Width of the codes; default ``student_channels``.
        centers: Cells of each map that are compared. Paper: N.
        neighbors: Neighbours of each, the cell itself included. Paper: K.
        temperature: Softness of the weights, in units of the teacher's features. Paper: ``tau``.
        weighting: ``"softmax"`` over the centres of a map by the teacher's largest channel; ``"uniform"``;
            ``"scenes"`` is what the authors' code computes, whose softmax runs over an axis of length 1: every weight
            is the number of maps.
        pooling: See :class:`VoxelDistillationLoss`.
        fusion: The same.
        affine: The same.
        chunk_size: The same.
        reduction: ``"none"`` gives one value per centre, map by map.

    Raises:
        ValueError: if an argument is out of range.

    Reference: Zhang et al., PointDistiller, arXiv:2205.11098, section 3.
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        *,
        channels: int | None = None,
        centers: int = 256,
        neighbors: int = 256,
        temperature: float = 1.0,
        weighting: Weighting = "softmax",
        pooling: Pooling = "none",
        fusion: Fusion = "concatenate",
        affine: bool = True,
        chunk_size: int = 256,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(
            student_channels,
            teacher_channels,
            channels=channels,
            centers=centers,
            neighbors=neighbors,
            temperature=temperature,
            weighting=weighting,
            pooling=pooling,
            fusion=fusion,
            affine=affine,
            chunk_size=chunk_size,
            reduction=reduction,
        )

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Compare.

        Args:
            student_features: Shape ``(B, C_s, H, W)``.
            teacher_features: Shape ``(B, C_t, H, W)``.

        Returns: The loss; a zero with a graph where there is no cell.

        Raises:
            ShapeError: if shapes do not fit.
            NonFiniteError: if a feature is NaN or infinite (CPU).
        """
        for name, value in (("student_features", student_features), ("teacher_features", teacher_features)):
            check_ndim(value, name, "(B, C, H, W)", at_least=4, at_most=4)
        _check_places(student_features, teacher_features)
        if not student_features.numel():
            return self._nothing(student_features)
        student, teacher, scenes = (*map(_rows, (student_features, teacher_features)), _scenes(student_features))
        return self._compare(
            student,
            teacher,
            teacher.detach().amax(1),
            select_scenes=scenes,
            search_scenes=scenes,
            scenes=len(student_features),
        )


class PointDistillationLoss(_LocalDistillation):
    r"""PointDistiller on point features (PointRCNN).

    As :class:`VoxelDistillationLoss`, but each scene has its own ``centers`` points, those with the largest value of
    the teacher over channels; codes are pooled over the neighbours, and the weights follow the largest channel of the
    teacher's *codes*. They are detached, so that the graph layer cannot lower the loss by weighing hard places less (a
    choice made here).

    Args:
        student_channels: Width :math:`C_s` of the student's features.
        teacher_channels: Width :math:`C_t` of the teacher's.
        channels: Width of the codes; default ``student_channels``.
        centers: Points of each scene that are compared. Paper: N.
        neighbors: Neighbours of each, the point itself included. Paper: K.
        temperature: Softness of the weights, in units of the codes. Paper: ``tau``.
        weighting: ``"softmax"`` over the centres of a scene; ``"uniform"`` is what the authors' code computes, which
            prepares weights and leaves them out.
        pooling: Over the neighbours: ``"max"`` as published, ``"mean"`` or ``"none"``.
        fusion: See :class:`VoxelDistillationLoss`.
        affine: The same.
        chunk_size: The same.
        reduction: ``"none"`` gives one value per centre, scene by scene.

    Raises:
        ValueError: if an argument is out of range.

    Reference: Zhang et al., PointDistiller, arXiv:2205.11098, section 3.
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        *,
        channels: int | None = None,
        centers: int = 6000,
        neighbors: int = 128,
        temperature: float = 1.0,
        weighting: Literal["softmax", "uniform"] = "softmax",
        pooling: Pooling = "max",
        fusion: Fusion = "concatenate",
        affine: bool = True,
        chunk_size: int = 256,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(
            student_channels,
            teacher_channels,
            channels=channels,
            centers=centers,
            neighbors=neighbors,
            temperature=temperature,
            weighting=weighting,
            pooling=pooling,
            fusion=fusion,
            affine=affine,
            chunk_size=chunk_size,
            reduction=reduction,
        )

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Compare.

        Args:
            student_features: Shape ``(B, C_s, N)``.
            teacher_features: Features of the same points in the same order, shape ``(B, C_t, N)``.

        Returns: The loss; a zero with a graph where there is no point.

        Raises:
            ShapeError: if shapes do not fit.
            NonFiniteError: if a feature is NaN or infinite (CPU).
        """
        for name, value in (("student_features", student_features), ("teacher_features", teacher_features)):
            check_ndim(value, name, "(B, C, N)", at_least=3, at_most=3)
        _check_places(student_features, teacher_features)
        if not student_features.numel():
            return self._nothing(student_features)
        student, teacher, scenes = (*map(_rows, (student_features, teacher_features)), _scenes(student_features))
        return self._compare(
            student, teacher, None, select_scenes=scenes, search_scenes=scenes, scenes=len(student_features)
        )


def _check_places(student: Tensor, teacher: Tensor) -> None:
    if student.shape[:1] + student.shape[2:] != teacher.shape[:1] + teacher.shape[2:]:
        raise ShapeError(
            f"student_features {tuple(student.shape)} and teacher_features {tuple(teacher.shape)} must have the same "
            "scenes and places, and may differ in channels only: tap layers of equal stride"
        )


def _rows(features: Tensor) -> Tensor:
    """``(B, C, ...)`` as items, scene by scene."""
    return features.flatten(2).transpose(1, 2).reshape(-1, features.shape[1])


def _scenes(features: Tensor) -> Tensor:
    places = features[0, 0].numel()
    return torch.arange(len(features), device=features.device).repeat_interleave(places)
