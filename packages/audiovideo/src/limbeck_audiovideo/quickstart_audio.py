"""``hatch run quickstart-audio``: ATST without labels on sounds rendered here, against random weights and few labels.

The configs ``audiovideo/atst/sounds_*`` and the same functions as ``limbeck train``. ``--data-root`` takes spoken
digits instead (the Free Spoken Digit Dataset, as a folder or a zip file).
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
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck_audiovideo.atst import ClipEncoder, FrameEncoder, clip_views, embed_recordings, load_encoder
from limbeck_audiovideo.audio import Recordings
from limbeck_audiovideo.audio.digits import arrange_digits
from limbeck_audiovideo.evaluation.classification import confusion
from limbeck_audiovideo.evaluation.pictures import draw_confusion, draw_spectrograms
from limbeck_audiovideo.rendered_audio import render
from limbeck_core.engine.commands import train
from limbeck_core.engine.quickstart import command, text_table
from limbeck_core.probes import linear_probe
from limbeck_core.report import Report, paired_bootstrap, spread

RANDOM, CLIP, FRAME = "random weights, probe", "ATST-Clip, probe", "ATST-Frame, probe"
SCRATCH, TUNED = "labels only, all weights", "ATST-Clip, fine-tuned"
_PROBED: dict[str, tuple[type[ClipEncoder] | type[FrameEncoder], str | None]] = {
    RANDOM: (ClipEncoder, None),
    CLIP: (ClipEncoder, "sounds_clip"),
    FRAME: (FrameEncoder, "sounds_frame"),
}
_TRAINED = {SCRATCH: "sounds_supervised", TUNED: "sounds_finetune"}
_SIZES = {"dim": 64, "depth": 3, "heads": 2, "max_frames": 201}  # of the encoders in these configs
_COLUMNS = ("model", "few labels (%)", "all labels (%)", "seconds")


@dataclass
class Measured:
    """What was measured of one kind of model over its seeds."""

    few: list[float] = field(default_factory=list)
    everything: list[float] = field(default_factory=list)  # probes alone
    hits: list[list[float]] = field(default_factory=list)  # 100 or 0 of each test clip, few labels
    seconds: list[float] = field(default_factory=list)
    answers: Tensor | None = None  # of the first seed, few labels


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the quickstart.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """

    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data-root", type=Path, help="spoken digits: a folder of wav files, or a zip file of one")

    title = (__doc__ or "").partition("\n")[0]
    return command("quickstart-audio", title, run, arguments, options=options)


def run(options: argparse.Namespace) -> Path:
    """Render or arrange the recordings, train, measure, print the table and write the report.

    Args:
        options: ``out``, ``seeds``, ``smoke`` and ``data_root``.

    Returns:
        The path of the page.
    """
    started = time.perf_counter()
    out: Path = options.out
    if options.data_root is not None:
        data, what = arrange_digits(options.data_root, out / "digits"), "spoken digits"
    else:
        sizes = dict(train=80, test=40, events=2) if options.smoke else dict(train=640, test=320, events=2)
        data, what = render(out / "sounds", **sizes, seed=0), "rendered sounds"
    parts = {
        name: Recordings(data, audio=f"clips/{'test' if name == 'test' else 'train'}", table=f"{name}.csv", seconds=2.0)
        for name in ("few", "train", "test")
    }
    found: dict[str, Measured] = {name: Measured() for name in (*_PROBED, *_TRAINED)}
    for seed in range(options.seeds):
        for kind, (encoder, config) in _PROBED.items():
            _probe(found[kind], encoder, config, parts, data, out, seed, smoke=options.smoke)
            _say(kind, seed, found[kind])
        for kind, config in _TRAINED.items():
            _train(found[kind], config, parts, data, out, seed, smoke=options.smoke)
            _say(kind, seed, found[kind])
    return _report(found, parts, what, data, out, options.seeds, time.perf_counter() - started)


def _say(kind: str, seed: int, measured: Measured) -> None:
    print(f"  {kind}, seed {seed}: {measured.few[-1]:.2f} % in {measured.seconds[-1]:.0f} s", flush=True)


def _run(config: str, data: Path, out: Path, seed: int, *, smoke: bool, **changes: Any) -> Any:
    overrides: dict[str, Any] = {
        "+log_level": "ERROR",  # the table says what matters
        "+default_hooks": {"checkpoint": {"every_epochs": None}, "logger": {"interval": 10}},
        **changes,
    }
    if smoke:
        overrides["train_cfg.max_steps"] = 4
    folder = out / f"{config}-{seed}"
    return train(f"audiovideo/atst/{config}", work_dir=folder, seed=seed, data_root=data, overrides=overrides)


def _probe(
    measured: Measured,
    encoder: type[ClipEncoder] | type[FrameEncoder],
    config: str | None,
    parts: Mapping[str, Recordings],
    data: Path,
    out: Path,
    seed: int,
    *,
    smoke: bool,
) -> None:
    begun = time.perf_counter()
    torch.manual_seed(seed)
    model = encoder(**_SIZES)
    if config is not None:
        _run(config, data, out, seed, smoke=smoke)
        load_encoder(model, out / f"{config}-{seed}" / "teacher.pth")
    measured.seconds.append(time.perf_counter() - begun)
    embedded = {name: embed_recordings(model, part) for name, part in parts.items()}
    test, truth = embedded["test"]
    classes = len(parts["train"].classes)
    for name, scores in (("few", measured.few), ("train", measured.everything)):
        features, targets = embedded[name]
        if targets is None or truth is None:
            raise RuntimeError("recordings of the quickstart are labelled")
        answers = linear_probe(features, targets, test, classes=classes).probabilities.argmax(1)
        hits = (100.0 * (answers == truth).double()).tolist()
        scores.append(statistics.fmean(hits))
        if name == "few":
            measured.hits.append(hits)
            measured.answers = answers if measured.answers is None else measured.answers


def _train(
    measured: Measured, config: str, parts: Mapping[str, Recordings], data: Path, out: Path, seed: int, *, smoke: bool
) -> None:
    begun = time.perf_counter()
    changes: dict[str, Any] = {"model.student.classes": len(parts["train"].classes)}
    if config == _TRAINED[TUNED]:
        changes["model.student.encoder.checkpoint"] = str(out / f"sounds_clip-{seed}" / "teacher.pth")
    runner = _run(config, data, out, seed, smoke=smoke, **changes)
    measured.seconds.append(time.perf_counter() - begun)
    hits = list(runner.val_evaluator.metrics[0].per_sample["accuracy"])
    measured.hits.append(hits)
    measured.few.append(statistics.fmean(hits))


def _report(
    found: Mapping[str, Measured],
    parts: Mapping[str, Recordings],
    what: str,
    data: Path,
    out: Path,
    seeds: int,
    seconds: float,
) -> Path:
    rows = [
        [
            kind,
            spread(measured.few),
            spread(measured.everything) if measured.everything else "",
            f"{statistics.fmean(measured.seconds):.0f}",
        ]
        for kind, measured in found.items()
    ]
    print(f"\n{text_table(_COLUMNS, rows)}")
    pairs = ((CLIP, RANDOM), (FRAME, RANDOM), (CLIP, SCRATCH), (TUNED, SCRATCH))
    verdicts = [
        f"{mine} against {other}: {paired_bootstrap(found[other].hits, found[mine].hits).sentence()}"
        for mine, other in pairs
    ]
    print("\n" + "\n".join(verdicts))
    few, test = parts["few"], parts["test"]
    page = Report(f"ATST on {what}", "; ".join(verdicts) + ".")
    page.heading("Numbers").table(
        _COLUMNS,
        rows,
        caption=f"Accuracy on {len(test)} test clips of {len(test.classes)} classes; {len(few)} labelled clips, or all "
        f"{len(parts['train'])}; mean ± standard deviation of {seeds} seed(s). Probes are linear, on frozen encoders.",
    )
    page.text(
        f"Pretraining hears all {len(parts['train'])} training clips and no label. The controls are the same encoder "
        "with random weights, probed alike, and the same encoder trained on the few labels, mixed and resized."
    )
    page.heading("Pictures")
    views = out / "views.png"
    page.figure("views", _views(parts["train"], views), alt="Log-mel spectrograms", caption="Two views of two clips.")
    answers, targets = found[CLIP].answers, test.targets
    if answers is not None and targets is not None:
        one_hot = torch.nn.functional.one_hot(answers, len(test.classes)).double()
        counts = confusion(one_hot, torch.stack(targets))
        picture = draw_confusion(counts, test.classes, out / "confusion.png", title=f"{CLIP}, few labels, seed 0")
        page.figure("confusion", picture, alt="Confusion of classes", caption=f"{CLIP}, few labels, seed 0.")
    page.heading("Again").code(
        "hatch run quickstart-audio\n"
        + "\n".join(
            f"limbeck train audiovideo/atst/{config} --data-root {data} --seed 0"
            for config in ("sounds_clip", "sounds_frame", *_TRAINED.values())
        )
    )
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    page.text(f"Run on {datetime.now(timezone.utc):%Y-%m-%d}, {machine}, {seconds:.0f} s in all.")
    return page.write(out)


def _views(dataset: Recordings, path: Path) -> Path:
    torch.manual_seed(0)
    labels = [dataset.classes[int(target)] for target in dataset.targets or ()][:2]
    samples = []
    for index in range(2):
        clip = dataset[index]["inputs"]["waveform"]
        samples.append(
            {"inputs": {"waveform": torch.stack([clip[:16000], clip[-16000:]]), "length": torch.tensor(16000)}}
        )
    views = clip_views(samples)["inputs"]["views"]
    shown = {f"{labels[clip]}, view {view + 1}": views[clip, view] for clip in range(2) for view in range(2)}
    return draw_spectrograms(shown, path)


if __name__ == "__main__":
    sys.exit(main())
