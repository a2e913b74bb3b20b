"""Killed anywhere, by SIGKILL, and resumed: bit for bit what it would have been."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import engine_toys
from engine_toys import Plan, ask

MOMENTS = ("before_step", "after_step", "epoch_end", "validation", "saved", "write", "pointer")
Ask = Callable[[Plan], dict[str, Any]]


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """A process that has imported everything and forks one for each run."""
    log = tmp_path_factory.mktemp("nursery") / "log.txt"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", engine_toys.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            yield lambda plan: ask(process, plan)
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            process.wait(timeout=30)


@pytest.fixture(scope="module")
def undisturbed(nursery: Ask, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Plan], dict[str, str]]:
    """How a plan ends that nobody kills, in one process for data whatever the plan says; each is run once."""
    known: dict[str, dict[str, str]] = {}

    def end(plan: Plan) -> dict[str, str]:
        plain = replace(plan, folder="", workers=0, kill=None)
        key = repr(plain)
        if key not in known:
            plain.folder = str(tmp_path_factory.mktemp("undisturbed"))
            answer = nursery(plain)
            assert set(answer["codes"]) == {0}
            known[key] = answer["remembered"]
        return known[key]

    return end


def killed_twice_and_resumed(nursery: Ask, plan: Plan, chance: random.Random, last_step: int) -> dict[str, str]:
    for step in sorted(chance.sample(range(1, last_step), 2)):
        codes = nursery(replace(plan, kill=(chance.choice(MOMENTS), step)))["codes"]
        assert -signal.SIGKILL in codes or codes == [0] * plan.world
    answer = nursery(plan)
    assert set(answer["codes"]) == {0}
    return dict(answer["remembered"])


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("loop", ["epoch", "step"])
def test_one_process(nursery: Ask, undisturbed: Any, tmp_path: Path, loop: str, workers: int, accumulate: int) -> None:
    """Epochs of 6 batches, so groups of 4 leave one of 2; checkpoints every 3 steps, in the middle of groups."""
    plan = Plan(str(tmp_path), loop=loop, workers=workers, accumulate=accumulate)
    chance = random.Random(f"{loop} {workers} {accumulate}")
    assert killed_twice_and_resumed(nursery, plan, chance, last_step=17) == undisturbed(plan)


@pytest.mark.parametrize(
    ("loop", "workers", "accumulate", "world"),
    [("epoch", 0, 4, 2), ("step", 2, 4, 2), ("epoch", 0, 1, 2), ("step", 0, 1, 3)],
)
def test_several_ranks(
    nursery: Ask, undisturbed: Any, tmp_path: Path, loop: str, workers: int, accumulate: int, world: int
) -> None:
    """Ranks differ in dropout, in running statistics and in partial gradients, and all of it comes back."""
    length = 3 if loop == "epoch" else 2
    plan = Plan(str(tmp_path), loop, workers, accumulate, every_steps=2, length=length, world=world)
    chance = random.Random(f"{loop} {workers} {accumulate} {world}")
    assert killed_twice_and_resumed(nursery, plan, chance, last_step=6) == undisturbed(plan)


@pytest.mark.parametrize("world", [1, 2])
def test_the_distiller_itself(nursery: Ask, undisturbed: Any, tmp_path: Path, world: int) -> None:
    """With a teacher that averages, one that remembers predictions, an adapter, and weights that change."""
    plan = Plan(str(tmp_path), workers=2, accumulate=4, every_steps=2, world=world, real=True)
    chance = random.Random(world)
    assert killed_twice_and_resumed(nursery, plan, chance, last_step=8) == undisturbed(plan)


@pytest.mark.parametrize(
    ("world", "moment", "number"), [(1, "interrupt", 2), (1, "terminate", 15), (2, "interrupt", 2)]
)
def test_a_signal_finishes_the_step_and_saves_it(
    nursery: Ask, undisturbed: Any, tmp_path: Path, world: int, moment: str, number: int
) -> None:
    plan = Plan(str(tmp_path), accumulate=4, every_steps=None, world=world, length=3)
    stop_at = 4 if world == 1 else 1
    codes = nursery(replace(plan, kill=(moment, stop_at)))["codes"]
    assert codes == [128 + number] * world
    assert (tmp_path / "last_checkpoint").read_text() == f"step_{stop_at + 1}.pth"
    answer = nursery(plan)
    assert answer["codes"] == [0] * world
    expected = dict(undisturbed(plan))
    # the file that the signal wrote is one more among those that are kept
    del answer["remembered"]["checkpoints"], expected["checkpoints"]
    assert answer["remembered"] == expected


def test_a_seed_drawn_by_chance_is_kept(nursery: Ask, tmp_path: Path) -> None:
    """A run without a seed draws one; the resumed run takes it over before anything is built."""
    plan = Plan(str(tmp_path / "killed"), seed=None, length=2)
    nursery(replace(plan, kill=("before_step", 5)))
    seed = torch.load(tmp_path / "killed" / "step_3.pth", weights_only=True)["meta"]["seed"]
    resumed = nursery(plan)["remembered"]
    assert nursery(replace(plan, folder=str(tmp_path / "straight"), seed=seed))["remembered"] == resumed


def test_a_finished_run_stays_as_it_is(nursery: Ask, undisturbed: Any, tmp_path: Path) -> None:
    plan = Plan(str(tmp_path), length=2)
    assert nursery(plan)["remembered"] == nursery(plan)["remembered"] == undisturbed(plan)
