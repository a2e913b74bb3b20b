"""Models from a description or a local folder, and where their queries, keys and values are read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from limbeck_core import Distiller, Match
from limbeck_core.calls import MappingCall
from limbeck_core.errors import CheckpointError, ConfigError, TapError
from limbeck_core.losses import SelfAttentionRelationLoss
from limbeck_core.tap import Tap
from limbeck_nlp.models import attention_heads, attention_taps, pad_token_of, transformer

TINY = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}


def tokens(*lengths: int) -> dict[str, torch.Tensor]:
    mask = torch.tensor([[int(i < n) for i in range(max(lengths))] for n in lengths])
    return {"input_ids": torch.randint(5, 40, mask.shape) * mask, "attention_mask": mask}


def test_random_weights_from_a_description() -> None:
    model = transformer("sequence_classification", "bert", **TINY, num_labels=3)
    assert model(**tokens(4, 6)).logits.shape == (2, 3)
    assert attention_heads(model) == 2
    assert pad_token_of(model) == 0


def test_attentions_come_out_when_asked_for() -> None:
    model = transformer("encoder", "bert", **TINY, output_attentions=True)
    assert [tuple(a.shape) for a in model(**tokens(5)).attentions] == [(1, 2, 5, 5)] * 2


def test_a_folder_gives_its_weights_back(tmp_path: Path) -> None:
    model = transformer("sequence_classification", "bert", **TINY, num_labels=3)
    model.save_pretrained(tmp_path)
    again = transformer("sequence_classification", weights=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_a_new_head_must_be_allowed(tmp_path: Path) -> None:
    transformer("sequence_classification", "bert", **TINY, num_labels=3).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"lacks 2 weights .*classifier\.bias.*fresh="):
        transformer("token_classification", weights=tmp_path, num_labels=7)
    model = transformer("token_classification", weights=tmp_path, fresh=("classifier",), num_labels=7)
    assert model(**tokens(4)).logits.shape == (1, 4, 7)


def test_nothing_is_read_on_the_meta_device(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = transformer("encoder", "bert", weights=tmp_path / "absent", **TINY)
    assert next(model.parameters()).is_meta


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "classification"}, "no task is called 'classification'"),
        ({"task": "encoder", "model_type": "brt"}, "no architecture 'brt': did you mean 'bert'"),
        (
            {"task": "encoder", "model_type": "bert", "hiden_size": 8},
            "no entry 'hiden_size': did you mean 'hidden_size'",
        ),
        ({"task": "encoder"}, "needs model_type .* or weights"),
        ({"task": "causal_lm", "model_type": "t5"}, "builds no causal_lm of 't5'"),
    ],
)
def test_what_does_not_exist_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        transformer(**arguments)  # type: ignore[arg-type]


def test_names_of_a_hub_are_not_looked_up() -> None:
    with pytest.raises(CheckpointError, match="there is no model in bert-base-uncased.*not looked up"):
        transformer("encoder", weights="bert-base-uncased")


def test_a_folder_of_another_architecture_is_refused(tmp_path: Path) -> None:
    transformer("encoder", "bert", **TINY).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds a 'bert', the config says model_type='roberta'"):
        transformer("encoder", "roberta", weights=tmp_path)


@pytest.mark.parametrize(
    ("model_type", "options", "path"),
    [
        ("bert", TINY, "encoder.layer.1.attention.self.query"),
        ("roberta", {**TINY, "max_position_embeddings": 40}, "encoder.layer.1.attention.self.query"),
        ("electra", {**TINY, "embedding_size": 16}, "encoder.layer.1.attention.self.query"),
        (
            "distilbert",
            {"vocab_size": 40, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
            "transformer.layer.1.attention.q_lin",
        ),
        ("deberta-v2", {**TINY, "relative_attention": False}, "encoder.layer.1.attention.self.query_proj"),
    ],
)
def test_taps_read_the_last_layer_of_a_family(model_type: str, options: dict[str, object], path: str) -> None:
    model = transformer("encoder", model_type, **options)
    taps = attention_taps(model)
    assert taps.query.path == path
    distiller = Distiller(
        model,
        transformer("encoder", model_type, **options),
        call=MappingCall(),
        matches={
            name: Match(
                SelfAttentionRelationLoss(relation_heads=2),
                tap,
                tap,
                extras={"mask": Tap("inputs", of="batch", pick="attention_mask")},
            )
            for name, tap in taps._asdict().items()
        },
    )
    losses = distiller({"inputs": tokens(4, 6)})
    assert set(losses) == {"loss/query", "loss/key", "loss/value"}
    assert all(0 < loss.item() < 1 for loss in losses.values())


def test_shared_layers_are_told_apart_by_their_call() -> None:
    model = transformer("encoder", "albert", **{**TINY, "num_hidden_layers": 3}, embedding_size=8)
    first, last = attention_taps(model, 0).query, attention_taps(model, -1).query
    assert first.path == last.path
    assert (first.call, last.call) == (0, 2)


def test_fused_projections_are_refused() -> None:
    model = transformer(
        "causal_lm", "gpt2", vocab_size=40, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2
    )
    with pytest.raises(TapError, match="no self-attention with separate linear layers"):
        attention_taps(model)


def test_a_layer_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TapError, match="has 2 self-attention layers, got layer=2"):
        attention_taps(transformer("encoder", "bert", **TINY), 2)
