"""Tokenizers: from a local folder, or learnt from the user's own text, so that nothing need be downloaded.

A tokenizer of transformers does all the rest: special tokens, pairs, truncation, offsets into the text.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from limbeck_core.build import build
from limbeck_core.errors import ConfigError, DataError, LimbeckError, closest

Kind = Literal["wordpiece", "bpe", "unigram", "words"]
PAD, UNKNOWN, CLASSIFY, SEPARATE, MASK, BEGIN, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[BOS]", "[EOS]"
SPECIAL = (PAD, UNKNOWN, CLASSIFY, SEPARATE, MASK, BEGIN, END)


def tokenizer_from(folder: str | Path) -> Any:
    """Load a fast tokenizer from a local folder, as ``save_pretrained`` writes it.

    Args:
        folder: It holds ``tokenizer.json`` (and usually ``tokenizer_config.json``), or the vocabulary files from which
            transformers makes one.

    Raises:
        DataError: if there is no folder, or no tokenizer in it; names of a hub are not looked up.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415  takes seconds

    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {folder} with a tokenizer: names of a hub are not looked up; download first, then "
            "give the folder, or learn one from your text with train_tokenizer"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, use_fast=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} holds no tokenizer that transformers can read: {error}") from error
    return tokenizer


def train_tokenizer(
    texts: Iterable[str],
    *,
    kind: Kind = "wordpiece",
    vocabulary_size: int = 8000,
    lowercase: bool = False,
    segments: bool = False,
    max_length: int = 512,
) -> Any:
    """Learn a tokenizer from text, with the special tokens of encoders and of language models.

    A sentence becomes ``[CLS] a [SEP]``, a pair ``[CLS] a [SEP] b [SEP]`` with segments 0 and 1. For text that goes on,
    call it with ``add_special_tokens=False`` and put ``[BOS]`` and ``[EOS]`` where they belong.

    Args:
        texts: The text; it is read once. ``"bpe"`` and ``"words"`` give the same tokenizer for the same text. For the
            others the library breaks ties by chance: save one (``save_pretrained``) and let every run load the folder.
        kind: ``"wordpiece"`` (BERT), ``"bpe"`` on bytes (RoBERTa, GPT), ``"unigram"`` (SentencePiece), or ``"words"``
            split at spaces and punctuation.
        vocabulary_size: At most so many tokens, the seven special ones included; little text gives fewer.
        lowercase: Fold case (and, for WordPiece and words, strip accents).
        segments: Give ``token_type_ids`` too, which say for each token whether it is of the first text or the second.
            BERT, ALBERT and ELECTRA take them; RoBERTa, DistilBERT and language models do not.
        max_length: Longest input, in tokens, to which ``truncation=True`` cuts.

    Raises:
        ConfigError: if ``kind`` is unknown or ``vocabulary_size`` leaves no room.
        DataError: if there is no text.
    """
    import tokenizers as library  # noqa: PLC0415
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    if kind not in get_args(Kind):
        raise ConfigError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    if vocabulary_size <= len(SPECIAL):
        raise ConfigError(f"vocabulary_size must be above {len(SPECIAL)}, the special tokens, got {vocabulary_size}")
    if isinstance(texts, str):
        raise DataError("texts must be a sequence of strings, got one string: put it into a list")
    lines = list(texts)
    if not any(line.strip() for line in lines):
        raise DataError("there is no text to learn a tokenizer from: got no line that is not empty")
    special = list(SPECIAL)
    options: dict[str, Any] = {"vocab_size": vocabulary_size, "special_tokens": special, "show_progress": False}
    if kind == "wordpiece":
        model: Any = models.WordPiece(unk_token=UNKNOWN)
        before: Any = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(**options)
        decoder: Any = decoders.WordPiece()
    elif kind == "bpe":
        model, before, decoder = models.BPE(), pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(**options, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    elif kind == "unigram":
        model, before, decoder = models.Unigram(), pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(**options, unk_token=UNKNOWN)
    else:
        model, before, decoder = models.WordLevel(unk_token=UNKNOWN), pre_tokenizers.BertPreTokenizer(), None
        trainer = trainers.WordLevelTrainer(**options)
    inner = library.Tokenizer(model)
    folding: list[Any] = [normalizers.NFKC()] if kind in ("unigram", "words") else []
    if kind in ("wordpiece", "words"):
        folding.append(normalizers.BertNormalizer(lowercase=lowercase))
    elif lowercase:
        folding.append(normalizers.Lowercase())
    if folding:
        inner.normalizer = normalizers.Sequence(folding)
    inner.pre_tokenizer = before
    if decoder is not None:
        inner.decoder = decoder
    inner.train_from_iterator(lines, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single=f"{CLASSIFY} $A {SEPARATE}",
        pair=f"{CLASSIFY} $A {SEPARATE} $B:1 {SEPARATE}:1",
        special_tokens=[(token, inner.token_to_id(token)) for token in (CLASSIFY, SEPARATE)],
    )
    family: Any = PreTrainedTokenizerFast
    names = ["input_ids", *(["token_type_ids"] if segments else []), "attention_mask"]
    return family(
        tokenizer_object=inner,
        model_max_length=max_length,
        model_input_names=names,
        pad_token=PAD,
        unk_token=UNKNOWN,
        cls_token=CLASSIFY,
        sep_token=SEPARATE,
        mask_token=MASK,
        bos_token=BEGIN,
        eos_token=END,
    )


def as_tokenizer(value: Any) -> Any:
    """Return a tokenizer from one, from a local folder, or from a config of either.

    Raises:
        ConfigError: if it is none of these.
    """
    if isinstance(value, (str, Path)):
        return tokenizer_from(value)
    built = build(value) if isinstance(value, Mapping) and "type" in value else value
    if not callable(built) or not hasattr(built, "convert_tokens_to_ids"):
        raise ConfigError(
            f"tokenizer must be one of transformers, a path of a local folder, or a config, got {type(built).__name__}"
        )
    return built


def vocabulary_hash(tokenizer: Any) -> str:
    """Return a short hash of all tokens and their ids; equal hashes mean that two models can share their inputs."""
    entries = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    text = "\n".join(f"{index}\t{token}" for token, index in entries)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def same_vocabulary(first: Any, second: Any) -> bool:
    """Whether two tokenizers give every token of the smaller one the same id.

    A model may pad its vocabulary; that is no difference. Then logits can be compared token by token.
    """
    small, large = sorted((first.get_vocab(), second.get_vocab()), key=len)
    return all(large.get(token) == index for token, index in small.items())


def check_same_vocabulary(student: Any, teacher: Any) -> None:
    """Refuse two tokenizers whose ids mean different things.

    Raises:
        ConfigError: with the first token that differs, and the way out.
    """
    if same_vocabulary(student, teacher):
        return
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    small, large, name = (ours, theirs, "teacher") if len(ours) <= len(theirs) else (theirs, ours, "student")
    token = min((t for t, index in small.items() if large.get(t) != index), key=lambda t: small[t])
    has = f"has it as {large[token]}" if token in large else "lacks it"
    raise ConfigError(
        f"student and teacher have different vocabularies: id {small[token]} is the token {token!r}, and the {name}'s "
        f"tokenizer {has}. Their distributions over tokens cannot be compared; train the student on what the teacher "
        "writes instead (limbeck_nlp.language_models.write_completions), or give both one tokenizer"
    )


def token_ids(tokenizer: Any, text: str, *, limit: int | None = None) -> Sequence[int]:
    """Return the ids of a text without special tokens, at most ``limit`` of them."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids if limit is None else ids[:limit]


def read_text(path: Path) -> list[str]:
    """Read the lines of a text file, plain or ``.gz``, without the space around them; empty ones stay.

    Raises:
        DataError: if it is missing, damaged, no UTF-8, or empty.
    """
    if not path.is_file():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"there is no file {path}; of {path.parent}, {closest(path.name, sorted(siblings))}")
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or no gzip file: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text: {error}") from error
    # only line feeds part sentences: other separators of Unicode stand inside of some corpora's lines
    lines = [line.strip() for line in text.removesuffix("\n").split("\n")]
    if not any(lines):
        raise DataError(f"{path} holds no text: expected one text a line")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Learn a tokenizer from text files and save it: ``python -m limbeck_nlp.tokenization FILE ... --out FOLDER``.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m limbeck_nlp.tokenization", description="Learn a tokenizer from text."
    )
    parser.add_argument("files", nargs="+", type=Path, help="text files, plain or .gz, UTF-8")
    parser.add_argument("--out", type=Path, required=True, help="folder to save it to")
    parser.add_argument("--kind", default="bpe", choices=get_args(Kind), help="default: bpe")
    parser.add_argument("--size", type=int, default=8000, help="tokens of the vocabulary at most (default: 8000)")
    parser.add_argument("--lowercase", action="store_true", help="fold case")
    options = parser.parse_args(arguments)
    try:
        lines = [line for path in options.files for line in read_text(path) if line]
        tokenizer = train_tokenizer(lines, kind=options.kind, vocabulary_size=options.size, lowercase=options.lowercase)
    except LimbeckError as error:
        print(f"tokenization: {error}", file=sys.stderr)
        return 2
    tokenizer.save_pretrained(str(options.out))
    print(f"{len(tokenizer)} tokens from {len(lines)} lines, in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
