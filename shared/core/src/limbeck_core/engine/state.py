"""Everything that a run remembers besides weights, as plain data: generators, partial gradients, histories, ranks.

Plain data are numbers, strings, bytes, tensors, and lists, tuples and dictionaries of them: what ``torch.load`` reads
with ``weights_only=True``, so that resuming never runs code from a file.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.distributed as torch_dist
from mmengine.dist import get_dist_info
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from limbeck_core.engine.checkpoints import digest_of
from limbeck_core.errors import CheckpointError

HISTORY = 10_000  # values kept of each logged scalar; averages in the log look back over fewer
# written anew by each run, or descriptions of the run that are no state
_NOT_STATE = {"cfg", "seed", "experiment_name", "mmengine_version", "dataset_meta", "loop_stage", "eta"}

Path = tuple[Any, ...]


@runtime_checkable
class Stateful(Protocol):
    """A model or hook that remembers more than its registered tensors.

    The checkpoint asks the unwrapped model and every hook that has these methods. The distiller puts the state of its
    moving-average teachers here.
    """

    def state_dict_extra(self) -> Mapping[str, Any]:
        """Return the state as plain data and tensors."""
        ...

    def load_state_dict_extra(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict_extra` returned."""
        ...


# ---------------------------------------------------------------------- generators


def _cuda_is_in_use() -> bool:
    return bool(torch.cuda.is_available() and torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def capture_generators() -> dict[str, Any]:
    """Return the state of this process's generators: Python, NumPy, PyTorch, and CUDA where it is in use."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {
            "kind": kind,
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.default_generator.get_state(),
    }
    if _cuda_is_in_use():
        state["cuda"] = [device.cpu() for device in torch.cuda.get_rng_state_all()]
    return state


def restore_generators(state: Mapping[str, Any]) -> None:
    """Put generators into a captured state; states of devices that this machine lacks are left out."""
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state((numpy["kind"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"]))
    torch.default_generator.set_state(state["torch"])
    for device, device_state in enumerate(state.get("cuda", ())):
        if device < torch.cuda.device_count():
            torch.cuda.set_rng_state(device_state, device)


def seed_generators(seed: int, *, accelerators: bool = False) -> None:
    """Seed Python, NumPy and PyTorch on the CPU; accelerators if asked, which preparing data never does."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if accelerators:
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@contextmanager
def isolated(seed: int | None = None) -> Iterator[None]:
    """Context in which random numbers may be drawn without anybody outside noticing.

    Args:
        seed: What to seed the generators with inside; ``None`` lets them go on from where they are.
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(legacy=True), torch.default_generator.get_state()
    cuda = torch.cuda.get_rng_state_all() if _cuda_is_in_use() else None
    if seed is not None:
        seed_generators(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.default_generator.set_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


# ---------------------------------------------------------------------- plain data


def plain(value: Any, where: str) -> Any:
    """Return ``value`` as plain data with its tensors on the CPU.

    Args:
        value: Numbers, strings, tensors, NumPy values, and containers of them.
        where: How to name it in the error.

    Raises:
        CheckpointError: naming what cannot be written, for example ``optimizer.state.0.fn``.
    """
    if value is None or type(value) in (bool, int, float, str, bytes, torch.dtype):
        return value
    if isinstance(value, Tensor):
        return _plain_tensor(value, where)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return torch.from_numpy(np.ascontiguousarray(value).copy())
    if isinstance(value, Mapping):
        return {plain(key, f"{where} (a key)"): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [plain(item, f"{where}.{number}") for number, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    raise CheckpointError(
        f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be stored as plain data: keep "
        "numbers, strings, tensors, or lists and dictionaries of them"
    )


def _plain_tensor(tensor: Tensor, where: str) -> Tensor:
    if hasattr(tensor, "placements"):
        raise CheckpointError(
            f"{where} is sharded over processes (DTensor), and checkpoints hold whole tensors: train with data "
            "parallelism, or save with torch.distributed.checkpoint"
        )
    tensor = tensor.detach().cpu()
    # a view would drag the whole storage behind it into the file
    whole = (
        tensor.layout == torch.strided and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    )
    return tensor if whole else tensor.clone()


def capture_scheduler(scheduler: Any, where: str) -> dict[str, Any]:
    """State of a parameter scheduler without the functions among its attributes, which its construction made."""
    return {
        name: plain(value, f"{where}.{name}") for name, value in scheduler.state_dict().items() if not callable(value)
    }


def capture_messages(hub: MessageHub) -> tuple[dict[str, Any], list[str]]:
    """Return MMEngine's logged scalars and run information as plain data, and the names that could not be."""
    scalars, info, left_out = {}, {}, []
    resumed = hub._resumed_keys
    for name, buffer in hub.log_scalars.items():
        if resumed.get(name, False):
            values, counts = (np.asarray(part, dtype=np.float64)[-HISTORY:] for part in buffer.data)
            scalars[name] = {"values": torch.from_numpy(values.copy()), "counts": torch.from_numpy(counts.copy())}
    for name, value in hub.runtime_info.items():
        if resumed.get(name, False) and name not in _NOT_STATE:
            try:
                info[name] = plain(value, name)
            except CheckpointError:
                left_out.append(name)
    return {"scalars": scalars, "info": info}, left_out


def restore_messages(hub: MessageHub, state: Mapping[str, Any]) -> None:
    """Put captured scalars and information back into a message hub."""
    for name, buffer in state["scalars"].items():
        hub.log_scalars[name] = HistoryBuffer(buffer["values"].numpy(), buffer["counts"].numpy().astype(np.int64))
        hub._resumed_keys[name] = True
    for name, value in state["info"].items():
        hub._runtime_info[name] = value
        hub._resumed_keys[name] = True


# ---------------------------------------------------------------------- accumulation


def _wrappers(optim_wrapper: Any) -> list[Any]:
    return list(optim_wrapper.values()) if isinstance(optim_wrapper, OptimWrapperDict) else [optim_wrapper]


def plan_accumulation(optim_wrapper: Any, done: int, total: int) -> None:
    """Tell the optimiser how many batches a run of them has, so that its last, smaller group is stepped too.

    MMEngine divides the loss of each batch by the size of its group; with ``total`` known, the last group is divided by
    its own size.

    Args:
        optim_wrapper: The runner's.
        done: Batches already gone through.
        total: Batches after which an open group is closed.
    """
    for wrapper in _wrappers(optim_wrapper):
        if hasattr(wrapper, "_accumulative_counts"):
            wrapper._inner_count = done
            wrapper._max_counts = total
            wrapper._remainder_counts = total % wrapper._accumulative_counts


def just_stepped(optim_wrapper: Any) -> bool:
    """Whether the last batch closed its group, so that the optimiser stepped."""
    return all(wrapper.should_update() for wrapper in _wrappers(optim_wrapper) if hasattr(wrapper, "should_update"))


def capture_gradients(model: nn.Module, optim_wrapper: Any) -> dict[str, Tensor]:
    """Gradients of an open group by parameter name; empty between groups."""
    if just_stepped(optim_wrapper):
        return {}
    return {
        name: _plain_tensor(parameter.grad, f"gradient of {name}")
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def restore_gradients(model: nn.Module, gradients: Mapping[str, Tensor]) -> None:
    """Put captured gradients back.

    Raises:
        CheckpointError: if a parameter of that name and shape does not exist.
    """
    parameters = dict(model.named_parameters())
    for name, gradient in gradients.items():
        if name not in parameters or parameters[name].shape != gradient.shape:
            raise CheckpointError(
                f"the checkpoint holds a partial gradient of {name}, shape {tuple(gradient.shape)}, which the model "
                "lacks: resume with the model that wrote it"
            )
        parameters[name].grad = gradient.to(parameters[name].device, copy=True)


# ---------------------------------------------------------------------- ranks


def leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Walk plain data: paths and values of everything that is no container, and of empty containers."""
    items: Sequence[tuple[Any, Any]] = ()
    if isinstance(tree, Mapping):
        items = list(tree.items())
    elif isinstance(tree, (list, tuple)):
        items = list(enumerate(tree))
    if not items:
        yield path, tree
    for key, value in items:
        yield from leaves(value, (*path, key))


def replaced(tree: Any, changes: Mapping[Path, Any]) -> Any:
    """Return plain data with the values at some paths exchanged."""
    if () in changes:
        return changes[()]
    if not changes:
        return tree
    below: dict[Any, dict[Path, Any]] = {}
    for path, value in changes.items():
        below.setdefault(path[0], {})[path[1:]] = value
    if isinstance(tree, Mapping):
        return {key: replaced(value, below.get(key, {})) for key, value in tree.items()}
    return type(tree)(replaced(value, below.get(number, {})) for number, value in enumerate(tree))


def gather_ranks(own: Mapping[str, Any], shared: Any) -> list[dict[str, Any]]:
    """Collect the state of every rank on rank 0. All ranks must call it.

    Args:
        own: State that each rank has of its own (generators, partial gradients).
        shared: State that ranks mostly have in common (buffers, what the model remembers). Rank 0's goes into the
            checkpoint by itself; of the others only what differs is collected, for example running statistics between
            two synchronisations.

    Returns:
        On rank 0 one entry a rank, ``own`` with ``differs``: a list of (path, value). Elsewhere an empty list.
    """
    rank, world_size = get_dist_info()
    mine = dict(leaves(shared))
    if world_size == 1:
        return [{**own, "differs": []}]
    digests: list[Any] = [{path: digest_of(value) for path, value in mine.items()}] if rank == 0 else [None]
    torch_dist.broadcast_object_list(digests, src=0)
    reference = digests[0] or {}
    if rank == 0:
        differs: list[tuple[Path, Any]] = []
    elif mine.keys() != reference.keys():
        differs = [((), shared)]
    else:
        differs = [(path, value) for path, value in mine.items() if digest_of(value) != reference[path]]
    entry = {**own, "differs": differs}
    collected: list[Any] | None = [None] * world_size if rank == 0 else None
    torch_dist.gather_object(entry, collected, dst=0)
    return collected or []
