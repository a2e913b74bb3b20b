"""COMODO's loss: the student reproduces what a clip's video is like, measured against a queue of earlier clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from limbeck_core.checks import check_floating, check_ndim, check_positive, check_same_device, explain_non_finite
from limbeck_core.errors import LimbeckError, ShapeError
from limbeck_core.functional.precision import all_finite, at_least_float32, reads_at_once, without_autocast
from limbeck_core.functional.reduction import Reduction, check_reduction, reduce_loss

_CELLS = 1 << 22  # logits held at once: 16 MiB in float32, whatever the length of the queue


def similarity_queue_loss(
    student_embeddings: Tensor,
    teacher_embeddings: Tensor,
    queue: Tensor,
    *,
    student_temperature: float = 0.05,
    teacher_temperature: float = 0.1,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy between similarity distributions over a queue and the batch itself.

    .. math:: Q' = [Q; t], \quad p = \sigma(t Q'^\top / \tau_t), \quad
              L_i = -\sum_j p_{ij} \log \sigma\big(\hat s Q'^\top / \tau_s\big)_{ij}, \quad \hat s = s / |s|

    The clip's own teacher row is one of the candidates. The gradient is computed with the value, so that nothing of the
    size of the queue waits for the backward pass: the queue may be overwritten in place right after.

    Args:
        student_embeddings: Shape ``(N, D)``; brought to unit length here.
        teacher_embeddings: Shape ``(N, D)``, of unit length (not enforced). Gradients never flow into it.
        queue: Rows of unit length from earlier clips, ``(M, D)``; M may be 0. Order does not matter. No gradient.
        student_temperature: Softness :math:`\tau_s > 0`. The code has a sharper student (0.05) than teacher.
        teacher_temperature: Softness :math:`\tau_t > 0`.
        reduction: ``"none"`` gives one value a clip, ``(N,)``.

    Returns:
        The loss in nats, never below the entropy of the teacher's distribution.

    Raises:
        ShapeError: if shapes, dtypes or devices do not fit.
        NonFiniteError: if the loss is not finite (CPU), naming the embeddings that hold NaN or infinity.
        ValueError: if a temperature is not above 0 or ``reduction`` is unknown.
        LimbeckError: if it is differentiated twice.

    Reference:
        Chen et al., COMODO: Cross-Modal Video-to-IMU Distillation for Efficient Egocentric Human Activity Recognition,
        arXiv:2503.07259, section on cross-modal self-supervised distillation; Fang et al., SEED, arXiv:2101.04731.

    >>> a = torch.tensor([[1.0, 0.0]])
    >>> similarity_queue_loss(a, a, torch.zeros(0, 2))  # one candidate: nothing to tell apart
    tensor(0.)
    """
    _check(student_embeddings, teacher_embeddings, queue)
    check_positive(student_temperature, "student_temperature")
    check_positive(teacher_temperature, "teacher_temperature")
    check_reduction(reduction)
    dtype = torch.promote_types(at_least_float32(student_embeddings).dtype, at_least_float32(teacher_embeddings).dtype)
    if len(queue):
        dtype = torch.promote_types(dtype, at_least_float32(queue).dtype)
    with without_autocast(student_embeddings):
        student = normalize(student_embeddings.to(dtype), dim=1)
        teacher, rows = teacher_embeddings.detach().to(dtype), queue.detach().to(dtype)
        each: Tensor = _QueueCrossEntropy.apply(student, teacher, rows, student_temperature, teacher_temperature)
    loss = reduce_loss(each, reduction)
    if reads_at_once(each) and not all_finite(each):
        explain_non_finite(student_embeddings, "student_embeddings")
        explain_non_finite(teacher_embeddings, "teacher_embeddings")
        explain_non_finite(queue, "queue")
    return loss


class SimilarityQueueLoss(nn.Module):
    """Module twin of :func:`similarity_queue_loss`; owns the queue and normalises the teacher's rows.

    The queue is a ring: a step writes its rows over the oldest ones and moves nothing. It is a buffer, so it is saved,
    moved and resumed with the match. It fills while training goes on, or before the first step by
    :class:`~limbeck_audiovideo.comodo.hooks.FillQueue`. With several ranks the rows of all of them enter in global
    order, so that every rank holds the queue of one process with the whole batch. In evaluation mode nothing enters.

    Args:
        embedding_dim: Numbers D of an embedding.
        queue_size: Rows N that are kept, 1 or more. Published runs have 1024 to 16384, and 256 to 65536 differ by less
            than a point of accuracy.
        student_temperature: Softness of the student's distribution, above 0.
        teacher_temperature: Softness of the teacher's, above 0.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over clips.

    Raises:
        ValueError: if an argument is out of range.
    """

    queue: Tensor
    seen: Tensor
    relational = True

    def __init__(
        self,
        embedding_dim: int,
        queue_size: int,
        *,
        student_temperature: float = 0.05,
        teacher_temperature: float = 0.1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if embedding_dim < 1 or queue_size < 1:
            raise ValueError(f"embedding_dim and queue_size must be 1 or more, got {embedding_dim} and {queue_size}")
        check_positive(student_temperature, "student_temperature")
        check_positive(teacher_temperature, "teacher_temperature")
        check_reduction(reduction)
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.reduction = reduction
        self.register_buffer("queue", torch.zeros(queue_size, embedding_dim))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))  # rows that ever entered

    @property
    def filled(self) -> int:
        """Rows that hold a clip."""
        return min(int(self.seen), len(self.queue))

    def rows(self) -> Tensor:
        """Return a copy of the rows, the oldest first, ``(filled, D)``."""
        filled, size = self.filled, len(self.queue)
        if filled < size:
            return self.queue[:filled].clone()
        return self.queue.roll(-(int(self.seen) % size), 0)

    @torch.no_grad()
    def enqueue(self, teacher_embeddings: Tensor) -> None:
        """Write rows of unit length over the oldest ones.

        Args:
            teacher_embeddings: Shape ``(N, D)``; normalised here. Of more rows than the queue has, the last enter.

        Raises:
            ShapeError: if the width is another one.
            NonFiniteError: if they hold NaN or infinity (CPU); the queue is left as it was.
        """
        self._check_width(teacher_embeddings, "teacher_embeddings")
        if reads_at_once(teacher_embeddings):
            explain_non_finite(teacher_embeddings, "teacher_embeddings")
        self.write(normalize(teacher_embeddings.to(self.queue.dtype), dim=1))

    @torch.no_grad()
    def write(self, rows: Tensor) -> None:
        """Let rows enter as they are, unnormalised and unchecked, shape ``(N, D)``."""
        size, entered = len(self.queue), len(rows)
        head = (int(self.seen) + max(entered - size, 0)) % size
        rows = rows[-size:]
        first = min(size - head, len(rows))
        self.queue[head : head + first].copy_(rows[:first])
        self.queue[: len(rows) - first].copy_(rows[first:])
        self.seen += entered

    def forward(self, student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
        """Compare the batch, then let its teacher rows enter the queue; shapes as in the function."""
        self._check_width(student_embeddings, "student_embeddings")
        self._check_width(teacher_embeddings, "teacher_embeddings")
        with torch.no_grad():
            teacher = normalize(at_least_float32(teacher_embeddings.detach()), dim=1)
        loss = similarity_queue_loss(
            student_embeddings,
            teacher,
            self.queue[: self.filled],
            student_temperature=self.student_temperature,
            teacher_temperature=self.teacher_temperature,
            reduction=self.reduction,
        )
        if self.training:
            self.write(teacher.to(self.queue.dtype))
        return loss

    def _check_width(self, embeddings: Tensor, name: str) -> None:
        check_ndim(embeddings, name, "(N, D)", at_least=2, at_most=2)
        if embeddings.shape[1] != self.queue.shape[1]:
            raise ShapeError(
                f"{name} must have embedding_dim={self.queue.shape[1]} numbers a clip, got shape "
                f"{tuple(embeddings.shape)}: project to that width with an adapter of the match, or set embedding_dim"
            )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return (
            f"embedding_dim={self.queue.shape[1]}, queue_size={len(self.queue)}, student_temperature="
            f"{self.student_temperature}, teacher_temperature={self.teacher_temperature}, reduction={self.reduction!r}"
        )


class _QueueCrossEntropy(torch.autograd.Function):
    """Cross-entropy over the rows of queue and batch, with the gradient of the student's rows from the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        queue: Tensor,
        student_temperature: float,
        teacher_temperature: float,
    ) -> Tensor:
        values, slope = student.new_zeros(len(student)), torch.zeros_like(student)
        wanted = ctx.needs_input_grad[0]
        candidates = [part for part in (queue, teacher) if len(part)]
        step = max(1, _CELLS // max(len(queue) + len(teacher), 1))
        for start in range(0, len(student), step):
            part = slice(start, start + step)
            target = torch.softmax(_products(teacher[part] / teacher_temperature, candidates), dim=1)
            log_student = torch.log_softmax(_products(student[part] / student_temperature, candidates), dim=1)
            values[part] = -(target * log_student).sum(1)
            if wanted:
                excess = log_student.exp_().sub_(target).div_(student_temperature)
                begin = 0
                for rows in candidates:
                    slope[part] += excess[:, begin : begin + len(rows)] @ rows
                    begin += len(rows)
        ctx.save_for_backward(slope)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise LimbeckError(
                "similarity_queue_loss cannot be differentiated twice: call backward without create_graph=True"
            )
        (slope,) = ctx.saved_tensors
        return slope * gradient.unsqueeze(1), None, None, None, None


def _products(vectors: Tensor, candidates: Sequence[Tensor]) -> Tensor:
    """Products with the rows of several arrays side by side; the arrays themselves are not joined."""
    found = vectors.new_empty(len(vectors), sum(map(len, candidates)))
    begin = 0
    for rows in candidates:
        torch.mm(vectors, rows.T, out=found[:, begin : begin + len(rows)])
        begin += len(rows)
    return found


def _check(student: Tensor, teacher: Tensor, queue: Tensor) -> None:
    for tensor, name in ((student, "student_embeddings"), (teacher, "teacher_embeddings"), (queue, "queue")):
        check_ndim(tensor, name, "(N, D)", at_least=2, at_most=2)
        check_floating(tensor, name)
        check_same_device(student, tensor, "student_embeddings", name)
    if student.shape != teacher.shape:
        raise ShapeError(
            f"student_embeddings and teacher_embeddings must have one shape, got {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}: feed both models one batch, and project to one width with an adapter of the match"
        )
    if queue.shape[1] != student.shape[1]:
        raise ShapeError(
            f"queue must hold rows as wide as student_embeddings, got {tuple(queue.shape)} for {tuple(student.shape)}"
        )


__all__ = ["SimilarityQueueLoss", "similarity_queue_loss"]
