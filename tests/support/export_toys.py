"""Components of the configs that the tests of exporting and suggesting use: small image models, and who calls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from limbeck_core import TensorCall

CLASSES, SIZE = 3, 8

CONFIG = """# Small images, a small network.
#   limbeck train images.py
from export_toys import Doubling, Images, Net, forbidden
from limbeck_core import Distiller, Match
from limbeck_core.losses import KLDivergenceLoss
from torch.nn import CrossEntropyLoss

test_dataloader = dict(batch_size=64, dataset=dict(type=Images), num_workers=2)
model = dict(
    type=Distiller,
    student=dict(type=Net, width=6),
    teacher=dict(type=forbidden),
    call=dict(type=Doubling),
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(kd=dict(type=Match, loss=dict(type=KLDivergenceLoss), student="fc", teacher="fc")),
)
"""


class Net(nn.Module):
    """A convolution, batch normalisation and a classifier."""

    def __init__(self, width: int = 6, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, kernel, stride=2, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))


def forbidden() -> nn.Module:
    """A teacher that nobody may build."""
    raise AssertionError("a teacher was built")


class Images(Dataset[Any]):
    """Noise with labels."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        return {"inputs": torch.rand(3, SIZE, SIZE, generator=generator), "targets": torch.tensor(index % CLASSES)}


class Doubling(TensorCall):
    """Does something to the images that the model alone does not."""

    def capture(self, model: nn.Module, batch: Mapping[str, Any], view: str) -> Any:
        return super().capture(model, {**batch, view: 2 * batch[view] - 1}, view)


class Random(Net):
    """Draws numbers in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.rand(len(x), 1)


class Deciding(Net):
    """Decides on values."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits if logits.sum() > 0 else -logits


class Broken(Net):
    """Gives no numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * float("nan")


class Words(nn.Module):
    """Takes token numbers and a mask by name, returns a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 4)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, *, tokens: Tensor, keep: Tensor) -> dict[str, Tensor]:
        embedded = self.embedding(tokens) * keep.unsqueeze(2)
        return {"logits": self.fc(embedded.sum(1) / keep.sum(1, keepdim=True).clamp(min=1))}


def sized_net(sizes: tuple[int, int]) -> Net:
    """A network whose argument loses its type in JSON."""
    return Net(*sizes) if isinstance(sizes, tuple) else Net(1)
