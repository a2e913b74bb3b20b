"""What ``limbeck train``, ``test``, ``predict`` and ``doctor`` do, as functions."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from limbeck_core.bank.command import use_bank
from limbeck_core.build import build, resolve_type
from limbeck_core.distiller import Distiller
from limbeck_core.engine.batches import first_batches
from limbeck_core.engine.checkpoints import write_atomic
from limbeck_core.engine.config import load_config
from limbeck_core.engine.export import student_alone
from limbeck_core.engine.runner import Runner
from limbeck_core.engine.sampler import stack
from limbeck_core.errors import DEBUG_VARIABLE, ConfigError, DataError, LimbeckError, debugging
from limbeck_core.inspect import Finding, diagnose
from limbeck_core.schedules import Progress
from limbeck_core.tap import first_length

Launcher = Literal["none", "pytorch", "slurm", "mpi"]
WORK_DIRS = Path("work_dirs")
LOOK = 7.0  # seconds that a doctor's look may be planned to take; larger batches are cut for it
TRIAL = 4  # samples by which it is planned
_TEST_PARTS = ("dataloader", "cfg", "evaluator")
_OWNER = ".config"  # in a default work folder, the file of the config that trains there


class Predictor(Protocol):
    """What ``limbeck predict`` needs of a domain; a config names one as ``predictor = dict(type=..., ...)``.

    One with an attribute ``suffixes``, such as ``(".jpg", ".png")``, takes a folder for the files of those kinds in it.
    """

    def read(self, source: str) -> Any:
        """Return one sample, prepared as for testing: what the test data set would give, targets left out."""
        ...

    def describe(self, source: str, output: Any) -> Mapping[str, Any]:
        """Return the model's output on a batch of this one sample as plain data, ready for JSON."""
        ...


def train(
    config: str | Path,
    *,
    work_dir: str | Path | None = None,
    resume: bool = False,
    seed: int | None = None,
    deterministic: bool = False,
    data_root: str | Path | None = None,
    amp: bool = False,
    partial: bool = False,
    bank: str | Path | None = None,
    launcher: Launcher = "none",
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> Runner:
    """Train as a config says.

    Args:
        config: A path, or the name of an installed config.
        work_dir: Folder of logs and checkpoints. Default: the config's ``work_dir``, or ``work_dirs/<name of the
            file>``.
        resume: Go on from the newest whole checkpoint in ``work_dir``; start anew if there is none.
        seed: Seed of everything random. Default: the config's, or one drawn by chance and written into the log.
        deterministic: Let PyTorch use deterministic algorithms only; slower on an accelerator.
        data_root: See :func:`~limbeck_core.engine.config.load_config`.
        amp: Mixed precision with a scaled loss; needs an accelerator.
        partial: Let ``load_from`` fill a part of the student only.
        bank: Read what the teacher says from this folder, which ``limbeck bank`` wrote, instead of running it.
        launcher: Who started the processes; ``"none"`` is a single one.
        overrides: See :func:`~limbeck_core.engine.config.load_config`.

    Returns:
        The runner, when the run is over.

    Raises:
        ConfigError: if the config does not fit, the launcher does not match how the process was started, ``amp`` is
            asked for without an accelerator, or another config of the same file name trained in the default folder.
        CheckpointError: if a checkpoint cannot be resumed from.
        BankError: if the bank is missing, damaged, or of another teacher, data set or recipe.
    """
    _check_launcher(launcher)
    settings = load_config(config, overrides=overrides, data_root=data_root)
    _set_common(settings, work_dir, launcher, partial=partial)
    if work_dir is None:
        _claim(Path(settings.work_dir), settings.filename)
    settings.resume = resume or bool(settings.get("resume", False))
    randomness = dict(settings.get("randomness") or {})
    if seed is not None:
        randomness["seed"] = seed
    if deterministic:
        randomness["deterministic"] = True
        # without it cuBLAS refuses to run under deterministic algorithms
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    settings.randomness = randomness
    if amp:
        _use_amp(settings)
    if bank is not None:
        use_bank(settings, bank)
    runner: Runner = Runner.from_cfg(settings)
    runner.train()
    return runner


def evaluate(
    config: str | Path,
    checkpoint: str | Path,
    *,
    work_dir: str | Path | None = None,
    data_root: str | Path | None = None,
    partial: bool = False,
    launcher: Launcher = "none",
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> dict[str, Any]:
    """Evaluate a checkpoint with the config's own evaluator.

    Args:
        config: A path, or the name of an installed config. Its test part is used; if it has none, its validation part.
        checkpoint: Weights of the student. If they come from a run that kept a moving average, that is judged.
        work_dir: Folder of logs. Default: ``test`` inside the folder where :func:`train` would write.
        data_root: See :func:`~limbeck_core.engine.config.load_config`.
        partial: Accept a file that lacks some of the student's weights.
        launcher: Who started the processes.
        overrides: See :func:`~limbeck_core.engine.config.load_config`.

    Returns:
        The metrics by name; those of a teacher start with ``teacher/``.

    Raises:
        ConfigError: if the config has neither a test nor a validation part.
        CheckpointError: if the checkpoint cannot be read or does not fit.
    """
    runner = build_test_runner(
        config,
        checkpoint,
        work_dir=work_dir,
        data_root=data_root,
        partial=partial,
        launcher=launcher,
        overrides=overrides,
    )
    return dict(runner.test())


def build_test_runner(
    config: str | Path,
    checkpoint: str | Path,
    *,
    work_dir: str | Path | None = None,
    data_root: str | Path | None = None,
    partial: bool = False,
    launcher: Launcher = "none",
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> Runner:
    """Return a runner whose ``test()`` is what :func:`evaluate` returns, for those who also want its evaluator.

    Arguments and errors are those of :func:`evaluate`.
    """
    _check_launcher(launcher)
    settings = load_config(config, overrides=overrides, data_root=data_root)
    _set_common(settings, work_dir, launcher, partial=partial)
    if work_dir is None:
        settings.work_dir = str(Path(settings.work_dir) / "test")
    stage = next((s for s in ("test", "val") if settings.get(f"{s}_dataloader") is not None), None)
    if stage is None:
        raise ConfigError(f"{config} has nothing to test on: it needs test_dataloader and test_evaluator")
    for part in _TEST_PARTS:
        settings[f"test_{part}"] = settings.get(f"{stage}_{part}")
    settings.test_cfg = settings.test_cfg or {}
    settings.load_from = str(checkpoint)
    settings.resume = False
    runner: Runner = Runner.from_cfg(settings)
    return runner


@dataclass(frozen=True)
class Examination:
    """What the doctor found, and how long it took.

    Args:
        findings: Findings in the order of a step.
        samples: Number of samples looked at; 0 if there were none to look at.
        whole: Number of samples in those batches as training has them.
        building: Seconds that model and data took to build and read.
        looking: Seconds of the look itself.
    """

    findings: list[Finding]
    samples: int = 0
    whole: int = 0
    building: float = 0.0
    looking: float = 0.0

    def in_words(self) -> str:
        """How long it took, and at how much it looked."""
        share = f" of {self.whole}, so as to be quick," if self.samples < self.whole else ""
        return f"built in {self.building:.1f} s, looked at {self.samples} samples{share} for {self.looking:.1f} s"


def examine(
    config: str | Path,
    *,
    data_root: str | Path | None = None,
    batches: int = 2,
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> Examination:
    """Look at a config on its first training batches, without starting a run or writing anything.

    Args:
        config: A path, or the name of an installed config.
        data_root: See :func:`~limbeck_core.engine.config.load_config`.
        batches: Training batches to look at.
        overrides: See :func:`~limbeck_core.engine.config.load_config`.

    Returns:
        What :func:`~limbeck_core.inspect.diagnose` finds. Whatever construction or the data set fails with is a finding
        as well; ``LIMBECK_DEBUG=1`` lets it through with its traceback.

    Raises:
        ConfigError: if the config cannot be read, has no ``train_dataloader``, or its model is no distiller.
    """
    settings = load_config(config, overrides=overrides, data_root=data_root)
    if settings.get("train_dataloader") is None:
        raise ConfigError(f"{config} has no train_dataloader, so there are no batches to look at")
    seed = int((settings.get("randomness") or {}).get("seed") or 0)
    started = time.perf_counter()
    try:
        torch.manual_seed(seed)
        model = build(settings.get("model"))
        found = first_batches(settings.train_dataloader, batches, seed=seed, training=True)
    except Exception as error:  # user code runs here, and whatever stops it would stop training
        if debugging():
            raise
        return Examination([_as_finding(error)], building=time.perf_counter() - started)
    if not isinstance(model, Distiller):
        raise ConfigError(
            f"the model of {config} is a {type(model).__name__}: doctor looks at a limbeck_core.Distiller"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    model.set_progress(_beginning(settings.get("train_cfg") or {}))
    built = time.perf_counter()
    whole = sum(first_length(batch) for batch in found)
    try:
        found = _affordable(model, settings.train_dataloader, found, seed)
        findings = diagnose(model, found)
    except Exception as error:
        if debugging():
            raise
        findings = [_as_finding(error)]
    samples = sum(first_length(batch) for batch in found)
    return Examination(findings, samples, whole, built - started, time.perf_counter() - built)


def _beginning(plan: Mapping[str, Any]) -> Progress:
    """The first step of a run, for weights that are scheduled over its length."""
    epochs, steps = plan.get("max_epochs"), plan.get("max_steps")
    # which of the two a run is counted in decides what is known exactly; at its beginning the other hardly matters
    return Progress(max_steps=int(steps or epochs or 1), max_epochs=int(epochs or 1))


def _affordable(model: Distiller, loader: Mapping[str, Any], found: list[Any], seed: int) -> list[Any]:
    """The batches themselves, or smaller ones where looking at them would take too long."""
    size = loader.get("batch_size")
    if not isinstance(size, int) or size <= TRIAL:
        return found
    trial = first_batches({**loader, "batch_size": TRIAL}, 1, seed=seed, training=True)
    seconds = []
    for _ in range(2):  # the first look also loads and plans what PyTorch needs
        begun = time.perf_counter()
        diagnose(model, trial)
        seconds.append(time.perf_counter() - begun)
        if seconds[-1] * size / TRIAL < LOOK:
            return found
    fitting = max(TRIAL, int(TRIAL * (LOOK - sum(seconds)) / min(seconds)))
    return (
        found
        if fitting >= size
        else first_batches({**loader, "batch_size": fitting}, len(found), seed=seed, training=True)
    )


def _as_finding(error: Exception) -> Finding:
    sentence = " ".join(str(error).split())
    if not isinstance(error, LimbeckError):
        frame = traceback.extract_tb(error.__traceback__)[-1]
        sentence = (
            f"{sentence or 'no message'} ({frame.filename}:{frame.lineno}; {DEBUG_VARIABLE}=1 shows the way there)"
        )
    return Finding("error", type(error).__name__, sentence)


def predict(
    config: str | Path,
    checkpoint: str | Path,
    inputs: Sequence[str],
    *,
    partial: bool = False,
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> Iterator[Mapping[str, Any]]:
    """Predict with the student alone; no teacher is built, and no data set is read.

    Args:
        config: A path, or the name of an installed config, with ``predictor`` (see :class:`Predictor`).
        checkpoint: Weights of the student; their moving average, if the run kept one.
        inputs: What the predictor reads, usually paths of files; a folder stands for its files where the predictor says
            which kinds it reads.
        partial: Accept a file that lacks some of the student's weights.
        overrides: See :func:`~limbeck_core.engine.config.load_config`.

    Yields:
        What the predictor says of each input, in order.

    Raises:
        ConfigError: if the config has no ``predictor`` or no ``model.student``.
        DataError: if a folder holds no file that the predictor reads.
        CheckpointError: if the checkpoint cannot be read or does not fit.
    """
    settings = load_config(config, overrides=overrides)
    if "predictor" not in settings:
        raise ConfigError(
            f"{config} does not say how to read an input and write a prediction: give it "
            "predictor=dict(type=..., ...), or use 'limbeck test' with a data set"
        )
    alone = student_alone(settings, checkpoint, partial=partial)
    predictor: Predictor = build(settings.predictor)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    student = alone.model.to(device).eval()
    with torch.no_grad():
        for source in _files(inputs, getattr(predictor, "suffixes", ())):
            batch = {name: _to(value, device) for name, value in stack([predictor.read(source)]).items()}
            output = alone.call.predict(student, batch, alone.view)
            yield predictor.describe(source, output)


def _files(inputs: Sequence[str], suffixes: Sequence[str]) -> Iterator[str]:
    """The inputs, and for a folder the files of some kinds in it, by name."""
    for source in inputs:
        if not suffixes or not Path(source).is_dir():
            yield source
            continue
        found = sorted(str(path) for path in Path(source).iterdir() if path.suffix.lower() in suffixes)
        if not found:
            raise DataError(f"{source} is a folder without a file of {', '.join(suffixes)} directly in it")
        yield from found


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Mapping):
        return {name: _to(item, device) for name, item in value.items()}
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _set_common(settings: Config, work_dir: str | Path | None, launcher: Launcher, *, partial: bool) -> None:
    default = settings.get("work_dir") or WORK_DIRS / Path(settings.filename).stem
    settings.work_dir = str(work_dir if work_dir is not None else default)
    settings.launcher = launcher
    if partial:
        settings.partial = True


def _claim(folder: Path, filename: str) -> None:
    """Take a default work folder, or refuse one where another config of the same file name has trained."""
    note, own = folder / _OWNER, str(Path(filename).resolve())
    owner = note.read_text(encoding="utf-8").strip() if note.is_file() else own
    if owner != own:
        raise ConfigError(
            f"{folder} holds the run of {owner}, which {own} would write over: choose another folder with --work-dir"
        )
    write_atomic(note, f"{own}\n")


def _check_launcher(launcher: Launcher) -> None:
    """Refuse what would end in a bare KeyError, or in several runs that write into one folder."""
    started = "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ
    if launcher == "pytorch" and not started:
        raise ConfigError(
            "--launcher pytorch expects torchrun to have started this process: "
            "torchrun --nproc-per-node 2 -m limbeck_core train CONFIG --launcher pytorch"
        )
    if launcher == "none" and started and int(os.environ["WORLD_SIZE"]) > 1:
        raise ConfigError(
            f"torchrun started {os.environ['WORLD_SIZE']} processes, but --launcher is none, so each would train by "
            "itself: add --launcher pytorch"
        )


def _use_amp(settings: Config) -> None:
    if not torch.cuda.is_available():
        raise ConfigError("--amp needs an accelerator, and PyTorch sees none: leave it out on the CPU")
    wrapper = settings.get("optim_wrapper")
    if wrapper is None:
        raise ConfigError("--amp changes optim_wrapper, which this config does not have")
    kind = wrapper.get("type", OptimWrapper)
    named = kind in ("OptimWrapper", "AmpOptimWrapper")
    kind = {"OptimWrapper": OptimWrapper, "AmpOptimWrapper": AmpOptimWrapper}[kind] if named else resolve_type(kind)
    if kind is OptimWrapper:
        wrapper.update(type=AmpOptimWrapper)
        wrapper.setdefault("loss_scale", "dynamic")
    elif kind is not AmpOptimWrapper:
        raise ConfigError(
            f"--amp changes OptimWrapper into AmpOptimWrapper, but optim_wrapper is {kind}: set its precision in the "
            "config"
        )
