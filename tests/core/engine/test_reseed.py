"""One seed for everything random about a transform, wherever its generators are kept."""

from __future__ import annotations

import copy
import functools
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset

from limbeck_core.engine.reseed import Reseeder, reseed, walk
from limbeck_core.engine.sampler import Key, SeededDataset, build_dataloader, fetch
from limbeck_core.errors import ConfigError

GLOBAL = np.random.default_rng(1)


class MonaiLike:
    """MONAI's protocol: the state is an attribute ``R``, exchanged by ``set_random_state``."""

    def __init__(self) -> None:
        self.R = np.random.RandomState()

    def set_random_state(self, seed: int | None = None, state: Any = None) -> MonaiLike:
        assert seed is None or 0 <= seed < 2**32
        self.R = np.random.RandomState(seed)
        return self

    def __call__(self, value: float) -> float:
        return value + float(self.R.uniform())


class Holding:
    """Draws from one generator of its own."""

    def __init__(self, source: Any, draw: Any) -> None:
        self.source, self.draw = source, draw

    def __call__(self, value: float) -> float:
        return value + float(self.draw(self.source))


class Slots:
    __slots__ = ("empty", "source")

    def __init__(self) -> None:
        self.source = random.Random()

    def __call__(self, value: float) -> float:
        return value + self.source.random()


class Outside:
    """Draws from a generator of its module."""

    def __call__(self, value: float) -> float:
        return value + float(GLOBAL.normal())


class OnTheClass:
    source = random.Random()

    def __call__(self, value: float) -> float:
        return value + self.source.random()


def closure() -> Any:
    source = np.random.default_rng()
    return lambda value: value + float(source.normal())


def with_default(value: float, *, source: Any = random.Random()) -> float:  # noqa: B008
    return value + source.random()


def from_module(value: float) -> float:
    return value + float(GLOBAL.normal())


def drawing(value: float, source: Any) -> float:
    return value + float(source.normal())


class Module(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.source = torch.Generator()

    def forward(self, value: float) -> float:
        return value + float(torch.rand((), generator=self.source))


class Compose:
    def __init__(self, *transforms: Any) -> None:
        self.transforms = transforms

    def __call__(self, value: float) -> float:
        return functools.reduce(lambda v, t: t(v), self.transforms, value)


TRANSFORMS = {
    "monai": MonaiLike,
    "python": lambda: Holding(random.Random(), lambda r: r.random()),
    "numpy": lambda: Holding(np.random.default_rng(), lambda r: r.normal()),
    "numpy of another kind": lambda: Holding(np.random.Generator(np.random.Philox()), lambda r: r.normal()),
    "numpy, the old way": lambda: Holding(np.random.RandomState(), lambda r: r.normal()),
    "torch": lambda: Holding(torch.Generator(), lambda r: torch.rand((), generator=r)),
    "slots": Slots,
    "closure": closure,
    "partial": lambda: functools.partial(drawing, source=np.random.default_rng()),
    "default": lambda: with_default,
    "method": lambda: Holding(np.random.default_rng(), lambda r: r.normal()).__call__,
    "module": Module,
    "a generator of the file": Outside,
    "a function with a generator of the file": lambda: from_module,
    "a generator of the class": OnTheClass,
    "inside of others": lambda: Compose(MonaiLike(), Compose(closure())),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_same_seed_gives_the_same_numbers(name: str) -> None:
    transform = TRANSFORMS[name]()
    draws = {}
    for seed in (3, 2**40 + 1, 3, 2**40 + 1):
        reseed(transform, seed)
        draws.setdefault(seed, []).append([transform(0.0), transform(0.0)])
    first, second = draws.values()
    assert first[0] == first[1]
    assert second[0] == second[1]
    assert first != second
    assert first[0][0] != first[0][1]


def test_two_transforms_do_not_draw_alike() -> None:
    pair = [Holding(np.random.default_rng(), lambda r: r.normal()) for _ in range(2)]
    reseed(Compose(*pair), 5)
    assert pair[0](0.0) != pair[1](0.0)
    both = [MonaiLike(), MonaiLike()]
    reseed(both, 5)
    assert both[0](0.0) != both[1](0.0)


def test_what_cannot_be_seeded_is_named() -> None:
    class Foreign(np.random.PCG64):
        pass

    Foreign.__module__ = "hardware"
    parts = [Holding(random.SystemRandom(), None), Holding(np.random.Generator(Foreign()), None)]
    sentence = (
        r"Compose.transforms\[1\].source \(random.SystemRandom\), Compose.transforms\[2\].source "
        r"\(numpy.random._generator.Generator\) draws random numbers that cannot be seeded, so that no sample could"
    )
    with pytest.raises(ConfigError, match=sentence):
        reseed(Compose(MonaiLike(), *parts), 1)


def test_the_walk_ends_and_calls_nothing() -> None:
    class Trap:
        @property
        def trap(self) -> None:
            raise RuntimeError

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name) if not name.startswith("__") else AttributeError(name)

    ring: list[Any] = [Trap()]
    ring.append(ring)
    found = dict(walk({"ring": ring, "numbers": list(range(10**5)), "array": np.zeros(3)}, "x"))
    assert list(found) == ["x", "x['ring']", "x['ring'][0]", "x['numbers']"]
    many = [[index] for index in range(50_000)]
    assert len(list(walk(many))) == 20_000


class Points(Dataset[Any]):
    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"inputs": torch.tensor(self.transform(float(index)))}


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: Subset(d, range(6)), lambda d: ConcatDataset([d])])
def test_samples_of_transforms_with_own_generators(wrap: Any) -> None:
    """The same in any process and order, and another one in another epoch."""
    loaders = [
        build_dataloader(
            {"dataset": wrap(Points(MonaiLike())), "batch_size": 3, "num_workers": n}, seed=4, training=True
        )
        for n in (0, 2)
    ]
    found = []
    for loader in loaders:
        loader.batch_sampler.seek(1)
        iterator = iter(loader)
        found.append([fetch(iterator)["inputs"].tolist() for _ in range(2)])
    assert found[0] == found[1]
    dataset = SeededDataset(wrap(Points(MonaiLike())), seed=1)
    draws = [float(dataset[Key(2, epoch)]["inputs"]) for epoch in (0, 1, 0)]
    assert draws[0] == draws[2] != draws[1]


def test_a_transform_that_is_exchanged_later_is_seeded_too() -> None:
    dataset = SeededDataset(Points(lambda value: value), seed=1)
    before = dataset[Key(2, 0)]["inputs"]
    dataset.transform = MonaiLike()
    draws = [float(dataset[Key(2, epoch)]["inputs"]) for epoch in (0, 1, 0)]
    assert draws[0] == draws[2] != draws[1] != float(before)


def test_copies_seed_their_own_generators() -> None:
    dataset = SeededDataset(Points(Holding(np.random.default_rng(), normal)), seed=1)
    wanted = float(dataset[Key(2, 0)]["inputs"])
    for other in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        assert float(other[Key(2, 0)]["inputs"]) == wanted
        assert len(Reseeder(other)) == 1


def normal(source: Any) -> float:
    return float(source.normal())


def test_a_long_list_of_samples_hides_no_transform() -> None:
    """Lists of file records stand before the transform in many data sets, and hold more objects than are looked at."""

    class Listed(Points):
        def __init__(self) -> None:
            self.records = [{"image": [Path(f"{number}.png")], "meta": {"name": str(number)}} for number in range(9000)]
            super().__init__(MonaiLike())

    dataset = SeededDataset(Listed(), seed=1)
    draws = [float(dataset[Key(2, epoch)]["inputs"]) for epoch in (0, 1, 0)]
    assert draws[0] == draws[2] != draws[1]
