"""Inertial data: recordings, windows, and tables of clips with synchronous video."""

from limbeck_audiovideo.imu.pairs import Clip, ClipPairs, read_table, write_table
from limbeck_audiovideo.imu.signals import Recording, cut_window, read_imu

__all__ = ["Clip", "ClipPairs", "Recording", "cut_window", "read_imu", "read_table", "write_table"]
