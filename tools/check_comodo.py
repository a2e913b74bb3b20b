"""COMODO on a table of pairs with subjects left out: against random initialisation and against shuffled pairs.

    python -m limbeck_audiovideo.imu.utd_mhad UTD
    python tools/check_comodo.py UTD --seeds 3

For each subject, an encoder is pretrained without labels on the pairs of the others. A linear probe is then asked about
the clips of the subject left out, once with all labels of the others ("all labels"), once with those of a single other
subject, each in turn ("one subject"); and each of these clips searches its own video among them ("R@1").
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_audiovideo.evaluation import macro_f1
from limbeck_audiovideo.imu import ClipPairs
from limbeck_core import Distiller
from limbeck_core.build import build
from limbeck_core.engine.config import load_config
from limbeck_core.engine.quickstart import at_most, text_table
from limbeck_core.errors import LimbeckError
from limbeck_core.probes import linear_probe, retrieval_recall
from limbeck_core.report import spread

ARMS = ("random initialisation", "shuffled pairs", "COMODO")
CONFIG = "audiovideo/comodo/utd_mhad"


def main(arguments: list[str] | None = None) -> int:
    """Parse, train, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", type=Path, metavar="FOLDER", help="holds pairs.csv")
    parser.add_argument("--config", default=CONFIG, metavar="C", help=f"default: {CONFIG}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="first seed (default: 0)")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, metavar="ARM", help=f"of {', '.join(ARMS)}")
    parser.add_argument("--steps", type=int, default=150, help="steps of pretraining (default: 150)")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate of pretraining (default: 0.001)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parser.parse_args(arguments)
    try:
        with at_most(1):
            figures = check(options)
    except LimbeckError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    columns = list(next(iter(figures.values())))
    rows = [[arm, *(spread(values[column]) for column in columns)] for arm, values in figures.items()]
    print(text_table(["arm", *columns], rows))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


def check(options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Return per cent by arm, measure and seed, and the teacher's own probe."""
    settings = load_config(options.config, data_root=options.data_root)
    data: ClipPairs = build(dict(settings.val_dataloader.dataset))
    items = [data[number] for number in range(len(data))]
    model = dict(settings.model)
    videos = build(model).teacher(torch.stack([item["video"] for item in items]))  # the frozen teacher speaks once
    model["teacher"] = dict(type=nn.Identity)
    targets, subjects = (torch.tensor([item[name] for item in items]) for name in ("targets", "subjects"))
    figures: dict[str, dict[str, list[float]]] = {}
    for arm in options.arms:
        seeds: list[Mapping[str, float]] = []
        for seed in range(options.first, options.first + options.seeds):
            found, few, ranks = torch.empty_like(targets), [], []
            for subject in torch.unique(subjects):
                out = subjects == subject
                torch.manual_seed(seed)
                distiller: Distiller = build(model)
                videos_of = videos[~out]
                if arm == "shuffled pairs":
                    videos_of = videos_of[torch.randperm(len(videos_of))]
                if arm != "random initialisation":
                    pretrain(distiller, data.windows[~out], videos_of, steps=options.steps, lr=options.lr)
                embeddings, projected = embed(distiller, data.windows)
                found[out] = ask(embeddings, targets, ~out, out)
                few += [score(embeddings, targets, subjects == one, out) for one in torch.unique(subjects[~out])]
                ranks.append(retrieval_recall(projected[out], watch(distiller, videos)[out], at=(1,))["recall@1"])
            seeds.append(row(found, targets, few, ranks))
            print(f"  {arm}, seed {seed}: {seeds[-1]}", flush=True)
        figures[arm] = {name: [row[name] for row in seeds] for name in seeds[0]}
    found, few = torch.empty_like(targets), []
    for subject in torch.unique(subjects):
        out = subjects == subject
        found[out] = ask(videos, targets, ~out, out)
        few += [score(videos, targets, subjects == one, out) for one in torch.unique(subjects[~out])]
    figures["video teacher"] = {name: [value] for name, value in row(found, targets, few, [100.0]).items()}
    return figures


def ask(embeddings: Tensor, targets: Tensor, train: Tensor, test: Tensor) -> Tensor:
    """Classes that a linear probe trained on some clips finds for others."""
    classes = int(targets.max()) + 1
    return linear_probe(embeddings[train], targets[train], embeddings[test], classes=classes).probabilities.argmax(1)


def score(embeddings: Tensor, targets: Tensor, train: Tensor, test: Tensor) -> float:
    """Share of test clips that such a probe gets right, per cent."""
    return 100 * float((ask(embeddings, targets, train, test) == targets[test]).double().mean())


def row(found: Tensor, targets: Tensor, few: list[float], ranks: list[float]) -> dict[str, float]:
    """The measures of a seed, per cent."""
    return {
        "all labels": 100 * float((found == targets).double().mean()),
        "macro F1": macro_f1(found, targets),
        "one subject": sum(few) / len(few),
        "R@1": sum(ranks) / len(ranks),
    }


def pretrain(distiller: Distiller, windows: Tensor, videos: Tensor, *, steps: int, lr: float) -> None:
    """Full batches, AdamW, cosine."""
    optimizer = torch.optim.AdamW([p for p in distiller.parameters() if p.requires_grad], lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    distiller.train()
    batch: dict[str, Any] = {"inputs": windows, "video": videos}
    for _ in range(steps):
        loss = sum(distiller(batch).values())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
        schedule.step()


@torch.no_grad()
def embed(distiller: Distiller, windows: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings of the encoder, and their projections into the teacher's space."""
    distiller.eval()
    embeddings = distiller.student(windows)
    return embeddings, distiller.matches["comodo"].adapter(embeddings)  # type: ignore[union-attr,operator]


@torch.no_grad()
def watch(distiller: Distiller, videos: Tensor) -> Tensor:
    """What the teacher said, in the space that is compared."""
    adapter = distiller.matches["comodo"].teacher_adapter
    return videos if adapter is None else adapter(videos)  # type: ignore[operator,return-value]


if __name__ == "__main__":
    sys.exit(main())
