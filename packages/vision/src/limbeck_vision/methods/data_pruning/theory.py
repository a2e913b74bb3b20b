r"""The linear model of the paper's theorem: a ridge student on a part of the data, taught by a ridge teacher.

.. math:: \theta_s = \arg\min_\theta \|X_s \theta - ((1-\alpha) y_s + \alpha X_s \theta_t)\|^2 + \lambda \|\theta\|^2

with :math:`\theta_t` the ridge estimator of another part. The paper's theorem says that the expected error of the
student falls as the teacher's part grows, so that a teacher of the full data beats distilling from one of the pruned
data. The setting is inferred from readings of the paper; whether its gain is a lower bias or a lower variance was read
in two ways, and nothing is claimed of that here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck_core.checks import check_between, check_positive
from limbeck_core.errors import ShapeError


def ridge_solution(inputs: Tensor, targets: Tensor, *, ridge: float) -> Tensor:
    """Return the ridge estimator, shape ``(D,)``, of inputs ``(n, D)`` and targets ``(n,)``.

    Raises:
        ShapeError: if the shapes do not fit.
        ValueError: if ``ridge`` is not above 0.
    """
    check_positive(ridge, "ridge")
    if inputs.ndim != 2 or targets.shape != inputs.shape[:1]:
        raise ShapeError(
            f"inputs and targets must be (n, D) and (n,), got {tuple(inputs.shape)}, {tuple(targets.shape)}"
        )
    system = inputs.T @ inputs + ridge * torch.eye(inputs.shape[1], dtype=inputs.dtype, device=inputs.device)
    solution: Tensor = torch.linalg.solve(system, inputs.T @ targets)
    return solution


def distilled_ridge(
    inputs: Tensor, targets: Tensor, *, fraction: float, teacher_fraction: float, weight: float, ridge: float
) -> Tensor:
    r"""Return the estimator of a student on the first part of the data, taught by a teacher on its own first part.

    Args:
        inputs: All inputs, shape ``(n, D)``, in random order.
        targets: All targets, shape ``(n,)``.
        fraction: Share of the rows that the student sees, in (0, 1].
        teacher_fraction: Share of the rows that the teacher saw.
        weight: :math:`\alpha` in [0, 1], the weight of the teacher.
        ridge: :math:`\lambda > 0`, of both.

    Returns:
        The student's coefficients, shape ``(D,)``.

    Raises:
        ShapeError: if the shapes do not fit.
        ValueError: if a number is out of range.
    """
    for name, share in (("fraction", fraction), ("teacher_fraction", teacher_fraction)):
        if not 0 < share <= 1:
            raise ValueError(f"{name} must lie above 0 and at most at 1, got {share!r}")
    check_between(weight, "weight", 0.0, 1.0)
    seen, taught = (max(1, round(share * len(inputs))) for share in (fraction, teacher_fraction))
    teacher = ridge_solution(inputs[:taught], targets[:taught], ridge=ridge)
    mixed = (1 - weight) * targets[:seen] + weight * (inputs[:seen] @ teacher)
    return ridge_solution(inputs[:seen], mixed, ridge=ridge)
