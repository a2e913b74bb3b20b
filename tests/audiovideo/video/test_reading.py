"""Frames by time: constant and variable rates, windows, seeking, folders of images, and files that are none."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from limbeck_audiovideo.video import find_videos, frame_times, read_frames, read_video, write_video
from limbeck_core.errors import DataError, ShapeError

STEP = 6  # each frame is brighter than the one before by this much


def ramp(count: int = 30, height: int = 32, width: int = 48) -> Tensor:
    """Frames that say their own number by their brightness."""
    levels = torch.arange(count) * STEP
    return levels.to(torch.uint8)[:, None, None, None].expand(-1, 3, height, width).contiguous()


def numbers(frames: Tensor) -> list[int]:
    return [round(float(level)) for level in frames.float().mean((1, 2, 3)) / STEP]


@pytest.mark.parametrize("ending", ["mp4", "avi", "mkv"])
def test_a_file_reads_back(tmp_path: Path, ending: str) -> None:
    path = write_video(tmp_path / f"ramp.{ending}", ramp(), 25.0)
    frames, times = read_video(path)
    assert frames.shape == (30, 3, 32, 48)
    assert frames.dtype == torch.uint8
    assert numbers(frames) == list(range(30))
    assert torch.allclose(times, torch.arange(30).double() / 25)
    assert torch.equal(frame_times(path), times)


def test_times_of_a_variable_rate_are_the_frames_own(tmp_path: Path) -> None:
    stamps = torch.cumsum(torch.tensor([0.0] + [0.01, 0.2, 0.05] * 9), 0)
    path = write_video(tmp_path / "variable.mp4", ramp(28), stamps)
    frames, times = read_video(path)
    assert torch.allclose(times, stamps.double(), atol=1e-3)
    assert numbers(frames) == list(range(28))
    assert torch.equal(frame_times(path), times)
    # 0.215 s: frame 2 began at 0.21; a constant rate over the same span would say frame 2.5
    assert numbers(read_frames(path, [0.0, 0.1, 0.215, 1.0])) == [0, 1, 2, int((stamps <= 1.0 + 1e-6).sum()) - 1]


def test_a_window_begins_with_the_frame_on_show(tmp_path: Path) -> None:
    path = write_video(tmp_path / "ramp.mp4", ramp(), 10.0)
    frames, times = read_video(path, start=0.55, stop=0.9)
    assert numbers(frames) == [5, 6, 7, 8]
    assert torch.allclose(times, torch.tensor([0.5, 0.6, 0.7, 0.8]).double())
    assert numbers(read_video(path, start=100.0).frames) == [29]
    assert numbers(read_video(path, start=0.52, stop=0.55).frames) == [5]


@pytest.mark.parametrize("ending", ["mp4", "avi"])
def test_a_late_window_is_the_same_as_reading_all(tmp_path: Path, ending: str) -> None:
    """Past two seconds the file is entered at a key frame."""
    path = write_video(tmp_path / f"long.{ending}", ramp(40), 5.0)
    assert numbers(read_video(path, start=5.0, stop=6.0).frames) == list(range(25, 30))
    assert numbers(read_frames(path, [4.1, 4.1, 6.0, 7.7])) == [20, 20, 30, 38]


def test_moments_outside_take_the_first_and_the_last_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "ramp.avi", ramp(5), 10.0)
    assert numbers(read_frames(path, [-1.0, 0.0, 0.4, 0.5, 3.0])) == [0, 0, 4, 4, 4]


def test_grey_and_size(tmp_path: Path) -> None:
    path = write_video(tmp_path / "ramp.mp4", ramp(4), 10.0)
    frames = read_video(path, grey=True, size=(16, 24)).frames
    assert frames.shape == (4, 1, 16, 24)
    assert numbers(frames) == [0, 1, 2, 3]


def test_a_folder_of_images_is_in_natural_order(tmp_path: Path) -> None:
    for number in range(12):
        cv2.imwrite(str(tmp_path / f"frame{number}.png"), np.full((8, 10, 3), number * STEP, np.uint8))
    frames, times = read_video(tmp_path, frame_rate=4.0, grey=True)
    assert numbers(frames) == list(range(12))
    assert torch.allclose(times, torch.arange(12).double() / 4)
    assert torch.equal(frame_times(tmp_path, frame_rate=4.0), times)
    assert numbers(read_frames(tmp_path, [0.3, 2.6, 9.0], frame_rate=4.0)) == [1, 10, 11]


def test_colours_of_images_come_red_first(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.dstack([np.zeros((4, 4)), np.zeros((4, 4)), np.full((4, 4), 255)]))
    assert read_video(tmp_path).frames[0, :, 0, 0].tolist() == [255, 0, 0]


def test_videos_are_found_below_a_folder(tmp_path: Path) -> None:
    write_video(tmp_path / "b" / "clip10.avi", ramp(2), 10.0)
    write_video(tmp_path / "b" / "clip9.avi", ramp(2), 10.0)
    (tmp_path / "a" / "frames").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "a" / "frames" / "0.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "b" / "notes.txt").write_text("no video")
    assert [str(path.relative_to(tmp_path)) for path in find_videos(tmp_path)] == [
        "a/frames",
        "b/clip9.avi",
        "b/clip10.avi",
    ]


def test_what_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no video"):
        read_video(tmp_path / "absent.mp4")
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(bytes(range(256)) * 20)
    for read in (read_video, frame_times):
        with pytest.raises(DataError, match="noise.mp4 is no readable video"):
            read(noise)
    cut = write_video(tmp_path / "cut.mp4", ramp(), 10.0)
    cut.write_bytes(cut.read_bytes()[:600])
    with pytest.raises(DataError, match="cut.mp4 is no readable video"):
        read_video(cut)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        read_video(tmp_path / "empty")
    (tmp_path / "empty" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"0\.png is no readable video"):
        read_video(tmp_path / "empty")


def test_a_track_without_frames(tmp_path: Path) -> None:
    path = tmp_path / "none.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuvj420p"
        container.start_encoding()
    for read in (read_video, frame_times):
        with pytest.raises(DataError, match="none.avi"):
            read(path)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DataError, match="no video track"):
        read_video(path)


def test_arguments_out_of_range(tmp_path: Path) -> None:
    path = write_video(tmp_path / "ramp.mp4", ramp(4), 10.0)
    with pytest.raises(ValueError, match="start must be"):
        read_video(path, start=-1.0)
    with pytest.raises(ValueError, match="stop must come after"):
        read_video(path, start=1.0, stop=1.0)
    with pytest.raises(ValueError, match="size must be"):
        read_video(path, size=(0, 4))
    with pytest.raises(ValueError, match="rising order"):
        read_frames(path, [1.0, 0.5])
    with pytest.raises(ValueError, match="frame_rate"):
        read_video(tmp_path, frame_rate=0.0)
    with pytest.raises(ShapeError, match="bytes"):
        write_video(path, torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match="must rise"):
        write_video(path, ramp(3), [0.0, 0.1, 0.1])
