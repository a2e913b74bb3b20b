"""What ``limbeck bank`` and ``limbeck train --bank`` do, as functions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from limbeck_core.bank.storage import MANIFEST, Manifest, read_manifest
from limbeck_core.bank.writing import BankWriter
from limbeck_core.build import build
from limbeck_core.distiller import Distiller
from limbeck_core.engine.config import load_config
from limbeck_core.engine.state import seed_generators
from limbeck_core.errors import BankError, ConfigError, closest

OPTIONS = ("folder", "views", "seed", "encoding", "batch_size", "collate_fn")
_WORK_DIRS = Path("work_dirs")


def bank_writer(
    config: str | Path,
    *,
    folder: str | Path | None = None,
    views: int | None = None,
    encoding: str | Mapping[str, str] | None = None,
    data_root: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> BankWriter:
    """Build the model and the training data of a config, and what writes a bank of its frozen teachers.

    The config may say how in ``bank = dict(folder=..., views=..., seed=..., encoding=..., batch_size=...,
    collate_fn=...)``, see :class:`~limbeck_core.bank.writing.BankWriter`.

    Args:
        config: A path, or the name of an installed config.
        folder: Where to. Default: the config's, or ``bank`` in the folder where training writes.
        views: Random views of each sample. Default: the config's, or 1.
        encoding: How tensors are stored. Default: the config's, or ``"exact"``.
        data_root: See :func:`~limbeck_core.engine.config.load_config`.
        overrides: See :func:`~limbeck_core.engine.config.load_config`.

    Raises:
        ConfigError: if the config has no distiller or training data, or ``bank`` has an option that does not exist.
        BankError: if there is no frozen teacher.
    """
    settings = load_config(config, overrides=overrides, data_root=data_root)
    options = dict(settings.get("bank") or {})
    for name in options:
        if name not in OPTIONS:
            raise ConfigError(f"bank of {config} has no option {name!r}: {closest(name, OPTIONS)}")
    given = {"folder": folder, "views": views, "encoding": encoding}
    options |= {name: value for name, value in given.items() if value is not None}
    work = Path(settings.get("work_dir") or _WORK_DIRS / Path(settings.filename).stem)
    options.setdefault("folder", work / "bank")
    if isinstance(options.get("encoding"), Mapping):
        options["encoding"] = dict(options["encoding"])
    if settings.get("train_dataloader") is None:
        raise ConfigError(f"{config} has no train_dataloader, so there are no samples to ask the teacher about")
    seed = (settings.get("randomness") or {}).get("seed")
    if seed is not None:
        seed_generators(seed, accelerators=True)  # as training does before it builds the model
    model: Any = build(settings.get("model"))
    if not isinstance(model, Distiller):
        raise ConfigError(f"the model of {config} is a {type(model).__name__}: a bank is of a limbeck_core.Distiller")
    if torch.cuda.is_available():
        model.to(torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))))
    return BankWriter(model, settings.train_dataloader, **options)


def use_bank(settings: Config, folder: str | Path) -> list[str]:
    """Let a config train from a bank: readers in place of its frozen teachers, and the views of the bank.

    Args:
        settings: The config; changed in place. Its teachers stay in it, to be compared with the bank.
        folder: What ``limbeck bank`` wrote.

    Returns:
        Names of the teachers that are read from the bank.

    Raises:
        BankError: if there is no bank, or it is of a teacher that the config does not have.
        ConfigError: if the config has no teacher or no training data.
    """
    folder = Path(folder)
    model = settings.get("model") or {}
    if not isinstance(model.get("teacher"), Mapping) or settings.get("train_dataloader") is None:
        raise ConfigError("--bank takes the place of the teacher: the config needs model.teacher and train_dataloader")
    teacher: dict[str, Any] = model["teacher"]
    single = "type" in teacher
    names = ["teacher"] if single else list(teacher)
    banks = _banks(folder, names)
    for name in banks:
        # by its dotted name: MMEngine prints configs, and a class by itself would not print as Python
        reader: dict[str, Any] = {
            "type": "limbeck_core.bank.BankTeacher",
            "folder": str(folder if (folder / MANIFEST).exists() else folder / name),
        }
        reader["teacher"] = teacher if single else teacher[name]
        if single:
            model["teacher"] = reader
        else:
            teacher[name] = reader
    recipes = {(manifest.views, manifest.key["seed"]) for manifest in banks.values()}
    if len(recipes) > 1:
        raise BankError(f"the banks in {folder} differ in their views or their seed, and a batch has one of each")
    ((settings.train_dataloader["views"], settings.train_dataloader["view_seed"]),) = recipes
    return list(banks)


def _banks(folder: Path, teachers: Sequence[str]) -> dict[str, Manifest]:
    """The bank of each teacher that has one."""
    if not (folder / MANIFEST).exists():
        found = {name: read_manifest(folder / name) for name in teachers if (folder / name / MANIFEST).exists()}
        if found:
            return found
        read_manifest(folder)  # says what is wrong
    manifest = read_manifest(folder)
    name = teachers[0] if len(teachers) == 1 else str(manifest.about.get("teacher"))
    if name not in teachers:
        raise BankError(f"the bank in {folder} is of the teacher {name!r}: {closest(name, teachers)}")
    return {name: manifest}


__all__ = ["bank_writer", "use_bank"]
