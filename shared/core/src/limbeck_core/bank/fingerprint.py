"""What the content of a bank depends on, as plain data: the teacher's weights, the transforms, the very inputs.

Three checks with different reach keep a bank from teaching what its teacher never said:

- the digest of the teacher's weights, wherever the teacher is at hand;
- the description of the transforms, compared before the first step, which says what changed;
- a sketch of every input that the teacher saw, one number a sample and view, compared while training. It notices
  whatever the first two do not: another version of a library, another file under the same name, another seed.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from limbeck_core.engine.checkpoints import digest_of
from limbeck_core.engine.reseed import walk
from limbeck_core.errors import BankError
from limbeck_core.tap import leaves, unwrap
from limbeck_core.teacher import Teacher

TOLERANCE = 1e-4  # of the length of an input; augmentations differ by far more, machines by far less
_SAMPLED = 4096  # elements of an input that its sketch looks at
_SHOWN = 8  # elements of a list that a description spells out


# ---------------------------------------------------------------------- teacher


def teacher_key(teacher: nn.Module) -> dict[str, Any]:
    """Return what identifies a teacher: its class and the SHA-256 of its weights, buffers and their names.

    Args:
        teacher: The model, or a teacher around it; of one that rewrote its model to be faster, the model as it was.
    """
    model = unwrap(teacher.original if isinstance(teacher, Teacher) else teacher)
    return {"model": type(model).__name__, "weights": digest_of(dict(model.state_dict()))}


# ---------------------------------------------------------------------- transforms


def describe_transforms(dataset: Any) -> list[str]:
    """Return one line for each transform of a data set: its class and its settings.

    A transform is whatever can be called and is reached from the data set through attributes, containers, partial
    functions and closures; where the data come from does not count, so that a subset is described like the whole. Of
    absolute paths the last two parts count, so that a bank outlives a move; large arrays count by their digest.

    Args:
        dataset: The data set, as the user made it.

    Returns:
        Sorted lines without repetitions; none for a data set that transforms nothing, or does it by itself.
    """
    lines = set()
    for _, value in walk(dataset):
        transforms = isinstance(value, nn.Module) or not hasattr(type(value), "__getitem__")
        if callable(value) and transforms and not isinstance(value, types.MethodType):
            lines.add(_line(value))
    return sorted(line for line in lines if line)


def _line(value: Any) -> str:
    if isinstance(value, functools.partial):
        return f"partial({_described(value.func)}, {_described(value.args)}, {_described(value.keywords)})"
    if isinstance(value, types.FunctionType):
        # the text of a function is another one in another version of Python; what it mentions is not
        constants = [c for c in value.__code__.co_consts if isinstance(c, (int, float, str)) and c != value.__doc__]
        return f"{value.__module__}.{value.__qualname__}({_described(constants)})"
    settings = (
        {name: setting for name, setting in vars(value).items() if not name.startswith("_") and name != "training"}
        if hasattr(value, "__dict__")
        else {}
    )
    if isinstance(value, nn.Module):
        settings |= {f"weight {name}": tensor for name, tensor in value.named_parameters(recurse=False)}
        settings |= {f"buffer {name}": tensor for name, tensor in value.named_buffers(recurse=False)}
        settings |= {"modules": list(value.children())} if list(value.children()) else {}
    shown = ", ".join(f"{name}={_described(setting)}" for name, setting in sorted(settings.items()))
    return f"{_title(type(value))}({shown})"


def _title(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _described(value: Any) -> str:
    """Text that is the same in every process; objects are told by their class, and have lines of their own."""
    if isinstance(value, (str, PurePath)):
        path = PurePath(value)
        return repr("/".join(path.parts[-2:]) if path.is_absolute() else str(value))
    if value is None or isinstance(value, (bool, int, float, complex, bytes, np.generic)):
        return repr(value.item() if isinstance(value, np.generic) else value)
    if isinstance(value, Tensor):
        return f"tensor {digest_of(value)[:16]}"
    if isinstance(value, np.ndarray):
        return (
            f"array {digest_of(torch.from_numpy(value))[:16]}" if value.dtype.kind in "biuf" else f"array {value.shape}"
        )
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_described(k)}: {_described(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(_described, value))) + "}"
    if isinstance(value, (list, tuple)):
        if len(value) > _SHOWN:
            return f"{len(value)} of {digest_of([_described(item) for item in value])[:16]}"
        return "[" + ", ".join(map(_described, value)) + "]"
    if isinstance(value, type):
        return _title(value)
    if isinstance(value, (types.FunctionType, types.MethodType)):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Enum):
        return f"{_title(type(value))}.{value.name}"
    if isinstance(value, (torch.dtype, torch.device, torch.memory_format)):
        return str(value)
    return _title(type(value))


def data_key(dataset: Any) -> dict[str, Any]:
    """Return what identifies the transforms of a data set."""
    return {"transforms": describe_transforms(dataset)}


# ---------------------------------------------------------------------- inputs


@functools.lru_cache(maxsize=32)
def _direction(length: int) -> Tensor:
    # the one generator whose stream NumPy never changes
    return torch.from_numpy(np.random.RandomState(20_150_309).standard_normal(length)).float()


def sketch(inputs: Any, count: int) -> tuple[Tensor, Tensor]:
    """Return one number an input, by which it can be told from any other, and how long each input is.

    The number is the product with one fixed random direction, of at most 4096 evenly spaced elements; of several
    tensors a sample the numbers are added. A change of the input by a vector moves it by about the vector's length.

    Args:
        inputs: What the teacher takes: a tensor ``(N, ...)``, a list of one tensor a sample, or a mapping of those.
            What has no tensors gives zeros.
        count: Number of samples N.

    Returns:
        Sketches and lengths (L2 norms), float32 ``(N,)`` each, on the inputs' device.
    """
    if isinstance(inputs, (list, tuple)) and len(inputs) == count and all(isinstance(i, Tensor) for i in inputs):
        pairs = [sketch(item[None], 1) for item in inputs]
        return torch.cat([value for value, _ in pairs]), torch.cat([length for _, length in pairs])
    parts = [leaf for leaf in leaves(inputs) if leaf.ndim and len(leaf) == count]
    device = parts[0].device if parts else torch.device("cpu")
    value, square = torch.zeros(count, device=device), torch.zeros(count, device=device)
    for part in parts:
        flat = part.detach().reshape(count, -1)
        # an odd step goes through all columns of an image
        step = max(1, -(-flat.shape[1] // _SAMPLED)) | 1
        sampled = flat[:, ::step].float()
        value = value + sampled @ _direction(sampled.shape[1]).to(sampled.device)
        square = square + sampled.square().sum(1)
    return value, square.sqrt()


def differ(mine: Tensor, length: Tensor, stored: Tensor) -> Tensor:
    """Return which sketches belong to different inputs, boolean ``(N,)``."""
    return ~((mine - stored).abs() <= TOLERANCE * length + 1e-6)


# ---------------------------------------------------------------------- comparing samples


def refuse_unrepeatable(first: Any, second: Any, dataset: Any, what: str) -> None:
    """Raise if a sample that was drawn twice with the same seeds is not the same twice.

    Raises:
        BankError: naming the transforms, one of which draws from a generator that nobody could find.
    """
    if digest_of(_plain(first)) == digest_of(_plain(second)):
        return
    names = [line.partition("(")[0] for line in describe_transforms(dataset)]
    suspects = ", ".join(names) or type(dataset).__qualname__
    raise BankError(
        f"{what} differs when it is drawn twice with the same seed: one of {suspects} draws from a generator of its "
        "own that cannot be seeded. Let it draw from the global generators of Python, NumPy or PyTorch, or give it a "
        "method set_random_state(seed)"
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value)) if value.dtype.kind in "biuf" else value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(item) for item in value]
    if isinstance(value, Tensor) or value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value
    return type(value).__name__


__all__ = ["data_key", "describe_transforms", "differ", "refuse_unrepeatable", "sketch", "teacher_key"]
