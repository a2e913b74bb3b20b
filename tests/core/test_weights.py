"""Reading weights: what matched is said, what does not fit is refused, and no file ever runs code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from limbeck_core.errors import CheckpointError
from limbeck_core.weights import load_weights, read_file


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


class Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("prefix", ["", "module.", "student.", "module.student.", "_orig_mod."])
@pytest.mark.parametrize("nest", ["", "state_dict", "model"])
def test_usual_files_load(tmp_path: Path, prefix: str, nest: str) -> None:
    source, target = net(), net()
    state = {prefix + name: value for name, value in source.state_dict().items()}
    torch.save({nest: state, "epoch": 3} if nest else state, tmp_path / "w.pth")
    report = load_weights(target, tmp_path / "w.pth")
    assert len(report.matched) == len(source.state_dict())
    assert report.prefix == prefix
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value)


def test_missing_file_names_the_neighbours(tmp_path: Path) -> None:
    torch.save(net().state_dict(), tmp_path / "teacher.pth")
    with pytest.raises(
        CheckpointError, match=r"there is no checkpoint file .*teachr\.pth.*did you mean 'teacher\.pth'"
    ):
        load_weights(net(), tmp_path / "teachr.pth")
    with pytest.raises(CheckpointError, match="the folder .*nowhere does not exist"):
        load_weights(net(), tmp_path / "nowhere" / "teacher.pth")


@pytest.mark.parametrize("keep", [0, 10, 300, 0.5, 0.99])
def test_truncated_file_is_a_sentence(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "w.pth"
    torch.save(net().state_dict(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(CheckpointError, match=r"w\.pth (is|was)"):
        read_file(path)


def test_pickle_that_would_run_code_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    target = tmp_path / "ran"
    torch.save({"state_dict": net().state_dict(), "extra": Bomb(target)}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="was refused, and nothing in it was run"):
        load_weights(net(), tmp_path / "evil.pth")
    assert not target.exists()


def test_control_the_bomb_is_live(tmp_path: Path) -> None:
    """Without weights-only reading the same file makes the folder: the test above can fail."""
    torch.save(Bomb(tmp_path / "ran"), tmp_path / "evil.pth")
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert (tmp_path / "ran").exists()


def test_other_model_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Conv2d(3, 4, 1).state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="no name of .* fits Sequential.*belongs to another model"):
        load_weights(net(), tmp_path / "w.pth")


def test_missing_names_are_refused_and_the_model_is_untouched(tmp_path: Path) -> None:
    state = net().state_dict()
    state["2.wieght"] = state.pop("2.weight")
    torch.save(state, tmp_path / "w.pth")
    target = net()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"1 missing \(2\.weight\).*the file may call it '2\.wieght'"):
        load_weights(target, tmp_path / "w.pth")
    assert all(torch.equal(target.state_dict()[name], value) for name, value in before.items())


def test_partial_loads_what_fits_and_says_so(tmp_path: Path) -> None:
    state = net().state_dict()
    state["2.weight"] = torch.zeros(7, 4)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"2\.weight \(2, 4\) in the model, \(7, 4\) in the file"):
        load_weights(net(), tmp_path / "w.pth")
    report = load_weights(net(), tmp_path / "w.pth", partial=True)
    assert list(report.mismatched) == ["2.weight"]
    assert "1 of another shape (2.weight (2, 4) in the model, (7, 4) in the file)" in str(report)


def test_file_without_weights(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "note": "no weights here"}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds no weights.*got a mapping with epoch, note"):
        load_weights(net(), tmp_path / "w.pth")


def test_safetensors(tmp_path: Path) -> None:
    import safetensors.torch as safetensors

    source, target = net(), net()
    safetensors.save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors")
    assert torch.equal(target[0].weight, source[0].weight)
    (tmp_path / "bad.safetensors").write_bytes(b"not a header")
    with pytest.raises(CheckpointError, match="damaged or not a safetensors file"):
        read_file(tmp_path / "bad.safetensors")
