"""From a config and a checkpoint to the same numbers as the run's own evaluation."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from limbeck_core.build import build
from limbeck_core.engine.commands import evaluate as judge
from limbeck_core.engine.config import load_config
from limbeck_core.errors import CheckpointError, ConfigError, DataError, ShapeError
from limbeck_vision.data import Digits
from limbeck_vision.evaluation import evaluate, predict_checkpoint

CONFIG = "vision/digits/plain"


def weights(path: Path, seed: int = 0, config: str = CONFIG) -> Path:
    torch.manual_seed(seed)
    torch.save(build(load_config(config).model.student).state_dict(), path)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return weights(tmp_path / "student.pth")


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = Path(__file__).parents[3] / "tools" / "eval_vision.py"
    spec = importlib.util.spec_from_file_location("eval_vision", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_numbers_are_those_of_the_test_command(checkpoint: Path, tmp_path: Path) -> None:
    fields = predict_checkpoint(CONFIG, checkpoint)
    assert fields["logits"].shape == (597, 10)
    np.testing.assert_array_equal(fields["targets"], Digits(train=False).targets)
    result = evaluate(fields)
    reported = judge(CONFIG, checkpoint, work_dir=tmp_path / "test", overrides={"+log_level": "ERROR"})
    for name in ("top1", "top5", "nll", "ece", "aurc", "eaurc"):
        assert result[name] == pytest.approx(reported[name], rel=1e-6), name
    assert result["per_class"][7]["name"] == "7"


def test_several_checkpoints_are_an_ensemble(tmp_path: Path) -> None:
    files = [weights(tmp_path / f"{seed}.pth", seed) for seed in range(2)]
    together = predict_checkpoint(CONFIG, files)
    single = [torch.from_numpy(predict_checkpoint(CONFIG, file)["logits"]).softmax(1) for file in files]
    np.testing.assert_allclose(together["probabilities"], sum(single) / 2)
    assert "logits" not in together


def test_peers_are_judged_by_the_first(tmp_path: Path) -> None:
    name = "vision/classics/digits_dml"
    file = weights(tmp_path / "peers.pth", config=name)
    first = {key.removeprefix("a."): value for key, value in torch.load(file).items() if key.startswith("a.")}
    torch.save(first, tmp_path / "a.pth")
    alone = predict_checkpoint(CONFIG, tmp_path / "a.pth")
    np.testing.assert_allclose(predict_checkpoint(name, file)["logits"], alone["logits"])


def test_training_images_are_counted_when_asked(checkpoint: Path) -> None:
    clean = {"train_dataloader.dataset.label_noise": 0.0}
    fields = predict_checkpoint(CONFIG, checkpoint, count_training_images=True, overrides=clean)
    np.testing.assert_array_equal(fields["train_counts"], Digits().class_counts)
    assert evaluate(fields)["many"] == pytest.approx(
        np.mean([row["accuracy"] for row in evaluate(fields)["per_class"]])
    )


def test_what_does_not_fit_is_told(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no checkpoint is given"):
        predict_checkpoint(CONFIG, [])
    with pytest.raises(ConfigError, match="digits_ab_stage1 has nothing to test on"):
        predict_checkpoint("vision/classics/digits_ab_stage1", checkpoint)
    with pytest.raises(CheckpointError, match="there is no checkpoint file"):
        predict_checkpoint(CONFIG, tmp_path / "absent.pth")
    more = {"model.student.num_classes": 12}
    torch.save(build({**load_config(CONFIG).model.student, "num_classes": 12}).state_dict(), tmp_path / "12.pth")
    with pytest.raises(ShapeError, match="the student scores 12 classes, the test images have 10"):
        predict_checkpoint(CONFIG, tmp_path / "12.pth", overrides=more)
    stem = {"type": "limbeck_vision.models.stages.conv_bn_act", "in_channels": 3, "out_channels": 4, "kernel": 3}
    torch.save(build(stem).state_dict(), tmp_path / "stem.pth")
    maps = {"model.student": stem, "model.call": {"type": "limbeck_core.calls.TensorCall"}}
    with pytest.raises(ShapeError, match=r"logits of shape \(N, C\), got \(256, 4, 8, 8\)"):
        predict_checkpoint(CONFIG, tmp_path / "stem.pth", overrides=maps)


def test_unlabelled_test_images_are_told(checkpoint: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    unlabelled = {"test_dataloader.dataset": {"type": "limbeck_vision.data.Unlabelled", "root": str(tmp_path)}}
    with pytest.raises(DataError, match="have no labels: evaluation needs 'targets'"):
        predict_checkpoint(CONFIG, checkpoint, overrides=unlabelled)


def test_tool_judges_a_checkpoint(
    tool: ModuleType, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--config", CONFIG, "--checkpoint", str(checkpoint)]
    outputs = [
        "--json",
        str(tmp_path / "r.json"),
        "--save",
        str(tmp_path / "p.npz"),
        "--plots",
        str(tmp_path / "plots"),
    ]
    assert tool.main([*common, *outputs, "--per-class", "--shots"]) == 0
    printed = capsys.readouterr().out
    assert "597 samples, 10 classes" in printed
    assert "many-shot accuracy" in printed
    assert len([line for line in printed.splitlines() if line.strip().startswith(tuple("0123456789"))]) >= 10
    written = json.loads((tmp_path / "r.json").read_text())
    assert evaluate(tmp_path / "p.npz") == written
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"reliability.png", "risk_coverage.png"}
    assert tool.main([*common[:2], "--checkpoint", str(tmp_path / "absent.pth")]) == 1
    assert capsys.readouterr().err.startswith("error: there is no checkpoint file")


def test_tool_wants_a_config_with_its_checkpoint(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--config", CONFIG], ["--predictions", "p.npz", "--checkpoint", "f.pth"]):
        with pytest.raises(SystemExit):
            tool.main(words)
        assert "--config and --checkpoint go together" in capsys.readouterr().err
