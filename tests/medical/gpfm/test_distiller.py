"""GPFM's step: every loss against plain formulas, who learns and who does not, and what is refused."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from gpfm_toys import small_expert, small_student, views
from limbeck_core.errors import ConfigError, MatchError
from limbeck_core.losses import KLDivergenceLoss
from limbeck_core.schedules import Linear, Progress
from limbeck_medical.gpfm import GPFMDistiller, TileParameterGroups, patch_alignment_loss


def distill(**options: Any) -> GPFMDistiller:
    torch.manual_seed(0)
    experts = {"uni": small_expert(), "phikon": small_expert()}
    settings = {"weights": {"uni": (1.0, 0.25), "phikon": (0.5, 0.0)}, "teacher_temperature": 0.05, "momentum": 0.9}
    return GPFMDistiller(small_student(), experts, bottleneck=4, **{**settings, **options})


def flat(batch: dict[str, Tensor], name: str) -> Tensor:
    return torch.cat(list(batch[name].unbind(1)))


def test_losses_are_those_of_the_card() -> None:
    distiller = distill().eval()  # the centres rest
    distiller.dino.center.copy_(torch.randn(12) / 10)
    distiller.ibot.center.copy_(torch.randn(12) / 10)
    for parameter in distiller.teachers["ema"].model.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    batch = views(samples=3)
    losses = distiller(batch)
    student, teacher = distiller.student, distiller.teachers["ema"].model
    globals_, local, masks = (flat(batch, name) for name in ("global_views", "local_views", "masks"))
    found, wanted = student(globals_, masks, local), teacher(globals_, masks, hide=False)

    def sharpened(logits: Tensor, center: Tensor) -> Tensor:
        return ((logits - center) / 0.05).softmax(1)

    # DINO: two global pairs and four local ones, the mean over all six
    views_, targets = found["cls_logits"].chunk(4), sharpened(wanted["cls_logits"], distiller.dino.center).chunk(2)
    pairs = [
        -(target * (view / 0.1).log_softmax(1)).sum(1).mean()
        for g, target in enumerate(targets)
        for v, view in enumerate(views_)
        if v != g
    ]
    assert len(pairs) == 6
    torch.testing.assert_close(losses["loss/dino"], torch.stack(pairs).mean())

    # iBOT: each view with hidden patches counts alike, all six views divide
    each = -(
        sharpened(wanted["patch_logits"], distiller.ibot.center) * (found["patch_logits"] / 0.1).log_softmax(1)
    ).sum(1)
    torch.testing.assert_close(losses["loss/ibot"], (each[:3].mean() + each[3:].mean()) / 6)

    # KoLeo: each global view by itself
    total = torch.zeros(())
    for half in found["cls"].chunk(2):
        x = normalize(half, dim=1)
        apart = torch.cdist(x, x) + 10 * torch.eye(len(x))
        total = total - (apart.min(1).values + 1e-8).log().mean()
    torch.testing.assert_close(losses["loss/koleo"], 0.1 * total, rtol=1e-3, atol=1e-4)

    # experts: the student's view has hidden patches, theirs has none
    for name, weight in (("uni", 1.0), ("phikon", 0.5)):
        seen = distiller.teachers[name].model(globals_)
        head = distiller.heads[name]
        expected = weight * (1 - cosine_similarity(head(found["cls"]), seen["cls"]).mean())
        torch.testing.assert_close(losses[f"loss/{name}_cls"], expected)
    seen = distiller.teachers["uni"].model(globals_)
    mine = distiller.heads["uni"](found["patch"].movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(losses["loss/uni_patch"], 0.25 * patch_alignment_loss(mine, seen["patch"]))
    assert seen["patch"].shape[2:] == (2, 2)
    assert "loss/phikon_patch" not in losses


def test_who_learns() -> None:
    distiller = distill().train()
    frozen = {name: copy.deepcopy(distiller.teachers[name].state_dict()) for name in ("uni", "phikon", "ema")}
    losses = distiller(views())
    sum(value for name, value in losses.items() if name.startswith("loss/")).backward()
    assert [name for name, p in distiller.named_parameters() if p.grad is None] == []
    assert [name for name, p in distiller.named_parameters() if not p.grad.abs().sum()] == []
    for name, state in frozen.items():
        assert all(torch.equal(value, state[key]) for key, value in distiller.teachers[name].state_dict().items())
        assert all(p.grad is None for p in distiller.teachers[name].parameters())
    assert not any("teacher" in name or "uni.model" in name for name in distiller.state_dict())


def test_the_teacher_follows_and_the_centres_move() -> None:
    distiller = distill().train()
    distiller(views())
    assert float(distiller.dino.center.abs().sum()) > 0
    assert float(distiller.ibot.center.abs().sum()) > 0
    before = copy.deepcopy(distiller.teachers["ema"].model.state_dict())
    with torch.no_grad():
        for parameter in distiller.student.parameters():
            parameter.add_(1.0)
    distiller.teachers["ema"].update(distiller.student, 0)
    name = "encoder.vit.blocks.0.attn.qkv.weight"
    expected = before[name] + 0.1
    torch.testing.assert_close(distiller.teachers["ema"].model.state_dict()[name], expected)


def test_a_batch_without_hidden_patches_or_local_views() -> None:
    distiller = distill().train()
    batch = views(hidden=False)
    batch.pop("local_views")
    losses = distiller(batch)
    sum(value for name, value in losses.items() if name.startswith("loss/")).backward()
    assert float(losses["loss/ibot"].detach()) == 0.0


def test_self_distillation_alone_and_resting_experts() -> None:
    alone = GPFMDistiller(small_student())
    assert {name for name in alone(views()) if name.startswith("loss/")} == {"loss/dino", "loss/ibot", "loss/koleo"}
    assert list(alone.teachers) == ["ema"]
    resting = distill(weights={"uni": (0.0, 0.0), "phikon": (0.0, 1.0)})
    assert list(resting.teachers) == ["ema", "phikon"]
    assert list(resting.heads) == ["phikon"]


def test_another_loss_of_class_tokens() -> None:
    distiller = distill(token_loss=KLDivergenceLoss()).eval()
    batch = views()
    seen = distiller.teachers["uni"].model(flat(batch, "global_views"))["cls"]
    mine = distiller.heads["uni"](distiller.student(flat(batch, "global_views"), flat(batch, "masks"))["cls"])
    expected = (seen.softmax(1) * (seen.log_softmax(1) - mine.log_softmax(1))).sum(1).mean()
    torch.testing.assert_close(distiller(batch)["loss/uni_cls"], expected)


def test_the_temperature_follows_the_run() -> None:
    distiller = distill(teacher_temperature=Linear(0.04, 0.08, until=4, by="epoch")).eval()
    batch = views()
    distiller.set_progress(Progress(epoch=2))
    later = distiller(batch)["loss/dino"]
    torch.testing.assert_close(later, distill(teacher_temperature=0.06).eval()(batch)["loss/dino"])
    assert distiller.ibot.teacher_temperature(distiller.ibot._progress) == pytest.approx(0.06)


def test_collapse_shows_in_the_log() -> None:
    distiller = distill().eval()
    healthy = distiller(views(samples=8))
    assert 0 < float(healthy["gpfm/prototype_entropy"]) <= 1
    teacher = distiller.teachers["ema"].model
    nn.init.zeros_(teacher.head.last.parametrizations.weight.original1)
    teacher.head.last.parametrizations.weight.original1[:, 0] = 1.0
    unsure = distiller(views(samples=8))
    assert float(unsure["gpfm/teacher_entropy"]) == pytest.approx(1.0)
    distiller.dino.center.copy_(-10 * torch.eye(12)[0])
    one = distiller(views(samples=8))
    assert float(one["gpfm/prototype_entropy"]) == pytest.approx(0.0, abs=1e-6)


def test_features_after_training() -> None:
    distiller = distill().eval()
    images = torch.rand(2, 3, 24, 24)
    torch.testing.assert_close(distiller({"inputs": images, **views()}, mode="predict"), distiller.student(images))
    with pytest.raises(MatchError, match="features are taken of 'inputs'"):
        distiller(views(), mode="predict")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weights": {"uni": (1.0, 1.0)}}, MatchError, "experts are .'phikon', 'uni'., weights are for .'uni'."),
        ({"weights": {"uni": (-1.0, 1.0), "phikon": (1.0, 1.0)}}, ValueError, "the class weight of uni"),
        ({"dino_weight": -1.0}, ValueError, "dino_weight"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        distill(**options)


def test_experts_that_do_not_fit() -> None:
    with pytest.raises(MatchError, match="an expert may not be called 'ema'"):
        GPFMDistiller(small_student(), {"ema": small_expert()}, weights={"ema": (1.0, 1.0)})
    with pytest.raises(MatchError, match="the expert 'uni' is a Linear without a width: wrap its model in Expert"):
        GPFMDistiller(small_student(), {"uni": nn.Linear(2, 2)}, weights={"uni": (1.0, 1.0)})
    batch = views()
    batch.pop("masks")
    with pytest.raises(MatchError, match="GPFM needs 'masks' of the batch"):
        distill()(batch)


def test_rates_by_layer() -> None:
    distiller = distill()
    groups = TileParameterGroups(
        {"optimizer": {"type": "AdamW", "lr": 1.0, "weight_decay": 0.1}}, {"layer_decay": 0.5, "patch_embed": 0.2}
    )
    found = groups(distiller).optimizer.param_groups
    names = {id(p): name for name, p in distiller.named_parameters()}
    by_name = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in found for p in g["params"]}
    assert by_name.keys() == dict(distiller.named_parameters()).keys()
    vit = "student.encoder.vit"
    assert by_name[f"{vit}.patch_embed.proj.weight"] == (pytest.approx(0.5**3 * 0.2), 0.1)
    assert by_name[f"{vit}.pos_embed"] == (0.5**3, 0.0)
    assert by_name["student.encoder.mask_token"] == (0.5**3, 0.0)
    assert by_name[f"{vit}.blocks.0.attn.qkv.weight"] == (0.25, 0.1)
    assert by_name[f"{vit}.blocks.1.attn.qkv.bias"] == (0.5, 0.0)
    assert by_name[f"{vit}.norm.weight"] == (1.0, 0.0)
    assert by_name["heads.uni.last.parametrizations.weight.original0"] == (1.0, 0.0)
    assert by_name["heads.uni.last.parametrizations.weight.original1"] == (1.0, 0.1)
    with pytest.raises(ConfigError, match="TileParameterGroups takes layer_decay and patch_embed, both above 0"):
        TileParameterGroups({"optimizer": {"lr": 1.0}}, {"layer_decai": 0.9})


def test_nothing_learned_of_nothing() -> None:
    """All students' class tokens equal: KoLeo pays the largest price, and stays finite."""
    distiller = distill().train()
    batch = views(samples=2)
    batch["global_views"][1] = batch["global_views"][0]
    batch["masks"][1] = batch["masks"][0]
    losses = distiller(batch)
    assert float(losses["loss/koleo"].detach()) == pytest.approx(-0.2 * math.log(1e-8), rel=0.3)
    losses["loss/koleo"].backward()
    assert all(torch.isfinite(p.grad).all() for p in distiller.student.parameters() if p.grad is not None)
