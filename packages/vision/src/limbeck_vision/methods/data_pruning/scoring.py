"""``python -m limbeck_vision.methods.data_pruning.scoring``: score the training samples of a config, for ``Pruned``.

Short runs with different seeds are looked at after each epoch: every training image, without random geometry, in
evaluation mode. Forgetting events need all looks; the other scores take the last one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor

from limbeck_core.build import build
from limbeck_core.engine.commands import train
from limbeck_core.engine.config import load_config
from limbeck_core.errors import ConfigError, LimbeckError, closest
from limbeck_core.tap import Recorder, Tap
from limbeck_vision.data import ImageDataset
from limbeck_vision.methods.data_pruning.pruning import write_scores
from limbeck_vision.methods.data_pruning.scores import (
    el2n_scores,
    entropy_scores,
    forgetting_scores,
    grand_scores,
    herding_order,
    margin_scores,
)

Looks = Mapping[str, Tensor]


def _herding(looks: Looks) -> Tensor:
    order = herding_order(looks["embeddings"][:, -1].mean(0))
    scores = torch.empty(len(order), dtype=torch.float64)
    scores[order] = torch.arange(len(order), 0, -1, dtype=torch.float64)
    return scores


SCORES: dict[str, Callable[[Looks], Tensor]] = {
    "forgetting": lambda looks: forgetting_scores(looks["logits"].argmax(-1) == looks["targets"]),
    "el2n": lambda looks: el2n_scores(looks["logits"][:, -1], looks["targets"]),
    "grand": lambda looks: grand_scores(looks["logits"][:, -1], looks["targets"], looks["embeddings"][:, -1]),
    "margin": lambda looks: margin_scores(looks["logits"][:, -1], looks["targets"]),
    "entropy": lambda looks: entropy_scores(looks["logits"][:, -1], looks["targets"]),
    "herding": _herding,
}


class LookHook(Hook):  # type: ignore[misc]  # mmengine is untyped
    """Keep logits and embeddings of every training image after each epoch, without random geometry.

    Args:
        dataset: The training set, or a config of it; its transform is taken off.
        embeddings: Dotted name of the module that gives what the last layer reads, ``(N, D)``.
        batch_size: Images at a time.
    """

    def __init__(
        self, dataset: ImageDataset | Mapping[str, Any], *, embeddings: str = "pool", batch_size: int = 256
    ) -> None:
        self.dataset: ImageDataset = build(dataset)
        self.dataset.transform = None
        self.embeddings = Tap(embeddings, of="student")
        self.batch_size = batch_size
        self.logits: list[Tensor] = []
        self.embedded: list[Tensor] = []

    @torch.no_grad()
    def after_train_epoch(self, runner: Any) -> None:
        """Look at all images."""
        distiller = runner.model
        training = distiller.training
        distiller.eval()
        recorder = Recorder("student", [self.embeddings])
        recorder.attach(distiller.student)
        logits, embedded = [], []
        for start in range(0, len(self.dataset), self.batch_size):
            stop = min(start + self.batch_size, len(self.dataset))
            images = torch.stack([self.dataset[position]["inputs"] for position in range(start, stop)])
            batch = distiller.data_preprocessor({"inputs": images}, False)
            with recorder.recording():
                logits.append(distiller(batch, mode="predict").float().cpu())
            embedded.append(recorder.read(self.embeddings, distiller.student).float().cpu())
        recorder.detach()
        distiller.train(training)
        self.logits.append(torch.cat(logits))
        self.embedded.append(torch.cat(embedded))


def score(
    config: str | Path,
    kind: str = "el2n",
    *,
    seeds: int = 3,
    embeddings: str = "pool",
    work_dir: str | Path = Path("work_dirs/data_pruning/scoring"),
    data_root: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Tensor, Tensor]:
    """Train a config a few times and score its training samples.

    Args:
        config: The config; it should train on the whole data set. EL2N, GraNd, margin and entropy are made for models
            early in training: shorten the run with ``overrides``.
        kind: ``"forgetting"``, ``"el2n"``, ``"grand"``, ``"margin"``, ``"entropy"`` or ``"herding"``. For herding the
            most representative samples have the highest scores, and embeddings are averaged over seeds as they are,
            so one seed is advised.
        seeds: Runs, with seeds 0 to N-1; scores are means over them.
        embeddings: Dotted name of the student's module that gives embeddings.
        work_dir: Folder of the runs.
        data_root: See :func:`~limbeck_core.engine.config.load_config`.
        overrides: Values to change in the config, by dotted key.

    Returns:
        Ids and scores, both ``(N,)``.

    Raises:
        ConfigError: if there is no such score, or ``seeds`` is below 1.
    """
    if kind not in SCORES:
        raise ConfigError(f"there is no score {kind!r}: {closest(kind, SCORES)}")
    if seeds < 1:
        raise ConfigError(f"scoring needs one seed or more, got {seeds}")
    logits, embedded = [], []
    for seed in range(seeds):
        hook = _trained(config, Path(work_dir) / str(seed), seed, embeddings, data_root, overrides or {})
        logits.append(torch.stack(hook.logits))
        embedded.append(torch.stack(hook.embedded))
    targets = torch.as_tensor(hook.dataset.targets)
    looks = {"logits": torch.stack(logits), "embeddings": torch.stack(embedded), "targets": targets}
    return torch.as_tensor(hook.dataset.ids), SCORES[kind](looks)


def _trained(
    config: str | Path, folder: Path, seed: int, embeddings: str, data_root: Any, overrides: Mapping[str, Any]
) -> LookHook:
    settings = load_config(config, data_root=data_root, overrides=overrides)
    hook = {
        "type": f"{LookHook.__module__}.{LookHook.__qualname__}",  # a name, which the log can print
        "dataset": settings.train_dataloader.dataset.to_dict(),
        "embeddings": embeddings,
    }
    quiet = {} if "log_level" in settings else {"+log_level": "ERROR"}
    hooks = {"custom_hooks" if "custom_hooks" in settings else "+custom_hooks": [hook]}
    changes = {**overrides, **quiet, **hooks}
    runner = train(config, work_dir=folder, seed=seed, data_root=data_root, overrides=changes)
    return next(found for found in runner.hooks if isinstance(found, LookHook))


def main(arguments: Sequence[str] | None = None) -> int:
    """Score from the command line and write the file.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m limbeck_vision.methods.data_pruning.scoring", description="Score the samples of a training set."
    )
    parser.add_argument("config", help="config that trains on the whole data set")
    parser.add_argument("--score", choices=tuple(SCORES), default="el2n")
    parser.add_argument("--epochs", type=int, metavar="N", help="epochs of each run (default: the config's)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs (default: 3)")
    parser.add_argument("--embeddings", default="pool", metavar="NAME", help="module that gives embeddings")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/data_pruning/scores.npz"), metavar="F")
    parser.add_argument("--data-root", type=Path, metavar="D", help="folder of the data sets (default: $LIMBECK_DATA)")
    options = parser.parse_args(arguments)
    try:
        overrides = {} if options.epochs is None else {"train_cfg.max_epochs": options.epochs}
        ids, scores = score(
            options.config,
            options.score,
            seeds=options.seeds,
            embeddings=options.embeddings,
            work_dir=options.out.parent / "scoring",
            data_root=options.data_root,
            overrides=overrides,
        )
        write_scores(options.out, ids.numpy(), scores.numpy())
        print(f"{options.score}: {len(ids)} samples, from {scores.min():.4g} to {scores.max():.4g}; {options.out}")
    except (LimbeckError, ValueError) as error:
        print(f"scoring: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
