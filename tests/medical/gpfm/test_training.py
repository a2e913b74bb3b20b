"""The whole way by configs: an expert, a student that learns from it, and the tool that judges its features."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck_core.build import build
from limbeck_core.engine import export_student
from limbeck_core.engine.commands import train
from limbeck_core.engine.config import load_config
from limbeck_core.errors import DataError
from limbeck_medical.gpfm import Features, StudentCall, TileFolder, embed, probe
from source_tree import ROOT

QUICK: dict[str, Any] = {"+log_level": "ERROR", "train_cfg.max_epochs": 1, "train_dataloader.batch_size": 8}
SMALL = {"model.student.encoder.vit.depth": 1}


def tool() -> Any:
    spec = importlib.util.spec_from_file_location("eval_features", ROOT / "tools" / "eval_medical_features.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_from_expert_to_features(tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("medical/gpfm/tiles_expert", work_dir=tmp_path / "expert", seed=0, data_root=tiles, overrides=QUICK)
    expert = str(tmp_path / "expert" / "student.pth")
    overrides = {**QUICK, **SMALL, **{f"model.experts.{n}.checkpoint": expert for n in ("size", "arrangement")}}
    runner = train("medical/gpfm/tiles", work_dir=tmp_path / "run", seed=0, data_root=tiles, overrides=overrides)
    logged = runner.message_hub.log_scalars
    assert {"train/loss/dino", "train/loss/size_cls", "train/loss/arrangement_patch"} <= logged.keys()
    teacher = runner.model.teachers["ema"].model
    out = tmp_path / "found.json"
    arguments = ["--config", "medical/gpfm/tiles", "--checkpoint", str(tmp_path / "run" / "student.pth")]
    arguments += ["--tiles", str(tiles), "--train", "labelled", "--neighbours", "3", "--json", str(out)]
    arguments += ["--cfg-options", "model.student.encoder.vit.depth=1"]
    assert tool().main(arguments) == 0
    assert "features of the moving average of the student" in capsys.readouterr().out
    found = json.loads(out.read_text(encoding="utf-8"))
    parts = [embed(teacher, TileFolder(tiles, part=part, size=48)) for part in ("labelled", "test")]
    assert found == pytest.approx(probe(*parts, neighbours=3))
    assert found.keys() == {"knn", "knn_balanced", "linear", "linear_balanced"}


def test_random_weights_are_judged_too(tiles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", "medical/gpfm/tiles_self", "--random", "0", "--tiles", str(tiles), "--train", "labelled"]
    assert tool().main(arguments) == 0
    assert "features of drawn from seed 0; 6 tiles of labelled, 12 of test" in capsys.readouterr().out
    assert tool().main([*arguments, "--test", "nowhere"]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_probes_are_right_where_features_say_it() -> None:
    targets = torch.arange(12) % 3
    said = Features(torch.eye(3)[targets] + 0.01 * torch.randn(12, 3), targets, ("a", "b", "c"))
    assert set(probe(said, said, neighbours=2).values()) == {100.0}
    with pytest.raises(DataError, match="the training tiles have the classes a, b, c, the test tiles a, b"):
        probe(said, Features(said.features, targets, ("a", "b")))


def test_balanced_accuracy_counts_classes_alike() -> None:
    train_ = Features(torch.eye(2)[[0, 1]], torch.tensor([0, 1]), ("a", "b"))
    test = Features(torch.eye(2)[[0, 0, 0, 0]], torch.tensor([0, 0, 0, 1]), ("a", "b"))
    found = probe(train_, test, neighbours=1)
    assert (found["knn"], found["knn_balanced"]) == (75.0, 50.0)


def test_embedding_keeps_the_mode_and_needs_classes(tiles: Path, tmp_path: Path) -> None:
    student = build(
        load_config("medical/gpfm/tiles_self", overrides=["model.student.encoder.vit.depth=1"]).model.student
    )
    student.train()
    assert embed(student, TileFolder(tiles, part="val", size=48)).features.shape == (12, 64)
    assert student.training
    (tmp_path / "x.png").write_bytes(next((tiles / "val" / "small_ring").iterdir()).read_bytes())
    with pytest.raises(DataError, match="a probe needs tiles in one folder for each class"):
        embed(student, TileFolder(tmp_path, size=48))


def test_the_papers_size() -> None:
    with torch.device("meta"):
        model = build(load_config("medical/gpfm/vit_large").model)
    assert sum(p.numel() for p in model.student.encoder.vit.parameters()) == pytest.approx(303e6, rel=0.01)
    assert model.student.head.last.weight.shape == (65536, 256)
    assert model.weights == {"uni": (1.0, 0.25), "phikon": (0.5, 0.125), "conch": (1.0, 0.0)}
    assert [model.heads[name].out for name in model.weights] == [1024, 768, 768]


def test_what_is_exported_takes_images_in_any_number(tmp_path: Path) -> None:
    settings = load_config("medical/gpfm/tiles_self", overrides=["model.student.encoder.vit.depth=1"])
    batch = {"inputs": torch.rand(3, 3, 48, 48)}
    exported = export_student(build(settings.model.student), tmp_path / "x.pt2", "pt2", batch=batch, call=StudentCall())
    assert exported.outputs == ("output float32 (batch, 64)",)
    assert exported.check.absolute is not None
