"""Audio: files, tables and strong labels, and the log-mel front end."""

from limbeck_audiovideo.audio.front_end import HOP, RATE, LogMel, mel_filters
from limbeck_audiovideo.audio.reading import (
    AudioFile,
    describe_all,
    describe_audio,
    fit,
    read_audio,
    resample,
)

__all__ = [
    "HOP",
    "RATE",
    "AudioFile",
    "LogMel",
    "describe_all",
    "describe_audio",
    "fit",
    "mel_filters",
    "read_audio",
    "resample",
]
