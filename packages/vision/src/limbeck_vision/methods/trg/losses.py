"""The three token losses of TRG. All take tokens ``(n, D)`` pooled over the batch, or features that a tap gives.

Which constants the authors used is not known to us (neighbours, bandwidth, tokens, weights, temperature): the defaults
are our choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, log_softmax, mse_loss, normalize, softmax

from limbeck_core.checks import check_finite, check_floating, check_ndim, check_positive, check_same_device
from limbeck_core.errors import ShapeError
from limbeck_core.functional.precision import at_least_float32, in_one_precision, without_autocast
from limbeck_core.functional.reduction import Reduction, check_reduction, reduce_loss
from limbeck_core.schedules import Cosine, Progress, Schedule, as_schedule
from limbeck_vision.methods.trg.tokens import sample_tokens, token_pair

Direction = Literal["teacher_first", "student_first"]
Support = Literal["neighbours", "all"]


def token_graph_loss(
    student_tokens: Tensor,
    teacher_tokens: Tensor,
    *,
    neighbours: int = 16,
    bandwidth: float | None = None,
    unit_length: bool = True,
    direction: Direction = "teacher_first",
    support: Support = "neighbours",
) -> Tensor:
    r"""Divergence between the rows of two graphs of nearest tokens (TRG, local term).

    .. math::

        L = \frac1n \sum_i KL\big(\sigma(A^t_{i\cdot}) \,\|\, \sigma(A^s_{i\cdot})\big), \qquad
        A_{ij} = e^{-\|t_i - t_j\|^2 / 2\sigma} \;\text{ if } i \in kNN(j)

    The teacher's neighbours serve both graphs, so that both rows have one support; a token is no neighbour of itself.

    Args:
        student_tokens: Shape ``(n, D_s)``, tokens of all images.
        teacher_tokens: Shape ``(n, D_t)``, the same tokens; widths may differ. Gradients never flow into it.
        neighbours: Nearest tokens k of each token; ``n - 1`` if there are fewer. Our choice.
        bandwidth: :math:`\sigma > 0`; ``None`` takes each side's own median of the squared distances, without gradient.
            Our choice.
        unit_length: Scale tokens to length 1, so that raw features do not underflow. Our choice.
        direction: ``"teacher_first"`` is :math:`KL(t \| s)`; ``"student_first"`` is :math:`KL(s \| t)`, as printed.
        support: ``"neighbours"`` takes the softmax over them alone; ``"all"`` over all tokens, others having the value
            0, as printed, which flattens every row.

    Returns:
        A scalar in nats: the mean over tokens that are somebody's neighbour (``"all"``: over all tokens).

    Raises:
        ShapeError: if the numbers of tokens or devices differ.
        ValueError: if an option is out of range.
        NonFiniteError: if the loss is not finite (CPU), naming the tokens.

    Reference:
        Zhang et al., Knowledge Distillation via Token-level Relationship Graph, arXiv:2306.12442 (local graph; as
        reported by others, since we could not read the paper).

    >>> tokens = torch.eye(3)
    >>> token_graph_loss(tokens, tokens, neighbours=1)
    tensor(0.)
    """
    _check_graph(neighbours, bandwidth, direction, support)
    student, teacher = _tokens(student_tokens, teacher_tokens)
    count = len(student)
    if count < 2:
        return student.sum() * 0.0
    with without_autocast(student):
        if unit_length:
            student, teacher = normalize(student, dim=-1), normalize(teacher, dim=-1)
        of_student, of_teacher = _squared_distances(student), _squared_distances(teacher)
        itself = torch.eye(count, dtype=torch.bool, device=student.device)
        nearest = of_teacher.masked_fill(itself, torch.inf).topk(min(neighbours, count - 1), largest=False).indices
        # row i holds the tokens j of which i is a neighbour
        linked = torch.zeros_like(itself).scatter(1, nearest, True).mT
        log_student = _log_rows(of_student, linked, itself, bandwidth, support)
        log_teacher = _log_rows(of_teacher, linked, itself, bandwidth, support)
        first, second = (log_teacher, log_student) if direction == "teacher_first" else (log_student, log_teacher)
        rows = (first.exp() * (first - second)).sum(1)
        loss = reduce_loss(rows, "mean", mask=linked.any(1) if support == "neighbours" else None)
    check_finite(loss, student_tokens=student_tokens, teacher_tokens=teacher_tokens)
    return loss


def token_contrast_loss(
    student_tokens: Tensor,
    teacher_tokens: Tensor,
    *,
    student_projection: Tensor | None = None,
    teacher_projection: Tensor | None = None,
    temperature: float = 0.1,
) -> Tensor:
    r"""Recognise the teacher's token at one's own position among all others (TRG, global term).

    .. math:: L = - \frac1n \sum_i \ln \frac{\exp(\cos(t^s_i, t^t_i)/\tau)}{\sum_j \exp(\cos(t^s_i, t^t_j)/\tau)}

    Args:
        student_tokens: Shape ``(n, D_s)``, tokens of all images.
        teacher_tokens: Shape ``(n, D_t)``, the same tokens. Gradients never flow into it.
        student_projection: Matrix ``(W, D_s)`` to a common width; ``None`` leaves the tokens as they are.
        teacher_projection: Matrix ``(W, D_t)``. It gets a gradient: both projections are learnt.
        temperature: :math:`\tau > 0`.

    Returns:
        A scalar in nats, the mean over tokens (the paper's sum, divided by n). It does not fall to zero.

    Raises:
        ShapeError: if the numbers of tokens, devices or projected widths differ.
        ValueError: if ``temperature <= 0``.
        NonFiniteError: if the loss is not finite (CPU), naming the tokens.

    Reference:
        Zhang et al., arXiv:2306.12442 (global token contrast; as reported by others).

    >>> token_contrast_loss(torch.ones(4, 2), torch.ones(4, 2))  # log 4: all tokens alike
    tensor(1.3863)
    """
    check_positive(temperature, "temperature")
    student, teacher = _tokens(student_tokens, teacher_tokens)
    if not len(student):
        return student.sum() * 0.0
    with without_autocast(student):
        student = student if student_projection is None else linear(student, student_projection.to(student))
        teacher = teacher if teacher_projection is None else linear(teacher, teacher_projection.to(teacher))
        if student.shape != teacher.shape:
            raise ShapeError(
                f"tokens must have one width to be compared by their cosine, got {tuple(student.shape)} of the student "
                f"and {tuple(teacher.shape)} of the teacher: give projections to a common width"
            )
        similarity = normalize(student, dim=-1) @ normalize(teacher, dim=-1).mT / temperature
        loss = cross_entropy(similarity, torch.arange(len(student), device=student.device))
    check_finite(loss, student_tokens=student_tokens, teacher_tokens=teacher_tokens)
    return loss


def inner_context_loss(student_tokens: Tensor, teacher_tokens: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Squared difference of the attention that the tokens of an image pay each other (TRG, inner-image term).

    .. math:: L = \frac{1}{P^2} \| S^t - S^s \|_F^2, \qquad S = \sigma\big(F F^\top / \sqrt{D}\big) \text{ by row}

    Args:
        student_tokens: Tokens of each image, shape ``(N, P, D_s)``.
        teacher_tokens: Shape ``(N, P, D_t)``; widths may differ. Gradients never flow into it.
        reduction: Over images: ``"none"`` gives shape ``(N,)``.

    Returns:
        Mean over the P x P entries of an image.

    Raises:
        ShapeError: if images, tokens or devices differ.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the tokens.

    Reference:
        Zhang et al., arXiv:2306.12442 (inner-image context; as reported by others).

    >>> tokens = torch.eye(3).unsqueeze(0)
    >>> inner_context_loss(tokens, 2 * tokens) > 0
    tensor(True)
    """
    check_reduction(reduction)
    student, teacher = _tokens(student_tokens, teacher_tokens, layout="(N, P, D)")
    with without_autocast(student):
        of_student, of_teacher = _attention(student), _attention(teacher)
        per_image = mse_loss(of_student, of_teacher, reduction="none").flatten(1).mean(1)
    loss = reduce_loss(per_image, reduction)
    check_finite(loss, student_tokens=student_tokens, teacher_tokens=teacher_tokens)
    return loss


class _FromFeatures(nn.Module):
    """What the three modules share: tokens of what the taps give."""

    def __init__(self, patch_size: int, student_prefix_tokens: int, teacher_prefix_tokens: int) -> None:
        super().__init__()
        if patch_size < 1 or student_prefix_tokens < 0 or teacher_prefix_tokens < 0:
            raise ValueError(
                f"patch_size must be 1 or more and prefix tokens 0 or more, got {patch_size}, {student_prefix_tokens} "
                f"and {teacher_prefix_tokens}"
            )
        self.patch_size = patch_size
        self.student_prefix_tokens = student_prefix_tokens
        self.teacher_prefix_tokens = teacher_prefix_tokens

    def tokens(self, student_features: Tensor, teacher_features: Tensor) -> tuple[Tensor, Tensor]:
        return token_pair(
            student_features,
            teacher_features,
            patch_size=self.patch_size,
            student_prefix_tokens=self.student_prefix_tokens,
            teacher_prefix_tokens=self.teacher_prefix_tokens,
        )


class TokenGraphLoss(_FromFeatures):
    """:func:`token_graph_loss` on features: tokens ``(N, P, D)`` of a transformer or maps ``(N, C, H, W)``.

    Args:
        neighbours: Nearest tokens of each token.
        bandwidth: Of the kernel; ``None`` takes the median squared distance.
        unit_length: Scale tokens to length 1.
        direction: ``"teacher_first"`` or ``"student_first"``.
        support: ``"neighbours"`` or ``"all"``.
        tokens_per_image: Tokens drawn of each image in each step, the same of both models; ``None`` takes all. Memory
            grows with the square of batch size times this number.
        patch_size: Side of the patches that maps are cut into.
        student_prefix_tokens: Tokens of the student that are no patches.
        teacher_prefix_tokens: Tokens of the teacher that are no patches.

    Raises:
        ValueError: if an argument is out of range.
    """

    relational = True

    def __init__(
        self,
        *,
        neighbours: int = 16,
        bandwidth: float | None = None,
        unit_length: bool = True,
        direction: Direction = "teacher_first",
        support: Support = "neighbours",
        tokens_per_image: int | None = 8,
        patch_size: int = 1,
        student_prefix_tokens: int = 0,
        teacher_prefix_tokens: int = 0,
    ) -> None:
        super().__init__(patch_size, student_prefix_tokens, teacher_prefix_tokens)
        _check_graph(neighbours, bandwidth, direction, support)
        _check_sample(tokens_per_image)
        self.neighbours = neighbours
        self.bandwidth = bandwidth
        self.unit_length = unit_length
        self.direction: Direction = direction
        self.support: Support = support
        self.tokens_per_image = tokens_per_image

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Draw tokens and compare their graphs."""
        student, teacher = sample_tokens(*self.tokens(student_features, teacher_features), self.tokens_per_image)
        return token_graph_loss(
            student,
            teacher,
            neighbours=self.neighbours,
            bandwidth=self.bandwidth,
            unit_length=self.unit_length,
            direction=self.direction,
            support=self.support,
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return (
            f"neighbours={self.neighbours}, bandwidth={self.bandwidth}, direction={self.direction!r}, "
            f"support={self.support!r}, tokens_per_image={self.tokens_per_image}, patch_size={self.patch_size}"
        )


class TokenContrastLoss(_FromFeatures):
    """:func:`token_contrast_loss` on features, with two projections that are learnt with the student.

    Args:
        student_width: Width D_s of the student's tokens; of a map ``channels * patch_size ** 2``.
        teacher_width: Width D_t of the teacher's tokens.
        width: Common width.
        temperature: A number or a schedule. Default: a cosine from 0.5 to 0.07 over the run, coarse structure first and
            hard negatives later (the paper lets it fall; form and range are our choice). Outside of a distiller call
            :meth:`set_progress`.
        tokens_per_image: Tokens drawn of each image in each step; ``None`` takes all.
        patch_size: Side of the patches that maps are cut into.
        student_prefix_tokens: Tokens of the student that are no patches.
        teacher_prefix_tokens: Tokens of the teacher that are no patches.

    Raises:
        ValueError: if an argument is out of range.
    """

    relational = True

    def __init__(
        self,
        student_width: int,
        teacher_width: int,
        *,
        width: int = 128,
        temperature: float | Schedule | Mapping[str, Any] | None = None,
        tokens_per_image: int | None = 8,
        patch_size: int = 1,
        student_prefix_tokens: int = 0,
        teacher_prefix_tokens: int = 0,
    ) -> None:
        super().__init__(patch_size, student_prefix_tokens, teacher_prefix_tokens)
        _check_sample(tokens_per_image)
        self.temperature = as_schedule(Cosine(0.5, 0.07) if temperature is None else temperature)
        self.tokens_per_image = tokens_per_image
        self.student_projection = nn.Linear(student_width, width, bias=False)
        self.teacher_projection = nn.Linear(teacher_width, width, bias=False)
        # without a run to follow, a schedule stands at its beginning
        self._progress = Progress(step=0, epoch=0, max_steps=1, max_epochs=1)

    def set_progress(self, progress: Progress) -> None:
        """Tell a scheduled temperature where the run stands."""
        self._progress = progress

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Draw tokens, project and contrast them.

        Raises:
            ShapeError: if tokens have another width than the projections.
        """
        student, teacher = sample_tokens(*self.tokens(student_features, teacher_features), self.tokens_per_image)
        sides = (("student", student, self.student_projection), ("teacher", teacher, self.teacher_projection))
        for side, tokens, projection in sides:
            if tokens.shape[-1] != projection.in_features:
                raise ShapeError(
                    f"the {side}'s tokens have width {tokens.shape[-1]}, TokenContrastLoss was built with "
                    f"{side}_width={projection.in_features}: set {side}_width={tokens.shape[-1]} (of a map channels "
                    f"times patch_size squared, here patch_size={self.patch_size})"
                )
        return token_contrast_loss(
            student,
            teacher,
            student_projection=self.student_projection.weight,
            teacher_projection=self.teacher_projection.weight,
            temperature=self.temperature(self._progress),
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"temperature={self.temperature}, tokens_per_image={self.tokens_per_image}, patch_size={self.patch_size}"


class InnerContextLoss(_FromFeatures):
    """:func:`inner_context_loss` on features, over all tokens of an image.

    Args:
        patch_size: Side of the patches that maps are cut into.
        student_prefix_tokens: Tokens of the student that are no patches.
        teacher_prefix_tokens: Tokens of the teacher that are no patches.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over images.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        *,
        patch_size: int = 1,
        student_prefix_tokens: int = 0,
        teacher_prefix_tokens: int = 0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(patch_size, student_prefix_tokens, teacher_prefix_tokens)
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Compare the context of the tokens."""
        return inner_context_loss(*self.tokens(student_features, teacher_features), reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"patch_size={self.patch_size}, reduction={self.reduction!r}"


def _tokens(student: Tensor, teacher: Tensor, layout: str = "(n, D)") -> tuple[Tensor, Tensor]:
    axes = layout.count(",") + 1
    for tokens, name in ((student, "student_tokens"), (teacher, "teacher_tokens")):
        check_ndim(tokens, name, layout, at_least=axes, at_most=axes)
        check_floating(tokens, name)
    if student.shape[:-1] != teacher.shape[:-1]:
        raise ShapeError(
            f"student_tokens and teacher_tokens must be the same tokens {layout}, got {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}: bring both to one grid with token_pair"
        )
    check_same_device(student, teacher, "student_tokens", "teacher_tokens")
    return in_one_precision(at_least_float32(student), at_least_float32(teacher.detach()))


def _squared_distances(tokens: Tensor) -> Tensor:
    gram = tokens @ tokens.mT
    squares = gram.diagonal()
    return (squares.unsqueeze(0) + squares.unsqueeze(1) - 2 * gram).clamp_min(0.0)


def _log_rows(squared: Tensor, linked: Tensor, itself: Tensor, bandwidth: float | None, support: Support) -> Tensor:
    """Log-softmax of each row of the graph; 0 where the row has no entry."""
    if bandwidth is None:
        sigma = squared.detach()[~itself].median().clamp_min(torch.finfo(squared.dtype).eps)
    else:
        sigma = squared.new_tensor(bandwidth)
    kernel = torch.exp(-squared / (2 * sigma))
    if support == "all":
        return log_softmax(torch.where(linked, kernel, torch.zeros_like(kernel)), dim=1)
    # a finite floor, since a row without any entry would give NaN; what it leaves is masked out
    rows = log_softmax(kernel.masked_fill(~linked, torch.finfo(kernel.dtype).min / 2), dim=1)
    return rows.masked_fill(~linked, 0.0)


def _attention(tokens: Tensor) -> Tensor:
    return softmax(tokens @ tokens.mT / tokens.shape[-1] ** 0.5, dim=-1)


def _check_graph(neighbours: int, bandwidth: float | None, direction: str, support: str) -> None:
    if neighbours < 1:
        raise ValueError(f"neighbours must be 1 or more, got {neighbours}")
    if bandwidth is not None:
        check_positive(bandwidth, "bandwidth")
    if direction not in ("teacher_first", "student_first"):
        raise ValueError(f"direction must be 'teacher_first' or 'student_first', got {direction!r}")
    if support not in ("neighbours", "all"):
        raise ValueError(f"support must be 'neighbours' or 'all', got {support!r}")


def _check_sample(tokens_per_image: int | None) -> None:
    if tokens_per_image is not None and tokens_per_image < 1:
        raise ValueError(f"tokens_per_image must be 1 or more, or None for all, got {tokens_per_image}")
