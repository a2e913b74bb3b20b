"""Weights from files of SAM, MobileSAM, the released ESP-MedSAM, and earlier stages, part by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.build import build
from limbeck_core.errors import CheckpointError, ConfigError, closest
from limbeck_core.weights import load_weights, read_weights

# What the released code calls its parts; a controller of its own has number 0 there.
_RELEASED = {
    "SemiTViT.": "image_encoder.",
    "patch_decoder.": "patch_prompter.patch_decoder.",
    "dense_prompter.": "patch_prompter.dense_prompter.",
}
_RELEASED_CONTROLLER = {
    "deep_QKV_embeddings_med": "med_tokens",
    "med_attention_biases": "med_biases",
    "med_dah.": "med_mlps.0.",
}
REST = "rest"
_WRAPPERS = ("student.", "module.", "model.")


def with_weights(
    model: nn.Module | Mapping[str, Any],
    parts: Mapping[str, str | Path],
    *,
    controllers: Sequence[str | Path] = (),
    new: Sequence[str] = (),
) -> nn.Module:
    """Return a model with its weights read from one or several files.

    On the meta device, where a config is only looked at, nothing is read.

    Args:
        model: The model, or a config of it.
        parts: File for each part: ``image_encoder``, for example, and ``rest`` for all that no other part covers. Files
            of SAM, MobileSAM and the released ESP-MedSAM, those of earlier stages, and those of an encoder alone are
            understood. For an encoder alone, the only part is ``rest``.
        controllers: Files with one modality controller each, in the order of the model's modalities.
        new: Pieces of names that no file needs to hold, since they start from scratch: ``("med_",)`` for controllers.

    Raises:
        CheckpointError: if a file cannot be read, a name that is not ``new`` is in no file, or a shape differs.
        ConfigError: if a part is none of the model's, or there are more controllers than it has places.
    """
    built: nn.Module = build(model)
    if torch.get_default_device().type == "meta":
        return built
    wanted = built.state_dict()
    alone = not any(name.startswith("image_encoder.") for name in wanted)
    children = [name for name, _ in built.named_children()]
    found: dict[str, Tensor] = {}
    for part, path in sorted(parts.items()):
        if part != REST and (alone or part not in children):
            raise ConfigError(f"parts names {part!r}: {closest(part, [REST] if alone else [REST, *children])}")
        weights = _of_encoder(_read(path)) if alone else _placed(_read(path), part)
        covered = tuple(f"{other}." for other in parts if other not in (REST, part))
        found |= {name: value for name, value in weights.items() if not (covered and name.startswith(covered))}
    for number, path in enumerate(controllers):
        _put_controller(found, wanted, _read(path), number, "" if alone else "image_encoder.", str(path))
    title = " and ".join(str(path) for path in [*parts.values(), *controllers])
    missing = [name for name in wanted if name not in found and not any(piece in name for piece in new)]
    shapes = {n: (tuple(wanted[n].shape), tuple(v.shape)) for n, v in found.items() if n in wanted}
    differing = {name: pair for name, pair in shapes.items() if pair[0] != pair[1]}
    if differing:
        name, (ours, theirs) = next(iter(differing.items()))
        raise CheckpointError(
            f"{title}: {len(differing)} weights have other shapes than {type(built).__name__}'s, the first is {name} "
            f"with {theirs} for {ours}: build the model in the size of the file"
        )
    if missing:
        raise CheckpointError(
            f"{title} holds {len(missing)} of the weights of {type(built).__name__} not, the first is {missing[0]!r} "
            f"({closest(missing[0], found)}): give a file that does, or name what starts from scratch with new=..."
        )
    load_weights(built, found, partial=True, what=title)
    return built


def _read(path: str | Path) -> dict[str, Tensor]:
    weights = read_weights(Path(path))
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in weights):
            weights = {name[len(wrapper) :]: value for name, value in weights.items()}
    return {_renamed(name): _reshaped(name, value) for name, value in weights.items()}


def _renamed(name: str) -> str:
    for theirs, ours in _RELEASED.items():
        if name.startswith(theirs):
            name = ours + name[len(theirs) :]
    for theirs, ours in _RELEASED_CONTROLLER.items():
        name = name.replace(theirs, ours)
    return name


def _reshaped(name: str, value: Tensor) -> Tensor:
    """The released token is ``(heads, 1, width)``; here the controllers stand first."""
    return value.transpose(0, 1).contiguous() if name.endswith("deep_QKV_embeddings_med") else value


def _of_encoder(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's weights by their names in it, of a file of the whole or of the encoder alone."""
    prefix = "image_encoder."
    inside = {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}
    return inside or dict(weights)


def _placed(weights: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Return the weights of a part by their names in the whole model."""
    if part == "image_encoder":
        return {f"{part}.{name}": value for name, value in _of_encoder(weights).items()}
    return {name: value for name, value in weights.items() if part == REST or name.startswith(f"{part}.")}


def _put_controller(
    found: dict[str, Tensor],
    wanted: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    number: int,
    prefix: str,
    title: str,
) -> None:
    """Put the only controller of a file into a place of several."""
    own = {name: value for name, value in _of_encoder(weights).items() if "med_" in name}
    rows = {name for name in own if ".attn.med_" in name}
    if not own or any(len(own[name]) != 1 for name in rows):
        counts = sorted({len(own[name]) for name in rows})
        raise CheckpointError(f"{title} must hold one modality controller, it holds {counts or 'none'}")
    for name, value in own.items():
        target = prefix + name.replace("med_mlps.0.", f"med_mlps.{number}.")
        if target not in wanted or (name in rows and not 0 <= number < len(wanted[target])):
            raise ConfigError(f"the model has no controller {number} (for {target!r}): build it with more controllers")
        if name in rows:
            whole = found.setdefault(target, torch.zeros_like(wanted[target]))
            if whole.shape != wanted[target].shape:
                found[target] = whole = torch.zeros_like(wanted[target])
            whole[number] = value[0]
        else:
            found[target] = value
