"""From a config and its student's weights to predictions on the test images, ready for every measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from limbeck_core.engine.config import load_config
from limbeck_core.engine.export import student_alone
from limbeck_core.engine.sampler import build_dataloader
from limbeck_core.errors import ConfigError, DataError, ShapeError


@torch.no_grad()
def predict_checkpoint(
    config: str | Path,
    checkpoints: str | Path | Sequence[str | Path],
    *,
    count_training_images: bool = False,
    partial: bool = False,
    data_root: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> dict[str, Any]:
    """Run a config's student on its test images (its validation images, if it has no others); no teacher is built.

    Args:
        config: A path, or the name of an installed config.
        checkpoints: Weights of the student; of several, the probabilities are averaged, as for the generations of BAN.
        count_training_images: Count the training images of each class as well, for many, medium and few shot.
        partial: Accept files that lack some of the student's weights.
        data_root: See :func:`~limbeck_core.engine.config.load_config`.
        overrides: See :func:`~limbeck_core.engine.config.load_config`.

    Returns:
        What :func:`~limbeck_vision.evaluation.evaluate` takes and ``numpy.savez`` writes: ``targets`` ``(N,)``,
        ``logits`` ``(N, C)`` of one checkpoint or ``probabilities`` of several; where the data set knows them
        ``class_names``, and ``train_counts`` where asked for.

    Raises:
        ConfigError: if the config has nothing to test on or no student, or no checkpoint is given.
        CheckpointError: if a checkpoint cannot be read or does not fit.
        DataError: if the test images have no labels.
        ShapeError: if the student gives no logits ``(N, C)``, or the class names are of another number.
    """
    files = [checkpoints] if isinstance(checkpoints, (str, Path)) else list(checkpoints)
    if not files:
        raise ConfigError("no checkpoint is given, and there is nothing to predict with")
    settings = load_config(config, overrides=overrides, data_root=data_root)
    loader = settings.get("test_dataloader") or settings.get("val_dataloader")
    if loader is None:
        raise ConfigError(f"{config} has nothing to test on: it needs test_dataloader")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    students = [student_alone(settings, file, partial=partial) for file in files]
    models: list[nn.Module] = [student.model.to(device).eval() for student in students]
    batches = build_dataloader(loader, seed=0, training=False)
    targets: list[Tensor] = []
    scores: list[list[Tensor]] = [[] for _ in students]
    for batch in batches:
        if "targets" not in batch:
            raise DataError(f"the test images of {config} have no labels: evaluation needs 'targets' in the batch")
        targets.append(torch.as_tensor(batch["targets"]))
        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
        for student, model, collected in zip(students, models, scores, strict=True):
            logits = student.call.predict(model, moved, student.view)
            if not isinstance(logits, Tensor) or logits.ndim != 2:
                got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
                raise ShapeError(f"the student must give logits of shape (N, C), got {got}: evaluate a classifier")
            collected.append(logits.double().cpu())
    joined = [torch.cat(collected) for collected in scores]
    fields: dict[str, Any] = {"targets": torch.cat(targets).numpy()}
    if len(joined) == 1:
        fields["logits"] = joined[0].numpy()
    else:
        fields["probabilities"] = torch.stack([logits.softmax(1) for logits in joined]).mean(0).numpy()
    return fields | _known_of_classes(batches, settings, joined[0].shape[1], count_training_images)


def _known_of_classes(batches: Any, settings: Any, classes: int, count: bool) -> dict[str, Any]:
    known: dict[str, Any] = {}
    names = getattr(batches.dataset.dataset, "classes", None)
    if names:
        if len(names) != classes:
            raise ShapeError(
                f"the student scores {classes} classes, the test images have {len(names)}: name the config that the "
                "checkpoint was trained with"
            )
        known["class_names"] = np.asarray(names)
    if count:
        train = build_dataloader(settings.train_dataloader, seed=0, training=True).dataset
        counts = getattr(getattr(train, "dataset", None), "class_counts", None)
        if not counts:
            raise DataError("the training data set does not say how many images each class has: give --train-counts")
        known["train_counts"] = np.asarray(counts)
    return known
