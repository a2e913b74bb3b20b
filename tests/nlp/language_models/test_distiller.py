"""The distiller of language models: on-policy batches, vocabularies, and the past self."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from limbeck_core import Match, Tap
from limbeck_core.calls import MappingCall
from limbeck_core.errors import ConfigError, MatchError
from limbeck_core.losses import GeneralizedJSDLoss, LinearJSDLoss
from limbeck_core.schedules import Complement, Progress
from limbeck_nlp.data import corpus, grammar_tokenizer
from limbeck_nlp.evaluation import TokenMetric
from limbeck_nlp.language_models import GrammarLines, TokenCrossEntropyLoss, pad_prompted
from limbeck_nlp.language_models.distiller import LanguageModelDistiller
from limbeck_nlp.language_models.past import PastModel, PastWeight
from limbeck_nlp.models import transformer
from limbeck_nlp.tokenization import train_tokenizer


def llama(width: int = 16, vocabulary: int = 160) -> torch.nn.Module:
    return transformer(
        "causal_lm",
        "llama",
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        bos_token_id=5,
        eos_token_id=6,
        pad_token_id=0,
        initializer_range=0.3,
    )


def logits_match(beta: float = 0.5) -> Match:
    return Match(GeneralizedJSDLoss(beta=beta), Tap("", pick="logits"), Tap("", pick="logits"))


def distiller(**options: Any) -> LanguageModelDistiller:
    defaults: dict[str, Any] = {
        "matches": {"tokens": logits_match()},
        "call": MappingCall(),
        "task_loss": TokenCrossEntropyLoss(),
        "max_new_tokens": 4,
    }
    return LanguageModelDistiller(llama(), llama(24), **{**defaults, **options}).train()


@pytest.fixture(scope="module")
def batch() -> dict[str, Any]:
    data = GrammarLines(4)
    return pad_prompted([data[i] for i in range(4)])


def test_on_policy_batches_are_the_students_own(batch: dict[str, Any]) -> None:
    model = distiller(on_policy=1.0)
    losses = model(batch)
    assert losses["loss/task"].item() == 0
    assert losses["loss/tokens"].item() > 0
    torch.manual_seed(0)
    made = model.rewritten(batch)
    asked = batch["prompts"]["attention_mask"].sum(1)
    for row, start in enumerate(asked.tolist()):
        written = made["inputs"]["input_ids"][row, start:]
        counted = made["mask"][row, start - 1 : -1]
        assert 1 <= counted.sum() <= 4
        assert torch.equal(made["written"][row, start - 1 : -1][counted], written[counted])
    assert (made["targets"] == -100).all()
    assert model.student.training


def test_the_share_decides_how_often(batch: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = distiller(on_policy=0.5)
    seen = []
    monkeypatch.setattr(model, "rewritten", lambda b: seen.append(1) or b)
    for _ in range(40):
        model(batch)
    assert 10 <= len(seen) <= 30
    seen.clear()
    model.eval()
    model(batch)
    assert not seen


def test_batches_without_prompts_are_refused(batch: dict[str, Any]) -> None:
    bare = {name: value for name, value in batch.items() if name != "prompts"}
    with pytest.raises(MatchError, match="on_policy needs 'prompts' in the batch"):
        distiller(on_policy=1.0)(bare)
    with pytest.raises(ValueError, match="on_policy"):
        distiller(on_policy=1.5)


def test_prompts_and_padding_have_no_influence_on_the_loss(batch: dict[str, Any]) -> None:
    model = distiller().eval()
    before = model(batch)["loss/tokens"].item()
    student, teacher = (m(**batch["inputs"]).logits[batch["mask"]] for m in (model.student, model.teacher.model))
    assert before == pytest.approx(GeneralizedJSDLoss()(student, teacher).item(), rel=1e-5)


def test_the_chunked_loss_agrees(batch: dict[str, Any]) -> None:
    chunked = Match(
        LinearJSDLoss(chunk_size=3),
        "model.norm",
        "model.norm",
        extras={
            "student_weight": Tap("lm_head.weight", of="student"),
            "teacher_weight": Tap("lm_head.weight", of="teacher"),
        },
    )
    losses = distiller(matches={"tokens": logits_match(), "chunked": chunked}).eval()(batch)
    assert losses["loss/chunked"].item() == pytest.approx(losses["loss/tokens"].item(), rel=1e-5)


def test_a_padded_vocabulary_is_cut_and_another_one_refused(batch: dict[str, Any]) -> None:
    model = LanguageModelDistiller(
        llama(), llama(24, vocabulary=192), matches={"tokens": logits_match()}, call=MappingCall()
    )
    assert model(batch)["loss/tokens"].item() > 0
    other = train_tokenizer(corpus(100), vocabulary_size=150)
    with pytest.raises(ConfigError, match="different vocabularies.*write_completions"):
        distiller(student_tokenizer=grammar_tokenizer(), teacher_tokenizer=other)
    distiller(student_tokenizer=grammar_tokenizer(), teacher_tokenizer=grammar_tokenizer())


def past(value: float = 0.7) -> LanguageModelDistiller:
    student = llama()
    match = Match(
        GeneralizedJSDLoss(beta=0.0), Tap("", pick="logits"), Tap("", pick="logits"), weight=PastWeight(value)
    )
    return LanguageModelDistiller(
        student,
        PastModel(student),
        matches={"past": match},
        call=MappingCall(),
        task_loss=TokenCrossEntropyLoss(),
        task_weight=Complement(PastWeight(value)),
    ).train()


def at(epoch: int) -> Progress:
    return Progress(step=10 * epoch, epoch=epoch, max_steps=100, max_epochs=10)


def test_the_first_epoch_is_cross_entropy_and_then_the_past_takes_over(batch: dict[str, Any]) -> None:
    model = past()
    model.set_progress(at(0))
    first = model(batch)
    assert first["loss/past"].item() == 0
    plain = first["loss/task"].item()
    model.set_progress(at(4))
    later = model(batch)
    assert later["loss/task"].item() == pytest.approx(plain * (1 - 0.7 * 5 / 10))
    assert later["loss/past"].item() == pytest.approx(0, abs=1e-6)  # the past self is the student still


def test_weight_zero_reproduces_cross_entropy(batch: dict[str, Any]) -> None:
    model = past(0.0)
    model.set_progress(at(7))
    losses = model(batch)
    expected = TokenCrossEntropyLoss()(model.student(**batch["inputs"]).logits, batch["targets"])
    assert sum(loss.item() for loss in losses.values()) == pytest.approx(expected.item())


def test_the_past_is_the_student_at_the_end_of_the_epoch_before(batch: dict[str, Any]) -> None:
    model = past()
    teacher = model.teacher
    assert isinstance(teacher, PastModel)
    before = copy.deepcopy(teacher.model.state_dict())
    for parameter in model.student.parameters():
        parameter.data.add_(0.1)
    model.set_progress(at(0))
    assert all(torch.equal(a, b) for a, b in zip(teacher.model.state_dict().values(), before.values(), strict=True))
    model.set_progress(at(1))
    end = copy.deepcopy(model.student.state_dict())
    for parameter in model.student.parameters():
        parameter.data.add_(0.1)
    model.set_progress(at(1))  # within the epoch
    assert all(torch.equal(a, b) for a, b in zip(teacher.model.state_dict().values(), end.values(), strict=True))
    other = past()
    other.load_state_dict_extra(model.state_dict_extra())
    other.set_progress(at(1))  # resumed in the middle of the epoch: the copy is the checkpoint's
    found = other.teacher.model.state_dict()
    assert all(torch.equal(a, b) for a, b in zip(found.values(), end.values(), strict=True))


def test_the_gradient_is_that_of_the_blended_target(batch: dict[str, Any]) -> None:
    """(1 - a) CE(label) + a KL(past | student) differs from CE of the blend by a constant only."""
    model = past()
    model.set_progress(at(4))
    for parameter in model.student.parameters():
        parameter.data.mul_(1.1)
    sum(model(batch).values()).backward()
    found = [p.grad.clone() for p in model.student.parameters()]
    model.zero_grad()
    logits = model.student(**batch["inputs"]).logits[batch["mask"]]
    with torch.no_grad():
        q = model.teacher.model(**batch["inputs"]).logits[batch["mask"]].softmax(-1) * 0.35
    labels = torch.nn.functional.one_hot(batch["targets"][batch["mask"]], logits.shape[-1]) * 0.65
    assert (q + labels).sum(-1).allclose(torch.ones(len(q)))
    (-(q + labels) * logits.log_softmax(-1)).sum(-1).mean().backward()
    for ours, p in zip(found, model.student.parameters(), strict=True):
        torch.testing.assert_close(ours, p.grad, rtol=1e-4, atol=1e-6)


def test_the_metric_counts_tokens_not_batches() -> None:
    logits = torch.randn(3, 4, 5)
    targets = torch.tensor([[1, 2, 3, 4], [0, -100, -100, -100], [-100] * 4])
    metric = TokenMetric()
    metric.process({"targets": targets[:1]}, logits[:1])
    metric.process({"targets": targets[1:]}, list(logits[1:]))
    found = metric.compute_metrics(metric.results)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).item()
    assert found["nll"] == pytest.approx(expected, rel=1e-6)
    assert found["perplexity"] == pytest.approx(torch.tensor(expected).exp().item(), rel=1e-5)
    assert len(metric.per_sample["nll"]) == 3
