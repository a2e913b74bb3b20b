"""Heads for clips and frames, their losses, layer-wise rates, frozen embeddings and long files."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits, kl_div, logsigmoid

from limbeck_audiovideo.atst import (
    ClipEncoder,
    ClipTagger,
    FrameEncoder,
    FrameTagger,
    KeywordCall,
    LayerDecay,
    SoundEventLoss,
    embed_recordings,
    soft_label_binary_loss,
    stream_frames,
    whole_scores,
)
from limbeck_audiovideo.audio import LogMel, Recordings
from limbeck_core.engine import export_student
from limbeck_core.errors import ConfigError, ShapeError, TargetError

TINY = dict(dim=16, depth=2, heads=2, max_frames=201, drop_path=0.0)


def waveforms(clips: int = 2, samples: int = 8000) -> torch.Tensor:
    return 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(0))


class TestTaggers:
    def test_the_clip_head_takes_class_token_and_mean(self) -> None:
        tagger = ClipTagger(ClipEncoder(**TINY), 3).eval()
        hidden = tagger.encoder.hidden(tagger.front_end(waveforms()))[0][-1]
        expected = tagger.head(torch.cat([hidden[:, 0], hidden[:, 1:].mean(1)], -1))
        torch.testing.assert_close(tagger(waveforms()), expected)

    def test_the_frame_encoder_tags_clips_by_its_mean(self) -> None:
        tagger = ClipTagger(FrameEncoder(**TINY), 3).eval()
        tokens = tagger.encoder(tagger.front_end(waveforms()))
        torch.testing.assert_close(tagger(waveforms()), tagger.head(tokens.mean(1)))

    def test_the_clips_probability_is_a_weighted_mean(self) -> None:
        tagger = FrameTagger(FrameEncoder(**TINY), 3).eval()
        strong, weak = tagger(waveforms())
        tokens = tagger.encoder(tagger.front_end(waveforms()))
        share = tagger.attention(tokens).softmax(-1)
        expected = (strong.sigmoid() * share).sum(1) / share.sum(1)
        assert strong.shape == (2, 12, 3)
        torch.testing.assert_close(weak.sigmoid(), expected)

    @pytest.mark.parametrize(
        "make", [lambda: ClipTagger(ClipEncoder(**TINY), 3), lambda: FrameTagger(FrameEncoder(**TINY), 3)]
    )
    def test_zeros_behind_a_clip_do_not_count(self, make) -> None:
        tagger = make().double().eval()
        clip = waveforms(1).double()
        clip[:, -1200:] = 0  # the last frames hear what lies behind them
        padded = torch.cat([clip, torch.zeros(1, 3200).double()], 1)
        alone, together = tagger(clip), tagger(padded, torch.tensor([8000]))
        if isinstance(alone, tuple):
            alone, together = alone[1], together[1]
        torch.testing.assert_close(alone, together)

    def test_every_weight_that_trains_has_a_gradient(self) -> None:
        clips = [ClipTagger(make(**TINY), 3) for make in (ClipEncoder, FrameEncoder)]
        for tagger in (*clips, FrameTagger(FrameEncoder(**TINY), 3)):
            found = tagger(waveforms())
            sum(each.sum() for each in (found if isinstance(found, tuple) else (found,))).backward()
            idle = [name for name, p in tagger.named_parameters() if p.requires_grad and p.grad is None]
            assert idle == []

    def test_silence_and_a_handful_of_samples_have_scores(self) -> None:
        tagger = ClipTagger(ClipEncoder(**TINY), 3)
        assert tagger(torch.zeros(2, 10), torch.tensor([10, 0])).isfinite().all()

    def test_either_a_waveform_or_a_spectrogram(self) -> None:
        tagger = ClipTagger(ClipEncoder(**TINY), 3).eval()
        torch.testing.assert_close(tagger(mel=LogMel()(waveforms())), tagger(waveforms()))
        with pytest.raises(ShapeError, match="one of them"):
            tagger()


class TestLosses:
    def test_soft_labels_are_cross_entropy_with_the_teachers_probabilities(self) -> None:
        s, t = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
        found = soft_label_binary_loss(s, t, reduction="none")
        torch.testing.assert_close(found, binary_cross_entropy(s.sigmoid(), t.sigmoid(), reduction="none").mean(1))
        entropy = -(t.sigmoid() * logsigmoid(t) + (-t).sigmoid() * logsigmoid(-t)).mean(1)
        torch.testing.assert_close(soft_label_binary_loss(t, t, reduction="none"), entropy)
        assert (found > entropy).all()

    def test_no_gradient_reaches_the_teacher(self) -> None:
        s, t = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
        soft_label_binary_loss(s, t).backward()
        torch.testing.assert_close(s.grad, (s.sigmoid() - t.sigmoid()).detach() / 6)
        assert t.grad is None

    def test_an_empty_batch_is_a_zero_with_a_gradient(self) -> None:
        empty = torch.zeros(0, 3, requires_grad=True)
        loss = soft_label_binary_loss(empty, torch.zeros(0, 3))
        loss.backward()
        assert loss == 0

    def test_tokens_count_where_they_are_labelled(self) -> None:
        strong, weak = torch.randn(2, 4, 3), torch.randn(2, 3)
        targets = {
            "strong": torch.randint(0, 2, (2, 4, 3)).float(),
            "weak": torch.randint(0, 2, (2, 3)).float(),
            "strong_known": torch.tensor([True, False]),
        }
        clips = binary_cross_entropy_with_logits(weak, targets["weak"])
        tokens = binary_cross_entropy_with_logits(strong[0], targets["strong"][0])
        torch.testing.assert_close(SoundEventLoss()((strong, weak), targets), (clips + tokens) / 2)
        targets["strong_known"] = torch.zeros(2, dtype=torch.bool)
        torch.testing.assert_close(SoundEventLoss()((strong, weak), targets), clips / 2)
        with pytest.raises(TargetError, match="strong labels must be"):
            SoundEventLoss()((strong[:, :3], weak), targets)


class TestLayerDecay:
    def test_rates_fall_towards_the_first_block(self) -> None:
        config = dict(optimizer=dict(type=torch.optim.SGD, lr=1.0))
        tagger = ClipTagger(ClipEncoder(**TINY), 3)
        wrapped = LayerDecay(config, dict(decay=0.5))(tagger)
        rates = {id(p): group["lr"] for group in wrapped.optimizer.param_groups for p in group["params"]}
        named = {name: rates[id(p)] for name, p in tagger.named_parameters() if p.requires_grad}
        assert named["head.weight"] == 1.0
        assert named["encoder.norm.weight"] == 0.5
        assert named["encoder.blocks.1.norm1.weight"] == 0.5
        assert named["encoder.blocks.0.mlp.fc1.weight"] == 0.25
        assert {named[f"encoder.{name}"] for name in ("pos_embed", "cls_token")} == {0.25}

    def test_it_says_what_it_needs(self) -> None:
        config = dict(optimizer=dict(type=torch.optim.SGD, lr=1.0))
        with pytest.raises(ConfigError, match="decay"):
            LayerDecay(config, {})(ClipTagger(ClipEncoder(**TINY), 3))
        with pytest.raises(ConfigError, match="encoder of ATST"):
            LayerDecay(config, dict(decay=0.5))(torch.nn.Linear(1, 1))


@pytest.fixture
def long_file(tmp_path):
    samples = np.random.default_rng(0).standard_normal((44100 * 9, 2)).astype(np.float32) * 0.05
    soundfile.write(tmp_path / "long.flac", samples, 44100)
    return tmp_path / "long.flac"


class TestLongFiles:
    def test_a_short_file_is_heard_as_a_whole(self, tmp_path) -> None:
        clip = waveforms(1, 24000)
        soundfile.write(tmp_path / "a.wav", clip[0].numpy(), 16000, subtype="FLOAT")
        tagger = FrameTagger(FrameEncoder(**TINY), 3).eval()
        found = whole_scores(stream_frames(tagger, tmp_path / "a.wav", seconds=2.0, margin=0.4))
        torch.testing.assert_close(torch.from_numpy(found), tagger(clip)[0][0].sigmoid())

    def test_windows_leave_no_gap(self, long_file, monkeypatch) -> None:
        tagger = FrameTagger(FrameEncoder(**TINY), 3)
        parts = list(stream_frames(tagger, long_file, seconds=2.0, margin=0.4))
        ends = [part.start + 0.04 * len(part.scores) for part in parts]
        assert parts[0].start == 0
        np.testing.assert_allclose([part.start for part in parts[1:]], ends[:-1])
        assert ends[-1] == pytest.approx(9.0)
        assert len(parts) > 5

    def test_the_middle_of_a_window_is_what_the_model_says_of_it(self, long_file) -> None:
        from limbeck_audiovideo.audio import read_audio

        encoder = FrameEncoder(**TINY).eval()
        second = list(stream_frames(encoder, long_file, seconds=2.0, margin=0.4))[1]
        clip = torch.from_numpy(read_audio(long_file, start=1.2, seconds=2.0)).unsqueeze(0)
        expected = encoder(LogMel()(clip))[0, 10:40]
        assert second.start == pytest.approx(1.6)
        torch.testing.assert_close(torch.from_numpy(second.scores), expected)

    def test_no_more_than_a_window_is_read_at_once(self, long_file, monkeypatch) -> None:
        from limbeck_audiovideo.audio import reading

        counts, plain = [], soundfile.SoundFile.read

        def counted(self, frames=-1, *args, **kwargs):
            counts.append(frames)
            return plain(self, frames, *args, **kwargs)

        monkeypatch.setattr(reading.soundfile.SoundFile, "read", counted)
        list(stream_frames(FrameEncoder(**TINY), long_file, seconds=2.0, margin=0.4))
        assert counts
        assert 0 < min(counts) <= max(counts) <= 2 * 44100

    def test_windows_that_cannot_be_are_named(self, long_file) -> None:
        encoder = FrameEncoder(**TINY)
        for seconds, margin in ((10.0, 1.0), (2.0, 1.0)):
            with pytest.raises(ShapeError, match="two margins"):
                next(stream_frames(encoder, long_file, seconds=seconds, margin=margin))


def test_recordings_are_embedded_one_vector_each(tmp_path) -> None:
    for number, label in enumerate(("a", "b", "a")):
        (tmp_path / label).mkdir(exist_ok=True)
        soundfile.write(tmp_path / label / f"{number}.wav", waveforms(1, 4000 * (number + 1))[0].numpy(), 8000)
    encoder = ClipEncoder(**TINY)
    features, targets = embed_recordings(encoder, Recordings(tmp_path, seconds=1.0), batch_size=2)
    assert features.shape == (3, 2 * 2 * 16)
    assert targets.tolist() == [0, 0, 1]
    assert encoder.training


@pytest.mark.parametrize(("format", "frames"), [("pt2", False), ("onnx", True)])
def test_a_tagger_is_exported_with_its_front_end(tmp_path, format: str, frames: bool) -> None:
    made = FrameTagger(FrameEncoder(**TINY), 3) if frames else ClipTagger(ClipEncoder(**TINY), 3)
    batch = {"inputs": {"waveform": waveforms(3, 16000), "length": torch.tensor([16000, 9000, 12000])}}
    exported = export_student(made, tmp_path / f"tagger.{format}", format, batch=batch, call=KeywordCall())
    assert exported.path.is_file()
    assert exported.check.relative < 1e-3


def test_kl_is_not_what_is_minimised_but_differs_by_the_teachers_entropy() -> None:
    s, t = torch.randn(4, 1, dtype=torch.float64), torch.randn(4, 1, dtype=torch.float64)
    two = [torch.stack([logsigmoid(-x), logsigmoid(x)], -1) for x in (s, t)]
    divergence = kl_div(two[0], two[1], log_target=True, reduction="none").sum((1, 2))
    entropy = soft_label_binary_loss(t, t, reduction="none")
    torch.testing.assert_close(soft_label_binary_loss(s, t, reduction="none") - entropy, divergence)
