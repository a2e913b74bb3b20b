"""Models of transformers: from a description of the architecture or from a local folder; nothing is downloaded.

They take keyword arguments and return an output object, so a distiller runs them with
:class:`~limbeck_core.calls.MappingCall` on the mapping ``inputs`` of a batch. Logits are read with
``Tap("", pick="logits")``, hidden states by the name of the layer that gives them, and queries, keys and values with
:func:`attention_taps`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from limbeck_core.errors import CheckpointError, ConfigError, TapError, closest
from limbeck_core.tap import Tap, unwrap

# What a model is for, and the class of transformers that builds it.
TASKS = {
    "causal_lm": "AutoModelForCausalLM",
    "encoder": "AutoModel",
    "masked_lm": "AutoModelForMaskedLM",
    "question_answering": "AutoModelForQuestionAnswering",
    "seq2seq_lm": "AutoModelForSeq2SeqLM",
    "sequence_classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
}
_PROJECTIONS = (
    ("query", "key", "value"),  # BERT and its kin, ALBERT
    ("q_lin", "k_lin", "v_lin"),  # DistilBERT
    ("query_proj", "key_proj", "value_proj"),  # DeBERTa
    ("q_proj", "k_proj", "v_proj"),  # BART, Llama, Qwen and their kin
    ("q", "k", "v"),  # T5
)


def transformer(
    task: str,
    model_type: str | None = None,
    *,
    weights: str | Path | None = None,
    fresh: Sequence[str] = (),
    attention: str | None = None,
    **config: Any,
) -> nn.Module:
    """Build a model of transformers.

    Args:
        task: One of ``TASKS``; it decides the head.
        model_type: The architecture as transformers calls it (``"bert"``, ``"roberta"``, ``"distilbert"``,
            ``"llama"``, ...). Without it the architecture is read from ``weights``.
        weights: A local folder as ``save_pretrained`` writes it (``config.json`` and ``model.safetensors``). ``None``
            draws random weights. On the meta device, where a config is only looked at, no weight is read.
        fresh: Beginnings of the names of weights that the folder may lack and that are then drawn anew, such as
            ``("classifier",)`` for a pretrained encoder that is to classify.
        attention: Implementation of attention. Default: ``"eager"`` where ``output_attentions=True`` is asked for,
            since no other one returns them; the library's own choice otherwise.
        config: Entries of the model's configuration (``hidden_size``, ``num_labels``, ...); they override those of the
            folder.

    Raises:
        ConfigError: if the task, the architecture or an entry of the configuration is unknown, with the closest names;
            or if neither ``model_type`` nor ``weights`` is given.
        CheckpointError: if the folder is missing or holds no model, or lacks weights that ``fresh`` does not name.
    """
    import transformers  # noqa: PLC0415  takes seconds, and data and grammar do without

    if task not in TASKS:
        raise ConfigError(f"no task is called {task!r}: {closest(task, TASKS)}")
    folder = None if weights is None else _existing(Path(weights), model_type)
    settings = _settings(model_type, folder, config)
    family = getattr(transformers, TASKS[task])
    if attention is None and getattr(settings, "output_attentions", False):
        attention = "eager"
    options = {} if attention is None else {"attn_implementation": attention}
    if folder is None or torch.get_default_device().type == "meta":
        try:
            model: nn.Module = family.from_config(settings, **options)
        except ValueError as error:
            raise ConfigError(
                f"transformers builds no {task} of {settings.model_type!r}: {_first_line(error)}"
            ) from error
        return model
    with _quiet():
        try:
            model, info = family.from_pretrained(
                str(folder),
                config=settings,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{folder} cannot be loaded as a {task}: {_first_line(error)}") from error
    # a weight of another shape comes as (name, shape in the file, shape in the model)
    other_shape = {str(entry[0]) for entry in info["mismatched_keys"]}
    lacking = sorted(n for n in {*info["missing_keys"], *other_shape} if not n.startswith(tuple(fresh)))
    if lacking:
        raise CheckpointError(
            f"{folder} lacks {len(lacking)} weights of this {task}, or has them in other shapes: "
            f"{', '.join(lacking[:5])}: name those that may be drawn anew in fresh=(...), or choose another folder"
        )
    return model


def _existing(folder: Path, model_type: str | None) -> Path:
    if torch.get_default_device().type == "meta" and model_type is not None:
        return folder
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"there is no model in {folder}: expected a local folder with config.json and weights, as save_pretrained "
            "writes it. Names of a hub are not looked up; download first, then give the folder"
        )
    return folder


def _settings(model_type: str | None, folder: Path | None, config: dict[str, Any]) -> Any:
    from transformers import AutoConfig  # noqa: PLC0415
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: PLC0415

    if model_type is None and folder is None:
        raise ConfigError("a model needs model_type (random weights) or weights (a local folder), got neither")
    if model_type is not None and model_type not in CONFIG_MAPPING:
        raise ConfigError(f"transformers knows no architecture {model_type!r}: {closest(model_type, CONFIG_MAPPING)}")
    if model_type is None or (folder is not None and (folder / "config.json").is_file()):
        known = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        if model_type is not None and known.model_type != model_type:
            raise CheckpointError(f"{folder} holds a {known.model_type!r}, the config says model_type={model_type!r}")
    else:
        known = CONFIG_MAPPING[model_type]()
    for name in config:
        if not hasattr(known, name):
            raise ConfigError(
                f"the configuration of {known.model_type!r} has no entry {name!r}: {closest(name, known.to_dict())}"
            )
    if folder is not None and (folder / "config.json").is_file():
        with _quiet():  # it doubts every num_labels other than the folder's
            return AutoConfig.from_pretrained(str(folder), local_files_only=True, **config)
    return type(known)(**config)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from printing a table of weights that the caller judges anyway."""
    from transformers.utils import logging  # noqa: PLC0415

    control: Any = logging  # some of its functions are untyped
    level, bars = control.get_verbosity(), control.is_progress_bar_enabled()
    control.set_verbosity(control.ERROR)
    control.disable_progress_bar()
    try:
        yield
    finally:
        control.set_verbosity(level)
        if bars:
            control.enable_progress_bar()


def pad_token_of(model: nn.Module) -> int:
    """Return the id that a model's configuration names for padding, 0 if it names none."""
    token = getattr(getattr(unwrap(model), "config", None), "pad_token_id", None)
    return 0 if token is None else int(token)


class AttentionTaps(NamedTuple):
    """Where a layer's queries, keys and values are read: ``(N, L, D)`` each, all heads in a row."""

    query: Tap
    key: Tap
    value: Tap


def attention_taps(model: nn.Module, layer: int = -1) -> AttentionTaps:
    """Return taps on the queries, keys and values of one self-attention layer.

    They are read before the split into heads and before rotary positions. Grouped keys and values are narrower than
    the queries.

    Args:
        model: A model of transformers, encoder or decoder; of an encoder-decoder, layers of the encoder come first.
        layer: Index of the layer, from 0; negative ones count from the end.

    Raises:
        TapError: if the model has no separate projections (GPT-2 and ModernBERT compute all three in one product), or
            fewer layers.
    """
    model = unwrap(model)
    found: list[tuple[str, tuple[str, str, str]]] = []
    for path, module in model.named_modules():
        for names in _PROJECTIONS:
            if all(isinstance(getattr(module, name, None), nn.Linear) for name in names):
                found.append((path, names))
                break
    if not found:
        raise TapError(
            f"{type(model).__name__} has no self-attention with separate linear layers for queries, keys and values "
            "(some models compute them in one product): choose a BERT-like or Llama-like model, or write taps by hand"
        )
    config = getattr(model, "config", None)
    layers = int(getattr(config, "num_hidden_layers", len(found)) or len(found))
    shared = len(found) == 1 and layers > 1  # ALBERT runs one layer many times
    count = layers if shared else len(found)
    if not -count <= layer < count:
        raise TapError(f"{type(model).__name__} has {count} self-attention layers, got layer={layer}")
    path, names = found[0 if shared else layer]
    call = layer % count if shared else None
    query, key, value = (Tap(f"{path}.{name}", call=call) for name in names)
    return AttentionTaps(query, key, value)


def attention_heads(model: nn.Module) -> int:
    """Return the number of attention heads of a model of transformers.

    Raises:
        ConfigError: if its configuration does not say.
    """
    config = getattr(unwrap(model), "config", None)
    heads = getattr(config, "num_attention_heads", None)
    if heads is None:
        raise ConfigError(f"the configuration of {type(unwrap(model)).__name__} names no num_attention_heads")
    return int(heads)
