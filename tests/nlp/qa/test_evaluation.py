"""SQuAD files and their scores: by hand, per language, by pair of languages."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from limbeck_core.errors import ConfigError, DataError
from limbeck_nlp.evaluation.qa import evaluate, normalize_answer, score_pairs, token_f1
from limbeck_nlp.qa.squad import Answer, Question, read_squad

CONTEXT = "Tom will mend the old lamp at the port."


def squad(*entries: dict[str, Any], context: str = CONTEXT) -> dict[str, Any]:
    return {"version": "1.1", "data": [{"paragraphs": [{"context": context, "qas": list(entries)}]}]}


def entry(identity: str, text: str | None, start: int = 0, **more: Any) -> dict[str, Any]:
    answers = [] if text is None else [{"text": text, "answer_start": start}]
    return {"id": identity, "question": "?", "answers": answers, **more}


def test_scores_by_hand() -> None:
    content = squad(entry("a", "the old lamp", 14), entry("b", "Tom", 0), entry("c", "at the port", 27))
    scores = evaluate({"a": "Old lamp!", "b": "Tom will", "x": "y"}, content)
    assert scores["exact_match"] == pytest.approx(100 / 3)
    assert scores["f1"] == pytest.approx(100 * (1 + 2 / 3 + 0) / 3)
    assert (scores["missing"], scores["unknown"], scores["count"]) == (1, 1, 3)
    assert scores["per_sample"]["f1"] == pytest.approx([100, 200 / 3, 0])
    with pytest.raises(DataError, match="none of the 1 predictions"):
        evaluate({"x": "y"}, content)


def test_questions_without_answer() -> None:
    content = squad(entry("a", "Tom", 0), entry("b", None, is_impossible=True))
    assert evaluate({"a": "", "b": ""}, content)["f1"] == 50
    scores = evaluate({"a": "Tom", "b": "Tom"}, content)
    assert (scores["answerable_f1"], scores["unanswerable_f1"]) == (100, 0)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("The Lamp.", "", "lamp"),
        ("¿La lámpara?", "", "¿la lámpara"),  # SQuAD's own script knows English only
        ("¿La lámpara?", "es", "lámpara"),
        ("Der alte Hut", "de", "alte hut"),
        ("der Hut", "en", "der hut"),
        ("the hut", "de", "the hut"),
        ("北京\uff0c2008", "zh", "北 京 2008"),
        ("البيت", "ar", "بيت"),
        ("घर।", "hi", "घर"),
        ("\u03a4\u03bf \u03c3\u03c0\u03af\u03c4\u03b9;", "el", "\u03c4\u03bf \u03c3\u03c0\u03af\u03c4\u03b9"),
    ],
)
def test_normalisation_is_the_language_s(text: str, language: str, expected: str) -> None:
    assert normalize_answer(text, language) == expected


def test_chinese_f1_counts_characters() -> None:
    assert token_f1("北京", "北京市", "zh") == pytest.approx(2 * 2 / 5)
    assert token_f1("北京", "北京市") == 0
    assert token_f1("the", "a") == 1  # nothing is left of either
    assert token_f1("the", "lamp") == 0


def test_files_are_read_and_answers_found(tmp_path: Path) -> None:
    content = squad(entry("a", "the", 20), entry("b", "the", 14))
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(json.dumps(content).encode()))
    found = read_squad(tmp_path / "x.json.gz", question_language="en", context_language="de")
    assert [q.answers[0].start for q in found.questions] == [14, 14]
    assert found.moved == 1
    assert found.questions[0].pair == ("en", "de")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            squad(entry("a", "lampe", 3), entry("b", "boot")),
            r"2 answer\(s\) stand nowhere in their contexts: 'lampe' \(question 'a'\), 'boot' \(question 'b'\)",
        ),
        (squad(entry("a", "Tom"), entry("a", "Tom")), "two questions with the id 'a'"),
        ({"data": [{"context": "x"}]}, "not laid out as SQuAD: .* 'paragraphs'"),
        ({"data": []}, "holds no question"),
    ],
)
def test_what_does_not_fit_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_squad(content)


def test_lost_answers_are_left_out_and_listed() -> None:
    content = squad(entry("a", "lampe", 3), entry("b", "the", 14))
    found = read_squad(content, lost="drop")
    assert [question.identity for question in found.questions] == ["b"]  # a question without its answer is no null one
    assert found.lost == ("a",)
    with pytest.raises(DataError, match="holds no question"):
        read_squad(squad(entry("a", "lampe", 3)), lost="drop")
    with pytest.raises(ConfigError, match="lost must be"):
        read_squad(content, lost="keep")  # type: ignore[arg-type]


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(DataError, match="JSON object with 'data', got a list"):
        read_squad(tmp_path / "a.json")
    with pytest.raises(DataError, match="must hold JSON"):
        read_squad(tmp_path / "b.json")
    with pytest.raises(DataError, match=r"there is no file .*c\.json"):
        read_squad(tmp_path / "c.json")


def test_pairs_of_languages(tmp_path: Path) -> None:
    def question(q: str, c: str, text: str) -> Question:
        return Question("1", "?", text, (Answer(text, 0),), q, c)

    answered = [
        (question("en", "de", "der Hut"), "Hut"),
        (question("en", "en", "the hat"), "a hat"),
        (question("de", "en", "the hat"), "coat"),
        (question("de", "en", "the hat"), "hat"),
    ]
    scores = score_pairs(answered)
    assert scores.f1 == {("en", "de"): 100, ("en", "en"): 100, ("de", "en"): 50}
    assert scores.counts["de", "en"] == 2
    assert scores.mean() == pytest.approx(250 / 3)
    assert scores.mean("exact_match", same=True) == 100
    assert scores.table().splitlines()[1].split() == ["de", "-", "50.00"]
    assert score_pairs(answered, official_squad=True).exact_match["en", "de"] == 0
    scores.draw(tmp_path / "matrix.svg")
    assert "<svg" in (tmp_path / "matrix.svg").read_text()
