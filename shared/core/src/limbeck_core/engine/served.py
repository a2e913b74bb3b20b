"""A model as a function of plain tensors, called as its config says, and inputs to hold it against its exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.calls import Call, GraphCall
from limbeck_core.errors import ExportError, LimbeckError, closest
from limbeck_core.tap import leaves

BATCH_SIZES = (1, 3)

Place = tuple[str, ...]


class Served(nn.Module):
    """A model as a function of plain tensors to what an evaluator would get.

    Args:
        model: The model.
        call: How it is called.
        view: Field of the batch that it takes.
        places: Where in the batch its tensors stand, see :func:`places_of`.
    """

    def __init__(self, model: nn.Module, call: Call, view: str, places: Sequence[Place] = ()) -> None:
        super().__init__()
        self.model = model
        self.call = call
        self.view = view
        self.places = tuple(places)
        self.output_names: tuple[str, ...] = ()  # known once it has run, where the call names them

    def of(self, model: nn.Module) -> Served:
        """The same of another model."""
        return Served(model, self.call, self.view, self.places).eval()

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the model; several outputs are a tuple.

        Raises:
            ExportError: if its prediction holds no tensor.
        """
        batch = _assemble(self.places, inputs)
        if isinstance(self.call, GraphCall):
            named = self.call.serve(self.model, batch, self.view)
            self.output_names = tuple(named)
            return tuple(named.values())
        outputs = tuple(leaves(self.call.predict(self.model, batch, self.view)))
        if not outputs:
            raise ExportError(
                f"{type(self.model).__name__} returns no tensors as its prediction, so a graph of it has none to give: "
                "export a state_dict instead"
            )
        return outputs[0] if len(outputs) == 1 else outputs

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run the model for its outputs."""
        with torch.no_grad():
            return list(leaves(self(*inputs)))


def places_of(call: Call, view: str, batch: Mapping[str, Any]) -> list[Place]:
    """Where in a batch the tensors stand that a model takes.

    Raises:
        ExportError: if a field is missing, or holds anything but tensors whose first axis is the batch.
    """
    arguments = getattr(call, "arguments", None)
    places: list[Place] = []
    for name in dict.fromkeys(arguments.values()) if arguments else [view]:
        if name not in batch:
            raise ExportError(f"the student takes {name!r} of the batch: {closest(name, [str(key) for key in batch])}")
        value = batch[name]
        inner = value.items() if isinstance(value, Mapping) else [(None, value)]
        for key, tensor in inner:
            where = name if key is None else f"{name}.{key}"
            if not isinstance(tensor, Tensor) or not tensor.ndim:
                raise ExportError(
                    f"the student's input {where!r} is a {type(tensor).__name__}; a graph takes tensors whose first "
                    "axis is the batch: give the data set a collate_fn that pads and stacks, or export a state_dict"
                )
            places.append((name,) if key is None else (name, str(key)))
    return places


def _at(batch: Mapping[str, Any], place: Place) -> Tensor:
    value: Any = batch
    for key in place:
        value = value[key]
    tensor: Tensor = value.detach().cpu()
    return tensor


def _assemble(places: Sequence[Place], tensors: Sequence[Tensor]) -> dict[str, Any]:
    batch: dict[str, Any] = {}
    for place, tensor in zip(places, tensors, strict=True):
        if len(place) == 1:
            batch[place[0]] = tensor
        else:
            batch.setdefault(place[0], {})[place[1]] = tensor
    return batch


def _sized(tensor: Tensor, count: int) -> Tensor:
    """The first ``count`` samples, from the beginning again where there are fewer."""
    repeats = -(-count // len(tensor))
    return tensor.repeat(repeats, *([1] * (tensor.ndim - 1)))[:count].contiguous()


def _random_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers within the range of a tensor, of its type."""
    if tensor.dtype == torch.bool:
        return torch.rand(tensor.shape, generator=generator) < 0.5
    low, high = tensor.min().item(), tensor.max().item()
    if tensor.is_floating_point():
        return (low + (high - low) * torch.rand(tensor.shape, generator=generator)).to(tensor.dtype)
    return torch.randint(int(low), int(high) + 1, tensor.shape, generator=generator, dtype=tensor.dtype)


@dataclass(frozen=True)
class Examples:
    """Inputs at every batch size, and what PyTorch makes of them.

    Args:
        names: Name of each input.
        inputs: The inputs of each run.
        outputs: The outputs of each run.
        kind: What the inputs are, in words.
        repeats: Whether the model gives the same twice; otherwise it draws random numbers in evaluation.
        output_names: Name of each output.
    """

    names: tuple[str, ...]
    inputs: tuple[tuple[Tensor, ...], ...]
    outputs: tuple[list[Tensor], ...]
    kind: str
    repeats: bool
    output_names: tuple[str, ...]

    @property
    def largest(self) -> tuple[Tensor, ...]:
        """Inputs of the largest batch."""
        return max(self.inputs, key=lambda tensors: len(tensors[0]))

    @property
    def single(self) -> tuple[Tensor, ...]:
        """Inputs of one sample."""
        return self.inputs[0]

    def described(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Name, type and shape of every input and of every output, the batch by that name."""
        return _described(self.names, self.single), _described(self.output_names, self.outputs[0])


def _described(names: Sequence[str], tensors: Sequence[Tensor]) -> tuple[str, ...]:
    return tuple(
        f"{name} {str(tensor.dtype).removeprefix('torch.')} ({', '.join(['batch', *map(str, tensor.shape[1:])])})"
        for name, tensor in zip(names, tensors, strict=True)
    )


def make_examples(served: Served, batch: Mapping[str, Any], *, real: bool) -> Examples:
    """Run a model on a batch, and on random numbers within its range.

    Args:
        served: The model.
        batch: A batch; from its beginning again where it has too few samples.
        real: Whether the batch holds data; otherwise it only says shape and range.

    Raises:
        ExportError: if the model does not run, or gives NaN or infinity on the first sample.
    """
    tensors = [_at(batch, place) for place in served.places]
    if not all(len(tensor) for tensor in tensors):
        raise ExportError("the batch to export with is empty: give one of at least one sample")
    generator = torch.Generator().manual_seed(0)
    drawn = [_random_like(_sized(tensor, max(BATCH_SIZES)), generator) for tensor in tensors]
    inputs = tuple(
        tuple(_sized(tensor, count) for tensor in source)
        for source in ([tensors, drawn] if real else [drawn])
        for count in BATCH_SIZES
    )
    title = type(served.model).__name__
    try:
        outputs = tuple(served.run(given) for given in inputs)
        again = served.run(inputs[0])
    except LimbeckError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs[0])
        raise ExportError(
            f"{title} does not run on an input of shape {shapes}: {first_line(error)}. Name the shape that it takes "
            "with --input-shape"
        ) from error
    for output in outputs[0]:
        if output.is_floating_point() and not bool(torch.isfinite(output).all()):
            raise ExportError(
                f"{title} gives NaN or infinity on the first sample: its checkpoint is damaged, or the run diverged; "
                "export an earlier one"
            )
    short = [place[-1] for place in served.places]
    names = tuple(short if len(set(short)) == len(short) else ["_".join(place) for place in served.places])
    repeats = all(map(torch.equal, outputs[0], again))
    count = len(outputs[0])
    numbered = ("output",) if count == 1 else tuple(f"output_{number}" for number in range(count))
    kind = "real and random" if real else "random"
    return Examples(names, inputs, outputs, kind, repeats, served.output_names or numbered)


def first_line(error: BaseException) -> str:
    """First line of a message that may go over pages."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


__all__ = ["BATCH_SIZES", "Examples", "Served", "first_line", "make_examples", "places_of"]
