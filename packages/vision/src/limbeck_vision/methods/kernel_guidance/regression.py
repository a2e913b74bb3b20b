r"""Iterated self-distillation of kernel ridge regression in closed form: any step, the limit, and the best weight.

Step :math:`\tau` fits the mixture :math:`\alpha Y + (1 - \alpha) \hat Y^{(\tau - 1)}` of the targets and what the step
before predicted, with :math:`\hat Y^{(0)} = Y`, so that step 1 is the ordinary fit. With
:math:`H = K (K + \lambda I)^{-1}` the predictions at the inputs are

.. math::
    \hat Y^{(\tau)} = \Big[\alpha \sum_{i=0}^{\tau-2} (1-\alpha)^i H^{i+1} + (1-\alpha)^{\tau-1} H^\tau\Big] Y,
    \qquad \hat Y^{(\infty)} = K \big(K + \tfrac{\lambda}{\alpha} I\big)^{-1} Y

so that distilling for ever is ordinary ridge regression with the ridge divided by the weight of the targets.

Reference:
    Borup and Andersen, Even your Teacher Needs Guidance: Ground-Truth Targets Dampen Regularization Imposed by
    Self-Distillation, arXiv:2102.13088, section 3. The closed form of a finite step and the best weight are derived
    here from the recursion being linear; the paper's own typography was not compared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck_core.checks import check_between, check_non_negative, check_positive
from limbeck_core.errors import ShapeError

_ASYMMETRY = 1e-6  # relative; rounding of a Gram matrix computed in float32 stays below
_NEGATIVE = 1e-6  # relative to the largest eigenvalue; a matrix below that is no Gram matrix


def rbf_kernel(first: Tensor, second: Tensor, *, gamma: float) -> Tensor:
    r"""Gaussian kernel :math:`\exp(-\gamma \, \|x - x'\|^2)` of all pairs.

    Args:
        first: Inputs, shape ``(N, D)``.
        second: Inputs, shape ``(M, D)``.
        gamma: Sharpness, above 0, in units of one over squared distance.

    Returns:
        Kernel values in (0, 1], shape ``(N, M)``, float64.

    Raises:
        ShapeError: if the inputs are no matrices of one width.
        ValueError: if ``gamma`` is not above 0.
    """
    check_positive(gamma, "gamma")
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ShapeError(
            f"rbf_kernel takes inputs (N, D) and (M, D), got {tuple(first.shape)} and {tuple(second.shape)}: give "
            "numbers the shape (N, 1)"
        )
    differences = first.double().unsqueeze(1) - second.double().unsqueeze(0)
    return torch.exp(-gamma * differences.square().sum(-1))


class SelfDistilledRidge:
    r"""Kernel ridge regression, distilled into itself any number of times without iterating.

    One eigendecomposition, :math:`O(n^3)`, is made at construction; every step and the limit then cost
    :math:`O(n^2 d)`. Everything is float64.

    Args:
        kernel: Gram matrix of the training inputs, symmetric and positive semi-definite, shape ``(n, n)``. Eigenvalues
            that rounding made slightly negative count as zero.
        targets: Training targets, shape ``(n,)`` or ``(n, d)``; columns are independent.
        ridge: :math:`\lambda \ge 0` in units of the kernel. With 0 distillation changes nothing on the fitted subspace.

    Raises:
        ShapeError: if the kernel is not square and symmetric, or the targets do not fit.
        ValueError: if the ridge is negative or the kernel has an eigenvalue clearly below zero.
    """

    def __init__(self, kernel: Tensor, targets: Tensor, *, ridge: float) -> None:
        check_non_negative(ridge, "ridge")
        if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or not kernel.shape[0]:
            raise ShapeError(f"kernel must be a Gram matrix of shape (n, n), n > 0, got {tuple(kernel.shape)}")
        if targets.ndim not in (1, 2) or len(targets) != len(kernel):
            raise ShapeError(
                f"targets must have shape ({len(kernel)},) or ({len(kernel)}, d) to fit the kernel, got "
                f"{tuple(targets.shape)}"
            )
        matrix = kernel.double()
        size = matrix.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
        if bool((matrix - matrix.T).abs().max() > _ASYMMETRY * size):
            raise ShapeError("kernel must be symmetric: it is the Gram matrix of the training inputs with themselves")
        eigenvalues, self._vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
        if bool(eigenvalues[0] < -_NEGATIVE * eigenvalues[-1].abs().clamp_min(size)):
            raise ValueError(
                f"kernel must be positive semi-definite, got the eigenvalue {float(eigenvalues[0]):.3g}: use a kernel "
                "function such as rbf_kernel"
            )
        self._eigenvalues: Tensor = eigenvalues.clamp_min(0)
        self._flat = targets.ndim == 1
        self._rotated = self._vectors.T @ (targets.double().unsqueeze(1) if self._flat else targets.double())
        self.ridge = float(ridge)

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues of the kernel, ascending, shape ``(n,)``."""
        return self._eigenvalues

    def spectrum(self, step: int | None, *, target_weight: float) -> Tensor:
        r"""Factor by which each eigen-direction of the targets is shrunk.

        .. math:: B^{(1)} = A, \quad B^{(\tau)} = A \big((1-\alpha) B^{(\tau-1)} + \alpha I\big), \quad
            A = D (D + \lambda I)^{-1}

        Args:
            step: Step :math:`\tau \ge 1`; ``None`` is the limit of infinitely many.
            target_weight: :math:`\alpha` in [0, 1], the weight of the ground truth. 1 repeats the first fit; 0 uses
                predictions alone, whose limit is the zero function.

        Returns:
            Factors in [0, 1], in the order of :attr:`eigenvalues`, shape ``(n,)``.

        Raises:
            ValueError: if the step is below 1 or the weight lies outside of [0, 1].
        """
        shrink = self._shrink()
        factors: Tensor = shrink * self._mixture(step, target_weight, shrink)
        return factors

    def fitted(self, step: int | None, *, target_weight: float) -> Tensor:
        """Predict at the training inputs; shape of the targets. Arguments and errors as :meth:`spectrum`."""
        return self._shaped(self._vectors @ (self.spectrum(step, target_weight=target_weight)[:, None] * self._rotated))

    def predict(self, kernel: Tensor, step: int | None, *, target_weight: float) -> Tensor:
        """Predict at other inputs.

        Args:
            kernel: Kernel of those inputs with the training inputs, shape ``(m, n)``.
            step: As in :meth:`spectrum`.
            target_weight: As in :meth:`spectrum`.

        Returns:
            Predictions, shape ``(m,)`` or ``(m, d)`` as the targets.

        Raises:
            ShapeError: if the kernel does not have n columns.
            ValueError: as :meth:`spectrum`.
        """
        if kernel.ndim != 2 or kernel.shape[1] != len(self._eigenvalues):
            raise ShapeError(
                f"kernel must have shape (m, {len(self._eigenvalues)}), new inputs by training inputs, got "
                f"{tuple(kernel.shape)}"
            )
        mixture = self._mixture(step, target_weight, self._shrink())
        coefficients = self._vectors @ ((mixture * self._inverse())[:, None] * self._rotated)
        return self._shaped(kernel.double() @ coefficients)

    def best_target_weight(self, kernel: Tensor, targets: Tensor, *, step: int, previous_weight: float) -> float:
        r"""Weight :math:`\alpha` of one step that minimises the squared error on other inputs.

        Args:
            kernel: Kernel of those inputs with the training inputs, shape ``(m, n)``.
            targets: What they should be, shape ``(m,)`` or ``(m, d)``.
            step: The step, at least 2, whose weight is sought.
            previous_weight: Weight of all steps before it.

        Returns:
            The unclipped minimiser, see :func:`optimal_target_weight`; it may lie outside of [0, 1].

        Raises:
            ShapeError: as :meth:`predict`.
            ValueError: if ``step`` is below 2 or the weight lies outside of [0, 1].
        """
        if step < 2:
            raise ValueError(f"step must be 2 or more, since the first step has no predictions to mix, got {step}")
        by_targets = self.predict(kernel, 1, target_weight=1.0)
        previous = self.spectrum(step - 1, target_weight=previous_weight)
        coefficients = self._vectors @ ((previous * self._inverse())[:, None] * self._rotated)
        by_predictions = self._shaped(kernel.double() @ coefficients)
        return optimal_target_weight(by_targets, by_predictions, targets, clip=False)

    def _shrink(self) -> Tensor:
        total = self._eigenvalues + self.ridge
        return torch.where(total > 0, self._eigenvalues / total.clamp_min(torch.finfo(torch.float64).tiny), 0.0)

    def _inverse(self) -> Tensor:
        """Of the kernel plus ridge; without a ridge, its pseudo-inverse."""
        floor = len(self._eigenvalues) * torch.finfo(torch.float64).eps * float(self._eigenvalues[-1])
        total = self._eigenvalues + self.ridge
        usable = total > (0 if self.ridge else floor)
        return torch.where(usable, 1 / torch.where(usable, total, 1.0), 0.0)

    @staticmethod
    def _mixture(step: int | None, weight: float, shrink: Tensor) -> Tensor:
        """What a step is fitted to, in units of the targets: the spectrum of a step is this times ``shrink``."""
        check_between(weight, "target_weight", 0.0, 1.0)
        if step is not None and step < 1:
            raise ValueError(f"step must be 1 or more, or None for the limit, got {step}")
        if step == 1:
            return torch.ones_like(shrink)
        ratio = (1 - weight) * shrink
        # a geometric series; a ratio of one (no ridge, no targets) neither grows nor shrinks
        converges = ratio < 1
        sum_to_limit = torch.where(converges, weight / torch.where(converges, 1 - ratio, 1.0), 1.0)
        if step is None:
            return sum_to_limit
        return sum_to_limit + ratio ** (step - 1) * (1 - sum_to_limit)

    def _shaped(self, columns: Tensor) -> Tensor:
        return columns[:, 0] if self._flat else columns


def optimal_target_weight(
    fit_to_targets: Tensor, fit_to_predictions: Tensor, targets: Tensor, *, clip: bool = True
) -> float:
    r"""Weight of the ground truth that fits held-out targets best, in closed form.

    A model that is linear in what it is fitted to predicts :math:`\alpha u + (1 - \alpha) g`, whose squared error is
    smallest at

    .. math:: \alpha^* = \frac{\langle y - g, \, u - g \rangle}{\|u - g\|^2}

    with sums over samples and outputs. For ridge regression that is exact. For networks it is an estimate from two
    runs, one on labels alone and one on the teacher alone, as
    :mod:`~limbeck_vision.methods.kernel_guidance.procedure` makes it; how the paper estimates it for networks was not
    established, so this plug-in is a choice made here.

    Args:
        fit_to_targets: :math:`u`, predictions of the fit to the targets alone, any shape.
        fit_to_predictions: :math:`g`, predictions of the fit to the previous predictions alone, same shape.
        targets: :math:`y`, what they should be, same shape.
        clip: Keep the weight in [0, 1], so that it is a mixture.

    Returns:
        The weight; 1 if both fits predict the same, since then every weight does.

    Raises:
        ShapeError: if shapes differ.

    >>> optimal_target_weight(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 0.0]), torch.tensor([0.5, 0.1]))
    0.3
    """
    if not fit_to_targets.shape == fit_to_predictions.shape == targets.shape:
        raise ShapeError(
            f"the two fits and the targets must have one shape, got {tuple(fit_to_targets.shape)}, "
            f"{tuple(fit_to_predictions.shape)} and {tuple(targets.shape)}: give labels as one-hot rows"
        )
    toward = fit_to_targets.double() - fit_to_predictions.double()
    size = float(toward.square().sum())
    if size == 0:
        return 1.0
    best = float(((targets.double() - fit_to_predictions.double()) * toward).sum()) / size
    return min(max(best, 0.0), 1.0) if clip else best
