"""Every shipped config takes two steps on made data, passes the doctor, and leaves no parameter without gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from limbeck_core.configs import installed
from limbeck_core.engine.config import load_config
from limbeck_core.inspect import diagnose
from ranks import on_ranks
from vision_toys import distiller_and_batches, leave_weights, make_data

CONFIGS = [name for name in sorted(installed()) if name.startswith("vision/")]
DIGITS = [name for name in CONFIGS if "digits" in name]


@pytest.fixture(scope="module")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def _made_data_and_random_weights(made_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_DATA", str(made_data))
    leave_weights(monkeypatch.setattr)


def without_gradient(model: torch.nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]


@pytest.mark.parametrize("config", CONFIGS)
def test_two_steps_use_every_parameter(config: str) -> None:
    """A trainable parameter without a gradient is one that data parallelism finds unused."""
    model, batches = distiller_and_batches(config, batch_size=4, count=2)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for batch in batches:
        optimizer.zero_grad()
        losses = model(model.data_preprocessor(dict(batch), True))
        total = sum(value for name, value in losses.items() if "loss" in name)
        total.backward()
        assert without_gradient(model) == []
        assert torch.isfinite(total)
        optimizer.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("config", CONFIGS)
def test_the_doctor_finds_no_error(config: str) -> None:
    model, batches = distiller_and_batches(config, batch_size=2, count=2)
    errors = [str(finding) for finding in diagnose(model, batches) if finding.level == "error"]
    assert errors == []


def steps_on_a_rank(rank: int, data: str, names: list[str]) -> dict[str, Any]:
    """Two steps a config under data parallelism, which refuses the second if the first left a parameter out."""
    import os

    os.environ["LIMBECK_DATA"] = data
    leave_weights()
    found: dict[str, Any] = {}
    for name in names:
        model, batches = distiller_and_batches(name, batch_size=8, count=2)
        parallel = DistributedDataParallel(model)
        for batch in batches:
            part = {key: value[rank * 4 : rank * 4 + 4] for key, value in batch.items()}
            losses = parallel(model.data_preprocessor(part, True))
            sum(value for key, value in losses.items() if "loss" in key).backward()
        norms = [parameter.grad.double().norm() for parameter in model.parameters() if parameter.grad is not None]
        found[name] = torch.stack(norms)
    return found


def test_two_ranks_find_no_unused_parameter_and_agree(tmp_path: Path, made_data: Path) -> None:
    first, second = on_ranks(tmp_path, steps_on_a_rank, str(made_data), DIGITS)
    assert list(first) == DIGITS
    for name in DIGITS:
        torch.testing.assert_close(first[name], second[name], msg=lambda text, name=name: f"{name}: {text}")


def test_stages_name_the_checkpoint_that_the_stage_before_writes() -> None:
    """``train`` writes into the work_dir of a config, or a folder of its name: a chain of runs needs no options."""
    every = {name: load_config(name) for name in CONFIGS}
    folders = [config.get("work_dir") or f"work_dirs/{name.rpartition('/')[2]}" for name, config in every.items()]
    written = {f"{folder}/student.pth" for folder in folders}
    for name, settings in every.items():
        named = [settings.get("load_from")] if settings.get("load_from") else []
        named += _checkpoints(settings.model.to_dict())
        assert {path for path in named if path.startswith("work_dirs/")} <= written, name


def _checkpoints(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["checkpoint"]] if isinstance(node.get("checkpoint"), str) else []
        return own + [path for value in node.values() for path in _checkpoints(value)]
    if isinstance(node, (list, tuple)):
        return [path for value in node for path in _checkpoints(value)]
    return []
