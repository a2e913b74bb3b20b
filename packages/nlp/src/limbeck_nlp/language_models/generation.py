"""Text that a causal model writes, as sequences to learn from: right-padded, ended, and masked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.errors import ConfigError, ShapeError
from limbeck_nlp.language_models.data import shifted


@torch.no_grad()
def complete(
    model: nn.Module,
    prompts: Mapping[str, Tensor],
    *,
    end_token: int | None,
    pad_token: int = 0,
    max_new_tokens: int = 128,
    temperature: float | None = 1.0,
    beams: int = 1,
    returned: int = 1,
) -> Tensor:
    """Let a model go on from prompts.

    It runs in evaluation mode, without gradient, and comes back in the mode it was in. Sampling draws from PyTorch's
    global generator, from the whole distribution (no top-k, no top-p).

    Args:
        model: A causal model of transformers.
        prompts: ``input_ids`` and ``attention_mask``, shape ``(B, P)``, padded on the left.
        end_token: The id that ends a text, or ``None``.
        pad_token: What stands after the end.
        max_new_tokens: At most so many tokens are written.
        temperature: Of sampling; ``None`` takes the most probable text instead.
        beams: Beams of the search for the most probable text.
        returned: How many texts of the beam are returned for each prompt, the best first and beside each other.

    Returns:
        The new tokens, shape ``(B * returned, at most max_new_tokens)``; the end token is kept, what follows it is
        ``pad_token``.

    Raises:
        ConfigError: if the model cannot generate, or an option is out of range.
        ShapeError: if prompts end in padding.
    """
    if not hasattr(model, "generate"):
        raise ConfigError(
            f"{type(model).__name__} cannot write text: it has no generate(); give a causal language model"
        )
    if max_new_tokens < 1 or beams < 1 or (temperature is not None and not temperature > 0):
        raise ConfigError(
            f"max_new_tokens and beams must be 1 or more and temperature above 0 or None, got {max_new_tokens}, "
            f"{beams} and {temperature}"
        )
    if not 1 <= returned <= beams:
        raise ConfigError(f"returned must lie between 1 and beams={beams}, got {returned}")
    if not bool(prompts["attention_mask"][:, -1].all()):
        raise ShapeError(
            "prompts must be padded on the left, so that each ends where the text goes on: use pad_prompted"
        )
    options: dict[str, Any] = {"do_sample": False, "num_beams": beams, "num_return_sequences": returned}
    if temperature is not None:
        options = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    training = [module for module in model.modules() if module.training]
    model.eval()
    generate: Any = model.generate
    try:
        written = generate(
            input_ids=prompts["input_ids"],
            attention_mask=prompts["attention_mask"],
            max_new_tokens=max_new_tokens,
            pad_token_id=pad_token,
            eos_token_id=end_token,
            use_cache=True,
            **options,
        )
    finally:
        for module in training:
            module.training = True
    new: Tensor = written[:, prompts["input_ids"].shape[1] :]
    return new.masked_fill(~until_end(new, end_token), pad_token)


def until_end(tokens: Tensor, end_token: int | None) -> Tensor:
    """Where each row has not ended, its first end token included; shape of ``tokens``.

    >>> until_end(torch.tensor([[4, 1, 1, 4]]), 1)
    tensor([[ True,  True, False, False]])
    """
    if end_token is None:
        return torch.ones_like(tokens, dtype=torch.bool)
    ended = (tokens == end_token).cumsum(1)
    return (ended - (tokens == end_token).long()) == 0


def sequences(
    prompts: Mapping[str, Tensor], written: Tensor, *, end_token: int | None, pad_token: int = 0
) -> dict[str, Any]:
    """Join prompts and what was written into a batch to learn from, padded on the right.

    Args:
        prompts: As in :func:`complete`.
        written: What it returned.
        end_token: As there.
        pad_token: As there.

    Returns:
        ``inputs``, ``targets`` and ``mask``, in which only what was written counts, up to its first end token. An empty
        completion (the end at once) counts one token.
    """
    real = prompts["attention_mask"].bool()
    kept = until_end(written, end_token)
    lengths, new = real.sum(1), kept.sum(1)
    total = int((lengths + new).max())
    ids = written.new_full((len(written), total), pad_token)
    attention = torch.zeros_like(ids)
    counted = torch.zeros_like(ids, dtype=torch.bool)
    for row in range(len(ids)):
        start, stop = int(lengths[row]), int(lengths[row] + new[row])
        ids[row, :start] = prompts["input_ids"][row, real[row]]
        ids[row, start:stop] = written[row, kept[row]]
        attention[row, :stop] = 1
        counted[row, start:stop] = True
    targets, mask = shifted(ids, counted)
    return {"inputs": {"input_ids": ids, "attention_mask": attention}, "targets": targets, "mask": mask}
