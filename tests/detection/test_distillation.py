"""Queries of one detector taught by those of another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

from limbeck_core import MappingCall, Match
from limbeck_core.errors import MatchError, NonFiniteError, ShapeError
from limbeck_core.losses import PearsonFeatureLoss
from limbeck_detection.boxes import box_cxcywh_to_xyxy
from limbeck_detection.calls import DetectionCall
from limbeck_detection.dfine import DFINECriterion, dfine
from limbeck_detection.dfine.regression import distance2bbox, integral, weighting_function
from limbeck_detection.distillation import (
    DetectionDistiller,
    Queries,
    QueryDistillation,
    carry_corners,
    dfine_queries,
    match_queries,
    transformers_queries,
)

UP, SCALE = torch.tensor([0.5]).double(), torch.tensor([4.0]).double()
ALL = {"corners_weight": 1.5}


def make(seed: int = 0, *, batch: int = 2, queries: int = 6, classes: int = 3, bins: int = 33) -> Queries:
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    def boxes() -> Tensor:
        return torch.cat([0.3 + 0.4 * rand(batch, queries, 2), 0.2 + 0.3 * rand(batch, queries, 2)], dim=-1)

    logits, corners = 6 * rand(batch, queries, classes) - 3, 4 * rand(batch, queries, 4 * bins)
    return Queries(logits, boxes(), corners, boxes(), UP, SCALE)


def learning(queries: Queries) -> Queries:
    names = ("logits", "boxes", "corners")
    return replace(queries, **{name: getattr(queries, name).clone().requires_grad_() for name in names})


def permuted(queries: Queries, seed: int = 7) -> Queries:
    order = torch.randperm(queries.logits.shape[1], generator=torch.Generator().manual_seed(seed))
    names = ("logits", "boxes", "corners", "references")
    return replace(queries, **{name: getattr(queries, name)[:, order] for name in names})


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def test_equal_detectors_have_nothing_to_learn() -> None:
    queries = make()
    student = learning(queries)
    losses = QueryDistillation(**ALL)(student, permuted(queries))
    assert losses.keys() == {"query_scores", "query_bbox", "query_giou", "query_corners"}
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(0, abs=1e-9), name
    gradient = torch.autograd.grad(losses["query_scores"] + losses["query_corners"], [student.logits, student.corners])
    assert all(part.abs().max() < 1e-7 for part in gradient)


def test_the_order_of_queries_does_not_count() -> None:
    student, teacher = make(1), make(2)
    losses = QueryDistillation(**ALL)(student, teacher)
    assert all(loss > 0 for loss in losses.values())
    again = QueryDistillation(**ALL)(permuted(student, 3), permuted(teacher, 4))
    for name, loss in losses.items():
        torch.testing.assert_close(again[name], loss)


def test_gradients_reach_the_student_alone() -> None:
    student, teacher = learning(make(1)), learning(make(2))
    total(QueryDistillation(**ALL)(student, teacher)).backward()
    for name in ("logits", "boxes", "corners"):
        assert getattr(student, name).grad.abs().sum() > 0
        assert getattr(teacher, name).grad is None


def test_descent_leads_to_the_teacher() -> None:
    student, teacher = learning(make(1)), make(2)
    student = replace(student, references=teacher.references)
    distillation = QueryDistillation(**ALL)
    optimizer = torch.optim.Adam([student.logits, student.boxes, student.corners], lr=0.05)
    before = total(distillation(student, teacher)).item()
    for _ in range(150):
        optimizer.zero_grad()
        total(distillation(student, teacher)).backward()
        optimizer.step()
    assert total(distillation(student, teacher)).item() < 0.2 * before


@pytest.mark.parametrize(("ours", "theirs"), [(4, 9), (9, 4)])
def test_numbers_of_queries_may_differ(ours: int, theirs: int) -> None:
    teacher = make(2, queries=theirs)
    student = learning(make(1, queries=ours))
    pairs = match_queries(student, teacher)
    assert [len(found.queries) for found in pairs] == [4, 4]
    losses = QueryDistillation(**ALL)(student, teacher)
    total(losses).backward()
    taught = student.logits.grad.abs().sum(-1) > 0
    assert taught.sum(1).tolist() == [4, 4]


def test_a_larger_teacher_sends_its_surest_queries() -> None:
    """Background of the teacher fits the student better, and would take the place of its one object."""
    student = replace(make(1, batch=1, queries=2), logits=torch.full((1, 2, 3), -4.0).double())
    teacher = make(2, batch=1, queries=8)
    logits = torch.full((1, 8, 3), -4.0).double()
    logits[0, 5, 1] = 5.0
    boxes = teacher.boxes.clone()
    boxes[0, 5] = torch.tensor([0.05, 0.05, 0.1, 0.1])
    teacher = replace(teacher, logits=logits, boxes=boxes)
    assert 5 not in match_queries(student, teacher)[0].targets.tolist()
    assert QueryDistillation()(student, teacher)["query_scores"] > 3


def test_denoising_queries_are_left_out() -> None:
    student, teacher = make(1, queries=9), make(2)
    last = {name: getattr(student, name)[:, -6:] for name in ("logits", "boxes", "corners", "references")}
    cut = QueryDistillation(num_queries=6, **ALL)(student, teacher)
    plain = QueryDistillation(**ALL)(replace(student, **last), teacher)
    for name in plain:
        torch.testing.assert_close(cut[name], plain[name])
    with pytest.raises(ShapeError, match="num_queries is 10, but the student has 9"):
        QueryDistillation(num_queries=10)(student, teacher)


def test_class_lists_are_joined_by_an_index_map() -> None:
    teacher = make(2, classes=5)
    student = replace(teacher, logits=teacher.logits[..., [4, 0, 2]])
    unknown = torch.cat([student.logits, torch.randn(2, 6, 1).double()], dim=-1)
    for logits, class_map in ((student.logits, [4, 0, 2]), (unknown, [4, 0, 2, -1])):
        queries = learning(replace(student, logits=logits))
        losses = QueryDistillation(class_map=class_map, **ALL)(queries, permuted(teacher))
        assert total(losses).item() == pytest.approx(0, abs=1e-9)
    moved = learning(replace(student, logits=unknown + 1))
    QueryDistillation(class_map=[4, 0, 2, -1])(moved, teacher)["query_scores"].backward()
    assert (moved.logits.grad[..., :3].abs() > 0).all()
    assert not moved.logits.grad[..., 3].any()
    with pytest.raises(ShapeError, match=r"student scores 3 classes, the teacher 5.*class_map"):
        QueryDistillation()(student, teacher)
    with pytest.raises(ShapeError, match="class_map is for 2 classes of the student, which scores 3"):
        QueryDistillation(class_map=[0, 1])(student, teacher)
    with pytest.raises(ValueError, match="each once"):
        QueryDistillation(class_map=[0, 0, 1])


def test_an_image_without_objects_weighs_little() -> None:
    """The teacher is sure of nothing in the second image: its pairs hardly count."""
    teacher = make(2)
    sure = teacher.logits.clone()
    sure[0, :, 0], sure[1] = 6.0, -9.0
    teacher = replace(teacher, logits=sure)
    student = learning(make(1))
    QueryDistillation()(student, teacher)["query_bbox"].backward()
    size = student.boxes.grad.abs().amax((1, 2))
    assert size[1] < 1e-3 * size[0]


@pytest.mark.parametrize(("batch", "queries"), [(0, 6), (2, 0)])
def test_nothing_to_compare_is_a_zero_with_a_gradient(batch: int, queries: int) -> None:
    student = learning(make(1, batch=batch, queries=queries))
    losses = QueryDistillation(**ALL)(student, make(2, batch=batch, queries=queries))
    assert total(losses).item() == 0
    total(losses).backward()
    assert student.logits.grad is not None


def test_half_precision_is_raised() -> None:
    student, teacher = make(1), make(2)
    whole = QueryDistillation(**ALL)(student, teacher)
    fields = {name: value.to(torch.bfloat16) for name, value in vars(student).items()}
    half = QueryDistillation(**ALL)(Queries(**fields), teacher)
    assert all(loss.dtype == torch.float32 for loss in half.values())
    assert total(half).item() == pytest.approx(total(whole).item(), rel=0.05)


# ------------------------------------------------------------------ edge distributions


def expected_boxes(probabilities: Tensor, references: Tensor, reg_max: int, scale: Tensor) -> Tensor:
    shifts = (probabilities * weighting_function(reg_max, UP, scale)).sum(-1)
    return distance2bbox(references, shifts, scale)


def carried(probabilities: Tensor, old: Tensor, new: Tensor, *, bins: int = 33, scale: Tensor = SCALE) -> Tensor:
    return carry_corners(
        probabilities, old, new, reg_max=probabilities.shape[-1] - 1, up=UP, reg_scale=SCALE,
        new_reg_max=bins - 1, new_up=UP, new_reg_scale=scale,
    )  # fmt: skip


def test_carried_to_the_same_boxes_distributions_stay() -> None:
    queries = make()
    assert queries.corners is not None
    assert queries.references is not None
    probabilities = queries.corners.reshape(-1, 4, 33).softmax(-1)
    references = queries.references.flatten(0, 1)
    torch.testing.assert_close(carried(probabilities, references, references), probabilities, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("bins", "scale"), [(33, 4.0), (17, 8.0)])
def test_carried_to_other_boxes_and_bins_the_expected_box_stays(bins: int, scale: float) -> None:
    torch.manual_seed(0)
    logits = torch.full((20, 4, 33), -30.0).double()
    logits[..., 8:25] = torch.randn(20, 4, 17).double()
    probabilities = logits.softmax(-1)
    old = torch.cat([0.4 + 0.2 * torch.rand(20, 2), 0.3 + 0.1 * torch.rand(20, 2)], dim=1).double()
    new = old + 0.05 * torch.randn(20, 4).double()
    new_scale = torch.tensor([scale]).double()
    found = carried(probabilities, old, new, bins=bins, scale=new_scale)
    torch.testing.assert_close(found.sum(-1), torch.ones(20, 4).double())
    before = box_cxcywh_to_xyxy(expected_boxes(probabilities, old, 32, SCALE))
    after = box_cxcywh_to_xyxy(expected_boxes(found, new, bins - 1, new_scale))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-9)


def test_what_lies_beyond_the_bins_goes_to_the_last() -> None:
    probabilities = torch.full((1, 4, 33), 1 / 33).double()
    far, near = torch.tensor([[0.9, 0.5, 0.1, 0.1]]).double(), torch.tensor([[0.1, 0.5, 0.1, 0.1]]).double()
    found = carried(probabilities, far, near)
    assert found[0, 0, 0].item() == pytest.approx(1)
    assert found[0, 2, 32].item() == pytest.approx(1)


def test_edges_learn_where_the_teacher_expects_them() -> None:
    """With other references and bins on both sides, descent brings the student's boxes to the teacher's."""
    teacher = make(2, queries=3)
    student = replace(make(1, queries=3, bins=17), logits=teacher.logits, boxes=teacher.boxes)
    student = replace(student, references=teacher.references + 0.02)
    corners = torch.zeros_like(student.corners).requires_grad_()
    distillation = QueryDistillation(scores_weight=0, bbox_weight=0, giou_weight=0, corners_weight=1)
    optimizer = torch.optim.Adam([corners], lr=0.1)

    def box(logits: Tensor, queries: Queries, bins: int) -> Tensor:
        return distance2bbox(queries.references, integral(logits, weighting_function(bins - 1, UP, SCALE)), SCALE)

    goal = box(teacher.corners, teacher, 33)
    before = (box(corners, student, 17) - goal).abs().mean().item()
    for _ in range(200):
        optimizer.zero_grad()
        total(distillation(replace(student, corners=corners), teacher)).backward()
        optimizer.step()
    assert (box(corners, student, 17) - goal).abs().mean().item() < 0.25 * before


def test_errors_name_the_side() -> None:
    student, teacher = make(1), make(2)
    with pytest.raises(MatchError, match="the teacher's queries lack references, up: take a detector that has them"):
        QueryDistillation(**ALL)(student, replace(teacher, references=None, up=None))
    with pytest.raises(ShapeError, match=r"the student's queries need logits .* got \(2, 6\)"):
        QueryDistillation()(replace(student, logits=student.logits[..., 0]), teacher)
    with pytest.raises(ShapeError, match="the same images, got 2 and 1"):
        QueryDistillation()(student, make(2, batch=1))
    bad = replace(teacher, boxes=teacher.boxes * float("nan"))
    with pytest.raises(NonFiniteError, match="boxes of the teacher's queries"):
        QueryDistillation()(student, bad)
    with pytest.raises(ShapeError, match=r"\(N, 4, 33\) and both references"):
        carry_corners(
            torch.rand(2, 4, 9), torch.rand(2, 4), torch.rand(2, 4), reg_max=32, up=UP, reg_scale=SCALE,
            new_reg_max=32, new_up=UP, new_reg_scale=SCALE,
        )  # fmt: skip
    for wrong in ({"sure": 2.0}, {"temperature": 0.0}, {"bbox_weight": -1.0}, {"num_queries": 0}, {"class_cost": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            QueryDistillation(**wrong)  # type: ignore[arg-type]


# ------------------------------------------------------------------ detectors

TARGETS = [
    {"labels": torch.tensor([0, 2]), "boxes": torch.tensor([[0.3, 0.3, 0.2, 0.3], [0.6, 0.6, 0.3, 0.2]])},
    {"labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)},
]


def tiny_dfine(layers: int, queries: int) -> nn.Module:
    return dfine(
        3, backbone="B0", out_stages=(2, 3), encoder_dim=32, encoder_feedforward=32, expansion=0.34, depth_mult=0.34,
        decoder_dim=32, decoder_feedforward=32, layers=layers, heads=4, points=(2, 2), num_queries=queries,
        num_denoising=8, input_size=(64, 64),
    )  # fmt: skip


def tiny_rt_detr() -> nn.Module:
    stages: dict[str, Any] = {
        "embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic",
        "out_features": ["stage2", "stage3", "stage4"],
    }  # fmt: skip
    return RTDetrForObjectDetection(
        RTDetrConfig(
            backbone_config=RTDetrResNetConfig(**stages),
            num_labels=3,
            encoder_in_channels=[16, 16, 16],
            encoder_hidden_dim=16,
            encoder_ffn_dim=16,
            encoder_attention_heads=2,
            hidden_expansion=0.5,
            d_model=16,
            decoder_in_channels=[16, 16, 16],
            decoder_ffn_dim=16,
            decoder_attention_heads=2,
            decoder_layers=2,
            decoder_n_points=2,
            num_queries=10,
            num_denoising=12,
        )
    )


def test_dfine_teaches_a_smaller_dfine_queries_edges_and_maps() -> None:
    torch.manual_seed(0)
    student, teacher = tiny_dfine(2, 10), tiny_dfine(3, 14)
    distiller = DetectionDistiller(
        student,
        teacher,
        {"maps": Match(PearsonFeatureLoss(), "encoder.fpn_blocks.0", "encoder.fpn_blocks.0")},
        queries=QueryDistillation(corners_weight=1.5),
        student_queries=dfine_queries(),
        teacher_queries=dfine_queries(teacher=True),
        task_loss=DFINECriterion(),
        call=DetectionCall(),
    ).train()
    losses = distiller({"inputs": torch.rand(2, 3, 64, 64), "targets": TARGETS})
    names = {"loss/query_scores", "loss/query_bbox", "loss/query_giou", "loss/query_corners", "loss/maps", "loss/vfl"}
    assert losses.keys() >= names
    torch.stack([losses[name] for name in names]).sum().backward()
    assert student.decoder.dec_bbox_head[0].layers[-1].weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any("teacher" in name or "queries" in name for name in distiller.state_dict())


def test_dfine_teaches_rt_detr_of_transformers() -> None:
    torch.manual_seed(0)
    student = tiny_rt_detr()
    distiller = DetectionDistiller(
        student,
        tiny_dfine(2, 12),
        queries=QueryDistillation(num_queries=10, class_map=[2, 0, 1]),
        student_queries=transformers_queries(),
        teacher_queries=dfine_queries(teacher=True),
        call=MappingCall({"pixel_values": "inputs"}),
        teacher_call=DetectionCall(),
    ).train()
    labels = [{"class_labels": target["labels"], "boxes": target["boxes"]} for target in TARGETS]
    losses = distiller({"inputs": torch.rand(2, 3, 64, 64), "labels": labels})
    assert losses.keys() == {"loss/task", "loss/query_scores", "loss/query_bbox", "loss/query_giou"}
    sum(losses.values()).backward()
    assert student.model.decoder.bbox_embed[-1].layers[-1].weight.grad.abs().sum() > 0


def test_a_match_may_not_be_called_as_a_term() -> None:
    matches = {"query_bbox": Match(PearsonFeatureLoss(), "encoder.fpn_blocks.0", "encoder.fpn_blocks.0")}
    distiller = DetectionDistiller(
        tiny_dfine(2, 10), tiny_dfine(2, 10), matches, student_queries=dfine_queries(),
        teacher_queries=dfine_queries(teacher=True), task_loss=DFINECriterion(), call=DetectionCall(),
    )  # fmt: skip
    with pytest.raises(MatchError, match="a match is called loss/query_bbox"):
        distiller({"inputs": torch.rand(2, 3, 64, 64), "targets": TARGETS})
