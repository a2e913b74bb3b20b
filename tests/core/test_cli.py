"""The command line: what it prints, writes, and answers to the shell."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper

from cli_toys import CONFIG
from limbeck_core import cli
from limbeck_core.engine import commands
from limbeck_core.engine.config import load_config
from limbeck_core.errors import ConfigError
from source_tree import ROOT


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config in a folder that is the working directory."""
    for name in ("LIMBECK_DATA", "LIMBECK_DEBUG", "LOCAL_RANK", "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "points.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of a finished run."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "points.py").write_text(CONFIG)
    assert cli.main(["train", str(folder / "points.py"), "--work-dir", str(folder / "work"), "--seed", "1"]) == 0
    return folder / "work"


def run(*words: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "limbeck_core", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


class TestTrain:
    def test_writes_student_checkpoints_and_the_config(self, trained: Path) -> None:
        assert (trained / "student.pth").is_file()
        assert (trained / "best_top1.pth").is_file()
        weights = torch.load(trained / "student.pth", weights_only=True)["state_dict"]
        assert set(weights) == {"fc.weight", "fc.bias"}

    def test_the_config_it_leaves_runs_again(self, trained: Path) -> None:
        again = load_config(trained / "points.py")
        assert again.model.matches.kd.weight == 0.1
        assert again.randomness.seed == 1
        assert again.model.teacher.type == load_config(trained.parent / "points.py").model.teacher.type

    def test_resume_after_the_end_changes_nothing(self, trained: Path, tmp_path: Path) -> None:
        work = shutil.copytree(trained, tmp_path / "work")
        before = torch.load(work / "student.pth", weights_only=True)["state_dict"]
        assert cli.main(["train", str(trained.parent / "points.py"), "--work-dir", str(work), "--resume"]) == 0
        after = torch.load(work / "student.pth", weights_only=True)["state_dict"]
        assert all(torch.equal(before[name], after[name]) for name in before)

    def settings(self, monkeypatch: pytest.MonkeyPatch, *words: str) -> Config:
        """What the runner would get."""
        seen: list[Config] = []

        class Listener:
            @classmethod
            def from_cfg(cls, settings: Config) -> Listener:
                seen.append(settings)
                return cls()

            def train(self) -> None:
                pass

        monkeypatch.setattr(commands, "Runner", Listener)
        assert cli.main(["train", *words]) == 0
        return seen[0]

    def test_flags_reach_the_runner(self, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        words = ["points.py", "--seed", "7", "--deterministic", "--resume", "--partial", "--data-root", "/data"]
        settings = self.settings(monkeypatch, *words, "--cfg-options", "train_cfg.max_epochs=9", "+load_from=x.pth")
        assert settings.randomness == {"seed": 7, "deterministic": True}
        assert (settings.resume, settings.partial, settings.launcher) == (True, True, "none")
        assert settings.work_dir == "work_dirs/points"
        assert settings.train_dataloader.dataset.root == "/data/points"
        assert (settings.train_cfg.max_epochs, settings.load_from) == (9, "x.pth")

    def test_defaults_leave_the_config_alone(self, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config.write_text(CONFIG + "work_dir = 'mine'\nresume = True\nrandomness = dict(seed=3)\n")
        settings = self.settings(monkeypatch, "points.py")
        assert (settings.work_dir, settings.resume, settings.randomness) == ("mine", True, {"seed": 3})
        assert "partial" not in settings

    def test_amp_changes_the_wrapper(self, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        wrapper = self.settings(monkeypatch, "points.py", "--amp").optim_wrapper
        assert (wrapper.type, wrapper.loss_scale, wrapper.optimizer.lr) == (AmpOptimWrapper, "dynamic", 0.5)

    @pytest.mark.parametrize(
        ("addition", "sentence"),
        [
            ("optim_wrapper = None", "--amp changes optim_wrapper, which this config does not have"),
            ("optim_wrapper['type'] = SGD", "--amp changes OptimWrapper into AmpOptimWrapper, but optim_wrapper is"),
        ],
    )
    def test_amp_refused(self, config: Path, monkeypatch: pytest.MonkeyPatch, addition: str, sentence: str) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        config.write_text(f"{CONFIG}{addition}\n")
        with pytest.raises(ConfigError, match=sentence):
            commands.train(config, amp=True)

    def test_amp_without_accelerator(self, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ConfigError, match="--amp needs an accelerator, and PyTorch sees none"):
            commands.train(config, amp=True)

    def test_torchrun_trains_what_one_process_would(self, tmp_path: Path) -> None:
        """Two ranks with half the batch each against one process with the whole batch, by the documented command."""
        (tmp_path / "points.py").write_text(CONFIG)
        seed = ["--seed", "4", "--cfg-options"]
        words = ["train", "points.py", "--launcher", "pytorch", "--work-dir", "two", *seed]
        ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        options = [*ranks, "-m", "limbeck_core", *words, "train_dataloader.batch_size=4"]
        alone = [
            "-m",
            "limbeck_core",
            "train",
            "points.py",
            "--work-dir",
            "one",
            *seed,
            "train_dataloader.batch_size=8",
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "support"), "OMP_NUM_THREADS": "1"}
        for command in (options, alone):
            done = subprocess.run(
                [sys.executable, *command],
                capture_output=True, text=True, check=False, timeout=180, cwd=tmp_path, env=environment,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-3000:]
        two, one = (torch.load(tmp_path / w / "student.pth", weights_only=True)["state_dict"] for w in ("two", "one"))
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-6)

    def test_launcher_and_torchrun_must_agree(self, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ConfigError, match=r"expects torchrun .* -m limbeck_core train CONFIG --launcher pytorch"):
            commands.train(config, launcher="pytorch")
        monkeypatch.setenv("LOCAL_RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(ConfigError, match="started 2 processes, but --launcher is none"):
            commands.train(config)


class TestTestAndPredict:
    def test_prints_metrics(self, trained: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["test", str(config), "--checkpoint", str(trained / "student.pth")]) == 0
        table = dict(
            line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("top1", "teacher/"))
        )
        assert float(table["top1"]) > 0.8
        assert "teacher/top1" in table
        assert Path("work_dirs/points/test").is_dir()

    def test_best_checkpoint_too(self, trained: Path, config: Path) -> None:
        metrics = commands.evaluate(config, trained / "best_top1.pth", work_dir="elsewhere")
        assert metrics["top1"] > 0.8
        assert Path("elsewhere").is_dir()

    def test_nothing_to_test_on(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        config.write_text(CONFIG.replace("val_dataloader = ", "_unused = "))
        assert cli.main(["test", "points.py", "--checkpoint", "x.pth"]) == 2
        assert "has nothing to test on: it needs test_dataloader and test_evaluator" in capsys.readouterr().err

    def test_missing_checkpoint(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["test", "points.py", "--checkpoint", "nothing.pth"]) == 2
        assert "there is no checkpoint file nothing.pth" in capsys.readouterr().err

    def test_predicts_one_line_an_input(self, trained: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        config.write_text(CONFIG.replace("teacher=dict(type=linear)", "teacher=dict(type=linear, no_such_argument=1)"))
        words = ["predict", "points.py", "--checkpoint", str(trained / "student.pth"), "--", "-5", "5"]
        assert cli.main(words) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert rows == [{"input": "-5", "class": 0}, {"input": "5", "class": 1}]

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            (CONFIG.replace("predictor = ", "_unused = "), "does not say how to read an input"),
            (CONFIG.replace("student=dict(type=linear),", ""), "has no model.student to predict with"),
        ],
    )
    def test_cannot_predict(self, config: Path, capsys: pytest.CaptureFixture[str], text: str, sentence: str) -> None:
        config.write_text(text)
        assert cli.main(["predict", "points.py", "--checkpoint", "x.pth", "1"]) == 2
        assert sentence in capsys.readouterr().err


class TestLook:
    def test_show_prints_a_config_that_runs(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["show", "points.py", "--cfg-options", "model.matches.kd.weight=0.7", "--data-root", "/d"]) == 0
        text = capsys.readouterr().out
        assert text.startswith("# Points on two sides of a plane.\n")
        Path("again.py").write_text(text)
        again = load_config("again.py")
        assert (again.model.matches.kd.weight, again.val_dataloader.dataset.root) == (0.7, "/d/points")
        expected = load_config(config, overrides=["model.matches.kd.weight=0.7"], data_root="/d")
        assert again.to_dict() == expected.to_dict()

    def test_copy_refuses_what_is_not_installed(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["copy", "garden/rose", "x.py"]) == 2
        assert "no installed config is called 'garden/rose'" in capsys.readouterr().err

    def test_list_losses(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["list", "losses"]) == 0
        lines = capsys.readouterr().out.splitlines()
        kd = next(line for line in lines if line.startswith("KLDivergenceLoss "))
        assert kd.split()[1] == "kl_divergence_loss"
        assert kd.endswith(
            "Kullback-Leibler divergence from the softened teacher to the softened student (Hinton's KD)."
        )

    def test_list_configs_and_methods(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "limbeck_garden"
        (folder / "configs" / "kd").mkdir(parents=True)
        (folder / "configs" / "kd" / "rose.py").write_text("# A rose.\nx = 1\n")
        paper = "paper: {title: On roses, arxiv: '1234.56789'}"
        (folder / "configs" / "kd" / "metafile.yml").write_text(f"- name: garden/kd/rose\n  {paper}\n")
        metadata = tmp_path / "limbeck_garden-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: limbeck-garden\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text("[limbeck.configs]\ngarden = limbeck_garden.configs\n")
        monkeypatch.syspath_prepend(tmp_path)
        assert cli.main(["list"]) == 0
        assert [
            line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("garden")
        ] == [["garden/kd/rose", "A rose."]]
        assert cli.main(["list", "methods"]) == 0
        rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("garden")]
        assert [row.split(maxsplit=1)[1].split("  ")[0] for row in rows] == ["On roses"]
        assert rows[0].endswith("arXiv:1234.56789")
        (folder / "configs" / "kd" / "metafile.yml").write_text("- name: garden/kd/rose\n")
        assert cli.main(["list", "methods"]) == 2
        assert "metafile.yml must be a list of entries with name and paper.title" in capsys.readouterr().err

    def test_nothing_installed_is_said(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("limbeck_core.configs.entry_points", lambda group: ())
        for what in ("configs", "methods"):
            assert cli.main(["list", what]) == 0
            assert capsys.readouterr().out.startswith(f"no installed package brings {what}: pip install")


class TestConform:
    def test_all_agree(self, golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for path in golden.glob("kd__c*.npz"):
            shutil.copy(path, tmp_path)
        shutil.copy(golden / "kd__c1.npz", tmp_path / "stranger__c1.npz")
        assert cli.main(["conform", str(tmp_path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(":")[0] for line in lines[:2]] == ["ok   kd__c1", "ok   kd__c2"]
        assert lines[2] == "unknown stranger: no installed package has an adapter for it"
        assert lines[3] == "2 vectors compared: 2 ok, 0 missed; 1 names unknown"

    def test_a_miss_is_1(self, golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shutil.copy(golden / "kd__c1.npz", tmp_path / "dkd__c1.npz")
        assert cli.main(["conform", str(tmp_path)]) == 1
        assert "MISS dkd__c1" in capsys.readouterr().out

    def test_only_unknown_names_prove_nothing(self, golden: Path, tmp_path: Path) -> None:
        shutil.copy(golden / "kd__c1.npz", tmp_path / "stranger__c1.npz")
        assert cli.main(["conform", str(tmp_path)]) == 1
        assert cli.main(["conform", str(tmp_path), "--only", "stranger"]) == 1

    def test_only_picks(self, golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["conform", str(golden), "--only", "kd, dkd"]) == 0
        assert {line.split("__")[0].split()[-1] for line in capsys.readouterr().out.splitlines()[:-1]} == {"kd", "dkd"}
        assert cli.main(["conform", str(golden), "--only", "kd,kdd"]) == 1

    def test_no_folder_is_2(self, tmp_path: Path) -> None:
        assert cli.main(["conform", str(tmp_path / "nowhere")]) == 2


class TestManners:
    def test_an_error_is_one_sentence(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["show", "pionts.py"]) == 2
        err = capsys.readouterr().err
        assert err.startswith("limbeck: there is no config file pionts.py")
        assert err.count("\n") == 1

    def test_debug_shows_where(self, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LIMBECK_DEBUG", "1")
        with pytest.raises(ConfigError):
            cli.main(["show", "pionts.py"])

    def test_ctrl_c_is_130(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        def interrupted(options: object) -> int:
            raise KeyboardInterrupt

        monkeypatch.setattr(cli.verbs, "run_show", interrupted)
        assert cli.main(["show", "x"]) == 130
        assert capsys.readouterr().err == "limbeck: interrupted\n"

    def test_anything_else_keeps_its_traceback(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(options: object) -> int:
            raise ZeroDivisionError

        monkeypatch.setattr(cli.verbs, "run_show", broken)
        with pytest.raises(ZeroDivisionError):
            cli.main(["show", "x"])

    @pytest.mark.parametrize("words", [[], ["traim"], ["train"], ["train", "x", "--no-such-flag"], ["list", "dogs"]])
    def test_wrong_words_are_2(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            cli.main(words)
        assert stopped.value.code == 2
        assert "usage: limbeck" in capsys.readouterr().err

    def test_as_a_module(self) -> None:
        done = run("--version")
        assert (done.returncode, done.stdout.split()[0]) == (0, "limbeck-core")
        assert run("show", "nothing").returncode == 2

    def test_a_closed_pipe_is_no_error(self) -> None:
        command = f"{sys.executable} -m limbeck_core list losses | true; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=120)
        assert (done.stdout, done.stderr) == ("0\n", "")

    def test_tools_are_the_same_commands(self) -> None:
        for tool in ("train", "test"):
            command = [sys.executable, str(ROOT / "tools" / f"{tool}.py"), "--help"]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
            assert done.stdout.startswith(f"usage: limbeck {tool} ")

    @pytest.mark.parametrize(
        ("words", "heavy"),
        [
            (["list"], ["torch", "mmengine"]),
            (["list", "losses"], ["mmengine"]),
            (["conform", "GOLDEN", "--only", "kd"], ["mmengine"]),
            (["show", "CONFIG"], ["mmengine.runner"]),
        ],
    )
    def test_each_command_loads_what_it_needs(
        self, words: list[str], heavy: list[str], golden: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "x.py").write_text("x = 1\n")
        words = [{"GOLDEN": str(golden), "CONFIG": str(tmp_path / "x.py")}.get(word, word) for word in words]
        code = f"import sys; from limbeck_core.cli import main; status = main({words!r});"
        code += f"sys.exit(status or [m for m in {heavy!r} if m in sys.modules] or 0)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")


class TestWorkFolder:
    def test_a_second_config_of_the_same_name_does_not_write_over_the_first(
        self, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        other = tmp_path / "other" / config.name
        other.parent.mkdir()
        other.write_text(config.read_text(encoding="utf-8"), encoding="utf-8")
        assert cli.main(["train", str(config)]) == 0
        written = (tmp_path / "work_dirs" / config.stem / "student.pth").read_bytes()
        assert cli.main(["train", str(other)]) == 2
        assert f"holds the run of {config.resolve()}, which {other} would write over" in capsys.readouterr().err
        assert (tmp_path / "work_dirs" / config.stem / "student.pth").read_bytes() == written
        assert cli.main(["train", str(other), "--work-dir", str(tmp_path / "mine")]) == 0
        assert cli.main(["train", str(config)]) == 0


class TestDoctor:
    def test_healthy_config_and_nothing_is_written(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["doctor", "vision/digits/plain"]) == 0
        printed = capsys.readouterr().out
        assert "loss/task" in printed
        summary = printed.splitlines()[-1]
        assert summary.startswith("vision/digits/plain: 0 errors, 0 warnings, ")
        built, looked = map(float, re.findall(r"([0-9.]+) s\b", summary))
        assert "looked at 128 samples for" in summary
        assert built + looked < 10
        assert [path.name for path in config.parent.iterdir()] == [config.name]

    @pytest.mark.parametrize("unit", ["step", "epoch"])
    def test_a_weight_over_the_length_of_the_run(self, unit: str, config: Path) -> None:
        schedule = f"model.matches.kd.weight={{'type': 'limbeck_core.schedules.WarmUp', 'value': 0.8, 'by': '{unit}'}}"
        assert cli.main(["doctor", str(config), "--cfg-options", schedule]) == 0

    def test_a_fault_that_construction_tells(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["doctor", str(config), "--cfg-options", "model.matches.kd.student=fcc"]) == 1
        printed = capsys.readouterr().out
        assert "error   TapError: tap 'fcc' is not a submodule of the student" in printed
        assert ": 1 error, 0 warnings, 0 notes; " in printed

    def test_errors_come_first(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = [
            "doctor",
            str(config),
            "--cfg-options",
            "model.teacher.type=cli_toys.wide",
            "train_dataloader.batch_size=4",
        ]
        assert cli.main(words) == 1
        levels = [line.split()[0] for line in capsys.readouterr().out.splitlines()[:-1]]
        assert levels == sorted(levels, key=["error", "warning", "note"].index)
        assert levels[0] == "error"

    def test_a_fault_that_two_batches_tell(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        cli.main(["doctor", str(config), "--cfg-options", "model.matches.kd.weight=1e-12"])
        assert "it teaches nothing; raise its weight" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("override", "line"),
        [
            ("train_dataloader.dataset.type=cli_toys.Crooked", "error   ZeroDivisionError: "),
            ("model.student.type=cli_toys.wide", "error   student: it cannot run on the batch: RuntimeError: "),
            ("model.teacher.no_such_argument=1", "error   ConfigError: linear takes no argument 'no_such_argument'"),
        ],
    )
    def test_whatever_stops_training_is_a_finding(
        self, config: Path, capsys: pytest.CaptureFixture[str], override: str, line: str
    ) -> None:
        override = override if "no_such" not in override else f"+{override}"
        assert cli.main(["doctor", str(config), "--cfg-options", override]) == 1
        assert any(printed.startswith(line) for printed in capsys.readouterr().out.splitlines())

    def test_debug_lets_it_through(self, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LIMBECK_DEBUG", "1")
        with pytest.raises(ZeroDivisionError):
            cli.main(["doctor", str(config), "--cfg-options", "train_dataloader.dataset.type=cli_toys.Crooked"])

    def test_workers_are_not_started(self, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            torch.utils.data.DataLoader, "__init__", without_workers(torch.utils.data.DataLoader.__init__)
        )
        examined = commands.examine(config, overrides=["+train_dataloader.num_workers=2"])
        assert (examined.samples, examined.findings[-1].level) == (16, "note")

    def test_large_batches_are_cut_so_that_it_is_quick(self, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[int] = []
        clock = [0.0]

        def slow(model: Any, found: list[Any]) -> list[Any]:
            seen.append(sum(len(batch["inputs"]) for batch in found))
            clock[0] += 0.5 * seen[-1]
            return []

        monkeypatch.setattr(commands, "diagnose", slow)
        monkeypatch.setattr(commands.time, "perf_counter", lambda: clock[0])
        examined = commands.examine(config, overrides=["train_dataloader.batch_size=16"])
        assert seen == [4, 4, 12]  # two trials of 2 s leave 3 s for batches of 6
        assert (examined.samples, examined.whole) == (12, 32)
        assert examined.in_words().endswith("looked at 12 samples of 32, so as to be quick, for 10.0 s")
        seen.clear()
        monkeypatch.setattr(commands, "LOOK", 100.0)
        assert commands.examine(config, overrides=["train_dataloader.batch_size=16"]).samples == 32
        assert seen == [4, 32]

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            (CONFIG.replace("train_dataloader = ", "_unused = "), "has no train_dataloader, so there are no batches"),
            (CONFIG.split("model = dict(")[0] + "model = dict(type=linear)", "is a Sequential: doctor looks at a"),
        ],
    )
    def test_nothing_to_look_at_is_2(
        self, config: Path, capsys: pytest.CaptureFixture[str], text: str, sentence: str
    ) -> None:
        config.write_text(text)
        assert cli.main(["doctor", str(config)]) == 2
        assert sentence in capsys.readouterr().err


def without_workers(init: Any) -> Any:
    def checked(*arguments: Any, **options: Any) -> None:
        assert not options.get("num_workers")
        init(*arguments, **options)

    return checked


class TestExport:
    def test_prints_the_card(self, trained: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        config.write_text(CONFIG.replace("teacher=dict(type=linear)", "teacher=dict(type=linear, no_such_argument=1)"))
        words = ["export", "points.py", "--checkpoint", str(trained / "student.pth"), "--format", "state_dict"]
        assert cli.main([*words, "--out", "alone.pth"]) == 0
        card = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
        assert card["written"].startswith("alone.pth (state_dict, ")
        assert card["weights"] == "the student itself (its run kept no moving average), 2 names of student.pth"
        assert card["parameters"] == "10"
        assert card["check"].startswith("2 tensors read back bit for bit; largest difference from PyTorch 0.0e+00")
        assert set(torch.load("alone.pth", weights_only=True)) == {"fc.weight", "fc.bias"}

    def test_a_shape_that_does_not_fit_is_2(
        self, trained: Path, config: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["export", "points.py", "--checkpoint", str(trained / "student.pth"), "--format", "pt2"]
        assert cli.main([*words, "--input-shape", "1,5"]) == 2
        assert "Sequential does not run on an input of shape (1, 5)" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            cli.main([*words, "--input-shape", "1x5"])
        assert "'1x5' is no list of whole numbers such as 1,3,32,32" in capsys.readouterr().err
