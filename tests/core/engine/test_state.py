"""State as plain data: what goes in comes back out, through a file that runs nothing."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from torch import nn

from limbeck_core.engine.checkpoints import digest_of
from limbeck_core.engine.state import (
    HISTORY,
    capture_generators,
    capture_gradients,
    capture_messages,
    isolated,
    just_stepped,
    leaves,
    plain,
    plan_accumulation,
    replaced,
    restore_generators,
    restore_gradients,
    restore_messages,
    seed_generators,
)
from limbeck_core.errors import CheckpointError


def through_a_file(content: Any) -> Any:
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), *torch.rand(3).tolist()]


def test_generators_go_on_from_a_file() -> None:
    seed_generators(11)
    draw()  # leaves half of a Gaussian pair in Python and NumPy
    saved = through_a_file(capture_generators())
    expected = [draw(), draw()]
    seed_generators(12)
    restore_generators(saved)
    assert [draw(), draw()] == expected


def test_isolated_leaves_no_trace_even_after_an_error() -> None:
    seed_generators(11)
    expected = draw()
    seed_generators(11)
    with pytest.raises(ZeroDivisionError), isolated(5):
        draw()[0] / 0
    with isolated(5):
        first = draw()
    with isolated(5):
        assert draw() == first
    assert draw() == expected


def test_plain_data() -> None:
    class Count(int):
        pass

    value = {
        "numbers": (1, 2.5, True, None, np.float32(0.5), np.int64(3), Count(4)),
        "array": np.arange(3),
        "tensors": [torch.ones(2, requires_grad=True), torch.float16],
        3: {"text": "x", "bytes": b"y"},
    }
    back = through_a_file(plain(value, "here"))
    assert back["numbers"] == (1, 2.5, True, None, 0.5, 3, 4)
    assert type(back["numbers"][-1]) is int
    assert back["array"].tolist() == [0, 1, 2]
    assert not back["tensors"][0].requires_grad
    assert back[3] == {"text": "x", "bytes": b"y"}


def test_what_is_not_plain_is_named() -> None:
    with pytest.raises(
        CheckpointError, match=r"optimizer\.state\.0\.fn is a builtins\.function, which cannot be stored"
    ):
        plain({"state": [{"fn": draw}]}, "optimizer")


def test_a_view_does_not_drag_its_storage_along() -> None:
    view = torch.zeros(1000)[:2]
    assert plain(view, "x").untyped_storage().nbytes() == 8
    whole = torch.zeros(3)
    assert plain(whole, "x").data_ptr() == whole.data_ptr()


def test_messages_keep_their_history() -> None:
    hub, other = (MessageHub.get_instance(f"test_messages_{n}") for n in range(2))
    for value in range(5):
        hub.update_scalar("train/loss", value + 0.5)
    hub.update_scalar("train/not_state", 1.0, resumed=False)
    hub.update_info("best", 0.9)
    hub.update_info("cfg", "long text")
    hub.update_info("object", object())
    state, left_out = capture_messages(hub)
    assert left_out == ["object"]
    assert sorted(state["scalars"]) == ["train/loss"]
    assert state["info"] == {"best": 0.9}
    restore_messages(other, through_a_file(state))
    assert other.get_scalar("train/loss").mean(3) == hub.get_scalar("train/loss").mean(3) == 3.5
    other.update_scalar("train/loss", 9.0)
    assert other.get_scalar("train/loss").current() == 9.0
    assert other.get_info("best") == 0.9


def test_histories_have_an_end() -> None:
    hub = MessageHub.get_instance("test_histories")
    hub.update_scalar("x", 0.0)
    hub.log_scalars["x"]._log_history = np.arange(HISTORY + 5, dtype=float)
    hub.log_scalars["x"]._count_history = np.ones(HISTORY + 5)
    state, _ = capture_messages(hub)
    assert state["scalars"]["x"]["values"].tolist()[:1] == [5.0]
    assert len(state["scalars"]["x"]["values"]) == HISTORY


def test_mmengine_pickles_its_history() -> None:
    """The fault that this module goes around: MMEngine's own state does not load as plain data."""
    hub = MessageHub.get_instance("test_pickles")
    hub.update_scalar("x", 1.0)
    with pytest.raises(Exception, match="Weights only load failed"):
        through_a_file(hub.state_dict())


# ---------------------------------------------------------------------- accumulation


def wrapper(model: nn.Module, group: int) -> OptimWrapper:
    return OptimWrapper(torch.optim.SGD(model.parameters(), lr=1.0), accumulative_counts=group)


@pytest.mark.parametrize(("batches", "group"), [(6, 4), (5, 4), (4, 4), (3, 4), (7, 2), (3, 1)])
def test_the_last_group_is_divided_by_its_own_size(batches: int, group: int) -> None:
    """By hand: each group moves the weight by the mean of its batches' gradients."""
    model = nn.Linear(1, 1, bias=False)
    optimiser = wrapper(model, group)
    start = float(model.weight.detach())
    plan_accumulation(optimiser, 0, batches)
    moved = []
    for batch in range(batches):
        optimiser.update_params(model(torch.tensor([[float(batch + 1)]])).sum())
        if just_stepped(optimiser):
            moved.append(start - float(model.weight.detach()))
    values = [float(batch + 1) for batch in range(batches)]
    means = [float(np.mean(values[i : i + group])) for i in range(0, batches, group)]
    assert moved == pytest.approx(np.cumsum(means).tolist(), rel=1e-5)


def test_an_open_group_goes_on_in_another_process() -> None:
    def step(model: nn.Module, optimiser: OptimWrapper, batch: int) -> None:
        optimiser.update_params((model(torch.full((1, 3), float(batch))) ** 2).sum())

    straight = nn.Linear(3, 2)
    resumed = nn.Linear(3, 2)
    resumed.load_state_dict(straight.state_dict())
    optimiser = wrapper(straight, 3)
    plan_accumulation(optimiser, 0, 5)
    for batch in range(2):
        step(straight, optimiser, batch)
    gradients = through_a_file(capture_gradients(straight, optimiser))
    assert sorted(gradients) == ["bias", "weight"]
    second = wrapper(resumed, 3)
    plan_accumulation(second, 2, 5)
    restore_gradients(resumed, gradients)
    for batch in range(2, 5):
        step(straight, optimiser, batch)
        step(resumed, second, batch)
    assert torch.equal(straight.weight, resumed.weight)
    assert capture_gradients(straight, optimiser) == {}
    with pytest.raises(CheckpointError, match=r"partial gradient of weight, shape \(2, 3\), which the model lacks"):
        restore_gradients(nn.Linear(4, 2), gradients)


# ---------------------------------------------------------------------- trees


def test_leaves_and_replacements() -> None:
    tree = {"a": [1, {"b": 2}], "c": (), "d": (3, 4)}
    found = dict(leaves(tree))
    assert found == {("a", 0): 1, ("a", 1, "b"): 2, ("c",): (), ("d", 0): 3, ("d", 1): 4}
    assert replaced(tree, {("a", 1, "b"): 9, ("d", 0): 7}) == {"a": [1, {"b": 9}], "c": (), "d": (7, 4)}
    assert replaced(tree, {(): 5}) == 5


def test_the_digest_sees_every_bit() -> None:
    tree = {"w": torch.zeros(4), "n": 1, "s": [True, "x"]}
    digests = {
        digest_of(tree),
        digest_of({**tree, "w": torch.tensor([0.0, 0.0, 0.0, -0.0])}),
        digest_of({**tree, "w": torch.zeros(2, 2)}),
        digest_of({**tree, "w": torch.zeros(4, dtype=torch.float64)}),
        digest_of({**tree, "n": 1.0}),
        digest_of({**tree, "s": [True, "y"]}),
    }
    assert len(digests) == 6
    assert digest_of(through_a_file(tree)) == digest_of(tree)
