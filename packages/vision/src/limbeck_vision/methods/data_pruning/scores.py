"""How hard each training sample is, by the scores that data pruning is usually done with; higher is harder.

All are functions of what a model said of the samples; :mod:`~limbeck_vision.methods.data_pruning.scoring` collects that
during short training runs and writes the scores to a file by sample id.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from limbeck_core.checks import check_floating, check_ndim, check_target
from limbeck_core.errors import ShapeError


def el2n_scores(logits: Tensor, targets: Tensor) -> Tensor:
    r"""Length of the error vector, :math:`\|\sigma(z) - y\|_2`, mean over models.

    Args:
        logits: Raw scores, shape ``(N, C)`` of one model or ``(M, N, C)`` of M models early in training.
        targets: Class indices, shape ``(N,)``.

    Returns:
        Scores in [0, sqrt(2)], shape ``(N,)``, float64.

    Raises:
        ShapeError: if shapes do not fit.
        TargetError: if a label is no class index.

    Reference:
        Paul et al., Deep Learning on a Data Diet, arXiv:2107.07075, definition 2.
    """
    lengths: Tensor = torch.linalg.vector_norm(_errors(logits, targets), dim=-1)
    return lengths.mean(0)


def grand_scores(logits: Tensor, targets: Tensor, embeddings: Tensor) -> Tensor:
    r"""Length of the cross-entropy's gradient at the last linear layer, weight and bias, mean over models.

    .. math:: \|\sigma(z) - y\|_2 \, \sqrt{\|h\|_2^2 + 1}

    The definition takes all parameters; the last layer stands for them here, which is exact for that layer and needs no
    gradient.

    Args:
        logits: As :func:`el2n_scores`.
        targets: Class indices, shape ``(N,)``.
        embeddings: What the last layer reads, shape ``(N, D)`` or ``(M, N, D)``.

    Returns:
        Scores, shape ``(N,)``, float64.

    Raises:
        ShapeError: if shapes do not fit.
        TargetError: if a label is no class index.

    Reference:
        Paul et al., arXiv:2107.07075, definition 1.
    """
    errors: Tensor = torch.linalg.vector_norm(_errors(logits, targets), dim=-1)
    check_ndim(embeddings, "embeddings", "(N, D) or (M, N, D)", at_least=2, at_most=3)
    stacked = embeddings.double() if embeddings.ndim == 3 else embeddings.double().unsqueeze(0)
    if stacked.shape[:2] != errors.shape:
        raise ShapeError(
            f"embeddings must hold a row for each row of logits {tuple(logits.shape)}, got {tuple(embeddings.shape)}"
        )
    return (errors * (stacked.square().sum(-1) + 1).sqrt()).mean(0)


def margin_scores(logits: Tensor, targets: Tensor) -> Tensor:
    """Probability of the likeliest wrong class minus that of the right one, mean over models; in [-1, 1].

    Arguments, result and errors as :func:`el2n_scores`.
    """
    probabilities = _stacked(logits, targets).softmax(-1)
    chosen = targets.long().expand(probabilities.shape[:2]).unsqueeze(-1)
    right = probabilities.gather(-1, chosen).squeeze(-1)
    wrong = probabilities.scatter(-1, chosen, -1.0).amax(-1)
    return (wrong - right).mean(0)


def entropy_scores(logits: Tensor, targets: Tensor) -> Tensor:
    """Entropy of the predicted distribution in nats, mean over models; labels do not matter.

    Arguments, result and errors as :func:`el2n_scores`.
    """
    log_probabilities = _stacked(logits, targets).log_softmax(-1)
    return -(log_probabilities.exp() * log_probabilities).sum(-1).mean(0)


def forgetting_scores(correct: Tensor) -> Tensor:
    """How often a sample went from right to wrong; one that was never right counts as the hardest.

    Args:
        correct: Whether each sample was right at each look, boolean, shape ``(T, N)`` in the order of training, or
            ``(M, T, N)`` of M models.

    Returns:
        Mean number of forgetting events, T for a sample never learnt, shape ``(N,)``, float64.

    Raises:
        ShapeError: if the tensor is not boolean or has another number of axes.

    Reference:
        Toneva et al., An Empirical Study of Example Forgetting during Deep Neural Network Learning, arXiv:1812.05159,
        section 3. They look at each mini-batch; how often is up to the caller here.
    """
    if correct.dtype != torch.bool:
        raise ShapeError(f"correct must be boolean, got {correct.dtype}: compare predictions with targets")
    check_ndim(correct, "correct", "(T, N) or (M, T, N)", at_least=2, at_most=3)
    looks = correct if correct.ndim == 3 else correct.unsqueeze(0)
    events = (looks[:, :-1] & ~looks[:, 1:]).sum(1).double()
    return torch.where(looks.any(1), events, float(looks.shape[1])).mean(0)


def herding_order(embeddings: Tensor) -> Tensor:
    """Order samples so that the mean of every beginning of the order is near the mean of all.

    Args:
        embeddings: Shape ``(N, D)``.

    Returns:
        Positions, the most representative first, shape ``(N,)``. Its reverse rank is a score for which keeping the
        hardest keeps the most representative: ``scores[order] = arange(N, 0, -1)``.

    Raises:
        ShapeError: if ``embeddings`` is no floating-point matrix.

    Reference:
        Welling, Herding Dynamical Weights to Learn, ICML 2009.
    """
    check_floating(embeddings, "embeddings")
    check_ndim(embeddings, "embeddings", "(N, D)", at_least=2, at_most=2)
    rows = embeddings.double()
    mean, total = rows.mean(0), torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    free, order = torch.ones(len(rows), dtype=torch.bool, device=rows.device), []
    for count in range(1, len(rows) + 1):
        distances = ((total + rows) / count - mean).square().sum(1)
        chosen = int(distances.masked_fill(~free, float("inf")).argmin())
        order.append(chosen)
        free[chosen] = False
        total = total + rows[chosen]
    return torch.tensor(order, dtype=torch.long, device=rows.device)


def _stacked(logits: Tensor, targets: Tensor) -> Tensor:
    check_floating(logits, "logits")
    check_ndim(logits, "logits", "(N, C) or (M, N, C)", at_least=2, at_most=3)
    stacked = logits if logits.ndim == 3 else logits.unsqueeze(0)
    check_target(targets, stacked[0], name="targets")
    return stacked.double()


def _errors(logits: Tensor, targets: Tensor) -> Tensor:
    stacked = _stacked(logits, targets)
    return stacked.softmax(-1) - one_hot(targets.long(), stacked.shape[-1]).double()
