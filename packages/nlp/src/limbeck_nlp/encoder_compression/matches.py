"""The matches of MiniLM, DistilBERT and TinyBERT for a pair of models, with their taps found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from limbeck_core.adapters import LinearAdapter
from limbeck_core.errors import ConfigError
from limbeck_core.losses import (
    AttentionMSELoss,
    GeneralizedJSDLoss,
    HiddenStateCosineLoss,
    HiddenStateMSELoss,
    SelfAttentionRelationLoss,
)
from limbeck_core.match import Match
from limbeck_core.tap import Tap
from limbeck_nlp.encoder_compression.layers import AttentionScores, EachLayer, SumOverLayers, layer_map
from limbeck_nlp.models import attention_heads, attention_taps

TOKENS = Tap("inputs", of="batch", pick="attention_mask")  # tokens that are no padding


def minilm_matches(
    student: nn.Module,
    teacher: nn.Module,
    *,
    version: Literal[1, 2] = 2,
    relation_heads: int | None = None,
    student_layer: int = -1,
    teacher_layer: int = -1,
    weight: float = 1.0,
) -> dict[str, Match]:
    """Return the matches of MiniLM (attention and value relations) or of MiniLMv2 (query, key and value relations).

    Nothing else teaches: no labels, no task loss. The student may be narrower, shallower, and in version 2 have another
    number of attention heads. The part of the student's layer behind its queries, keys and values gets no gradient, nor
    do layers above it, so train the student afterwards on its task.

    Args:
        student: A model of transformers with separate projections.
        teacher: Another one, which reads the same tokens.
        version: 1 or 2.
        relation_heads: Version 2: into how many heads the vectors are split; it divides both widths. Default: 48 where
            that divides both (the papers' number for base teachers), otherwise the largest common number of heads up
            to 48. The paper takes 64 for large teachers.
        student_layer: Layer that learns; the papers take the last one.
        teacher_layer: Layer that teaches: the last one of base models; for large models of 24 layers the second paper
            finds an upper middle one better (recalled, not verified: index 20 for BERT, 18 for RoBERTa).
        weight: Weight of each match.

    Raises:
        ConfigError: if the attention heads differ in version 1, or ``relation_heads`` does not divide both widths.
        TapError: as :func:`~limbeck_nlp.models.attention_taps`.

    Reference:
        Wang et al., MiniLM, arXiv:2002.10957, section 3; Wang et al., MiniLMv2, arXiv:2012.15828, section 3.
    """
    if version not in (1, 2):
        raise ConfigError(f"version must be 1 or 2, got {version!r}")
    ours, theirs = attention_taps(student, student_layer), attention_taps(teacher, teacher_layer)
    mask = {"mask": TOKENS}
    if version == 1:
        if relation_heads is not None:
            raise ConfigError("relation_heads belongs to version 2: MiniLM relates the attention heads themselves")
        heads = [attention_heads(model) for model in (student, teacher)]
        if heads[0] != heads[1]:
            raise ConfigError(
                f"MiniLM compares attention heads one by one, the student has {heads[0]} and the teacher {heads[1]}: "
                "use version=2, which splits anew, or give the student as many heads"
            )
        keys = {
            "student_keys": Tap(ours.key.path, of="student", call=ours.key.call),
            "teacher_keys": Tap(theirs.key.path, of="teacher", call=theirs.key.call),
        }
        losses = [SelfAttentionRelationLoss(relation_heads=heads[0]) for _ in range(2)]
        return {
            "attention": Match(losses[0], ours.query, theirs.query, weight=weight, extras={**keys, **mask}),
            "value": Match(losses[1], ours.value, theirs.value, weight=weight, extras=mask),
        }
    widths = [
        model.get_submodule(getattr(taps, name).path).out_features
        for name in ("query", "key", "value")
        for model, taps in ((student, ours), (teacher, theirs))
    ]
    if relation_heads is None:
        relation_heads = max(h for h in range(1, 49) if all(int(width) % h == 0 for width in widths))  # type: ignore[arg-type]
    bad = sorted({int(width) for width in widths if int(width) % relation_heads})  # type: ignore[arg-type]
    if bad:
        raise ConfigError(f"relation_heads={relation_heads} must divide the widths of both models, got {bad}")
    return {
        name: Match(
            SelfAttentionRelationLoss(relation_heads=relation_heads),
            getattr(ours, name),
            getattr(theirs, name),
            weight=weight,
            extras=mask,
        )
        for name in ("query", "key", "value")
    }


def distilbert_matches(
    *,
    temperature: float = 2.0,
    logits_weight: float = 5.0,
    cosine_weight: float = 1.0,
) -> dict[str, Match]:
    r"""Return the matches of DistilBERT: distributions over the masked words, and directions of the last hidden states.

    The masked-word loss itself is the task loss (the released code weighs it by 2: ``task_weight=2.0``). Both models
    need ``output_hidden_states=True`` and one width. The batch's ``mask`` says which positions are predicted. The
    divergence is scaled by :math:`\tau^2`, as the released code does.

    Args:
        temperature: Softness :math:`\tau` of the distributions.
        logits_weight: Weight of the divergence, before that scale.
        cosine_weight: Weight of the cosine distance; it counts every token that is no padding.

    Reference:
        Sanh et al., DistilBERT, a Distilled Version of BERT, arXiv:1910.01108, section 3; the weights 5, 2 and 1 and
        the temperature are those of the code released with it (recalled).
    """
    logits, last = Tap("", pick="logits"), Tap("", pick=("hidden_states", -1))
    divergence = GeneralizedJSDLoss(beta=0.0, temperature=temperature)
    return {
        "logits": Match(divergence, logits, logits, weight=logits_weight * temperature**2),
        "hidden": Match(HiddenStateCosineLoss(), last, last, weight=cosine_weight, extras={"mask": TOKENS}),
    }


def tinybert_matches(
    student: nn.Module,
    teacher: nn.Module,
    *,
    layers: Sequence[int] | None = None,
    weight: float = 1.0,
) -> dict[str, Match]:
    """Return the matches of TinyBERT's first step: attention scores, hidden states and embeddings of mapped layers.

    One matrix, shared by all layers and the embeddings, takes the student's states to the teacher's width; it is
    trained and dropped. Attention scores are compared before the softmax, computed from queries and keys. Where the
    numbers of heads differ, the mean over the heads is compared (a choice of ours). Both models need
    ``output_hidden_states=True``. The second step is logits distillation with these matches left out.

    Args:
        student: A model of transformers with separate projections.
        teacher: Another one, which reads the same tokens.
        layers: For each layer of the student the teacher's, counted from 1. Default: :func:`layer_map`.
        weight: Weight of each match.

    Raises:
        ConfigError: if ``layers`` does not fit.
        TapError: as :func:`~limbeck_nlp.models.attention_taps`.

    Reference:
        Jiao et al., TinyBERT: Distilling BERT for Natural Language Understanding, arXiv:1909.10351, eq. 7-9.
    """
    settings, models = [getattr(model, "config", None) for model in (student, teacher)], (student, teacher)
    depths = [int(getattr(config, "num_hidden_layers", 0)) for config in settings]
    mapped = tuple(layers) if layers is not None else layer_map(*depths)
    if len(mapped) != depths[0] or not all(1 <= layer <= depths[1] for layer in mapped):
        raise ConfigError(
            f"layers must name one of the teacher's layers 1 to {depths[1]} for each of the student's {depths[0]}, got "
            f"{list(mapped)}"
        )
    ours = [attention_taps(student, index) for index in range(depths[0])]
    theirs = [attention_taps(teacher, layer - 1) for layer in mapped]
    heads = [attention_heads(model) for model in models]
    scores = [EachLayer(AttentionScores(count, mean=heads[0] != heads[1]), groups=2) for count in heads]
    widths = [int(getattr(config, "hidden_size", 0)) for config in settings]
    extras = {"mask": TOKENS}
    return {
        "attention": Match(
            SumOverLayers(AttentionMSELoss()),
            [tap for taps in ours for tap in (taps.query, taps.key)],
            [tap for taps in theirs for tap in (taps.query, taps.key)],
            adapter=scores[0],
            teacher_adapter=scores[1],
            weight=weight,
            extras=extras,
        ),
        "hidden": Match(
            SumOverLayers(HiddenStateMSELoss()),
            [Tap("", pick=("hidden_states", index)) for index in range(depths[0] + 1)],
            [Tap("", pick=("hidden_states", layer)) for layer in (0, *mapped)],
            adapter=EachLayer(LinearAdapter(widths[0], widths[1])),
            weight=weight,
            extras=extras,
        ),
    }
