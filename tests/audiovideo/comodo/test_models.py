"""Students, teachers, projections and the hook that fills the queue; a run that is stopped and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from limbeck_audiovideo.comodo import (
    ChannelwiseEncoder,
    FillQueue,
    FrameTeacher,
    IMUClassifier,
    IMUConvNet,
    IMUTransformer,
    PixelGrid,
    Projection,
    RandomProjection,
    SimilarityQueueLoss,
    SmallVideoNet,
    VideoTransformer,
    patchtst,
    timm_frames,
)
from limbeck_core import Distiller, Match
from limbeck_core.engine import EpochLoop, Runner
from limbeck_core.engine.export import export_student
from limbeck_core.errors import CheckpointError, ConfigError, ShapeError


class Windows(Dataset[dict[str, Any]]):
    """Ten pairs: a window, and a 'video' that is a vector."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        window = torch.randn(6, 32, generator=generator)
        return {"inputs": window, "video": window[:, :4].flatten(), "ids": index}


def distiller(queue_size: int = 6) -> Distiller:
    torch.manual_seed(0)
    match = Match(
        SimilarityQueueLoss(8, queue_size),
        "",
        "",
        adapter=Projection(12, 8, hidden_dim=16),
        teacher_adapter=RandomProjection(24, 8, hidden_dim=16),
    )
    student = IMUConvNet(widths=(8, 12), kernel=3)
    return Distiller(student, nn.Identity(), matches={"comodo": match}, teacher_view="video")


def runner(folder: Path, epochs: int, **options: Any) -> Runner:
    return Runner(
        distiller(),
        work_dir=str(folder),
        train_dataloader=dict(dataset=Windows(), batch_size=4, drop_last=True),
        train_cfg=dict(type=EpochLoop, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type=torch.optim.AdamW, lr=1e-2)),
        custom_hooks=[dict(type=FillQueue, match="comodo", batch_size=4)],
        randomness=dict(seed=0),
        log_level="ERROR",
        **options,
    )


@pytest.mark.filterwarnings("ignore:.*")
def test_the_queue_is_filled_trained_on_and_resumed_bit_for_bit(tmp_path: Path) -> None:
    whole = runner(tmp_path / "whole", 4)
    whole.train()
    runner(tmp_path / "parts", 2).train()
    resumed = runner(tmp_path / "parts", 4, resume=True)
    resumed.train()
    expected, found = whole.model.state_dict(), resumed.model.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert int(expected["matches.comodo.loss.seen"]) == 6 + 4 * 2 * 4  # six clips fill it, then two batches an epoch


def test_filling_uses_clips_of_the_set_and_warns_when_they_are_few(tmp_path: Path) -> None:
    model = distiller(queue_size=12)
    hook = FillQueue(batch_size=3)
    match = model.matches["comodo"]
    with pytest.warns(UserWarning, match="the queue has 12 rows and the training set 10 clips"):
        hook._fill(model, match, Windows())
    assert match.loss.filled == 10
    everyone = torch.stack([Windows()[i]["video"] for i in range(10)])
    wanted = nn.functional.normalize(match.teacher_adapter(everyone), dim=1)
    torch.testing.assert_close(match.loss.rows().sort(0).values, wanted.sort(0).values)


def test_a_hook_without_its_match_says_so() -> None:
    class Stub:
        model = distiller()

    with pytest.raises(ConfigError, match="FillQueue fills the queue of the match 'other': did you mean|it has"):
        FillQueue("other").before_train(Stub())


def test_the_teachers_projection_is_drawn_once_and_never_trains() -> None:
    first, second = RandomProjection(5, 4, hidden_dim=8), RandomProjection(5, 4, hidden_dim=8)
    x = torch.randn(3, 5)
    first.train()
    assert not first.layers.training
    assert torch.equal(first(x), second(x))
    assert not any(p.requires_grad for p in first.parameters())
    assert not torch.equal(first(x), RandomProjection(5, 4, hidden_dim=8, seed=1)(x))
    state = torch.random.get_rng_state()
    RandomProjection(5, 4)
    assert torch.equal(state, torch.random.get_rng_state())


def test_projection_says_what_it_cannot_do() -> None:
    with pytest.raises(ShapeError, match="drop_last=True"):
        Projection(5, 4, hidden_dim=8)(torch.randn(1, 5))
    with pytest.raises(ShapeError, match=r"in_dim=5 numbers a clip, got shape \(2, 6\)"):
        Projection(5, 4, hidden_dim=8)(torch.randn(2, 6))


@pytest.mark.parametrize(
    "student",
    [
        IMUConvNet(widths=(8, 16)),
        IMUTransformer(length=40, patch=10, dim=16, depth=1, heads=2),
        ChannelwiseEncoder(nn.Sequential(nn.Flatten(), nn.Linear(24, 4)), 4, length=24),
        ChannelwiseEncoder(nn.Sequential(nn.Flatten(), nn.Linear(24, 4)), 4, length=24, reduction="mean"),
    ],
    ids=lambda student: type(student).__name__,
)
def test_students_embed_windows_of_any_length_silent_ones_too(student: Any) -> None:
    for length in (40, 57):
        windows = torch.randn(3, 6, length)
        windows[1] = 0
        found = student(windows)
        assert found.shape == (3, student.out_dim)
        assert torch.isfinite(found).all()
        found.sum().backward()
    with pytest.raises(ShapeError, match=r"windows must have 6 channels on axis 1, got shape \(2, 3, 40\)"):
        student(torch.randn(2, 3, 40))


def test_channels_are_encoded_alone() -> None:
    student = ChannelwiseEncoder(nn.Sequential(nn.Flatten(), nn.Linear(8, 2)), 2, channels=3, length=8)
    windows = torch.randn(2, 3, 8)
    changed = windows.clone()
    changed[:, 1] += 1
    same = (student(windows) == student(changed)).all(0)
    assert same.tolist() == [True, True, False, False, True, True]
    with pytest.raises(ShapeError, match="the encoder must return 3 numbers a channel"):
        ChannelwiseEncoder(nn.Sequential(nn.Flatten(), nn.Linear(8, 2)), 3, channels=3, length=8)(windows)


def test_a_classifier_takes_pretrained_weights(tmp_path: Path) -> None:
    encoder = IMUConvNet(widths=(8,))
    torch.save(encoder.state_dict(), tmp_path / "student.pth")
    found = IMUClassifier(dict(type=IMUConvNet, widths=(8,)), 3, weights=tmp_path / "student.pth")
    assert all(torch.equal(a, b) for a, b in zip(found.encoder.parameters(), encoder.parameters(), strict=True))
    assert found(torch.randn(2, 6, 40)).shape == (2, 3)
    with pytest.raises(CheckpointError):
        IMUClassifier(IMUConvNet(widths=(9,)), 3, weights=tmp_path / "student.pth")


def test_frame_teachers_pool_over_time() -> None:
    clips = torch.zeros(2, 4, 3, 12, 12, dtype=torch.uint8)
    clips[0, ::2] = 255  # flickers
    clips[1] = 128
    grid = dict(type=PixelGrid, cells=2)
    mean, change = FrameTeacher(grid)(clips), FrameTeacher(grid, pool="change")(clips)
    assert mean.shape == change.shape == (2, 4)
    assert bool((change[0] > 1).all())
    assert bool((change[1] == 0).all())
    assert torch.equal(FrameTeacher(grid, pool="mean_and_change")(clips), torch.cat([mean, change], 1))
    torch.testing.assert_close(FrameTeacher(grid, frames_at_once=3)(clips), mean)
    torch.testing.assert_close(FrameTeacher(grid)(clips.float() / 255), mean)
    assert FrameTeacher(grid, pool="change")(clips[:, :1]).abs().sum() == 0
    with pytest.raises(ShapeError, match="one vector a frame"):
        FrameTeacher(nn.Conv2d(3, 4, 3))(clips)
    with pytest.raises(ShapeError, match=r"\(N, T, 3, H, W\)"):
        FrameTeacher(grid)(clips[:, :, :1])


def test_the_small_net_knows_the_order_of_frames() -> None:
    net = SmallVideoNet(5, width=8).eval()
    clips = torch.randint(0, 255, (2, 6, 3, 24, 24), dtype=torch.uint8)
    assert net(clips).shape == (2, 5)
    assert not torch.allclose(net.embedding(clips), net.embedding(clips[:, [3, 0, 5, 1, 4, 2]]))


def test_models_of_the_libraries() -> None:
    tiny = dict(
        image_size=16, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    clips = torch.randint(0, 255, (2, 4, 3, 16, 16), dtype=torch.uint8)
    for kind, pool in (("videomae", "mean"), ("timesformer", "first")):
        model = VideoTransformer({"model_type": kind, **tiny})
        assert model.pool == pool
        assert model(clips).shape == (2, model.out_dim)
    with pytest.raises(ConfigError, match="does not know the model_type 'videomea': did you mean 'videomae'"):
        VideoTransformer({"model_type": "videomea"})
    student = patchtst(dict(context_length=32, patch_length=8, patch_stride=8, d_model=8, num_hidden_layers=1,
                            num_attention_heads=2, ffn_dim=8))  # fmt: skip
    assert student(torch.randn(2, 6, 50)).shape == (2, 48)
    assert timm_frames("resnet10t").eval()(torch.zeros(1, 2, 3, 32, 32)).shape == (1, 512)


def test_saved_models_are_read_from_their_folder(tmp_path: Path) -> None:
    tiny = dict(context_length=32, patch_length=8, patch_stride=8, d_model=8, num_hidden_layers=1,
                num_attention_heads=2, ffn_dim=8)  # fmt: skip
    saved = patchtst(tiny)
    saved.encoder.model.save_pretrained(tmp_path / "model")
    windows = torch.randn(2, 6, 32)
    torch.testing.assert_close(patchtst(tmp_path / "model").eval()(windows), saved.eval()(windows))
    with pytest.raises(CheckpointError, match="name the folder that save_pretrained wrote"):
        patchtst(tmp_path / "nothing")


def test_the_encoder_is_exported_alone(tmp_path: Path) -> None:
    done = export_student(distiller(), tmp_path / "imu.pt2", "pt2", batch={"inputs": torch.randn(4, 6, 32)})
    assert done.check.relative is not None
    assert done.check.relative < 1e-5
    assert done.parameters == sum(p.numel() for p in IMUConvNet(widths=(8, 12), kernel=3).parameters())
