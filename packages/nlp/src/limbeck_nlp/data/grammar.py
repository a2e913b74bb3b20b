"""A small grammar that writes English sentences from a seed: text for trials and quickstarts, with everything known.

A sentence says that somebody will, or will not, do something with a thing, perhaps at a place and a time::

    Anna Berg will not repair the old lantern in the harbour today

Every word belongs to a concept that may be put in other words (``repair``, ``mend``, ``fix``), so paraphrases and
degrees of similarity are known; every word has its role, so entities and answers are known; and the intent follows from
several words together, so no single one tells it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

ROLES = ("who", "deed", "thing", "place", "time")
# Concepts of each role, each with the ways to say it. Deeds and things come in four kinds of three concepts.
CONCEPTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "who": (
        ("Anna Berg", "Mrs Berg"),
        ("Tom Field", "Mr Field"),
        ("Mara Silva", "Dr Silva"),
        ("Igor Novak", "Mr Novak"),
        ("Lena Koch", "Mrs Koch"),
        ("Omar Haddad", "Dr Haddad"),
        ("Ruth Stone", "Mrs Stone"),
        ("Paul Meyer", "Mr Meyer"),
        ("Nina Rossi", "Dr Rossi"),
        ("Hugo Lind", "Mr Lind"),
        ("Sara Okoye", "Mrs Okoye"),
        ("Ivan Petrov", "Dr Petrov"),
    ),
    "deed": (
        ("buy", "purchase", "acquire"),
        ("borrow", "rent", "hire"),
        ("order", "request", "demand"),
        ("sell", "trade", "auction"),
        ("lend", "loan", "share"),
        ("give", "donate", "offer"),
        ("repair", "mend", "fix"),
        ("clean", "wash", "polish"),
        ("paint", "varnish", "decorate"),
        ("break", "smash", "ruin"),
        ("lose", "mislay", "misplace"),
        ("hide", "bury", "conceal"),
    ),
    "thing": (
        ("lantern", "lamp", "torch"),
        ("clock", "watch", "timer"),
        ("radio", "speaker", "receiver"),
        ("chair", "stool", "bench"),
        ("table", "desk", "counter"),
        ("cupboard", "shelf", "cabinet"),
        ("bicycle", "bike", "tandem"),
        ("boat", "canoe", "raft"),
        ("cart", "wagon", "trailer"),
        ("coat", "jacket", "cloak"),
        ("boot", "shoe", "sandal"),
        ("hat", "cap", "bonnet"),
    ),
    "place": (
        ("in the harbour", "at the port"),
        ("in the old town", "near the old town"),
        ("at the market", "in the bazaar"),
        ("by the river", "on the river bank"),
        ("at the station", "by the railway"),
        ("in the garden", "in the park"),
        ("at the school", "by the college"),
        ("on the hill", "on the slope"),
    ),
    "time": (
        ("today", "this day"),
        ("tomorrow", "the next day"),
        ("on Monday", "early on Monday"),
        ("in May", "one day in May"),
        ("at noon", "around noon"),
        ("at night", "after dark"),
        ("next week", "in a week"),
        ("in winter", "during winter"),
    ),
}
QUALITIES = ("old", "new", "small", "large", "green", "blue", "heavy", "light")
KINDS = 4
NUM_INTENTS = 2 * KINDS
_PER_KIND = 3
ABSENT = -1


@dataclass(frozen=True)
class Sentence:
    """One sentence and all that is known about it.

    Args:
        words: The words.
        roles: The role of each word: one of ``ROLES``, ``"not"``, or ``""``.
        concepts: The concept of each role, an index into ``CONCEPTS``; ``ABSENT`` where nothing is said.
        negated: Whether it will not be done.
    """

    words: tuple[str, ...]
    roles: tuple[str, ...]
    concepts: tuple[int, ...]
    negated: bool

    @property
    def text(self) -> str:
        """The words with spaces between."""
        return " ".join(self.words)

    @property
    def intent(self) -> int:
        """A class in ``[0, NUM_INTENTS)``: the kind of the deed if it will be done, else four and the kind of thing.

        So the negation says which word matters, and no single word tells the intent.
        """
        role = "thing" if self.negated else "deed"
        return self.concepts[ROLES.index(role)] // _PER_KIND + KINDS * self.negated

    def part(self, role: str) -> str:
        """The words of one role; empty where nothing is said."""
        return " ".join(word for word, of in zip(self.words, self.roles, strict=True) if of == role)


def similarity(first: Sentence, second: Sentence) -> float:
    """Share of the six things a sentence says (five concepts, and whether it is so) that two sentences agree on."""
    equal = sum(a == b for a, b in zip(first.concepts, second.concepts, strict=True))
    return (equal + (first.negated == second.negated)) / (len(ROLES) + 1)


class Grammar:
    """Writes sentences; the same seed writes the same ones on every machine.

    Args:
        seed: Seed of the random choices.

    >>> Grammar(0).sentence().text == Grammar(0).sentence().text
    True
    """

    def __init__(self, seed: int = 0) -> None:
        self._draw = np.random.RandomState(seed)  # the one generator whose stream NumPy never changes

    def sentence(self) -> Sentence:
        """Write one sentence about anything; place and time are each said in two of three."""
        concepts = [int(self._draw.randint(len(CONCEPTS[role]))) for role in ROLES]
        for role in ("place", "time"):
            if self._draw.rand() < 1 / 3:
                concepts[ROLES.index(role)] = ABSENT
        return self.say(tuple(concepts), negated=bool(self._draw.rand() < 0.5))

    def sentences(self, count: int) -> list[Sentence]:
        """Write several."""
        return [self.sentence() for _ in range(count)]

    def say(self, concepts: tuple[int, ...], *, negated: bool) -> Sentence:
        """Put concepts into words, in one of many ways.

        Args:
            concepts: An index for each role, ``ABSENT`` for place and time that are not said.
            negated: Whether it will not be done.
        """
        words: list[str] = []
        roles: list[str] = []

        def add(text: str, role: str = "") -> None:
            parts = text.split()
            words.extend(parts)
            roles.extend([role] * len(parts))

        chosen = dict(zip(ROLES, concepts, strict=True))
        ends = [role for role in ("place", "time") if chosen[role] != ABSENT]
        if len(ends) == 2 and self._draw.rand() < 0.5:
            ends.reverse()
        if ends and self._draw.rand() < 0.3:
            role = ends.pop()
            add(self._word(role, chosen[role]), role)
        add(self._word("who", chosen["who"]), "who")
        add("will")
        if negated:
            add(str(self._draw.choice(["not", "never"])), "not")
        add(self._word("deed", chosen["deed"]), "deed")
        add(str(self._draw.choice(["the", "a", "this", "that"])))
        if self._draw.rand() < 0.5:
            add(str(self._draw.choice(QUALITIES)))
        add(self._word("thing", chosen["thing"]), "thing")
        for role in ends:
            add(self._word(role, chosen[role]), role)
        return Sentence(tuple(words), tuple(roles), tuple(concepts), negated)

    def paraphrase(self, sentence: Sentence) -> Sentence:
        """Say the same in other words (or, by chance, in the same ones)."""
        return self.say(sentence.concepts, negated=sentence.negated)

    def variation(self, sentence: Sentence, changes: int) -> Sentence:
        """Say something that differs in so many of the six things; place and time may change to nothing said.

        Args:
            sentence: What to start from.
            changes: How many things change, 0 to 6.
        """
        concepts, negated = list(sentence.concepts), sentence.negated
        for index in self._draw.permutation(len(ROLES) + 1)[:changes]:
            if index == len(ROLES):
                negated = not negated
                continue
            role = ROLES[index]
            lowest = ABSENT if role in ("place", "time") else 0
            others = [value for value in range(lowest, len(CONCEPTS[role])) if value != concepts[index]]
            concepts[index] = int(self._draw.choice(others))
        return self.say(tuple(concepts), negated=negated)

    def choice(self, count: int) -> int:
        """Draw a number in ``[0, count)`` from the same stream."""
        return int(self._draw.randint(count))

    def _word(self, role: str, concept: int) -> str:
        ways = CONCEPTS[role][concept]
        return ways[int(self._draw.randint(len(ways)))]


def corpus(count: int, *, seed: int = 0) -> list[str]:
    """Write ``count`` sentences as text, for a tokenizer or a language model."""
    return [sentence.text for sentence in Grammar(seed).sentences(count)]


def all_words() -> Iterator[str]:
    """Every word that the grammar can write."""
    seen = {"will", "not", "never", "the", "a", "this", "that", *QUALITIES}
    for ways in (ways for concepts in CONCEPTS.values() for ways in concepts):
        for way in ways:
            seen.update(way.split())
    yield from sorted(seen)
