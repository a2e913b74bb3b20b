"""A training set cut in two by chance: a part to train on, and one to choose settings by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from torch.utils.data import Dataset, Subset

from limbeck_core.build import build
from limbeck_core.errors import ConfigError, DataError

_STREAM = 1


@runtime_checkable
class Divisible(Protocol):
    """A data set that knows how to make a part of itself: one whose labels or counts must follow."""

    def subset(self, indices: Sequence[int]) -> Dataset[Any]:
        """Return the samples at these positions, under their old ids."""
        ...


class Part(Subset[Any]):
    """Chosen samples of a data set; whatever else is asked of it, the whole answers (``classes``, say)."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("dataset", "indices"):
            raise AttributeError(name)  # asked before __init__ has run, as when it is copied or unpickled
        return getattr(self.dataset, name)


def held_out_part(
    dataset: Dataset[Any] | Mapping[str, Any], *, count: float, held_out: bool, seed: int = 0
) -> Dataset[Any]:
    """Return one of the two parts; described alike but for ``held_out``, they are together the whole.

    Args:
        dataset: The whole training set, or a config of it. One with a method ``subset(indices)`` makes its part itself.
        count: How many samples are held out; or, below 1, which share of them.
        held_out: This is the part that is held out, or the rest.
        seed: Which samples are held out.

    Returns:
        The part, in the order of the whole.

    Raises:
        DataError: if one of the parts would be empty.
    """
    whole: Any = build(dataset)
    number = round(count * len(whole)) if count < 1 else int(count)
    if not 0 < number < len(whole):
        raise DataError(
            f"count must leave samples in both parts of {len(whole)}, got {count}: give a number below that, or a "
            "share such as 0.2"
        )
    # the generator whose stream NumPy never changes; labels do not matter, so noise in them moves nothing. A stream of
    # its own: a data set that draws its wrong labels with the same seed would have them all held out
    order = np.random.RandomState([seed, _STREAM]).permutation(len(whole))
    indices = np.sort(order[:number] if held_out else order[number:]).tolist()
    return whole.subset(indices) if isinstance(whole, Divisible) else Part(whole, indices)


def hold_out(
    settings: Any, count: float, clean: Mapping[str, Any] | None = None, *, inside: bool = False
) -> dict[str, Any]:
    """Cut a config's training set in two: overrides that train on one part and validate on the other.

    The held-out part is looked at as validation data are: arguments of its data set that are objects, such as
    transforms, are the validation set's; plain ones, such as a folder, stay the training set's.

    Args:
        settings: A loaded config.
        count: How many training samples are held out, or which share of them.
        clean: Arguments of the data set changed for the held-out part alone, such as ``{"label_noise": 0.0}``.
        inside: Hold out before whatever the config does to its data set (pruning, a long tail) instead of after it, so
            that the held-out part is of the whole data set.

    Returns:
        The two data sets by dotted key.

    Raises:
        ConfigError: if the config lacks one of the two data sets, or ``clean`` names an argument that is not given.
    """
    for part in ("train_dataloader", "val_dataloader"):
        if not settings.get(part) or "dataset" not in settings[part]:
            raise ConfigError(f"holding out needs {part}.dataset, which this config lacks")
    whole = _absolute(_plain(settings.train_dataloader.dataset))
    looked_at = _looked_at(whole, _innermost(_plain(settings.val_dataloader.dataset)), clean or {})
    common = {
        "type": f"{held_out_part.__module__}.{held_out_part.__qualname__}",  # a name, which the log can print
        "count": int(count) if count >= 1 else count,
    }
    train = {**common, "dataset": whole, "held_out": False}
    if inside:
        train = _around_innermost(whole, {**common, "held_out": False})
        looked_at = _innermost(looked_at)
    return {
        "train_dataloader.dataset": train,
        "val_dataloader.dataset": {**common, "dataset": looked_at, "held_out": True},
    }


def _plain(dataset: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", dataset.to_dict() if hasattr(dataset, "to_dict") else dict(dataset))


def _innermost(dataset: dict[str, Any]) -> dict[str, Any]:
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    return dataset


def _around_innermost(dataset: dict[str, Any], wrapper: Mapping[str, Any]) -> dict[str, Any]:
    if "dataset" in dataset:
        return {**dataset, "dataset": _around_innermost(dataset["dataset"], wrapper)}
    return {**wrapper, "dataset": dataset}


def _absolute(dataset: dict[str, Any]) -> dict[str, Any]:
    """Fix the folder of the data, which a second reading of the config would put behind the data root again."""
    changed = {name: _absolute(value) if name == "dataset" else value for name, value in dataset.items()}
    root: Any = changed.get("root")
    if isinstance(root, str):
        changed["root"] = str(Path(root).absolute())
    return changed


def _looked_at(dataset: dict[str, Any], validation: dict[str, Any], clean: Mapping[str, Any]) -> dict[str, Any]:
    """The innermost training set with the objects of the validation set, and with the values of ``clean``."""
    if "dataset" in dataset:
        return {**dataset, "dataset": _looked_at(dataset["dataset"], validation, clean)}
    for name in clean:
        if name not in dataset:
            raise ConfigError(f"clean {name!r} changes nothing: the training data set is given {', '.join(dataset)}")
    plain = {name: value for name, value in dataset.items() if not _is_object(value)}
    return {**plain, **{name: value for name, value in validation.items() if _is_object(value)}, **clean}


def _is_object(value: Any) -> bool:
    """Whether a config value is built: a mapping with a type, or a list of such."""
    if isinstance(value, Mapping):
        return "type" in value
    return isinstance(value, (list, tuple)) and bool(value) and all(_is_object(item) for item in value)
