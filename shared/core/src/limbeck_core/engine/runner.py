"""MMEngine's Runner, which resumes exactly and never runs code from a file."""

from __future__ import annotations

import copy
import itertools
import os
import platform
import signal
import threading
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

import mmengine
import torch
import torch.distributed as torch_dist
from mmengine.dist import get_dist_info, is_distributed, is_main_process
from mmengine.hooks import CheckpointHook as MMCheckpointHook
from mmengine.hooks import EarlyStoppingHook as MMEarlyStoppingHook
from mmengine.hooks import EMAHook as MMEMAHook
from mmengine.hooks import LoggerHook
from mmengine.model import MMDistributedDataParallel, is_model_wrapper
from mmengine.runner import Runner as MMRunner
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from torch import nn
from torch.utils.data import DataLoader

from limbeck_core.engine import checkpoints
from limbeck_core.engine.config import dump_config
from limbeck_core.engine.hooks import (
    CheckpointHook,
    EarlyStoppingHook,
    EMATeacherHook,
    ProgressHook,
    updatable_teachers,
)
from limbeck_core.engine.loop import EpochLoop, StepLoop, TestLoop, TrainLoop, ValLoop
from limbeck_core.engine.progress import ProgressBarHook
from limbeck_core.engine.sampler import build_dataloader
from limbeck_core.engine.speedups import SpeedupHook, fast_teachers
from limbeck_core.engine.state import (
    Stateful,
    capture_generators,
    capture_gradients,
    capture_messages,
    capture_scheduler,
    gather_ranks,
    plain,
    replaced,
    restore_messages,
)
from limbeck_core.errors import CheckpointError, ConfigError
from limbeck_core.tap import unwrap
from limbeck_core.weights import read_file

_DEFAULT_HOOKS: dict[str, dict[str, Any]] = {
    "runtime_info": {"type": "RuntimeInfoHook"},
    "progress": {"type": ProgressHook},
    "timer": {"type": "IterTimerHook"},
    "logger": {"type": LoggerHook, "interval": 50},
    "param_scheduler": {"type": "ParamSchedulerHook"},
    "checkpoint": {"type": CheckpointHook},
    "progress_bar": {"type": ProgressBarHook},
}
_NEEDED_HOOKS = ("runtime_info", "progress", "param_scheduler", "checkpoint")
_names = itertools.count()


class StopSignals:
    """Ctrl-C and SIGTERM as a wish: the step in progress is finished first. A second signal stops at once."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self._owner = os.getpid()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a worker process that was forked with this handler
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        self.asked = number
        for each, handler in self._previous.items():
            signal.signal(each, handler)


class Runner(MMRunner):
    """MMEngine's Runner with limbeck's loops, samplers, checkpoints and hooks; it takes the same arguments and configs.

    What differs:

    - A run that is killed at any step and resumed ends with the same weights, bit for bit on the CPU with the same
      number of threads and processes.
    - Files are read as plain data only, checked against their digest, and what they fill is compared name by name.
    - Construction decides the weights: no ``init_weights`` is called, so pretrained weights stay.
    - ``train_cfg`` takes ``EpochLoop`` and ``StepLoop`` (``by_epoch`` works too), ``val_cfg`` and ``test_cfg`` default
      to loops that judge teachers as well.
    - Each rank draws random numbers of its own, from the seed and its rank; samples and their order depend on the seed
      alone.
    - Ctrl-C and SIGTERM finish the step and write a checkpoint.

    Args:
        model: As in MMEngine, usually a config of a :class:`~limbeck_core.distiller.Distiller`.
        work_dir: Folder of logs and checkpoints.
        resume: Go on from the newest whole checkpoint in ``work_dir``; start anew if there is none yet. A ``load_from``
            that lies in ``work_dir`` is gone on from instead; one that lies elsewhere matters while ``work_dir`` is
            empty: a training checkpoint is gone on from, other files give the weights to start with.
        load_from: File whose weights the student starts from; with ``partial = True`` in the config it may lack some.
        default_hooks: As in MMEngine. An entry without ``type`` changes options of the default,
            ``dict(checkpoint=dict(every_steps=500))``.
        kwargs: The rest of MMEngine's arguments.

    Raises:
        ConfigError: if a hook that the run cannot do without is taken out or replaced by one that forgets.
        CheckpointError: if a file cannot be resumed from or does not fit.
    """

    model: Any
    optim_wrapper: Any
    param_schedulers: Any
    _train_loop: Any
    _val_loop: Any

    def __init__(self, model: Any, work_dir: str, **kwargs: Any) -> None:
        randomness = dict(kwargs.get("randomness") or {})
        if randomness.get("diff_rank_seed"):
            raise ConfigError(
                "diff_rank_seed=True would give each rank another order of samples: leave it out; each rank draws its "
                "own random numbers anyway"
            )
        randomness.setdefault("seed", None)
        resumed_seed = self._seed_to_resume(Path(work_dir), kwargs)
        if resumed_seed is not None:
            randomness["seed"] = resumed_seed
        kwargs["randomness"] = randomness
        kwargs["env_cfg"] = _environment(kwargs.get("env_cfg"))
        # MMEngine's message hub and loggers are global and named by the second in which a run starts
        kwargs["experiment_name"] = _experiment_name(kwargs)
        self._stop = StopSignals()
        super().__init__(model, work_dir, **kwargs)
        self._check_hooks()

    @staticmethod
    def _seed_to_resume(work_dir: Path, kwargs: Mapping[str, Any]) -> int | None:
        """Seed of the run to go on with, known before the model is built: a teacher may be drawn from it."""
        if not kwargs.get("resume"):
            return None
        given = Path(kwargs["load_from"]) if kwargs.get("load_from") else None
        paths = checkpoints.candidates(work_dir)
        if given is not None:
            paths = [given] if _lies_in(given, work_dir) else [*paths, given]
        seeds = (checkpoints.seed_of(path) for path in paths)
        return next((seed for seed in seeds if seed is not None), None)

    # ------------------------------------------------------------------ construction

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Start the process group; on machines without an accelerator too, where MMEngine does not."""
        if self.distributed and not is_distributed() and not _has_accelerator():
            if self.launcher != "pytorch":
                raise ConfigError(
                    f"launcher {self.launcher!r} needs an accelerator: start CPU runs with torchrun and "
                    "launcher='pytorch'"
                )
            torch_dist.init_process_group(backend="gloo")
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> Any:
        """Wrap for data parallelism; on the CPU without device ids, which PyTorch refuses there."""
        options = dict(model_wrapper_cfg or {})
        kind = options.pop("type", MMDistributedDataParallel)
        ordinary = kind in (MMDistributedDataParallel, "MMDistributedDataParallel")
        if not self.distributed or _has_accelerator() or is_model_wrapper(model) or not ordinary:
            return super().wrap_model(model_wrapper_cfg, model)
        options.setdefault("find_unused_parameters", bool(self.cfg.get("find_unused_parameters", False)))
        wrapped = MMDistributedDataParallel(module=model, **{"broadcast_buffers": False, **options})
        # Data parallelism lays gradients out anew after its first step. With more than two ranks that changes the order
        # of sums, and a resumed run would take its first step in the old order: lay them out for good at once.
        wrapped.reducer._push_all_rebuilt_params()
        wrapped.reducer._rebuild_buckets()
        return wrapped

    def build_dataloader(
        self, dataloader: DataLoader[Any] | Mapping[str, Any], seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader[Any]:
        """Build a loader for evaluation: not shuffled by default, no sample twice."""
        return build_dataloader(dataloader, seed=self.seed if seed is None else seed, training=False)

    def build_train_loop(self, loop: Any) -> TrainLoop:
        """Build the training loop.

        Raises:
            ConfigError: if it is another loop than ours, since it could not resume.
        """
        if isinstance(loop, Mapping):
            options = dict(loop)
            by_epoch = options.pop("by_epoch", None)
            if by_epoch is False and "max_iters" in options:
                options["max_steps"] = options.pop("max_iters")
            if "type" not in options:
                options["type"] = StepLoop if by_epoch is False or "max_steps" in options else EpochLoop
            loop = super().build_train_loop(options)
        if not isinstance(loop, TrainLoop):
            raise ConfigError(
                f"train_cfg asks for {type(loop).__name__}, which cannot resume between two steps: use "
                "limbeck_core.engine.EpochLoop or StepLoop"
            )
        return loop

    def build_val_loop(self, loop: Any) -> Any:
        """Build the validation loop, ours by default."""
        return super().build_val_loop({"type": ValLoop, **loop} if isinstance(loop, Mapping) else loop)

    def build_test_loop(self, loop: Any) -> Any:
        """Build the test loop, ours by default; options of a :class:`ValLoop` serve as well."""
        if isinstance(loop, Mapping):
            loop = {"type": TestLoop, **loop}
            loop["type"] = TestLoop if loop["type"] is ValLoop else loop["type"]
        return super().build_test_loop(loop)

    def dump_config(self) -> None:
        """Write the config into the work folder, as one file that runs again."""
        if is_main_process():
            name = Path(self.cfg.filename).name if self.cfg.filename else f"{self.timestamp}.py"
            (Path(self.work_dir) / name).write_text(dump_config(self.cfg), encoding="utf-8")

    def build_visualizer(self, visualizer: Any = None) -> Any:
        """Build the visualizer; by default one that writes JSON lines, and TensorBoard events if it is installed."""
        if visualizer is None and find_spec("tensorboard") is not None:
            backends = [{"type": "LocalVisBackend"}, {"type": "TensorboardVisBackend"}]
            visualizer = {"type": "Visualizer", "vis_backends": backends}
        return super().build_visualizer(visualizer)

    def register_default_hooks(self, hooks: Mapping[str, Any] | None = None) -> None:
        """Register the default hooks, changed as asked."""
        chosen: dict[str, Any] = {name: dict(hook) for name, hook in _DEFAULT_HOOKS.items()}
        for name, hook in (hooks or {}).items():
            if hook is None:
                if name in _NEEDED_HOOKS:
                    raise ConfigError(
                        f"default_hooks takes out {name!r}, without which a run is not exact: leave it in"
                    )
                chosen.pop(name, None)
            elif isinstance(hook, Mapping) and "type" not in hook:
                if name not in chosen:
                    raise ConfigError(f"default_hooks has no entry {name!r} to change, and gives no type for a new one")
                chosen[name] |= dict(hook)
            else:
                chosen[name] = hook
        for hook in chosen.values():
            self.register_hook(hook)

    def _check_hooks(self) -> None:
        replacements = (
            (MMCheckpointHook, CheckpointHook),
            (MMEMAHook, "EMAHook"),
            (MMEarlyStoppingHook, EarlyStoppingHook),
        )
        for hook in self.hooks:
            for theirs, ours in replacements:
                if isinstance(hook, theirs) and not isinstance(hook, EarlyStoppingHook):
                    name = ours if isinstance(ours, str) else ours.__name__
                    raise ConfigError(
                        f"MMEngine's {type(hook).__name__} forgets part of its state when a run resumes: use "
                        f"limbeck_core.engine.{name}"
                    )
        for needed in (ProgressHook, CheckpointHook):
            if not any(isinstance(hook, needed) for hook in self.hooks):
                raise ConfigError(
                    f"default_hooks replaced {needed.__name__} by another hook: subclass it, or leave it in"
                )
        if updatable_teachers(self.model) and not any(isinstance(hook, EMATeacherHook) for hook in self.hooks):
            self.register_hook(EMATeacherHook())
        if fast_teachers(self.model):
            self.register_hook(SpeedupHook())

    # ------------------------------------------------------------------ running

    def train(self) -> Any:
        """Train, from the beginning or from where the run stopped.

        Raises:
            SystemExit: after Ctrl-C or SIGTERM, once the step is finished and a checkpoint is written.
        """
        if self._train_loop is None:
            raise ConfigError(
                "there is nothing to train on: the config needs train_dataloader, train_cfg and optim_wrapper"
            )
        with self._stop:
            self._train_loop = self.build_train_loop(self._train_loop)
            self._log_by_step()
            self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
            self.scale_lr(self.optim_wrapper, self.auto_scale_lr)
            if self.param_schedulers is not None:
                self.param_schedulers = self.build_param_scheduler(self.param_schedulers)
            if self._val_loop is not None:
                self._val_loop = self.build_val_loop(self._val_loop)
            self.call_hook("before_run")
            modules = self.cfg.get("activation_checkpointing", None)
            if modules is not None:
                turn_on_activation_checkpointing(unwrap(self.model), modules)
            if is_main_process():
                checkpoints.remove_leftovers(Path(self.work_dir))
            self.load_or_resume()
            self._maybe_compile("train_step")
            model = self._train_loop.run()
            self.call_hook("after_run")
        return model

    def _log_by_step(self) -> None:
        if isinstance(self._train_loop, StepLoop):
            self.log_processor.by_epoch = False
            for hook in self.hooks:
                if isinstance(hook, LoggerHook):
                    hook.log_metric_by_epoch = False

    def _init_model_weights(self) -> None:
        """Do nothing: construction decided the weights, and drawing them again would undo pretrained ones."""

    def get_hooks_info(self) -> str:
        """Hooks in the order in which they are called."""
        return ", ".join(type(hook).__name__ for hook in self.hooks)

    def _log_env(self, env_cfg: Mapping[str, Any]) -> None:
        """Log what a reader needs to repeat the run. MMEngine's list asks compilers and imports torchvision for it."""
        lines = {
            "Python": platform.python_version(),
            "PyTorch": torch.__version__,
            "MMEngine": mmengine.__version__,
            "platform": platform.platform(),
            "accelerators": ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
            or "none",
            "threads": torch.get_num_threads(),
            "processes": self.world_size,
            "launcher": self.launcher,
            "seed": self.seed,
            "deterministic": self.deterministic,
        }
        self.logger.info("environment\n" + "\n".join(f"    {name}: {value}" for name, value in lines.items()))
        if self.cfg._cfg_dict:
            self.logger.info(f"config\n{self.cfg.pretty_text}")

    def leave_if_asked(self) -> None:
        """End the run if somebody asked for it: write a checkpoint and say how to go on.

        All ranks agree on the step, since a signal reaches them at different moments.

        Raises:
            SystemExit: with the status that a shell expects of a process ended by that signal.
        """
        asked = self._stop.asked or 0
        if is_distributed():
            flag = torch.tensor(asked, device=next(self.model.parameters()).device)
            torch_dist.all_reduce(flag, op=torch_dist.ReduceOp.MAX)
            asked = int(flag)
        if not asked:
            return
        hook = next(hook for hook in self.hooks if isinstance(hook, CheckpointHook))
        hook.save(self, must=True)
        self.logger.warning(
            f"{signal.Signals(asked).name}: step {self.train_loop.iter} is finished and saved in {self.work_dir}. To "
            "go on, give the same command with --resume (resume=True)"
        )
        self.call_hook("after_run")
        raise SystemExit(128 + asked)

    # ------------------------------------------------------------------ writing

    def write(self, path: Path, *, kind: str = "training") -> None:
        """Write a checkpoint; all ranks call it, and all learn whether it was written.

        Args:
            path: Where to.
            kind: ``"training"`` holds everything; ``"weights"`` leaves out optimiser, loop and ranks.

        Raises:
            CheckpointError: if it could not be written; the file of that name is as it was.
        """
        student, rest = checkpoints.split_state(self.model)
        model: Any = unwrap(self.model)
        content: dict[str, Any] = {"meta": self._meta(), "state_dict": plain(student, "state_dict")}
        ours: dict[str, Any] = {
            "matches": plain(rest, "matches"),
            "model": plain(model.state_dict_extra(), "model") if isinstance(model, Stateful) else {},
            "hooks": {
                name: plain(hook.state_dict_extra(), f"hooks.{name}") for name, hook in self._stateful_hooks().items()
            },
        }
        if kind == "training":
            messages, left_out = capture_messages(self.message_hub)
            if left_out:
                self.logger.warning(
                    f"{', '.join(left_out)} in MMEngine's message hub cannot be stored as plain data and will be "
                    "missing after a resume: keep state in a hook with state_dict_extra"
                )
            content["message_hub"] = messages
            content["optimizer"] = plain(self.optim_wrapper.state_dict(), "optimizer")
            content["param_schedulers"] = self._scheduler_states()
            ours["loop"] = self.train_loop.state_dict()
            ours["threads"] = torch.get_num_threads()
            own = {
                "generators": capture_generators(),
                "gradients": capture_gradients(model, self.optim_wrapper),
            }
            buffers = {name: plain(buffer, name) for name, buffer in model.named_buffers()}
            shared = {"buffers": buffers, "model": ours["model"], "hooks": ours["hooks"]}
            ours["ranks"] = gather_ranks(own, shared)
        content["limbeck"] = ours
        self.call_hook("before_save_checkpoint", checkpoint=content)
        failure = [""]
        if is_main_process():
            try:
                checkpoints.write_checkpoint(path, content, kind=kind)
            except CheckpointError as error:
                failure = [str(error)]
        if is_distributed():
            torch_dist.broadcast_object_list(failure, src=0)
        if failure[0]:
            raise CheckpointError(failure[0])

    def save_checkpoint(self, out_dir: str, filename: str, **_: Any) -> None:
        """Write a training checkpoint; MMEngine's further arguments have no meaning here."""
        self.write(Path(out_dir) / filename)

    def _meta(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "iter": self.iter,
            "seed": self.seed,
            "cfg": self.cfg.pretty_text if self.cfg else "",
            "experiment_name": self.experiment_name,
            "time": time.strftime("%Y%m%d_%H%M%S"),
            "mmengine_version": mmengine.__version__,
        }

    def _stateful_hooks(self) -> dict[str, Stateful]:
        found: dict[str, Stateful] = {}
        for hook in self.hooks:
            if isinstance(hook, Stateful):
                name = type(hook).__name__
                found[name if name not in found else f"{name}.{len(found)}"] = hook
        return found

    def _schedulers(self) -> dict[str, list[Any]]:
        if isinstance(self.param_schedulers, Mapping):
            return dict(self.param_schedulers)
        return {"": list(self.param_schedulers or [])}

    def _scheduler_states(self) -> dict[str, list[dict[str, Any]]]:
        return {
            name: [capture_scheduler(scheduler, f"param_schedulers.{number}") for number, scheduler in enumerate(group)]
            for name, group in self._schedulers().items()
        }

    # ------------------------------------------------------------------ reading

    def load_or_resume(self) -> None:
        """Resume or load as ``resume`` and ``load_from`` say."""
        if self._has_loaded:
            return
        training = isinstance(self._train_loop, TrainLoop)
        if self._resume and training:
            self._resume_newest()
        elif self._load_from is not None:
            self.load_checkpoint(self._load_from, remembered=not training)

    def _resume_newest(self) -> None:
        found = self._find()
        if found is None:
            self.logger.info(f"{self.work_dir} holds no checkpoint yet: the run starts from the beginning")
            if self._load_from is not None:
                self.load_checkpoint(self._load_from)
            return
        for complaint in found.complaints:
            self.logger.warning(f"{complaint}. Falling back to {found.path.name}.")
        self._restore(found)

    def _find(self) -> checkpoints.Found | None:
        """Find the file on rank 0 and read it everywhere."""
        answer: list[Any] = [None, None]  # a path, a complaint
        found = None
        if is_main_process():
            try:
                found = self._file_to_resume()
                answer = [str(found.path) if found else None, None]
            except CheckpointError as error:
                answer = [None, str(error)]
        if is_distributed():
            torch_dist.broadcast_object_list(answer, src=0)
        if answer[1] is not None:
            raise CheckpointError(answer[1])
        if answer[0] is None or found is not None:
            return found
        return checkpoints.Found(Path(answer[0]), checkpoints.read_checkpoint(Path(answer[0])), [])

    def _file_to_resume(self) -> checkpoints.Found | None:
        folder, given = Path(self.work_dir), Path(self._load_from) if self._load_from is not None else None
        if given is not None and _lies_in(given, folder):
            return checkpoints.Found(given, checkpoints.read_checkpoint(given), [])
        found = checkpoints.newest_checkpoint(folder)
        if found is None and given is not None and checkpoints.is_training_checkpoint(given):
            return checkpoints.Found(given, checkpoints.read_checkpoint(given), [])
        return found

    def resume(self, filename: str, **_: Any) -> None:
        """Go on from a training checkpoint; every part of it must fit.

        Raises:
            CheckpointError: if it cannot be read, holds weights only, or belongs to another model.
        """
        path = Path(filename)
        self._restore(checkpoints.Found(path, checkpoints.read_checkpoint(path), []))

    def _restore(self, found: checkpoints.Found) -> None:
        path, content, _ = found
        ours = content["limbeck"]
        if ours["kind"] != "training":
            raise CheckpointError(
                f"{path} holds weights only and no state of a run: resume from a step_<n>.pth, or start from its "
                "weights with load_from and without resume"
            )
        self.call_hook("after_load_checkpoint", checkpoint=content)
        rank, world_size = get_dist_info()
        mine = ours["ranks"][rank] if rank < len(ours["ranks"]) else None
        shared: dict[str, Any] = {"buffers": {}, "model": ours["model"], "hooks": ours["hooks"]}
        changes = {tuple(where): value for where, value in (mine["differs"] if mine else [])}
        if any(where[:1] == ("buffers",) for where in changes) or () in changes:
            shared["buffers"] = dict.fromkeys(name for name, _ in unwrap(self.model).named_buffers())
        shared = replaced(shared, changes)
        self._fill_model(path, content, shared["buffers"])
        model: Any = unwrap(self.model)
        if isinstance(model, Stateful):
            model.load_state_dict_extra(shared["model"])
        for name, hook in self._stateful_hooks().items():
            if name in shared["hooks"]:
                hook.load_state_dict_extra(shared["hooks"][name])
            else:
                self.logger.warning(f"the checkpoint knows nothing of {name}, which starts anew")
        self._seed = content["meta"]["seed"]
        self.train_loop.reseed(self._seed)
        restore_messages(self.message_hub, content["message_hub"])
        self.optim_wrapper.load_state_dict(content["optimizer"])
        self._restore_schedulers(path, content["param_schedulers"])
        sentence = self.train_loop.load_state_dict(ours["loop"])
        if sentence is None and len(ours["ranks"]) != world_size:
            sentence = (
                f"the run had {len(ours['ranks'])} processes and now has {world_size}: it does not go on bit for bit"
            )
        if sentence is not None:
            self.logger.warning(sentence)
        elif ours["threads"] != torch.get_num_threads():
            self.logger.warning(
                f"the run used {ours['threads']} threads and now uses {torch.get_num_threads()}: on the CPU it goes on "
                "bit for bit only with as many"
            )
        exact = sentence is None and mine is not None
        self.train_loop.resume_with(mine["generators"] if mine else None, mine["gradients"] if exact and mine else {})
        self._has_loaded = True
        self.logger.info(f"resumed from {path}: epoch {self.epoch}, step {self.iter}")

    def _fill_model(self, path: Path, content: Mapping[str, Any], buffers: Mapping[str, Any]) -> None:
        model: Any = unwrap(self.model)
        state = checkpoints.join_state(model, content["state_dict"], content["limbeck"]["matches"])
        state |= {name: value for name, value in buffers.items() if value is not None and name in state}
        checkpoints.load_exactly(model, state, str(path))

    def _restore_schedulers(self, path: Path, states: Mapping[str, Any]) -> None:
        schedulers = self._schedulers()
        shape = {name: len(group) for name, group in schedulers.items()}
        if shape != {name: len(group) for name, group in states.items()}:
            raise CheckpointError(
                f"{path} holds the state of {sum(map(len, states.values()))} parameter schedulers, the config has "
                f"{sum(shape.values())}: resume with the config that wrote it, or start anew from its weights with "
                "load_from"
            )
        for name, group in schedulers.items():
            for scheduler, state in zip(group, states[name], strict=True):
                scheduler.load_state_dict(state)

    def load_checkpoint(self, filename: str, *, remembered: bool = False, **_: Any) -> Any:
        """Load the student's weights from a file and report what matched.

        Args:
            filename: A checkpoint, or any file of weights.
            remembered: Take moving averages and stateful teachers from it too, where it has them, as testing needs.

        Returns:
            The report.

        Raises:
            CheckpointError: if it cannot be read, or does not fill the student (``partial = True`` in the config
                accepts gaps).
        """
        path = Path(filename)
        report = checkpoints.load_student(self.model, path, partial=bool(self.cfg.get("partial", False)))
        self._has_loaded = True
        self.logger.info(f"loaded {report}")
        content = read_file(path)
        ours = content.get("limbeck", {}) if isinstance(content, Mapping) else {}
        model: Any = unwrap(self.model)
        if remembered:
            if ours.get("model") and isinstance(model, Stateful):
                model.load_state_dict_extra(ours["model"])
            for name, hook in self._stateful_hooks().items():
                if name in ours.get("hooks", {}):
                    hook.load_state_dict_extra(ours["hooks"][name])
            return report
        # a moving-average teacher was copied from the student before these weights came
        for teacher in updatable_teachers(model).values():
            if hasattr(teacher, "follows"):
                source = checkpoints.student_of(model).get_submodule(teacher.follows)
                teacher.model.load_state_dict(source.state_dict())
        return report


def _lies_in(path: Path, folder: Path) -> bool:
    return path.resolve().parent == folder.resolve()


def _has_accelerator() -> bool:
    return bool(torch.cuda.is_available())


def _environment(env_cfg: Mapping[str, Any] | None) -> dict[str, Any]:
    chosen = copy.deepcopy(dict(env_cfg or {}))
    backend = "nccl" if _has_accelerator() else "gloo"
    chosen["dist_cfg"] = {**dict(chosen.get("dist_cfg") or {}), **({} if _has_accelerator() else {"backend": backend})}
    chosen["dist_cfg"].setdefault("backend", backend)
    return chosen


def _experiment_name(kwargs: Mapping[str, Any]) -> str:
    config = kwargs.get("cfg")
    filename = getattr(config, "filename", None)
    base = kwargs.get("experiment_name") or (Path(filename).stem if filename else "run")
    number = next(_names)
    return f"{base}_{number}" if number else str(base)
