"""Read golden vectors, run an adapter on them, and compare values and gradients.

A golden vector is a file ``NAME__cK.npz`` (no pickles) with every input array under its own name, ``params`` (JSON),
``source`` (where the reference implementation stands), ``value``, further outputs ``out_X`` and gradients ``grad_X`` of
``value`` (of ``sum(value * cotangent)`` when ``value`` is not a scalar). ``nograd_X`` marks inputs that the reference's
graph does not reach.

An adapter is a function that calls limbeck's public pieces on a :class:`GoldenCase` and returns its outputs by key.
Where reference code deviates from its paper, the adapter reproduces the deviation; the library does not offer it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck_core.errors import CheckpointError

RELATIVE_TOLERANCE = 1e-6  # DESIGN: value and gradient, float64
_RESERVED = ("params", "source", "value", "cotangent")


@dataclass(frozen=True)
class GoldenCase:
    """One golden vector, read and ready to compute on.

    Args:
        name: Item name, for example ``"kd"``.
        index: Number K of the case.
        inputs: Input arrays by name; floating-point ones are float64 and require a gradient where the file holds one.
        params: Hyper-parameters of the reference call.
        expected: Reference outputs and gradients by key (``value``, ``out_X``, ``grad_X``).
        cotangent: Weights of a non-scalar ``value`` in the differentiated sum; ``None`` for a scalar.
        source: Repository, commit, path and function of the reference.
    """

    name: str
    index: int
    inputs: Mapping[str, Tensor]
    params: Mapping[str, Any]
    expected: Mapping[str, Tensor]
    cotangent: Tensor | None
    source: str

    def list_of(self, prefix: str) -> list[Tensor]:
        """Return the inputs ``prefix0, prefix1, ...`` in order."""
        found: list[Tensor] = []
        while (key := f"{prefix}{len(found)}") in self.inputs:
            found.append(self.inputs[key])
        return found


Adapter = Callable[[GoldenCase], Mapping[str, Tensor]]


@dataclass
class Verdict:
    """What the comparison of one case gave.

    Args:
        name: Item name.
        index: Number of the case.
        errors: Relative error by key; a key that could not be compared maps to infinity.
        problems: Sentences, empty when the case passes.
    """

    name: str
    index: int
    errors: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every key was compared and lies within the tolerance."""
        return not self.problems

    def line(self) -> str:
        """One line for the report."""
        worst = max(self.errors.values(), default=float("nan"))
        compared = f"{len(self.errors)} compared, worst relative error {worst:.1e}"
        state = "ok  " if self.passed else "MISS"
        return f"{state} {self.name}__c{self.index}: {compared}" + "".join(f"; {text}" for text in self.problems)


def read_case(path: Path) -> GoldenCase:
    """Read ``NAME__cK.npz``.

    Args:
        path: The file.

    Raises:
        CheckpointError: if the file is missing, damaged, holds pickled objects, or lacks ``value`` or ``params``.
    """
    try:
        name, _, number = path.stem.rpartition("__c")
        index = int(number)
        with np.load(path, allow_pickle=False) as arrays:
            data = {key: arrays[key] for key in arrays.files}
        params = json.loads(str(data["params"]))
        data["value"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise CheckpointError(
            f"{path} is not a readable golden vector NAME__cK.npz with 'params' and 'value' ({error}): "
            "copy it again from its source"
        ) from error
    except Exception as error:  # zipfile.BadZipFile and the like have no common base
        raise CheckpointError(f"{path} is damaged ({error}): copy it again from its source") from error
    # what has a gradient in the file is an input, whatever its name: some models' inputs to a loss are called out_X
    outputs = {k for k in data if k == "value" or (k.startswith(("out_", "grad_")) and f"grad_{k}" not in data)}
    inputs = {}
    for key in data.keys() - outputs:
        if key in _RESERVED or key.startswith("nograd_") or data[key].dtype.kind not in "fiub":
            continue
        tensor = torch.from_numpy(np.array(data[key]))
        if tensor.is_floating_point():
            tensor = tensor.double().requires_grad_(f"grad_{key}" in data)
        inputs[key] = tensor
    return GoldenCase(
        name=name,
        index=index,
        inputs=inputs,
        params=params,
        expected={key: torch.from_numpy(np.array(data[key])) for key in sorted(outputs)},
        cotangent=torch.from_numpy(np.array(data["cotangent"])) if "cotangent" in data else None,
        source=str(data["source"]) if "source" in data else "unknown",
    )


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest reference magnitude; infinity on a shape mismatch or a stray NaN.

    Infinities and NaN that the reference has at the same places agree.
    A reference that is zero everywhere is compared absolutely against 1e-9 and scaled so that the usual bar applies.
    """
    if got.numel() != expected.numel():
        return float("inf")
    got, expected = got.detach().double().flatten(), expected.double().flatten()
    if not got.numel():
        return 0.0
    same = (torch.isinf(got) & (got == expected)) | (torch.isnan(got) & torch.isnan(expected))
    difference = torch.where(same, torch.zeros_like(got), got - expected).abs().max()
    finite = expected[torch.isfinite(expected)]
    scale = finite.abs().max() if finite.numel() else torch.tensor(0.0)
    error = float(difference / scale) if float(scale) > 0 else float(difference) * 1e3
    return float("inf") if math.isnan(error) else error


def compare_case(case: GoldenCase, adapter: Adapter, *, tolerance: float = RELATIVE_TOLERANCE) -> Verdict:
    """Run ``adapter`` on ``case`` and compare every output and gradient that the file holds.

    Args:
        case: The golden vector.
        adapter: Maps the case to outputs by key; ``value`` is required.
        tolerance: Largest relative error that passes.

    Returns:
        The verdict; an exception inside the adapter is a problem of this case, not the end of the run.
    """
    verdict = Verdict(case.name, case.index)
    try:
        outputs = dict(adapter(case))
        outputs.update(_gradients(case, outputs["value"], outputs))
    except Exception as error:
        verdict.problems.append(f"{type(error).__name__}: {error}")
        return verdict
    for key, expected in case.expected.items():
        if key not in outputs:
            verdict.problems.append(f"{key} is in the file but the adapter does not compute it")
            continue
        difference = relative_error(outputs[key], expected)
        verdict.errors[key] = difference
        if not difference <= tolerance:
            verdict.problems.append(f"{key} is off by {difference:.1e} (shape {tuple(expected.shape)})")
    return verdict


def _gradients(case: GoldenCase, value: Tensor, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Differentiate ``value`` with respect to each input for which the file holds a gradient the adapter left out."""
    wanted = [k.removeprefix("grad_") for k in case.expected if k.startswith("grad_") and k not in outputs]
    wanted = [name for name in wanted if name in case.inputs]
    if not wanted:
        return {}
    scalar = value.sum() if case.cotangent is None else (value * case.cotangent).sum()
    grads = torch.autograd.grad(scalar, [case.inputs[name] for name in wanted], allow_unused=True)
    return {
        f"grad_{name}": torch.zeros_like(case.inputs[name]) if grad is None else grad
        for name, grad in zip(wanted, grads, strict=True)
    }
