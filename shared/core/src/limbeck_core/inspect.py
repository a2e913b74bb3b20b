"""Doctor: two batches that tell, before a long run, what would silently spoil it.

Each :class:`Finding` is one sentence with the way out. Nothing is changed: weights, buffers, banks, gradients and
generators are as they were afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from limbeck_core.distiller import Distiller
from limbeck_core.errors import LimbeckError
from limbeck_core.tap import leaves, unwrap
from limbeck_core.teacher import EMATeacher, PastSelf, Teacher

Level = Literal["error", "warning", "note"]
Batch = Mapping[str, Any]

DOMINANCE = 1000.0  # a loss whose gradient is this many times the sum of the others' drowns them
SILENCE = 1e-6  # a share of the gradient below this teaches nothing
ORDER_GAP = 0.3  # accuracy that a relabelling must win, over what it wins by luck, before class order is suspected


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor saw.

    Args:
        level: ``"error"`` spoils the run, ``"warning"`` probably does, ``"note"`` is for information.
        subject: What it is about: a teacher, a match, the student.
        sentence: What is the case, and the way out.
    """

    level: Level
    subject: str
    sentence: str

    def __str__(self) -> str:
        """One line for a report."""
        return f"{self.level:7} {self.subject}: {self.sentence}"


def diagnose(distiller: Distiller, batches: Sequence[Batch]) -> list[Finding]:
    """Look at a distiller on a few batches.

    Args:
        distiller: As built for training; it is looked at in training mode and left in the mode it had.
        batches: Two batches suffice; teacher accuracy is measured over all of them, the rest on the first.

    Returns:
        Findings in the order of a step: teachers, inputs, taps and shapes, losses and gradients. What is fine is noted.
    """
    mode = distiller.training
    batches = [distiller.data_preprocessor(dict(batch), True) for batch in batches]
    distiller.train()
    findings: list[Finding] = []
    try:
        with distiller.untouched():
            for name, teacher in distiller.teachers.items():
                findings += _look_at_teacher(distiller, name, teacher, batches)
            findings += _look_at_inputs(distiller, batches[0])
            shapes = _look_at_shapes(distiller, batches[0])
            findings += shapes
            if not any(finding.level == "error" for finding in shapes):
                findings += _look_at_gradients(distiller, batches[0])
    finally:
        distiller.train(mode)
    return findings


# ---------------------------------------------------------------------- teachers


def _look_at_teacher(distiller: Distiller, name: str, teacher: Teacher, batches: Sequence[Batch]) -> Iterator[Finding]:
    if isinstance(teacher, PastSelf):
        return
    subject = f"teacher {name!r}"
    expected = {id(m) for m in teacher.model.modules() if isinstance(teacher, EMATeacher) and m.training}
    switched = [path for path, m in teacher.model.named_modules() if m.training and id(m) not in expected]
    if switched:
        yield Finding(
            "error",
            subject,
            f"{len(switched)} of its modules are in training mode "
            f"({', '.join(p or 'the model' for p in switched[:3])}), "
            "so its targets change with dropout and with the other samples of the batch: call .eval() on it, or wrap "
            "it in FrozenTeacher",
        )
    before = {key: value.clone() for key, value in teacher.model.state_dict().items()}
    outputs = []
    try:
        for _ in range(2):
            outputs.append(_raw_output(distiller, name, teacher, batches[0]))
    except (LimbeckError, RuntimeError, ValueError, TypeError) as error:
        yield Finding("error", subject, f"it cannot run on the batch: {error}")
        return
    drifted = [key for key, value in teacher.model.state_dict().items() if not torch.equal(value, before[key])]
    allowed = isinstance(teacher, EMATeacher) and teacher.mode == "batch_stats"
    if drifted and not allowed:
        yield Finding(
            "error",
            subject,
            f"its state changes when it runs ({', '.join(drifted[:3])}): BatchNorm is collecting statistics of your "
            "data; put it into evaluation mode",
        )
    first, second = (list(leaves(output)) for output in outputs)
    if any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(first, second, strict=False)):
        yield Finding(
            "warning",
            subject,
            "two runs on one batch differ, so something in it draws random numbers (dropout by torch.nn.functional, "
            "sampling): switch that off, or the student chases noise",
        )
    if any(tensor.requires_grad for tensor in first):
        yield Finding(
            "error",
            subject,
            "its output carries a gradient graph, which costs memory and time and may train it: run it under "
            "torch.no_grad, or wrap it in FrozenTeacher",
        )
    yield from _look_at_accuracy(distiller, name, batches)


def _raw_output(distiller: Distiller, name: str, teacher: Teacher, batch: Batch) -> Any:
    """Run a teacher as a step would, but without putting its modes back first."""
    with teacher.running():
        return distiller.call_of(name).capture(teacher.model, batch, distiller.view_of(name))


def _look_at_accuracy(distiller: Distiller, name: str, batches: Sequence[Batch]) -> Iterator[Finding]:
    scores, labels = [], []
    for batch in batches:
        targets = batch.get("targets")
        if not (isinstance(targets, Tensor) and targets.ndim == 1 and not targets.is_floating_point()):
            return
        prediction = distiller.predict_teacher(name, batch)
        if not (isinstance(prediction, Tensor) and prediction.ndim == 2 and len(prediction) == len(targets)):
            return
        scores.append(prediction.detach().float())
        labels.append(targets.to(prediction.device))
    logits, truth = torch.cat(scores), torch.cat(labels)
    classes = logits.shape[1]
    if int(truth.max()) >= classes:
        yield Finding(
            "error",
            f"teacher {name!r}",
            f"it scores {classes} classes, the labels go up to {int(truth.max())}: it was trained on another class "
            "list; map the classes with ClassMap, or take another teacher",
        )
        return
    guesses = logits.argmax(1)
    accuracy = float((guesses == truth).float().mean())
    relabelled = _best_relabelling(guesses, truth, classes)
    # few samples of many classes are renamed well by luck: labels in a random order tell how well
    orders = (torch.randperm(len(truth), generator=torch.Generator().manual_seed(n)) for n in range(3))
    luck = max(_best_relabelling(guesses, truth[order.to(truth.device)], classes) for order in orders)
    subject = f"teacher {name!r}"
    if relabelled - max(accuracy, luck) > ORDER_GAP:
        yield Finding(
            "error",
            subject,
            f"accuracy on these {len(truth)} samples is {accuracy:.0%}, but {relabelled:.0%} after renaming its "
            "classes: teacher and data set list the classes in different orders; join them with ClassMap",
        )
    elif accuracy < 1.5 / classes:
        yield Finding(
            "warning",
            subject,
            f"accuracy on these {len(truth)} samples is {accuracy:.0%}, which is chance for {classes} classes: its "
            "checkpoint may not have been loaded, its input may be normalised otherwise, or it belongs to other data",
        )
    else:
        yield Finding("note", subject, f"accuracy on these {len(truth)} samples is {accuracy:.0%}")


def _best_relabelling(guesses: Tensor, truth: Tensor, classes: int) -> float:
    """Accuracy after giving each guessed class the label it most often meets, one label to one class at most."""
    counts = torch.zeros(classes, classes, dtype=torch.long, device=guesses.device)
    counts.index_put_((guesses, truth), torch.ones_like(truth), accumulate=True)
    hits = 0
    for _ in range(classes):
        best = int(counts.argmax())
        row, column = divmod(best, classes)
        if int(counts[row, column]) <= 0:
            break
        hits += int(counts[row, column])
        counts[row, :] = -1
        counts[:, column] = -1
    return hits / max(len(truth), 1)


# ---------------------------------------------------------------------- inputs


def _look_at_inputs(distiller: Distiller, batch: Batch) -> Iterator[Finding]:
    """Hold what reaches each model against the normalisation it says it was trained with."""
    models: dict[str, tuple[nn.Module, str, bool]] = {}
    student = distiller.student
    models["student"] = student, distiller.student_view, _normalizes_itself(student, distiller.call)
    for name, teacher in distiller.teachers.items():
        inside = _normalizes_itself(teacher.model, distiller.call_of(name))
        models[f"teacher {name!r}"] = teacher.model, distiller.view_of(name), inside
    for subject, (model, view, inside) in models.items():
        wanted, inputs = normalization_of(model), batch.get(view)
        if wanted is None or not (isinstance(inputs, Tensor) and inputs.ndim == 4):
            continue
        mean, std = (torch.tensor(values, dtype=torch.float32) for values in wanted)
        if len(mean) != inputs.shape[1]:
            continue
        arrived = inputs.detach().float().mean((0, 2, 3)).cpu()
        raw = float(inputs.min()) >= 0.0 and float(inputs.max()) <= 1.0
        numbers = f"mean {_rounded(arrived)}, declared mean {_rounded(mean)}"
        if inside and not raw:
            yield Finding(
                "error",
                subject,
                f"it normalises its input itself, but what arrives is not in [0, 1] ({numbers}): it is normalised "
                "twice; take Normalize out of the data pipeline",
            )
        elif not inside and raw and bool(((mean / std).abs() > 0.5).any()):
            yield Finding(
                "error",
                subject,
                f"it was trained on normalised images, but what arrives lies in [0, 1] ({numbers}): wrap the model so "
                "that it normalises its own input, or normalise in the pipeline",
            )
    declared = {subject: normalization_of(model) for subject, (model, _, _) in models.items()}
    outside = {subject: values for subject, values in declared.items() if values is not None and not models[subject][2]}
    views = {models[subject][1] for subject in outside}
    if len(outside) > 1 and len(views) == 1 and len({tuple(map(tuple, values)) for values in outside.values()}) > 1:
        listed = "; ".join(f"{name} mean {list(mean)} std {list(std)}" for name, (mean, std) in outside.items())
        yield Finding(
            "error",
            "normalisation",
            f"models that were trained with different normalisations read one view ({listed}): let each model "
            "normalise its own input",
        )


def normalization_of(model: nn.Module) -> tuple[Sequence[float], Sequence[float]] | None:
    """Mean and standard deviation that a model declares: ``model.normalization``, or timm's configuration."""
    model = unwrap(model)
    declared = getattr(model, "normalization", None) or getattr(model, "pretrained_cfg", None)
    if isinstance(declared, Mapping):
        mean, std = declared.get("mean"), declared.get("std")
    else:
        mean, std = getattr(declared, "mean", None), getattr(declared, "std", None)
    return None if mean is None or std is None else (tuple(mean), tuple(std))


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 3) for value in values.tolist()]


def _normalizes_itself(model: nn.Module, call: Any) -> bool:
    """Whether the model, or the way it is called, applies the declared normalisation."""
    return bool(getattr(unwrap(model), "normalizes_input", False) or getattr(call, "normalizes_input", False))


# ---------------------------------------------------------------------- taps, shapes, losses


def _look_at_shapes(distiller: Distiller, batch: Batch) -> list[Finding]:
    try:
        rows = distiller.check(batch)
    except LimbeckError as error:
        return [Finding("error", type(error).__name__, str(error))]
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        return [Finding("error", "student", f"it cannot run on the batch: {type(error).__name__}: {error}")]
    findings = []
    for row in rows:
        text = f"{row.student} against {row.teacher}; loss {row.loss:.4g}, weight {row.weight:.4g}"
        findings.append(Finding("note", f"match {row.match!r}", text))
        if row.loss == 0.0 and row.weight != 0.0:
            findings.append(
                Finding(
                    "warning",
                    f"match {row.match!r}",
                    "its loss is exactly zero on this batch: both taps may read one tensor, a mask may drop "
                    "everything, or the batch may be too small for a relation",
                )
            )
    return findings


def _look_at_gradients(distiller: Distiller, batch: Batch) -> Iterator[Finding]:
    """Share of each loss in the gradient of the student, and parameters that none reaches."""
    trained = {name: p for name, p in distiller.named_parameters() if p.requires_grad}
    student = {name: p for name, p in trained.items() if name.startswith("student.")}
    try:
        step = distiller(batch)
    except LimbeckError as error:
        yield Finding("error", type(error).__name__, str(error))
        return
    losses = {name: value for name, value in step.items() if isinstance(value, Tensor) and "loss" in name}
    reached: set[str] = set()
    norms: dict[str, float] = {}
    for name, loss in losses.items():
        if not loss.requires_grad:
            yield Finding("warning", name, "nothing that trains contributes to it: take it out, or unfreeze")
            continue
        grads = torch.autograd.grad(loss, list(trained.values()), retain_graph=True, allow_unused=True)
        found = {key: grad for key, grad in zip(trained, grads, strict=True) if grad is not None}
        reached |= found.keys()
        squares = [found[key].float().square().sum() for key in student if key in found]
        norms[name] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    total = sum(norms.values())
    for name, norm in norms.items():
        share = norm / total if total else 0.0
        value = float(losses[name].detach())
        rest = total - norm
        if len(norms) > 1 and norm > DOMINANCE * rest and name.removeprefix("loss/") in distiller.matches:
            yield Finding(
                "warning",
                name,
                f"value {value:.4g}, {share:.2%} of the student's gradient, "
                f"{norm / rest if rest else float('inf'):.0f} times "
                "all others together: lower its weight, or normalise what it compares",
            )
        elif len(norms) > 1 and share < SILENCE:
            yield Finding(
                "warning",
                name,
                f"value {value:.4g}, only {share:.1e} of the student's gradient: it teaches nothing; raise its weight, "
                "or check that its tap depends on the student",
            )
        else:
            yield Finding("note", name, f"value {value:.4g}, {share:.1%} of the student's gradient")
    unused = [name for name in trained if name not in reached]
    if unused:
        shown = ", ".join(unused[:5]) + (", ..." if len(unused) > 5 else "")
        yield Finding(
            "error",
            "unused parameters",
            f"no loss reaches {len(unused)} of {len(trained)} trainable parameters ({shown}); data-parallel training "
            "would stop there: freeze them, or remove the module that holds them",
        )
