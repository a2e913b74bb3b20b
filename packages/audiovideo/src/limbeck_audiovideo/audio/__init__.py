"""Audio: files, tables and strong labels, data sets, and the log-mel front end."""

from limbeck_audiovideo.audio.datasets import TOKEN_SECONDS, Recordings, SoundEvents, joined_events, token_labels
from limbeck_audiovideo.audio.front_end import HOP, RATE, LogMel, mel_filters
from limbeck_audiovideo.audio.reading import (
    AudioFile,
    describe_all,
    describe_audio,
    fit,
    read_audio,
    resample,
)
from limbeck_audiovideo.audio.tables import (
    Entry,
    Event,
    StrongTable,
    audio_files,
    read_folder,
    read_rows,
    read_strong,
    read_table,
    write_strong,
)

__all__ = [
    "HOP",
    "RATE",
    "TOKEN_SECONDS",
    "AudioFile",
    "Entry",
    "Event",
    "LogMel",
    "Recordings",
    "SoundEvents",
    "StrongTable",
    "audio_files",
    "describe_all",
    "describe_audio",
    "fit",
    "joined_events",
    "mel_filters",
    "read_audio",
    "read_folder",
    "read_rows",
    "read_strong",
    "read_table",
    "resample",
    "token_labels",
    "write_strong",
]
