"""Audio files of any rate, tables, strong labels, data sets; damaged files are named together."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import soundfile
import torch

from limbeck_audiovideo.audio import (
    Event,
    Recordings,
    SoundEvents,
    describe_all,
    fit,
    joined_events,
    read_audio,
    read_strong,
    read_table,
    resample,
    token_labels,
    write_strong,
)
from limbeck_audiovideo.audio.digits import arrange_digits
from limbeck_core.engine import stack
from limbeck_core.errors import ConfigError, DataError


def tone(rate: int, seconds: float = 1.0, pitch: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


class TestReading:
    @pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 7919])
    @pytest.mark.parametrize("suffix", ["wav", "flac"])
    def test_any_rate_becomes_ours(self, tmp_path, rate: int, suffix: str) -> None:
        soundfile.write(tmp_path / f"a.{suffix}", tone(rate), rate)
        found = read_audio(tmp_path / f"a.{suffix}")
        assert abs(len(found) - 16000) <= 1
        inner = slice(500, 15000)
        assert np.abs(found[inner] - tone(16000)[inner]).max() < 0.01

    def test_channels_are_averaged(self, tmp_path) -> None:
        both = np.stack([tone(16000), 0.2 * tone(16000, pitch=900)], 1)
        soundfile.write(tmp_path / "a.wav", both, 16000, subtype="FLOAT")
        np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), both.mean(1), atol=1e-7)

    def test_a_part_is_that_part(self, tmp_path) -> None:
        soundfile.write(tmp_path / "a.wav", tone(16000), 16000, subtype="FLOAT")
        part = read_audio(tmp_path / "a.wav", start=0.25, seconds=0.5)
        np.testing.assert_array_equal(part, tone(16000)[4000:12000])
        assert len(read_audio(tmp_path / "a.wav", start=0.9, seconds=0.5)) == 1600
        assert len(read_audio(tmp_path / "a.wav", start=7.0, seconds=0.5)) == 0

    def test_fit_cuts_or_extends(self) -> None:
        long, own = fit(tone(16000), 100)
        assert (len(long), own) == (100, 100)
        short, own = fit(tone(16000)[:30], 100)
        assert (len(short), own) == (100, 30)
        assert not short[30:].any()
        assert resample(tone(16000)[:0], 8000, 16000).shape == (0,)

    def test_damaged_files_are_named_together(self, tmp_path) -> None:
        soundfile.write(tmp_path / "good.wav", tone(8000), 8000)
        soundfile.write(tmp_path / "empty.wav", tone(8000)[:0], 8000)
        (tmp_path / "text.wav").write_text("not a sound")
        with pytest.raises(DataError, match="3 of 4 audio files") as caught:
            describe_all(tmp_path / name for name in ("good.wav", "empty.wav", "text.wav", "gone.wav"))
        assert all(name in str(caught.value) for name in ("empty.wav", "text.wav", "gone.wav"))
        with pytest.raises(DataError, match="no audio file was named"):
            describe_all([])

    def test_nan_among_samples_is_named(self, tmp_path) -> None:
        broken = tone(16000)
        broken[3] = np.nan
        soundfile.write(tmp_path / "a.wav", broken, 16000, subtype="FLOAT")
        with pytest.raises(DataError, match=r"a\.wav holds NaN"):
            read_audio(tmp_path / "a.wav")
        with pytest.raises(DataError, match="there is no audio file"):
            read_audio(tmp_path / "b.wav")
        with pytest.raises(ValueError, match="negative"):
            read_audio(tmp_path / "a.wav", start=-1.0)


class TestTables:
    def test_columns_filters_and_several_labels(self, tmp_path) -> None:
        (tmp_path / "a.csv").write_text('fname,labels,fold\n1,"dog, cat",1\n2,,1\n3,dog,2\n')
        found = read_table(
            tmp_path / "a.csv", audio=tmp_path, file_column="fname", label_column="labels", separator=",",
            where={"fold": "1"}, suffix=".wav",
        )  # fmt: skip
        assert [(entry.path.name, entry.labels) for entry in found] == [("1.wav", ("dog", "cat")), ("2.wav", ())]

    def test_what_a_table_lacks_is_named(self, tmp_path) -> None:
        (tmp_path / "a.csv").write_text("file,label\na.wav,dog\n")
        with pytest.raises(DataError, match="no column 'filename'.*file"):
            read_table(tmp_path / "a.csv", audio=tmp_path)
        (tmp_path / "b.csv").write_text("filename,label\na.wav\n")
        with pytest.raises(DataError, match="row 2: 2 columns"):
            read_table(tmp_path / "b.csv", audio=tmp_path)
        (tmp_path / "c.csv").write_text("")
        with pytest.raises(DataError, match="is empty"):
            read_table(tmp_path / "c.csv", audio=tmp_path)
        with pytest.raises(DataError, match="there is no table"):
            read_table(tmp_path / "d.csv", audio=tmp_path)

    def test_strong_labels_are_written_and_read(self, tmp_path) -> None:
        events = {"a.wav": [Event(0.5, 1.25, "dog"), Event(1.0, 2.0, "cat")], "b.wav": []}
        found = read_strong(write_strong(tmp_path / "a.tsv", events))
        assert found.events == events
        assert found.labels == ["cat", "dog"]

    @pytest.mark.parametrize(
        ("row", "message"),
        [("a.wav\t1\t0.5\tdog", "end after that"), ("a.wav\tx\t2\tdog", "must be seconds")],
    )
    def test_times_that_are_none_are_named(self, tmp_path, row: str, message: str) -> None:
        (tmp_path / "a.tsv").write_text(f"filename\tonset\toffset\tevent_label\n{row}\n")
        with pytest.raises(DataError, match=message):
            read_strong(tmp_path / "a.tsv")

    def test_a_token_belongs_to_an_event_that_covers_its_middle(self) -> None:
        labels = token_labels([Event(0.06, 0.14, "a"), Event(0.085, 0.09, "b"), Event(9.0, 9.5, "a")], ["a", "b"], 6)
        assert labels[:, 0].tolist() == [0, 1, 1, 0, 0, 0]
        assert labels[:, 1].tolist() == [0, 0, 1, 0, 0, 0]


class TestDataSets:
    def test_a_folder_of_classes(self, sounds) -> None:
        clips = Recordings(sounds, audio="clips/train", table="train.csv", seconds=3.0)
        item = clips[9]
        assert item["inputs"]["waveform"].shape == (48000,)
        assert int(item["inputs"]["length"]) == 32000
        assert clips.classes[int(item["targets"])] == "clicks"
        assert stack([clips[0], clips[1]])["inputs"]["waveform"].shape == (2, 48000)

    def test_two_random_crops_follow_the_generator(self, sounds) -> None:
        clips = Recordings(
            sounds, audio="clips/train", table="train.csv", seconds=0.5, crops=2, random=True, labelled=False
        )
        torch.manual_seed(3)
        first = clips[0]
        torch.manual_seed(3)
        again = clips[0]
        assert "targets" not in first
        assert torch.equal(first["inputs"]["waveform"], again["inputs"]["waveform"])
        assert not torch.equal(*first["inputs"]["waveform"])

    def test_several_labels(self, tmp_path) -> None:
        soundfile.write(tmp_path / "1.wav", tone(16000), 16000)
        (tmp_path / "a.csv").write_text('filename,label\n1.wav,"dog,cat"\n')
        clips = Recordings(
            tmp_path, table="a.csv", columns=dict(separator=","), several=True, classes=["bird", "cat", "dog"]
        )
        assert clips[0]["targets"].tolist() == [0, 1, 1]
        with pytest.raises(DataError, match="has 2 labels"):
            Recordings(tmp_path, table="a.csv", columns=dict(separator=","))
        with pytest.raises(DataError, match="not in the list of classes: cat"):
            Recordings(tmp_path, table="a.csv", columns=dict(separator=","), several=True, classes=["bird", "dog"])

    def test_events_by_token(self, sounds) -> None:
        found = SoundEvents(sounds, audio="events/train", strong="events_train.tsv", seconds=4.0)
        item = found[0]
        assert item["targets"]["strong"].shape == (100, len(found.classes))
        torch.testing.assert_close(item["targets"]["weak"], item["targets"]["strong"].amax(0))
        spans = {e.label: round((e.offset - e.onset) / 0.04) for e in found.events[item["recording"]]}
        for label, length in spans.items():
            assert abs(int(item["targets"]["strong"][:, found.classes.index(label)].sum()) - length) <= 1

    def test_weak_labels_join_strong_ones(self, sounds, tmp_path) -> None:
        (tmp_path / "weak.tsv").write_text("filename\tevent_labels\n00000.wav\ttone,rise\n")
        classes = ["buzz", "clicks", "fall", "hiss", "rise", "tone", "tremolo", "vibrato"]
        parts = [
            SoundEvents(sounds, audio="events/train", strong="events_train.tsv", classes=classes, seconds=4.0),
            SoundEvents(sounds, audio="events/train", weak=tmp_path / "weak.tsv", classes=classes, seconds=4.0),
        ]
        both = joined_events(parts)
        batch = stack([both[0], both[len(both) - 1]])
        assert batch["targets"]["strong_known"].tolist() == [True, False]
        assert batch["targets"]["weak"][1].tolist() == [0, 0, 0, 0, 1, 1, 0, 0]
        with pytest.raises(DataError, match="same classes and length"):
            joined_events(
                [parts[0], SoundEvents(sounds, audio="events/train", weak=tmp_path / "weak.tsv", seconds=4.0)]
            )

    def test_settings_that_make_no_sense_are_named(self, sounds) -> None:
        with pytest.raises(ConfigError, match="random=True"):
            Recordings(sounds, audio="clips/train", crops=2)
        with pytest.raises(ConfigError, match="strong, or weak"):
            SoundEvents(sounds)
        with pytest.raises(DataError, match="there is no folder"):
            Recordings(sounds / "nowhere")


class TestDigits:
    def test_a_zip_file_is_arranged(self, tmp_path) -> None:
        with zipfile.ZipFile(tmp_path / "fsdd.zip", "w") as archive:
            for digit in range(2):
                for take in (0, 5, 6):
                    soundfile.write(tmp_path / "one.wav", tone(8000, 0.3), 8000)
                    archive.write(tmp_path / "one.wav", f"recordings/{digit}_ann_{take}.wav")
            archive.writestr("../evil.wav", b"")
        arrange_digits(tmp_path / "fsdd.zip", tmp_path / "digits", few=1)
        clips = Recordings(tmp_path / "digits", audio="clips/train", table="few.csv", seconds=1.0)
        assert [file.path.name for file in clips.files] == ["0_ann_5.wav", "1_ann_5.wav"]
        assert int(clips[0]["inputs"]["length"]) == 4800
        assert not list(tmp_path.rglob("evil.wav"))

    def test_anything_else_is_refused(self, tmp_path) -> None:
        (tmp_path / "a.zip").write_text("no")
        with pytest.raises(DataError, match="neither a folder nor a readable zip"):
            arrange_digits(tmp_path / "a.zip", tmp_path / "x")
        with pytest.raises(DataError, match="got 0 and 0"):
            arrange_digits(tmp_path, tmp_path / "x")
