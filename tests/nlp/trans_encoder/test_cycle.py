"""Trans-Encoder: losses by hand, both orders, the two forms, their mean, and one cycle end to end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck_core import Distiller, Match, Tap
from limbeck_core.calls import MappingCall
from limbeck_core.errors import DataError, LimbeckError, ShapeError
from limbeck_nlp.data import grammar_tokenizer, pad_batch
from limbeck_nlp.evaluation import PairScoreMetric
from limbeck_nlp.models import transformer
from limbeck_nlp.trans_encoder import (
    BiEncoder,
    CrossEncoder,
    GrammarPairs,
    InBatchContrastLoss,
    MeanScore,
    SentencePairs,
    pair_score_cross_entropy_loss,
    pair_score_mse_loss,
)
from limbeck_nlp.trans_encoder.__main__ import run


def bert(task: str, **options: Any) -> torch.nn.Module:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return transformer(task, "bert", vocab_size=160, max_position_embeddings=64, **shape, **options)


@pytest.fixture(scope="module")
def batch() -> dict[str, Any]:
    data = GrammarPairs(6)
    return pad_batch([data[i] for i in range(6)])


def test_losses_by_hand() -> None:
    logits, scores = torch.tensor([0.3, -1.0]), torch.tensor([0.8, -0.2])
    p = logits.sigmoid()
    expected = torch.stack([-(0.8 * p[0].log() + 0.2 * (1 - p[0]).log()), -(1 - p[1]).log()])
    torch.testing.assert_close(pair_score_cross_entropy_loss(logits, scores, reduction="none"), expected)
    squares = (scores - p).square()
    torch.testing.assert_close(pair_score_mse_loss(scores, logits), squares.mean())
    with pytest.raises(ShapeError, match="student_logits"):
        pair_score_cross_entropy_loss(logits, scores[:1])


def test_no_gradient_reaches_the_teacher() -> None:
    for loss in (pair_score_cross_entropy_loss, pair_score_mse_loss):
        student, teacher = torch.rand(3, requires_grad=True), torch.rand(3, requires_grad=True)
        loss(student, teacher).backward()
        assert student.grad is not None
        assert teacher.grad is None
        assert loss(student[:0], teacher[:0]).item() == 0


def test_contrast_by_hand() -> None:
    first, second = torch.eye(3)[:2], torch.eye(3)[:2] * 5
    expected = -math.log(math.exp(2) / (math.exp(2) + 1))
    assert InBatchContrastLoss(0.5)(first, second).item() == pytest.approx(expected)
    assert InBatchContrastLoss()(first[:1], second[:1]).item() == 0
    with pytest.raises(ValueError, match="temperature"):
        InBatchContrastLoss(0.0)


def test_pairs_come_in_both_orders() -> None:
    data = GrammarPairs(5, both_orders=True)
    assert len(data) == 10
    assert data.pairs[7] == data.pairs[2][::-1]
    assert data.scores[7] == data.scores[2]
    sample = data[0]
    assert sample["inputs"]["token_type_ids"].max() == 1
    decoded = data.tokenizer.decode(sample["pair"]["first"]["input_ids"], skip_special_tokens=True)
    assert decoded == data.pairs[0][0]


def test_tables_of_pairs_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("sentence1\tsentence2\tscore\nTom will\t\t2.5\n", encoding="utf-8")
    data = SentencePairs(tmp_path, "a.tsv", grammar_tokenizer(), score="score")
    assert data[0]["targets"] == 2.5
    assert len(data[0]["pair"]["second"]["input_ids"]) == 2  # an empty sentence is its special tokens
    (tmp_path / "b.tsv").write_text("sentence1\tsentence2\tscore\na\tb\tx\n", encoding="utf-8")
    with pytest.raises(DataError, match="'score' must hold numbers"):
        SentencePairs(tmp_path, "b.tsv", grammar_tokenizer(), score="score")


def test_equal_sentences_have_cosine_one(batch: dict[str, Any]) -> None:
    model = BiEncoder(bert("encoder")).eval()
    pair = {"first": batch["pair"]["first"], "second": batch["pair"]["first"]}
    torch.testing.assert_close(model(**pair)["logits"], torch.ones(6))


def test_each_form_teaches_the_other(batch: dict[str, Any]) -> None:
    bi, cross = BiEncoder(bert("encoder")), CrossEncoder(bert("sequence_classification", num_labels=1))
    scores = Tap("", pick="logits")
    for student, teacher, loss, views in (
        (cross, bi, pair_score_cross_entropy_loss, {"teacher_view": "pair"}),
        (bi, cross, pair_score_mse_loss, {"student_view": "pair"}),
    ):
        model = Distiller(
            student, teacher, {"scores": Match(loss, scores, scores)}, call=MappingCall(labels=None), **views
        )
        model(batch)["loss/scores"].backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())
        student.requires_grad_(True)
        teacher.requires_grad_(True)


def test_several_teachers_are_averaged(batch: dict[str, Any]) -> None:
    bis = {name: BiEncoder(bert("encoder")) for name in ("one", "other")}
    match = Match(
        pair_score_cross_entropy_loss,
        Tap("", pick="logits"),
        [Tap("", pick="logits", of=name) for name in bis],
        teacher_adapter=MeanScore(),
    )
    cross = CrossEncoder(bert("sequence_classification", num_labels=1)).eval()
    model = Distiller(cross, bis, {"scores": match}, call=MappingCall(labels=None), teacher_view="pair").eval()
    mean = torch.stack([bi.eval()(**batch["pair"])["logits"] for bi in bis.values()]).mean(0)
    expected = pair_score_cross_entropy_loss(cross(**batch["inputs"])["logits"], mean)
    assert model(batch)["loss/scores"].item() == pytest.approx(expected.item(), rel=1e-5)
    logits = [torch.tensor([0.0, 2.0]), torch.tensor([1.0, -3.0])]
    torch.testing.assert_close(MeanScore(logits=True)(logits).sigmoid(), torch.stack(logits).sigmoid().mean(0))


def test_a_cross_encoder_has_one_logit(batch: dict[str, Any]) -> None:
    with pytest.raises(ShapeError, match="set num_labels=1"):
        CrossEncoder(bert("sequence_classification", num_labels=2))(**batch["inputs"])


def test_constant_scores_have_no_correlation() -> None:
    metric = PairScoreMetric()
    metric.process({"targets": torch.tensor([1.0, 2.0, 3.0])}, torch.tensor([0.1, 0.3, 0.9]))
    assert metric.compute_metrics(metric.results)["spearman"] == pytest.approx(100)
    flat = [(0.5, 1.0), (0.5, 2.0)]
    assert metric.compute_metrics(flat) == {"spearman": 0.0, "spread": 0.0}


def test_one_cycle_end_to_end(tmp_path: Path) -> None:
    tiny = {"train_dataloader.dataset.size": 32, "val_dataloader.dataset.size": 20, "train_cfg.max_epochs": 1}
    scores = run(tmp_path, cycles=1, overrides={**tiny, "+log_level": "ERROR"})
    assert list(scores) == ["start", "cross 1", "bi 1"]
    assert (tmp_path / "best_bi.pth").is_file()
    with pytest.raises(LimbeckError, match="cycles must be 1 or more"):
        run(tmp_path, cycles=0)
