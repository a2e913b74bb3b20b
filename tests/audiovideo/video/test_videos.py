"""Clips by time, crops, and data sets of videos with their labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from limbeck_audiovideo.video import CentreCrop, Clip, MultiScaleCrop, Videos, resized, write_video
from limbeck_core.errors import ConfigError, DataError, ShapeError


def level(value: int, count: int = 12) -> Tensor:
    return torch.full((count, 3, 20, 30), value, dtype=torch.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes by folder, and a table of the same four videos."""
    rows = ["file,EF,Split,motion"]
    for number, (name, fraction, split) in enumerate(
        [("beat/0", 30, "TRAIN"), ("beat/1", 60, "TRAIN"), ("still/2", 70, "TRAIN"), ("still/3", 55, "TEST")]
    ):
        write_video(tmp_path / f"{name}.avi", level(40 * number), 10.0)
        rows.append(f"{name},{fraction},{split},{name[0]}")
    (tmp_path / "list.csv").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path


def test_moments() -> None:
    assert Clip(3, 0.5, "first").moments(10.0).tolist() == [0.0, 0.5, 1.0]
    assert Clip(3, 0.5, "middle").moments(10.0).tolist() == [4.5, 5.0, 5.5]
    assert Clip(3, 0.5, "middle").moments(0.2).tolist() == [0.0, 0.5, 1.0]
    starts = torch.tensor([float(Clip(3, 0.5, "random").moments(10.0)[0]) for _ in range(200)])
    assert 0 <= float(starts.min()) < 1
    assert 8 < float(starts.max()) <= 9


def test_clips_without_frames_or_span() -> None:
    with pytest.raises(ConfigError, match="length"):
        Clip(0)
    with pytest.raises(ValueError, match="spacing"):
        Clip(4, 0.0)
    with pytest.raises(ConfigError, match="start"):
        Clip(4, 0.1, "end")  # type: ignore[arg-type]


def test_crops() -> None:
    frames = torch.arange(2 * 3 * 20 * 30).reshape(2, 3, 20, 30).to(torch.uint8)
    assert MultiScaleCrop(16)(frames).shape == (2, 3, 16, 16)
    assert torch.equal(CentreCrop(20)(frames), frames[..., 5:25])
    whole = MultiScaleCrop(20, scales=(1.0,))(frames)
    assert any(torch.equal(whole, frames[..., left : left + 20]) for left in range(11))
    ends = {tuple(MultiScaleCrop(10, scales=(0.5,))(frames)[0, 0, 0, :2].tolist()) for _ in range(50)}
    assert len(ends) > 20, "each clip gets a place of its own"


def test_crops_that_hold_nothing() -> None:
    with pytest.raises(ConfigError, match="at least one scale"):
        MultiScaleCrop(16, scales=())
    with pytest.raises(ValueError, match="scale"):
        MultiScaleCrop(16, scales=(1.5,))
    with pytest.raises(ShapeError, match="bytes"):
        resized(torch.zeros(2, 3, 4, 4), 2)


def test_classes_by_folder(folder: Path) -> None:
    data = Videos(folder, clip=Clip(4, 0.1), crop=dict(type=CentreCrop, size=16), grey=True, labels="folder")
    assert len(data) == 4
    assert data.classes == {"folder": ["beat", "still"]}
    item = data[2]
    assert item["inputs"].shape == (1, 4, 16, 16)
    assert item["inputs"].dtype == torch.uint8
    assert (item["targets"], item["ids"]) == (1, 2)
    assert abs(float(item["inputs"].float().mean()) - 80) < 3
    assert data.durations == pytest.approx([1.1] * 4)


def test_rows_of_a_table(folder: Path) -> None:
    data = Videos(
        folder,
        clip=dict(type=Clip, length=4, spacing=0.1),
        table="list.csv",
        labels=("motion", "EF"),
        where={"Split": "TRAIN", "EF": (25, 65)},
        classes_from={"EF": 40},
    )
    assert [path.stem for path in data.paths] == ["0", "1"]
    assert data[1]["targets"] == {"motion": 0, "EF": 1}
    # classes are those of the whole table, so that parts of it agree
    assert data.classes == {"motion": ["b", "s"], "EF": ["EF < 40", "EF >= 40"]}


def test_no_labels(folder: Path) -> None:
    assert "targets" not in Videos(folder, clip=Clip(2, 0.1))[0]


def test_damaged_files_are_named_together(folder: Path) -> None:
    (folder / "beat" / "0.avi").write_bytes(b"RIFF no more")
    (folder / "still" / "3.avi").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 4 videos cannot be read:(?s:.*)0\.avi(?s:.*)3\.avi"):
        Videos(folder, clip=Clip(2, 0.1))


def test_a_file_damaged_inside_is_found_by_decoding_all(folder: Path) -> None:
    path = write_video(folder / "beat" / "9.avi", level(90, 12), 10.0, codec="mjpeg")
    content = path.read_bytes()
    chunks = content.split(b"00dc")
    chunks[6] = chunks[6][:4] + bytes(len(chunks[6]) - 4)  # the picture of one frame, its length kept
    path.write_bytes(b"00dc".join(chunks))
    assert len(Videos(folder, clip=Clip(2, 0.1))) == 5
    with pytest.raises(DataError, match=r"1 of 5 videos cannot be read:(?s:.*)9\.avi"):
        Videos(folder, clip=Clip(2, 0.1), check="all")


def test_a_file_cut_off_is_as_long_as_what_is_left(folder: Path) -> None:
    noise = torch.randint(0, 255, (12, 3, 20, 30), dtype=torch.uint8)
    path = write_video(folder / "still" / "2.avi", noise, 10.0, codec="mjpeg")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    left = Videos(folder, clip=Clip(2, 0.1)).durations[2]
    assert 0.2 < left < 1.1


def test_what_does_not_fit_together(folder: Path) -> None:
    with pytest.raises(ConfigError, match="need a table"):
        Videos(folder, clip=Clip(2, 0.1), labels="motion")
    with pytest.raises(ConfigError, match="check"):
        Videos(folder, clip=Clip(2, 0.1), check="some")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no column 'motoin': did you mean 'motion'"):
        Videos(folder, clip=Clip(2, 0.1), table="list.csv", labels="motoin")
    with pytest.raises(DataError, match="no video is left"):
        Videos(folder, clip=Clip(2, 0.1), table="list.csv", where={"Split": "VAL"})
    with pytest.raises(DataError, match="there is no table"):
        Videos(folder, clip=Clip(2, 0.1), table="absent.csv")
    with pytest.raises(DataError, match="needs numbers"):
        Videos(folder, clip=Clip(2, 0.1), table="list.csv", labels="motion", classes_from={"motion": 1.0})
    write_video(folder / "loose.avi", level(0, 3), 10.0)
    with pytest.raises(DataError, match="folder of its class"):
        Videos(folder, clip=Clip(2, 0.1), labels="folder")
