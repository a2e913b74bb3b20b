"""Run a function of a test file on several gloo ranks, each a process of its own."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def on_ranks(folder: Path, function: Callable[..., Any], *args: Any, world: int = 2) -> list[Any]:
    """Call ``function(rank, *args)`` on every rank and return what each returned, tensors and plain data.

    The function must stand at the top level of its file: pytest's import mode gives test files no importable name, so
    each process loads the file by its path.
    """
    source = inspect.getsourcefile(function)
    mp.spawn(_worker, args=(str(folder), source, function.__name__, args, world), nprocs=world, join=True)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


def _worker(rank: int, folder: str, source: str, name: str, args: tuple[Any, ...], world: int) -> None:
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("ranked_test", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    try:
        torch.save(getattr(module, name)(rank, *args), Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
    # about one process in thirty aborts in the destructors of PyTorch's threads at the end of the interpreter, when its
    # work is done and saved
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
