"""The grammar writes what it says it writes."""

from __future__ import annotations

from limbeck_nlp.data.grammar import (
    ABSENT,
    CONCEPTS,
    NUM_INTENTS,
    ROLES,
    Grammar,
    all_words,
    corpus,
    similarity,
)


def test_a_seed_decides_the_text() -> None:
    assert corpus(20, seed=3) == corpus(20, seed=3)
    assert corpus(20, seed=3) != corpus(20, seed=4)
    first = Grammar(0).sentence()
    assert first.text == "by the river Omar Haddad will never acquire that chair one day in May"
    assert first.intent == 5  # negated, so 4 and the kind of a chair


def test_every_role_says_its_concept() -> None:
    for sentence in Grammar(1).sentences(300):
        assert len(sentence.words) == len(sentence.roles)
        for role, concept in zip(ROLES, sentence.concepts, strict=True):
            said = sentence.part(role)
            assert said == "" if concept == ABSENT else said in CONCEPTS[role][concept]
        assert ("not" in sentence.roles) == sentence.negated


def test_every_intent_occurs() -> None:
    assert {sentence.intent for sentence in Grammar(2).sentences(300)} == set(range(NUM_INTENTS))


def test_all_words_are_known() -> None:
    known = set(all_words())
    assert {word for sentence in Grammar(3).sentences(2000) for word in sentence.words} == known


def test_paraphrases_say_the_same() -> None:
    grammar = Grammar(4)
    for sentence in grammar.sentences(50):
        other = grammar.paraphrase(sentence)
        assert similarity(sentence, other) == 1
        assert other.intent == sentence.intent


def test_variations_differ_in_so_many_things() -> None:
    grammar = Grammar(5)
    for changes in range(7):
        sentence = grammar.sentence()
        assert round(6 * similarity(sentence, grammar.variation(sentence, changes))) == 6 - changes
