"""``hatch run quickstart-imu``: a wrist sensor learns from video without labels, on pairs that are rendered here.

The configs ``audiovideo/comodo/rendered*`` and the same functions as ``limbeck bank`` and ``limbeck train``. Encoders
are judged by a linear probe on a few labelled clips, asked about people nobody trained on, and by whether a window
finds its own video. BasicMotions of aeon, real data of a watch, is a second probe where aeon is installed.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_audiovideo.comodo import IMUConvNet
from limbeck_audiovideo.evaluation import macro_f1
from limbeck_audiovideo.imu import ClipPairs
from limbeck_audiovideo.rendered_pairs import ACTIVITIES, Part, render
from limbeck_core import Distiller
from limbeck_core.bank.command import bank_writer
from limbeck_core.engine.commands import train
from limbeck_core.engine.quickstart import command, text_table
from limbeck_core.probes import linear_probe, retrieval_recall
from limbeck_core.report import Report, paired_bootstrap, spread

RANDOM, SHUFFLED, COMODO, LABELS = "random initialisation", "shuffled pairs (control)", "COMODO", "labels from scratch"
TEACHER_CONFIG, CONFIG, LABELS_CONFIG = (
    f"audiovideo/comodo/rendered{ending}" for ending in ("_teacher", "", "_supervised")
)
SMOKE_PARTS = {
    "teacher": Part(2, 1, True),
    "pairs": Part(4, 1, False),
    "few": Part(2, 1, True),
    "test": Part(2, 1, True),
}
_DRAWS = 10  # of one labelled window a class of BasicMotions
_MEASURES = ("macro F1", "BasicMotions", "R@1", "R@5")
_COLUMNS = ("encoder", "macro F1 (%)", "BasicMotions (%)", "R@1 (%)", "R@5 (%)", "training (s)")


@dataclass
class Judged:
    """What was measured of one kind of training over its seeds."""

    measures: list[Mapping[str, float]] = field(default_factory=list)
    right: list[list[float]] = field(default_factory=list)  # 100 or 0 for each test clip, by seed
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Data:
    """Windows, videos and labels by which encoders are judged.

    Args:
        few: A few labelled clips.
        test: Clips of other people, with video.
        motions: Real windows and labels for training and for testing, where they are at hand.
    """

    few: ClipPairs
    test: ClipPairs
    motions: tuple[Tensor, Tensor, Tensor, Tensor] | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the quickstart.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    return command("quickstart-imu", (__doc__ or "").partition("\n")[0], run, arguments)


def run(options: argparse.Namespace) -> Path:
    """Render the pairs, train, measure, print the table and write the report.

    Args:
        options: ``out``, ``seeds`` and ``smoke``.

    Returns:
        The path of the page.
    """
    started = time.perf_counter()
    out: Path = options.out
    root = render(out / "pairs", parts=SMOKE_PARTS if options.smoke else None, seed=0)
    looks: dict[str, Any] = {"length": 200, "frames": 16, "size": (48, 48), "keep_video": True}
    data = Data(ClipPairs("few.csv", root=root, **looks), ClipPairs("test.csv", root=root, **looks), basic_motions())
    epochs = 1 if options.smoke else None
    _train(TEACHER_CONFIG, root, out / "teacher", 0, epochs, batch_size=12 if options.smoke else None)
    checkpoint = {"model.teacher.checkpoint": str(out / "teacher" / "student.pth")}
    banks = {RANDOM: out / "bank", COMODO: out / "bank", SHUFFLED: out / "bank_shuffled"}
    shuffled = {"+train_dataloader.dataset.shuffle_videos": 0}
    for kind in (COMODO, SHUFFLED):  # the teacher speaks once of every clip
        extra = shuffled if kind == SHUFFLED else {}
        bank_writer(CONFIG, folder=banks[kind], data_root=root, overrides={**checkpoint, **extra}).write()
    found = {kind: Judged() for kind in (RANDOM, SHUFFLED, COMODO, LABELS)}
    for seed in range(options.seeds):
        for kind, result in found.items():
            begun = time.perf_counter()
            settings: dict[str, Any] = {} if kind == LABELS else dict(checkpoint)
            settings |= shuffled if kind == SHUFFLED else {}
            settings |= {"optim_wrapper.optimizer.lr": 0.0} if kind == RANDOM else {}
            if options.smoke and kind != LABELS:
                settings["model.matches.comodo.loss.queue_size"] = 16
            runner = _train(
                LABELS_CONFIG if kind == LABELS else CONFIG,
                root,
                out / f"{kind.partition(' ')[0].lower()}-{seed}",
                seed,
                1 if kind == RANDOM else epochs,
                bank=banks.get(kind),
                settings=settings,
                batch_size=12 if options.smoke else None,
            )
            result.seconds.append(time.perf_counter() - begun)
            measures, right = _judge(runner.model, data)
            result.measures.append(measures)
            result.right.append(right)
            print(f"  {kind}, seed {seed}: macro F1 {measures['macro F1']:.1f} %", flush=True)
    return _report(found, out, options.seeds, time.perf_counter() - started)


def basic_motions() -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """BasicMotions (a watch worn while standing, walking, running and playing badminton), or ``None`` without aeon.

    Returns:
        Training windows ``(40, 6, 100)`` and labels, test windows and labels.
    """
    if find_spec("aeon") is None:
        return None
    from aeon.datasets import load_basic_motions  # noqa: PLC0415  an extra

    parts: list[Tensor] = []
    for split in ("train", "test"):
        windows, labels = load_basic_motions(split=split)
        names = sorted(set(labels))
        parts += [torch.tensor(windows, dtype=torch.float32), torch.tensor([names.index(label) for label in labels])]
    return parts[0], parts[1], parts[2], parts[3]


def _train(
    config: str,
    root: Path,
    folder: Path,
    seed: int,
    epochs: int | None,
    *,
    bank: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
) -> Any:
    overrides: dict[str, Any] = {
        "+log_level": "ERROR",  # the table says what matters
        "+default_hooks": {"checkpoint": {"every_epochs": None}, "logger": {"interval": 10}},
        **(settings or {}),
    }
    if config != TEACHER_CONFIG:  # judged here, by other measures
        overrides |= {"val_dataloader": None, "val_evaluator": None, "val_cfg": None}
    if epochs is not None:
        overrides |= {"train_cfg.max_epochs": epochs, "train_cfg.val_interval": epochs}
    if batch_size is not None:
        overrides["train_dataloader.batch_size"] = batch_size
    return train(config, work_dir=folder, seed=seed, data_root=root, bank=bank, overrides=overrides)


@torch.no_grad()
def _judge(distiller: Distiller, data: Data) -> tuple[dict[str, float], list[float]]:
    """Measures in per cent, and 100 or 0 for each test clip."""
    distiller.eval()
    student = distiller.student
    encoder: nn.Module = student if isinstance(student, IMUConvNet) else student.encoder  # type: ignore[assignment]
    few, test = encoder(data.few.windows), encoder(data.test.windows)
    targets = [torch.tensor([part[i]["targets"] for i in range(len(part))]) for part in (data.few, data.test)]
    if encoder is student:
        guess = linear_probe(few, targets[0], test, classes=len(ACTIVITIES)).probabilities.argmax(1)
    else:  # its own classifier
        guess = student(data.test.windows).argmax(1)
    measures = {"macro F1": macro_f1(guess, targets[1]), "BasicMotions": float("nan")}
    if data.motions is not None:
        windows, labels, test_windows, test_labels = data.motions
        embedded, asked = encoder(windows), encoder(test_windows)
        scores = []
        for draw in range(_DRAWS):
            order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(draw))
            ones = torch.stack([order[labels[order] == label][0] for label in torch.unique(labels)])
            said = linear_probe(embedded[ones], labels[ones], asked).probabilities.argmax(1)
            scores.append(macro_f1(said, test_labels))
        measures["BasicMotions"] = statistics.fmean(scores)
    measures |= {"R@1": float("nan"), "R@5": float("nan")}
    if "comodo" in distiller.matches:
        match: Any = distiller.matches["comodo"]
        videos = torch.stack([data.test[i]["video"] for i in range(len(data.test))])
        teacher: Any = distiller.teacher.model
        seen = [teacher.embedding(part) for part in torch.split(videos, 32)]
        recall = retrieval_recall(match.adapter(test), match.teacher_adapter(torch.cat(seen)), at=(1, 5))
        measures |= {"R@1": recall["recall@1"], "R@5": recall["recall@5"]}
    return measures, (100.0 * (guess == targets[1])).tolist()


def _report(found: Mapping[str, Judged], out: Path, seeds: int, seconds: float) -> Path:
    rows = []
    for kind, result in found.items():
        cells = [spread([measures[name] for measures in result.measures], digits=1) for name in _MEASURES]
        rows.append(
            [kind, *("-" if cell == "nan" else cell for cell in cells), f"{statistics.fmean(result.seconds):.0f}"]
        )
    print(f"\n{text_table(_COLUMNS, rows)}")
    lead = "; ".join(
        f"{COMODO} against {other}: {paired_bootstrap(found[other].right, found[COMODO].right).sentence()} of accuracy"
        for other in (RANDOM, SHUFFLED, LABELS)
    )
    print(f"\n{lead}")
    page = Report("COMODO on rendered pairs of video and wrist sensor", f"{lead}.")
    page.heading("Numbers").table(
        _COLUMNS,
        rows,
        caption=f"Mean ± standard deviation of {seeds} seed(s), last epoch, one teacher, one rendered set.",
    )
    page.text(
        "Macro F1 is of a linear probe on the frozen encoder, trained on the 36 labelled clips of few.csv (last "
        "row: of a classifier trained from scratch on them, encoder and all) and asked about the clips of "
        "test.csv, people whom no training saw. BasicMotions is real: the same probe on one training window of "
        "each of four classes (mean of ten draws), asked about its 40 test windows. R@k says how often a test "
        "window finds its own video among all test videos. Pretraining used no label; the video teacher was "
        "trained on labelled clips of yet other people. In the control every window was paired with the video of "
        "another clip."
    )
    page.heading("Again").code(
        f"hatch run quickstart-imu\npython -m limbeck_audiovideo.rendered_pairs pairs\n"
        f"limbeck train {TEACHER_CONFIG} --data-root pairs\n"
        f"limbeck bank {CONFIG} --data-root pairs --bank bank\nlimbeck train {CONFIG} --data-root pairs --bank bank"
    )
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    page.text(f"Run on {datetime.now(timezone.utc):%Y-%m-%d}, {machine}, {seconds:.0f} s in all.")
    return page.write(out)


if __name__ == "__main__":
    sys.exit(main())
