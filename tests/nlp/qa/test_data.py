"""Windows, pairs of languages, decoding, and questions of the grammar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck_core.errors import ConfigError, DataError, ShapeError
from limbeck_nlp.data import pad_batch
from limbeck_nlp.evaluation import SpanMetric
from limbeck_nlp.ner import TaggedText
from limbeck_nlp.ner.conll import TaggedSentence
from limbeck_nlp.qa import (
    Answer,
    GrammarQuestions,
    ParallelQuestions,
    Question,
    QuestionWindows,
    answer_of,
    best_span,
    cross_lingual,
    grammar_questions,
)
from limbeck_nlp.qa.decoding import Candidate
from limbeck_nlp.qa.grammar import grammar_question_tokenizer, translate


def question(context: str, answer: str, text: str = "What will Tom Field act ?") -> Question:
    return Question("1", text, context, (Answer(answer, context.index(answer)),), "en", "en")


def words(data: QuestionWindows, position: int) -> str:
    """The context's words that a window's target covers."""
    sample = data[position]
    start, end = sample["targets"].tolist()
    window = sample["window"]
    return sample["question"].context[int(window["first"][start]) : int(window["last"][end])]


def test_targets_cover_the_answer() -> None:
    data = GrammarQuestions(20, seed=1)
    assert len(data) == 20 * 9
    for position in range(0, len(data), 7):
        sample = data[position]
        assert words(data, position) == sample["question"].answers[0].text
        assert sample["mask"][0]
        assert sample["mask"][sample["targets"]].all()
        assert not sample["mask"][sample["inputs"]["token_type_ids"] == 0][1:].any()


def test_long_contexts_become_windows_that_overlap() -> None:
    context = " ".join(["Tom will mend the lamp ."] * 8 + ["Anna Berg will hide a boat ."])
    data = QuestionWindows(
        [question(context, "boat")], grammar_question_tokenizer(), max_length=32, stride=8, max_question=6
    )
    assert len(data) > 2
    assert [tuple(data[i]["targets"].tolist()) == (0, 0) for i in range(len(data))] == [True] * (len(data) - 1) + [
        False
    ]
    assert words(data, len(data) - 1) == "boat"
    starts = [data[i]["window"]["first"][data[i]["mask"]][1:] for i in range(2)]
    shared = set(starts[0].tolist()) & set(starts[1].tolist())
    assert len(shared) == 8
    assert len(data[0]["inputs"]["input_ids"]) == 32
    with pytest.raises(ConfigError, match=r"leaves 1 for the context beside a question of 28"):
        QuestionWindows([question(context, "boat")], grammar_question_tokenizer(), max_length=32, max_question=28)


def test_a_long_question_is_cut() -> None:
    asked = question("Tom will mend the lamp .", "lamp", " ".join(["What"] * 40))
    data = QuestionWindows([asked], grammar_question_tokenizer(), max_length=32, stride=4, max_question=5)
    assert (data[0]["inputs"]["token_type_ids"] == 0).sum() == 5 + 2


def test_questions_without_answer_point_at_the_first_token() -> None:
    written = grammar_questions(10, languages=("en",), unanswerable=0.5)["en"]
    assert sum(not q.answers for q in written) == 5
    data = QuestionWindows(written, grammar_question_tokenizer(), max_length=64, stride=8, max_question=12)
    for sample in (data[i] for i in range(len(data))):
        assert (sample["targets"].tolist() == [0, 0]) == (not sample["question"].answers)


def test_contexts_have_as_many_sentences_as_asked() -> None:
    for count in (1, 6):
        written = grammar_questions(3, languages=("en",), sentences=count)["en"]
        assert {q.context.count(".") for q in written} == {count}
    with pytest.raises(ConfigError, match="sentences must be 1 to 6"):
        grammar_questions(3, sentences=7)


def test_languages_are_disjoint_but_for_names() -> None:
    assert translate("lamp", "en") == "lamp"
    versions = grammar_questions(5, languages=("en", "aa"))
    for first, second in zip(versions["en"], versions["aa"], strict=True):
        assert first.identity == second.identity
        shared = set(first.context.split()) & set(second.context.split()) - {"."}
        assert all(word[0].isupper() for word in shared)
    with pytest.raises(ConfigError, match="language must be one of"):
        translate("lamp", "xx")


def sets(*languages: str, count: int = 12) -> dict[str, list[Question]]:
    return {
        code: [Question(f"q{i}", f"{code}?", f"{code} text", (Answer(code, 0),), code, code) for i in range(count)]
        for code in languages
    }


def test_pairs_of_languages() -> None:
    files = sets("en", "de", "es", "zh")
    everything = cross_lingual(files)
    assert len(everything) == 12 * 16
    assert {q.pair for q in everything if q.identity == "q0"} == {(a, b) for a in files for b in files}
    sample = next(q for q in everything if q.pair == ("de", "zh"))
    assert (sample.question, sample.context, sample.answers[0].text) == ("de?", "zh text", "zh")
    drawn = cross_lingual(files, languages=2)
    assert len(drawn) == len(set(drawn)) == 12 * 9
    assert all(("en", "en") in {q.pair for q in drawn if q.identity == f"q{i}"} for i in range(12))
    assert drawn == cross_lingual(files, languages=2)
    assert drawn != cross_lingual(files, languages=2, seed=4)
    assert {q.pair for q in cross_lingual(files, only_same=True)} == {(code, code) for code in files}
    assert len(cross_lingual(files, languages=3, always=None)) == 12 * 9
    with pytest.raises(ConfigError, match="always='fr' is none of the languages"):
        cross_lingual(files, always="fr")
    with pytest.raises(ConfigError, match="languages must be 0"):
        cross_lingual(files, languages=-1)
    other = [Question("x", "?", "a", (), "de", "de")]
    with pytest.raises(DataError, match="give parallel files"):
        cross_lingual({"en": files["en"], "de": other})


def test_parallel_files(tmp_path: Path) -> None:
    for code in ("en", "de"):
        qas = [{"id": "1", "question": "What ?", "answers": [{"text": "lamp", "answer_start": 4}]}]
        content = {"data": [{"paragraphs": [{"context": "the lamp", "qas": qas}]}]}
        (tmp_path / f"{code}.json").write_text(json.dumps(content))
    files = {"en": "en.json", "de": "de.json"}
    data = ParallelQuestions(tmp_path, files, grammar_question_tokenizer(), max_length=32, stride=4, max_question=8)
    assert [q.pair for q in data.questions] == [("en", "en"), ("en", "de"), ("de", "en"), ("de", "de")]
    assert words(data, 1) == "lamp"
    assert data.lost == {"en": (), "de": ()}


def test_offsets_are_needed() -> None:
    class Slow:
        is_fast = False
        eos_token_id = pad_token_id = 0

        def __call__(self, *_: Any, **__: Any) -> dict[str, Any]:
            raise AssertionError("a tokenizer without offsets is not asked")

        def convert_tokens_to_ids(self, token: str) -> int:
            raise AssertionError(token)

    with pytest.raises(ConfigError, match="fast"):
        QuestionWindows([Question("1", "What ?", "the lamp", (Answer("lamp", 4),))], Slow())
    with pytest.raises(ConfigError, match="fast tokenizer, got Slow"):
        TaggedText([TaggedSentence(("Tom",), ("B-PER",))], Slow())


def test_best_span_by_hand() -> None:
    logits = torch.tensor([[9.0, 0.0, 3.0, 1.0, 8.0], [9.0, 0.0, 2.0, 4.0, 0.0]])
    allowed = torch.tensor([True, False, True, True, True])
    span = best_span(logits, allowed)
    assert (span.start, span.end, span.score, span.null_score) == (4, 4, 8.0, 18.0)
    allowed[4] = False
    assert (best_span(logits, allowed).start, best_span(logits, allowed).end) == (2, 3)
    assert best_span(logits, allowed, max_tokens=1).score == 5
    assert best_span(logits, torch.zeros(5)).score == -torch.inf
    with pytest.raises(ShapeError, match=r"logits must have shape \(2, L\)"):
        best_span(logits[0], allowed)
    with pytest.raises(ValueError, match="max_tokens"):
        best_span(logits, allowed, max_tokens=0)


def test_windows_of_a_question_compete() -> None:
    windows = [Candidate("a", 1.0, 5.0), Candidate("b", 3.0, 3.5)]
    assert answer_of(windows) == "b"
    assert answer_of(windows, null_threshold=0.0) == ""
    assert answer_of(windows, null_threshold=1.0) == "b"


def test_perfect_predictions_score_a_hundred(tmp_path: Path) -> None:
    data = GrammarQuestions(6, seed=2, codes=("en", "aa"))
    batch: dict[str, Any] = pad_batch([data[i] for i in range(len(data))])
    logits = torch.zeros(len(data), 2, batch["mask"].shape[1])
    logits.scatter_(2, batch["targets"].unsqueeze(2), 5.0)
    metric = SpanMetric(picture=tmp_path / "f1.png")
    metric.process(batch, logits)
    assert metric.compute_metrics(metric.results) == {"em": 100, "f1": 100, "em_same": 100, "f1_same": 100}
    assert metric.pairs is not None
    assert metric.pairs.counts == {(a, b): 6 for a in ("aa", "en") for b in ("aa", "en")}
    assert metric.per_sample["em"] == [100.0] * 24
    assert (tmp_path / "f1.png").stat().st_size > 1000
    with pytest.raises(ShapeError, match="predictions must be logits of shape"):
        metric.process(batch, logits[:, 0])
    del batch["question"]
    with pytest.raises(DataError, match="needs 'question' in the batch"):
        metric.process(batch, logits)
