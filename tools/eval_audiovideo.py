"""Judge audio, video and sensor models: classes, events in time, and what frozen features know.

    python tools/eval_audiovideo.py clips --scores scores.csv --truth test.csv --json result.json
    python tools/eval_audiovideo.py events --found found.tsv --truth truth.tsv --durations durations.tsv
    python tools/eval_audiovideo.py run --config audiovideo/atst/sounds_events --checkpoint F.pth --data-root D
    python tools/eval_audiovideo.py probe --config audiovideo/atst/sounds_clip --weights teacher.pth \\
        --audio D/clips --train D/few.csv --test D/test.csv
    python tools/eval_audiovideo.py listen --config audiovideo/atst/sounds_events --checkpoint F.pth long.flac

``clips`` takes a table of scores (``filename`` and a column a class) and one of labels (``filename,label``; several
between the --separator). ``events`` takes strong labels in DESED's layout on both sides; scores for PSDS are a folder
with a table for each recording (``onset`` and a column a class, every 40 ms). ``listen`` writes what a model hears.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from limbeck_audiovideo.atst import FrameTagger, embed_recordings, load_encoder, stream_frames
from limbeck_audiovideo.audio import (
    TOKEN_SECONDS,
    Event,
    Recordings,
    describe_audio,
    read_rows,
    read_strong,
    write_strong,
)
from limbeck_audiovideo.evaluation.classification import classify, confusion, table, tag
from limbeck_audiovideo.evaluation.events import event_f1, events_of, psds, segment_f1
from limbeck_audiovideo.evaluation.pictures import draw_confusion, draw_timeline
from limbeck_core.build import build
from limbeck_core.engine import commands, load_student
from limbeck_core.engine.config import load_config
from limbeck_core.errors import DataError, LimbeckError
from limbeck_core.probes import linear_probe, nearest_neighbours

Figures = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Parse, evaluate, print a table, write JSON and pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    for name, (add, judge) in TASKS.items():
        task = tasks.add_parser(name, help=(judge.__doc__ or "").partition("\n")[0])
        add(task)
        task.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
        task.set_defaults(judge=judge)
    options = parser.parse_args(arguments)
    try:
        figures: Figures = options.judge(options)
    except LimbeckError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(figures))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


# ---------------------------------------------------------------------- classes of clips


def _clips_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scores", type=Path, required=True, metavar="F.csv", help="filename and a column a class")
    parser.add_argument("--truth", type=Path, required=True, metavar="F.csv", help="filename and label")
    parser.add_argument("--separator", help="what stands between several labels of a clip (default: one label)")
    parser.add_argument("--confusion", type=Path, metavar="F.png", help="draw which class was taken for which")


def _clips(options: argparse.Namespace) -> Figures:
    """Accuracy, or mAP and d-prime, of anyone's scores."""
    rows, labels = read_rows(options.scores), {row["filename"]: row["label"] for row in read_rows(options.truth)}
    classes = [column for column in (rows[0] if rows else {}) if column != "filename"]
    if not rows or {row["filename"] for row in rows} != labels.keys():
        raise DataError(f"{options.scores} and {options.truth} must name the same recordings, at least one")
    scores = torch.tensor([[float(row[name]) for name in classes] for row in rows], dtype=torch.float64)
    several = options.separator is not None
    parts = [labels[row["filename"]].split(options.separator) if several else [labels[row["filename"]]] for row in rows]
    strangers = sorted({label for each in parts for label in each if label} - set(classes))
    if strangers:
        raise DataError(f"{options.truth} has the label {strangers[0]!r}, of which there is no score")
    if several:
        return tag(scores, torch.tensor([[float(name in each) for name in classes] for each in parts]))
    targets = torch.tensor([classes.index(each[0]) for each in parts])
    if options.confusion:
        draw_confusion(confusion(scores, targets), classes, options.confusion)
    return dict(classify(scores, targets))


# ---------------------------------------------------------------------- events in time


def _events_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--truth", type=Path, required=True, metavar="F.tsv", help="true events, DESED's layout")
    parser.add_argument("--found", type=Path, metavar="F.tsv", help="events that a model found, the same layout")
    parser.add_argument("--scores", type=Path, metavar="FOLDER", help="scores over time, one table a recording: PSDS")
    parser.add_argument("--durations", type=Path, metavar="F.tsv", help="filename and duration in seconds")
    parser.add_argument("--audio", type=Path, metavar="FOLDER", help="read durations from the recordings instead")
    parser.add_argument("--thresholds", type=int, default=50, help="operating points of PSDS (default: 50)")
    parser.add_argument("--median", type=int, default=7, help="width of the median filter (default: 7 tokens)")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw events in time there")


def _events(options: argparse.Namespace) -> Figures:
    """Segment and event F1 of anyone's events, and PSDS of scores."""
    truth = read_strong(options.truth)
    if (options.durations is None) == (options.audio is None):
        raise DataError("give --durations, or --audio with the recordings")
    if options.durations:
        durations = {row["filename"]: float(row["duration"]) for row in read_rows(options.durations)}
    else:
        durations = {name: describe_audio(options.audio / name).seconds for name in truth.events}
    if options.found is None and options.scores is None:
        raise DataError("give --found with events, --scores with scores over time, or both")
    figures: Figures = {}
    probabilities = {}
    found = read_strong(options.found).events if options.found else {}
    classes = truth.labels
    if options.scores:
        for name in durations:
            rows = read_rows(options.scores / f"{Path(name).stem}.tsv")
            probabilities[name] = np.array([[float(row[label]) for label in classes] for row in rows])
        if options.found is None:
            found = {name: events_of(each, classes, median=options.median) for name, each in probabilities.items()}
    figures |= segment_f1(found, truth.events, durations, classes)
    figures |= event_f1(found, truth.events, durations, classes)
    if options.scores:
        settings = dict(thresholds=options.thresholds, median=options.median)
        figures |= psds(probabilities, truth.events, durations, classes, **settings)
    if options.pictures:
        for name, seconds in durations.items():
            picture = options.pictures / f"{Path(name).stem}.png"
            draw_timeline(
                found.get(name, []), truth.events.get(name, []), classes, picture, seconds=seconds, title=name
            )
    return figures


# ---------------------------------------------------------------------- a config's own test


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="C", help="a config whose test data and model are judged")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="F", help="weights of that config's student")
    parser.add_argument("--data-root", type=Path, metavar="D", help="folder of the data sets (default: $LIMBECK_DATA)")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="K=V", help="change values of the config")


def _run(options: argparse.Namespace) -> Figures:
    """What a config's own evaluator says of a checkpoint."""
    overrides = [*_without_start(options.config), *options.cfg_options, "+log_level=ERROR"]
    return dict(commands.evaluate(options.config, options.checkpoint, data_root=options.data_root, overrides=overrides))


def _without_start(config: str) -> list[str]:
    """Overrides that leave out the file that training began with: the checkpoint holds all weights."""
    encoder = load_config(config).model.student.get("encoder", {})
    return ["model.student.encoder.checkpoint=None"] if "checkpoint" in encoder else []


# ---------------------------------------------------------------------- probes of an audio encoder


def _probe_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", required=True, metavar="C", help="a config of ATST, of whose student the encoder is"
    )
    parser.add_argument("--weights", type=Path, metavar="F", help="its weights; left out: random, the control")
    parser.add_argument(
        "--audio", type=Path, required=True, metavar="FOLDER", help="holds train/ and test/, or all files"
    )
    parser.add_argument("--train", type=Path, required=True, metavar="F.csv", help="filename,label to learn from")
    parser.add_argument("--test", type=Path, required=True, metavar="F.csv", help="filename,label to judge by")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each clip (default: 10)")
    parser.add_argument("--neighbours", type=int, default=20, help="that vote (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of random weights")
    parser.add_argument("--confusion", type=Path, metavar="F.png", help="draw which class was taken for which")


def _probe(options: argparse.Namespace) -> Figures:
    """Linear probe and nearest neighbours on a frozen encoder of ATST."""
    torch.manual_seed(options.seed)
    settings = load_config(options.config, overrides=_without_start(options.config))
    student = build(settings.model.student)
    encoder = getattr(student, "network", student).encoder
    if options.weights:
        load_encoder(encoder, options.weights)
    sides = {}
    for name, file in (("train", options.train), ("test", options.test)):
        folder = options.audio / name if (options.audio / name).is_dir() else options.audio
        classes = sides["train"][2] if sides else None
        data = Recordings(folder, table=file.resolve(), classes=classes, seconds=options.seconds)
        sides[name] = (*embed_recordings(encoder, data), data.classes)
    (features, targets, names), (test, truth, _) = sides["train"], sides["test"]
    count = len(names)
    probed = linear_probe(features, targets, test, classes=count)
    votes = nearest_neighbours(features, targets, test, classes=count, neighbours=options.neighbours)
    figures = {f"linear/{name}": value for name, value in classify(probed.probabilities, truth).items()}
    figures |= {f"knn/{name}": value for name, value in classify(votes, truth).items()}
    if options.confusion:
        draw_confusion(confusion(probed.probabilities, truth), names, options.confusion)
    return figures


# ---------------------------------------------------------------------- long files


def _listen_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, help="recordings of any length")
    parser.add_argument("--config", required=True, metavar="C", help="a config with a FrameTagger")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="F", help="weights of that config's student")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="their names (default: the config's, or numbers)")
    parser.add_argument("--seconds", type=float, help="of a window (default: what the encoder has positions for)")
    parser.add_argument("--margin", type=float, default=0.4, help="seconds at the borders of windows (default: 0.4)")
    parser.add_argument("--threshold", type=float, default=0.5, help="probability of an event (default: 0.5)")
    parser.add_argument("--median", type=int, default=7, help="width of the median filter (default: 7 tokens)")
    parser.add_argument("--out", type=Path, default=Path("found.tsv"), help="events in DESED's layout")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw events in time there")


def _listen(options: argparse.Namespace) -> Figures:
    """Events in files of any length, heard a window at a time."""
    settings = load_config(options.config, overrides=_without_start(options.config))
    model = build(settings.model.student)
    if not isinstance(model, FrameTagger):
        raise DataError(f"{options.config} trains a {type(model).__name__}; long files are heard by a FrameTagger")
    load_student(model, options.checkpoint)
    classes = options.classes or settings.get("val_evaluator", {}).get("classes") or []
    classes = list(classes) or [str(number) for number in range(model.strong.out_features)]
    most = (model.encoder.max_frames // 4) * TOKEN_SECONDS
    found: dict[str, list[Event]] = {}
    for path in options.files:
        parts = list(stream_frames(model, path, seconds=options.seconds or most, margin=options.margin))
        scores = np.concatenate([part.scores for part in parts])
        found[path.name] = events_of(scores, classes, threshold=options.threshold, median=options.median)
        if options.pictures:
            picture = options.pictures / f"{path.stem}.png"
            draw_timeline(
                found[path.name], None, classes, picture, seconds=len(scores) * TOKEN_SECONDS, title=path.name
            )
    write_strong(options.out, found)
    return {name: float(len(events)) for name, events in found.items()}


TASKS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], Figures]]] = {
    "clips": (_clips_options, _clips),
    "events": (_events_options, _events),
    "run": (_run_options, _run),
    "probe": (_probe_options, _probe),
    "listen": (_listen_options, _listen),
}


if __name__ == "__main__":
    sys.exit(main())
