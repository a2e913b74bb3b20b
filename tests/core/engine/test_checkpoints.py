"""Files: whole or not at all, refused when they would run code, believed only with their digest."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from torch import nn

from limbeck_core.engine import checkpoints
from limbeck_core.engine.checkpoints import (
    candidates,
    load_exactly,
    load_student,
    newest_checkpoint,
    point_to,
    read_checkpoint,
    remove_leftovers,
    save_student,
    seed_of,
    split_state,
    write_checkpoint,
)
from limbeck_core.errors import CheckpointError


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def content(value: float = 1.0) -> dict[str, Any]:
    return {"state_dict": {"w": torch.full((64,), value)}, "meta": {"seed": 7}, "limbeck": {"loop": {"iter": 3}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two checkpoints, the second the newest."""
    for step in (1, 2):
        write_checkpoint(tmp_path / f"step_{step}.pth", content(float(step)))
        point_to(tmp_path, f"step_{step}.pth")
    return tmp_path


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    where = data.find(torch.full((64,), 2.0).numpy().tobytes())
    data[where + 5] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def test_round_trip(folder: Path) -> None:
    found = newest_checkpoint(folder)
    assert found is not None
    assert (found.path.name, found.complaints) == ("step_2.pth", [])
    assert found.content["state_dict"]["w"].unique().tolist() == [2.0]
    assert found.content["limbeck"] == {"loop": {"iter": 3}, "format": 1, "kind": "training"}
    assert seed_of(found.path) == 7


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, empty])
def test_a_damaged_file_falls_back_to_the_one_before_and_says_so(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder / "step_2.pth")
    found = newest_checkpoint(folder)
    assert found is not None
    assert found.path.name == "step_1.pth"
    assert len(found.complaints) == 1
    assert "step_2.pth" in found.complaints[0]
    assert "damaged" in found.complaints[0]
    damage(folder / "step_1.pth")
    if damage is not flip_a_byte:
        with pytest.raises(CheckpointError, match="no checkpoint in .* can be resumed from: .*step_2.*step_1"):
            newest_checkpoint(folder)


def test_without_the_digest_a_flipped_byte_would_pass(folder: Path) -> None:
    """PyTorch itself reads such a file without a word."""
    flip_a_byte(folder / "step_2.pth")
    assert torch.load(folder / "step_2.pth", weights_only=True)["state_dict"]["w"].unique().numel() == 2
    with pytest.raises(CheckpointError, match="is damaged: its content has the digest"):
        read_checkpoint(folder / "step_2.pth")


def test_order_of_candidates(folder: Path) -> None:
    write_checkpoint(folder / "step_10.pth", content())
    assert [p.name for p in candidates(folder)] == ["step_2.pth", "step_1.pth"]  # the pointer knows nothing of 10
    (folder / "last_checkpoint").unlink()
    assert [p.name for p in candidates(folder)] == ["step_10.pth", "step_2.pth", "step_1.pth"]
    (folder / "last_checkpoint").write_bytes(b"\xff\xfe nonsense")
    assert candidates(folder)[0].name == "step_10.pth"


def test_an_empty_folder_is_a_new_run(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "absent") is None


def test_a_newer_format_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "FORMAT", 2)
    write_checkpoint(folder / "step_3.pth", content())
    monkeypatch.undo()
    with pytest.raises(
        CheckpointError, match="has checkpoint format 2, and this version of limbeck-core reads up to 1"
    ):
        read_checkpoint(folder / "step_3.pth")


def test_foreign_files_are_not_resumed_from(tmp_path: Path) -> None:
    torch.save({"state_dict": net().state_dict()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"is not a checkpoint that limbeck wrote.*pass it as load_from"):
        read_checkpoint(tmp_path / "w.pth")


# ---------------------------------------------------------------------- code in files


class Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_code_is_refused_and_does_not_run(folder: Path) -> None:
    proof = folder / "proof"
    torch.save({**content(), "bomb": Bomb(proof)}, folder / "step_3.pth")
    point_to(folder, "step_3.pth")
    with pytest.raises(CheckpointError, match="was refused, and nothing in it was run"):
        read_checkpoint(folder / "step_3.pth")
    with pytest.raises(CheckpointError, match="was refused"):
        load_student(net(), folder / "step_3.pth")
    assert seed_of(folder / "step_3.pth") is None
    found = newest_checkpoint(folder)
    assert found is not None
    assert found.path.name == "step_2.pth"
    assert not proof.exists()
    torch.load(folder / "step_3.pth", weights_only=False)  # the control: the file does what it threatens
    assert proof.exists()


def test_checkpoints_of_openmmlab_give_their_weights_and_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Released files hold a pickled log history that rebuilds itself by ``getattr``: its names are never looked up."""
    hub = MessageHub.get_instance("test_openmmlab")
    hub.update_scalar("loss", 1.0)
    model = net()
    released = {"state_dict": model.state_dict(), "message_hub": hub.state_dict(), "meta": {"score": np.float64(1)}}
    torch.save(released, tmp_path / "released.pth")
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "released.pth", weights_only=True)
    built: list[Any] = []
    monkeypatch.setattr(HistoryBuffer, "__setstate__", lambda *state: built.append(state), raising=False)
    other = net()
    assert load_student(other, tmp_path / "released.pth").missing == []
    assert torch.equal(other[0].weight, model[0].weight)
    assert built == []
    torch.load(tmp_path / "released.pth", weights_only=False)  # the control: the file asks for it
    assert len(built) == 1
    torch.save({**released, "bomb": Bomb(tmp_path / "proof")}, tmp_path / "bomb.pth")
    with pytest.raises(CheckpointError, match="was refused, and nothing in it was run"):
        load_student(other, tmp_path / "bomb.pth")
    assert not (tmp_path / "proof").exists()


# ---------------------------------------------------------------------- disks


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["fsync", "save", "replace"])
def test_a_full_disk_leaves_the_old_file(folder: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    target = {"fsync": "os.fsync", "save": "torch.save", "replace": "pathlib.Path.replace"}[where]
    before = (folder / "step_2.pth").read_bytes()
    monkeypatch.setattr(target, full)
    with pytest.raises(CheckpointError, match=r"step_2\.pth could not be written .*No space left.*is as it was before"):
        write_checkpoint(folder / "step_2.pth", content(5.0))
    monkeypatch.undo()
    assert (folder / "step_2.pth").read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == ["last_checkpoint", "step_1.pth", "step_2.pth"]


def test_a_real_full_device_is_a_sentence(folder: Path) -> None:
    """PyTorch's writer reports a full disk in its own way; ``/dev/full`` is one."""
    os.symlink("/dev/full", folder / f".step_9.pth.{os.getpid()}.writing")
    with pytest.raises(CheckpointError, match=r"step_9\.pth could not be written .*nothing was left behind"):
        write_checkpoint(folder / "step_9.pth", content())
    assert not (folder / "step_9.pth").exists()


def test_half_written_files_are_swept(folder: Path) -> None:
    (folder / ".step_3.pth.123.writing").write_bytes(b"half")
    assert candidates(folder)[0].name == "step_2.pth"
    remove_leftovers(folder)
    assert not list(folder.glob(".*"))
    assert len(candidates(folder)) == 2


# ---------------------------------------------------------------------- weights


class WithStudent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.student = net()
        self.matches = nn.Linear(2, 2)


def test_the_student_stands_by_itself() -> None:
    model = WithStudent()
    student, rest = split_state(model)
    assert student.keys() == net().state_dict().keys()
    assert sorted(rest) == ["matches.bias", "matches.weight"]
    assert checkpoints.join_state(model, student, rest).keys() == model.state_dict().keys()
    alone, nothing = split_state(net())
    assert alone.keys() == net().state_dict().keys()
    assert nothing == {}


def test_a_saved_student_is_a_plain_state_dict(tmp_path: Path) -> None:
    model, bare = WithStudent(), net()
    path = save_student(model, tmp_path / "new" / "student.pth", meta={"top1": 0.5})
    loaded = torch.load(path, weights_only=True)
    bare.load_state_dict(loaded["state_dict"])
    assert torch.equal(bare[0].weight, model.student[0].weight)
    assert loaded["meta"] == {"top1": 0.5}
    other = WithStudent()
    report = load_student(other, path)
    assert (len(report.matched), report.missing, report.unexpected) == (9, [], [])
    assert torch.equal(other.student[0].weight, model.student[0].weight)
    assert not torch.equal(other.matches.weight, model.matches.weight)


def test_gaps_are_refused_or_reported(tmp_path: Path) -> None:
    state = net().state_dict()
    state["2.weights"] = state.pop("2.weight")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"1 missing \(2\.weight\), 1 unexpected \(2\.weights\)"):
        load_student(net(), tmp_path / "w.pth")
    report = load_student(net(), tmp_path / "w.pth", partial=True)
    assert report.missing == ["2.weight"]
    with pytest.raises(CheckpointError, match="no name of .* fits Linear"):
        load_student(nn.Linear(3, 3), tmp_path / "w.pth", partial=True)


def test_a_damaged_student_is_refused(tmp_path: Path) -> None:
    path = save_student(net(), tmp_path / "student.pth")
    data = bytearray(path.read_bytes())
    where = data.find(torch.load(path, weights_only=True)["state_dict"]["0.weight"].numpy().tobytes())
    data[where] ^= 4
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_student(net(), path)


def test_an_average_must_be_there_to_be_taken(tmp_path: Path) -> None:
    path = save_student(net(), tmp_path / "student.pth")
    with pytest.raises(CheckpointError, match="holds no average of the student: its run had no EMAHook"):
        load_student(net(), path, average=True)
    torch.save(net().state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="is no training checkpoint of limbeck"):
        load_student(net(), tmp_path / "w.pth", average=True)


def test_resuming_needs_every_name_and_shape() -> None:
    model = net()
    before = model.state_dict()["0.weight"].clone()
    state = net().state_dict()
    for change, message in (
        (
            {"0.weight": torch.zeros(5, 3)},
            r"1 of another shape \(0\.weight \(4, 3\) in the model, \(5, 3\) in the file\)",
        ),
        ({"9.weight": torch.zeros(1)}, r"1 unexpected \(9\.weight\)"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_exactly(model, {**state, **change}, "step_3.pth")
    state["2.weigth"] = state.pop("2.weight")
    with pytest.raises(CheckpointError, match=r"For '2\.weight', did you mean '2\.weigth'"):
        load_exactly(model, state, "step_3.pth")
    assert torch.equal(model.state_dict()["0.weight"], before)
