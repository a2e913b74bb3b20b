"""A frozen teacher that tries for a few seconds how it runs fastest here, and keeps what changes nothing.

Half of a distillation step is often the teacher's forward, which needs no gradient and always takes the same kind of
input. What helps depends on the machine, the model and the size of the batch, so it is measured on the first batch.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as torch_dist
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from limbeck_core.build import build
from limbeck_core.checks import check_positive
from limbeck_core.errors import ConfigError, LimbeckError, closest
from limbeck_core.tap import Recorder, leaves, remove_taps, unwrap
from limbeck_core.teacher import FrozenTeacher, Teacher

if TYPE_CHECKING:
    from limbeck_core.calls import Call

SPEEDUPS = ("channels_last", "fold", "inference_mode", "compile", "bfloat16", "float16")
_PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_LOW_PRECISION = 1e-3  # no type of 8 or 11 significant bits is closer than this
_WORTHWHILE = 1.02  # a smaller gain is noise
_PAIRS = (3, 25)  # fewest and most pairs of forwards that a trial takes
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Trial(NamedTuple):
    """What came of one speed-up.

    Args:
        name: One of :data:`SPEEDUPS`.
        gain: Time of the forward before over the time with it, median of interleaved pairs; ``None`` if not timed.
        error: Largest difference of any tapped value, over the largest size of that value.
        kept: Whether it is used.
        reason: Why not, in words.
    """

    name: str
    gain: float | None
    error: float
    kept: bool
    reason: str = ""

    def __str__(self) -> str:
        """One line of a report."""
        gain = "not timed" if self.gain is None else f"{self.gain:.2f}x"
        verdict = "kept" if self.kept else f"left out: {self.reason}"
        return f"{self.name}: {gain}, off by {self.error:.1e}, {verdict}"


class FastTeacher(FrozenTeacher):
    """A frozen teacher that picks its own speed-ups on the first batch.

    Each is tried on top of those kept before, and kept if every tapped value stays within ``tolerance`` and the forward
    is faster by more than 2 % here:

    - ``channels_last``: weights in the layout that convolutions like best on many machines;
    - ``fold``: batch normalisation is folded into the convolution or linear layer before it, where nothing else reads
      what is between them;
    - ``inference_mode``: see :class:`~limbeck_core.teacher.FrozenTeacher`;
    - ``compile``: ``torch.compile``, which takes a minute or more and is tried only if it is named;
    - ``bfloat16``, ``float16``: autocast, tried only with a tolerance of 1e-3 or more.

    The choice is logged, written into the config that a run leaves, stored in checkpoints, so that a resumed run goes
    on bit for bit, and part of a bank's key. Where PyTorch may use deterministic algorithms only
    (``--deterministic``), nothing is tried, since timing is not deterministic.

    Args:
        model: The trained model, a config of one, or a frozen teacher such as
            :func:`~limbeck_core.teacher.pretrained` gives.
        speedups: What to try, in this order.
        choice: What to use, without trying; ``()`` for nothing.
        tolerance: Largest error of a tapped value, relative to the largest size in it.
        seconds: About how long the trials may take in all (compilation excluded).

    ``trials`` tells what came of each. While they last, the teacher's weights are in memory up to three times;
    afterwards those of folded layers stay twice, for the digest that a bank compares.

    Raises:
        ConfigError: for a speed-up that does not exist.
        ValueError: if ``tolerance`` or ``seconds`` is not above 0.
    """

    stateful = True

    def __init__(
        self,
        model: nn.Module | Mapping[str, Any],
        *,
        speedups: Sequence[str] = ("channels_last", "fold", "inference_mode", "bfloat16"),
        choice: Sequence[str] | None = None,
        tolerance: float = 1e-4,
        seconds: float = 5.0,
    ) -> None:
        check_positive(tolerance, "tolerance")
        check_positive(seconds, "seconds")
        for name in (*speedups, *(choice or ())):
            if name not in SPEEDUPS:
                raise ConfigError(f"FastTeacher knows no speed-up {name!r}: {closest(name, SPEEDUPS)}")
        built: nn.Module = build(model)
        inner = built.model if isinstance(built, Teacher) else built
        self.speedups, self.tolerance, self.seconds = tuple(speedups), tolerance, seconds
        self.choice: tuple[str, ...] | None = None if choice is None else tuple(choice)
        self.trials: list[Trial] = []
        self._applied: tuple[str, ...] = ()
        super().__init__(inner)
        # not a submodule: the tensors that both share would be listed twice
        self._plain = (inner,)

    @property
    def changes(self) -> bool:
        """Its state is only how it runs."""
        return False

    @property
    def original(self) -> nn.Module:
        """The model as it was given."""
        return self._plain[0]

    def choose(self, names: Sequence[str] | None) -> None:
        """Use these speed-ups from the next batch on, without trying; ``None`` lets the next batch decide anew."""
        self.choice = None if names is None else tuple(names)

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:  # type: ignore[override]
        """How it runs; the weights do not change and are in no checkpoint."""
        return {"choice": None if self.choice is None else list(self.choice)}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> None:
        """Run as the run before did."""
        self.choose(state_dict["choice"])

    def _apply(self, fn: Any, recurse: bool = True) -> FastTeacher:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._plain[0] is not self.model:
            self._plain[0]._apply(fn)  # type: ignore[no-untyped-call]
        return self

    @contextmanager
    def running(self) -> Iterator[None]:
        """Context in which the forward runs: no gradient, and autocast where low precision was chosen."""
        precision = next((_PRECISIONS[name] for name in self._applied if name in _PRECISIONS), None)
        with ExitStack() as stack:
            stack.enter_context(super().running())
            if precision is not None:
                device = next((p.device.type for p in self.model.parameters()), "cpu")
                stack.enter_context(torch.autocast(device, dtype=precision))
            yield

    def run(self, recorder: Recorder, call: Call, batch: Mapping[str, Any], view: str) -> None:
        """Let a recorder see what the teacher says, after choosing how to run on the first batch."""
        if not torch.compiler.is_compiling():
            if self.choice is None:
                self._decide(recorder, call, batch, view)
            elif self.choice != self._applied:
                pairs = self._foldable(recorder, call, batch, view) if "fold" in self.choice else []
                self._use(self._variant(self.choice, pairs, share=True), self.choice)
        super().run(recorder, call, batch, view)

    def explain(self) -> str:
        """What was tried and what came of it, a line each."""
        if not self.trials:
            return f"runs with {', '.join(self.choice) if self.choice else 'no speed-up'}, as told"
        return "\n".join(map(str, self.trials))

    # ------------------------------------------------------------------ trying

    def _decide(self, recorder: Recorder, call: Call, batch: Mapping[str, Any], view: str) -> None:
        self.trials = []
        kept: tuple[str, ...] = ()
        pairs: list[tuple[str, str]] = []
        if not torch.are_deterministic_algorithms_enabled():
            kept, pairs = self._tried(recorder, call, batch, view)
            if torch_dist.is_available() and torch_dist.is_initialized():
                agreed: list[Any] = [kept]
                torch_dist.broadcast_object_list(agreed, src=0)
                kept = agreed[0]
        self.choice = kept
        self._use(self._variant(kept, pairs, share=True), kept)

    def _tried(
        self, recorder: Recorder, call: Call, batch: Mapping[str, Any], view: str
    ) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
        kept: tuple[str, ...] = ()
        self._use(self.original, ())
        plain, pairs = self._values(recorder, call, batch, view), self._foldable(recorder, call, batch, view)
        current = self.original
        for name in self.speedups:
            if name in _PRECISIONS and (self.tolerance < _LOW_PRECISION or set(kept) & set(_PRECISIONS)):
                continue
            if name == "fold" and not pairs:
                continue
            wanted = (*kept, name)
            try:
                # a mode and autocast need no other model
                variant = current if name == "inference_mode" or name in _PRECISIONS else self._variant(wanted, pairs)
                self._use(variant, wanted)
                error = _deviation(plain, self._values(recorder, call, batch, view))
                if error <= self.tolerance:
                    gain = self._gain(recorder, call, batch, view, (current, kept), (variant, wanted))
            except LimbeckError as failure:
                self.trials.append(Trial(name, None, math.inf, False, f"a tap no longer finds its value ({failure})"))
                continue
            except Exception as failure:  # compilers and kernels fail in many ways; the plain model still runs
                self.trials.append(Trial(name, None, math.inf, False, f"{type(failure).__name__}: {failure}"[:200]))
                continue
            if error > self.tolerance:
                reason = f"more than the tolerance {self.tolerance:g}"
                self.trials.append(Trial(name, None, error, False, reason))
            elif gain <= _WORTHWHILE:
                self.trials.append(Trial(name, gain, error, False, "no faster here"))
            else:
                self.trials.append(Trial(name, gain, error, True))
                current, kept = variant, wanted
        return kept, pairs

    def _use(self, model: nn.Module, names: tuple[str, ...]) -> None:
        self.model, self._applied = model, names
        self.inference_mode = "inference_mode" in names
        self._checked_in_place = False
        self.set_modes()

    def _once(self, recorder: Recorder, call: Call, batch: Mapping[str, Any], view: str) -> None:
        try:
            super().run(recorder, call, batch, view)
        except BaseException:
            recorder.clear()
            raise

    def _values(self, recorder: Recorder, call: Call, batch: Mapping[str, Any], view: str) -> list[Tensor]:
        """Everything that the taps read of one forward, in double precision."""
        try:
            self._once(recorder, call, batch, view)
            found = [recorder.read(tap, self.model) for tap in recorder.taps]
            return [leaf.detach().double().clone() for value in found for leaf in leaves(value)]
        finally:
            recorder.clear()

    def _gain(
        self,
        recorder: Recorder,
        call: Call,
        batch: Mapping[str, Any],
        view: str,
        before: tuple[nn.Module, tuple[str, ...]],
        after: tuple[nn.Module, tuple[str, ...]],
    ) -> float:
        """Time of one way over that of the other, as the median of pairs that take turns."""
        device = next((p.device for p in before[0].parameters()), torch.device("cpu"))
        end = time.perf_counter() + self.seconds / max(1, len(self.speedups))
        ratios: list[float] = []
        while len(ratios) < _PAIRS[0] or (len(ratios) < _PAIRS[1] and time.perf_counter() < end):
            seconds = []
            for model, names in (before, after):
                self._use(model, names)
                for timed in (False, True):  # the first forward finds new memory and attaches the taps
                    _wait(device)
                    start = time.perf_counter()
                    self._once(recorder, call, batch, view)
                    _wait(device)
                    recorder.clear()
                    if timed:
                        seconds.append(time.perf_counter() - start)
            ratios.append(seconds[0] / seconds[1])
        return median(ratios)

    # ------------------------------------------------------------------ rewriting

    def _variant(self, names: tuple[str, ...], pairs: Sequence[tuple[str, str]], *, share: bool = False) -> nn.Module:
        """The model rewritten; ``share`` keeps every tensor that need not change in one place."""
        rewritten = {"channels_last", "fold", "compile"} & set(names)
        if not rewritten:
            return self.original
        tensors = [*self.original.parameters(), *self.original.buffers()] if share else []
        model = copy.deepcopy(self.original, {id(tensor): tensor for tensor in tensors})
        remove_taps(model)
        if "fold" in names:
            for layer, norm in pairs:
                _fold(model, layer, norm)
        if "channels_last" in names:
            model.to(memory_format=torch.channels_last)
        if "compile" in names:
            _compile(model)
        return model

    def _foldable(self, recorder: Recorder, call: Call, batch: Mapping[str, Any], view: str) -> list[tuple[str, str]]:
        """Pairs of a layer and the normalisation that alone takes its output, by name, that no tap looks between."""
        self._use(self.original, ())
        model = unwrap(self.original)
        layers = {m: name for name, m in model.named_modules() if type(m) in (*_CONVOLUTIONS, nn.Linear)}
        norms = {m: name for name, m in model.named_modules() if type(m) in _NORMS and m.running_mean is not None}
        watched = _Watch()
        handles = [module.register_forward_hook(watched) for module in (*layers, *norms)]
        try:
            self._once(recorder, call, batch, view)
        finally:
            recorder.clear()
            for handle in handles:
                handle.remove()
        found = []
        for norm, name in norms.items():
            calls = watched.calls.get(norm, [])
            source = watched.sources.get(id(calls[0][0])) if len(calls) == 1 else None
            if source is None or source not in layers or len(watched.calls[source]) != 1:
                continue
            between = {(layers[source], "output"), (name, "input")}
            inside = (f"{layers[source]}.", f"{name}.")  # a tapped parameter
            if not any((tap.path, tap.at) in between or tap.path.startswith(inside) for tap in recorder.taps):
                found.append((layers[source], name))
        return found


class _Watch:
    """A forward hook that notes who made and who took each tensor; it holds the tensors, so that none is confused."""

    def __init__(self) -> None:
        self.calls: dict[nn.Module, list[tuple[Any, Any]]] = {}
        self.sources: dict[int, nn.Module] = {}

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.calls.setdefault(module, []).append((args[0] if args else None, output))
        self.sources[id(output)] = module


def _fold(model: nn.Module, layer: str, norm: str) -> None:
    before, after = model.get_submodule(layer), model.get_submodule(norm)
    fuse: Any = fuse_linear_bn_eval if isinstance(before, nn.Linear) else fuse_conv_bn_eval
    folded = fuse(before, after)
    for name, replacement in ((layer, folded), (norm, nn.Identity())):
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, replacement)
        replacement.train(False)
    folded.requires_grad_(False)


def _compile(model: nn.Module) -> None:
    model.compile()


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _deviation(plain: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Largest difference of any tensor over its largest size; infinite where one is not finite or of another shape."""
    if [value.shape for value in plain] != [value.shape for value in other]:
        return math.inf
    worst = 0.0
    for mine, theirs in zip(plain, other, strict=True):
        if not mine.numel():
            continue
        difference = torch.where(mine == theirs, 0.0, (mine - theirs).abs()).max() / mine.abs().max().clamp(min=1e-30)
        worst = max(worst, float(difference)) if bool(torch.isfinite(difference)) else math.inf
    return worst


__all__ = ["SPEEDUPS", "FastTeacher", "Trial"]
