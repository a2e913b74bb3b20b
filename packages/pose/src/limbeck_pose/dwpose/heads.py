"""The second stage of DWPose: a trained head teaches a new one on the same frozen backbone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from limbeck_core import Distiller, Match, Tap
from limbeck_core.build import build
from limbeck_core.calls import TensorCall
from limbeck_core.errors import MatchError, TapError, closest
from limbeck_core.teacher import Teacher

FEATURES = "backbone_features"


class HeadCall(TensorCall):
    """Run a model's head alone where the batch holds the features, the whole model where it does not.

    Args:
        head: Name of the head.
    """

    def __init__(self, head: str = "head") -> None:
        self.head = head

    def capture(self, model: nn.Module, batch: Mapping[str, Any], view: str) -> Any:
        """Run the head on ``batch[view]``, or the model on ``batch["inputs"]``."""
        if view in batch:
            return getattr(model, self.head)(batch[view])
        return super().capture(model, batch, "inputs")


class HeadDistiller(Distiller):
    """Head-aware self-distillation: the student is the teacher with its head drawn anew and its backbone frozen.

    No label is read. The backbone stays in evaluation mode and out of the optimiser, and runs once a step: the
    teacher's head takes the student's features, which are its own. What is exported is the backbone with the new head.

    Args:
        teacher: The trained model, or a config of one (``dict(type=pretrained, ...)``).
        matches: What to compare, by name. Paper: the scores along both axes, weight 1, throughout.
        backbone: Name of the submodule that both share; its output is the head's only input.
        head: Name of the submodule that is drawn anew by its ``reset_parameters()``.
        options: Further arguments of :class:`~limbeck_core.distiller.Distiller`.

    Raises:
        TapError: if the model lacks one of the submodules.
        MatchError: if the head cannot be drawn anew, or a task loss is given.

    Reference:
        Yang et al., Effective Whole-body Pose Estimation with Two-stages Distillation, arXiv:2307.15880, section 3.3.
    """

    def __init__(
        self,
        teacher: nn.Module | Mapping[str, Any],
        matches: Mapping[str, Match | Mapping[str, Any]],
        *,
        backbone: str = "backbone",
        head: str = "head",
        **options: Any,
    ) -> None:
        built = build(teacher)
        trained: nn.Module = built.model if isinstance(built, Teacher) else built
        names = [name for name, _ in trained.named_children()]
        for name in (backbone, head):
            if name not in names:
                raise TapError(
                    f"{name!r} is not a submodule of the teacher ({type(trained).__name__}); {closest(name, names)}"
                )
        if options.get("task_loss") is not None:
            raise MatchError("the second stage reads no labels: leave task_loss out")
        # a teacher that starts from the same weights would teach nothing: the loss is 0 at once
        student = copy.deepcopy(trained).requires_grad_(True)
        draw = getattr(getattr(student, head), "reset_parameters", None)
        if not callable(draw):
            raise MatchError(
                f"{type(getattr(student, head)).__name__} has no reset_parameters(), so the student's head cannot be "
                "drawn anew: give the head's class one"
            )
        draw()
        super().__init__(
            student,
            built,
            matches,
            freeze=(backbone,),
            taps={FEATURES: Tap(backbone)},
            teacher_view=FEATURES,
            teacher_call=HeadCall(head),
            **options,
        )

    def _run_teachers(self, batch: Mapping[str, Any], weights: Mapping[str, float]) -> None:
        super()._run_teachers({**batch, FEATURES: self.read(FEATURES).detach()}, weights)
