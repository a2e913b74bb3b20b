"""Questions as windows of tokens, and pairs of languages: a question in one, its text in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from limbeck_core.errors import ConfigError, DataError
from limbeck_nlp.data.dataset import Ids, TextDataset
from limbeck_nlp.qa.squad import Question, read_squad
from limbeck_nlp.tokenization import as_tokenizer


@dataclass(frozen=True)
class Window:
    """A question with as much of its context as fits.

    Args:
        question: Index of the question.
        inputs: Arguments of the model by name, each of length L.
        offsets: First and last character (exclusive) of each token in the context, shape ``(L, 2)``; zero elsewhere.
        answerable: Where an answer can begin or end: tokens of the context, and the first token for "none", ``(L,)``.
        target: Tokens where the answer begins and ends; zero if it is not in this window.
    """

    question: int
    inputs: Mapping[str, Ids]
    offsets: Ids
    answerable: np.ndarray[Any, np.dtype[np.bool_]]
    target: tuple[int, int]


def windows_of(
    questions: Sequence[Question], tokenizer: Any, *, max_length: int = 384, stride: int = 128, max_question: int = 64
) -> list[Window]:
    """Cut the contexts of questions into windows that overlap.

    Args:
        questions: The questions; the first answer of each is the target.
        tokenizer: A fast tokenizer of transformers that begins with its class token and pads right.
        max_length: Tokens of a window, the question's and the special ones included.
        stride: Tokens that two windows share.
        max_question: Tokens of a question; the rest is cut off.

    Raises:
        ConfigError: if a window has no room for more than the stride, or the tokenizer is not a fast one.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            f"answers are found by characters, which takes a fast tokenizer, got {type(tokenizer).__name__}"
        )
    special = tokenizer.num_special_tokens_to_add(pair=True)
    room = max_length - max_question - special
    if stride < 0 or room <= stride:
        raise ConfigError(
            f"a window of {max_length} tokens leaves {room} for the context beside a question of {max_question}, which "
            f"must be more than stride={stride}: raise max_length, or lower stride or max_question"
        )
    found: list[Window] = []
    for number, question in enumerate(questions):
        encoded = tokenizer(
            _shortened(question.question.strip(), tokenizer, max_question),
            question.context,
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        names = [name for name in tokenizer.model_input_names if name in encoded]
        for row in range(len(encoded["input_ids"])):
            of_context = np.asarray([part == 1 for part in encoded.sequence_ids(row)])
            offsets = np.asarray(encoded["offset_mapping"][row], dtype=np.int64) * of_context[:, None]
            answerable = of_context.copy()
            answerable[0] = True
            found.append(
                Window(
                    question=number,
                    inputs={name: np.asarray(encoded[name][row], dtype=np.int32) for name in names},
                    offsets=offsets.astype(np.int32),
                    answerable=answerable,
                    target=_target(question, offsets, of_context),
                )
            )
    return found


def _shortened(text: str, tokenizer: Any, limit: int) -> str:
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return text if len(offsets) <= limit else text[: offsets[limit - 1][1]]


def _target(question: Question, offsets: Ids, of_context: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[int, int]:
    if not question.answers:
        return 0, 0
    answer = question.answers[0]
    inside = of_context & (offsets[:, 1] > answer.start) & (offsets[:, 0] < answer.end)
    places = np.flatnonzero(inside)
    whole = of_context.any() and offsets[of_context, 0].min() <= answer.start and offsets[:, 1].max() >= answer.end
    return (int(places[0]), int(places[-1])) if whole and len(places) else (0, 0)


class QuestionWindows(TextDataset):
    """Questions cut into windows.

    A sample holds ``inputs``; ``targets``, the tokens where the answer begins and ends, shape ``(2,)``, both 0 in a
    window without it; ``mask``, where an answer can stand; ``window``, the characters of each token; and ``question``.

    Args:
        questions: The questions.
        tokenizer: See :class:`~limbeck_nlp.data.dataset.TextDataset`; a fast one.
        max_length: See :func:`windows_of`, as for the others.
        stride: See there.
        max_question: See there.

    Raises:
        ConfigError: as :func:`windows_of`.
        DataError: if there are no questions.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        tokenizer: Any,
        *,
        max_length: int = 384,
        stride: int = 128,
        max_question: int = 64,
    ) -> None:
        tokenizer = as_tokenizer(tokenizer)
        self.questions = tuple(questions)
        self.windows = windows_of(
            self.questions, tokenizer, max_length=max_length, stride=stride, max_question=max_question
        )
        super().__init__(tokenizer, len(self.windows), max_length=max_length)

    def sample(self, position: int) -> dict[str, Any]:
        """Return one window."""
        window = self.windows[position]
        return {
            "inputs": {name: _long(values) for name, values in window.inputs.items()},
            "targets": torch.tensor(window.target),
            "mask": torch.from_numpy(window.answerable),
            "window": {"first": _long(window.offsets[:, 0]), "last": _long(window.offsets[:, 1])},
            "question": self.questions[window.question],
        }


def _long(values: Ids) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))


def cross_lingual(
    files: Mapping[str, Sequence[Question]],
    *,
    languages: int = 0,
    always: str | None = "en",
    only_same: bool = False,
    seed: int = 3,
) -> list[Question]:
    """Pair questions in one language with the context and answers in another.

    For each id a set of languages is drawn, and each ordered pair of it gives one question. (The released sampler
    returns some pairs twice; here each comes once.)

    Args:
        files: Questions by language; those with one id are translations of each other. An id need not be in all.
        languages: How many languages are drawn for each id beside ``always``; 0, or as many as there are, takes all.
        always: A language that belongs to every set where the id has it; ``None`` draws without.
        only_same: Only pairs of one language with itself.
        seed: Seed of the draws.

    Raises:
        ConfigError: if ``languages`` is below 0, or ``always`` is none of the languages.
        DataError: if no id is in more than one language where several are given.
    """
    if languages < 0:
        raise ConfigError(f"languages must be 0 (all) or more, got {languages}")
    if always is not None and always not in files:
        raise ConfigError(f"always={always!r} is none of the languages {', '.join(files)}: name one of them, or None")
    by_id: dict[str, dict[str, Question]] = {}
    for language, questions in files.items():
        for question in questions:
            by_id.setdefault(question.identity, {})[language] = question
    if len(files) > 1 and all(len(versions) == 1 for versions in by_id.values()):
        raise DataError(f"no question has one id in two of the languages {', '.join(files)}: give parallel files")
    draw = np.random.RandomState(seed)
    paired: list[Question] = []
    for identity, versions in by_id.items():
        drawn = [language for language in versions if language != always]
        if 0 < languages < len(drawn):
            drawn = [drawn[index] for index in sorted(draw.permutation(len(drawn))[:languages])]
        chosen = [always, *drawn] if always is not None and always in versions else drawn
        for asked in chosen:
            for told in (asked,) if only_same else chosen:
                source = versions[told]
                paired.append(Question(identity, versions[asked].question, source.context, source.answers, asked, told))
    return paired


class ParallelQuestions(QuestionWindows):
    """Parallel files in SQuAD's format, such as XQuAD's and MLQA's, as questions of all pairs of languages.

    Args:
        root: Folder of the files.
        files: File of each language, by code; questions with one id are translations.
        tokenizer: See :class:`QuestionWindows`.
        languages: See :func:`cross_lingual`, as for the next three.
        always: See there.
        only_same: See there.
        seed: See there.
        lost: See :func:`~limbeck_nlp.qa.squad.read_squad`; ``lost`` of the object says of which questions, by language.
        max_length: See :func:`windows_of`, as for the others.
        stride: See there.
        max_question: See there.

    Raises:
        DataError: as :func:`~limbeck_nlp.qa.squad.read_squad` and :func:`cross_lingual`.
        ConfigError: as :func:`windows_of` and :func:`cross_lingual`.
    """

    def __init__(
        self,
        root: str | Path,
        files: Mapping[str, str],
        tokenizer: Any,
        *,
        languages: int = 0,
        always: str | None = "en",
        only_same: bool = False,
        seed: int = 3,
        lost: Literal["refuse", "drop"] = "refuse",
        max_length: int = 384,
        stride: int = 128,
        max_question: int = 64,
    ) -> None:
        contents = {
            code: read_squad(Path(root) / file, question_language=code, lost=lost) for code, file in files.items()
        }
        self.lost = {code: content.lost for code, content in contents.items()}
        read = {code: content.questions for code, content in contents.items()}
        questions = cross_lingual(read, languages=languages, always=always, only_same=only_same, seed=seed)
        super().__init__(questions, tokenizer, max_length=max_length, stride=stride, max_question=max_question)
