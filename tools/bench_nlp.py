"""Measure relations between tokens against a loop over samples, and what padding costs a training step.

    python tools/bench_nlp.py                 # some minutes on one core
    python tools/bench_nlp.py --quick         # the same on tiny inputs, in seconds: that it runs
    python tools/bench_nlp.py --pairs 60

A ratio is our time over the other's, so that less than 1 is a gain. Measured as in ``bench_core.py``: one process, one
thread, interleaved pairs, processor time, the median with its 95 % bootstrap interval. The loss over logits of large
vocabularies has a tool of its own, ``bench_large_vocabulary.py``.
"""

from __future__ import annotations

import argparse
import gc
import math
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from bench_core import interleaved, keep_freed_memory, summary
from torch import Tensor
from torch.nn import functional as F

from limbeck_core import Distiller
from limbeck_core.calls import MappingCall
from limbeck_core.functional import self_attention_relation_loss
from limbeck_nlp.data import pad_batch
from limbeck_nlp.data.buckets import LengthSampler
from limbeck_nlp.encoder_compression import minilm_matches
from limbeck_nlp.models import transformer

Step = Callable[[], object]
QUICK_PAIRS = 2


class Texts:
    """Random ids; lengths as of sentences: most are short, few long.

    Args:
        size: Number of texts.
        longest: Tokens of the longest.
        seed: Seed of ids and lengths.
    """

    def __init__(self, size: int, longest: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(size, generator=generator).mul(0.6).exp() * longest / 6
        self.lengths = drawn.long().clamp(4, longest).tolist()
        self.rows = [torch.randint(5, 1000, (length,), generator=generator) for length in self.lengths]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = self.rows[index]
        return {"inputs": {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, "ids": index}


def relations(quick: bool) -> Iterator[tuple[str, Step, Step]]:
    """One relation of MiniLM, forward and backward, against a loop over samples that cuts each to its length."""
    size, longest, width, heads = (2, 8, 8, 2) if quick else (8, 128, 768, 12)
    torch.manual_seed(0)
    student, teacher = torch.randn(size, longest, width // 2), torch.randn(size, longest, width)
    student.requires_grad_()
    for name, lengths in (("full", [longest] * size), ("half empty", torch.linspace(4, longest, size).long().tolist())):
        mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()

        def ours(mask: Tensor = mask) -> Tensor:
            student.grad = None
            loss = self_attention_relation_loss(student, teacher, relation_heads=heads, mask=mask)
            loss.backward()
            return loss.detach()

        def looped(lengths: Sequence[int] = lengths) -> Tensor:
            student.grad = None
            loss = torch.stack(
                [_one(student[row, :n], teacher[row, :n], heads) for row, n in enumerate(lengths)]
            ).mean()
            loss.backward()
            return loss.detach()

        torch.testing.assert_close(ours(), looped())
        yield f"MiniLM relation, {size}x{longest}, {heads} heads, rows {name}, over a loop", ours, looped


def _one(student: Tensor, teacher: Tensor, heads: int) -> Tensor:
    """The relation of one sample, without padding."""

    def log_relation(states: Tensor) -> Tensor:
        split = states.unflatten(-1, (heads, -1)).transpose(0, 1)
        return F.log_softmax(split @ split.transpose(1, 2) / math.sqrt(split.shape[-1]), -1)

    return F.kl_div(log_relation(student), log_relation(teacher), log_target=True, reduction="none").sum(-1).mean()


def steps(quick: bool) -> Iterator[tuple[str, Step, Step]]:
    """An epoch of MiniLM: padded to the longest of each batch, and by buckets of length, over padded to the limit."""
    size, longest, batch_size = (16, 16, 4) if quick else (128, 128, 16)
    shape: dict[str, Any] = dict(vocab_size=1000, max_position_embeddings=longest, num_attention_heads=4)
    torch.manual_seed(0)
    teacher = transformer("encoder", "bert", hidden_size=64, num_hidden_layers=4, intermediate_size=256, **shape)
    student = transformer("encoder", "bert", hidden_size=32, num_hidden_layers=2, intermediate_size=128, **shape)
    distiller = Distiller(student, teacher, minilm_matches(student, teacher), call=MappingCall(labels=None)).train()
    texts = Texts(size, longest)

    def epoch(order: Sequence[int], multiple_of: int) -> Step:
        def run() -> None:
            for start in range(0, size, batch_size):
                batch = pad_batch([texts[i] for i in order[start : start + batch_size]], multiple_of=multiple_of)
                distiller.zero_grad()
                sum(distiller(batch).values()).backward()

        return run

    shuffled = torch.randperm(size).tolist()
    sorted_in_pools = list(LengthSampler(texts, batch_size=batch_size, pool=4, rank=0, world_size=1))
    title = f"epoch of MiniLM, batch {batch_size}, limit {longest}"
    yield f"{title}: padded to the batch's longest", epoch(shuffled, 1), epoch(shuffled, longest)
    yield f"{title}: by buckets of length", epoch(sorted_in_pools, 1), epoch(shuffled, longest)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny inputs and few pairs: only that it runs")
    parser.add_argument("--pairs", metavar="N", type=int, help="pairs a comparison (default: 30; 2 with --quick)")
    options = parser.parse_args(arguments)
    pairs = options.pairs or (QUICK_PAIRS if options.quick else 30)
    keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.disable()  # a collection would fall on one side of a pair
    try:
        print(f"ours over the other, processor time; {platform.machine()} CPU, 1 thread, torch {torch.__version__}")
        for cases in (relations, steps):
            for title, ours, other in cases(options.quick):
                gc.collect()
                row = summary("nlp", title, interleaved(ours, other, pairs, 0.0))
                print(f"{row.name:<72} {row.ratio:7.3f}  [{row.low:.3f}, {row.high:.3f}]  {row.pairs:3d}", flush=True)
    finally:
        gc.enable()
        torch.set_num_threads(threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
