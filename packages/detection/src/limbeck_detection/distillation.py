"""One detector teaches another: class scores, boxes and edge distributions of queries that stand for the same object.

Queries of two detectors have no common order, nor number. They are joined by the assignment of least cost between what
they predict, in each image anew. Fits detectors whose classes are scored by sigmoids, one independent of the other:
D-FINE, RT-DETR, Deformable DETR, DINO. Feature maps need no queries: the losses of :mod:`limbeck_core.losses`
(``MaskedGenerativeLoss``, ``ChannelWiseDivergenceLoss``, ``PearsonFeatureLoss``) compare them through taps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from limbeck_core import Distiller, Tap
from limbeck_core.adapters import ClassMap
from limbeck_core.build import build
from limbeck_core.checks import check_non_negative, check_positive, explain_non_finite
from limbeck_core.errors import MatchError, ShapeError
from limbeck_core.functional.precision import at_least_float32, without_autocast
from limbeck_core.gather import all_sum, world_size
from limbeck_core.tap import Pick
from limbeck_detection.boxes import box_cxcywh_to_xyxy, paired_giou, paired_iou, pairwise_giou
from limbeck_detection.dfine.losses import decoupled_distillation_focal_loss
from limbeck_detection.dfine.matcher import Pairs
from limbeck_detection.dfine.regression import translate_gt, weighting_function

_NO_MASS = 1e-12  # probability of a bin that a distribution carried to other bins does not reach
_WIDTH_GUARD = 1e-16  # of a reference box without extent


@dataclass(frozen=True)
class Queries:
    """What a detector's queries predict for a batch.

    Args:
        logits: Class logits, shape ``(B, Q, C)``.
        boxes: ``(cx, cy, w, h)`` in units of the image, shape ``(B, Q, 4)``.
        corners: Logits of the four edge distributions, shape ``(B, Q, 4 * bins)``, for detectors that have them.
        references: Boxes whose edges those move, shape ``(B, Q, 4)``.
        up: Shape ``(1,)``; see :func:`~limbeck_detection.dfine.regression.weighting_function`.
        reg_scale: Shape ``(1,)``.
    """

    logits: Tensor
    boxes: Tensor
    corners: Tensor | None = None
    references: Tensor | None = None
    up: Tensor | None = None
    reg_scale: Tensor | None = None


@dataclass(frozen=True)
class QueryTaps:
    """Where to read :class:`Queries` of a detector; same fields."""

    logits: Tap
    boxes: Tap
    corners: Tap | None = None
    references: Tap | None = None
    up: Tap | None = None
    reg_scale: Tap | None = None

    def named(self) -> dict[str, Tap]:
        """The taps that are there, by field."""
        return {name: tap for name, tap in vars(self).items() if tap is not None}


def dfine_queries(*, teacher: bool = False) -> QueryTaps:
    """Queries of :class:`~limbeck_detection.dfine.DFINE`'s last decoder layer, with edge distributions.

    Args:
        teacher: Whether the detector is the teacher, whose output in evaluation has no edge distributions: they are
            read inside the decoder. A student's are read at the output, without its denoising queries.
    """
    decoder = "decoder.decoder"
    places: dict[str, Pick] = {
        "logits": ("logits", -1),
        "boxes": ("boxes", -1),
        "corners": ("corners", -1),
        "references": "ref_points",
    }
    outputs = {"logits": "pred_logits", "boxes": "pred_boxes", "corners": "pred_corners", "references": "ref_points"}
    taps = (
        {name: Tap(decoder, pick=place) for name, place in places.items()}
        if teacher
        else {name: Tap("", pick=place) for name, place in outputs.items()}
    )
    return QueryTaps(**taps, up=Tap("decoder.up"), reg_scale=Tap("decoder.reg_scale"))


def transformers_queries(*, refined: bool = False) -> QueryTaps:
    """Queries of RT-DETR and Deformable DETR of transformers.

    Args:
        refined: Whether the detector has edge distributions
            (:func:`~limbeck_detection.refinement.refine_transformers`).
    """
    return QueryTaps(Tap("", pick="logits"), Tap("", pick="pred_boxes"), **_refined_taps(refined))


def mmdet_queries(*, teacher: bool = False, refined: bool = False) -> QueryTaps:
    """Queries of Deformable DETR and DINO of mmdet, called by :class:`~limbeck_core.calls.OpenMMLabCall`.

    Args:
        teacher: Whether the detector is the teacher, which is called otherwise than a student.
        refined: Whether the detector has edge distributions (:func:`~limbeck_detection.refinement.refine_mmdet`).
    """
    path = "" if teacher else "bbox_head"
    return QueryTaps(Tap(path, pick=(0, -1)), Tap(path, pick=(1, -1)), **_refined_taps(refined))


def _refined_taps(refined: bool) -> dict[str, Tap]:
    if not refined:
        return {}
    return {
        "corners": Tap("refinement.result", pick=("corners", -1)),
        "references": Tap("refinement.result", pick="first"),
        "up": Tap("refinement.up"),
        "reg_scale": Tap("refinement.reg_scale"),
    }


@torch.no_grad()
def match_queries(
    student: Queries,
    teacher: Queries,
    *,
    class_cost: float = 2.0,
    bbox_cost: float = 5.0,
    giou_cost: float = 2.0,
) -> list[Pairs]:
    r"""Join queries of two detectors one to one, at the least total cost.

    .. math:: cost = w_c \, \|p_s - p_t\|_1 + w_b \, \|b_s - b_t\|_1 + w_g \, (1 - GIoU(b_s, b_t))

    with :math:`p` the sigmoid scores of all classes. Where one side has more queries, those that fit worst stay alone.

    Args:
        student: Predictions with the teacher's classes in the teacher's order.
        teacher: Predictions for the same images.
        class_cost: :math:`w_c`, 0 or more.
        bbox_cost: :math:`w_b`.
        giou_cost: :math:`w_g`.

    Returns: Pairs of each image; ``queries`` are the student's, ``targets`` the teacher's.

    Raises:
        ShapeError: if shapes do not fit.
        ValueError: if a weight is negative.
        NonFiniteError: if a prediction is NaN or infinite.

    Reference: Chang et al., DETRDistill: A Universal Knowledge Distillation Framework for DETR-families,
        arXiv:2211.10156, section 3.2 (the assignment between the queries of student and teacher).
    """
    for name, value in (("class_cost", class_cost), ("bbox_cost", bbox_cost), ("giou_cost", giou_cost)):
        check_non_negative(value, name)
    _check_pair(student, teacher)
    costs = []
    for image in range(len(student.logits)):
        scores, goals = (at_least_float32(side.logits[image]).sigmoid().double() for side in (student, teacher))
        boxes, places = (side.boxes[image].double() for side in (student, teacher))
        overlap = pairwise_giou(box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(places))
        distance = bbox_cost * torch.cdist(boxes, places, p=1) + giou_cost * (1 - overlap)
        costs.append(class_cost * torch.cdist(scores, goals, p=1) + distance)
    if not costs:
        return []
    table = torch.stack(costs).cpu()
    if not bool(torch.isfinite(table).all()):
        for side, whose in ((student, "student"), (teacher, "teacher")):
            explain_non_finite(side.logits, f"logits of the {whose}'s queries")
            explain_non_finite(side.boxes, f"boxes of the {whose}'s queries")
    found = [linear_sum_assignment(block) for block in table.numpy()]
    return [Pairs(torch.as_tensor(rows).long(), torch.as_tensor(columns).long()) for rows, columns in found]


def _check_pair(student: Queries, teacher: Queries) -> None:
    for side, whose in ((student, "student"), (teacher, "teacher")):
        if side.logits.ndim != 3 or side.boxes.shape != (*side.logits.shape[:2], 4):
            raise ShapeError(
                f"the {whose}'s queries need logits (B, Q, C) and boxes (B, Q, 4), got {tuple(side.logits.shape)} and "
                f"{tuple(side.boxes.shape)}"
            )
    if len(student.logits) != len(teacher.logits):
        raise ShapeError(
            f"student and teacher must see the same images, got {len(student.logits)} and {len(teacher.logits)}"
        )
    if student.logits.shape[-1] != teacher.logits.shape[-1]:
        raise ShapeError(
            f"the student scores {student.logits.shape[-1]} classes, the teacher {teacher.logits.shape[-1]}: say which "
            "are the same with class_map=(...), for each class of the student its index in the teacher's list"
        )


def carry_corners(
    probabilities: Tensor,
    references: Tensor,
    new_references: Tensor,
    *,
    reg_max: int,
    up: Tensor,
    reg_scale: Tensor,
    new_reg_max: int,
    new_up: Tensor,
    new_reg_scale: Tensor,
) -> Tensor:
    """Say of other reference boxes, on other bins, where edges are expected.

    Each bin stands for a place of the edge in the image. Its probability is split between the two new bins around that
    place, so that the expected place stays; what lies beyond the last new bin goes to that one.

    Args:
        probabilities: Of left, top, right and bottom edge, shape ``(N, 4, reg_max + 1)``.
        references: Boxes ``(cx, cy, w, h)`` that they speak of, shape ``(N, 4)``.
        new_references: Boxes to speak of, shape ``(N, 4)``.
        reg_max: Number of bins less one.
        up: See :func:`~limbeck_detection.dfine.regression.weighting_function`.
        reg_scale: See the same.
        new_reg_max: Of the new bins.
        new_up: Of the new bins.
        new_reg_scale: Of the new bins.

    Returns: Probabilities, shape ``(N, 4, new_reg_max + 1)``, without gradient.

    Raises:
        ShapeError: if the shapes do not fit.
    """
    count = len(probabilities)
    if probabilities.shape != (count, 4, reg_max + 1) or not references.shape == new_references.shape == (count, 4):
        raise ShapeError(
            f"probabilities must have shape (N, 4, {reg_max + 1}) and both references (N, 4), got "
            f"{tuple(probabilities.shape)}, {tuple(references.shape)} and {tuple(new_references.shape)}"
        )
    with torch.no_grad():
        dtype = probabilities.dtype
        side = references.new_tensor([-1.0, -1.0, 1.0, 1.0]).to(dtype)
        centre, extent = (references[:, part].repeat(1, 2).to(dtype) for part in (slice(2), slice(2, 4)))
        new_centre, new_extent = (new_references[:, part].repeat(1, 2).to(dtype) for part in (slice(2), slice(2, 4)))
        scale, new_scale = reg_scale.abs().to(dtype), new_reg_scale.abs().to(dtype)
        shifts = weighting_function(reg_max, up.to(dtype), reg_scale.to(dtype))
        places = centre[..., None] + side[:, None] * (0.5 * scale + shifts) * (extent / scale)[..., None]
        away = (places - new_centre[..., None]) * side[:, None]
        moved = away / (new_extent / new_scale + _WIDTH_GUARD)[..., None] - 0.5 * new_scale
        target = translate_gt(moved, new_reg_max, new_reg_scale.to(dtype), new_up.to(dtype))
        left = target.bins.long().reshape_as(probabilities)
        carried = probabilities.new_zeros(count, 4, new_reg_max + 1)
        for offset, share in ((0, target.weight_left), (1, target.weight_right)):
            carried.scatter_add_(-1, left + offset, probabilities * share.reshape_as(probabilities))
        return carried


class QueryDistillation(nn.Module):
    r"""A teacher's queries teach those of the student that predict the same.

    The teacher's surest queries, as many as the student has, are joined with the student's (:func:`match_queries`).
    Over pairs, with :math:`w` the teacher's largest class score and :math:`n` the sum of all :math:`w`, 1 at least:

    =================  ===============================================================================================
    term               loss
    =================  ===============================================================================================
    ``query_scores``   :math:`\sum w \, KL(p_t \| p_s) / n`, each class a yes or no, summed over classes
    ``query_bbox``     :math:`\sum w \, \|b_s - b_t\|_1 / n`
    ``query_giou``     :math:`\sum w \, (1 - GIoU) / n`
    ``query_corners``  decoupled distillation focal loss of the edge distributions, where both detectors have them
    =================  ===============================================================================================

    Edge distributions of two detectors speak of different boxes. The teacher's are carried to the student's reference
    boxes and bins first (:func:`carry_corners`), so neither those nor ``reg_max`` need to agree. Pairs of a teacher
    score of ``sure`` and more stand for the matched queries of D-FINE's loss, and weigh by the IoU of the two boxes;
    the others weigh by the teacher's score.

    Weighing by the teacher's score is a choice made here: queries of the background are many and alike. Queries of the
    student without a partner are not taught. All terms are 0 for equal predictions, in whatever order, as far as boxes
    have an area.

    Args:
        scores_weight: Weight of ``query_scores``.
        bbox_weight: Weight of ``query_bbox``.
        giou_weight: Weight of ``query_giou``.
        corners_weight: Weight of ``query_corners``; 0 needs no edge distributions.
        temperature: Of ``query_scores``: softness of both sides' scores, above 0.
        corners_temperature: Of ``query_corners``: the same. D-FINE: ``T``.
        sure: Of ``query_corners``: teacher's score from which on a query counts as an object.
        class_map: For each of the student's classes its index in the teacher's list, or -1 where the teacher does not
            know it; such a class is not taught. Default: the lists are the same.
        num_queries: Ordinary queries of the student, the last of each image, where denoising queries come before them
            in training: needed for RT-DETR of transformers and DINO of mmdet. Default: all.
        class_cost: See :func:`match_queries`.
        bbox_cost: See :func:`match_queries`.
        giou_cost: See :func:`match_queries`.

    Raises:
        ValueError: if an argument is out of range, or ``class_map`` names a class twice or none.

    Reference: Chang et al., DETRDistill, arXiv:2211.10156, section 3.2 (matched queries); Peng et al., D-FINE,
        arXiv:2410.13842, eq. 5-6 (edge distributions).
    """

    known: Tensor

    def __init__(
        self,
        *,
        scores_weight: float = 1.0,
        bbox_weight: float = 5.0,
        giou_weight: float = 2.0,
        corners_weight: float = 0.0,
        temperature: float = 1.0,
        corners_temperature: float = 5.0,
        sure: float = 0.5,
        class_map: Sequence[int] | None = None,
        num_queries: int | None = None,
        class_cost: float = 2.0,
        bbox_cost: float = 5.0,
        giou_cost: float = 2.0,
    ) -> None:
        super().__init__()
        weights = {"scores": scores_weight, "bbox": bbox_weight, "giou": giou_weight, "corners": corners_weight}
        costs = {"class_cost": class_cost, "bbox_cost": bbox_cost, "giou_cost": giou_cost}
        for name, value in (*((f"{term}_weight", weight) for term, weight in weights.items()), *costs.items()):
            check_non_negative(value, name)
        check_positive(temperature, "temperature")
        check_positive(corners_temperature, "corners_temperature")
        if not 0 <= sure <= 1:
            raise ValueError(f"sure must be a score in [0, 1], got {sure!r}")
        if num_queries is not None:
            check_positive(num_queries, "num_queries")
        self.weights = weights
        self.costs = costs
        self.temperature = temperature
        self.corners_temperature = corners_temperature
        self.sure = sure
        self.num_queries = num_queries
        self.num_classes = None if class_map is None else len(class_map)
        indices = [] if class_map is None else [int(index) for index in class_map]
        self.teacher_classes = None if class_map is None else ClassMap([index for index in indices if index != -1])
        places = torch.tensor([place for place, index in enumerate(indices) if index != -1], dtype=torch.int64)
        self.register_buffer("known", places, persistent=False)

    def forward(self, student: Queries, teacher: Queries) -> dict[str, Tensor]:
        """Compare.

        Args:
            student: The student's predictions.
            teacher: The teacher's, for the same images. Gradients never flow into them.

        Returns: The terms, weighted, scalars; those that weigh nothing are absent. Without a query, zeros that carry a
            gradient.

        Raises:
            ShapeError: if shapes do not fit.
            MatchError: if ``query_corners`` is asked for and a side has no edge distributions.
            NonFiniteError: if a prediction is NaN or infinite.
        """
        with without_autocast(student.logits):
            return self._compare(self._ordinary(student), _detached(teacher))

    def _ordinary(self, student: Queries) -> Queries:
        count = self.num_queries
        if count is None:
            return student
        if student.logits.shape[1] < count:
            raise ShapeError(f"num_queries is {count}, but the student has {student.logits.shape[1]} queries an image")
        cut = {name: value[:, -count:] for name, value in _present(student).items() if name not in ("up", "reg_scale")}
        return Queries(**{**_present(student), **cut})

    def _in_common(self, student: Queries, teacher: Queries) -> tuple[Queries, Queries]:
        """Both sides with the classes that both know."""
        if self.teacher_classes is None:
            return student, teacher
        if student.logits.shape[-1] != self.num_classes:
            raise ShapeError(
                f"class_map is for {self.num_classes} classes of the student, which scores {student.logits.shape[-1]}"
            )
        ours = student.logits.index_select(-1, self.known)
        theirs = self.teacher_classes(teacher.logits.transpose(1, 2)).transpose(1, 2)
        return (
            Queries(**{**_present(student), "logits": ours}),
            Queries(**{**_present(teacher), "logits": theirs}),
        )

    def _compare(self, student: Queries, teacher: Queries) -> dict[str, Tensor]:
        student, teacher = self._in_common(student, teacher)
        _check_pair(student, teacher)
        teacher = _surest(teacher, student.logits.shape[1])
        pairs = match_queries(student, teacher, **self.costs)
        device = student.logits.device
        images = torch.cat([torch.full_like(p.queries, i) for i, p in enumerate(pairs)] or [_none()]).to(device)
        ours = torch.cat([p.queries for p in pairs] or [_none()]).to(device)
        theirs = torch.cat([p.targets for p in pairs] or [_none()]).to(device)
        logits, boxes = (at_least_float32(value)[images, ours] for value in (student.logits, student.boxes))
        goal, goal_boxes = (
            at_least_float32(v)[images, theirs].to(logits.dtype) for v in (teacher.logits, teacher.boxes)
        )
        score = goal.sigmoid().amax(-1)
        total = (all_sum(score.sum()) / world_size()).clamp(min=1.0)
        found = {}
        if self.weights["scores"]:
            found["scores"] = (score * self._divergence(logits, goal)).sum() / total
        if self.weights["bbox"]:
            found["bbox"] = (score * (boxes - goal_boxes).abs().sum(-1)).sum() / total
        if self.weights["giou"]:
            overlap = paired_giou(box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(goal_boxes))
            found["giou"] = (score * (1 - overlap)).sum() / total
        if self.weights["corners"]:
            found["corners"] = self._edges(student, teacher, (images, ours, theirs), score)
        return {f"query_{name}": loss * self.weights[name] for name, loss in found.items()}

    def _divergence(self, logits: Tensor, goal: Tensor) -> Tensor:
        softened, target = logits / self.temperature, goal / self.temperature
        probabilities = target.sigmoid()
        cross = binary_cross_entropy_with_logits(softened, probabilities, reduction="none")
        entropy = binary_cross_entropy_with_logits(target, probabilities, reduction="none")
        return (cross - entropy).sum(-1) * self.temperature**2

    def _edges(self, student: Queries, teacher: Queries, pairs: tuple[Tensor, Tensor, Tensor], score: Tensor) -> Tensor:
        images, ours, theirs = pairs
        own, goal = _edges_of(student, "student"), _edges_of(teacher, "teacher")
        bins, goal_bins = own.corners.shape[-1] // 4, goal.corners.shape[-1] // 4
        corners = at_least_float32(own.corners)[images, ours].reshape(-1, 4, bins)
        # double precision: a rounding error beside a sharp peak would be a tail once softened
        probabilities = carry_corners(
            goal.corners[images, theirs].reshape(-1, 4, goal_bins).double().softmax(-1),
            goal.references[images, theirs].double(),
            own.references.detach()[images, ours].double(),
            reg_max=goal_bins - 1,
            up=goal.up,
            reg_scale=goal.reg_scale,
            new_reg_max=bins - 1,
            new_up=own.up.detach(),
            new_reg_scale=own.reg_scale.detach(),
        )
        boxes, goal_boxes = student.boxes.detach()[images, ours], teacher.boxes[images, theirs]
        overlap = paired_iou(box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(goal_boxes.to(boxes.dtype)))
        matched = score >= self.sure
        weight = torch.where(matched, overlap.to(score.dtype), score)
        return decoupled_distillation_focal_loss(
            corners,
            probabilities.clamp(min=_NO_MASS).log().to(corners.dtype),
            matched=matched[:, None].expand(-1, 4),
            weight=weight[:, None].expand(-1, 4),
            temperature=self.corners_temperature,
        )


@dataclass(frozen=True)
class _Edges:
    corners: Tensor
    references: Tensor
    up: Tensor
    reg_scale: Tensor


def _edges_of(queries: Queries, whose: str) -> _Edges:
    present = _present(queries)
    missing = [name for name in ("corners", "references", "up", "reg_scale") if name not in present]
    if missing:
        raise MatchError(
            f"query_corners compares edge distributions, and the {whose}'s queries lack {', '.join(missing)}: take a "
            "detector that has them (D-FINE, or limbeck_detection.refinement), or corners_weight=0"
        )
    return _Edges(*(present[name] for name in ("corners", "references", "up", "reg_scale")))


def _present(queries: Queries) -> dict[str, Tensor]:
    return {name: value for name, value in vars(queries).items() if value is not None}


def _detached(queries: Queries) -> Queries:
    return Queries(**{name: value.detach() for name, value in _present(queries).items()})


def _surest(queries: Queries, count: int) -> Queries:
    """The queries with the largest scores, ``count`` of each image at most."""
    if queries.logits.shape[1] <= count:
        return queries
    index = queries.logits.amax(-1).topk(count, dim=1).indices[..., None]
    taken = {
        name: value.gather(1, index.expand(-1, -1, value.shape[-1]))
        for name, value in _present(queries).items()
        if name not in ("up", "reg_scale")
    }
    return Queries(**{**_present(queries), **taken})


def _none() -> Tensor:
    return torch.zeros(0, dtype=torch.int64)


class DetectionDistiller(Distiller):
    """A distiller whose teacher's queries teach the student's, besides any matches (of feature maps, for example).

    Logs ``loss/query_scores`` and so on next to the student's own losses and ``loss/<match>``.

    Args:
        student: As for :class:`~limbeck_core.distiller.Distiller`.
        teacher: The same; one teacher.
        matches: The same.
        queries: What of the queries is compared, or a config of it; default :class:`QueryDistillation`.
        student_queries: Where the student's queries are read.
        teacher_queries: Where the teacher's are; default: as the student's.
        options: Further arguments of :class:`~limbeck_core.distiller.Distiller`.

    Raises:
        TapError: if a tap names a place that does not exist.

    Example::

        DetectionDistiller(dfine_n(), dfine_l(), task_loss=DFINECriterion(), call=DetectionCall(),
                           student_queries=dfine_queries(), teacher_queries=dfine_queries(teacher=True))
    """

    def __init__(
        self,
        student: nn.Module | Mapping[str, Any],
        teacher: nn.Module | Mapping[str, Any],
        matches: Mapping[str, Any] | None = None,
        *,
        queries: QueryDistillation | Mapping[str, Any] | None = None,
        student_queries: QueryTaps | Mapping[str, Any],
        teacher_queries: QueryTaps | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        ours: QueryTaps = build(student_queries)
        theirs: QueryTaps = build(teacher_queries) or ours
        taps = dict(options.pop("taps", None) or {})
        for taps_of, owner in ((ours, "student"), (theirs, "teacher")):
            for name, tap in taps_of.named().items():
                taps[f"{owner}_{name}"] = Tap(tap.path, owner, tap.pick, tap.call, tap.at, tap.clone)
        super().__init__(student, teacher, matches, taps=taps, **options)
        self.queries: QueryDistillation = build(queries) or QueryDistillation()
        self._fields = {"student": tuple(ours.named()), "teacher": tuple(theirs.named())}

    def compute_losses(self, batch: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Tensor]:
        """The matches' losses and those of the queries."""
        losses = super().compute_losses(batch, weights)
        sides = [
            Queries(**{name: self.read(f"{owner}_{name}") for name in fields}) for owner, fields in self._fields.items()
        ]
        terms = {f"loss/{name}": loss for name, loss in self.queries(*sides).items()}
        clash = terms.keys() & losses.keys()
        if clash:
            raise MatchError(
                f"a match is called {', '.join(sorted(clash))}, as a term of the queries: rename the match"
            )
        return {**losses, **terms}
