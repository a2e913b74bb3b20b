"""The formats of an export: how each is written, and run again from what was written."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from limbeck_core.build import build, resolve_type
from limbeck_core.engine.served import Examples, Served, first_line
from limbeck_core.errors import ConfigError, ExportError, MissingDependency
from limbeck_core.tap import leaves

WEIGHTS_FILE, CONFIG_FILE, CARD_FILE = "model.safetensors", "config.json", "README.md"
FACTS_FILE = "limbeck.json"  # inside of a torch.export program
LARGEST_MESSAGE = 2_000_000_000  # bytes: a protobuf message ends at 2 GiB, weights beyond it stand in a second file
_TALKATIVE = ("torch.onnx", "torch.export", "torch._export", "torch.fx.experimental.symbolic_shapes", "onnxscript")

Run = Callable[[Sequence[Tensor]], list[Tensor]]


class Written(NamedTuple):
    """A file that was read back.

    Args:
        run: Runs what is in the file; ``None`` if nothing here can.
        runtime: Who runs it.
        tensors: Number of weights and buffers that came back bit for bit; 0 where the format hides them.
    """

    run: Run | None
    runtime: str
    tensors: int = 0


# ---------------------------------------------------------------------- weights


def write_state_dict(served: Served, path: Path) -> Written:
    """Write weights and buffers under the model's own names, by ``torch.save``.

    Raises:
        OSError: if the disk is full.
        ExportError: if the file holds other bytes than were written.
    """
    with as_os_error(), path.open("wb") as file:
        torch.save(_weights_of(served.model), file)
    model = copy.deepcopy(served.model)
    count = _refill(model, torch.load(path, map_location="cpu", weights_only=True), served.model)
    return Written(served.of(model).run, "PyTorch", count)


def _weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers by name, each with memory of its own."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in model.state_dict().items()}


def _refill(model: nn.Module, state: Mapping[str, Tensor], original: nn.Module) -> int:
    """Fill a model from a file alone, and hold every tensor of the file against the original."""
    for value in model.state_dict().values():
        value.fill_(float("nan") if value.is_floating_point() else 0)
    model.load_state_dict(state)
    for name, value in original.state_dict().items():
        if not _same_bytes(state[name], value):
            raise ExportError(f"{name} came back from the disk with other bytes than it was written with: try again")
    return len(state)


def _same_bytes(first: Tensor, second: Tensor) -> bool:
    views = [tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in (first, second)]
    return first.dtype == second.dtype and first.shape == second.shape and torch.equal(*views)


# ---------------------------------------------------------------------- graphs


def record(served: Served, examples: Examples) -> torch.export.ExportedProgram:
    """Record what the model does as a graph that takes any batch size; no path of this machine stays in it.

    Raises:
        ExportError: if the model cannot be recorded.
    """
    size = torch.export.Dim("batch", min=1)
    shapes = {"inputs": tuple({0: size} for _ in examples.names)}
    try:
        with _quiet():
            program = torch.export.export(served, examples.largest, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # the recorder runs the model and raises whatever it does
        raise ExportError(
            f"{type(served.model).__name__} cannot be recorded as a graph with any batch size ({_why(error)}): a graph "
            "cannot decide on values or on the batch size; rewrite that part of its forward with tensor operations, or "
            "export a state_dict"
        ) from error
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


def _why(error: Exception) -> str:
    fixed = re.search(r"specialized it to be a constant \((\d+)\)", str(error))
    return f"its forward runs otherwise for a batch of {fixed[1]}" if fixed else first_line(error)


def write_pt2(program: torch.export.ExportedProgram, path: Path, facts: Mapping[str, Any]) -> Written:
    """Write a recorded graph as ``torch.export.load`` reads it; ``facts`` stand in it as the extra file limbeck.json.

    Raises:
        OSError: if the disk is full.
    """
    with as_os_error(), _quiet():
        torch.export.save(program, path, extra_files={FACTS_FILE: json.dumps(facts)})
        module = torch.export.load(path).module()

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return list(leaves(module(*inputs)))

    return Written(run, "torch.export")


def write_onnx(
    program: torch.export.ExportedProgram, examples: Examples, path: Path, facts: Mapping[str, Any]
) -> Written:
    """Write a recorded graph as ONNX; weights beyond 2 GB stand in a second file, ``<name>.data``.

    ``facts`` stand in its metadata as JSON, under ``limbeck``, and the names of the classes under ``classes`` as well.

    Raises:
        OSError: if the disk is full.
        ExportError: if an operation has no translation.
        MissingDependency: if ``onnx`` or ``onnxscript`` is not installed.
    """
    if find_spec("onnx") is None or find_spec("onnxscript") is None:
        raise MissingDependency("exporting ONNX needs onnx and onnxscript: pip install onnx onnxscript onnxruntime")
    import onnx  # noqa: PLC0415  optional

    try:
        with _quiet():
            converted: Any = torch.onnx.export(
                program,
                input_names=list(examples.names),
                output_names=list(examples.output_names),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the converter raises what each operator's translation does
        raise ExportError(
            f"the graph has an operation that ONNX lacks ({first_line(error)}): export pt2, or replace the operation"
        ) from error
    proto = converted.model_proto
    _name_batch(proto)
    onnx.helper.set_model_props(proto, {"limbeck": json.dumps(facts), "classes": json.dumps(facts["classes"])})
    large = sum(len(value.raw_data) for value in proto.graph.initializer) > LARGEST_MESSAGE
    with as_os_error():
        onnx.save_model(proto, str(path), save_as_external_data=large, location=f"{path.name}.data")
    onnx.checker.check_model(str(path))
    if find_spec("onnxruntime") is None:
        return Written(None, "ONNX Runtime is not installed: pip install onnxruntime")
    import onnxruntime  # noqa: PLC0415  optional

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    taken = {given.name for given in session.get_inputs()}  # an input that the model ignores is not in the graph

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        given = {name: tensor.numpy() for name, tensor in zip(examples.names, inputs, strict=True) if name in taken}
        return [torch.from_numpy(output) for output in session.run(None, given)]

    return Written(run, "ONNX Runtime")


def _name_batch(proto: Any) -> None:
    """Call the free axis ``batch`` everywhere, where the recorder numbers its symbols."""
    symbols = [value.type.tensor_type.shape.dim[0].dim_param for value in proto.graph.input]
    symbol = next((symbol for symbol in symbols if symbol), None)
    if symbol is None:
        return
    pattern = re.compile(rf"\b{re.escape(symbol)}\b")
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = pattern.sub("batch", dim.dim_param)


# ---------------------------------------------------------------------- hub folder


def write_hub(served: Served, folder: Path, config: Mapping[str, Any], facts: Mapping[str, Any]) -> Written:
    """Write the weights as safetensors and how to rebuild the model as JSON, then rebuild it from both.

    Args:
        served: The model.
        folder: Where to.
        config: What the model was built from, ``dict(type=..., ...)``.
        facts: Plain data that stands in the JSON file besides.

    Raises:
        OSError: if the disk is full.
        ExportError: if ``config`` names no type, or JSON cannot hold it, or it builds another model.
        MissingDependency: if ``safetensors`` is not installed.
    """
    if find_spec("safetensors") is None:
        raise MissingDependency("a hub folder holds its weights as safetensors: pip install safetensors")
    from safetensors.torch import load, save  # noqa: PLC0415  optional

    if "type" not in config:
        raise ExportError(
            "a hub folder says how its model is built, and this student was given as a module: describe it as "
            "dict(type=..., ...)"
        )
    described = plain_json(config, "model.student")
    weights = save(_weights_of(served.model), metadata={"format": "pt"})
    digest = hashlib.sha256(weights).hexdigest()
    content = json.dumps({"model": described, **facts, "weights_sha256": digest}, indent=2) + "\n"
    (folder / WEIGHTS_FILE).write_bytes(weights)
    (folder / CONFIG_FILE).write_text(content, encoding="utf-8")

    read = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))["model"]
    try:
        model = build(read)
        count = _refill(model, load((folder / WEIGHTS_FILE).read_bytes()), served.model)
    except (ConfigError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise ExportError(
            f"what config.json describes, {json.dumps(read)}, builds another model than the student "
            f"({first_line(error)}): its arguments lose their meaning in JSON, such as a tuple that becomes a list; "
            "name a function of your own as the type, and let it fill them in"
        ) from error
    return Written(served.of(model).run, "PyTorch", count)


def plain_json(value: Any, where: str) -> Any:
    """A config as JSON holds it, types by their dotted names.

    Raises:
        ExportError: naming the key of a value that JSON cannot hold.
    """
    if isinstance(value, Mapping):
        plain = {str(key): plain_json(item, f"{where}.{key}") for key, item in value.items() if key != "type"}
        return {"type": dotted(resolve_type(value["type"])), **plain} if "type" in value else plain
    value = build(value)
    if isinstance(value, (list, tuple)):
        return [plain_json(item, f"{where}.{index}") for index, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    raise ExportError(
        f"{where} is {value!r}, which JSON cannot hold: name a function of your own as the type, and let it fill that "
        "in"
    )


def dotted(target: Any) -> str:
    """The name by which a class or function is imported."""
    return f"{target.__module__}.{target.__qualname__}"


# ---------------------------------------------------------------------- manners


@contextmanager
def as_os_error() -> Iterator[None]:
    """Context in which a RuntimeError is a full disk, which is what PyTorch's writers make of one."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(first_line(error)) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Recorders warn of their own future and print their progress; what fails is raised all the same."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


__all__ = [
    "CARD_FILE",
    "CONFIG_FILE",
    "FACTS_FILE",
    "WEIGHTS_FILE",
    "Run",
    "Written",
    "dotted",
    "plain_json",
    "record",
    "write_hub",
    "write_onnx",
    "write_pt2",
    "write_state_dict",
]
