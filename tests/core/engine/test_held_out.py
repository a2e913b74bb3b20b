"""A training set cut in two: disjoint, together whole, and the held-out part looked at as validation data are."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from mmengine.config import Config

from cli_toys import Points
from limbeck_core.engine import held_out_part
from limbeck_core.engine.held_out import Part, hold_out
from limbeck_core.errors import ConfigError, DataError

DATASET = {"type": Points, "root": "points", "samples": 20}


def test_the_parts_are_disjoint_and_together_the_whole() -> None:
    whole = Points("points", samples=20)
    rest, held = (held_out_part(DATASET, count=0.3, held_out=part) for part in (False, True))
    assert (len(rest), len(held)) == (14, 6)
    rows = {tuple(part[i]["inputs"].tolist()) for part in (rest, held) for i in range(len(part))}
    assert rows == {tuple(row.tolist()) for row in whole.inputs}
    other = held_out_part(DATASET, count=6, held_out=True, seed=1)
    assert list(other.indices) != list(held.indices)


def test_a_part_answers_for_the_whole_and_survives_pickling() -> None:
    part = held_out_part(DATASET, count=5, held_out=True)
    assert isinstance(part, Part)
    assert part.root == "points"
    assert len(pickle.loads(pickle.dumps(part))) == 5
    with pytest.raises(AttributeError, match="nothing"):
        _ = part.nothing


def test_a_data_set_may_make_its_part_itself() -> None:
    class Own(Points):
        def subset(self, indices: Any) -> Any:
            return ("mine", list(indices))

    made = held_out_part(Own("points", samples=4), count=1, held_out=True)
    assert made[0] == "mine"
    assert len(made[1]) == 1


@pytest.mark.parametrize("count", [0, 20, 0.001, 21])
def test_a_part_without_samples_is_refused(count: float) -> None:
    with pytest.raises(DataError, match=f"count must leave samples in both parts of 20, got {count}"):
        held_out_part(DATASET, count=count, held_out=True)


def settings(train: dict[str, Any], validation: dict[str, Any]) -> Config:
    return Config({"train_dataloader": {"dataset": train}, "val_dataloader": {"dataset": validation}})


def test_objects_come_from_the_validation_set_and_plain_values_from_the_training_set() -> None:
    train = {"type": "D", "root": "x", "noise": 0.4, "augment": {"type": "shift"}, "steps": [{"type": "a"}]}
    parts = hold_out(settings(train, {"type": "D", "root": "y", "steps": [{"type": "b"}]}), 0.25, {"noise": 0.0})
    held = parts["val_dataloader.dataset"]
    assert held["dataset"] == {"type": "D", "root": held["dataset"]["root"], "noise": 0.0, "steps": [{"type": "b"}]}
    assert held["dataset"]["root"].endswith("/x")
    assert parts["train_dataloader.dataset"]["dataset"]["augment"] == {"type": "shift"}
    assert (parts["train_dataloader.dataset"]["held_out"], held["held_out"]) == (False, True)


def test_what_a_config_does_to_its_data_may_come_after_holding_out() -> None:
    wrapped = {"type": "LongTailed", "dataset": {"type": "D", "noise": 1}}
    parts = hold_out(settings(wrapped, {"type": "D"}), 300, {"noise": 0}, inside=True)
    train, held = parts["train_dataloader.dataset"], parts["val_dataloader.dataset"]
    assert train["type"] == "LongTailed"
    assert (train["dataset"]["held_out"], train["dataset"]["dataset"]) == (False, {"type": "D", "noise": 1})
    assert (held["held_out"], held["dataset"]) == (True, {"type": "D", "noise": 0})


def test_what_cannot_be_held_out_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs val_dataloader.dataset, which this config lacks"):
        hold_out(Config({"train_dataloader": {"dataset": {"type": "D"}}}), 0.5)
    with pytest.raises(ConfigError, match="clean 'nois' changes nothing: the training data set is given type, noise"):
        hold_out(settings({"type": "D", "noise": 1}, {"type": "D"}), 0.5, {"nois": 0})
