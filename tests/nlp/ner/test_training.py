"""Data, decoding, the metric, and ProKD's two stages end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from limbeck_core import Match, Tap
from limbeck_core.calls import MappingCall
from limbeck_core.engine.commands import train
from limbeck_core.errors import ConfigError, DataError, MatchError, ShapeError
from limbeck_core.schedules import Progress
from limbeck_nlp.data import pad_batch
from limbeck_nlp.evaluation import EntityMetric
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.models import transformer
from limbeck_nlp.ner import (
    GRAMMAR_LABELS,
    AlignedTeacherDistiller,
    ColumnText,
    GrammarEntities,
    ProbabilityMSELoss,
    ProKDDistiller,
    SourceAndTarget,
    TaggedSentence,
    TaggedText,
    viterbi_tags,
)
from limbeck_nlp.ner.data import grammar_entity_tokenizer
from limbeck_nlp.tokenization import train_tokenizer

LOGITS = Tap("", pick="logits")
SIZE = {"num_classes": len(GRAMMAR_LABELS), "width": 16}


def bert() -> nn.Module:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return transformer(
        "token_classification",
        "bert",
        vocab_size=1000,
        max_position_embeddings=32,
        num_labels=7,
        output_hidden_states=True,
        **shape,
    )


def pairs(count: int = 12) -> dict[str, Any]:
    data = SourceAndTarget(GrammarEntities(count), GrammarEntities(count, seed=1, language="aa", labelled=False))
    return pad_batch([data[i] for i in range(count)])


def at(epoch: int) -> Progress:
    return Progress(step=10 * epoch, epoch=epoch, max_steps=20, max_epochs=2)


def test_the_first_piece_of_each_word_has_the_label(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Marabel B-PER\nBerg I-PER\nx O\n")
    pieces = train_tokenizer(["Ma Be x"], kind="bpe", vocabulary_size=300)
    data = ColumnText(tmp_path, "a.txt", pieces)
    sample = data[0]
    assert data.classes == ("O", "B-PER", "I-PER")
    assert sample["targets"][sample["mask"]].tolist() == [1, 2, 0]
    assert sample["word"][sample["mask"]].tolist() == [0, 1, 2]
    assert (sample["targets"] != -100).equal(sample["mask"])
    assert len(sample["mask"]) > 5
    hidden = ColumnText(tmp_path, "a.txt", pieces, labelled=False)[0]
    assert (hidden["targets"] == -100).all()
    assert hidden["mask"].equal(sample["mask"])
    with pytest.raises(DataError, match="the tag 'B-PER' is not in labels"):
        ColumnText(tmp_path, "a.txt", pieces, labels=("O", "B-LOC", "I-LOC"))


def test_source_and_target_have_the_same_labels() -> None:
    batch = pairs()
    assert batch["other"]["input_ids"].shape == batch["other_mask"].shape
    other = TaggedText([TaggedSentence(("Rom",), ("B-LOC",))], grammar_entity_tokenizer())
    with pytest.raises(ConfigError, match="must have the same labels"):
        SourceAndTarget(GrammarEntities(2), other)


def test_viterbi_finds_the_likeliest_tags_that_are_bio() -> None:
    labels = ("O", "B-A", "I-A", "B-B", "I-B")
    logits = torch.tensor([[2.0, 1.9, 0, 0, 0], [0, 0, 9.0, 0, 0], [0, 0, 0, 0, 3.0]])
    # argmax says O, I-A, I-B, none of which may follow the one before
    assert viterbi_tags(logits, labels) == ["B-A", "I-A", "O"]
    assert viterbi_tags(logits[:0], labels) == []
    possible = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    tags = viterbi_tags(possible, labels)
    assert all(not t.startswith("I") or b[2:] == t[2:] for b, t in zip(["O", *tags], tags, strict=False))
    with pytest.raises(ShapeError, match=r"logits must have shape \(T, 5\)"):
        viterbi_tags(logits[:, :2], labels)


@pytest.mark.parametrize("decode", ["argmax", "viterbi"])
def test_perfect_predictions_score_a_hundred_but_for_cut_words(decode: Any) -> None:
    data = GrammarEntities(30)
    batch = pad_batch([data[i] for i in range(30)])
    logits = 9.0 * nn.functional.one_hot(batch["targets"].clamp_min(0), 7).float()
    metric = EntityMetric(GRAMMAR_LABELS, decode=decode)
    metric.process(batch, logits)
    assert metric.compute_metrics(metric.results) == {"f1": 100, "precision": 100, "recall": 100, "repaired": 0}
    assert metric.predictions == list(data.sentences)
    short = GrammarEntities(30, max_length=4)  # two words a sentence
    batch = pad_batch([short[i] for i in range(30)])
    metric = EntityMetric(GRAMMAR_LABELS, decode=decode)
    metric.process(batch, 9.0 * nn.functional.one_hot(batch["targets"].clamp_min(0), 7).float())
    scores = metric.compute_metrics(metric.results)
    assert 0 < scores["recall"] < 100
    with pytest.raises(ShapeError, match="predictions must be logits of shape"):
        metric.process(batch, logits[:, :2])
    del batch["word"]
    with pytest.raises(DataError, match="needs 'word' in the batch"):
        metric.process(batch, logits)
    with pytest.raises(ConfigError, match="decode must be"):
        EntityMetric(GRAMMAR_LABELS, decode="beam")  # type: ignore[arg-type]


def test_alignment_begins_when_told_and_reaches_the_encoder() -> None:
    torch.manual_seed(0)
    model = AlignedTeacherDistiller(
        bert(), call=MappingCall(), task_loss=TokenCrossEntropyLoss(), confidence=0.0, **SIZE
    )
    model.train()
    batch = pairs()
    model.set_progress(at(0))
    assert model(batch)["loss/alignment"].item() == 0
    assert model.source.seen.any()
    model.set_progress(at(1))
    losses = model(batch)
    assert losses["loss/alignment"].item() > 0
    assert -1 <= losses["prototype_cosine"].item() <= 1
    losses["loss/alignment"].backward()
    gradients = [p.grad for name, p in model.student.named_parameters() if "encoder" in name]
    assert any(g is not None and g.abs().sum() > 0 for g in gradients)
    assert {name for name in model.state_dict() if not name.startswith("student")} == {
        f"{side}.{part}" for side in ("source", "target") for part in ("seen", "vectors")
    }
    del batch["other"]
    with pytest.raises(MatchError, match="alignment needs 'other' in the batch"):
        model(batch)


def test_without_sure_words_only_the_source_has_prototypes() -> None:
    model = AlignedTeacherDistiller(
        bert(), call=MappingCall(), task_loss=TokenCrossEntropyLoss(), confidence=1.0, **SIZE
    )
    model.train()
    losses = model(pairs())
    assert losses["loss/alignment"].item() == 0
    assert not model.target.seen.any()
    assert "prototype_cosine" not in losses


def student_of(teacher: nn.Module, **options: Any) -> ProKDDistiller:
    kd = Match(ProbabilityMSELoss(), LOGITS, LOGITS)
    return ProKDDistiller(bert(), teacher, {"kd": kd}, call=MappingCall(labels=None), **SIZE, **options)


def test_self_training_begins_when_told_and_rests_when_entities_vanish() -> None:
    torch.manual_seed(0)
    data = GrammarEntities(12, language="aa", labelled=False)
    batch = pad_batch([data[i] for i in range(12)])
    teacher = bert()
    with torch.no_grad():
        teacher.classifier.weight.mul_(20)  # a teacher that says several things
    model = student_of(teacher, threshold=0.0)
    model.train()
    model.set_progress(at(0))
    assert model(batch)["loss/self_training"].item() == 0
    model.set_progress(at(1))
    losses = model(batch)
    assert losses["loss/self_training"].item() > 0
    assert losses["entity_share"].item() > 0
    losses["loss/self_training"].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.student.parameters())
    model.entities.copy_(torch.tensor([0.0, 100.0]))
    losses = model(batch)
    assert losses["loss/self_training"].item() == 0
    assert losses["entity_share"].item() < 0.3


def test_validation_leaves_prototypes_alone() -> None:
    data = GrammarEntities(4, language="aa", labelled=False)
    model = student_of(bert()).eval()
    model(pad_batch([data[i] for i in range(4)]))
    assert not model.prototypes.seen.any()


def test_two_stages_by_config(tmp_path: Path) -> None:
    shared = {"val_dataloader.dataset.size": 10, "train_cfg.max_epochs": 2, "+log_level": "ERROR"}
    sizes = {f"train_dataloader.dataset.{side}.size": 40 for side in ("source", "target")}
    train("nlp/ner/teacher", work_dir=tmp_path / "teacher", seed=0, overrides={**shared, **sizes})
    checkpoint = {"model.teacher.checkpoint": str(tmp_path / "teacher" / "student.pth")}
    runner = train(
        "nlp/ner/prokd",
        work_dir=tmp_path / "student",
        seed=0,
        overrides={**shared, "train_dataloader.dataset.size": 40, **checkpoint},
    )
    assert 0 <= runner.message_hub.get_scalar("val/f1").data[0][-1] <= 100
    assert runner.message_hub.get_scalar("train/loss/kd").data[0][-1] > 0
    assert runner.message_hub.get_scalar("train/entity_share").data[0][-1] >= 0
