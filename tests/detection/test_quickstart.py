"""The quickstart runs, writes its page, and leaves foreign folders alone; its distance is that of the layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from limbeck_detection.dfine import dfine_n
from limbeck_detection.quickstart import distance_of_layers, main


def test_smoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--smoke", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "with self-distillation" in said
    assert "without (control)" in said
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 2
    assert (tmp_path / "out" / "pictures" / "boxes.png").is_file()


def test_a_foreign_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert main(["--smoke", "--out", str(tmp_path)]) == 2
    assert "holds something that no quickstart wrote" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_distance_of_layers_is_zero_where_they_agree_and_leaves_no_trace() -> None:
    model = dfine_n(
        2,
        encoder_dim=32,
        encoder_feedforward=32,
        decoder_dim=32,
        decoder_feedforward=32,
        points=(2, 2),
        num_queries=8,
        input_size=(64, 64),
    ).eval()
    batch = {"inputs": torch.rand(2, 3, 64, 64)}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    # the heads of the edges begin at zero, so all layers say the same
    assert distance_of_layers(model, batch) == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        model.decoder.dec_bbox_head[1].layers[-1].bias.add_(torch.randn(132))
    assert distance_of_layers(model, batch) > 0.01
    with torch.no_grad():
        model.load_state_dict(before)
    assert not model.training
