"""Models of OpenMMLab libraries by their own config file: string types, registries, scopes and all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from torch import nn

from limbeck_core.errors import ConfigError, MissingDependency
from limbeck_core.mmcv_operators import use_mmcv
from limbeck_core.weights import load_weights


def openmmlab(
    config: str | Path,
    checkpoint: str | Path | None = None,
    *,
    partial: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build the model of an OpenMMLab config, draw its weights by its own rules, and load a checkpoint over them.

    Use it for a student or a teacher of a :class:`~limbeck_core.distiller.Distiller` together with
    :class:`~limbeck_core.calls.OpenMMLabCall`.

    Args:
        config: The config file (string or lazy style) with ``model`` and, for string types, ``default_scope``.
        checkpoint: Weights file, read without running any code; ``None`` keeps the drawn weights.
        partial: Accept a file that lacks some of the model's weights.
        overrides: Config keys to change before building, such as ``{"model.backbone.init_cfg": None}`` so that nothing
            is downloaded.

    Raises:
        ConfigError: if the file is missing or has no ``model``.
        MissingDependency: if the config's scope names a library that is not installed.
        CheckpointError: if the weights cannot be read or do not fit.
    """
    path = Path(config)
    if not path.is_file():
        raise ConfigError(f"there is no config file {path}: give the path of the model's own OpenMMLab config")
    settings = Config.fromfile(str(path))
    settings.merge_from_dict(dict(overrides or {}))
    if "model" not in settings:
        raise ConfigError(
            f"{path} has no 'model': expected an OpenMMLab config of a model, got keys {sorted(settings)}"
        )
    scope = settings.get("default_scope", "mmengine")
    use_mmcv()
    before = DefaultScope.get_current_instance()
    try:
        init_default_scope(scope)
        model: nn.Module = MODELS.build(settings.model)
    except (ImportError, KeyError) as error:
        raise MissingDependency(
            f"the model of {path} cannot be built ({error}): its scope is {scope!r}, install that library "
            "(for mmdet and mmpose see the installation page)"
        ) from error
    finally:
        # the scope is global: leave it as the caller had it, so that teacher and student may come from two libraries
        init_default_scope(before.scope_name if before is not None else "mmengine")
    if torch.get_default_device().type == "meta":
        return model
    draw = getattr(model, "init_weights", None)
    if callable(draw):
        # it logs one paragraph a weight
        logger = MMLogger.get_current_instance()
        before_drawing, logger.disabled = logger.disabled, True
        try:
            draw()
        finally:
            logger.disabled = before_drawing
    if checkpoint is not None:
        load_weights(model, Path(checkpoint), partial=partial)
    return model
