"""The criterion: terms and heads, no memory, distillation from the last layer, images without objects, two ranks."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck_core.errors import NonFiniteError, ShapeError, TargetError
from limbeck_core.gather import all_sum, world_size
from limbeck_detection.dfine.criterion import DFINECriterion
from limbeck_detection.dfine.regression import distance2bbox, integral, weighting_function
from loss_contract import randn
from ranks import on_ranks

BINS, QUERIES, CLASSES, GROUPS = 9, 6, 3, 2
UP, SCALE = torch.tensor([0.5]).double(), torch.tensor([4.0]).double()


def targets(counts: tuple[int, ...] = (2, 1)) -> list[dict[str, torch.Tensor]]:
    found = []
    for image, count in enumerate(counts):
        labels = torch.arange(count) % CLASSES
        found.append({"labels": labels, "boxes": randn(count, 4, seed=50 + image).sigmoid() * 0.4 + 0.2})
    return found


def head(seed: int, images: int, reference: torch.Tensor | None = None, queries: int = QUERIES) -> dict[str, Any]:
    logits = randn(images, queries, CLASSES, seed=seed).requires_grad_()
    if reference is None:
        boxes = (randn(images, queries, 4, seed=seed + 1).sigmoid() * 0.4 + 0.2).requires_grad_()
        return {"pred_logits": logits, "pred_boxes": boxes}
    corners = randn(images, queries, 4 * BINS, seed=seed + 2).requires_grad_()
    boxes = distance2bbox(reference, integral(corners, weighting_function(BINS - 1, UP, SCALE)), SCALE)
    return {"pred_logits": logits, "pred_boxes": boxes, "pred_corners": corners, "ref_points": reference}


def outputs(counts: tuple[int, ...] = (2, 1), *, denoising: bool = True) -> dict[str, Any]:
    images = len(counts)
    reference = randn(images, QUERIES, 4, seed=9).sigmoid() * 0.3 + 0.3
    found: dict[str, Any] = {**head(30, images, reference), "up": UP, "reg_scale": SCALE}
    found["aux_outputs"] = [head(10, images, reference), head(20, images, reference)]
    found["pre_outputs"] = head(40, images)
    found["enc_aux_outputs"] = [head(45, images)]
    if denoising:
        most = max(counts)
        size = 2 * most * GROUPS
        noisy = randn(images, size, 4, seed=8).sigmoid() * 0.3 + 0.3
        found["dn_outputs"] = [head(60 + 10 * i, images, noisy, size) for i in range(3)]
        found["dn_pre_outputs"] = head(90, images, queries=size)
        starts = [2 * most * group for group in range(GROUPS)]
        index = [torch.cat([torch.arange(count) + start for start in starts]) for count in counts]
        found["dn_meta"] = {"dn_num_group": GROUPS, "dn_positive_idx": index}
    return found


def leaves(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value] if value.is_leaf and value.requires_grad else []
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return [leaf for item in items for leaf in leaves(item)]


def test_every_head_has_its_terms() -> None:
    losses = DFINECriterion()(outputs(), targets())
    everywhere = ["", "_aux_0", "_aux_1", "_pre", "_enc_0", "_dn_0", "_dn_1", "_dn_2", "_dn_pre"]
    layers = ["", "_aux_0", "_aux_1", "_dn_0", "_dn_1", "_dn_2"]
    taught = ["_aux_0", "_aux_1", "_dn_0", "_dn_1"]
    expected = {f"loss_{term}{name}" for term in ("vfl", "bbox", "giou") for name in everywhere}
    expected |= {f"loss_fgl{name}" for name in layers} | {f"loss_ddf{name}" for name in taught}
    assert losses.keys() == expected
    assert all(float(loss) > 0 for loss in losses.values())


def test_nothing_is_kept_between_calls() -> None:
    criterion, found = DFINECriterion(), outputs()
    first = criterion(found, targets())
    criterion(outputs((1, 3)), targets((1, 3)))
    again = criterion(found, targets())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not criterion.state_dict()


def test_weights_scale_their_terms_alone() -> None:
    plain = DFINECriterion()(outputs(), targets())
    changed = DFINECriterion(fgl_weight=0.3, giou_weight=0.0)(outputs(), targets())
    for name, loss in changed.items():
        factor = {"fgl": 2.0, "giou": 0.0}.get(name.split("_")[1], 1.0)
        torch.testing.assert_close(loss, plain[name] * factor)


def test_without_distillation_nothing_else_changes() -> None:
    plain, control = DFINECriterion()(outputs(), targets()), DFINECriterion(ddf_weight=0.0)(outputs(), targets())
    assert control.keys() == {name for name in plain if "ddf" not in name}
    assert all(torch.equal(control[name], plain[name]) for name in control)


def test_distillation_reaches_earlier_layers_and_never_the_last() -> None:
    found = outputs()
    losses = DFINECriterion()(found, targets())
    taught = [loss for name, loss in losses.items() if "ddf" in name]
    torch.stack(taught).sum().backward()
    earlier = [*found["aux_outputs"], *found["dn_outputs"][:-1]]
    assert all(float(layer["pred_corners"].grad.abs().sum()) > 0 for layer in earlier)
    assert found["pred_corners"].grad is None
    assert found["dn_outputs"][-1]["pred_corners"].grad is None
    assert found["pred_logits"].grad is None
    assert all(layer["pred_logits"].grad is None for layer in earlier)


def test_layers_that_agree_have_nothing_to_teach() -> None:
    found = outputs()
    found["aux_outputs"] = [{**layer, "pred_corners": found["pred_corners"]} for layer in found["aux_outputs"]]
    losses = DFINECriterion()(found, targets())
    assert float(losses["loss_ddf_aux_0"]) == float(losses["loss_ddf_aux_1"]) == 0.0
    assert float(losses["loss_ddf_dn_0"]) > 0


def test_perfect_predictions_cost_nothing_but_scores() -> None:
    truth = targets((1, 1))
    found = outputs((1, 1), denoising=False)
    exact = torch.stack([target["boxes"].expand(QUERIES, 4) for target in truth])
    middle = torch.full((2, QUERIES, 4, BINS), -60.0).double()
    middle[..., BINS // 2] = 60.0  # the bin of no shift
    for layer in (found, *found["aux_outputs"]):
        layer |= {"pred_boxes": exact, "ref_points": exact, "pred_corners": middle.flatten(2)}
    losses = DFINECriterion()(found, truth)
    for name in ("", "_aux_0", "_aux_1"):
        for term in ("bbox", "giou", "fgl"):
            assert float(losses[f"loss_{term}{name}"]) == pytest.approx(0.0, abs=1e-9)


def test_an_image_and_a_batch_without_objects() -> None:
    found = outputs((0, 2))
    losses = DFINECriterion()(found, targets((0, 2)))
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves(found) if leaf.grad is not None)
    found = outputs((0, 0), denoising=False)
    losses = DFINECriterion()(found, targets((0, 0)))
    assert all(float(loss) == 0.0 for name, loss in losses.items() if "vfl" not in name and "ddf" not in name)
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves(found) if leaf.grad is not None)


def test_a_class_agnostic_encoder_learns_one_class() -> None:
    found = outputs(denoising=False)
    encoder = found["enc_aux_outputs"][0]
    encoder["pred_logits"] = randn(2, QUERIES, 1, seed=3).requires_grad_()
    found["enc_meta"] = {"class_agnostic": True}
    losses = DFINECriterion()(found, targets())
    losses["loss_vfl_enc_0"].backward()
    assert float(encoder["pred_logits"].grad.abs().sum()) > 0


def test_half_precision_is_computed_in_single() -> None:
    single = DFINECriterion()(outputs(), targets())
    found = outputs()
    for layer in (found, *found["aux_outputs"], *found["dn_outputs"], found["pre_outputs"], found["dn_pre_outputs"]):
        for name in ("pred_logits", "pred_corners"):
            if name in layer:
                layer[name] = layer[name].detach().bfloat16()
    losses = DFINECriterion()(found, targets())
    assert losses["loss_vfl"].dtype == torch.float32
    torch.testing.assert_close(losses["loss_ddf_aux_0"].double(), single["loss_ddf_aux_0"], rtol=0.05, atol=0.01)


def test_errors_say_what_does_not_fit() -> None:
    criterion, found = DFINECriterion(), outputs()
    with pytest.raises(ShapeError, match="needs 'pred_corners' of the detector.*is it in training mode?"):
        criterion({k: v for k, v in found.items() if k != "pred_corners"}, targets())
    with pytest.raises(TargetError, match="give the model as many classes as the data set has"):
        criterion(found, [{**target, "labels": target["labels"] + 5} for target in targets()])
    with pytest.raises(NonFiniteError, match="pred_logits"):
        criterion({**found, "pred_logits": found["pred_logits"] * float("nan")}, targets())
    with pytest.raises(ValueError, match="ddf_weight"):
        DFINECriterion(ddf_weight=-1.0)


def part_of(value: Any, rows: slice) -> Any:
    """The images of one rank."""
    if isinstance(value, torch.Tensor):
        return value[rows] if value.ndim > 1 else value
    if isinstance(value, Mapping):
        return {k: v[rows] if k == "dn_positive_idx" else part_of(v, rows) for k, v in value.items()}
    return [part_of(item, rows) for item in value] if isinstance(value, list) else value


def gradients(rank: int, counts: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Mean loss over ranks, and the gradient of it at the whole batch's predictions."""
    found = outputs(counts)
    rows = slice(rank, None, world_size())
    losses = DFINECriterion()(part_of(found, rows), targets(counts)[rows])
    total = torch.stack(list(losses.values())).sum() / world_size()
    total.backward()
    flat = [leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for leaf in leaves(found)]
    return {"loss": all_sum(total), "gradient": all_sum(torch.cat([grad.flatten() for grad in flat]))}


@pytest.mark.parametrize("counts", [(2, 1, 0), (2, 0, 1)], ids=["uneven", "a rank without boxes"])
def test_two_ranks_equal_one_process(tmp_path: Path, counts: tuple[int, ...]) -> None:
    whole = gradients(0, counts)
    for rank in on_ranks(tmp_path, gradients, counts):
        for name, value in whole.items():
            torch.testing.assert_close(rank[name], value.detach(), rtol=1e-10, atol=1e-12)


def test_a_copy_is_the_same() -> None:
    criterion = DFINECriterion(ddf_weight=0.7)
    first, second = criterion(outputs(), targets()), copy.deepcopy(criterion)(outputs(), targets())
    assert all(torch.equal(first[name], second[name]) for name in first)
