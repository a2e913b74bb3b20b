"""Translations that an encoder-decoder writes, and the call that has a run judged by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.calls import Batch, MappingCall
from limbeck_core.errors import ConfigError
from limbeck_core.tap import unwrap
from limbeck_nlp.language_models.generation import until_end

_DECODER = ("decoder_input_ids", "decoder_attention_mask")


@torch.no_grad()
def write(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    *,
    beams: int = 1,
    returned: int = 1,
    length_penalty: float = 1.0,
    max_new_tokens: int = 128,
    start_token: int | None = None,
    end_token: int | None = None,
    pad_token: int | None = None,
) -> Tensor:
    """Let a model translate, greedily or by beam search.

    It runs in evaluation mode, without gradient, and comes back in the mode it was in.

    Args:
        model: An encoder-decoder of transformers.
        inputs: ``input_ids`` and ``attention_mask``, shape ``(B, L)``; what is the decoder's is left out.
        beams: Beams of the search; 1 is greedy.
        returned: How many translations of each source are returned, the best first.
        length_penalty: A hypothesis is judged by its log-likelihood over its length to this power; above 1 favours long
            ones.
        max_new_tokens: At most so many tokens are written.
        start_token: Id with which the decoder starts. Default: the model's own ``decoder_start_token_id``.
        end_token: Id that ends a sentence. Default: the model's own ``eos_token_id``.
        pad_token: What stands after the end. Default: the model's own ``pad_token_id``.

    Returns:
        Token ids without the start token, shape ``(B, returned, at most max_new_tokens)``; the end token is kept, what
        follows it is padding.

    Raises:
        ConfigError: if the model is no encoder-decoder that writes, names a token neither itself nor here, or a number
            is out of range.
    """
    settings = getattr(unwrap(model), "config", None)
    if not hasattr(model, "generate") or not getattr(settings, "is_encoder_decoder", False):
        raise ConfigError(
            f"{type(model).__name__} cannot translate: expected an encoder-decoder of transformers with generate(); "
            "causal models write with limbeck_nlp.language_models.generation.complete"
        )
    if beams < 1 or max_new_tokens < 1 or not 1 <= returned <= beams:
        raise ConfigError(
            f"beams and max_new_tokens must be 1 or more and returned from 1 to beams, got {beams}, {max_new_tokens} "
            f"and {returned}"
        )
    given = {"decoder_start_token_id": start_token, "eos_token_id": end_token, "pad_token_id": pad_token}
    tokens: dict[str, Any] = {
        name: getattr(settings, name, None) if value is None else value for name, value in given.items()
    }
    if None in tokens.values():
        name = next(name for name, value in tokens.items() if value is None)
        raise ConfigError(f"the configuration of {type(model).__name__} names no {name}: give it here")
    training = [module for module in model.modules() if module.training]
    model.eval()
    generate: Any = model.generate
    try:
        written: Tensor = generate(
            **{name: value for name, value in inputs.items() if name not in _DECODER},
            **tokens,
            forced_eos_token_id=None,
            do_sample=False,
            num_beams=beams,
            num_return_sequences=returned,
            max_new_tokens=max_new_tokens,
            use_cache=True,
            **({"length_penalty": length_penalty} if beams > 1 else {}),
        )
    finally:
        for module in training:
            module.training = True
    new = written[:, 1:]
    new = new.masked_fill(~until_end(new, tokens["eos_token_id"]), tokens["pad_token_id"])
    return new.view(-1, returned, new.shape[1])


class TranslationCall(MappingCall):
    """:class:`~limbeck_core.calls.MappingCall` whose prediction also holds what the model writes by itself.

    A prediction is a list with one mapping a sample: ``logits`` on the data's own target, ``(L, V)``, and ``tokens``,
    the translation, as :func:`write` returns them. :class:`~limbeck_nlp.evaluation.TranslationMetric` takes both.

    Args:
        beams: Beams of the search; 1 is greedy.
        length_penalty: See :func:`write`.
        max_new_tokens: See there.
    """

    def __init__(self, *, beams: int = 1, length_penalty: float = 1.0, max_new_tokens: int = 128) -> None:
        super().__init__()
        self.options = {"beams": beams, "length_penalty": length_penalty, "max_new_tokens": max_new_tokens}

    def predict(self, model: nn.Module, batch: Batch, view: str) -> Any:
        """Return logits and translation of each sample."""
        logits = super().predict(model, batch, view)
        tokens = write(model, self._keywords(model, batch, view), **self.options)[:, 0]  # type: ignore[arg-type]
        return [{"logits": row, "tokens": text} for row, text in zip(logits, tokens, strict=True)]
