"""Questions in the format of SQuAD, XQuAD and MLQA: reading them, and checking that answers stand where they say."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from limbeck_core.errors import ConfigError, DataError, closest


@dataclass(frozen=True)
class Answer:
    """A span of the context.

    Args:
        text: Its words.
        start: Where it begins, in characters.
    """

    text: str
    start: int

    @property
    def end(self) -> int:
        """Where it ends, the character after the last."""
        return self.start + len(self.text)


@dataclass(frozen=True)
class Question:
    """One question on one text.

    Args:
        identity: Its id; translations of a question have the same one.
        question: The question.
        context: The text that holds the answer.
        answers: What annotators marked; none for a question that the context does not answer.
        question_language: Code of the question's language; empty if unknown.
        context_language: Code of the context's language, and so of the answers'; empty if unknown.
    """

    identity: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    question_language: str = ""
    context_language: str = ""

    @property
    def pair(self) -> tuple[str, str]:
        """Languages of question and context."""
        return self.question_language, self.context_language


@dataclass(frozen=True)
class QuestionFile:
    """What a file holds.

    Args:
        questions: The questions in the file's order.
        moved: How many answers did not stand where the file says and were found elsewhere in the context.
        lost: Ids of questions with an answer that is nowhere in the context, in the file's order.
    """

    questions: tuple[Question, ...]
    moved: int
    lost: tuple[str, ...] = ()


def read_squad(
    source: str | Path | Mapping[str, Any],
    *,
    question_language: str = "",
    context_language: str | None = None,
    lost: Literal["refuse", "drop"] = "refuse",
) -> QuestionFile:
    """Read questions of SQuAD 1.1 or 2.0, XQuAD or MLQA.

    An answer whose offset is wrong (some translations count bytes, or composed letters) is moved to the nearest place
    where its text stands.

    Args:
        source: A ``.json`` or ``.json.gz`` file, or what such a file holds.
        question_language: Code to note with each question.
        context_language: Code to note with each context; that of the questions by default.
        lost: What becomes of answers whose text is nowhere in the context: ``"refuse"`` the file, with how many there
            are and of which questions; or ``"drop"`` them, and questions of which no answer is left.

    Raises:
        DataError: if the file is missing, damaged or laid out differently; if two questions have one id; if no question
            is left; or if answers are lost and may not be.
        ConfigError: if ``lost`` is unknown.
    """
    if lost not in ("refuse", "drop"):
        raise ConfigError(f"lost must be 'refuse' or 'drop', got {lost!r}")
    language = question_language if context_language is None else context_language
    name = "the questions" if isinstance(source, Mapping) else str(source)
    content = source if isinstance(source, Mapping) else _load(Path(source))
    found: dict[str, Question] = {}
    seen: set[str] = set()
    missing: list[tuple[str, str]] = []
    moved = 0
    try:
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                context = paragraph["context"]
                for entry in paragraph["qas"]:
                    identity = str(entry["id"])
                    if identity in seen:
                        raise DataError(f"{name} holds two questions with the id {identity!r}: ids must be unique")
                    given = [] if entry.get("is_impossible") else entry.get("answers", [])
                    located = [_located(answer, context) for answer in given]
                    answers = [answer for answer in located if answer is not None]
                    missing += [(identity, str(g["text"])) for a, g in zip(located, given, strict=True) if a is None]
                    moved += sum(
                        a is not None and a.start != g["answer_start"] for a, g in zip(located, given, strict=True)
                    )
                    seen.add(identity)
                    if given and not answers:
                        continue
                    found[identity] = Question(
                        identity, entry["question"], context, tuple(answers), question_language, language
                    )
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{name} is not laid out as SQuAD: expected data > paragraphs > context, qas > id, question, answers > "
            f"text, answer_start; it lacks or misplaces {error}"
        ) from error
    if missing and lost == "refuse":
        shown = ", ".join(f"{text!r} (question {identity!r})" for identity, text in missing[:5])
        raise DataError(
            f"{name}: {len(missing)} answer(s) stand nowhere in their contexts: {shown}"
            f"{', ...' if len(missing) > 5 else ''}; answers must be spans of the context, so correct them, or leave "
            "them out with lost='drop'"
        )
    if not found:
        raise DataError(f"{name} holds no question")
    return QuestionFile(tuple(found.values()), moved, tuple(dict.fromkeys(identity for identity, _ in missing)))


def _load(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"there is no file {path}; of {path.parent}, {closest(path.name, sorted(siblings))}")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        content = json.loads(raw.decode("utf-8"))
    except (OSError, EOFError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} must hold JSON in UTF-8, perhaps compressed by gzip: {error}") from error
    if not isinstance(content, Mapping):
        raise DataError(f"{path} must hold a JSON object with 'data', got a {type(content).__name__}")
    return content


def _located(answer: Mapping[str, Any], context: str) -> Answer | None:
    text, start = answer["text"], int(answer["answer_start"])
    if context[start : start + len(text)] == text and start >= 0:
        return Answer(text, start)
    places = []
    place = context.find(text)
    while text and place >= 0:
        places.append(place)
        place = context.find(text, place + 1)
    if not places:
        return None
    return Answer(text, min(places, key=lambda candidate: abs(candidate - start)))
