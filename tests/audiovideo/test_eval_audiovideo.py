"""tools/eval_audiovideo.py: classes, events, probes, long files, and what it says of what does not fit."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck_audiovideo.atst import FrameEncoder, FrameTagger
from limbeck_audiovideo.audio import Event, write_strong
from source_tree import ROOT


@pytest.fixture(scope="module")
def main() -> Any:
    return runpy.run_path(str(ROOT / "tools" / "eval_audiovideo.py"))["main"]


def test_clips_of_anyone(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.csv").write_text("filename,cat,dog\na,0.9,0.1\nb,0.8,0.7\n")
    (tmp_path / "t.csv").write_text("filename,label\na,cat\nb,dog\n")
    files = ["clips", "--scores", str(tmp_path / "s.csv"), "--truth", str(tmp_path / "t.csv")]
    assert main([*files, "--confusion", str(tmp_path / "c.png"), "--json", str(tmp_path / "r.json")]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["accuracy"] == 50
    assert "balanced_accuracy     50.00" in capsys.readouterr().out
    assert (tmp_path / "c.png").is_file()
    assert main([*files, "--separator", ";"]) == 0
    assert "map" in capsys.readouterr().out
    (tmp_path / "t.csv").write_text("filename,label\na,cat\nb,bird\n")
    assert main(files) == 1
    assert "'bird', of which there is no score" in capsys.readouterr().err


def test_events_of_anyone(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_strong(tmp_path / "t.tsv", {"a.wav": [Event(1.0, 2.0, "dog")], "b.wav": []})
    write_strong(tmp_path / "f.tsv", {"a.wav": [Event(1.1, 2.1, "dog")], "b.wav": [Event(0.0, 1.0, "dog")]})
    (tmp_path / "d.tsv").write_text("filename\tduration\na.wav\t4\nb.wav\t4\n")
    words = ["events", "--found", str(tmp_path / "f.tsv"), "--truth", str(tmp_path / "t.tsv")]
    assert main([*words, "--durations", str(tmp_path / "d.tsv"), "--pictures", str(tmp_path / "drawn")]) == 0
    assert "event_f1_macro       66.67" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"a.png", "b.png"}
    assert main(words) == 1
    assert "give --durations, or --audio" in capsys.readouterr().err


def test_psds_of_scores(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_strong(tmp_path / "t.tsv", {"a.wav": [Event(0.4, 2.0, "dog")]})
    (tmp_path / "d.tsv").write_text("filename\tduration\na.wav\t4\n")
    rows = [f"{0.04 * i:.2f}\t{0.9 if 10 <= i < 50 else 0.05}" for i in range(100)]
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "a.tsv").write_text("onset\tdog\n" + "\n".join(rows) + "\n")
    words = ["events", "--scores", str(tmp_path / "scores"), "--truth", str(tmp_path / "t.tsv")]
    assert main([*words, "--durations", str(tmp_path / "d.tsv"), "--thresholds", "5"]) == 0
    shown = capsys.readouterr().out
    assert "psds1" in shown
    assert "event_f1_micro      100.00" in shown


def test_a_probe_of_random_weights(main: Any, sounds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["probe", "--config", "audiovideo/atst/sounds_frame", "--audio", str(sounds / "clips"), "--seconds", "2"]
    assert main([*words, "--train", str(sounds / "train.csv"), "--test", str(sounds / "test.csv")]) == 0
    shown = capsys.readouterr().out
    assert "linear/accuracy" in shown
    assert "knn/macro_f1" in shown


def test_listening_and_a_config(main: Any, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    tagger = FrameTagger(FrameEncoder(dim=64, depth=3, heads=2, max_frames=201), 8)
    torch.save(tagger.state_dict(), tmp_path / "student.pth")
    words = ["--config", "audiovideo/atst/sounds_events", "--checkpoint", str(tmp_path / "student.pth")]
    recording = sounds / "events" / "test" / "00000.wav"
    assert main(["listen", *words, "--threshold", "0.4", "--out", str(tmp_path / "f.tsv"), str(recording)]) == 0
    assert "00000.wav\t0.000\t4.000\tbuzz" in (tmp_path / "f.tsv").read_text()
    assert main(["run", *words, "--data-root", str(sounds)]) == 0
    assert "segment_f1_macro" in capsys.readouterr().out
