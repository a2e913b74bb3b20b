"""Two ranks with three and two clips learn the same clusters as one process with all five."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from limbeck_audiovideo.discovr import ClusterDistillationLoss
from limbeck_core import Distiller, Match
from ranks import on_ranks

WORLD, CLIPS = 2, 5


class Toy(nn.Module):
    """Tokens in; tokens by picture, and the first picture of each tubelet, out."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures = nn.Linear(3, 4)
        self.tokens = nn.Flatten(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.tokens(self.pictures(x)[:, ::2])
        return tokens


def distiller() -> Distiller:
    torch.manual_seed(0)
    loss = ClusterDistillationLoss(3, 4)
    return Distiller(Toy(), Toy(), {"clusters": Match(loss, "tokens", "pictures")}).double()


def run(model: nn.Module, share: slice) -> dict[str, Any]:
    inputs = torch.randn(CLIPS, 4, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    loss = model(inputs=inputs[share])["loss/clusters"]
    loss.backward()
    return {"loss": loss.detach(), **{name: p.grad for name, p in model.named_parameters() if p.grad is not None}}


def ranked(rank: int) -> dict[str, Any]:
    return run(DistributedDataParallel(distiller(), broadcast_buffers=False), slice(rank, None, WORLD))


def test_two_ranks_are_one_process(tmp_path: Any) -> None:
    expected = run(distiller(), slice(None))
    found = on_ranks(tmp_path, ranked)
    torch.testing.assert_close(sum(part["loss"] for part in found) / WORLD, expected.pop("loss"), rtol=1e-10, atol=0.0)
    assert {"student.pictures.weight", "matches.clusters.loss.prototypes"} <= expected.keys()
    for name, gradient in expected.items():
        for part in found:
            torch.testing.assert_close(part[f"module.{name}"], gradient, rtol=1e-9, atol=1e-12)
