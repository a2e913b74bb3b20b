"""Word-level, sequence-level and past-self distillation of Marian models; without fairseq, a sentence."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck_core import Match, Tap
from limbeck_core.build import build
from limbeck_core.engine.config import load_config
from limbeck_core.errors import ConfigError, DataError, MissingDependency, ShapeError
from limbeck_core.losses import GeneralizedJSDLoss
from limbeck_core.schedules import Complement, Progress
from limbeck_nlp.data import pad_batch
from limbeck_nlp.evaluation import TranslationMetric
from limbeck_nlp.evaluation.bleu import closest_to_reference, corpus_bleu, sentence_bleu
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.language_models.completions import Filter
from limbeck_nlp.language_models.distiller import TokenDistiller
from limbeck_nlp.language_models.past import PastModel, PastWeight
from limbeck_nlp.models import transformer
from limbeck_nlp.translation import GrammarTranslations, ParallelText, TranslationCall, write_translations
from limbeck_nlp.translation.__main__ import main
from limbeck_nlp.translation.generation import write


def marian(width: int = 16, **more: Any) -> torch.nn.Module:
    sizes = {f"{side}_{name}": size for side in ("encoder", "decoder")
             for name, size in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 16))}  # fmt: skip
    tokens = dict(pad_token_id=0, eos_token_id=6, bos_token_id=5, decoder_start_token_id=0, forced_eos_token_id=6)
    options = {"vocab_size": 457, "d_model": width, "max_position_embeddings": 64, "init_std": 0.3, **sizes, **tokens}
    return transformer("seq2seq_lm", "marian", **{**options, **more})


def tokens_match(weight: Any = 1.0) -> Match:
    return Match(GeneralizedJSDLoss(0.0), Tap("", pick="logits"), Tap("", pick="logits"), weight=weight)


def distiller(**options: Any) -> TokenDistiller:
    defaults: dict[str, Any] = {
        "teacher": marian(24),
        "matches": {"tokens": tokens_match()},
        "call": TranslationCall(max_new_tokens=8),
        "task_loss": TokenCrossEntropyLoss(smoothing=0.1),
    }
    options = {**defaults, **options}
    return TokenDistiller(marian(dropout=0.0), options.pop("teacher"), options.pop("matches"), **options).train()


@pytest.fixture(scope="module")
def data() -> GrammarTranslations:
    return GrammarTranslations(6)


@pytest.fixture(scope="module")
def batch(data: GrammarTranslations) -> dict[str, Any]:
    return pad_batch([data[i] for i in range(4)])


def test_word_level_is_the_mean_over_tokens(batch: dict[str, Any]) -> None:
    pair = distiller()
    losses = pair(batch)
    with torch.no_grad():
        student, teacher = (m(**batch["inputs"]).logits for m in (pair.student, pair.teachers["teacher"]))
    p = teacher.softmax(-1)
    by_hand = (p * (p.log() - student.log_softmax(-1))).sum(-1)[batch["mask"]].mean()
    torch.testing.assert_close(losses["loss/tokens"].detach(), by_hand)
    own = TokenCrossEntropyLoss(smoothing=0.1)(student, batch["targets"])
    torch.testing.assert_close(losses["loss/task"].detach(), own)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in pair.student.parameters() if p.requires_grad)


def test_padding_changes_nothing(data: GrammarTranslations, batch: dict[str, Any]) -> None:
    pair = distiller()
    wider = pad_batch([data[i] for i in range(4)], multiple_of=32)
    assert wider["targets"].shape[1] == 32
    narrow, wide = pair(batch), pair(wider)
    for name, value in narrow.items():
        torch.testing.assert_close(wide[name], value)


def test_nothing_but_padding_is_a_zero(batch: dict[str, Any]) -> None:
    empty = {**batch, "targets": torch.full_like(batch["targets"], -100), "mask": torch.zeros_like(batch["mask"])}
    total = sum(distiller()(empty).values())
    assert float(total.detach()) == 0
    total.backward()


def test_fairseqs_smoothing_by_hand() -> None:
    logits = torch.tensor([[0.5, -1.0, 2.0, 0.0, 0.3]])
    log_p = logits.log_softmax(-1)[0]
    share = 0.1 / 4
    by_hand = -(1 - 0.1 - share) * log_p[2] - share * log_p.sum()
    torch.testing.assert_close(TokenCrossEntropyLoss(smoothing=0.1)(logits, torch.tensor([2])), by_hand)


def test_banned_ids_are_banned_in_both(batch: dict[str, Any]) -> None:
    student, teacher = torch.randn(2, 3, 5, requires_grad=True), torch.randn(2, 3, 5)
    ban = torch.tensor([0.0, 0, 0, 0, float("-inf")])
    loss = GeneralizedJSDLoss(0.0)(student + ban, teacher + ban)
    torch.testing.assert_close(loss, GeneralizedJSDLoss(0.0)(student[..., :4], teacher[..., :4]))
    loss.backward()
    assert bool(torch.isfinite(student.grad).all())


def test_the_past_self_begins_with_plain_training(batch: dict[str, Any]) -> None:
    weight = PastWeight(0.7)
    student = marian(dropout=0.0)
    pair = TokenDistiller(
        student,
        PastModel(student),
        {"past": tokens_match(weight)},
        call=TranslationCall(),
        task_loss=TokenCrossEntropyLoss(),
        task_weight=Complement(weight),
    ).train()
    pair.set_progress(Progress(epoch=0, max_epochs=4))
    losses = pair(batch)
    assert float(losses["loss/past"]) == 0
    before = student(**batch["inputs"]).logits.detach()
    torch.testing.assert_close(losses["loss/task"].detach(), TokenCrossEntropyLoss()(before, batch["targets"]))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    pair.set_progress(Progress(epoch=1, max_epochs=4))
    after = student(**batch["inputs"]).logits.detach()
    mixed = pair(batch)
    # the copy was taken as the epoch began, so it agrees with the student: divergence 0, label 1 - 0.35
    torch.testing.assert_close(mixed["loss/past"].detach(), torch.zeros(()), atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed["loss/task"].detach(), 0.65 * TokenCrossEntropyLoss()(after, batch["targets"]))


def test_a_translation_ends_and_the_model_keeps_its_mode(batch: dict[str, Any]) -> None:
    model = marian().train()
    model.model.encoder.eval()
    written = write(model, batch["inputs"], beams=3, returned=2, max_new_tokens=7)
    assert written.shape[:2] == (4, 2)
    assert written.shape[2] <= 7
    ended = (written == 6).cumsum(-1) - (written == 6).long() > 0
    assert bool((written[ended] == 0).all())
    assert model.training
    assert not model.model.encoder.training
    greedy = write(model, batch["inputs"], max_new_tokens=7)[:, 0]
    logits = model.eval()(
        input_ids=batch["inputs"]["input_ids"], attention_mask=batch["inputs"]["attention_mask"],
        decoder_input_ids=torch.cat([torch.zeros(4, 1, dtype=torch.long), greedy[:, :-1]], 1),
    ).logits  # fmt: skip
    assert torch.equal(logits[:, 0].argmax(-1), greedy[:, 0])
    with pytest.raises(ConfigError, match="returned from 1 to beams"):
        write(model, batch["inputs"], beams=1, returned=2)
    with pytest.raises(ConfigError, match="cannot translate"):
        write(torch.nn.Linear(1, 1), batch["inputs"])


def test_the_metric_judges_what_is_written(data: GrammarTranslations, batch: dict[str, Any], tmp_path: Path) -> None:
    pair = distiller().eval()
    metric = TranslationMetric(data.tokenizer, results=tmp_path / "out" / "found.txt")
    predictions = pair(batch, mode="predict")
    metric.process(batch, predictions)
    found = metric.compute_metrics(metric.results)
    assert {"bleu", "chrf", "length_ratio", "nll", "accuracy", "ece"} <= found.keys()
    assert (tmp_path / "out" / "found.txt").read_text().splitlines() == metric.translations
    perfect = TranslationMetric(data.tokenizer)
    references = [data.tokenizer(text, add_special_tokens=False)["input_ids"] for text in batch["reference"]]
    perfect.process(
        batch, [{**p, "tokens": torch.tensor([*r, 6, 0])} for p, r in zip(predictions, references, strict=True)]
    )
    assert perfect.compute_metrics(perfect.results)["bleu"] == pytest.approx(100)
    assert "BLEU" in perfect.signature or "tok:13a" in perfect.signature
    with pytest.raises(ShapeError, match="call=TranslationCall"):
        metric.process(batch, [torch.zeros(3, 457)] * 4)
    with pytest.raises(DataError, match="needs 'reference'"):
        metric.process({"targets": batch["targets"]}, predictions)


class Writes(torch.nn.Module):
    """Stands for a teacher: it writes what it is told, in turn for each beam."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.config = type("Config", (), dict(is_encoder_decoder=True, decoder_start_token_id=0, eos_token_id=6,
                                              pad_token_id=0))()  # fmt: skip
        self.rows = rows

    def generate(self, input_ids: Tensor, num_return_sequences: int, **_: Any) -> Tensor:
        rows = self.rows[:num_return_sequences].repeat(len(input_ids), 1)
        return torch.cat([rows.new_zeros(len(rows), 1), rows], 1)


def test_the_teachers_text_as_two_files(data: GrammarTranslations, tmp_path: Path) -> None:
    files = (tmp_path / "t.source", tmp_path / "t.target")
    sources, references = list(data.sources[:2]), list(data.references[:2])
    rows = [data.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (references[1], references[0])]
    longest = max(map(len, rows)) + 1
    teacher = Writes(torch.tensor([[*row, 6, *[0] * (longest - len(row) - 1)] for row in rows]))
    counts = write_translations(teacher, data.tokenizer, sources, *files, beams=2)
    assert counts == {"kept": 2}
    assert files[1].read_text().splitlines() == [references[1]] * 2  # the most probable one
    write_translations(teacher, data.tokenizer, sources, *files, references=references, interpolate=True, beams=2)
    assert files[1].read_text().splitlines() == references  # the nearest to the reference
    assert files[0].read_text().splitlines() == sources
    again = ParallelText(*files, data.tokenizer)
    assert again.targets == tuple(references)
    teacher.config.eos_token_id = None
    with pytest.raises(ConfigError, match="names no eos_token_id"):
        write_translations(teacher, data.tokenizer, sources, *files)
    teacher.config.eos_token_id = 6
    with pytest.raises(DataError, match="none of the 2 translations is kept"):
        write_translations(teacher, data.tokenizer, sources, *files, keep=Filter(shortest=3.0, longest=9.0))
    with pytest.raises(ConfigError, match="give references and beams"):
        write_translations(teacher, data.tokenizer, sources, *files, interpolate=True)
    with pytest.raises(DataError, match="2 sources and 1 references"):
        write_translations(teacher, data.tokenizer, sources, *files, references=references[:1])


def test_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = "nlp/translation/marian_plain"
    torch.save(build(load_config(config).model.student).state_dict(), tmp_path / "s.pth")
    asked = [config, "--checkpoint", str(tmp_path / "s.pth"), "--out", str(tmp_path / "out"), "--beams", "1"]
    assert main([*asked, "--cfg-options", "train_dataloader.dataset.size=3"]) in (0, 2)
    said = capsys.readouterr()
    assert "kept" in said.out or "none of the 3 translations is kept" in said.err
    assert main(["nlp/grammar/plain", *asked[1:]]) == 2
    assert "expected parallel text" in capsys.readouterr().err


def test_bleu() -> None:
    assert sentence_bleu("a b c d e", "a b c d e") == pytest.approx(100)
    assert 0 < sentence_bleu("a b x d e", "a b c d e") < 100
    assert closest_to_reference(["x y z", "a b z", "a b c"], "a b c d") == "a b c"
    judged = corpus_bleu(["a b c d"], ["a b c d e f g h"])
    assert judged["length_ratio"] == pytest.approx(0.5)
    with pytest.raises(DataError, match="one reference for each"):
        corpus_bleu(["a"], [])
    with pytest.raises(DataError, match="no candidate"):
        closest_to_reference([], "a")


def test_without_sacrebleu_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(MissingDependency, match=r"pip install 'limbeck-nlp\[translation\]'"):
        corpus_bleu(["a"], ["a"])


@pytest.mark.parametrize("module", ["limbeck_nlp.translation._fairseq", "limbeck_nlp.translation.fairseq_plugin"])
def test_without_fairseq_a_sentence(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fairseq", None)
    with pytest.raises(MissingDependency, match=r"need fairseq: pip install 'limbeck-nlp\[fairseq\]'.*marian"):
        import_module(module)
