"""MiniLM, DistilBERT and TinyBERT on tiny BERTs: limits, padding, mismatches, and where gradients go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck_core import Distiller
from limbeck_core.calls import MappingCall
from limbeck_core.errors import ConfigError, ShapeError
from limbeck_core.losses import AttentionMSELoss
from limbeck_nlp.encoder_compression import (
    AttentionScores,
    EachLayer,
    SumOverLayers,
    distilbert_matches,
    layer_map,
    minilm_matches,
    thinned,
    tinybert_matches,
)
from limbeck_nlp.models import transformer


def bert(width: int = 16, layers: int = 2, heads: int = 2, task: str = "masked_lm", **options: Any) -> torch.nn.Module:
    options = {"output_hidden_states": True, **options}
    return transformer(
        task,
        "bert",
        vocab_size=40,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        max_position_embeddings=32,
        initializer_range=0.5,  # relations far from uniform
        **options,
    ).eval()


def batch(*lengths: int, padding: int = 0) -> dict[str, Any]:
    width = max(lengths) + padding
    generator = torch.Generator().manual_seed(1)
    mask = torch.tensor([[int(i < n) for i in range(width)] for n in lengths])
    ids = torch.randint(5, 40, (len(lengths), 20), generator=generator)[:, :width] * mask
    targets = torch.where(mask.bool() & (ids % 2 == 0), ids, -100)
    inputs = {"input_ids": ids, "attention_mask": mask}
    return {"inputs": inputs, "targets": targets, "mask": targets != -100}


def losses(student: torch.nn.Module, teacher: torch.nn.Module, matches: Any, sample: Any) -> dict[str, torch.Tensor]:
    distiller = Distiller(student, teacher, matches, call=MappingCall(labels=None)).eval()
    return distiller(sample)


@pytest.mark.parametrize("version", [1, 2])
def test_equal_models_have_nothing_to_learn(version: Any) -> None:
    model = bert()
    found = losses(model, bert_copy(model), minilm_matches(model, model, version=version), batch(5, 7))
    assert set(found) == (
        {"loss/attention", "loss/value"} if version == 1 else {"loss/query", "loss/key", "loss/value"}
    )
    assert all(loss.item() == pytest.approx(0, abs=1e-6) for loss in found.values())


def bert_copy(model: torch.nn.Module) -> torch.nn.Module:
    other = bert()
    other.load_state_dict(model.state_dict())
    return other


@pytest.mark.parametrize("version", [1, 2])
def test_padding_has_no_influence(version: Any) -> None:
    student, teacher = bert(8), bert(16)
    matches = minilm_matches(student, teacher, version=version)
    short = losses(student, teacher, matches, batch(5, 7))
    padded = losses(student, teacher, matches, batch(5, 7, padding=10))
    for name, loss in short.items():
        assert loss.item() > 0.01
        assert padded[name].item() == pytest.approx(loss.item(), rel=1e-5)


def test_relation_heads_bridge_widths_depths_and_heads() -> None:
    student, teacher = bert(12, layers=1, heads=3), bert(16, layers=3, heads=2)
    matches = minilm_matches(student, teacher)
    assert matches["query"].loss.relation_heads == 4
    assert matches["query"].teacher[0].path == "bert.encoder.layer.2.attention.self.query"
    assert all(loss.item() > 0 for loss in losses(student, teacher, matches, batch(6)).values())


def test_the_part_behind_the_projections_gets_no_gradient() -> None:
    student, teacher = bert(8), bert(16)
    found = losses(student, teacher, minilm_matches(student, teacher), batch(5, 7))
    sum(found.values()).backward()  # type: ignore[union-attr]
    moved = {name for name, p in student.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any(".layer.0.output.dense.weight" in name for name in moved)
    assert any(".layer.1.attention.self.value.weight" in name for name in moved)
    assert not any(
        ".layer.1.attention.output" in n or ".layer.1.output" in n or ".layer.1.intermediate" in n for n in moved
    )


def test_the_order_of_relation_heads_matters() -> None:
    student, teacher = bert(16), bert(16)
    matches = minilm_matches(student, teacher, relation_heads=2)
    before = losses(student, teacher, matches, batch(6))["loss/query"].item()
    layer = teacher.get_submodule("bert.encoder.layer.1.attention.self.query")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(parameter.roll(8, 0))
    assert losses(student, teacher, matches, batch(6))["loss/query"].item() != pytest.approx(before, rel=1e-3)


def test_minilm_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(ConfigError, match="the student has 4 and the teacher 2: use version=2"):
        minilm_matches(bert(heads=4), bert(heads=2), version=1)
    with pytest.raises(ConfigError, match=r"relation_heads=5 must divide .* \[8, 16\]"):
        minilm_matches(bert(8), bert(16), relation_heads=5)
    with pytest.raises(ConfigError, match="belongs to version 2"):
        minilm_matches(bert(), bert(), version=1, relation_heads=2)


def test_distilbert_compares_masked_words_and_directions() -> None:
    student, teacher = bert(layers=1), bert()
    found = losses(student, teacher, distilbert_matches(), batch(5, 7))
    sample = batch(5, 7)
    logits = [model(**sample["inputs"]).logits[sample["mask"]].detach() for model in (student, teacher)]
    log_student, log_teacher = (torch.log_softmax(z / 2, -1) for z in logits)
    expected = (log_teacher.exp() * (log_teacher - log_student)).sum(-1).mean()
    assert found["loss/logits"].item() == pytest.approx(5 * 4 * expected.item(), rel=1e-5)
    assert 0 < found["loss/hidden"].item() < 2


def test_tinybert_maps_layers_and_widths() -> None:
    student, teacher = bert(8, layers=2), bert(16, layers=4)
    matches = tinybert_matches(student, teacher)
    assert [tap.pick for tap in matches["hidden"].teacher] == [("hidden_states", i) for i in (0, 2, 4)]
    found = losses(student, teacher, matches, batch(5, 7))
    padded = losses(student, teacher, matches, batch(5, 7, padding=4))
    for name in ("loss/attention", "loss/hidden"):
        assert found[name].item() > 0
        assert padded[name].item() == pytest.approx(found[name].item(), rel=1e-4)
    sum(found.values()).backward()  # type: ignore[union-attr]
    assert matches["hidden"].adapter.adapters[0].linear.weight.grad.abs().sum() > 0


def test_tinybert_averages_heads_of_different_number() -> None:
    student, teacher = bert(8, heads=2), bert(16, heads=4)
    found = losses(student, teacher, tinybert_matches(student, teacher), batch(6))
    assert found["loss/attention"].item() > 0


def test_attention_scores_are_those_of_the_model() -> None:
    model = bert(output_attentions=True)
    sample = batch(6)
    layer = model.get_submodule("bert.encoder.layer.0.attention.self")
    seen: dict[str, torch.Tensor] = {}
    for name in ("query", "key"):
        layer.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: o}))
    attention = model(**sample["inputs"]).attentions[0]
    scores = AttentionScores(2)([seen["query"], seen["key"]])
    torch.testing.assert_close(scores.softmax(-1), attention)


def test_layer_maps() -> None:
    assert layer_map(6, 12) == (2, 4, 6, 8, 10, 12)
    assert layer_map(3, 4) == (1, 3, 4)
    with pytest.raises(ConfigError, match="the student must have 1 to 2 layers"):
        layer_map(3, 2)
    with pytest.raises(ConfigError, match="layers must name one of the teacher's layers 1 to 4"):
        tinybert_matches(bert(layers=2), bert(layers=4), layers=(0, 4))


def test_a_thinned_student_begins_as_the_layers_it_keeps(tmp_path: Path) -> None:
    teacher = bert(layers=4)
    teacher.save_pretrained(tmp_path)
    student = thinned("masked_lm", tmp_path, (0, 2))
    assert student.config.num_hidden_layers == 2
    for ours, theirs in ((0, 0), (1, 2)):
        path = "bert.encoder.layer.{}.intermediate.dense.weight"
        assert torch.equal(student.get_parameter(path.format(ours)), teacher.get_parameter(path.format(theirs)))
    assert student(**batch(5)["inputs"]).logits.shape == (1, 5, 40)
    student.save_pretrained(tmp_path / "thin")
    again = transformer("masked_lm", weights=tmp_path / "thin")
    torch.testing.assert_close(again.eval()(**batch(5)["inputs"]).logits, student.eval()(**batch(5)["inputs"]).logits)
    with pytest.raises(ConfigError, match=r"layers 0 to 3, got \[4\]"):
        thinned("masked_lm", tmp_path, (4,))


def test_errors_of_the_pieces() -> None:
    with pytest.raises(ShapeError, match="D divisible by 3 heads"):
        AttentionScores(3)([torch.zeros(1, 2, 8)] * 2)
    with pytest.raises(ConfigError, match="heads must be at least 1"):
        AttentionScores(0)
    with pytest.raises(ShapeError, match="got 2 and 1"):
        SumOverLayers(AttentionMSELoss())([torch.zeros(1, 2, 2)] * 2, [torch.zeros(1, 2, 2)])
    with pytest.raises(ShapeError, match="a multiple of 2 values, got 3"):
        EachLayer(AttentionScores(1), groups=2)([torch.zeros(1, 2, 8)] * 3)
    with pytest.raises(ShapeError, match="2 times 1 values, got 1"):
        EachLayer([torch.nn.Identity(), torch.nn.Identity()])([torch.zeros(1)])
