"""Models of many shapes for the tests of suggest, and a data set whose images all of the image models take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

SIZE, PATCH = 32, 4

DATA = """# Noise in ten classes.
from suggest_toys import Images, cnn, vit
from limbeck_core import Distiller
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

train_dataloader = dict(batch_size=16, dataset=dict(type=Images))
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1))
model = dict(
    type=Distiller,
    student=dict(type=cnn),
    teacher=dict(type=vit, width=24),
    task_loss=dict(type=CrossEntropyLoss),
    task_weight=0.5,
    matches=dict(),
)
"""


class Images(Dataset[Any]):
    """Noise with labels."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(index))
        return {"inputs": image, "targets": torch.tensor(index % 10)}


class Sentences(Dataset[Any]):
    """Token numbers with a mask."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, Any]:
        tokens = torch.randint(20, (7,), generator=torch.Generator().manual_seed(index))
        return {"tokens": tokens, "keep": torch.ones(7), "targets": torch.tensor(index % 10)}


class Cnn(nn.Module):
    """Three stages; the first block of each widens at the resolution it is given, as inverted bottlenecks do."""

    def __init__(self, width: int, classes: int, inplace: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        widths = [width, width, 2 * width, 4 * width]
        for number in (1, 2, 3):
            inner, outer = widths[number - 1], widths[number]
            layers = [
                nn.Conv2d(inner, 2 * inner, 1),
                nn.ReLU(inplace),
                nn.Conv2d(2 * inner, outer, 3, stride=2, padding=1),
                nn.BatchNorm2d(outer),
            ]
            self.add_module(f"layer{number}", Block(*layers))
        self.act = nn.ReLU(inplace)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.act(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.fc(self.pool(features).flatten(1))


class Block(nn.Sequential):
    """A sequence with a name of its own, that is one unit."""


def cnn(width: int = 4, classes: int = 10, inplace: bool = False) -> nn.Module:
    """Strides 2, 4 and 8."""
    return Cnn(width, classes, inplace)


class Mixer(nn.Module):
    """A block of a transformer without its attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


class Vit(nn.Module):
    """Patches, a class token, blocks of one shape, and a head on the class token."""

    def __init__(self, width: int, depth: int, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(*(Mixer(width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).mT
        tokens = self.blocks(torch.cat([self.token.expand(len(x), -1, -1), tokens], 1))
        return self.head(self.norm(tokens)[:, 0])


def vit(width: int = 16, depth: int = 8, classes: int = 10) -> nn.Module:
    """Stride 4 from the beginning to the end, a class token in front."""
    return Vit(width, depth, classes)


class Last(nn.Module):
    """Maps whose channels stand last, as in Swin."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.layers = nn.ModuleList([Mixer(width), nn.Sequential(Merge(width), Mixer(2 * width))])
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.patches(x).permute(0, 2, 3, 1)
        for layer in self.layers:
            maps = layer(maps)
        return self.head(maps.mean((1, 2)))


class Merge(nn.Module):
    """Four positions into one of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(4 * width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduce(torch.cat([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], -1))


def last(width: int = 6) -> nn.Module:
    """Strides 4 and 8, channels last."""
    return Last(width)


class Unet(nn.Module):
    """Down and up again, scores for each place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, width, 3, 1, 1), nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.down3 = nn.Conv2d(2 * width, 4 * width, 3, 2, 1)
        self.up2, self.up1 = nn.Conv2d(6 * width, 2 * width, 3, 1, 1), nn.Conv2d(3 * width, width, 3, 1, 1)
        self.larger = nn.Upsample(scale_factor=2)
        self.out = nn.Conv2d(width, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(first)
        up = self.up2(torch.cat([self.larger(self.down3(second)), second], 1))
        return self.out(self.up1(torch.cat([self.larger(up), first], 1)))


def unet(width: int = 4) -> nn.Module:
    """Strides 1, 2, 4, 2, 1."""
    return Unet(width)


class Several(Cnn):
    """Gives features beside its scores."""

    def __init__(self, kind: str) -> None:
        super().__init__(4, 10, False)
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        features = self.layer3(self.layer2(self.layer1(self.stem(x))))
        logits = self.fc(self.pool(features).flatten(1))
        if self.kind == "functional":
            return {"logits": logits + 0}
        return {"features": features, "logits": logits} if self.kind == "mapping" else (logits, features)


def several(kind: str = "tuple") -> nn.Module:
    """A tuple or a mapping as output."""
    return Several(kind)


class Looking(Cnn):
    """Looks at its own output."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        if not bool(torch.isfinite(logits).all()):
            raise ValueError("no numbers")
        return logits


def looking() -> nn.Module:
    """Cannot run without numbers."""
    return Looking(4, 10, False)


def counting() -> nn.Module:
    """Cannot be built without numbers, and draws some."""
    return Cnn(int(torch.full((1,), 4.0).sum() + 0 * torch.randn(1)), 10, False)


def repeating() -> nn.Module:
    """One layer, three times."""
    layer = nn.Conv2d(3, 3, 3, padding=1)
    return nn.Sequential(layer, layer, layer, nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 10))


def mlp(width: int = 8, classes: int = 10) -> nn.Module:
    """No maps at all."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, width), nn.ReLU(), nn.Linear(width, classes))


def huge() -> nn.Module:
    """160 GB of weights."""
    wide = 200_000
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3 * SIZE * SIZE, wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, 10)
    )


class Reader(nn.Module):
    """Words in, a mapping out; its layers give tuples."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, width)
        self.layers = nn.ModuleList(InTuple(width) for _ in range(2))
        self.fc = nn.Linear(width, 10)

    def forward(self, *, tokens: Tensor, keep: Tensor) -> dict[str, Tensor]:
        states = self.embedding(tokens)
        for layer in self.layers:
            states = layer(states)[0]
        return {"logits": self.fc((states * keep.unsqueeze(2)).sum(1))}


class InTuple(Mixer):
    """Gives its states in a tuple, as attention layers do."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x), None


def reader(width: int = 8) -> nn.Module:
    """A model of tokens."""
    return Reader(width)


def nothing() -> int:
    """No model."""
    return 3


def failing() -> nn.Module:
    """No model either."""
    raise KeyError("weights")


def by_position(*widths: int) -> nn.Module:
    """Arguments without names."""
    return mlp(*widths)
