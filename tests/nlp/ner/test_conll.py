"""Columns, schemes and entity scores."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from limbeck_core.errors import ConfigError, DataError
from limbeck_nlp.evaluation.ner import entity_scores, evaluate
from limbeck_nlp.ner.conll import TaggedSentence, label_list, read_conll, scheme_of, to_bio, to_bioes, write_conll

PLAIN = TaggedSentence(("Ana", "Berg", "in", "Rom"), ("B-PER", "I-PER", "O", "B-LOC"))


@pytest.mark.parametrize(
    "text",
    [
        "Ana B-PER\nBerg I-PER\nin O\nRom B-LOC\n",
        "-DOCSTART- -X- O O\n\nAna NNP B-NP I-PER\nBerg NNP I-NP I-PER\nin IN O O\nRom NNP B-NP I-LOC\n\n\n",
        "# id 17 domain=x\nAna _ _ B-PER\nBerg _ _ I-PER\nin _ _ O\nRom _ _ B-LOC",
        "de:Ana\tB-PER\r\nde:Berg\tI-PER\r\nde:in\tO\r\nde:Rom\tB-LOC\r\n",
        "\ufeffAna B-PER\nBerg E-PER\nin O\nRom S-LOC\n",
        "Ana B-PER\nBerg L-PER\nin O\nRom U-LOC\n",
    ],
)
def test_usual_layouts_give_the_same(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode())
    found = read_conll(tmp_path / "a.txt")
    assert found.sentences == (PLAIN,)
    assert found.repaired == 0


def test_latin_1_and_gzip(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress("Málaga B-LOC\n\n# O\n".encode("latin-1")))
    found = read_conll(tmp_path / "a.gz")
    assert found.encoding == "latin-1"
    assert [s.words for s in found.sentences] == [("Málaga",), ("#",)]
    with pytest.raises(DataError, match="no text in utf-8"):
        read_conll(tmp_path / "a.gz", encoding="utf-8")


def test_text_without_tags(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("Ana\nBerg\n\nRom\n")
    assert [s.words for s in read_conll(tmp_path / "a", tag_column=None).sentences] == [("Ana", "Berg"), ("Rom",)]
    with pytest.raises(DataError, match="line 1: expected at least 2 columns"):
        read_conll(tmp_path / "a")


@pytest.mark.parametrize(
    ("scheme", "tags", "expected", "repaired"),
    [
        ("bio", "O I-A I-A I-B O", "O B-A I-A B-B O", 2),
        ("iob1", "I-A I-A B-A I-B", "B-A I-A B-A B-B", 0),
        ("bioes", "S-A B-A I-A E-A S-B", "B-A B-A I-A I-A B-B", 0),
        ("bioes", "B-A O", "B-A O", 1),
        ("bioes", "O E-A", "O B-A", 1),
        ("bioes", "B-A E-B", "B-A B-B", 2),
        ("bioes", "B-A I-A", "B-A I-A", 1),
    ],
)
def test_tags_are_repaired_with_a_count(scheme: str, tags: str, expected: str, repaired: int) -> None:
    assert to_bio(tags.split(), scheme=scheme) == (expected.split(), repaired)


def test_schemes_are_told_apart() -> None:
    assert scheme_of([["B-A", "I-A"], ["I-A"]]) == "bio"
    assert scheme_of([["I-A", "B-A"], ["O"]]) == "iob1"
    assert scheme_of([["O", "S-A"]]) == "bioes"
    assert scheme_of([["O"]]) == "bio"
    with pytest.raises(ConfigError, match="scheme must be one of auto, bio"):
        to_bio(["O"], scheme="xml")  # type: ignore[arg-type]


def test_bioes_and_back() -> None:
    tags = ["B-A", "I-A", "I-A", "B-A", "O", "B-B", "B-B", "I-B"]
    assert to_bio(to_bioes(tags), scheme="bioes") == (tags, 0)
    assert label_list(["PER", "LOC", "PER"]) == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def test_scores_by_hand(tmp_path: Path) -> None:
    guess = TaggedSentence(PLAIN.words, ("B-PER", "O", "O", "I-LOC"))
    scores = evaluate([guess], [PLAIN])
    assert (scores["precision"], scores["recall"], scores["f1"], scores["support"]) == (50, 50, 50, 2)
    assert scores["types"]["LOC"]["f1"] == 100
    write_conll(tmp_path / "p", [guess, PLAIN])
    write_conll(tmp_path / "t", [PLAIN, PLAIN])
    scores = evaluate(tmp_path / "p", tmp_path / "t")
    assert scores["f1"] == 75
    assert scores["repaired"] == 1
    assert entity_scores([["O"]], [["O"]])["f1"] == 0


def test_other_sentences_are_refused() -> None:
    other = TaggedSentence(("Eva", *PLAIN.words[1:]), PLAIN.tags)
    with pytest.raises(DataError, match="sentence 1 differs: predictions have 'Eva Berg"):
        evaluate([other], [PLAIN])
    with pytest.raises(DataError, match="got 2 and 1"):
        evaluate([PLAIN, PLAIN], [PLAIN])
    with pytest.raises(DataError, match="a tag for each"):
        entity_scores([["O"]], [["O", "O"]])


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("Ana PER\n")
    with pytest.raises(DataError, match="expected a tag such as O, B-PER"):
        read_conll(tmp_path / "a")
    (tmp_path / "b").write_text("\n\n")
    with pytest.raises(DataError, match="holds no sentence"):
        read_conll(tmp_path / "b")
    with pytest.raises(DataError, match="there is no file"):
        read_conll(tmp_path / "c")
