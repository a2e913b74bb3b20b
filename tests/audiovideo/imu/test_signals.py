"""Recordings: what is read, how windows are resampled, and the sentence for everything that is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from limbeck_audiovideo.imu import Recording, cut_window, read_imu
from limbeck_core.errors import DataError


def wave(rate: float, seconds: float, hertz: float = 1.0, channels: int = 2) -> Recording:
    times = np.arange(round(rate * seconds)) / rate
    return Recording(times, np.stack([np.sin(2 * np.pi * hertz * times + c) for c in range(channels)], 1))


def test_csv_of_ego4d_is_put_in_order(tmp_path: Path) -> None:
    file = tmp_path / "imu.csv"
    file.write_text(
        "component_timestamp_ms,canonical_timestamp_ms,gyro_x,gyro_y,gyro_z,accl_x,accl_y,accl_z\n"
        "0,10,1,2,3,4,5,6\n0,0,10,20,30,40,50,60\n0,,7,7,7,7,7,7\n0,20,,2,3,4,5,6\n0,20,9,9,9,9,9,9\n"
    )
    found = read_imu(file)
    assert found.channels == ("accl_x", "accl_y", "accl_z", "gyro_x", "gyro_y", "gyro_z")
    np.testing.assert_allclose(found.times, [0.0, 0.01, 0.02])
    np.testing.assert_array_equal(found.values[0], [40, 50, 60, 10, 20, 30])
    assert np.isnan(found.values[2, 3])  # of two rows with one time the first stays
    assert found.rate == pytest.approx(100)


@pytest.mark.parametrize(
    ("name", "factor"), [("time", 1.0), ("timestamp_ms", 1e3), ("t_time_us", 1e6), ("time_ns", 1e9)]
)
def test_units_of_time_stand_in_the_name(tmp_path: Path, name: str, factor: float) -> None:
    file = tmp_path / "imu.csv"
    file.write_text(f"{name},a\n" + "".join(f"{factor * i / 50},{i}\n" for i in range(5)))
    assert read_imu(file).rate == pytest.approx(50)


def test_arrays_need_a_rate(tmp_path: Path) -> None:
    values = np.arange(12.0).reshape(6, 2)
    np.save(tmp_path / "a.npy", values)
    savemat(tmp_path / "b.mat", {"d_iner": values, "note": "x"})
    for name in ("a.npy", "b.mat"):
        np.testing.assert_array_equal(read_imu(tmp_path / name, rate=50, channels=[1]).values, values[:, 1:])
        with pytest.raises(DataError, match="holds no times: say how many samples a second"):
            read_imu(tmp_path / name)


def test_columns_by_name_and_number(tmp_path: Path) -> None:
    file = tmp_path / "imu.csv"
    file.write_text("time,a,b\n0,1,2\n1,3,4\n")
    np.testing.assert_array_equal(read_imu(file, channels=["b", "a"]).values, [[2, 1], [4, 3]])
    with pytest.raises(DataError, match="has no column 'c'"):
        read_imu(file, channels=["c"])
    with pytest.raises(DataError, match="has 2 columns, numbered from 0, and column 2 was asked for"):
        read_imu(file, channels=[2])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("time,a\n", "holds no samples"),
        ("time,a\n0,1\n", r"holds 1 sample\(s\) with a time"),
        ("time,a\n,1\n,2\n", r"holds 0 sample\(s\) with a time"),
        ("time,a\n0,1\n1\n", "line 3, has 1 values for 2 names"),
        ("time,a\n0,1\n1,x\n", "line 3, holds something that is no number"),
    ],
)
def test_damaged_tables_are_told(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "imu.csv").write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_imu(tmp_path / "imu.csv")


def test_damaged_and_missing_files_are_told(tmp_path: Path) -> None:
    for name in ("a.npy", "b.mat"):
        (tmp_path / name).write_bytes(b"not an array")
        with pytest.raises(DataError, match="is no readable array file"):
            read_imu(tmp_path / name, rate=50)
    with pytest.raises(DataError, match="there is no recording"):
        read_imu(tmp_path / "c.csv")
    (tmp_path / "d.txt").touch()
    with pytest.raises(DataError, match="must be a csv, npy or mat file"):
        read_imu(tmp_path / "d.txt")


@pytest.mark.parametrize(("rate", "length"), [(50, 200), (200, 100), (97, 128), (100, 400)])
def test_a_window_has_the_values_of_the_wave(rate: float, length: int) -> None:
    found = cut_window(wave(rate, 6.0), 1.0, 5.0, length)
    moments = 1.0 + (np.arange(length) + 0.5) * 4.0 / length
    expected = np.stack([np.sin(2 * np.pi * moments + c) for c in range(2)])
    shift = 2.0 / length + 2.0 / rate  # resampling begins at the first sample, half a step off
    assert found.shape == (2, length)
    assert np.abs(found - expected)[:, 8:-8].max() < 2 * np.pi * shift


def test_fast_waves_do_not_alias() -> None:
    slow = cut_window(wave(400, 6.0, hertz=60.0), 1.0, 5.0, 80)  # 20 samples a second see 10 Hz at most
    assert np.abs(slow[:, 8:-8]).max() < 0.05


def test_few_missing_values_are_interpolated() -> None:
    recording = wave(100, 4.0)
    whole = cut_window(recording, 0.0, 4.0, 400)
    recording.values[50:53, 0] = np.nan
    found = cut_window(recording, 0.0, 4.0, 400)
    assert np.isfinite(found).all()
    assert np.abs(found - whole).max() < 0.02


def test_what_is_wrong_is_said() -> None:
    recording = wave(100, 4.0)
    with pytest.raises(
        DataError, match=r"covers 0\.00 to 4\.00 s, the clip is 3\.00 to 8\.00 s: the pair is out of step"
    ):
        cut_window(recording, 3.0, 8.0, 100)
    holed = Recording(np.delete(recording.times, slice(100, 200)), np.delete(recording.values, slice(100, 200), 0))
    with pytest.raises(DataError, match=r"a gap of 1\.01 s at 0\.99 s"):
        cut_window(holed, 0.0, 4.0, 100)
    missing = Recording(recording.times, recording.values.copy())
    missing.values[::5, 1] = np.nan
    with pytest.raises(DataError, match=r"20 % of the samples .* lack a value \(max_missing 10 %\)"):
        cut_window(missing, 0.0, 4.0, 100)
    with pytest.raises(DataError, match="every channel is constant .* the sensor fell silent"):
        cut_window(Recording(recording.times, recording.values * 0), 0.0, 4.0, 100)
