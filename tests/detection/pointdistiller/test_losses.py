"""PointDistiller's losses: the card's hard facts, the fixed weights, empty and small batches, precision, matches."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from limbeck_core import Distiller, Match, Tap
from limbeck_core.errors import NonFiniteError, ShapeError
from limbeck_detection.pointdistiller import (
    BEVDistillationLoss,
    GraphLayer,
    PointDistillationLoss,
    ShuffledVoxelDistillationLoss,
    VoxelDistillationLoss,
    importance_weights,
    local_distillation_loss,
    nearest_neighbors,
    voxel_match,
)
from limbeck_detection.pointpillars import LidarCall, pointpillars, voxelize
from loss_contract import LossContract, randn

COUNTS = torch.tensor([3, 32, 1, 9, 1, 14, 2, 20, 5, 1, 6, 11])


def voxel(student: int = 3, teacher: int = 5, **options: Any) -> VoxelDistillationLoss:
    torch.manual_seed(0)
    return VoxelDistillationLoss(student, teacher, **{"centers": 6, "neighbors": 4, **options}).double()


def alike(loss: Any) -> Any:
    """The same weights on both sides."""
    loss.student_graph.load_state_dict(loss.teacher_graph.state_dict())
    return loss


class TestCodes(LossContract):
    """The function between codes; teacher codes are trained too, so the contract's rule on gradients is turned."""

    function = staticmethod(local_distillation_loss)
    module = nn.Identity  # has no twin: the modules own graph layers
    student_prefix, teacher_prefix = "student_codes", "teacher_codes"

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_codes": randn(batch, 3, 5, dtype=dtype),
            "teacher_codes": randn(batch, 3, 5, seed=1, dtype=dtype),
        }

    test_module_equals_function = None
    test_module_survives_pickle_deepcopy_and_state_dict = None

    def test_teacher_receives_no_gradient(self) -> None:
        teacher = randn(4, 3, 5).requires_grad_()
        self.call(student_codes=randn(4, 3, 5, seed=1), teacher_codes=teacher).backward()
        assert teacher.grad is not None

    def test_misspelt_reduction_is_refused(self) -> None:
        with pytest.raises(ValueError, match="reduction must be 'none', 'mean' or 'sum', got 'avg'"):
            local_distillation_loss(**self.inputs(), reduction="avg")

    def test_weights_multiply_centres(self) -> None:
        arguments, weight = self.inputs(), torch.tensor([0.0, 1.0, 0.0, 3.0])
        each = local_distillation_loss(**arguments, reduction="none")
        torch.testing.assert_close(local_distillation_loss(**arguments, weight=weight), (each * weight).mean())
        with pytest.raises(ShapeError, match="one entry per centre, 4"):
            local_distillation_loss(**arguments, weight=weight[:2])


@pytest.mark.parametrize("fusion", ["concatenate", "difference"])
@pytest.mark.parametrize("training", [True, False])
def test_the_layer_is_a_convolution_of_gathered_pairs(fusion: Any, training: bool) -> None:
    layer = GraphLayer(4, 6, fusion=fusion).double().train(training)
    with torch.no_grad():
        layer.norm.weight.copy_(randn(6))
        layer.norm.running_mean.copy_(randn(6, seed=3))
    items, centers, neighbors = randn(9, 4), torch.tensor([2, 5]), torch.tensor([[2, 0, 7], [5, 1, 1]])
    own = items[centers].unsqueeze(1).expand(2, 3, 4)
    near = items[neighbors] if fusion == "concatenate" else own - items[neighbors]
    pairs = torch.cat((near, own), 2).permute(2, 0, 1).unsqueeze(0)
    conv = nn.Conv2d(8, 6, 1, bias=False).double()
    conv.weight.data = layer.linear.weight.data[..., None, None].clone()
    norm = nn.BatchNorm2d(6).double().train(training)
    norm.load_state_dict(layer.norm.state_dict())
    expected = relu(norm(conv(pairs)))[0].permute(1, 2, 0)
    torch.testing.assert_close(layer(items, centers, neighbors), expected)
    torch.testing.assert_close(layer.norm.state_dict(), norm.state_dict())


def test_the_layer_refuses_what_does_not_fit() -> None:
    layer = GraphLayer(4, 6)
    with pytest.raises(ShapeError, match=r"width 4, got shape \(9, 3\)"):
        layer(torch.zeros(9, 3), torch.tensor([0]), torch.tensor([[0]]))
    with pytest.raises(ShapeError, match="one row for each of the 2 centers"):
        layer(torch.zeros(9, 4), torch.tensor([0, 1]), torch.tensor([[0]]))
    with pytest.raises(ValueError, match="fusion must be"):
        GraphLayer(4, 6, fusion="idendity")  # type: ignore[arg-type]


def test_weights_sum_to_the_number_of_centres_and_become_equal() -> None:
    weights = importance_weights(COUNTS, temperature=5.0)
    assert float(weights.sum()) == pytest.approx(len(COUNTS))
    assert weights.argmax() == COUNTS.argmax()
    torch.testing.assert_close(importance_weights(COUNTS, temperature=1e9), torch.ones(12), atol=1e-6, rtol=0)
    ties = importance_weights(torch.tensor([32, 31, 32, 5]), temperature=0.01)  # the authors' value
    torch.testing.assert_close(ties, torch.tensor([2.0, 0.0, 2.0, 0.0]))
    scenes = torch.tensor([0] * 8 + [1] * 4)
    by_scene = importance_weights(COUNTS, temperature=5.0, scenes=scenes)
    assert float(by_scene[:8].sum()) == pytest.approx(8)
    assert float(by_scene[8:].sum()) == pytest.approx(4)


def test_equal_weights_and_features_lose_nothing() -> None:
    features = randn(12, 5)
    assert alike(voxel(5, 5))(features, features, COUNTS).item() == 0.0
    maps = randn(2, 5, 4, 3)
    assert alike(BEVDistillationLoss(5, 5, centers=6, neighbors=4).double())(maps, maps).item() == 0.0
    points = randn(2, 5, 12)
    assert alike(PointDistillationLoss(5, 5, centers=6, neighbors=4).double())(points, points).item() == 0.0


def test_only_the_fullest_voxels_and_their_neighbours_are_compared() -> None:
    loss, student, teacher = voxel(centers=2, neighbors=1, temperature=1e9), randn(12, 3), randn(12, 5, seed=1)
    student.requires_grad_()
    loss(student, teacher, COUNTS).backward()
    touched = student.grad.abs().sum(1).nonzero().flatten().tolist()
    assert touched == [1, 7]  # 32 and 20 points


def test_a_soft_temperature_is_the_plain_mean() -> None:
    student, teacher = randn(12, 3), randn(12, 5, seed=1)
    soft, plain = (voxel(**o)(student, teacher, COUNTS) for o in ({"temperature": 1e12}, {"weighting": "uniform"}))
    torch.testing.assert_close(soft, plain)
    hard = voxel(temperature=0.01, reduction="none")(student, teacher, COUNTS)
    assert hard[0] > 0
    assert hard[1:].abs().max() < 1e-6 * hard[0]


def test_map_weights_follow_the_map_and_not_an_axis_of_length_one() -> None:
    student, teacher = randn(2, 3, 4, 3), randn(2, 5, 4, 3, seed=1)

    def value(**options: Any) -> Tensor:
        torch.manual_seed(0)
        return BEVDistillationLoss(3, 5, centers=6, neighbors=4, **options).double()(student, teacher)

    uniform = value(weighting="uniform")
    torch.testing.assert_close(value(temperature=1e12), uniform)
    torch.testing.assert_close(value(weighting="scenes"), 2 * uniform)
    assert abs((value(temperature=0.1) / uniform).item() - 1) > 1e-3
    each = value(temperature=0.1, reduction="none")
    torch.testing.assert_close(each.mean(), value(temperature=0.1))


def test_points_are_weighed_by_the_teacher_s_codes_which_feel_no_pull() -> None:
    torch.manual_seed(0)
    loss = PointDistillationLoss(3, 5, centers=6, neighbors=4, temperature=0.5).double()
    student, teacher = randn(2, 3, 12), randn(2, 5, 12, seed=1)
    seen: dict[str, Tensor] = {}
    original = loss.teacher_graph.forward
    loss.teacher_graph.forward = lambda *a: seen.setdefault("codes", original(*a))  # type: ignore[method-assign]
    total = loss(student, teacher)
    loss.teacher_graph.forward = original  # type: ignore[method-assign]
    codes = seen["codes"].amax(1)
    weights = (codes.detach().amax(1).view(2, 6) / 0.5).softmax(1) * 6
    centers = torch.cat([teacher[b].amax(0).sort(descending=True).indices[:6] + 12 * b for b in range(2)])
    rows = [t.transpose(1, 2).reshape(24, -1) for t in (student, teacher)]
    near = nearest_neighbors(rows[1], centers, 4, scenes=torch.arange(2).repeat_interleave(12))
    ours = loss.student_graph(rows[0], centers, near).amax(1)
    torch.testing.assert_close(total, ((ours - codes).square().mean(1) * weights.flatten()).mean())


def test_gradients_reach_both_layers_and_the_student_but_not_the_teacher() -> None:
    loss, student, teacher = voxel(), randn(12, 3).requires_grad_(), randn(12, 5, seed=1).requires_grad_()
    loss(student, teacher, COUNTS).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0
    for layer in (loss.student_graph, loss.teacher_graph):
        assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


@pytest.mark.parametrize("pooling", ["none", "max", "mean"])
def test_gradients_are_those_of_finite_differences(pooling: Any) -> None:
    loss = voxel(pooling=pooling)
    teacher = randn(12, 5, seed=1)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, COUNTS), randn(12, 3).requires_grad_())


@pytest.mark.parametrize("voxels", [1, 2, 3])
def test_fewer_voxels_than_centres_and_neighbours(voxels: int) -> None:
    loss, student = voxel(centers=6000, neighbors=128), randn(voxels, 3).requires_grad_()
    value = loss(student, randn(voxels, 5), COUNTS[:voxels])
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_batch_without_items_is_a_zero_on_which_everything_depends(reduction: Any) -> None:
    student = randn(0, 3).requires_grad_()
    loss = voxel(reduction=reduction)
    value = loss(student, randn(0, 5), COUNTS[:0]).sum()
    value.backward()
    assert value.item() == 0.0
    assert student.grad is not None
    assert all(parameter.grad is not None for parameter in loss.parameters())
    for other, empty in ((BEVDistillationLoss, (0, 3, 4, 4)), (PointDistillationLoss, (2, 3, 0))):
        student = torch.zeros(empty, requires_grad=True)
        assert other(3, 3, reduction=reduction)(student, torch.zeros(empty)).sum().item() == 0.0


def test_an_empty_last_scene_changes_nothing() -> None:
    student, teacher, scenes = randn(12, 3), randn(12, 5, seed=1), torch.tensor([0] * 5 + [1] * 7)
    torch.testing.assert_close(voxel()(student, teacher, COUNTS, scenes), voxel()(student, teacher, COUNTS, scenes * 3))


def test_scenes_of_a_batch_do_not_meet() -> None:
    teacher, scenes = randn(12, 5, seed=1), torch.tensor([0] * 6 + [1] * 6)
    loss = voxel(neighbors=6, centers=1)  # voxel 1, of scene 0
    student = randn(12, 3).requires_grad_()
    loss(student, teacher, COUNTS, scenes).backward()
    assert student.grad[:6].abs().sum() > 0
    assert student.grad[6:].abs().sum() == 0
    student.grad = None
    loss(student, teacher, COUNTS).backward()
    assert student.grad[6:].abs().sum() > 0


def test_half_precision_is_close_to_single() -> None:
    student, teacher = randn(12, 3, dtype=torch.float32), randn(12, 5, seed=1, dtype=torch.float32)
    loss = voxel().float()
    exact = copy.deepcopy(loss)(student, teacher, COUNTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = copy.deepcopy(loss)(student.bfloat16(), teacher.bfloat16(), COUNTS)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, exact, rtol=0.1, atol=0.02)


def test_collapse_shows_in_the_spread_and_plain_normalisation_prevents_it() -> None:
    loss, student, teacher = voxel(), randn(12, 3), randn(12, 5, seed=1)
    loss(student, teacher, COUNTS)
    healthy = float(loss.spread)
    for layer in (loss.student_graph, loss.teacher_graph):
        nn.init.zeros_(layer.norm.weight)
    assert loss(student, teacher, COUNTS).item() == pytest.approx(0.0, abs=1e-12)
    assert float(loss.spread) == 0.0 < healthy
    assert [name for name, _ in voxel(affine=False).named_parameters()] == [
        "student_graph.linear.weight",
        "teacher_graph.linear.weight",
    ]
    assert "spread" not in loss.state_dict()


def test_bad_input_is_named() -> None:
    loss, student, teacher = voxel(), randn(12, 3), randn(12, 5)
    with pytest.raises(ShapeError, match="teacher_features has 11: voxelise once"):
        loss(student, teacher[:11], COUNTS)
    with pytest.raises(ShapeError, match="importance has 3"):
        loss(student, teacher, COUNTS[:3])
    with pytest.raises(ShapeError, match="width 3, got"):
        loss(teacher, teacher, COUNTS)
    for name, bad in (("student_features", (student * torch.nan, teacher)), ("items", (student, teacher * torch.inf))):
        with pytest.raises(NonFiniteError, match=name):
            loss(*bad, COUNTS)
    with pytest.raises(ShapeError, match="equal stride"):
        BEVDistillationLoss(3, 3)(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 2, 2))
    with pytest.raises(ShapeError, match="student_features"):
        PointDistillationLoss(3, 3)(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"centers": 0}, "centers"),
        ({"neighbors": 0}, "neighbors"),
        ({"temperature": 0.0}, "temperature"),
        ({"weighting": "softmx"}, "weighting must be one of"),
        ({"pooling": "avg"}, "pooling must be"),
        ({"reduction": "avg"}, "reduction must be"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VoxelDistillationLoss(3, 3, **options)


class Pillars(nn.Module):
    """As much of a detector as matters here: pillar features with a normalisation, summed to a score."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.voxel_encoder = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU())
        self.head = nn.Linear(width, 1)

    def forward(self, pillars: Tensor) -> Tensor:
        return self.head(self.voxel_encoder(pillars)).mean().reshape(1)


def test_in_a_distiller_the_teacher_stays_as_it_is_and_the_rest_trains() -> None:
    torch.manual_seed(0)
    teacher = Pillars(8)
    match = Match(
        VoxelDistillationLoss(4, 8, centers=6, neighbors=4),
        "voxel_encoder",
        "voxel_encoder",
        weight=2.0,
        extras={"importance": Tap("counts", of="batch"), "scenes": Tap("scenes", of="batch")},
    )
    distiller = Distiller(Pillars(4), teacher, {"local": match}, task_loss=nn.MSELoss())
    before = copy.deepcopy(teacher.state_dict())
    weights = {name: value.clone() for name, value in distiller.named_parameters()}
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
    batch = {
        "inputs": randn(12, 4, dtype=torch.float32),
        "targets": torch.zeros(1),
        "counts": COUNTS,
        "scenes": torch.tensor([0] * 6 + [1] * 6),
    }
    losses = distiller(**batch)
    sum(losses.values()).backward()
    optimizer.step()
    assert float(losses["loss/local"].detach()) > 0
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not teacher.training
    changed = {name for name, value in distiller.named_parameters() if not torch.equal(value, weights[name])}
    assert {n for n in changed if n.startswith("matches.")} == {
        f"matches.local.loss.{side}_graph.{part}"
        for side in ("student", "teacher")
        for part in ("linear.weight", "norm.weight", "norm.bias")
    }
    assert "student.voxel_encoder.0.weight" in changed


def test_the_control_keeps_centres_and_voxels_and_mixes_neighbourhoods() -> None:
    torch.manual_seed(0)
    loss = ShuffledVoxelDistillationLoss(3, 5, centers=6, neighbors=4)
    teacher, centers = randn(40, 5), torch.arange(0, 40, 7)
    mixed = loss._neighbors(teacher, centers, None)
    found = nearest_neighbors(teacher, centers, 4)
    assert mixed[:, 0].tolist() == centers.tolist()
    assert sorted(mixed[:, 1:].flatten().tolist()) == sorted(found[:, 1:].flatten().tolist())
    assert (mixed.sort(1).values != found.sort(1).values).any()
    assert float(loss(randn(40, 3), teacher, torch.arange(40)).detach()) > 0


def test_a_match_reads_counts_and_scenes_of_the_pillars_that_both_networks_get() -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "point_range": (0.0, -5.12, -3.0, 10.24, 5.12, 1.0),
        "pillar_size": (0.64, 0.64, 4.0),
        "layer_nums": (0, 0),
        "layer_strides": (1, 2),
    }
    widths = [{"channels": (w, w), "neck_channels": (w, w)} for w in (4, 8)]
    student, teacher = (pointpillars(w["channels"][0], **w, **options) for w in widths)
    distiller = Distiller(
        student, teacher, {"local": voxel_match(4, 8, centers=8, neighbors=4)}, call=LidarCall()
    ).train()
    before = copy.deepcopy(teacher.state_dict())
    low, extent = torch.tensor([0.0, -5.0, -1.5, 0.0]), torch.tensor([10.0, 10.0, 2.0, 1.0])
    scenes = [low + torch.rand(n, 4) * extent for n in (60, 0, 40)]  # a scene without a point in the middle
    targets = [
        {"boxes": torch.zeros(n, 7) + torch.tensor([5.0, 0, -1.7, 3.9, 1.6, 1.5, 0]), "labels": torch.full((n,), 2)}
        for n in (1, 0, 0)
    ]
    seen: dict[str, Any] = {}
    match = distiller.matches["local"]
    match.loss._compare = _watch(match.loss._compare, seen)
    losses = distiller({"inputs": scenes, "targets": targets}, mode="loss")
    sum(losses.values()).backward()
    pillars = voxelize(scenes, student.grid, training=True)
    assert seen["importance"].tolist() == pillars.num_points.tolist()
    assert seen["scenes"].tolist() == pillars.scenes.tolist()
    assert set(pillars.scenes.tolist()) == {0, 2}
    assert float(losses["loss/local"].detach()) > 0
    assert student.voxel_encoder.pfn_layers[0].linear.weight.grad is not None
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    distiller.zero_grad()
    empty = distiller({"inputs": [scenes[1]], "targets": [targets[1]]}, mode="loss")
    assert float(empty["loss/local"].detach()) == 0.0
    sum(empty.values()).backward()


def _watch(compare: Any, seen: dict[str, Any]) -> Any:
    def watched(student: Tensor, teacher: Tensor, importance: Tensor, **others: Any) -> Tensor:
        seen.setdefault("importance", importance)
        seen.setdefault("scenes", others["search_scenes"])
        return compare(student, teacher, importance, **others)

    return watched
