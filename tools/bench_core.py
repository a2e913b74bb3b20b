"""Measure limbeck's core against plain PyTorch: a training step, every loss, and what importing costs.

    python tools/bench_core.py                          # everything; about ten minutes on one core
    python tools/bench_core.py --quick                  # the same on tiny inputs, in seconds: that it runs
    python tools/bench_core.py --only losses --losses DISTLoss,FSPLoss --pairs 60
    python tools/bench_core.py --json ratios.json

Everything is a ratio, limbeck's time over that of the code it stands for, which is written out below: a loop by hand,
and each loss as its formula says. Both run in one process, on one thread, in interleaved pairs whose order alternates;
what counts is processor time, so other work on the machine disturbs little. Printed are the median of the pairs' ratios
and its 95 % bootstrap interval. Identical code gives ratios within a few per cent of 1, so only an interval above 1
says "slower". Each pair of losses is also held to the same value, so that both do compute the same thing.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from limbeck_core import Distiller, Match, functional, losses
from limbeck_core.engine import Runner, StepLoop
from limbeck_vision.models import resnet8, resnet14, resnet20, resnet56

BAR_STEP = 1.02  # DESIGN: a step of the engine over one by hand
BAR_IMPORT_MS = 50.0  # DESIGN: importing the losses, over importing torch
RESAMPLES = 2000


# ---------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Ratio:
    """One comparison.

    Args:
        group: ``"step"``, ``"loss"`` or ``"import"``.
        name: What was measured.
        ratio: Median of limbeck's time over the other's.
        low: Lower end of the 95 % interval of that median.
        high: Upper end.
        pairs: Number of pairs.
        note: Anything else worth saying.
    """

    group: str
    name: str
    ratio: float
    low: float
    high: float
    pairs: int
    note: str = ""


def summary(group: str, name: str, ratios: Sequence[float], note: str = "") -> Ratio:
    """Median and bootstrap interval of the ratios of pairs."""
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    low, high = medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES) - 1]
    return Ratio(group, name, statistics.median(ratios), low, high, len(ratios), note)


def processor_time(run: Callable[[], object], repeats: int) -> float:
    """Seconds of processor time that some calls take."""
    start = time.process_time()
    for _ in range(repeats):
        run()
    return time.process_time() - start


def interleaved(ours: Callable[[], object], plain: Callable[[], object], pairs: int, shortest: float) -> list[float]:
    """Ratios of interleaved pairs; each timing repeats its call until it lasts ``shortest`` seconds or longer."""
    for run in (ours, plain, ours, plain):  # the first calls pay for what later ones find prepared
        run()
    once = min(processor_time(ours, 1), processor_time(plain, 1))
    repeats = max(1, math.ceil(shortest / max(once, 1e-6)))
    ratios = []
    for number in range(pairs):
        if number % 2:
            first = processor_time(ours, repeats)
            ratios.append(first / processor_time(plain, repeats))
        else:
            second = processor_time(plain, repeats)
            ratios.append(processor_time(ours, repeats) / second)
    return ratios


def keep_freed_memory() -> None:
    """Tell glibc not to give freed memory back to the system.

    Left alone it does so at moments that depend on the order in which gradients and activations are freed, and fetching
    it again (page faults) costs one side of a pair up to 4 % of a step: the same loop by hand with ``zero_grad`` after
    the step instead of before it was that much slower, and exactly as fast with this.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library
        return
    trim_threshold, mmap_max = -1, -4  # numbers of malloc.h
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_max, 0)


# ---------------------------------------------------------------------- a training step


class Images(Dataset[Any]):
    """Random images and labels, held in memory."""

    def __init__(self, count: int, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(count, 3, size, size, generator=generator)
        self.targets = torch.randint(100, (count,), generator=generator)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"inputs": self.inputs[index], "targets": self.targets[index]}


@dataclass
class HandWritten:
    """The loop that a distillation paper's code has: what every other loop is measured against."""

    student: nn.Module
    teacher: nn.Module
    batches: Iterable[Any]
    temperature: float = 4.0
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.SGD(self.student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        self.teacher.eval()
        self.student.train()
        self._iterator = iter(self.batches)

    def step(self) -> Tensor:
        """Train on the next batch; return the loss."""
        batch = self._next()
        logits = self.student(batch["inputs"])
        with torch.no_grad():
            teacher_logits = self.teacher(batch["inputs"])
        loss = F.cross_entropy(logits, batch["targets"]) + 0.9 * _plain_kd(logits, teacher_logits, self.temperature)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _next(self) -> Mapping[str, Tensor]:
        batch = next(self._iterator, None)
        if batch is None:
            self._iterator = iter(self.batches)
            batch = next(self._iterator)
        return batch


class InDistiller(HandWritten):
    """The same loop around a distiller."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.distiller = make_distiller(self.student, self.teacher).train()

    def step(self) -> Tensor:
        """Train on the next batch; return the loss."""
        loss = sum(self.distiller(self._next()).values(), start=torch.zeros(()))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def make_distiller(student: nn.Module, teacher: nn.Module) -> Distiller:
    """Hinton's distillation of two classifiers."""
    kd = Match(losses.KLDivergenceLoss(temperature=4.0), "fc", "fc", weight=0.9)
    return Distiller(student, teacher, {"kd": kd}, task_loss=nn.CrossEntropyLoss())


class BetweenSteps(Hook):
    """Between two steps of the engine, time one by hand; the engine's own time runs from mark to mark.

    So the engine's side holds all it does a step: loading, hooks, logging, the step itself.
    """

    def __init__(self, hand: HandWritten, warm_up: int) -> None:
        self.hand = hand
        self.warm_up = warm_up
        self.ratios: list[float] = []
        self._mark: float | None = None

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Time a step by hand, after noting how long the engine's took."""
        now = time.process_time()
        by_hand = processor_time(self.hand.step, 1)
        if self._mark is not None and runner.train_loop.iter >= self.warm_up:
            self.ratios.append((now - self._mark) / by_hand)
        self._mark = time.process_time()


def bench_steps(pairs: int, quick: bool) -> list[Ratio]:
    """Compare steps: the distiller in a loop, and the engine."""
    size, batch = (16, 8) if quick else (32, 64)
    make_student, make_teacher = (resnet8, resnet14) if quick else (resnet20, resnet56)
    title = "resnet8 <- resnet14, 16x16, batch 8" if quick else "resnet20 <- resnet56, 32x32, batch 64"
    data = Images(4 * batch, size)

    def models() -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(0)
        return make_student(num_classes=100), make_teacher(num_classes=100)

    in_memory = list(DataLoader(data, batch_size=batch))
    hand, ours = HandWritten(*models(), in_memory), InDistiller(*models(), in_memory)
    first, second = hand.step(), ours.step()
    if not torch.allclose(first, second, rtol=1e-4):
        raise RuntimeError(f"the loops differ in their first loss, {first} by hand and {second} with the distiller")
    ratios = interleaved(ours.step, hand.step, pairs, 0.0)
    rows = [summary("step", f"Distiller in a loop by hand ({title})", ratios)]

    student, teacher = models()
    between = BetweenSteps(HandWritten(*models(), DataLoader(data, batch_size=batch, shuffle=True)), warm_up=3)
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(
            make_distiller(student, teacher),
            folder,
            train_dataloader={"dataset": data, "batch_size": batch},
            train_cfg={"type": StepLoop, "max_steps": pairs + 3},
            optim_wrapper={"optimizer": {"type": torch.optim.SGD, "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}},
            default_hooks={"progress_bar": None, "logger": {"interval": 10}, "checkpoint": {"every_epochs": None}},
            custom_hooks=[between],
            log_level="ERROR",
        )
        runner.train()
    rows.append(summary("step", f"engine, loading and hooks included ({title})", between.ratios))
    return rows


# ---------------------------------------------------------------------- losses: plain formulas


def _plain_kd(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    soft = F.kl_div(F.log_softmax(student / temperature, 1), F.softmax(teacher / temperature, 1), reduction="batchmean")
    return soft * temperature**2


def _plain_soft_cross_entropy(student: Tensor, probabilities: Tensor) -> Tensor:
    return -(probabilities * F.log_softmax(student, 1)).sum(1).mean()


def _plain_dkd(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    hot = F.one_hot(target, student.shape[1]).bool()

    def split(probabilities: Tensor) -> Tensor:
        return torch.stack([(probabilities * hot).sum(1), (probabilities * ~hot).sum(1)], 1)

    binary = F.kl_div(split(F.softmax(student / 4, 1)).log(), split(F.softmax(teacher / 4, 1)), reduction="batchmean")
    log_rest = F.log_softmax(student / 4 - 1000.0 * hot, 1)
    rest = F.kl_div(log_rest, F.softmax(teacher / 4 - 1000.0 * hot, 1), reduction="batchmean")
    return 16 * (binary + 8 * rest)


def _plain_nkd(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    index = target.unsqueeze(1)
    own = -(F.softmax(teacher, 1).gather(1, index) * F.log_softmax(student, 1).gather(1, index)).mean()
    rest = torch.ones_like(student).scatter(1, index, 0).bool()
    student, teacher = (logits[rest].reshape(len(logits), -1) for logits in (student, teacher))
    return own - 1.5 * (F.softmax(teacher, 1) * F.log_softmax(student, 1)).sum(1).mean()


def _plain_uskd(head: nn.Linear, logits: Tensor, features: Tensor, target: Tensor) -> Tensor:
    index, weak = target.unsqueeze(1), head(features)
    probabilities, log_probabilities = F.softmax(logits, 1), F.log_softmax(logits, 1)
    squared = probabilities.gather(1, index).detach().square()
    own = -((squared + 1 - squared.mean(0)) * log_probabilities.gather(1, index)).mean()

    rest = torch.ones_like(logits).scatter(1, index, 0)
    scores = torch.zeros_like(logits)
    for p in (probabilities.detach(), F.softmax(weak.detach(), 1)):
        scores = scores + p * rest / (1 - p.gather(1, index))
    ranks = scores.argsort(1, descending=True).argsort(1)
    soft = rest / (ranks + 1)
    soft = soft / soft.sum(1, keepdim=True)
    log_rest = F.log_softmax(logits - 1000.0 * (1 - rest), 1)
    other = -(soft * log_rest).sum(1).mean()
    return own + 0.1 * other + 0.005 * F.cross_entropy(weak, target, label_smoothing=0.1)


def _plain_wsld(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    with torch.no_grad():
        hard = [F.cross_entropy(logits, target, reduction="none") for logits in (student, teacher)]
        focal = 1 - torch.exp(-hard[0] / (hard[1] + 1e-7))
    soft = -(F.softmax(teacher / 2, 1) * F.log_softmax(student / 2, 1)).sum(1)
    return 4 * (focal * soft).mean()


def _plain_dist(student: Tensor, teacher: Tensor) -> Tensor:
    def correlation(a: Tensor, b: Tensor) -> Tensor:
        return F.cosine_similarity(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True), dim=1).mean()

    student, teacher = F.softmax(student, 1), F.softmax(teacher, 1)
    return 2 - correlation(student, teacher) - correlation(student.T, teacher.T)


def _plain_jsd(student: Tensor, teacher: Tensor) -> Tensor:
    log_student, log_teacher = F.log_softmax(student, -1), F.log_softmax(teacher, -1)
    log_mixture = torch.logsumexp(torch.stack([log_student, log_teacher]), 0) - math.log(2)
    kl = [F.kl_div(log_mixture, log_p, log_target=True, reduction="none") for log_p in (log_student, log_teacher)]
    return (0.5 * kl[0] + 0.5 * kl[1]).sum(-1).mean()


def _plain_attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    student, teacher = (F.normalize(f.pow(2).mean(1).flatten(1)) for f in (student, teacher))
    return (student - teacher).pow(2).mean()


def _plain_nst(student: Tensor, teacher: Tensor) -> Tensor:
    student, teacher = (F.normalize(f.flatten(2), dim=2) for f in (student, teacher))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.mT).pow(2).mean()

    return kernel(teacher, teacher) + kernel(student, student) - 2 * kernel(student, teacher)


def _plain_factor_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    student, teacher = (F.normalize(f.pow(2).mean(1).flatten(1)) for f in (student, teacher))
    return (student - teacher).abs().mean()


def _plain_fsp(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    def flow(first: Tensor, second: Tensor) -> Tensor:
        first = F.adaptive_avg_pool2d(first, second.shape[2:]).flatten(2)
        return first @ second.flatten(2).mT / first.shape[2]

    return (flow(*student) - flow(*teacher)).pow(2).mean()


def _plain_activation_boundary(student: Tensor, teacher: Tensor) -> Tensor:
    below = (student + 1).pow(2) * ((student > -1) & (teacher <= 0)).float()
    above = (student - 1).pow(2) * ((student <= 1) & (teacher > 0)).float()
    return (below + above).sum() / len(student)


def _plain_vid(regressor: nn.Module, raw_variance: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
    variance = (torch.log(1 + torch.exp(raw_variance)) + 1e-5).view(1, -1, 1, 1)
    return (0.5 * ((regressor(student) - teacher) ** 2 / variance + torch.log(variance))).mean()


def _plain_pooled(student: Tensor, teacher: Tensor) -> Tensor:
    return F.mse_loss(F.adaptive_avg_pool2d(student, 1), F.adaptive_avg_pool2d(teacher, 1))


def _plain_srrl(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    student, teacher = (F.adaptive_avg_pool2d(f, 1).flatten(1) for f in (student, teacher))
    return F.mse_loss(student, teacher) + F.mse_loss(F.linear(student, weight), F.linear(teacher, weight))


def _plain_mgd(generation: nn.Module, student: Tensor, teacher: Tensor, noise: Tensor) -> Tensor:
    mask = torch.where(noise < 0.15, 0.0, 1.0)
    return F.mse_loss(generation(student * mask), teacher, reduction="sum") / len(student)


def _plain_cwd(student: Tensor, teacher: Tensor) -> Tensor:
    student, teacher = student.flatten(2), teacher.flatten(2)
    divergence = F.kl_div(F.log_softmax(student, 2), F.softmax(teacher, 2), reduction="sum")
    return divergence / (student.shape[0] * student.shape[1])


def _plain_pkd(student: Tensor, teacher: Tensor) -> Tensor:
    def standardise(f: Tensor) -> Tensor:
        flat = f.transpose(0, 1).flatten(1)
        flat = (flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True) + 1e-6)
        return flat.reshape(f.shape[1], f.shape[0], *f.shape[2:]).transpose(0, 1)

    return F.mse_loss(standardise(student), standardise(teacher)) / 2


def _plain_hcl(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    total = torch.zeros(())
    for s, t in zip(student, teacher, strict=True):
        loss, weight, weights = F.mse_loss(s, t), 1.0, 1.0
        for level in (4, 2, 1):
            if level < s.shape[2]:
                weight /= 2
                loss = loss + weight * F.mse_loss(F.adaptive_avg_pool2d(s, level), F.adaptive_avg_pool2d(t, level))
                weights += weight
        total = total + loss / weights
    return total


def _plain_partial_l2(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    goal = torch.max(teacher, margin.view(1, -1, 1, 1))
    counts = (student > goal) | (goal > 0)
    return (F.mse_loss(student, goal, reduction="none") * counts.float()).sum() / len(student)


def _plain_ofd(student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    deviation = weight.abs()
    normal = torch.distributions.Normal(0.0, 1.0)
    share = normal.cdf(-bias / deviation)
    expected = bias - deviation * torch.exp(-((bias / deviation) ** 2) / 2) / math.sqrt(2 * math.pi) / share
    return _plain_partial_l2(student, teacher, torch.where(share > 1e-3, expected, -3 * deviation))


def _plain_hidden_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    squares = F.mse_loss(student, teacher, reduction="none") * mask.unsqueeze(-1)
    return squares.sum() / mask.sum() / student.shape[-1]


def _plain_hidden_cosine(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    kept = mask.bool()
    return (1 - F.cosine_similarity(student[kept], teacher[kept], dim=-1)).mean()


def _plain_first_token(student: Tensor, teacher: Tensor) -> Tensor:
    student, teacher = (F.normalize(h[:, 0], dim=-1) for h in (student, teacher))
    return (student - teacher).pow(2).sum(-1).mean()


def _plain_rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    def distances(e: Tensor) -> Tensor:
        squares = e.pow(2).sum(1)
        squared = (squares.unsqueeze(0) + squares.unsqueeze(1) - 2 * e @ e.T).clamp(min=1e-12)
        found = squared.sqrt() * (1 - torch.eye(len(e)))
        return found / found[found > 0].mean()

    with torch.no_grad():
        goal = distances(teacher)
    return F.smooth_l1_loss(distances(student), goal)


def _plain_rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    def angles(e: Tensor) -> Tensor:
        unit = F.normalize(e.unsqueeze(0) - e.unsqueeze(1), dim=2)
        return torch.bmm(unit, unit.transpose(1, 2)).flatten()

    with torch.no_grad():
        goal = angles(teacher)
    return F.smooth_l1_loss(angles(student), goal)


def _plain_rkd(student: Tensor, teacher: Tensor) -> Tensor:
    return 25 * _plain_rkd_distance(student, teacher) + 50 * _plain_rkd_angle(student, teacher)


def _plain_sp(student: Tensor, teacher: Tensor) -> Tensor:
    student, teacher = (F.normalize(f.flatten(1) @ f.flatten(1).T) for f in (student, teacher))
    return (teacher - student).pow(2).sum() / len(student) ** 2


def _plain_pkt(student: Tensor, teacher: Tensor) -> Tensor:
    def neighbours(e: Tensor) -> Tensor:
        e = F.normalize(e)
        similar = (e @ e.T + 1) / 2
        return similar / similar.sum(1, keepdim=True)

    student, teacher = neighbours(student), neighbours(teacher)
    return (teacher * torch.log((teacher + 1e-7) / (student + 1e-7))).mean()


def _plain_cc(student: Tensor, teacher: Tensor) -> Tensor:
    def kernel(e: Tensor) -> Tensor:
        products = e @ e.T
        terms = [(2 * 0.4) ** p / math.factorial(p) * products**p for p in range(3)]
        return math.exp(-2 * 0.4) * sum(terms[1:], start=terms[0])

    return torch.linalg.matrix_norm(kernel(student) - kernel(teacher)) / len(student) ** 2


def _plain_minilm(student: Tensor, teacher: Tensor, mask: Tensor, heads: int) -> Tensor:
    def scores(states: Tensor) -> Tensor:
        split = states.unflatten(-1, (heads, -1)).transpose(1, 2)
        found = split @ split.transpose(2, 3) / math.sqrt(split.shape[-1])
        return found.masked_fill(mask[:, None, None] == 0, torch.finfo(found.dtype).min)

    log_student, log_teacher = F.log_softmax(scores(student), -1), F.log_softmax(scores(teacher), -1)
    rows = F.kl_div(log_student, log_teacher, log_target=True, reduction="none").sum(-1) * mask.unsqueeze(1)
    return (rows.sum((1, 2)) / (heads * mask.sum(1))).mean()


def _plain_attention_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    pairs = (mask.unsqueeze(2) * mask.unsqueeze(1)).unsqueeze(1)
    return (F.mse_loss(student, teacher, reduction="none") * pairs).sum() / pairs.sum() / student.shape[1]


def _plain_attention_cross_entropy(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    hidden = (mask == 0)[:, None, None]
    student, teacher = (scores.masked_fill(hidden, torch.finfo(scores.dtype).min) for scores in (student, teacher))
    rows = -(F.softmax(teacher, -1) * F.log_softmax(student, -1)).sum(-1) * mask.unsqueeze(1)
    return rows.sum() / mask.sum() / student.shape[1]


def _plain_normalized_mse(student: Tensor, teacher: Tensor) -> Tensor:
    return (2 - 2 * (F.normalize(student, dim=-1) * F.normalize(teacher, dim=-1)).sum(-1)).mean()


def _plain_dino(student: Tensor, teacher: Tensor, center: Tensor) -> Tensor:
    assigned = F.softmax((teacher - center) / 0.04, 1).chunk(2)
    views = (student / 0.1).chunk(2)
    pairs = [
        -(p * F.log_softmax(view, 1)).sum(1).mean()
        for number, p in enumerate(assigned)
        for other, view in enumerate(views)
        if number != other
    ]
    return sum(pairs[1:], start=pairs[0]) / len(pairs)


def _plain_crd(
    student: Tensor, teacher: Tensor, student_memory: Tensor, teacher_memory: Tensor, indices: Tensor, normalizer: float
) -> Tensor:
    noise = (indices.shape[1] - 1) / len(student_memory)

    def contrast(vectors: Tensor, memory: Tensor) -> Tensor:
        rows = memory[indices.flatten()].reshape(*indices.shape, -1)
        likely = torch.exp((rows @ F.normalize(vectors).unsqueeze(2)).squeeze(2) / 0.07) / normalizer
        positive = torch.log(likely[:, 0] / (likely[:, 0] + noise + 1e-7)).sum()
        negative = torch.log(noise / (likely[:, 1:] + noise + 1e-7)).sum()
        return -(positive + negative) / len(vectors)

    return contrast(student, teacher_memory) + contrast(teacher, student_memory)


# ---------------------------------------------------------------------- losses: cases


@dataclass(frozen=True)
class Case:
    """A loss, the plain formula it stands for, and what both are called with.

    Args:
        module: Our loss; of one that remembers, in evaluation mode or as a function, so that calls can be repeated.
        plain: The formula, called with the same values in the same order.
        inputs: Arguments by name; those of the student get gradients.
        note: What to print beside the ratio.
    """

    module: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    inputs: Mapping[str, Any]
    note: str = ""


class Shapes:
    """Inputs of the usual shapes; small ones with ``quick``."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.classes = 20 if quick else 100
        self.batch = 8 if quick else 64
        self.channels = 8 if quick else 256
        self.width = 16 if quick else 128

    def logits(self) -> tuple[Tensor, Tensor]:
        """Class scores of student and teacher."""
        return self.normal(self.batch, self.classes), self.normal(self.batch, self.classes)

    def maps(self, channels: int | None = None, size: int = 14, batch: int | None = None) -> tuple[Tensor, Tensor]:
        """Feature maps of student and teacher."""
        channels, size = (8, size // 2 + 1) if self.quick else (channels or self.channels, size)
        shape = (self.batch if batch is None or self.quick else batch, channels, size, size)
        return self.normal(*shape), self.normal(*shape)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Vectors of student and teacher."""
        return self.normal(self.batch, self.width), self.normal(self.batch, self.width)

    def tokens(self, width: int = 768) -> tuple[Tensor, Tensor]:
        """Hidden states of student and teacher."""
        shape = (2, 16, 24) if self.quick else (8, 128, width)
        return self.normal(*shape), self.normal(*shape)

    def attention(self) -> tuple[Tensor, Tensor]:
        """Attention scores of student and teacher."""
        shape = (2, 2, 16, 16) if self.quick else (8, 12, 128, 128)
        return self.normal(*shape), self.normal(*shape)

    def mask(self) -> Tensor:
        """An attention mask: sequences of three quarters of the length on average."""
        sequences, length = (2, 16) if self.quick else (8, 128)
        lengths = torch.linspace(length // 2, length, sequences).long()
        return (torch.arange(length) < lengths.unsqueeze(1)).long()

    def target(self) -> Tensor:
        """Labels."""
        return torch.randint(self.classes, (self.batch,))

    @staticmethod
    def normal(*shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(*shape)


def _named(names: str, *values: Any) -> dict[str, Any]:
    return dict(zip(names.split(), values, strict=True))


def _on_logits(module: nn.Module, plain: Callable[..., Tensor], s: Shapes, *, target: bool = False) -> Case:
    if target:
        return Case(module, plain, _named("student_logits teacher_logits target", *s.logits(), s.target()))
    return Case(module, plain, _named("student_logits teacher_logits", *s.logits()))


def _on_maps(module: nn.Module, plain: Callable[..., Tensor], s: Shapes, **options: Any) -> Case:
    return Case(module, plain, _named("student_features teacher_features", *s.maps(**options)))


def _on_embeddings(module: nn.Module, plain: Callable[..., Tensor], s: Shapes) -> Case:
    return Case(module, plain, _named("student_embeddings teacher_embeddings", *s.embeddings()))


def _on_tokens(module: nn.Module, plain: Callable[..., Tensor], s: Shapes) -> Case:
    return Case(module, plain, _named("student_features teacher_features mask", *s.tokens(), s.mask()))


def _on_attention(module: nn.Module, plain: Callable[..., Tensor], s: Shapes) -> Case:
    return Case(module, plain, _named("student_attention teacher_attention mask", *s.attention(), s.mask()))


def _soft_targets(s: Shapes) -> Case:
    student, teacher = s.logits()
    inputs = _named("student_logits teacher_probabilities", student, teacher.softmax(1))
    return Case(losses.SoftTargetCrossEntropyLoss(), _plain_soft_cross_entropy, inputs)


def _uskd(s: Shapes) -> Case:
    module = losses.CustomizedSoftLabelLoss(s.width, s.classes)
    inputs = _named("student_logits student_features target", s.logits()[0], s.embeddings()[0], s.target())
    return Case(module, lambda *values: _plain_uskd(module.weak_head, *values), inputs)


def _vocabulary(s: Shapes) -> tuple[Tensor, Tensor]:
    shape = (2, 8, 50) if s.quick else (4, 64, 1000)
    return s.normal(*shape), s.normal(*shape)


def _linear_jsd(s: Shapes) -> Case:
    tokens, width, size = (8, 16, 50) if s.quick else (256, 256, 8000)
    values = (s.normal(tokens, width), s.normal(tokens, width), s.normal(size, width) / 16, s.normal(size, width) / 16)

    def plain(student: Tensor, teacher: Tensor, student_weight: Tensor, teacher_weight: Tensor) -> Tensor:
        return _plain_jsd(F.linear(student, student_weight), F.linear(teacher, teacher_weight))

    inputs = _named("student_hidden teacher_hidden student_weight teacher_weight", *values)
    return Case(losses.LinearJSDLoss(), plain, inputs, note="made to save memory: tools/bench_large_vocabulary.py")


def _fsp(s: Shapes) -> Case:
    shallow, deep = s.maps(64), s.maps(128, size=7)
    inputs = _named("student_features teacher_features", [shallow[0], deep[0]], [shallow[1], deep[1]])
    return Case(losses.FSPLoss(), _plain_fsp, inputs)


def _hcl(s: Shapes) -> Case:
    student, teacher = s.maps()
    return Case(
        losses.HierarchicalContextLoss(), _plain_hcl, _named("student_features teacher_features", [student], [teacher])
    )


def _vid(s: Shapes) -> Case:
    student, teacher = s.maps()
    module = losses.VariationalInformationLoss(student.shape[1], teacher.shape[1])
    inputs = _named("student_features teacher_features", student, teacher)
    return Case(module, lambda *values: _plain_vid(module.regressor, module.raw_variance, *values), inputs)


def _mgd(s: Shapes) -> Case:
    student, teacher = s.maps(batch=8)
    module = losses.MaskedGenerativeLoss(student.shape[1])
    noise = torch.rand(*student.shape[:2], 1, 1)
    inputs = _named("student_features teacher_features noise", student, teacher, noise)
    return Case(module, lambda *values: _plain_mgd(module.generation, *values), inputs)


def _srrl(s: Shapes) -> Case:
    student, teacher = s.maps()
    weight = s.normal(s.classes, student.shape[1])
    return Case(
        losses.SoftmaxRegressionLoss(),
        _plain_srrl,
        _named("student_features teacher_features classifier_weight", student, teacher, weight),
    )


def _partial_l2(s: Shapes) -> Case:
    student, teacher = s.maps()
    margin = -torch.rand(student.shape[1])
    return Case(
        losses.PartialL2Loss(),
        _plain_partial_l2,
        _named("student_features teacher_features margin", student, teacher, margin),
    )


def _ofd(s: Shapes) -> Case:
    student, teacher = s.maps()
    weight, bias = torch.rand(student.shape[1]) + 0.5, s.normal(student.shape[1])
    inputs = _named("student_features teacher_features bn_weight bn_bias", student, teacher, weight, bias)
    return Case(losses.FeatureOverhaulLoss(), _plain_ofd, inputs)


def _first_token(s: Shapes) -> Case:
    return Case(losses.FirstTokenLoss(), _plain_first_token, _named("student_features teacher_features", *s.tokens()))


def _minilm(s: Shapes) -> Case:
    heads = 2 if s.quick else 12
    inputs = _named("student_states teacher_states mask", *s.tokens(384), s.mask())
    return Case(losses.SelfAttentionRelationLoss(heads), lambda *values: _plain_minilm(*values, heads=heads), inputs)


def _squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    return F.mse_loss(student, teacher, reduction="sum") / len(student)


def _plain_koleo(embeddings: Tensor) -> Tensor:
    x = F.normalize(embeddings)
    apart = torch.cdist(x, x).masked_fill(torch.eye(len(x), dtype=torch.bool), torch.inf)
    return -(apart.amin(1) + 1e-8).log().mean()


def _koleo(s: Shapes) -> Case:
    return Case(losses.KoLeoLoss(), _plain_koleo, _named("student_embeddings", s.embeddings()[0]))


def _dino(s: Shapes) -> Case:
    rows, prototypes = (8, 32) if s.quick else (128, 4096)
    module = losses.DINOLoss(prototypes).eval()
    module.center.copy_(s.normal(prototypes))
    inputs = _named("student_logits teacher_logits", s.normal(rows, prototypes), s.normal(rows, prototypes))
    return Case(module, lambda *values: _plain_dino(*values, center=module.center), inputs)


def _crd(s: Shapes) -> Case:
    samples, negatives = (40, 8) if s.quick else (5000, 1024)
    memories = [F.normalize(s.normal(samples, s.width)) for _ in range(2)]
    indices = torch.randint(samples, (s.batch, 1 + negatives))
    normalizer = float(samples)

    def ours(**inputs: Tensor) -> Tensor:
        return functional.contrastive_representation_loss(
            **inputs, student_normalizer=normalizer, teacher_normalizer=normalizer
        )

    names = "student_embeddings teacher_embeddings student_memory teacher_memory indices"
    inputs = _named(names, *s.embeddings(), *memories, indices)
    # both embeddings are trained; the memories are not, whatever their names begin with
    inputs["teacher_embeddings"].requires_grad_()
    note = "without the drawing of negatives and the memories' update"
    return Case(ours, lambda *values: _plain_crd(*values, normalizer=normalizer), inputs, note)


CASES: dict[str, Callable[[Shapes], Case]] = {
    "ActivationBoundaryLoss": lambda s: _on_maps(losses.ActivationBoundaryLoss(), _plain_activation_boundary, s),
    "AngleRelationLoss": lambda s: _on_embeddings(losses.AngleRelationLoss(), _plain_rkd_angle, s),
    "AttentionCrossEntropyLoss": lambda s: _on_attention(
        losses.AttentionCrossEntropyLoss(), _plain_attention_cross_entropy, s
    ),
    "AttentionMSELoss": lambda s: _on_attention(losses.AttentionMSELoss(), _plain_attention_mse, s),
    "AttentionTransferLoss": lambda s: _on_maps(losses.AttentionTransferLoss(), _plain_attention_transfer, s),
    "ChannelWiseDivergenceLoss": lambda s: _on_maps(losses.ChannelWiseDivergenceLoss(), _plain_cwd, s),
    "ContrastiveRepresentationLoss": _crd,
    "CorrelationCongruenceLoss": lambda s: _on_embeddings(losses.CorrelationCongruenceLoss(), _plain_cc, s),
    "CustomizedSoftLabelLoss": _uskd,
    "DINOLoss": _dino,
    "DISTLoss": lambda s: _on_logits(losses.DISTLoss(), _plain_dist, s),
    "DecoupledKDLoss": lambda s: _on_logits(losses.DecoupledKDLoss(), _plain_dkd, s, target=True),
    "DistanceRelationLoss": lambda s: _on_embeddings(losses.DistanceRelationLoss(), _plain_rkd_distance, s),
    "FSPLoss": _fsp,
    "FactorTransferLoss": lambda s: _on_maps(losses.FactorTransferLoss(), _plain_factor_transfer, s),
    "FeatureOverhaulLoss": _ofd,
    "FirstTokenLoss": _first_token,
    "GeneralizedJSDLoss": lambda s: Case(
        losses.GeneralizedJSDLoss(), _plain_jsd, _named("student_logits teacher_logits", *_vocabulary(s))
    ),
    "HiddenStateCosineLoss": lambda s: _on_tokens(losses.HiddenStateCosineLoss(), _plain_hidden_cosine, s),
    "HiddenStateMSELoss": lambda s: _on_tokens(losses.HiddenStateMSELoss(), _plain_hidden_mse, s),
    "HierarchicalContextLoss": _hcl,
    "HintLoss": lambda s: _on_maps(losses.HintLoss(), F.mse_loss, s),
    "KLDivergenceLoss": lambda s: _on_logits(
        losses.KLDivergenceLoss(4.0), lambda student, teacher: _plain_kd(student, teacher, 4.0), s
    ),
    "KoLeoLoss": _koleo,
    "LinearJSDLoss": _linear_jsd,
    "MaskedGenerativeLoss": _mgd,
    "NeuronSelectivityLoss": lambda s: _on_maps(losses.NeuronSelectivityLoss(), _plain_nst, s, channels=64),
    "NormalizedMSELoss": lambda s: _on_embeddings(losses.NormalizedMSELoss(), _plain_normalized_mse, s),
    "NormalizedKDLoss": lambda s: _on_logits(losses.NormalizedKDLoss(), _plain_nkd, s, target=True),
    "PartialL2Loss": _partial_l2,
    "PearsonFeatureLoss": lambda s: _on_maps(losses.PearsonFeatureLoss(), _plain_pkd, s),
    "PooledFeatureLoss": lambda s: _on_maps(losses.PooledFeatureLoss(), _plain_pooled, s),
    "ProbabilisticTransferLoss": lambda s: _on_embeddings(losses.ProbabilisticTransferLoss(), _plain_pkt, s),
    "RelationalLoss": lambda s: _on_embeddings(losses.RelationalLoss(), _plain_rkd, s),
    "SelfAttentionRelationLoss": _minilm,
    "SimilarityPreservingLoss": lambda s: _on_maps(losses.SimilarityPreservingLoss(), _plain_sp, s),
    "SoftTargetCrossEntropyLoss": _soft_targets,
    "SoftmaxRegressionLoss": _srrl,
    "SquaredDistanceLoss": lambda s: _on_maps(losses.SquaredDistanceLoss(), _squared_distance, s),
    "VariationalInformationLoss": _vid,
    "WeightedSoftLabelLoss": lambda s: _on_logits(losses.WeightedSoftLabelLoss(), _plain_wsld, s, target=True),
}


def without_case() -> list[str]:
    """Losses that nobody has written a plain formula for yet."""
    return [name for name in losses.__all__ if name not in CASES]


def bench_loss(name: str, pairs: int, quick: bool) -> Ratio:
    """Compare forward and backward of a loss with its plain formula's."""
    torch.manual_seed(0)
    case = CASES[name](Shapes(quick))
    of_student = [value for key, value in case.inputs.items() if key.startswith("student") and "memory" not in key]
    for value in of_student:
        for tensor in value if isinstance(value, list) else [value]:
            tensor.requires_grad_()
    tensors = [tensor for value in case.inputs.values() for tensor in (value if isinstance(value, list) else [value])]
    leaves = [tensor for tensor in tensors if tensor.requires_grad]
    if isinstance(case.module, nn.Module):
        leaves += case.module.parameters()
    positional = list(case.inputs.values())

    def step(loss: Callable[[], Tensor]) -> Tensor:
        for leaf in leaves:
            leaf.grad = None
        value = loss()
        value.backward()
        return value.detach()

    def ours() -> Tensor:
        return step(lambda: case.module(**case.inputs))

    def plain() -> Tensor:
        return step(lambda: case.plain(*positional))

    first, second = ours(), plain()
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-6):
        raise RuntimeError(f"{name} and its plain formula differ: {float(first)} and {float(second)}")
    ratios = interleaved(ours, plain, pairs, 0.0 if quick else 0.01)
    return summary("loss", name, ratios, case.note)


# ---------------------------------------------------------------------- imports

IMPORT = """
import sys, time
start = time.process_time()
import torch
between = time.process_time()
import {module}
end = time.process_time()
heavy = [name for name in ("mmengine", "cv2", "matplotlib", "torchvision") if name in sys.modules]
print(between - start, end - between, *heavy)
"""


def bench_imports(pairs: int) -> list[Ratio]:
    """Measure what our imports cost after torch's, each in a new process."""
    rows = []
    for module in ("limbeck_core", "limbeck_core.functional", "limbeck_core.losses"):
        ratios, added, heavy = [], [], set()
        for _ in range(pairs):
            command = [sys.executable, "-c", IMPORT.format(module=module)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            of_torch, of_ours = float(output[0]), float(output[1])
            ratios.append((of_torch + of_ours) / of_torch)
            added.append(1000 * of_ours)
            heavy |= set(output[2:])
        loaded = f"loads {', '.join(sorted(heavy))}" if heavy else "loads nothing heavy"
        note = f"{statistics.median(added):.0f} ms over torch (bar {BAR_IMPORT_MS:.0f}); {loaded}"
        rows.append(summary("import", f"import {module} after torch, over torch alone", ratios, note))
    return rows


# ---------------------------------------------------------------------- command line


def verdict(row: Ratio, quick: bool) -> str:
    """What the interval says; on tiny inputs nothing, since there the checks of the inputs take most of the time."""
    bar = {"step": BAR_STEP, "loss": 1.0}.get(row.group)
    if bar is None or quick:
        return ""
    return "ok" if row.low <= bar else f"SLOWER than the bar {bar:g}"


def _show(row: Ratio, quick: bool) -> None:
    words = "  ".join(word for word in (verdict(row, quick), row.note) if word)
    print(f"{row.name:<66} {row.ratio:7.3f}  [{row.low:.3f}, {row.high:.3f}]  {row.pairs:3d}  {words}", flush=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny inputs and few pairs: only that it runs")
    parser.add_argument("--only", choices=("step", "losses", "imports"), help="one group instead of all")
    parser.add_argument("--losses", metavar="NAME,...", default="", help="these losses instead of all")
    parser.add_argument("--pairs", metavar="N", type=int, help="pairs a comparison (default: 30; 3 with --quick)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the ratios as JSON too")
    options = parser.parse_args(arguments)
    options.names = [name for name in options.losses.split(",") if name] or [n for n in losses.__all__ if n in CASES]
    unknown = [name for name in options.names if name not in CASES]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(CASES)}")
    options.pairs = options.pairs or (3 if options.quick else 30)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 if a loss has no plain formula to be measured against."""
    options = _parse(arguments)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.disable()  # a collection would fall on one side of a pair
    rows: list[Ratio] = []
    try:
        machine = f"{platform.machine()} CPU, 1 thread, torch {torch.__version__}"
        print(f"processor time of limbeck over plain PyTorch, forward and backward; {machine}")
        print(f"{'':<66} {'ratio':>7}  {'95 % interval':<14}  pairs")
        if options.only in (None, "step"):
            for row in bench_steps(options.pairs, options.quick):
                rows.append(row)
                _show(row, options.quick)
        if options.only in (None, "losses"):
            for name in options.names:
                gc.collect()
                rows.append(bench_loss(name, options.pairs, options.quick))
                _show(rows[-1], options.quick)
        if options.only in (None, "imports"):
            for row in bench_imports(1 if options.quick else 7):
                rows.append(row)
                _show(row, options.quick)
    finally:
        gc.enable()
        torch.set_num_threads(threads)
    missing = without_case() if options.only in (None, "losses") and not options.losses else []
    for name in missing:
        print(f"{name:<66} no plain formula: write one in CASES of tools/bench_core.py")
    if options.json:
        report = {
            "date": datetime.now(timezone.utc).date().isoformat(),
            "machine": machine,
            "quick": options.quick,
            "without_case": missing,
            "results": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if missing else 0


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
