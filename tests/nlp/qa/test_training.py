"""Generations end to end: who teaches when, what is logged, and a run by config with its start loaded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck_core import Match, Tap
from limbeck_core.calls import MappingCall
from limbeck_core.engine.commands import train
from limbeck_core.errors import MatchError
from limbeck_core.schedules import Progress
from limbeck_nlp.data import pad_batch
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.language_models.past import PastModel
from limbeck_nlp.models import transformer
from limbeck_nlp.qa import GenerationsDistiller, GrammarQuestions, SpanCall, SpanDistillationLoss

SPANS = [Tap("", pick="start_logits"), Tap("", pick="end_logits")]


def bert(task: str = "question_answering") -> torch.nn.Module:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return transformer(task, "bert", vocab_size=1000, max_position_embeddings=64, **shape, hidden_dropout_prob=0.0)


@pytest.fixture(scope="module")
def batch() -> dict[str, Any]:
    data = GrammarQuestions(2, codes=("en", "aa"))
    return pad_batch([data[i] for i in range(len(data))])


def distiller() -> GenerationsDistiller:
    student = bert()
    past = Match(SpanDistillationLoss(tolerance=50), SPANS, SPANS)
    return GenerationsDistiller(
        student, PastModel(student), {"past": past}, task_loss=TokenCrossEntropyLoss(), call=SpanCall()
    )


def at(epoch: int, step: int) -> Progress:
    return Progress(step=step, epoch=epoch, max_steps=20, max_epochs=2)


def move(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)


def test_the_teacher_is_the_student_of_the_epoch_before(batch: dict[str, Any]) -> None:
    model = distiller()
    model.train()
    model.set_progress(at(0, 0))
    assert model(batch)["loss/past"].item() == pytest.approx(0, abs=1e-3)  # but for dropout of attention
    move(model.student)
    model.set_progress(at(0, 5))
    losses = model(batch)
    assert losses["loss/past"].item() > 0.01
    assert losses["past_coefficient"].item() == pytest.approx(1)  # so wide a tolerance is always met
    model.set_progress(at(1, 10))
    assert model(batch)["loss/past"].item() == pytest.approx(0, abs=1e-3)


def test_weights_loaded_after_construction_are_the_first_teacher(batch: dict[str, Any]) -> None:
    model = distiller()
    move(model.student)
    model.set_progress(at(0, 0))
    ours, theirs = model.student.state_dict(), model.teacher.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_task_loss_does_not_depend_on_padding(batch: dict[str, Any]) -> None:
    model = distiller().eval()
    longer = copy.deepcopy(batch)
    for part, names in ((longer["inputs"], ("input_ids", "attention_mask", "token_type_ids")), (longer, ("mask",))):
        for name in names:
            part[name] = torch.nn.functional.pad(part[name], (0, 5))
    with torch.no_grad():
        first, second = model(batch), model(longer)
    assert first["loss/task"].item() == pytest.approx(second["loss/task"].item(), rel=1e-4)
    spans = model(longer, mode="predict")
    assert spans.shape == (8, 2, longer["mask"].shape[1])
    assert (spans[:, :, -5:] == -torch.inf).all()


def test_models_without_spans_are_refused(batch: dict[str, Any]) -> None:
    call = SpanCall()
    with pytest.raises(MatchError, match="gives no start_logits"):
        call.predict(bert("encoder"), batch, "inputs")
    with pytest.raises(MatchError, match="needs 'targets' in the batch"):
        call.loss(bert(), {"inputs": batch["inputs"]}, "inputs", TokenCrossEntropyLoss())
    assert isinstance(call, MappingCall)


def test_a_run_by_config_from_its_start(tmp_path: Path) -> None:
    tiny = {
        "train_dataloader.dataset.size": 12,
        "val_dataloader.dataset.size": 4,
        "train_cfg.max_epochs": 1,
        "+log_level": "ERROR",
    }
    train("nlp/qa/start", work_dir=tmp_path / "start", seed=0, overrides=tiny)
    runner = train(
        "nlp/qa/generations",
        work_dir=tmp_path / "next",
        seed=0,
        overrides={**tiny, "+load_from": str(tmp_path / "start" / "student.pth")},
    )
    scores = {key: runner.message_hub.get_scalar(f"val/{key}").data[0] for key in ("em", "f1", "f1_same")}
    assert all(len(values) == 1 and 0 <= values[0] <= 100 for values in scores.values())
    first = runner.message_hub.get_scalar("train/loss/past").data[0][0]
    assert first < 0.5  # the teacher is the loaded start, not the model as it was built
    assert 0 <= runner.message_hub.get_scalar("train/past_coefficient").data[0][0] <= 1
