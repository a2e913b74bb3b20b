"""Drawn data, a run from a config with its restart and resume, the early check, and the optimiser's groups."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from limbeck_core import Distiller
from limbeck_core.engine.commands import train
from limbeck_core.errors import ConfigError, MatchError
from limbeck_core.schedules import Progress
from limbeck_detection.calls import DetectionCall
from limbeck_detection.data import CocoDetection, StretchTo, detection_batch
from limbeck_detection.dfine import DFINECriterion, dfine_n
from limbeck_detection.evaluation import judge_checkpoint
from limbeck_detection.rendered import CLASSES, main, render
from limbeck_detection.training import DetectorEMAHook, DetectorParameterGroups, RampedMomentum, fine_tuned

TINY: dict[str, Any] = {
    "encoder_dim": 32,
    "encoder_feedforward": 32,
    "decoder_dim": 32,
    "decoder_feedforward": 32,
    "layers": 2,
    "points": (2, 2),
    "num_queries": 8,
    "num_denoising": 6,
    "input_size": (64, 64),
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("shapes"), train=8, val=4, size=64, seed=1)


class TestRendered:
    def test_the_same_seed_draws_the_same_files(self, shapes: Path, tmp_path: Path) -> None:
        again = render(tmp_path / "again", train=8, val=4, size=64, seed=1)
        other = render(tmp_path / "other", train=8, val=4, size=64, seed=2)
        for name in ("train.json", "val/00003.png", "train/00000.png"):
            assert (again / name).read_bytes() == (shapes / name).read_bytes()
            assert (other / name).read_bytes() != (shapes / name).read_bytes()
        assert (shapes / "train" / "00000.png").read_bytes() != (shapes / "val" / "00000.png").read_bytes()

    def test_boxes_hold_pixels_of_their_colour_and_nothing_hides_most_of_a_shape(self, shapes: Path) -> None:
        content = json.loads((shapes / "train.json").read_text())
        assert [category["name"] for category in content["categories"]] == list(CLASSES)
        files = {image["id"]: image["file_name"] for image in content["images"]}
        assert content["annotations"]
        for mark in content["annotations"]:
            left, top, width, height = mark["bbox"]
            assert min(left, top) >= 0
            assert max(left + width, top + height) <= 64
            assert 0 < mark["area"] <= width * height
            pixels = np.asarray(Image.open(shapes / "train" / files[mark["image_id"]]), dtype=float)
            part = pixels[top : top + height, left : left + width].reshape(-1, 3)
            # the shape's channel is the strongest in at least as many pixels as the shape has
            strongest = (part.argmax(axis=1) == mark["category_id"] - 1).sum()
            assert strongest >= 0.7 * mark["area"]

    def test_the_command(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([str(tmp_path), "--train", "2", "--val", "1", "--size", "32"]) == 0
        assert "2 training and 1 validation images" in capsys.readouterr().out
        assert main([str(tmp_path), "--size", "8"]) == 1
        assert "a size of 32 or more" in capsys.readouterr().err


def overrides(**options: Any) -> dict[str, Any]:
    tiny = {f"model.student.{name}": value for name, value in TINY.items() if name != "layers"}
    for part in ("train", "val", "test"):
        tiny[f"{part}_dataloader.dataset.transform.size"] = 64
    return {
        **tiny,
        "+model.student.layers": 2,
        "train_cfg.max_steps": 4,
        "train_cfg.val_interval": 2,
        "train_dataloader.batch_size": 4,
        "+log_level": "ERROR",
        **options,
    }


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


class TestRun:
    def test_a_run_restarts_and_resumes_to_the_same_weights(self, shapes: Path, tmp_path: Path) -> None:
        hook = {
            "type": "limbeck_detection.training.DetectorEMAHook",
            "momentum": 0.5,
            "restart_epoch": 1,
            "second_momentum": 0.9,
        }
        more = {"custom_hooks": [hook], "+default_hooks.checkpoint.every_steps": 1, "+default_hooks.checkpoint.keep": 4}
        more["train_cfg.val_interval"] = 1

        def run(folder: str, **options: Any) -> Any:
            settings = overrides(**{**more, **options})
            return train(
                "detection/rendered/dfine_tiny",
                work_dir=tmp_path / folder,
                seed=3,
                data_root=shapes,
                overrides=settings,
            )

        whole = run("whole")
        ema = next(h for h in whole.hooks if isinstance(h, DetectorEMAHook))
        assert ema.restarted
        assert ema.best is None
        # eight images in batches of four: step 2 opens epoch 1, and step 3 lies within it
        for stop in (2, 3):
            folder = tmp_path / f"part{stop}"
            folder.mkdir()
            source = tmp_path / "whole" / f"step_{stop}.pth"
            (folder / source.name).write_bytes(source.read_bytes())
            (folder / "last_checkpoint").write_text(source.name, encoding="utf-8")
            settings = overrides(**more)
            resumed = train(
                "detection/rendered/dfine_tiny",
                work_dir=folder,
                seed=3,
                data_root=shapes,
                overrides=settings,
                resume=True,
            )
            expected = weights(whole.model)
            assert all(torch.equal(value, expected[name]) for name, value in weights(resumed.model).items())
            other = next(h for h in resumed.hooks if isinstance(h, DetectorEMAHook))
            average = weights(ema.average)
            assert all(torch.equal(value, average[name]) for name, value in weights(other.average).items())
        judged = judge_checkpoint(
            "detection/rendered/dfine_tiny", tmp_path / "whole" / "student.pth", data_root=shapes, overrides=overrides()
        )
        assert judged.classes == CLASSES
        assert judged.result["images"] == 4
        assert {row["category_id"] for row in judged.predictions} <= {1, 2, 3}

    def test_another_number_of_classes_is_explained_before_the_first_step(self, shapes: Path, tmp_path: Path) -> None:
        settings = overrides(**{"model.student.num_classes": 80})
        with pytest.raises(ConfigError, match=r"has 3 classes \(circle, square, triangle\), the model scores 80"):
            train("detection/rendered/dfine_tiny", work_dir=tmp_path, data_root=shapes, overrides=settings)

    def test_other_validation_classes_are_explained_too(self, shapes: Path, tmp_path: Path) -> None:
        settings = overrides(**{"+val_dataloader.dataset.classes": ["square", "circle", "triangle"]})
        with pytest.raises(ConfigError, match="label 0 is 'circle' and 'square'"):
            train("detection/rendered/dfine_tiny", work_dir=tmp_path, data_root=shapes, overrides=settings)


class Steps:
    """As much of a runner as the hook reads."""

    def __init__(self, model: Distiller) -> None:
        self.model = model
        self.logger = self
        self.said: list[str] = []
        self.train_loop = self
        self.iter = self.epoch = 0
        self.max_iters = self.max_epochs = 10
        self.optim_wrapper = None

    def info(self, text: str) -> None:
        self.said.append(text)

    warning = info


class TestAverage:
    def make(self, **options: Any) -> tuple[DetectorEMAHook, Steps]:
        student = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        runner = Steps(Distiller(student, None))
        hook = DetectorEMAHook(0.5, **options)
        hook.before_train(runner)
        return hook, runner

    def validate(self, hook: DetectorEMAHook, runner: Steps, score: float) -> None:
        hook.before_val_epoch(runner)
        hook.after_val_epoch(runner, {"AP": score})

    def shift(self, runner: Steps, amount: float) -> None:
        with torch.no_grad():
            for tensor in runner.model.student.parameters():
                tensor.add_(amount)

    def test_statistics_are_averaged_and_counts_copied(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("limbeck_core.engine.hooks.just_stepped", lambda wrapper: True)
        hook, runner = self.make()
        norm = runner.model.student[1]
        norm.running_mean += 4.0
        norm.num_batches_tracked += 6
        hook.after_train_iter(runner, 0)
        assert hook.average[1].running_mean.tolist() == [2.0, 2.0]
        assert int(hook.average[1].num_batches_tracked) == 6

    def test_both_return_to_the_best_once(self) -> None:
        hook, runner = self.make(restart_epoch=2, second_momentum=0.75)
        self.shift(runner, 1.0)
        best = weights(runner.model.student)
        self.validate(hook, runner, 30.0)
        self.shift(runner, 1.0)
        self.validate(hook, runner, 20.0)
        runner.epoch = 2
        hook.before_train_epoch(runner)
        assert all(torch.equal(value, best[name]) for name, value in weights(runner.model.student).items())
        assert hook.momentum(Progress(step=5)) == 0.75
        assert "return to the best AP so far, 30.0000" in runner.said[0]
        self.shift(runner, 1.0)
        later = weights(runner.model.student)
        hook.before_train_epoch(runner)
        assert all(torch.equal(value, later[name]) for name, value in weights(runner.model.student).items())

    def test_without_a_validation_there_is_nothing_to_return_to(self) -> None:
        hook, runner = self.make(restart_epoch=0)
        hook.before_train_epoch(runner)
        assert "no validation came before the restart" in runner.said[0]

    def test_a_metric_that_is_not_there(self) -> None:
        hook, runner = self.make(restart_epoch=2)
        with pytest.raises(ConfigError, match="restarts from the best 'AP', which the validation does not give"):
            hook.after_val_epoch(runner, {"top1": 1.0})

    def test_the_ramp(self) -> None:
        ramp = RampedMomentum(0.9999, 1000)
        assert ramp(Progress(step=0)) == pytest.approx(0.9999 * 0.0009995, rel=1e-4)
        assert ramp(Progress(step=999)) == pytest.approx(0.9999 * 0.632, rel=1e-3)
        with pytest.raises(ConfigError, match="RampedMomentum needs"):
            RampedMomentum(1.5)


def test_groups_of_the_optimiser() -> None:
    model = Distiller(dfine_n(3, **TINY), None, task_loss=DFINECriterion(), call=DetectionCall())
    wrapper = {"optimizer": {"type": torch.optim.AdamW, "lr": 0.1, "weight_decay": 0.01}}
    groups = DetectorParameterGroups(wrapper, {"backbone_lr_mult": 0.5})(model).optimizer.param_groups
    place = {id(p): (round(g["lr"], 6), g["weight_decay"]) for g in groups for p in g["params"]}
    student = model.student
    assert place[id(student.backbone.stem.stem1.conv.weight)] == (0.05, 0.01)
    assert place[id(student.backbone.stem.stem1.bn.weight)] == (0.05, 0.0)
    assert place[id(student.decoder.enc_score_head.weight)] == (0.1, 0.01)
    assert place[id(student.decoder.enc_score_head.bias)] == (0.1, 0.0)
    assert len(place) == sum(p.requires_grad for p in model.parameters())
    with pytest.raises(ConfigError, match="takes backbone_lr_mult alone, got norm_decay_mult"):
        DetectorParameterGroups(wrapper, {"norm_decay_mult": 0.0})


class TestCall:
    def batch(self, shapes: Path) -> dict[str, Any]:
        transform = {"type": StretchTo, "size": 64}
        data = CocoDetection(shapes, "train", "train.json", transform=transform)
        return detection_batch([data[i] for i in range(2)])

    def test_losses_are_summed_by_term(self, shapes: Path) -> None:
        batch = self.batch(shapes)
        model = Distiller(dfine_n(3, **TINY), None, task_loss=DFINECriterion(), call=DetectionCall())
        torch.manual_seed(0)
        losses = model(batch)
        assert losses.keys() == {f"loss/{term}" for term in ("vfl", "bbox", "giou", "fgl", "ddf")}
        torch.manual_seed(0)
        every = DFINECriterion()(model.student(batch["inputs"], batch["targets"]), batch["targets"])
        torch.testing.assert_close(sum(losses.values()), sum(every.values()))

    def test_predictions_are_in_pixels_of_the_file(self, shapes: Path) -> None:
        batch = {**self.batch(shapes), "sizes": torch.tensor([[640, 320], [64, 64]])}
        model = Distiller(dfine_n(3, **TINY), None, call=DetectionCall(num_top=5)).eval()
        with torch.no_grad():
            first, _ = model(batch, mode="predict")
            again = model({"inputs": batch["inputs"]}, mode="predict")[0]
        assert first["boxes"].shape == (5, 4)
        assert first["scores"].tolist() == sorted(first["scores"].tolist(), reverse=True)
        torch.testing.assert_close(first["boxes"], again["boxes"] * torch.tensor([10.0, 5.0, 10.0, 5.0]))

    def test_a_batch_without_targets_is_explained(self, shapes: Path) -> None:
        batch = {name: value for name, value in self.batch(shapes).items() if name != "targets"}
        model = Distiller(dfine_n(3, **TINY), None, task_loss=DFINECriterion(), call=DetectionCall())
        with pytest.raises(MatchError, match="a detector needs 'targets' of the batch"):
            model(batch)


def test_fine_tuning_starts_from_rows_of_other_classes(tmp_path: Path) -> None:
    source = dfine_n(5, **TINY)
    torch.save(source.state_dict(), tmp_path / "five.pth")
    config = {"type": dfine_n, "num_classes": 2, **TINY}
    model = fine_tuned(config, tmp_path / "five.pth", class_rows=(2, 5), row_offset=-1)
    rows = source.decoder.enc_score_head.weight[[1, 4]]
    assert torch.equal(model.decoder.enc_score_head.weight, rows)
    with torch.device("meta"):
        assert fine_tuned(config, tmp_path / "none.pth").decoder.num_classes == 2
