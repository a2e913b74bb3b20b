"""An id means one image: through subsets of subsets, shuffling, workers and ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from limbeck_core.engine import held_out_part
from limbeck_core.engine.sampler import build_dataloader
from limbeck_vision.data import Digits, LongTailed, Subset
from ranks import on_ranks

NESTED = {
    "type": held_out_part,
    "dataset": {"type": LongTailed, "dataset": {"type": Digits}, "imbalance": 10},
    "count": 0.3,
    "held_out": False,
}


def epoch(**options: Any) -> list[dict[str, torch.Tensor]]:
    config = {"dataset": NESTED, "batch_size": 16, "sampler": {"shuffle": True}, **options}
    return list(build_dataloader(config, seed=5, training=True))


def check(batches: list[dict[str, torch.Tensor]]) -> list[int]:
    """Every id's image and label are the whole set's under that id; return the ids."""
    whole = Digits()
    ids = torch.cat([batch["ids"] for batch in batches]).tolist()
    images = torch.cat([batch["inputs"] for batch in batches])
    for identity, image in zip(ids, images, strict=True):
        torch.testing.assert_close(image, whole.image(identity))
    np.testing.assert_array_equal(torch.cat([batch["targets"] for batch in batches]), whole.targets[ids])
    return ids


def test_ids_lead_back_to_the_whole_set() -> None:
    part = held_out_part(LongTailed(Digits(), imbalance=10), count=0.3, held_out=False)
    assert sorted(check(epoch())) == sorted(part.ids.tolist())
    assert check(epoch(num_workers=2)) == check(epoch()), "workers change nothing"


def ids_of_a_rank(rank: int) -> dict[str, torch.Tensor]:
    batches = epoch()
    check(batches)
    return {"ids": torch.cat([batch["ids"] for batch in batches])}


def test_ranks_share_the_ids_out(tmp_path: Path) -> None:
    ranks = [result["ids"].tolist() for result in on_ranks(tmp_path, ids_of_a_rank)]
    everyone = held_out_part(LongTailed(Digits(), imbalance=10), count=0.3, held_out=False).ids.tolist()
    assert set(ranks[0]) | set(ranks[1]) == set(everyone)
    assert len(ranks[0]) == len(ranks[1])
    repeated = len(ranks[0]) + len(ranks[1]) - len(everyone)
    assert 0 <= repeated <= 1, "one sample at most is repeated, so that both ranks make the same number of steps"


def test_a_subset_of_a_subset_keeps_the_first_ids() -> None:
    inner = Subset(Digits(), [30, 10, 20])
    assert [Subset(inner, [2, 0])[index]["ids"] for index in (0, 1)] == [20, 30]
