"""ATST's pretraining: which rows are compared, crosswise; the teacher; collapse; encoders from files."""

from __future__ import annotations

import pytest
import torch

from limbeck_audiovideo.atst import (
    ATST,
    ATSTDistiller,
    ClipEncoder,
    FrameEncoder,
    Head,
    KeywordCall,
    SwapViews,
    load_encoder,
    pretrained_encoder,
    spread,
)
from limbeck_audiovideo.conformance import ADAPTERS
from limbeck_core import EMATeacher, Match, Tap
from limbeck_core.conformance import compare_case, read_case
from limbeck_core.errors import CheckpointError, ShapeError
from limbeck_core.losses import NormalizedMSELoss
from limbeck_core.schedules import Cosine, Progress

TINY = dict(dim=16, depth=2, heads=2, max_frames=101, drop_path=0.0)


def distiller(encoder, momentum: float = 0.9) -> ATSTDistiller:
    torch.manual_seed(1)
    student = ATST(encoder(**TINY), hidden=24, out=8).double()
    built = ATSTDistiller(
        student,
        EMATeacher(student, Cosine(momentum, 1.0), mode="batch_stats", buffers="own", follows="network"),
        {"views": Match(NormalizedMSELoss(), "predictor", Tap("projector"), teacher_adapter=SwapViews())},
        call=KeywordCall(),
    )
    built.set_progress(Progress(step=0, epoch=0, max_steps=10))
    return built.train()


def views(clips: int = 3, frames: int = 41) -> torch.Tensor:
    return torch.randn(clips, 2, 1, 64, frames, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def masks(clips: int = 3, tokens: int = 10) -> torch.Tensor:
    mask = torch.zeros(clips, tokens, dtype=torch.bool)
    mask[0, 2:5], mask[1, 8:], mask[2, :2] = True, True, True
    return mask


def cosine_loss(p: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return 2 - 2 * torch.cosine_similarity(p, z, dim=-1).mean()


def test_clips_are_compared_crosswise() -> None:
    model = distiller(ClipEncoder)
    student, teacher = model.student, model.teacher.model
    x = views()
    losses = model({"inputs": {"views": x}})
    rows = [student.network.encoder(x[:, v]) for v in range(2)]
    flat = torch.stack(rows, 1).flatten(0, 1)
    p = student.predictor(student.network.projector(flat)).unflatten(0, (3, 2))
    z = teacher.projector(flat).unflatten(0, (3, 2))  # the teacher begins as the student
    expected = (cosine_loss(p[:, 0], z[:, 1]) + cosine_loss(p[:, 1], z[:, 0])) / 2
    torch.testing.assert_close(losses["loss/views"], expected)
    assert set(losses) == {"loss/views", "spread/student", "spread/teacher"}


def test_frames_are_compared_where_they_are_hidden_and_a_clips_own() -> None:
    model = distiller(FrameEncoder)
    student, teacher = model.student, model.teacher.model
    x, mask, lengths = views(), masks(), torch.tensor([41, 36, 41])  # the second clip has nine tokens
    losses = model({"inputs": {"views": x, "mask": mask, "lengths": lengths}})
    counts = mask.clone()
    counts[1, 9] = False
    hidden = [student.network.encoder(x[:, v], lengths, mask)[counts] for v in range(2)]
    plain = [teacher.encoder(x[:, v], lengths)[counts] for v in range(2)]
    p = student.predictor(student.network.projector(torch.stack(hidden, 1).flatten(0, 1))).unflatten(0, (6, 2))
    z = teacher.projector(torch.stack(plain, 1).flatten(0, 1)).unflatten(0, (6, 2))
    expected = (cosine_loss(p[:, 0], z[:, 1]) + cosine_loss(p[:, 1], z[:, 0])) / 2
    torch.testing.assert_close(losses["loss/views"], expected)


def test_no_gradient_reaches_the_teacher_and_all_of_the_student_has_one() -> None:
    for encoder, inputs in ((ClipEncoder, {}), (FrameEncoder, {"mask": masks()})):
        model = distiller(encoder)
        model({"inputs": {"views": views(), **inputs}})["loss/views"].backward()
        assert all(p.grad is None for p in model.teacher.parameters())
        assert [name for name, p in model.student.named_parameters() if p.requires_grad and p.grad is None] == []


def test_the_teacher_follows_encoder_and_projector_and_keeps_its_statistics() -> None:
    model = distiller(ClipEncoder)
    teacher = model.teacher
    assert set(dict(teacher.model.named_children())) == {"encoder", "projector"}
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(1)
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    teacher.update(model.student, Progress(step=0, max_steps=10))
    after = teacher.model.state_dict()
    for name, value in teacher.model.named_parameters():
        torch.testing.assert_close(value, before[name] + 0.1)
    assert torch.equal(after["projector.1.running_mean"], before["projector.1.running_mean"])


def test_a_batch_without_a_hidden_frame_teaches_nothing_and_breaks_nothing() -> None:
    model = distiller(FrameEncoder)
    losses = model({"inputs": {"views": views(), "mask": torch.zeros(3, 10, dtype=torch.bool)}})
    assert losses["loss/views"] == 0
    losses["loss/views"].backward()
    assert all(p.grad is None or not p.grad.any() for p in model.student.parameters())


def test_one_clip_is_enough_for_batch_norm() -> None:
    assert torch.isfinite(distiller(ClipEncoder)({"inputs": {"views": views(1)}})["loss/views"])


def test_it_learns_a_batch() -> None:
    model = distiller(ClipEncoder, momentum=0.99)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(30):
        loss = model({"inputs": {"views": views(8)}})["loss/views"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        model.teacher.update(model.student, Progress(step=step, max_steps=30))
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]


def test_spread_tells_collapse() -> None:
    assert float(spread(torch.randn(4000, 64))) == pytest.approx(1 / 8, rel=0.02)
    assert float(spread(torch.ones(10, 64))) == pytest.approx(1e-3)
    assert float(spread(torch.ones(0, 64))) == pytest.approx(1e-3)


def test_no_rows_give_no_projections_with_a_gradient_of_zero() -> None:
    head, rows = Head(4, 8, 3), torch.zeros(0, 2, 4, requires_grad=True)
    found = head(rows)
    assert found.shape == (0, 2, 3)
    found.sum().backward()
    assert rows.grad.shape == rows.shape
    assert not any(parameter.grad.any() for parameter in head.parameters())


@pytest.mark.parametrize("name", ["atst_ema__c1", "atst_ema__c2"])
def test_the_moving_average_is_the_references(golden, name: str) -> None:
    verdict = compare_case(read_case(golden / f"{name}.npz"), ADAPTERS["atst_ema"])
    assert verdict.problems == []
    assert verdict.errors.keys() == {"value", "out_schedule"}


class TestFiles:
    @pytest.mark.parametrize("prefix", ["", "encoder.", "network.encoder.", "model.teacher.encoder."])
    def test_an_encoder_is_found_wherever_it_stands(self, tmp_path, prefix: str) -> None:
        theirs, mine = FrameEncoder(**TINY), FrameEncoder(**TINY)
        weights = {prefix + name: value for name, value in theirs.state_dict().items()}
        torch.save(
            {"state_dict": {**weights, "model.student.encoder.norm_frame.bias": torch.ones(16)}}, tmp_path / "a.pth"
        )
        assert load_encoder(mine, tmp_path / "a.pth") == prefix
        assert all(torch.equal(value, mine.state_dict()[name]) for name, value in theirs.state_dict().items())

    def test_another_model_is_refused(self, tmp_path) -> None:
        torch.save({"fc.weight": torch.ones(2), "fc.bias": torch.ones(2)}, tmp_path / "a.pth")
        with pytest.raises(CheckpointError, match="holds no encoder of ATST"):
            load_encoder(ClipEncoder(**TINY), tmp_path / "a.pth")
        torch.save(FrameEncoder(**TINY).state_dict(), tmp_path / "b.pth")
        with pytest.raises(CheckpointError, match="missing"):
            load_encoder(ClipEncoder(**TINY), tmp_path / "b.pth")

    def test_without_a_file_it_stays_as_it_is(self) -> None:
        encoder = ClipEncoder(**TINY)
        assert pretrained_encoder(encoder, None) is encoder


def test_bad_input_is_named() -> None:
    with pytest.raises(ShapeError, match="give a mask"):
        distiller(FrameEncoder)({"inputs": {"views": views()}})
    with pytest.raises(ShapeError, match="views must be"):
        distiller(ClipEncoder)({"inputs": {"views": views()[:, 0]}})
    with pytest.raises(ShapeError, match="two views"):
        SwapViews()(torch.zeros(3, 4, 8))
