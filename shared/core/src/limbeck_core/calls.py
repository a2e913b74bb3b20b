"""How to call a model: tensor in and out, mapping in and out, or OpenMMLab's modes.

A :class:`Call` answers four questions about a family of models, so that nothing else in limbeck asks them: how to run
the student for its own loss, how to run a teacher only so that its taps are read, how to predict, and how to get the
raw output. DESIGN calls it a small protocol; each implementation is a page.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from limbeck_core.checks import check_target
from limbeck_core.errors import LimbeckError, MatchError, closest
from limbeck_core.gather import mean_scale, world_size
from limbeck_core.tap import first_length, shape_of

Batch = Mapping[str, Any]
TASK = "loss/task"


@runtime_checkable
class Call(Protocol):
    """What the distiller asks of a family of models."""

    def loss(self, model: nn.Module, batch: Batch, view: str, task_loss: nn.Module | None) -> dict[str, Any]:
        """Run the student in training and return its own losses by name (empty without a task loss)."""
        ...

    def capture(self, model: nn.Module, batch: Batch, view: str) -> Any:
        """Run a model only for its taps; labels are not needed. Returns the raw output."""
        ...

    def predict(self, model: nn.Module, batch: Batch, view: str) -> Any:
        """Return what an evaluator takes."""
        ...


@runtime_checkable
class GraphCall(Protocol):
    """For exports: what a call adds whose prediction is no fixed number of tensors, such as boxes of each image."""

    def serve(self, model: nn.Module, batch: Batch, view: str) -> Mapping[str, Tensor]:
        """Return the prediction as tensors by name whose first axis is the batch."""
        ...

    def difference(self, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
        """Largest difference of two such predictions as a share of the largest value, where order means nothing."""
        ...


class TensorCall:
    """Models that take one tensor and return a tensor (torchvision, timm, MONAI, most hand-written ones).

    A model that returns a mapping, such as :class:`~limbeck_core.teacher.Peers`, has the task loss applied to each of
    its outputs.
    """

    def loss(self, model: nn.Module, batch: Batch, view: str, task_loss: nn.Module | None) -> dict[str, Any]:
        """Run the student on the view and compare its output with ``batch["targets"]``."""
        output = self.capture(model, batch, view)
        if task_loss is None:
            return {}
        targets = _field(batch, "targets", "the task loss")
        if isinstance(output, Mapping):
            return {f"{TASK}.{name}": apply_task_loss(task_loss, value, targets) for name, value in output.items()}
        return {TASK: apply_task_loss(task_loss, output, targets)}

    def capture(self, model: nn.Module, batch: Batch, view: str) -> Any:
        """Run the model on the view."""
        return model(_field(batch, view, type(model).__name__))

    def predict(self, model: nn.Module, batch: Batch, view: str) -> Any:
        """Return the output; of several peers, the first one's, which is the one that is kept."""
        output = self.capture(model, batch, view)
        return next(iter(output.values())) if isinstance(output, Mapping) else output


class MappingCall:
    """Models that take keyword arguments and return a mapping or output object (transformers).

    Args:
        arguments: Names of the batch's fields that become keyword arguments, for a flat batch such as transformers'
            collators give; a mapping renames them (argument: field). ``None`` takes the view itself, which is then a
            mapping of keyword arguments.
        labels: Name of the argument for labels. In a flat batch it is passed to the student when present; otherwise
            the batch's ``targets`` are. ``None`` never passes labels, so the task loss must be given.
        output: Key of the output that a task loss is applied to and that prediction returns.
    """

    def __init__(
        self,
        arguments: Sequence[str] | Mapping[str, str] | None = None,
        *,
        labels: str | None = "labels",
        output: str = "logits",
    ) -> None:
        if arguments is not None and not isinstance(arguments, Mapping):
            arguments = {name: name for name in arguments}
        self.arguments = dict(arguments) if arguments is not None else None
        self.labels = labels
        self.output = output

    def _keywords(self, model: nn.Module, batch: Batch, view: str) -> dict[str, Any]:
        if self.arguments is not None:
            return {name: _field(batch, field, type(model).__name__) for name, field in self.arguments.items()}
        value = _field(batch, view, type(model).__name__)
        if not isinstance(value, Mapping):
            raise MatchError(
                f"MappingCall passes batch[{view!r}] as keyword arguments and needs a mapping there, got "
                f"{type(value).__name__}: name the fields of a flat batch with MappingCall(arguments=...)"
            )
        return dict(value)

    def loss(self, model: nn.Module, batch: Batch, view: str, task_loss: nn.Module | None) -> dict[str, Any]:
        """Run the student; its own loss counts unless a task loss is given, which then takes ``targets``."""
        keywords = self._keywords(model, batch, view)
        labels = batch.get(self.labels, batch.get("targets")) if self.labels else None
        if task_loss is not None:
            logits = _element(model(**keywords), self.output, model)
            targets = labels if labels is not None else _field(batch, "targets", "the task loss")
            return {TASK: apply_task_loss(task_loss, logits, targets)}
        if labels is not None and self.labels:
            keywords[self.labels] = labels
        output = model(**keywords)
        own = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
        return {} if own is None else {TASK: own}

    def capture(self, model: nn.Module, batch: Batch, view: str) -> Any:
        """Run the model without labels."""
        return model(**self._keywords(model, batch, view))

    def predict(self, model: nn.Module, batch: Batch, view: str) -> Any:
        """Return the ``output`` element."""
        return _element(self.capture(model, batch, view), self.output, model)


class OpenMMLabCall:
    """Models with ``forward(inputs, data_samples, mode)`` and a ``data_preprocessor`` of their own (mmdet, mmpose).

    Each model preprocesses the batch itself, so teacher and student may normalise differently. The student runs in
    ``mode="loss"``, a teacher in ``mode="tensor"``, which needs no labels and skips its loss. The data samples are
    copied for each model, since preprocessors write into them.
    """

    def loss(self, model: nn.Module, batch: Batch, view: str, task_loss: nn.Module | None) -> dict[str, Any]:
        """Return the student's own dictionary; lists of losses (one per feature level) are summed.

        Raises:
            MatchError: if a task loss is given, which these models carry inside.
        """
        if task_loss is not None:
            raise MatchError("an OpenMMLab student brings its own losses: leave task_loss out")
        losses = self._run(model, batch, view, "loss", training=True)
        return {
            name: sum(item.mean() for item in value) if isinstance(value, (list, tuple)) else value
            for name, value in losses.items()
        }

    def capture(self, model: nn.Module, batch: Batch, view: str) -> Any:
        """Run in ``mode="tensor"``."""
        return self._run(model, batch, view, "tensor", training=False)

    def predict(self, model: nn.Module, batch: Batch, view: str) -> Any:
        """Run in ``mode="predict"`` and return the data samples."""
        return self._run(model, batch, view, "predict", training=False)

    @staticmethod
    def _run(model: nn.Module, batch: Batch, view: str, mode: str, *, training: bool) -> Any:
        data = {"inputs": _field(batch, view, type(model).__name__)}
        if "data_samples" in batch:
            data["data_samples"] = copy.deepcopy(batch["data_samples"])
        preprocess = getattr(model, "data_preprocessor", None)
        if preprocess is not None:
            data = preprocess(data, training)
        return model(**data, mode=mode)


def apply_task_loss(task_loss: nn.Module, output: Any, targets: Any) -> Tensor:
    """Return the task loss, or say what does not fit: the shapes, and for class indices the label out of range.

    Raises:
        TargetError: if a label lies outside the classes.
        MatchError: if the loss fails for another reason, with both shapes.
    """
    try:
        loss: Tensor = task_loss(output, targets)
    except LimbeckError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        is_tensor = isinstance(output, Tensor) and isinstance(targets, Tensor)
        if is_tensor and output.ndim >= 2 and not targets.is_floating_point() and targets.ndim == output.ndim - 1:
            check_target(targets, output, name="targets")
        raise MatchError(
            f"the task loss {type(task_loss).__name__} failed on an output {shape_of(output)} and targets "
            f"{shape_of(targets)}: {error}"
        ) from error
    if world_size() == 1:
        return loss
    # data parallelism averages over ranks; uneven shares must count by their size
    return loss * mean_scale(first_length(output), loss.device).to(loss.dtype)


def _field(batch: Batch, name: str, reader: str) -> Any:
    if name not in batch:
        raise MatchError(f"{reader} needs {name!r} of the batch: {closest(name, [str(key) for key in batch])}")
    return batch[name]


def _element(output: Any, key: str, model: nn.Module) -> Tensor:
    value = output.get(key) if isinstance(output, Mapping) else getattr(output, key, None)
    if value is None:
        names = list(output) if isinstance(output, Mapping) else [n for n in vars(output) if not n.startswith("_")]
        raise MatchError(f"the output of {type(model).__name__} has no {key!r}: {closest(key, names)}")
    return value  # type: ignore[no-any-return]
