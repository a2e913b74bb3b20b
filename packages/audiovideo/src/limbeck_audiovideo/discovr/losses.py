"""Semantic cluster distillation: a video student predicts the clusters of an image teacher's tokens."""

from __future__ import annotations

import warnings
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from limbeck_core.checks import check_finite, check_floating, check_ndim, check_positive, check_same_device
from limbeck_core.errors import LimbeckError, ShapeError
from limbeck_core.functional import sinkhorn_assignment
from limbeck_core.functional.precision import at_least_float32, in_one_precision, without_autocast
from limbeck_core.functional.reduction import Reduction, check_mask, check_reduction, reduce_loss
from limbeck_core.functional.relations import unit_vectors

Assign = Literal["hard", "soft"]
Subsample = Literal["frames", "tokens"]
_ROWS = 1024  # tokens whose scores are held at once, beside the one matrix that Sinkhorn needs
_STD_FLOOR = 1e-6  # reference; keeps a black sector of ultrasound from dividing by zero


def cluster_distillation_loss(
    student_tokens: Tensor,
    teacher_tokens: Tensor,
    prototypes: Tensor,
    *,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 10,
    assign: Assign = "hard",
    symmetric: bool = False,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy of the student's scores of prototypes against the teacher's balanced assignment (DISCOVR's SCD).

    .. math:: L = -\frac1N \sum_n \sum_k q_{nk} \log \operatorname{softmax}_k\Big(
        \frac{\bar y_n \cdot c_k}{\tau}\Big), \quad q = \operatorname{Sinkhorn}\big(\bar z C^\top\big)

    with tokens of length 1, :math:`\bar y` the student's and :math:`\bar z` the teacher's. All tokens of the batch are
    assigned together, so that all prototypes are used alike.

    One matrix of scores is held, ``N * K`` numbers (300 MB for 16 clips of 1568 tokens and 3000 prototypes in float32),
    and overwritten by Sinkhorn; the student's scores come in pieces, and their gradient with them.
    ``reduction="none"`` keeps a second matrix for the backward pass.

    Args:
        student_tokens: Predicted tokens, ``(B, N, D)`` or ``(N, D)``. Normalised here.
        teacher_tokens: Tokens of the same places, same shape. Normalised here. Gradients never flow into it.
        prototypes: Shape ``(K, D)``, rows of length 1; taken as they are. They get a gradient from the student's scores
            alone.
        temperature: Softness :math:`\tau > 0` of the student's distribution (unitless).
        epsilon: Softness of the assignment, see :func:`~limbeck_core.functional.sinkhorn_assignment`.
        iterations: Of the assignment.
        assign: ``"hard"`` takes the best prototype of each token, as the released code does; ``"soft"`` the whole
            assignment, as the paper describes.
        symmetric: Add the cross-entropy of the teacher's scores against the student's assignment. Neither tokens nor
            prototypes get a gradient from it in the released code, and they get none here: it doubles the work for a
            number in the log.
        mask: Tokens that count (the hidden ones, for example), ``(B, N)`` or ``(N,)``, boolean or weights; all are
            assigned. Default: all count, as in the released code.
        reduction: ``"none"`` gives one value a token, ``(B, N)`` or ``(N,)``; ``"mean"`` is over those that count.

    Returns:
        Loss in nats. The entropy of a soft assignment is not subtracted.

    Raises:
        ShapeError: if shapes or devices do not fit.
        ValueError: if a number is out of range, or ``assign`` or ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the tokens that hold NaN or infinity.

    Reference:
        Mishra et al., Self-supervised Learning of Echocardiographic Video Representations via Online Cluster
        Distillation, arXiv:2506.11777, semantic cluster distillation; after SIGMA (Salehi et al., arXiv:2407.15447).

    >>> import torch
    >>> tokens, prototypes = torch.eye(2), torch.eye(2)
    >>> cluster_distillation_loss(tokens, tokens, prototypes, temperature=1.0)  # ln(1 + e^-1)
    tensor(0.3133)
    """
    check_reduction(reduction)
    check_positive(temperature, "temperature")
    if assign not in get_args(Assign):
        raise ValueError(f"assign must be 'hard' or 'soft', got {assign!r}")
    _check_tokens(student_tokens, teacher_tokens, prototypes)
    if mask is not None:
        check_mask(mask, student_tokens.shape[:-1])
    options: dict[str, Any] = {"temperature": temperature, "mask": mask, "reduction": reduction}
    with without_autocast(student_tokens):
        student, centres = in_one_precision(student_tokens, prototypes)
        teacher = unit_vectors(teacher_tokens.detach()).to(centres.dtype)
        student = unit_vectors(student)
        target = _assignment(teacher, centres, epsilon, iterations, assign)
        loss = _cross_entropy(student, centres, target, **options)
        if symmetric:
            del target  # two matrices of scores would not fit beside each other
            target = _assignment(student, centres, epsilon, iterations, assign)
            with torch.no_grad():
                other = _cross_entropy(teacher, centres, target, **options)
            loss = loss + other
    check_finite(loss, student_tokens=student_tokens, teacher_tokens=teacher_tokens)
    return loss


def standardized(tokens: Tensor) -> Tensor:
    """Give each channel of a picture mean 0 and spread 1 over its patches.

    Args:
        tokens: ``(..., P, D)``; P is the number of patches of one picture.

    Returns:
        Float32 or better, same shape. Channels that are alike everywhere (a black sector) become zeros.

    Reference:
        The released code divides by the standard deviation of the sample (P - 1) plus 1e-6; so does this.
    """
    tokens = at_least_float32(tokens)
    patches = tokens.shape[-2]
    centred = tokens - tokens.mean(-2, keepdim=True)
    # the deviation of one patch alone is nothing, and not 0 / 0
    spread = (centred.square().sum(-2, keepdim=True) / max(patches - 1, 1)).sqrt()
    return centred / (spread + _STD_FLOOR)


class ClusterDistillationLoss(nn.Module):
    """Module twin of :func:`cluster_distillation_loss`; owns the prototypes and prepares the image branch's tokens.

    The teacher's tokens are standardised for each picture and channel (:func:`standardized`), and of each tubelet of
    the student the first picture is taken. While the module trains, the prototypes are given length 1 in place before
    each use, as in the released code.

    Args:
        num_prototypes: Number K.
        dim: Width D of the tokens.
        every: Pictures in a tubelet of the student.
        subsample: ``"frames"`` takes every so many-th picture. ``"tokens"`` takes every so many-th token of the running
            row of all pictures, as the released code does, so that targets are of other times and places; for
            comparison only, with ``aligned=False`` of the decoder.
        temperature: Softness of the student's distribution, above 0.
        epsilon: Softness of the assignment, above 0.
        iterations: Of the assignment, 1 or more.
        assign: ``"hard"`` or ``"soft"``.
        symmetric: Add the other direction, for the log.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over tokens.

    Raises:
        ValueError: if an argument is out of range or unknown.
    """

    def __init__(
        self,
        num_prototypes: int = 3000,
        dim: int = 768,
        *,
        every: int = 2,
        subsample: Subsample = "frames",
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 10,
        assign: Assign = "hard",
        symmetric: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_positive(temperature, "temperature")
        check_positive(epsilon, "epsilon")
        check_reduction(reduction)
        if min(num_prototypes, dim, every, iterations) < 1:
            raise ValueError(
                f"num_prototypes, dim, every and iterations must be 1 or more, got {num_prototypes}, {dim}, {every} "
                f"and {iterations}"
            )
        if assign not in get_args(Assign) or subsample not in get_args(Subsample):
            raise ValueError(
                f"assign must be 'hard' or 'soft' and subsample 'frames' or 'tokens', got {assign!r} and {subsample!r}"
            )
        self.every, self.subsample = every, subsample
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.assign, self.symmetric, self.reduction = assign, symmetric, reduction
        self.prototypes = nn.Parameter(torch.randn(num_prototypes, dim))
        self._warned = False

    def targets(self, teacher_tokens: Tensor) -> Tensor:
        """Return the teacher's tokens that the student's are held against, ``(B, T, P, D)`` to ``(B, N, D)``.

        Raises:
            ShapeError: if ``teacher_tokens`` is of another shape, or its pictures do not divide into tubelets.
        """
        check_ndim(teacher_tokens, "teacher_tokens", "(B, T, P, D)", at_least=4, at_most=4)
        if teacher_tokens.shape[1] % self.every:
            raise ShapeError(
                f"{teacher_tokens.shape[1]} pictures do not divide into tubelets of {self.every}: set every to the "
                "tubelet of the video branch"
            )
        tokens = standardized(teacher_tokens.detach())
        if self.subsample == "frames":
            return tokens[:, :: self.every].flatten(1, 2)
        return tokens.flatten(1, 2)[:, :: self.every]

    def forward(self, student_tokens: Tensor, teacher_tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student_tokens: The decoder's tokens, ``(B, N, D)``.
            teacher_tokens: The image teacher's, by picture, ``(B, T, P, D)``.
            mask: Tokens that count, ``(B, N)``.
        """
        targets = self.targets(teacher_tokens)
        count = targets.shape[0] * targets.shape[1]
        if 0 < count < 2 * len(self.prototypes) and not self._warned:
            self._warned = True
            warnings.warn(
                f"{len(self.prototypes)} prototypes for {count} tokens a step: many will stay unused; take half as "
                "many as tokens, or fewer",
                stacklevel=2,
            )
        prototypes: Tensor = self.prototypes
        if self.training:
            with torch.no_grad():
                self.prototypes.copy_(unit_vectors(self.prototypes))
        else:
            prototypes = unit_vectors(self.prototypes)
        return cluster_distillation_loss(
            student_tokens,
            targets,
            prototypes,
            temperature=self.temperature,
            epsilon=self.epsilon,
            iterations=self.iterations,
            assign=self.assign,
            symmetric=self.symmetric,
            mask=mask,
            reduction=self.reduction,
        )

    @torch.no_grad()
    def used(self, teacher_tokens: Tensor) -> float:
        """Return the share of prototypes that the assignment of some teacher's tokens ``(B, T, P, D)`` uses.

        Each token counts for its best prototype. Near ``1 / K`` the clusters have collapsed.
        """
        tokens = unit_vectors(self.targets(teacher_tokens))
        labels = _assignment(tokens, unit_vectors(self.prototypes), self.epsilon, self.iterations, "hard")
        return int(torch.unique(labels).numel()) / len(self.prototypes)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return (
            f"num_prototypes={len(self.prototypes)}, every={self.every}, subsample={self.subsample!r}, "
            f"temperature={self.temperature}, epsilon={self.epsilon}, iterations={self.iterations}, "
            f"assign={self.assign!r}, symmetric={self.symmetric}, reduction={self.reduction!r}"
        )


@torch.no_grad()
def _assignment(tokens: Tensor, prototypes: Tensor, epsilon: float, iterations: int, assign: str) -> Tensor:
    """Assign tokens of length 1: labels ``(N,)`` or, softly, rows that sum to one, ``(N, K)``."""
    rows = tokens.detach().flatten(0, -2)
    q = sinkhorn_assignment(rows @ prototypes.detach().T, epsilon=epsilon, iterations=iterations, inplace=True)
    return q.argmax(1) if assign == "hard" else q


def _cross_entropy(
    tokens: Tensor, prototypes: Tensor, target: Tensor, *, temperature: float, mask: Tensor | None, reduction: Reduction
) -> Tensor:
    rows = tokens.flatten(0, -2)
    if reduction == "none":
        log_p = log_softmax(rows @ prototypes.T / temperature, dim=1)
        per_token = -(log_p.gather(1, target[:, None])[:, 0] if target.ndim == 1 else (log_p * target).sum(1))
        return reduce_loss(per_token.reshape(tokens.shape[:-1]), "none", mask=mask)
    weights = rows.new_ones(len(rows)) if mask is None else mask.detach().to(rows.dtype).flatten()
    if reduction == "mean":
        total = weights.sum()
        weights = weights / torch.where(total > 0, total, torch.ones_like(total))
    loss: Tensor = _WeightedCrossEntropy.apply(rows, prototypes, target, weights, temperature)
    return loss


class _WeightedCrossEntropy(torch.autograd.Function):
    """Weighted sum over tokens of their cross-entropy, some tokens at a time, with the gradient from the forward pass.

    What it keeps for the backward pass is the size of tokens and prototypes, not that of their products.
    """

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, prototypes: Tensor, target: Tensor, weights: Tensor, temperature: float
    ) -> Tensor:
        total = tokens.new_zeros(())
        wants_tokens, wants_prototypes = ctx.needs_input_grad[:2]
        of_tokens = torch.zeros_like(tokens) if wants_tokens else None
        of_prototypes = torch.zeros_like(prototypes) if wants_prototypes else None
        for start in range(0, len(tokens), _ROWS):
            part = slice(start, start + _ROWS)
            scores = torch.mm(tokens[part], prototypes.T).div_(temperature)
            # shifted by their largest, so that the exponentials are computed once for value and slope
            scores -= scores.amax(1, keepdim=True)
            wanted = target[part]
            if wanted.ndim == 1:
                hit = scores.gather(1, wanted[:, None]).squeeze(1)
            else:
                hit = torch.einsum("nk,nk->n", scores, wanted)
            p = scores.exp_()
            mass = p.sum(1)
            total += torch.dot(mass.log() - hit, weights[part])
            if of_tokens is None and of_prototypes is None:
                continue
            scale = weights[part] / temperature
            p.mul_((scale / mass).unsqueeze(1))
            if wanted.ndim == 1:
                p.scatter_add_(1, wanted[:, None], -scale[:, None])
            else:
                p.addcmul_(wanted, scale[:, None], value=-1)
            if of_tokens is not None:
                torch.mm(p, prototypes, out=of_tokens[part])
            if of_prototypes is not None:
                of_prototypes.addmm_(p.T, tokens[part])
        ctx.save_for_backward(*(kept for kept in (of_tokens, of_prototypes) if kept is not None))
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise LimbeckError(
                "cluster_distillation_loss cannot be differentiated twice: call backward without create_graph=True, or "
                "set reduction='none'"
            )
        kept = iter(ctx.saved_tensors)
        wanted = ctx.needs_input_grad[:2]
        of_tokens, of_prototypes = (next(kept) * gradient if needed else None for needed in wanted)
        return of_tokens, of_prototypes, None, None, None


def _check_tokens(student: Tensor, teacher: Tensor, prototypes: Tensor) -> None:
    for tokens, name in ((student, "student_tokens"), (teacher, "teacher_tokens")):
        check_ndim(tokens, name, "(N, D) or (B, N, D)", at_least=2)
        check_floating(tokens, name)
        check_same_device(tokens, prototypes, name, "prototypes")
    if student.shape != teacher.shape:
        raise ShapeError(
            f"student_tokens and teacher_tokens must be of the same places, got {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}: take one picture of the teacher for each tubelet of the student (every=...)"
        )
    check_ndim(prototypes, "prototypes", "(K, D)", at_least=2, at_most=2)
    check_floating(prototypes, "prototypes")
    if prototypes.shape[1] != student.shape[-1] or not len(prototypes):
        raise ShapeError(
            f"prototypes {tuple(prototypes.shape)} must have the width of the tokens, {student.shape[-1]}: set dim"
        )
