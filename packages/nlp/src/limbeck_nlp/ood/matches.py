"""The matches of multi-level distillation for a pair of causal language models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from limbeck_core.checks import check_between
from limbeck_core.errors import ConfigError
from limbeck_core.losses import GeneralizedJSDLoss
from limbeck_core.match import Match
from limbeck_core.tap import Tap, unwrap
from limbeck_nlp.ood.losses import NearestLayersLoss

TOKENS = Tap("inputs", of="batch", pick="attention_mask")  # every token that is no padding, the last one included


def mlkd_matches(
    student: nn.Module,
    teacher: nn.Module,
    *,
    layers: Sequence[int] | None = None,
    nearest: int = 2,
    temperature: float = 1.0,
    paper_form: bool = False,
    prediction_share: float = 0.5,
) -> dict[str, Match]:
    r"""Return the matches of MLKD: the teacher's distribution at every token, and its most similar layers.

    The distiller has no task loss and its student random weights; that, more than the layers, makes outliers stand out
    in the paper's ablation. Add the student's cross-entropy (``task_loss``) as the released code does for ROSTD. Both
    models need ``output_hidden_states=True`` and one vocabulary. The divergence is not scaled by :math:`\tau^2`.

    Args:
        student: A causal model of transformers.
        teacher: Another one, fine-tuned on the same texts.
        layers: The student's layers that learn, counted from 1 as hidden states are. Default: the middle half (3 to 9
            of 12, as in the released code).
        nearest: How many of the teacher's layers teach each token of each layer.
        temperature: Softness :math:`\tau` of the distributions: 1; the released code takes 0.5 for SST.
        paper_form: Follow the paper's formulas: a projection for each layer of the teacher, Euclidean distances and
            their mean over the nearest, the two losses weighted :math:`\lambda` and :math:`1 - \lambda`. Its
            :math:`\lambda` and :math:`\beta_k` are not known; ones and 0.5 are choices of ours. By default the released
            code is followed: one projection, mean squares, sums, both losses with weight 1.
        prediction_share: :math:`\lambda`, used with ``paper_form`` only.

    Raises:
        ConfigError: if ``layers`` names a layer that the student does not have, or a model does not tell its size.
        ValueError: if a number is out of range.

    Reference:
        Wu et al., Multi-Level Knowledge Distillation for Out-of-Distribution Detection in Text, arXiv:2211.11300.
    """
    check_between(prediction_share, "prediction_share", 0.0, 1.0)
    (depth, width), (teacher_depth, teacher_width) = _size(student), _size(teacher)
    chosen = tuple(layers) if layers is not None else middle_layers(depth)
    if not chosen or not all(1 <= layer <= depth for layer in chosen):
        raise ConfigError(f"layers must name some of the student's layers 1 to {depth}, got {list(chosen)}")
    divergence = GeneralizedJSDLoss(beta=0.0, temperature=temperature)
    hidden = NearestLayersLoss(
        width,
        teacher_width,
        projections=teacher_depth if paper_form else 1,
        nearest=nearest,
        distance="euclidean" if paper_form else "mse",
        rank_weights=[1.0 / nearest] * nearest if paper_form else None,
    )
    logits, extras = Tap("", pick="logits"), {"mask": TOKENS}
    return {
        "prediction": Match(divergence, logits, logits, weight=prediction_share if paper_form else 1.0, extras=extras),
        "layers": Match(
            hidden,
            [Tap("", pick=("hidden_states", layer)) for layer in chosen],
            [Tap("", pick=("hidden_states", layer)) for layer in range(1, teacher_depth + 1)],
            weight=1.0 - prediction_share if paper_form else 1.0,
            extras=extras,
        ),
    }


def middle_layers(depth: int) -> tuple[int, ...]:
    """Return the middle half of a model's layers, counted from 1.

    >>> middle_layers(12)
    (3, 4, 5, 6, 7, 8, 9)
    """
    return tuple(range(max(1, depth // 4), max(1, 3 * depth // 4) + 1))


def _size(model: nn.Module) -> tuple[int, int]:
    config: Any = getattr(unwrap(model), "config", None)
    depth, width = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    if not depth or not width:
        raise ConfigError(
            f"the configuration of {type(unwrap(model)).__name__} names no num_hidden_layers and hidden_size, from "
            "which the matches are made: use a causal model of transformers, or write the matches by hand"
        )
    return int(depth), int(width)
