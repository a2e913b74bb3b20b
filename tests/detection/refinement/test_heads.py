"""Edge distributions in a decoder that computes boxes as DETR decoders do."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from limbeck_core.errors import MatchError, ShapeError
from limbeck_detection.dfine.decoder import inverse_sigmoid
from limbeck_detection.refinement import EdgeRefinement, RefinementCriterion
from limbeck_detection.refinement.heads import BeginRefinement

LAYERS, WIDTH, QUERIES, CLASSES = 3, 8, 6, 4


def make(*, spread: float = 0.3, **options: object) -> EdgeRefinement:
    torch.manual_seed(0)
    refinement = EdgeRefinement(nn.Linear(WIDTH, 4), WIDTH, LAYERS, **options).double()  # type: ignore[arg-type]
    if spread:
        for parameter in refinement.corner_heads.parameters():
            nn.init.normal_(parameter, std=spread)
    return refinement


def states(batch: int = 2, queries: int = QUERIES) -> Tensor:
    return torch.randn(LAYERS, batch, queries, WIDTH, dtype=torch.float64, requires_grad=True)


def references(size: int, batch: int = 2, queries: int = QUERIES) -> Tensor:
    return 0.25 + 0.5 * torch.rand(batch, queries, size, dtype=torch.float64)


def add_reference(offset: Tensor, reference: Tensor, eps: float = 1e-5) -> Tensor:
    start = inverse_sigmoid(reference, eps=eps)
    size = start.shape[-1]
    return torch.cat([offset[..., :size] + start, offset[..., size:]], dim=-1).sigmoid()


def decode(branches: Sequence[nn.Module], hidden: Tensor, reference: Tensor, eps: float = 1e-5) -> list[Tensor]:
    """Boxes of a decoder with iterative refinement, as Deformable DETR and RT-DETR compute them."""
    boxes = []
    for branch, queries in zip(branches, hidden, strict=True):
        boxes.append(add_reference(branch(queries), reference, eps))
        reference = boxes[-1].detach()
    return boxes


TARGETS = [
    {"labels": torch.tensor([0, 2]), "boxes": torch.tensor([[0.3, 0.3, 0.2, 0.3], [0.6, 0.6, 0.3, 0.2]]).double()},
    {"labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.5, 0.5]]).double()},
]
WHOLE = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
NOTHING = [{"labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4).double()}] * 2


@pytest.mark.parametrize("size", [2, 4])
def test_every_layer_starts_at_the_first_layers_box(size: int) -> None:
    refinement, hidden, reference = make(spread=0), states(), references(size)
    refined = refinement(hidden, reference)
    expected = add_reference(refinement.first_box(hidden[0]), reference)
    torch.testing.assert_close(refined.first, expected)
    for boxes in refined.boxes:
        torch.testing.assert_close(boxes, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("size", [2, 4])
def test_a_decoder_arrives_at_the_refined_boxes_by_its_own_code(size: int) -> None:
    refinement, hidden, reference = make(), states(), references(size)
    refinement.begin(reference)
    decoded = decode(refinement.branches(), hidden, reference)
    refined = refinement.take()
    assert len({boxes.sum().item() for boxes in refined.boxes}) == LAYERS, "layers move the edges"
    for ours, theirs in zip(refined.boxes, decoded, strict=True):
        torch.testing.assert_close(theirs, ours.clamp(1e-5, 1 - 1e-5))


def test_a_decoder_that_keeps_its_references_does_too() -> None:
    refinement, hidden, reference = make(iterative=False), states(), references(2)
    refinement.begin(reference)
    decoded = [add_reference(b(h), reference) for b, h in zip(refinement.branches(), hidden, strict=True)]
    for ours, theirs in zip(refinement.take().boxes, decoded, strict=True):
        torch.testing.assert_close(theirs, ours.clamp(1e-5, 1 - 1e-5))


def test_logits_grow_from_layer_to_layer_with_gradient() -> None:
    refinement, hidden = make(), states()
    refined = refinement(hidden, references(4))
    head = refinement.corner_heads[1](hidden[1] + hidden[0].detach())
    torch.testing.assert_close(refined.corners[1], refined.corners[0] + head)
    refined.corners[-1].square().sum().backward()
    assert all(bool(head.layers[0].weight.grad.any()) for head in refinement.corner_heads)


def test_looking_forward_twice_counts_each_gradient_once() -> None:
    """DINO adds a second answer to the reference of the layer before, which still has its graph."""
    eps = 1e-3
    refinement, hidden, reference = make(look_forward_twice=True, eps=eps), states(), references(4)
    branches = refinement.branches()
    refinement.begin(reference)
    attached = [reference]
    for branch, queries in zip(branches, hidden, strict=True):
        attached.append(add_reference(branch(queries), attached[-1].detach(), eps))
    judged = [add_reference(b(h), r) for b, h, r in zip(branches, hidden, attached, strict=False)]
    refined = refinement.take()
    for index in range(LAYERS):
        inside = refined.boxes[index].clamp(1e-5, 1 - 1e-5)
        torch.testing.assert_close(judged[index], inside)
        wrt = [*refinement.parameters(), hidden]
        ours = torch.autograd.grad(inside.square().sum(), wrt, retain_graph=True, allow_unused=True)
        theirs = torch.autograd.grad(judged[index].square().sum(), wrt, retain_graph=True, allow_unused=True)
        for one, other in zip(ours, theirs, strict=True):
            expected = torch.zeros(1).double() if one is None else one
            got = torch.zeros(1).double() if other is None else other
            torch.testing.assert_close(got.expand_as(expected), expected, rtol=1e-6, atol=1e-9)


def test_heads_of_a_copy_are_its_own_in_the_middle_of_a_forward_too() -> None:
    decoder = nn.Module()
    decoder.refinement, reference = make(), references(4)
    decoder.heads = nn.ModuleList(decoder.refinement.branches())
    assert [name for name in decoder.state_dict() if name.startswith("heads")] == []
    decoder.refinement.begin(reference)
    decoder.heads[0](states()[0])
    twin = copy.deepcopy(decoder)
    assert twin.heads[0].refinement is twin.refinement
    with pytest.raises(MatchError, match="did not begin"):
        twin.heads[1](states()[1])


def test_a_hook_begins_with_references_or_their_logits() -> None:
    refinement, reference = make(), references(4)
    for logits in (False, True):
        given = inverse_sigmoid(reference) if logits else reference
        BeginRefinement(refinement, logits=logits)(nn.Identity(), (), {"reference_points": given})
        for branch, queries in zip(refinement.branches(), states(), strict=True):
            branch(queries)
        assert len(refinement.take().boxes) == LAYERS
    with pytest.raises(MatchError, match=r"Identity was called without.*'reference_points', got other"):
        BeginRefinement(refinement)(nn.Identity(), (), {"other": reference})


def test_errors_say_what_was_left_out() -> None:
    refinement = make()
    with pytest.raises(ShapeError, match=r"\(B, Q, 2\) or \(B, Q, 4\), got \(2, 6, 3\)"):
        refinement.begin(references(3))
    with pytest.raises(ShapeError, match="3 layers, got 2"):
        refinement(states()[:2], references(4))
    refinement.begin(references(4))
    with pytest.raises(MatchError, match="layer 1 was asked for its box, but layer 0 was not"):
        refinement.branches()[1](states()[1])
    with pytest.raises(MatchError, match="0 of 3 layers"):
        refinement.take()
    with pytest.raises(ValueError, match="reg_scale"):
        make(reg_scale=0.0)
    with pytest.raises(ValueError, match="reg_max must be even"):
        make(reg_max=7)


def losses(
    refinement: EdgeRefinement, targets: list[dict[str, Tensor]], *, denoising: int = 0, **weights: float
) -> tuple[dict[str, Tensor], Tensor]:
    torch.manual_seed(1)
    hidden = states(queries=QUERIES + denoising)
    refined = refinement(hidden, references(4, queries=QUERIES + denoising))
    for corners in refined.corners:
        corners.retain_grad()
    logits = torch.randn(LAYERS, 2, QUERIES + denoising, CLASSES, dtype=torch.float64)
    found = RefinementCriterion(**weights)(refinement, refined, logits, targets, num_queries=QUERIES)  # type: ignore[arg-type]
    return found, refined.corners[-1]


def test_the_last_layer_teaches_and_does_not_learn_from_it() -> None:
    refinement = make()
    found, _ = losses(refinement, TARGETS)
    assert found.keys() == {"fgl", "ddf", "first_bbox", "first_giou"}
    assert all(loss > 0 for loss in found.values())
    found["ddf"].backward()
    grads = [head.layers[-1].weight.grad for head in refinement.corner_heads]
    assert grads[0].abs().sum() > 0
    assert grads[1].abs().sum() > 0
    assert grads[2] is None or not grads[2].any()
    assert refinement.first_box.weight.grad is None


def test_uniform_distributions_have_nothing_to_teach() -> None:
    found, _ = losses(make(spread=0), TARGETS)
    assert found["ddf"].item() == pytest.approx(0, abs=1e-12)


def test_the_first_head_learns_from_its_own_terms_alone() -> None:
    refinement = make()
    found, _ = losses(refinement, TARGETS)
    (found["first_bbox"] + found["first_giou"]).backward()
    assert refinement.first_box.weight.grad.abs().sum() > 0
    assert all(head.layers[-1].weight.grad is None for head in refinement.corner_heads)


def test_self_distillation_can_be_left_out() -> None:
    found, _ = losses(make(), TARGETS, ddf_weight=0.0)
    assert "ddf" not in found


@pytest.mark.parametrize("denoising", [0, 4])
def test_images_without_boxes_give_finite_losses(denoising: int) -> None:
    refinement = make()
    found, _ = losses(refinement, NOTHING, denoising=denoising)
    assert found["fgl"].item() == found["first_bbox"].item() == 0
    total = torch.stack(list(found.values())).sum()
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in refinement.parameters() if p.grad is not None)


def test_of_denoising_queries_the_positives_learn_edges() -> None:
    """Two groups of two positives and two negatives; the second image has one box."""
    # boxes as large as the image, so that each overlaps and weighs something
    targets = [{**target, "boxes": torch.full_like(target["boxes"], 0.5) + 0.4 * WHOLE} for target in TARGETS]
    found, corners = losses(make(spread=0.05), targets, denoising=8, ddf_weight=0.0)
    found["fgl"].backward()
    assert corners.grad is not None
    learnt = corners.grad.abs().sum(-1) > 0
    assert learnt[0, :8].tolist() == [True, True, False, False] * 2
    assert learnt[1, :8].tolist() == [True, False, False, False] * 2


def test_ordinary_queries_are_the_last_ones() -> None:
    refinement = make()
    with pytest.raises(ShapeError, match="5 denoising queries are no groups of 2 positives and 2 negatives"):
        losses(refinement, TARGETS, denoising=5)
    refined = refinement(states(), references(4))
    criterion = RefinementCriterion()
    with pytest.raises(ShapeError, match="num_queries is 7, but the decoder predicted 6"):
        criterion(refinement, refined, torch.zeros(LAYERS, 2, QUERIES, CLASSES), TARGETS, num_queries=7)
    with pytest.raises(ShapeError, match=r"logits must have shape \(L, B, Q, C\) with 3 layers"):
        criterion(refinement, refined, torch.zeros(2, QUERIES, CLASSES), TARGETS, num_queries=6)
