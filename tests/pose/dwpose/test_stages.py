"""DWPose's two stages as configs and as a distiller: what is frozen, what is read, what is handed over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from limbeck_core import Distiller, Match
from limbeck_core.engine.commands import train
from limbeck_core.engine.config import load_config
from limbeck_core.errors import MatchError, TapError
from limbeck_core.schedules import Progress
from limbeck_pose.dwpose import HeadDistiller, SimCCDivergenceLoss
from limbeck_pose.rendered import render
from limbeck_pose.rtmpose import RTMPose


def tiny() -> RTMPose:
    """A model whose head says something, as a trained one would."""
    model = RTMPose(width=0.125, depth=0.1, keypoints=4, input_size=(64, 32))
    for layer in (model.head.final_layer, model.head.mlp[1], model.head.cls_x, model.head.cls_y):
        nn.init.normal_(layer.weight, std=0.3)
    # an untrained backbone in evaluation mode gives features of about 1e-10
    nn.init.normal_(model.head.final_layer.bias)
    return model


def stage2(model: nn.Module) -> HeadDistiller:
    matches = {axis: Match(SimCCDivergenceLoss(), f"head.cls_{axis}", f"head.cls_{axis}") for axis in "xy"}
    return HeadDistiller(model, matches)


def images(count: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 64, 32), dtype=torch.uint8)


def test_the_new_head_learns_and_the_backbone_does_not() -> None:
    teacher = tiny()
    distiller = stage2(teacher).train()
    before = {name: value.clone() for name, value in distiller.student.state_dict().items()}
    trained = [parameter for parameter in distiller.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    batch, sizes = images(), []
    for _ in range(8):
        losses = distiller({"inputs": batch})
        total = losses["loss/x"] + losses["loss/y"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        sizes.append(total.item())
    assert sizes[0] > 0, "a head that starts from the teacher's weights would have nothing to learn"
    assert sizes[-1] < sizes[0]
    after = distiller.student.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("backbone."))
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("head."))
    assert set(losses) == {"loss/x", "loss/y"}


def test_the_backbone_runs_once_a_step() -> None:
    distiller = stage2(tiny())
    calls: list[str] = []
    for owner, model in (("student", distiller.student), ("teacher", distiller.teacher.model)):
        model.backbone.register_forward_hook(lambda *_, owner=owner: calls.append(owner))
    shared = distiller({"inputs": images()})
    assert calls == ["student"]
    assert all(torch.isfinite(value) for value in shared.values())


def test_sharing_features_changes_no_loss() -> None:
    torch.manual_seed(1)
    distiller = stage2(tiny())
    batch = images(3)
    plain = Distiller(
        distiller.student,
        distiller.teacher.model,
        {axis: Match(SimCCDivergenceLoss(), f"head.cls_{axis}", f"head.cls_{axis}") for axis in "xy"},
        freeze=("backbone",),
    )
    for name, value in distiller.train()({"inputs": batch}).items():
        torch.testing.assert_close(value, plain.train()({"inputs": batch})[name])


def test_what_is_no_second_stage_is_refused() -> None:
    matches = {"x": Match(SimCCDivergenceLoss(), "head.cls_x", "head.cls_x")}
    with pytest.raises(TapError, match="'trunk' is not a submodule of the teacher"):
        HeadDistiller(tiny(), matches, backbone="trunk")
    with pytest.raises(MatchError, match="reads no labels: leave task_loss out"):
        HeadDistiller(tiny(), matches, task_loss=nn.MSELoss())
    fixed = nn.Sequential()
    fixed.add_module("backbone", nn.Identity())
    fixed.add_module("head", nn.Identity())
    with pytest.raises(MatchError, match=r"Identity has no reset_parameters\(\)"):
        HeadDistiller(fixed, {})


def test_weights_fade_over_the_recipe() -> None:
    model = load_config("pose/dwpose/l_m_stage1").model
    with torch.device("meta"):
        distiller = model.pop("type")(**model)
    for epoch, factor in ((0, 1.0), (135, 0.5), (269, 1 / 270)):
        progress = Progress(step=0, epoch=epoch, max_epochs=270)
        assert distiller.matches["x"].scale(progress) == pytest.approx(0.1 * factor)
        assert distiller.matches["features"].scale(progress) == pytest.approx(7e-5 * factor)


def test_both_stages_train_and_hand_over_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    render(tmp_path / "figures", train=8, val=4)
    short = ["train_cfg.max_epochs=1", "train_cfg.val_interval=1", "train_dataloader.batch_size=4"]
    for stage in ("teacher", "stage1", "masked", "stage2"):
        train(f"pose/figures/{stage}", data_root=Path("figures"), overrides=short, seed=0)
    one, two = (torch.load(f"work_dirs/{s}/student.pth", weights_only=True)["state_dict"] for s in ("stage1", "stage2"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one if name.startswith("backbone."))
    assert not torch.equal(one["head.cls_x.weight"], two["head.cls_x.weight"])
