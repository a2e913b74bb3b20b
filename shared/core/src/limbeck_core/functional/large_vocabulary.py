"""Losses on token distributions that are too large to hold: the last linear layer and the divergence in one.

A language model's logits are its last hidden states times a weight of V rows. For 8192 tokens and 128,000 ids they take
4 GB in float32, and a divergence between two models holds several arrays of that size. Here the tokens go through in
chunks: each chunk's logits, loss and gradient are computed, added up and forgotten.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from limbeck_core.checks import (
    check_finite,
    check_floating,
    check_ndim,
    check_positive,
    check_same_device,
)
from limbeck_core.errors import LimbeckError, ShapeError
from limbeck_core.functional.distributions import check_beta, shared_vocabulary
from limbeck_core.functional.precision import all_finite, reads_at_once
from limbeck_core.functional.reduction import Reduction, blank_masked, check_mask, check_reduction, reduce_loss

_TOKENS_PER_CHUNK_ON_CPU = 256  # fastest by tools/bench_large_vocabulary.py, at 1/16 of the memory of whole logits
_TOKENS_PER_CHUNK = 1024  # accelerators want products of many rows; not measured


def linear_jsd_loss(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    student_weight: Tensor,
    teacher_weight: Tensor,
    *,
    student_bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    beta: float = 0.5,
    temperature: float = 1.0,
    vocabulary_size: int | None = None,
    chunk_size: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Generalised Jensen-Shannon divergence of two language models from their last hidden states.

    .. math:: L = JSD_\beta\big(\sigma((h_s W_s^\top + b_s)/\tau), \sigma((h_t W_t^\top + b_t)/\tau)\big)

    The value and the gradients are those of :func:`~limbeck_core.functional.generalized_jsd_loss` on the logits,
    without ever holding the logits of more than ``chunk_size`` tokens. :math:`\beta = 0` is the forward divergence,
    :math:`\beta = 1` the reverse one; bans (a bias of minus infinity) and vocabularies of different size are treated as
    there. Models that scale or cap their logits after the linear layer need that function.

    The forward pass computes the gradients too (for ``"none"`` the backward pass does, from the logits once more) and
    holds the weight's gradient until the backward pass. Frozen weights cost nothing of this. The gradient of the weight
    is added up in float32 or better and given in the weight's own type; under autocast the products run in autocast's
    type (those of the gradients in float32 where that is float16, for no loss scale protects them yet), the divergence
    in float32. The gradients cannot be differentiated again.

    Args:
        student_hidden: Inputs of the student's last linear layer, shape ``(..., H_s)``, for example ``(B, L, H_s)``.
        teacher_hidden: Inputs of the teacher's, shape ``(..., H_t)``. Gradients never flow into the teacher.
        student_weight: The student's layer, shape ``(V_s, H_s)``.
        teacher_weight: The teacher's layer, shape ``(V_t, H_t)``.
        student_bias: Shape ``(V_s,)``.
        teacher_bias: Shape ``(V_t,)``.
        beta: Weight :math:`\beta` of the teacher in the mixture, from 0 to 1.
        temperature: Softness :math:`\tau > 0` of both distributions (unitless).
        vocabulary_size: How many ids, counted from 0, are real; later ones are padding for both models. Default: the
            smaller V.
        chunk_size: Tokens per chunk. Default: 256 on a CPU, 1024 elsewhere.
        mask: Tokens that count, shape ``(...)`` without the hidden axis; boolean or weights. Default: all. Dropped
            tokens are not computed.
        reduction: ``"none"`` gives one value per token, shape ``(...)``; ``"mean"`` is over the counted tokens,
            ``"sum"`` over the same.

    Returns:
        Loss in nats, not scaled by :math:`\tau^2`.

    Raises:
        ShapeError: if shapes, types or devices do not fit together.
        ValueError: if ``beta`` is outside ``[0, 1]``, ``temperature`` or ``chunk_size`` is not above 0,
            ``vocabulary_size`` is larger than a V, or ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the tensor that holds NaN or infinity.
        LimbeckError: in a backward pass with ``create_graph=True``.

    Reference:
        Agarwal et al., On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes,
        arXiv:2306.13649, section 2, for the divergence. That the gradient of a loss on logits can be had chunk by chunk
        in the forward pass is shown by Hsu et al., Liger Kernel, arXiv:2410.10989.

    >>> import torch
    >>> hidden, weight = torch.ones(3, 2), torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    >>> linear_jsd_loss(hidden, hidden, weight, weight)
    tensor(0.)
    """
    student = _checked(student_hidden, student_weight, student_bias, "student")
    teacher = _checked(teacher_hidden, teacher_weight, teacher_bias, "teacher")
    tokens = student_hidden.shape[:-1]
    if teacher_hidden.shape[:-1] != tokens:
        raise ShapeError(
            f"student_hidden and teacher_hidden must have one shape but for the last axis, got "
            f"{tuple(student_hidden.shape)} and {tuple(teacher_hidden.shape)}: feed both models the same tokens"
        )
    check_same_device(student_hidden, teacher_hidden, "student_hidden", "teacher_hidden")
    check_beta(beta)
    check_positive(temperature, "temperature")
    check_reduction(reduction)
    shared = shared_vocabulary(student_weight.shape[0], teacher_weight.shape[0], vocabulary_size)
    if chunk_size is None:
        chunk_size = _TOKENS_PER_CHUNK_ON_CPU if student_hidden.device.type == "cpu" else _TOKENS_PER_CHUNK
    check_positive(chunk_size, "chunk_size")
    student, teacher = student.first(shared), teacher.first(shared).detached()
    kept = None
    if mask is not None:
        check_mask(mask, tokens)
        mask = mask.flatten()
        if torch.compiler.is_compiling():  # a trace cannot depend on how many tokens count
            student, teacher = student.blanked(mask), teacher.blanked(mask)
        else:
            kept = mask.nonzero().flatten()
            student, teacher = student.only(kept), teacher.only(kept)
    token_weight = None
    if reduction != "none":
        token_weight = _token_weights(student.hidden, mask if kept is None or mask is None else mask[kept], reduction)
    product_type, with_gradient = _autocast_type(student_hidden), torch.is_grad_enabled()
    task = _Task(teacher, token_weight, beta, temperature, chunk_size, product_type, with_gradient)
    loss: Tensor = _LinearDivergence.apply(*student, task)
    if reduction == "none":
        if kept is not None and mask is not None:
            loss = loss.new_zeros(mask.shape).index_copy(0, kept, loss)
        loss = reduce_loss(loss, "none", mask=mask).reshape(tokens)
    named = {"student_bias": student_bias, "teacher_bias": teacher_bias}
    check_finite(
        loss,
        student_hidden=student_hidden,
        teacher_hidden=teacher_hidden,
        student_weight=student_weight,
        teacher_weight=teacher_weight,
        **{name: bias for name, bias in named.items() if bias is not None},
    )
    return loss


class _Layer(NamedTuple):
    """The last linear layer of a model and what goes into it, tokens flattened."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None

    def first(self, shared: int) -> _Layer:
        """Leave only the first ``shared`` ids."""
        if self.weight.shape[0] == shared:
            return self
        return self._replace(weight=self.weight[:shared], bias=None if self.bias is None else self.bias[:shared])

    def detached(self) -> _Layer:
        return _Layer(*(None if part is None else part.detach() for part in self))  # type: ignore[arg-type]

    def only(self, kept: Tensor) -> _Layer:
        return self._replace(hidden=self.hidden[kept])

    def blanked(self, mask: Tensor) -> _Layer:
        return self._replace(hidden=blank_masked(self.hidden, mask, dim=-1))

    def at(self, chunk: slice) -> _Layer:
        return self._replace(hidden=self.hidden[chunk])

    def logits(self, *, out: Tensor) -> None:
        if out.dtype != self.hidden.dtype:
            out.copy_(linear(self.hidden, self.weight, self.bias))
        elif self.bias is None:
            torch.mm(self.hidden, self.weight.t(), out=out)
        else:
            torch.addmm(self.bias, self.hidden, self.weight.t(), out=out)

    def in_type(self, dtype: torch.dtype | None) -> _Layer:
        if dtype is None:
            return self
        return _Layer(*(None if part is None else part.to(dtype) for part in self))  # type: ignore[arg-type]


class _Task(NamedTuple):
    """All of a call that no gradient flows into."""

    teacher: _Layer
    token_weight: Tensor | None
    beta: float
    temperature: float
    chunk_size: int
    product_type: torch.dtype | None  # autocast's, or None: that of the tensors
    with_gradient: bool


class _LinearDivergence(torch.autograd.Function):
    """Sum of weighted divergences with its gradients from the forward pass; without weights, one value per token."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, task: _Task) -> Tensor:
        ctx.task = task if task.token_weight is None else None  # all done by the backward pass: hold nothing for it
        ctx.needs = tuple(ctx.needs_input_grad[:3]) if task.with_gradient else (False, False, False)
        student = _Layer(hidden, weight, bias)
        ctx.types = (hidden.dtype, weight.dtype, weight.dtype if bias is None else bias.dtype)
        if task.token_weight is None:
            ctx.save_for_backward(*student)
            return _sweep(student, task, None, (False, False, False))[0]
        values, gradients = _sweep(student, task, task.token_weight, ctx.needs)
        ctx.save_for_backward(*gradients)
        return (values * task.token_weight).sum()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise LimbeckError(
                "linear_jsd_loss cannot be differentiated twice: call backward without create_graph=True, or use "
                "generalized_jsd_loss on the logits"
            )
        if ctx.task is not None:
            gradients: tuple[Tensor | None, ...] = _sweep(_Layer(*ctx.saved_tensors), ctx.task, outer[0], ctx.needs)[1]
        else:
            # never in place: a second backward pass over a retained graph must find them as they are
            gradients = tuple(None if g is None else g * outer[0].to(g.dtype) for g in ctx.saved_tensors)
        return (*(None if g is None else g.to(dtype) for g, dtype in zip(gradients, ctx.types, strict=True)), None)


def _sweep(
    student: _Layer, task: _Task, outer: Tensor | None, needs: tuple[bool, bool, bool]
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None, Tensor | None]]:
    """Go through the tokens in chunks.

    Args:
        student: The student's layer.
        task: The teacher's layer and the hyper-parameters.
        outer: Derivative of the result by each token's value; read only if a gradient is needed.
        needs: Which of the student's hidden states, weight and bias need a gradient.

    Returns:
        One value per token, and the gradients (``None`` where not needed).
    """
    types = (student.hidden.dtype, student.weight.dtype, student.weight.dtype)
    student, teacher = student.in_type(task.product_type), task.teacher.in_type(task.product_type)
    exact = torch.promote_types(torch.promote_types(student.hidden.dtype, teacher.hidden.dtype), torch.float32)
    (count, _), (vocabulary, _) = student.hidden.shape, student.weight.shape
    values = student.hidden.new_zeros(count, dtype=exact)
    # derivatives by single logits lie below what float16 resolves, and no loss scale has reached them yet
    products = student.in_type(exact) if any(needs) and student.hidden.dtype == torch.float16 else student
    of_hidden = torch.zeros_like(student.hidden, dtype=exact) if needs[0] else None
    of_weight = torch.zeros_like(student.weight, dtype=exact) if needs[1] else None
    of_bias = student.weight.new_zeros(vocabulary, dtype=exact) if needs[2] else None
    scale = (1 - task.beta if 0 < task.beta < 1 else 1) / task.temperature
    # one workspace for all chunks: allocating arrays of this size costs as much as filling them
    arrays = 3 if task.beta in (0, 1) else 5
    workspace = student.hidden.new_empty(arrays, min(task.chunk_size, count), vocabulary, dtype=exact)
    with torch.autocast(student.hidden.device.type, enabled=False):
        for start in range(0, count, task.chunk_size):
            chunk = slice(start, min(start + task.chunk_size, count))
            slope, chunk_values = _chunk(student.at(chunk), teacher.at(chunk), task, workspace, any(needs))
            values[chunk] = chunk_values
            if slope is None or outer is None:
                continue
            # each token's factor goes onto the narrow side of the products
            factor = (outer[chunk] * scale).to(exact).unsqueeze(1)
            if of_bias is not None:
                of_bias += (slope.t() @ factor).squeeze(1)
            slope, hidden = slope.to(products.hidden.dtype), products.hidden[chunk]
            if of_hidden is not None:
                of_hidden[chunk] = (slope @ products.weight) * factor
            if of_weight is not None and exact == hidden.dtype:
                of_weight.addmm_(slope.t(), hidden * factor)
            elif of_weight is not None:
                of_weight += slope.t() @ (hidden * factor).to(hidden.dtype)
    gradients = tuple(
        None if gradient is None else gradient.to(_held_type(dtype))
        for gradient, dtype in zip((of_hidden, of_weight, of_bias), types, strict=True)
    )
    return values, gradients  # type: ignore[return-value]


def _held_type(dtype: torch.dtype) -> torch.dtype:
    """The type of a gradient between the forward pass and the backward pass, where a loss scale may reach it."""
    return torch.float32 if dtype == torch.float16 else dtype


def _chunk(
    student: _Layer, teacher: _Layer, task: _Task, workspace: Tensor, with_slope: bool
) -> tuple[Tensor | None, Tensor]:
    """Return the derivative of each token's divergence by the student's softened logits, and the divergence.

    The derivative lies in ``workspace`` and lasts until the next chunk.
    """
    arrays = workspace[:, : student.hidden.shape[0]].unbind()
    guards = (False, True) if reads_at_once(workspace) else (True,)
    for guarded in guards:
        for layer, log_probabilities in ((student, arrays[0]), (teacher, arrays[1])):
            layer.logits(out=arrays[2])
            if task.temperature != 1:
                arrays[2].div_(task.temperature)
            torch.log_softmax(arrays[2], dim=-1, out=log_probabilities)
        slope, values = _divergence(arrays, task.beta, guarded=guarded, with_slope=with_slope)
        if all_finite(values):
            break
    return slope, values


def _divergence(
    arrays: tuple[Tensor, ...], beta: float, *, guarded: bool, with_slope: bool
) -> tuple[Tensor | None, Tensor]:
    r"""Return the derivative by the student's logits and the divergence, from log-probabilities.

    With :math:`s, t` the softened distributions and :math:`m` their mixture the derivative is :math:`s - t` forward,
    :math:`s (\log s/t - KL)` in reverse, and :math:`s (\log s/m - KL(s \| m))` between, there without its factor
    :math:`1 - \beta`; what goes through :math:`m` cancels.

    Args:
        arrays: The student's and the teacher's log-probabilities, and one array to work in, or three between the ends.
            All are overwritten.
        beta: Weight of the teacher.
        guarded: Keep 0 * log 0 at zero; costs two more passes.
        with_slope: Whether the derivative is wanted.
    """
    log_student, log_teacher, spare, *more = arrays
    if beta in (0, 1):
        p = torch.exp(log_teacher if beta == 0 else log_student, out=spare)
        ratio = torch.sub(log_student, log_teacher, out=log_teacher)
        if guarded:
            ratio.masked_fill_(p == 0, 0.0)
        if beta == 0:
            values = 0.0 - ratio.mul_(p).sum(-1)
            return log_student.exp_().sub_(p) if with_slope else None, values
        values = torch.mul(p, ratio, out=log_student).sum(-1)
        return ratio.sub_(values.unsqueeze(1)).mul_(p) if with_slope else None, values
    tiny = torch.finfo(log_student.dtype).tiny
    if guarded:  # a finite floor far below the log of the smallest number
        log_student.clamp_min_(10 * math.log(tiny))
        log_teacher.clamp_min_(10 * math.log(tiny))
    student, teacher = torch.exp(log_student, out=spare), torch.exp(log_teacher, out=more[0])
    log_mixture = torch.lerp(student, teacher, beta, out=more[1]).clamp_min_(tiny).log_()
    ratio = log_student.sub_(log_mixture)
    of_teacher = log_teacher.sub_(log_mixture).mul_(teacher).sum(-1)
    of_student = torch.mul(student, ratio, out=log_mixture).sum(-1)
    values = torch.lerp(of_student, of_teacher, beta)
    return ratio.sub_(of_student.unsqueeze(1)).mul_(student) if with_slope else None, values


def _checked(hidden: Tensor, weight: Tensor, bias: Tensor | None, side: str) -> _Layer:
    """Check one model's layer and flatten its tokens."""
    check_ndim(hidden, f"{side}_hidden", "(..., H) with at least one leading axis", at_least=2)
    check_ndim(weight, f"{side}_weight", "(V, H)", at_least=2, at_most=2)
    check_floating(hidden, f"{side}_hidden")
    check_floating(weight, f"{side}_weight")
    if hidden.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"{side}_hidden and {side}_weight must have one width, got {tuple(hidden.shape)} and "
            f"{tuple(weight.shape)}: pass the inputs and the weight (V, H) of one linear layer"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(
            f"{side}_bias must have shape {tuple(weight.shape[:1])}, one entry per row of {side}_weight, "
            f"got {tuple(bias.shape)}"
        )
    check_same_device(hidden, weight, f"{side}_hidden", f"{side}_weight")
    for part, name in ((weight, "weight"), (bias, "bias")):
        if part is not None and part.dtype != hidden.dtype and _autocast_type(hidden) is None:
            raise ShapeError(
                f"{side}_hidden is {hidden.dtype} and {side}_{name} {part.dtype}: convert one, or run under autocast"
            )
    return _Layer(hidden.flatten(0, -2), weight, bias)


def _autocast_type(tensor: Tensor) -> torch.dtype | None:
    """The type in which autocast would multiply this tensor; ``None`` where it would leave it as it is."""
    kind = tensor.device.type
    if not torch.is_autocast_enabled(kind) or tensor.dtype == torch.float64:
        return None
    return torch.get_autocast_dtype(kind)


def _token_weights(hidden: Tensor, mask: Tensor | None, reduction: Reduction) -> Tensor:
    """Return the factor of each token in the reduced loss."""
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    weights = hidden.new_ones(hidden.shape[0], dtype=dtype) if mask is None else mask.to(dtype)
    if reduction == "sum":
        return weights
    total = weights.sum()
    return weights / torch.where(total > 0, total, torch.ones_like(total))
