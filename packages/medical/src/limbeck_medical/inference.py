"""A trained student over the cases of a config, with label maps on the grid of the input files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose
from torch import nn

from limbeck_core.build import build
from limbeck_core.calls import Call, TensorCall
from limbeck_core.engine.config import load_config
from limbeck_core.engine.export import student_alone
from limbeck_core.errors import ConfigError
from limbeck_medical.data import SegmentationDataset
from limbeck_medical.data.cases import Case
from limbeck_medical.evaluation.files import Pair
from limbeck_medical.geometry import labels_on_input_grid, write_labels


def predict_files(
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    *,
    data_root: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> tuple[list[Pair], tuple[str, ...]]:
    """Predict the test cases of a config and write their label maps.

    Args:
        config: A path or the name of an installed config whose test data is a
            :class:`~limbeck_medical.data.SegmentationDataset`.
        checkpoint: Weights of the student.
        out: Folder for the label maps, each with the geometry of its input.
        data_root: Folder that holds the data.
        overrides: ``key=value`` pairs, as of ``limbeck train``.

    Returns:
        The files of each case, for :func:`~limbeck_medical.evaluation.evaluate_files`, and the names of the classes.

    Raises:
        ConfigError: if the config's test data is of another kind, or its cases have no labels.
        CheckpointError: if the checkpoint does not fit.
    """
    settings = load_config(config, overrides=overrides, data_root=data_root)
    dataset: Any = build(settings.test_dataloader.dataset)
    if not isinstance(dataset, SegmentationDataset):
        raise ConfigError(
            f"the test data of {config} is a {type(dataset).__name__}: this reads the files of a SegmentationDataset"
        )
    if any(case.label is None for case in dataset.cases):
        raise ConfigError("the test data has cases without labels: take a labelled part, or 'limbeck predict'")
    alone = student_alone(settings, checkpoint)
    paths = predict_cases(alone.model, dataset, out, call=alone.call)
    pairs = [
        Pair(case.name, path, case.label, case.images[0])
        for case, path in zip(dataset.cases, paths, strict=True)
        if case.label is not None
    ]
    return pairs, dataset.classes


def predict_cases(
    model: nn.Module, dataset: SegmentationDataset, out: str | Path, *, call: Call | None = None
) -> list[Path]:
    """Write the label map of each case of a data set, with the geometry of its input.

    Args:
        model: From ``(N, C, ...)`` to class scores.
        dataset: Its cases and deterministic chain are used.
        out: Folder.
        call: How the model predicts; the whole volume at once by default.

    Returns:
        The files, in the order of the cases.
    """
    call = call or TensorCall()
    mode, device = model.training, next((p.device for p in model.parameters()), torch.device("cpu"))
    model.eval()
    written = []
    try:
        for case, image, transform in _images(dataset):
            with torch.no_grad():
                scores = call.predict(model, {"inputs": image.as_tensor().float()[None].to(device)}, "inputs")
            written.append(write_labels(labels_on_input_grid(scores[0], image, transform), Path(out) / case.name))
    finally:
        model.train(mode)
    return written


def _images(dataset: SegmentationDataset) -> Iterator[tuple[Case, Any, Compose]]:
    transform = Compose(dataset.preprocess)
    for case in dataset.cases:
        files = [str(path) for path in case.images]
        yield case, transform({"inputs": files if len(files) > 1 else files[0]})["inputs"], transform
