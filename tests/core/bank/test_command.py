"""``limbeck bank`` and ``limbeck train --bank``, from a config to a trained student."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cli_toys import CONFIG, linear
from limbeck_core import cli
from limbeck_core.bank import command
from limbeck_core.bank.command import bank_writer, use_bank
from limbeck_core.bank.storage import Bank
from limbeck_core.engine.config import load_config
from limbeck_core.errors import BankError, ConfigError

TEACHER = "teacher=dict(type=linear),"
TEXT = CONFIG.replace("import Distiller, Match", "import Distiller, Match, pretrained").replace(
    TEACHER, 'teacher=dict(type=pretrained, model=dict(type=linear), checkpoint="teacher.pth"),'
)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config with a teacher of its own, in a folder that is the working directory."""
    for name in ("LIMBECK_DATA", "LIMBECK_DEBUG", "LOCAL_RANK", "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(3)
    torch.save(linear().state_dict(), tmp_path / "teacher.pth")
    path = tmp_path / "points.py"
    path.write_text(TEXT)
    return path


def student(work: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(work / "student.pth", weights_only=True)["state_dict"])


def test_the_student_of_a_bank_is_that_of_the_live_teacher(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bank", "points.py", "--views", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["teacher", "tap", "a", "sample", "encoding", "bytes", "error"]
    assert lines[2].split() == ["teacher", "fc", "float32", "[2]", "exact", "8", "none"]
    assert lines[3].startswith("32 samples x 2 views, ")
    assert lines[3].endswith("KiB in work_dirs/points/bank")
    assert lines[4] == "work_dirs/points/bank is whole"
    views = ["+train_dataloader.views=2", "+train_dataloader.view_seed=0"]
    assert cli.main(["train", "points.py", "--seed", "1", "--work-dir", "live", "--cfg-options", *views]) == 0
    banked = ["train", "points.py", "--seed", "1", "--work-dir", "banked", "--bank", "work_dirs/points/bank"]
    assert cli.main(banked) == 0
    live, other = student(config.parent / "live"), student(config.parent / "banked")
    assert all(torch.equal(live[name], other[name]) for name in live)
    log = "".join(path.read_text() for path in (config.parent / "banked").glob("*/*.log"))
    assert "teacher/top1" in log, "the teacher is judged beside the student"

    again = load_config(config.parent / "banked" / "points.py")
    assert again.model.teacher.folder == "work_dirs/points/bank"
    assert (again.train_dataloader.views, again.train_dataloader.view_seed) == (2, 0)
    assert cli.main(["train", "banked/points.py", "--work-dir", "banked", "--resume"]) == 0


def test_verify(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bank", "points.py", "--verify"]) == 2
    assert "work_dirs/points/bank holds no teacher bank" in capsys.readouterr().err
    cli.main(["bank", "points.py"])
    capsys.readouterr()
    assert cli.main(["bank", "points.py", "--verify"]) == 0
    assert capsys.readouterr().out == "work_dirs/points/bank: nothing wrong\n"
    os.truncate("work_dirs/points/bank/view0-00001.bank", 50)
    assert cli.main(["bank", "points.py", "--verify"]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert "view0-00001.bank has 50 bytes and should have" in first
    assert second == "work_dirs/points/bank: 1 wrong"
    assert cli.main(["bank", "points.py"]) == 0
    assert cli.main(["bank", "points.py", "--verify"]) == 0


def test_options_of_the_config_and_of_the_command(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(TEXT + "bank = dict(folder='mine', views=3, seed=5, encoding='float16', batch_size=16)\n")
    assert cli.main(["bank", "points.py"]) == 0
    found = Bank("mine").manifest
    assert (found.views, found.key["seed"], found.about["batch_size"]) == (3, 5, 16)
    assert [c.encoding for c in found.columns] == ["exact", "float16"]
    assert "; largest errors: fc 0." in capsys.readouterr().out
    options = ["--bank", "other", "--views", "1", "--encoding", "fc=top1", "exact"]
    assert cli.main(["bank", "points.py", *options, "--cfg-options", "bank.seed=6"]) == 0
    found = Bank("other").manifest
    assert (found.views, found.key["seed"], found.columns[1].encoding) == (1, 6, "top1")


def test_two_processes_share_the_work(config: Path) -> None:
    words = [sys.executable, "-m", "limbeck_core", "bank", "points.py", "--views", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    crew = [
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**environment, "RANK": rank, "WORLD_SIZE": "2"})
        for rank in "01"
    ]
    outputs = [process.communicate(timeout=120)[0] for process in crew]
    assert [process.returncode for process in crew] == [0, 0]
    assert "32 samples x 2 views" in outputs[0]
    assert "samples" not in outputs[1]
    assert not Bank("work_dirs/points/bank").missing()
    assert cli.main(["bank", "points.py", "--views", "2", "--verify"]) == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (TEXT + "bank = dict(view=3)\n", "bank of points.py has no option 'view': did you mean 'views'"),
        (TEXT + "train_dataloader = None\n", "has no train_dataloader, so there are no samples to ask the teacher"),
        (TEXT + "model = dict(type=linear)\n", "the model of points.py is a Sequential: a bank is of a limbeck_core"),
        (TEXT + "model['matches'] = {}\n", "this distiller has none that a match reads"),
    ],
)
def test_configs_without_what_a_bank_needs(config: Path, text: str, sentence: str) -> None:
    config.write_text(text)
    with pytest.raises((BankError, ConfigError), match=sentence):
        bank_writer("points.py")


class TestUseBank:
    def test_no_bank(self, config: Path) -> None:
        with pytest.raises(BankError, match="nowhere holds no teacher bank"):
            use_bank(load_config(config), "nowhere")

    def test_no_teacher(self, config: Path) -> None:
        settings = load_config(config)
        settings.model.teacher = None
        with pytest.raises(ConfigError, match="--bank takes the place of the teacher: the config needs model.teacher"):
            use_bank(settings, "nowhere")

    def test_one_of_several_teachers(self, config: Path) -> None:
        cli.main(["bank", "points.py", "--bank", "b"])
        settings = load_config(config)
        one = dict(settings.model.teacher)
        settings.model.teacher = {"first": one, "teacher": one}
        assert use_bank(settings, "b") == ["teacher"]
        assert settings.model.teacher["first"] == one
        assert settings.model.teacher["teacher"]["folder"] == "b"
        settings.model.teacher = {"first": one, "second": one}
        with pytest.raises(BankError, match="the bank in b is of the teacher 'teacher': it has: first, second"):
            use_bank(settings, "b")

    def test_banks_of_several_teachers(self, config: Path) -> None:
        for name in ("first", "second"):
            cli.main(["bank", "points.py", "--bank", f"b/{name}"])
        settings = load_config(config)
        one = dict(settings.model.teacher)
        settings.model.teacher = {"first": one, "second": one, "third": one}
        assert use_bank(settings, "b") == ["first", "second"]
        assert settings.model.teacher["second"]["folder"] == "b/second"
        cli.main(["bank", "points.py", "--bank", "c/first"])
        cli.main(["bank", "points.py", "--bank", "c/second", "--views", "2"])
        settings.model.teacher = {"first": one, "second": one}
        with pytest.raises(BankError, match="the banks in c differ in their views or their seed"):
            use_bank(settings, "c")


def test_the_options_are_those_of_the_writer() -> None:
    import inspect

    from limbeck_core.bank.writing import BankWriter

    assert set(command.OPTIONS) == set(inspect.signature(BankWriter).parameters) - {"distiller", "data"}
