"""Module twins of :mod:`limbeck_core.functional.relations`.

Modules with ``relational = True`` compare samples with each other; :class:`~limbeck_core.match.Match` gives them the
samples of all ranks.
"""

from __future__ import annotations

from torch import Tensor, nn

from limbeck_core.checks import check_non_negative
from limbeck_core.functional import relations as functional
from limbeck_core.functional.reduction import Reduction, check_reduction
from limbeck_core.functional.relations import Kernel


class DistanceRelationLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.distance_relation_loss` (RKD-D).

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    relational = True

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.distance_relation_loss(student_embeddings, teacher_embeddings, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"


class AngleRelationLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.angle_relation_loss` (RKD-A).

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    relational = True

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.angle_relation_loss(student_embeddings, teacher_embeddings, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"


class RelationalLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.relational_loss` (RKD-DA).

    Args:
        distance_weight: Weight of the distances, 0 or more.
        angle_weight: Weight of the angles, 0 or more.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if an argument is out of range.
    """

    relational = True

    def __init__(
        self, distance_weight: float = 25.0, angle_weight: float = 50.0, *, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        check_non_negative(distance_weight, "distance_weight")
        check_non_negative(angle_weight, "angle_weight")
        check_reduction(reduction)
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight
        self.reduction = reduction

    def forward(self, student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.relational_loss(
            student_embeddings,
            teacher_embeddings,
            distance_weight=self.distance_weight,
            angle_weight=self.angle_weight,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"distance_weight={self.distance_weight}, angle_weight={self.angle_weight}, reduction={self.reduction!r}"


class SimilarityPreservingLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.similarity_preserving_loss` (SP).

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    relational = True

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.similarity_preserving_loss(student_features, teacher_features, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"


class ProbabilisticTransferLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.probabilistic_transfer_loss` (PKT).

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    relational = True

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.probabilistic_transfer_loss(student_embeddings, teacher_embeddings, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"


class CorrelationCongruenceLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.correlation_congruence_loss` (CC).

    Args:
        kernel: ``"gaussian"`` (Taylor expansion) or ``"bilinear"``.
        gamma: Width of the Gaussian kernel, above 0.
        order: Last power of the expansion, 1 or more.

    Raises:
        ValueError: if an argument is out of range.
    """

    relational = True

    def __init__(self, kernel: Kernel = "gaussian", *, gamma: float = 0.4, order: int = 2) -> None:
        super().__init__()
        functional.check_kernel(kernel, gamma, order)
        self.kernel = kernel
        self.gamma = gamma
        self.order = order

    def forward(self, student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.correlation_congruence_loss(
            student_embeddings, teacher_embeddings, kernel=self.kernel, gamma=self.gamma, order=self.order
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"kernel={self.kernel!r}, gamma={self.gamma}, order={self.order}"


class SelfAttentionRelationLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.self_attention_relation_loss` (MiniLM, MiniLMv2).

    One match per relation::

        Match(SelfAttentionRelationLoss(48), "encoder.layer.5.attention.self.query",
              "encoder.layer.11.attention.self.query")                                     # MiniLMv2's query-query
        Match(SelfAttentionRelationLoss(12), "....query", "....query",                     # MiniLM's attention
              extras={"student_keys": Tap("....key", of="student"), "teacher_keys": Tap("....key", of="teacher")})

    Args:
        relation_heads: Number of relation heads; divides both widths. 48 for base models in MiniLMv2.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over sequences.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, relation_heads: int, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        functional.check_relation_heads(relation_heads)
        check_reduction(reduction)
        self.relation_heads = relation_heads
        self.reduction = reduction

    def forward(
        self,
        student_states: Tensor,
        teacher_states: Tensor,
        student_keys: Tensor | None = None,
        teacher_keys: Tensor | None = None,
        *,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.self_attention_relation_loss(
            student_states,
            teacher_states,
            student_keys,
            teacher_keys,
            relation_heads=self.relation_heads,
            mask=mask,
            reduction=self.reduction,
        )

    @staticmethod
    def count(mask: Tensor) -> Tensor:
        """Number of sequences that the mean is over: those with a token."""
        return (mask != 0).any(1).sum()

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"relation_heads={self.relation_heads}, reduction={self.reduction!r}"


class AttentionMSELoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.attention_mse_loss` (TinyBERT, TextBrewer).

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over pairs of tokens.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_attention: Tensor, teacher_attention: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.attention_mse_loss(student_attention, teacher_attention, mask=mask, reduction=self.reduction)

    @staticmethod
    def count(mask: Tensor) -> Tensor:
        """Number of pairs of tokens, per head, that the mean is over."""
        return (mask != 0).sum(1).square().sum()

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"


class AttentionCrossEntropyLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.attention_cross_entropy_loss` (TextBrewer).

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over queries.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_attention: Tensor, teacher_attention: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.attention_cross_entropy_loss(
            student_attention, teacher_attention, mask=mask, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"
