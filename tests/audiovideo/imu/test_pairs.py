"""Tables of clips: windows and frames of the same moments, subjects, controls, and problems named together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from limbeck_audiovideo.imu import ClipPairs, read_table
from limbeck_audiovideo.imu.utd_mhad import main as utd_mhad
from limbeck_audiovideo.rendered_pairs import ACTIVITIES, Part, render
from limbeck_core.errors import ConfigError, DataError, ShapeError

SMALL = {"pairs": Part(2, 1, False), "test": Part(2, 1, True)}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("rendered"), parts=SMALL, seed=3)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two recordings of 4 s at 50 Hz with 10 frames a second that show their own number."""
    times = np.arange(200) / 50
    for person in range(2):
        values = np.stack([np.sin(times + c + person) for c in range(6)], 1)
        np.save(tmp_path / f"imu{person}.npy", values)
        frames = np.arange(40, dtype=np.uint8)[:, None, None] * np.ones((1, 6, 8), np.uint8)
        np.save(tmp_path / f"video{person}.npy", frames + 100 * person)
    write(tmp_path, [f"video{p}.npy,imu{p}.npy,,,walk,s{p}" for p in range(2)])
    return tmp_path


def write(folder: Path, rows: list[str]) -> None:
    (folder / "pairs.csv").write_text("video,imu,start,end,label,subject\n" + "\n".join(rows) + "\n")


def pairs(root: Path, **options: object) -> ClipPairs:
    settings = {"root": root, "rate": 50.0, "frame_rate": 10.0, "length": 100, "frames": 4, "size": (6, 8)}
    return ClipPairs(**{**settings, **options})  # type: ignore[arg-type]


def test_window_and_frames_are_of_the_same_moments(table: Path) -> None:
    write(table, ["video0.npy,imu0.npy,1,3,walk,s0"])
    item = pairs(table)[0]
    assert item["inputs"].shape == (6, 100)
    assert item["inputs"].dtype == torch.float32
    torch.testing.assert_close(item["inputs"][0, 50], torch.tensor(2.01).sin(), atol=0.02, rtol=0)
    assert item["video"].shape == (4, 3, 6, 8)
    assert item["video"][:, 0, 0, 0].tolist() == [12, 17, 22, 27]
    assert (item["targets"], item["subjects"], item["ids"]) == (0, 0, 0)


def test_windows_do_not_overlap_and_the_rest_is_dropped(table: Path) -> None:
    data = pairs(table, window=1.5)
    assert [(c.start, c.end, c.subject) for c in data.clips] == [
        (0, 1.5, "s0"), (1.5, 3, "s0"), (0, 1.5, "s1"), (1.5, 3, "s1"),
    ]  # fmt: skip
    assert data.windows.shape == (4, 6, 100)
    assert not torch.equal(data.windows[0], data.windows[1])


def test_subjects_and_labels(table: Path) -> None:
    write(table, ["video0.npy,imu0.npy,,,walk,s0", "video1.npy,imu1.npy,,,,s1", "video1.npy,imu1.npy,,,run,"])
    data = pairs(table)
    assert [data[i]["targets"] for i in range(3)] == [1, -1, 0]
    assert [data[i]["subjects"] for i in range(3)] == [0, 1, -1]
    assert len(pairs(table, subjects=["s1"])) == 1
    assert len(pairs(table, without=["s1"])) == 2
    assert pairs(table, without=["s1"])[1]["targets"] == 0  # indices are those of the whole table
    with pytest.raises(DataError, match="the table has no subject 's7'"):
        pairs(table, subjects=["s7"])


def test_shuffled_pairs_give_no_window_its_own_video(rendered: Path) -> None:
    data = ClipPairs("pairs.csv", root=rendered, length=50, shuffle_videos=1)
    assert sorted(data.partners) == list(range(len(data)))
    assert all(partner != index for index, partner in enumerate(data.partners))
    assert ClipPairs("pairs.csv", root=rendered, length=50).partners == list(range(len(data)))


def test_scale_divides_channels(table: Path) -> None:
    plain, scaled = pairs(table).windows, pairs(table, scale=[2.0] * 3 + [4.0] * 3).windows
    torch.testing.assert_close(scaled[:, 0] * 2, plain[:, 0])
    torch.testing.assert_close(scaled[:, 5] * 4, plain[:, 5])
    with pytest.raises(ShapeError, match="scale must hold one number other than 0 for each of 6 channels"):
        pairs(table, scale=[1.0])


def test_problems_are_named_together_or_dropped(table: Path) -> None:
    np.save(table / "short.npy", np.ones((50, 6)) * np.arange(50)[:, None])
    np.save(table / "silent.npy", np.ones((200, 6)))
    write(
        table,
        [
            "video0.npy,imu0.npy,,,walk,s0",
            "video0.npy,short.npy,,,walk,s0",
            "video0.npy,silent.npy,,,walk,s0",
            "video0.npy,lost.npy,,,walk,s0",
            "lost.mp4,imu0.npy,,,walk,s0",
            "video0.npy,imu0.npy,2,9,walk,s0",
        ],
    )
    with pytest.raises(DataError) as caught:
        pairs(table)
    text = str(caught.value)
    assert text.startswith("5 problem(s) in the clips of")
    assert "line 3 (short.npy): the video lasts 4.00 s and the recording 1.00 s" in text
    assert "line 4 (silent.npy): every channel is constant" in text
    assert "line 5 (lost.npy): there is no recording" in text
    assert "line 6 (imu0.npy): there is no video" in text
    assert "line 7 (imu0.npy): the clip ends at 9.00 s and its video lasts 4.00 s: the pair is out of step" in text
    with pytest.warns(UserWarning, match=r"5 window\(s\) or clip\(s\) .* were left out"):
        assert len(pairs(table, on_problem="drop")) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("video,sensor\na,b\n", "has no column 'imu'"),
        ("video,imu\n", "lists no clip"),
        ("video,imu,start\na,b,soon\n", "line 2: start must be a number or empty, got 'soon'"),
        ("video,imu,start,end\na,b,3,2\n", "line 2: start must be 0 or more and end come after it"),
        ("video,imu\na,\n", "line 2: imu must be a path"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_table(tmp_path / "pairs.csv")


def test_rendering_is_repeatable_and_knows_labels_only_where_it_should(rendered: Path, tmp_path: Path) -> None:
    again = render(tmp_path, parts=SMALL, seed=3)
    name = "test_01_3_0.csv"
    assert (again / "imu" / name).read_bytes() == (rendered / "imu" / name).read_bytes()
    assert (again / "video" / "test_01_3_0.mp4").read_bytes() == (rendered / "video" / "test_01_3_0.mp4").read_bytes()
    unlabelled = ClipPairs("pairs.csv", root=rendered, length=200)
    assert {unlabelled[i]["targets"] for i in range(len(unlabelled))} == {-1}
    labelled = ClipPairs("test.csv", root=rendered, length=200, with_video=False)
    assert labelled.classes == list(ACTIVITIES)
    assert "video" not in labelled[0]
    rest, punch = (labelled.windows[[c.label == name for c in labelled.clips]] for name in ("rest", "punch"))
    assert punch[:, :3].std(-1).mean() > rest[:, :3].std(-1).mean()
    with pytest.raises(ConfigError, match="seed of 0 or more"):
        render(tmp_path, seed=-1)


def test_table_of_utd_mhad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("Depth", "Inertial"):
        (tmp_path / folder).mkdir()
    depth = np.zeros((12, 16, 40), np.uint16)
    depth[:, :, 20:] = 4000
    savemat(tmp_path / "Depth" / "a4_s2_t1_depth.mat", {"d_depth": depth})
    savemat(tmp_path / "Inertial" / "a4_s2_t1_inertial.mat", {"d_iner": np.random.default_rng(0).normal(size=(100, 6))})
    assert utd_mhad([str(tmp_path)]) == 0
    data = ClipPairs(root=tmp_path, rate=50, length=64, frames=4, size=(6, 8), value_range=(0, 4000))
    assert (data.clips[0].label, data.clips[0].subject, data.clips[0].frame_rate) == ("a04", "s2", 20)
    assert data[0]["video"][:, 0, 0, 0].tolist() == [0, 0, 255, 255]
    (tmp_path / "Inertial" / "a4_s2_t1_inertial.mat").unlink()
    assert utd_mhad([str(tmp_path)]) == 1
    assert "lack their recording" in capsys.readouterr().err
