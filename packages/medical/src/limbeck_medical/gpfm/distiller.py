"""GPFM's training step: the student agrees with its own moving average, and with several experts at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core import Distiller, EMATeacher, Tap
from limbeck_core.build import build
from limbeck_core.calls import TASK, Batch, TensorCall, apply_task_loss
from limbeck_core.checks import check_non_negative
from limbeck_core.errors import MatchError, closest
from limbeck_core.functional import koleo_loss
from limbeck_core.gather import mean_scale, world_size
from limbeck_core.losses import DINOLoss
from limbeck_core.schedules import Cosine, Linear, Progress, Schedule
from limbeck_core.teacher import as_teacher
from limbeck_medical.gpfm.heads import ProjectionHead
from limbeck_medical.gpfm.losses import PatchAlignmentLoss, TokenAlignmentLoss

EMA = "ema"
GLOBAL_VIEWS, LOCAL_VIEWS, MASKS = "global_views", "local_views", "masks"
SHARPNESS, SPREAD = "gpfm/teacher_entropy", "gpfm/prototype_entropy"


class TeacherCall(TensorCall):
    """The moving average: global views as they are, and the prototypes of the patches that the student has to guess."""

    hide = False

    def loss(self, model: nn.Module, batch: Batch, view: str, task_loss: nn.Module | None) -> dict[str, Any]:
        """Run the views; there is no loss of labels."""
        self.capture(model, batch, view)
        return {}

    def capture(self, model: nn.Module, batch: Batch, view: str) -> Any:
        """Run the views, view by view.

        Raises:
            MatchError: if the batch lacks a field.
        """
        return model(_flat(batch, view), _flat(batch, MASKS), self._local(batch), hide=self.hide)

    def predict(self, model: nn.Module, batch: Batch, view: str) -> Tensor:
        """Return class tokens ``(N, D)`` of the batch's ``inputs``."""
        if "inputs" not in batch:
            raise MatchError(f"features are taken of 'inputs': {closest('inputs', [str(key) for key in batch])}")
        features: Tensor = model(batch["inputs"])
        return features

    def _local(self, batch: Batch) -> Tensor | None:
        return None


class StudentCall(TeacherCall):
    """The student: global views with patches hidden, and the local views, if the batch has any."""

    hide = True

    def _local(self, batch: Batch) -> Tensor | None:
        return _flat(batch, LOCAL_VIEWS) if LOCAL_VIEWS in batch else None


class ExpertCall(TensorCall):
    """An expert: global views as they are, or in its own training images ``(N, 3, H, W)`` and their classes."""

    def loss(self, model: nn.Module, batch: Batch, view: str, task_loss: nn.Module | None) -> dict[str, Any]:
        """Run images in training; a task loss takes the scores of the expert's classifier.

        Raises:
            MatchError: if the batch lacks a field, or the expert has no classifier.
        """
        if task_loss is None:
            self.capture(model, batch, view)
            return {}
        return {TASK: apply_task_loss(task_loss, self.predict(model, batch, view), batch["targets"])}

    def predict(self, model: nn.Module, batch: Batch, view: str) -> Tensor:
        """Return class scores ``(N, classes)`` of the batch's images.

        Raises:
            MatchError: if the expert has no classifier.
        """
        found = model(batch[view])
        if "logits" not in found:
            raise MatchError("this expert has no classifier: give Expert(num_classes=...)")
        logits: Tensor = found["logits"]
        return logits

    def capture(self, model: nn.Module, batch: Batch, view: str) -> Any:
        """Run the views, view by view.

        Raises:
            MatchError: if the batch lacks the view.
        """
        return model(_flat(batch, view))


def _flat(batch: Batch, name: str) -> Tensor:
    """``(N, V, ...)`` to ``(V * N, ...)``, the first view of all samples first."""
    if name not in batch:
        raise MatchError(
            f"GPFM needs {name!r} of the batch: {closest(name, [str(key) for key in batch])}; TileViews gives it"
        )
    views: Tensor = batch[name]
    return views.transpose(0, 1).flatten(0, 1)


class GPFMDistiller(Distiller):
    """Unified distillation: DINO and iBOT with a moving average, KoLeo, and alignment with frozen experts.

    Losses: ``loss/dino`` (mean over all pairs of a teacher's view and another view of the student's), ``loss/ibot``
    (the hidden patches, each image counting alike), ``loss/koleo`` (the class tokens of each global view, summed over
    the two), ``loss/<expert>_cls`` and ``loss/<expert>_patch`` (global views alone: what the student makes of the view
    with hidden patches against what the expert makes of the whole one).

    The log also has ``gpfm/teacher_entropy``, the mean entropy of the teacher's distributions, and
    ``gpfm/prototype_entropy``, the entropy of their mean, both as shares of the largest: the first near 1 says that the
    teacher is not sure of anything, the second near 0 that it says the same of every tile.

    The heads for experts belong to the distiller, and what is left after training is the student's encoder, or better
    its moving average (``EMAHook`` with the momentum of the teacher keeps the same one for checkpoints and export).

    Args:
        student: A :class:`~limbeck_medical.gpfm.heads.TileStudent`, or a config of it.
        experts: Frozen :class:`~limbeck_medical.gpfm.encoder.Expert` models by name, configs, or
            :func:`limbeck_core.pretrained` of these; none for self-distillation alone.
        weights: Of each expert's class term and patch term. Paper's training: UNI ``(1.0, 0.25)``, Phikon
            ``(0.5, 0.125)``, CONCH ``(1.0, 0.0)``. An expert whose terms weigh nothing is not run.
        momentum: Of the moving average; a number or a schedule. Paper: 0.992 to 1 by a cosine.
        teacher_temperature: Of the moving average's scores. Paper: 0.04 to 0.07 over 30 epochs.
        student_temperature: Of the student's. Paper: 0.1.
        center_momentum: Of the two centres, of class and of patch scores. Paper: 0.9.
        dino_weight: Paper: 1.
        ibot_weight: Paper: 1.
        koleo_weight: Paper: 0.1.
        token_loss: Between class tokens, ``(N, D)`` each; the authors' other choice is
            :class:`~limbeck_core.losses.KLDivergenceLoss`. Default: one minus the cosine.
        patch_loss: Between maps of patch tokens. Default: 0.9 of one minus the cosine and 0.1 of smooth L1.
        bottleneck: Width inside an expert's head. Paper: 256.
        options: Further arguments of :class:`~limbeck_core.distiller.Distiller`.

    Raises:
        MatchError: if experts and weights do not name the same, or an expert has a reserved name or no width.
        ValueError: if a weight is negative.

    Reference:
        Ma et al., Towards A Generalizable Pathology Foundation Model via Unified Knowledge Distillation,
        arXiv:2407.18449; Oquab et al., DINOv2, arXiv:2304.07193.
    """

    def __init__(
        self,
        student: nn.Module | Mapping[str, Any],
        experts: Mapping[str, Any] | None = None,
        *,
        weights: Mapping[str, tuple[float, float]] | None = None,
        momentum: float | Schedule | Mapping[str, Any] = Cosine(0.992, 1.0),  # noqa: B008  immutable
        teacher_temperature: float | Schedule = Linear(0.04, 0.07, until=30, by="epoch"),  # noqa: B008
        student_temperature: float = 0.1,
        center_momentum: float = 0.9,
        dino_weight: float = 1.0,
        ibot_weight: float = 1.0,
        koleo_weight: float = 0.1,
        token_loss: nn.Module | Mapping[str, Any] | None = None,
        patch_loss: nn.Module | Mapping[str, Any] | None = None,
        bottleneck: int = 256,
        **options: Any,
    ) -> None:
        network: Any = build(student)
        given = {"dino_weight": dino_weight, "ibot_weight": ibot_weight, "koleo_weight": koleo_weight}
        for name, weight in given.items():
            check_non_negative(weight, name)
        pairs = self._pairs(experts or {}, weights or {})
        frozen = {name: as_teacher((experts or {})[name], network) for name in pairs}
        super().__init__(
            network,
            {EMA: EMATeacher(network, momentum), **frozen},
            student_view=GLOBAL_VIEWS,
            teacher_view=GLOBAL_VIEWS,
            call=StudentCall(),
            teacher_call={EMA: TeacherCall(), **{name: ExpertCall() for name in frozen}},
            taps={"student": Tap(""), EMA: Tap("", of=EMA), **{name: Tap("", of=name) for name in frozen}},
            **options,
        )
        self.weights = pairs
        self.self_weights = given
        shared = {
            "student_temperature": student_temperature,
            "teacher_temperature": build(teacher_temperature),
            "center_momentum": center_momentum,
        }
        prototypes = network.head.out
        self.dino = DINOLoss(prototypes, **shared)
        self.ibot = DINOLoss(prototypes, teacher_views=1, skip_same_view=False, reduction="none", **shared)
        self.token_loss: nn.Module = build(token_loss) or TokenAlignmentLoss()
        self.patch_loss: nn.Module = build(patch_loss) or PatchAlignmentLoss()
        self.heads = nn.ModuleDict(
            {
                name: ProjectionHead(network.encoder.width, self._expert_width(name), bottleneck=bottleneck)
                for name in frozen
            }
        )

    @staticmethod
    def _pairs(
        experts: Mapping[str, Any], weights: Mapping[str, tuple[float, float]]
    ) -> dict[str, tuple[float, float]]:
        if experts.keys() != weights.keys():
            raise MatchError(
                f"experts are {sorted(experts) or 'none'}, weights are for {sorted(weights) or 'none'}: give each "
                "expert its own, (class token, patches)"
            )
        if EMA in experts:
            raise MatchError(f"an expert may not be called {EMA!r}, which is the moving average")
        found = {}
        for name, (token, patch) in weights.items():
            check_non_negative(token, f"the class weight of {name}")
            check_non_negative(patch, f"the patch weight of {name}")
            if token or patch:
                found[name] = (float(token), float(patch))
        return found

    def _expert_width(self, name: str) -> int:
        width = getattr(self.teachers[name].original, "width", None)
        if not isinstance(width, int):
            raise MatchError(
                f"the expert {name!r} is a {type(self.teachers[name].original).__name__} without a width: wrap its "
                "model in Expert"
            )
        return width

    def set_progress(self, progress: Progress) -> None:
        """Tell the teacher's temperature where the run stands, too."""
        super().set_progress(progress)
        for loss in (self.dino, self.ibot):
            loss.set_progress(progress)

    def compute_losses(self, batch: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Return GPFM's losses, weighted.

        Args:
            batch: The batch, with ``global_views`` and ``masks``.
            weights: Weight of each match at this point of the run.
        """
        losses = super().compute_losses(batch, weights)
        found, wanted = self.read("student"), self.read(EMA)
        own = {
            "dino": self.dino(found["cls_logits"], wanted["cls_logits"]),
            "ibot": self._masked(found["patch_logits"], wanted["patch_logits"], _flat(batch, MASKS)),
            "koleo": torch.stack([koleo_loss(view) for view in found["cls"].chunk(2)]).sum(),
        }
        terms = {name: loss * self.self_weights[f"{name}_weight"] for name, loss in own.items()}
        for name, (token, patch) in self.weights.items():
            seen, head = self.read(name), self.heads[name]
            if token:
                terms[f"{name}_cls"] = token * self.token_loss(head(found["cls"]), seen["cls"])
            if patch:
                mine = head(found["patch"].movedim(1, -1)).movedim(-1, 1)
                terms[f"{name}_patch"] = patch * self.patch_loss(mine, seen["patch"])
        if world_size() > 1:
            scale = mean_scale(len(batch[GLOBAL_VIEWS]), found["cls"].device)
            terms = {name: loss * scale.to(loss.dtype) for name, loss in terms.items()}
        losses |= {f"loss/{name}": loss for name, loss in terms.items()}
        return {**losses, **self._watch(wanted["cls_logits"])}

    def _masked(self, student_logits: Tensor, teacher_logits: Tensor, masks: Tensor) -> Tensor:
        """Mean over global views of the mean over their hidden patches; a view without any counts as 0."""
        each: Tensor = self.ibot(student_logits, teacher_logits)
        counts = masks.flatten(1).sum(1)
        share = (1 / counts.clamp(min=1).to(each.dtype))[masks.nonzero()[:, 0]]
        return (each * share).sum() / max(len(masks), 1)

    @torch.no_grad()
    def _watch(self, teacher_logits: Tensor) -> dict[str, Tensor]:
        """Collapse in either form."""
        temperature = self.dino.teacher_temperature(self.progress or Progress())
        probabilities = ((teacher_logits.float() - self.dino.center.float()) / temperature).softmax(1)
        largest = math.log(max(probabilities.shape[1], 2))
        mean = probabilities.mean(0)
        return {
            SHARPNESS: torch.special.entr(probabilities).sum(1).mean() / largest,
            SPREAD: torch.special.entr(mean).sum() / largest,
        }
