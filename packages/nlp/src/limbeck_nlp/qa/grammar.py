"""Questions on texts of the grammar, in English and in made-up languages, with nothing to download."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from limbeck_core.checks import check_between
from limbeck_core.errors import ConfigError
from limbeck_nlp.data.grammar import ABSENT, ROLES, Grammar, Sentence, all_words
from limbeck_nlp.qa.data import QuestionWindows, cross_lingual
from limbeck_nlp.qa.squad import Answer, Question
from limbeck_nlp.tokenization import train_tokenizer

LANGUAGES = ("en", "aa", "bb", "cc")
_ASKED = {"thing": "What", "place": "Where", "time": "When"}
_MOST_SENTENCES = 6  # twelve people, each once a context
_VOWELS, _CONSONANTS = "aeiou", "bcdfghjklmnpqrstvwxyz"


def translate(word: str, language: str) -> str:
    """Return a word in a made-up language: each letter moves on among the vowels, or among the consonants.

    Args:
        word: An English word.
        language: One of ``LANGUAGES``; ``"en"`` returns the word itself.

    Raises:
        ConfigError: if the language is unknown.

    >>> translate("Lamp", "aa")
    'Meng'
    """
    if language not in LANGUAGES:
        raise ConfigError(f"language must be one of {', '.join(LANGUAGES)}, got {language!r}")
    step = LANGUAGES.index(language)
    letters = []
    for letter in word:
        lower = letter.lower()
        row = _VOWELS if lower in _VOWELS else _CONSONANTS
        moved = row[(row.index(lower) + step * (1 if row is _VOWELS else 4)) % len(row)] if lower in row else letter
        letters.append(moved.upper() if letter.isupper() else moved)
    return "".join(letters)


def translate_sentence(sentence: Sentence, language: str) -> list[str]:
    """Return the words of a sentence in a language; names of people stay as they are."""
    return [
        word if role == "who" else translate(word, language)
        for word, role in zip(sentence.words, sentence.roles, strict=True)
    ]


def grammar_questions(
    size: int,
    *,
    seed: int = 0,
    languages: Sequence[str] = LANGUAGES,
    sentences: int = 3,
    unanswerable: float = 0.0,
) -> dict[str, list[Question]]:
    """Write questions, each in all languages with one id.

    A context has sentences about different people; the question asks what, where or when one of them will act.

    Args:
        size: Number of questions.
        seed: Which ones are written.
        languages: Of ``LANGUAGES``.
        sentences: Sentences of a context, 1 to 6. With one, the question word alone tells the answer; with more a
            model must find the sentence by its name, which small ones do not learn from thousands of questions.
        unanswerable: Share of questions on a place or time that is not said.

    Raises:
        ValueError: if ``unanswerable`` is no share.
        ConfigError: if a language is unknown, or ``sentences`` out of range.
    """
    if not 1 <= sentences <= _MOST_SENTENCES:
        raise ConfigError(f"sentences must be 1 to {_MOST_SENTENCES}, got {sentences}")
    check_between(unanswerable, "unanswerable", 0.0, 1.0)
    grammar = Grammar(seed)
    found: dict[str, list[Question]] = {language: [] for language in languages}
    nulls = 0
    while len(found[languages[0]]) < size:
        context = _about_different_people(grammar, sentences)
        number = len(found[languages[0]])
        null = nulls < round(unanswerable * (number + 1))
        asked = context[grammar.choice(sentences)]
        said = [role for role in _ASKED if (asked.concepts[ROLES.index(role)] == ABSENT) == null]
        if not said:
            continue
        nulls += null
        role = said[grammar.choice(len(said))]
        for language in languages:
            found[language].append(_question(context, asked, role, language, f"q{number}", null=null))
    return found


def _about_different_people(grammar: Grammar, count: int) -> list[Sentence]:
    sentences: list[Sentence] = []
    while len(sentences) < count:
        sentence = grammar.sentence()
        if all(sentence.concepts[0] != other.concepts[0] for other in sentences):
            sentences.append(sentence)
    return sentences


def _question(
    sentences: Sequence[Sentence], asked: Sentence, role: str, language: str, identity: str, *, null: bool
) -> Question:
    pieces: list[str] = []
    length = 0
    span = (0, 0)
    for sentence in sentences:
        for word, of in zip(translate_sentence(sentence, language), sentence.roles, strict=True):
            if sentence is asked and of == role:
                span = (length if span == (0, 0) else span[0], length + len(word))
            pieces.append(word)
            length += len(word) + 1
        pieces.append(".")
        length += 2
    context = " ".join(pieces)
    wh, will, act = (translate(word, language) for word in (_ASKED[role], "will", "act"))
    answers = () if null else (Answer(context[span[0] : span[1]], span[0]),)
    return Question(identity, f"{wh} {will} {asked.part('who')} {act} ?", context, answers, language, language)


@lru_cache(maxsize=2)
def grammar_question_tokenizer() -> Any:
    """Learn a tokenizer of words from all languages; the same one every time."""
    words = [*all_words(), *_ASKED.values(), "act", ".", "?"]
    text = [translate(word, language) for language in LANGUAGES for word in words]
    return train_tokenizer([*words, *text], kind="words", vocabulary_size=1000, segments=True)


class GrammarQuestions(QuestionWindows):
    """Questions of the grammar in windows, in pairs of languages.

    Args:
        size: Number of questions before they are paired.
        seed: Which ones are written.
        codes: Languages, of ``LANGUAGES``.
        sentences: See :func:`grammar_questions`.
        unanswerable: Share of questions without an answer.
        languages: See :func:`~limbeck_nlp.qa.data.cross_lingual`.
        only_same: See there.
        tokenizer: See :class:`~limbeck_nlp.qa.data.QuestionWindows`; the grammar's own by default.
        max_length: See there, as for the others.
        stride: See there.
        max_question: See there.
    """

    def __init__(
        self,
        size: int = 1000,
        *,
        seed: int = 0,
        codes: Sequence[str] = LANGUAGES[:3],
        sentences: int = 3,
        unanswerable: float = 0.0,
        languages: int = 0,
        only_same: bool = False,
        tokenizer: Any = None,
        max_length: int = 64,
        stride: int = 16,
        max_question: int = 12,
    ) -> None:
        written = grammar_questions(size, seed=seed, languages=codes, sentences=sentences, unanswerable=unanswerable)
        super().__init__(
            cross_lingual(written, languages=languages, always=codes[0], only_same=only_same, seed=seed),
            grammar_question_tokenizer() if tokenizer is None else tokenizer,
            max_length=max_length,
            stride=stride,
            max_question=max_question,
        )
