"""Rendered sounds: the same seed, the same files; classes and events as their tables say."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from limbeck_audiovideo.audio import read_rows, read_strong
from limbeck_audiovideo.rendered_audio import CLASSES, main, render, sound
from limbeck_core.errors import ConfigError


def test_the_same_seed_renders_the_same_files(sounds, tmp_path) -> None:
    again = render(tmp_path / "again", train=16, test=16, few=1, events=4, seed=0)
    other = render(tmp_path / "other", train=16, test=16, few=1, events=4, seed=1)
    files = sorted(path.relative_to(sounds) for path in sounds.rglob("*.*"))
    assert len(files) == 16 + 16 + 4 + 2 + 5
    assert all((sounds / file).read_bytes() == (again / file).read_bytes() for file in files)
    assert not any((sounds / f).read_bytes() == (other / f).read_bytes() for f in files if f.suffix == ".wav")


def test_tables_say_what_is_there(sounds) -> None:
    rows = read_rows(sounds / "train.csv")
    assert [row["label"] for row in rows[:8]] == list(CLASSES)
    assert len(read_rows(sounds / "few.csv")) == 8
    strong = read_strong(sounds / "events_train.tsv")
    assert set(strong.events) == {path.name for path in (sounds / "events" / "train").iterdir()}
    for name, events in strong.events.items():
        samples, rate = soundfile.read(sounds / "events" / "train" / name)
        assert len(samples) == 4 * rate
        loud = max(events, key=lambda event: event.offset - event.onset)
        inside = samples[round(loud.onset * rate) : round(loud.offset * rate)]
        assert np.sqrt(np.mean(inside**2)) > np.quantile(np.abs(samples), 0.2)


@pytest.mark.parametrize("label", CLASSES)
def test_an_event_has_unit_power_and_no_click_at_its_ends(label: str) -> None:
    wave = sound(label, np.random.default_rng(0), 1.0)
    assert np.mean(wave**2) == pytest.approx(1.0)
    assert abs(wave[-1]) < 0.2


def test_what_cannot_be_rendered_is_named(tmp_path, capsys) -> None:
    with pytest.raises(ConfigError, match="got train=3"):
        render(tmp_path, train=3)
    with pytest.raises(ConfigError, match="'whistle'"):
        sound("whistle", np.random.default_rng(0), 1.0)
    assert main([str(tmp_path), "--train", "1"]) == 1
    assert "error: rendering needs" in capsys.readouterr().err
    assert main([str(tmp_path), "--train", "8", "--test", "8", "--few", "1", "--events", "2"]) == 0
    assert "16 clips and 3 recordings" in capsys.readouterr().out
