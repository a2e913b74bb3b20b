"""Alignment with experts: the contract, plain formulas, grids that differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from limbeck_core.errors import ShapeError
from limbeck_medical.gpfm import (
    PatchAlignmentLoss,
    TokenAlignmentLoss,
    patch_alignment_loss,
    token_alignment_loss,
)
from loss_contract import LossContract, randn


class TestTokenAlignmentLoss(LossContract):
    function = staticmethod(token_alignment_loss)
    module = TokenAlignmentLoss

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_embeddings": randn(batch, 5, seed=1, dtype=dtype),
            "teacher_embeddings": randn(batch, 5, seed=2, dtype=dtype),
        }

    def test_one_minus_the_cosine(self) -> None:
        x = {name: value.numpy() for name, value in self.inputs().items()}
        s, t = x["student_embeddings"], x["teacher_embeddings"]
        cosine = (s * t).sum(1) / np.linalg.norm(s, axis=1) / np.linalg.norm(t, axis=1)
        assert float(self.call(**self.inputs())) == pytest.approx(1 - cosine.mean())


class TestPatchAlignmentLoss(LossContract):
    function = staticmethod(patch_alignment_loss)
    module = PatchAlignmentLoss

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_features": randn(batch, 3, 2, 4, seed=1, dtype=dtype),
            "teacher_features": randn(batch, 3, 2, 4, seed=2, dtype=dtype),
        }

    def test_nine_parts_direction_and_one_part_size(self) -> None:
        s, t = (value.numpy() for value in self.inputs().values())
        cosine = (s * t).sum(1) / np.linalg.norm(s, axis=1) / np.linalg.norm(t, axis=1)
        far = np.abs(s - t)
        size = np.where(far < 1, far**2 / 2, far - 0.5)
        expected = 0.9 * (1 - cosine.mean()) + 0.1 * size.mean()
        assert float(self.call(**self.inputs())) == pytest.approx(expected)

    def test_another_grid_is_resized(self) -> None:
        student, teacher = randn(2, 3, 8, 8, seed=1), randn(2, 3, 7, 7, seed=2)
        resized = interpolate(teacher, (8, 8), mode="bicubic", align_corners=False)
        torch.testing.assert_close(patch_alignment_loss(student, teacher), patch_alignment_loss(student, resized))
        # half precision is not resized in half precision
        half = patch_alignment_loss(student.half(), teacher.half())
        assert half.dtype == torch.float32

    def test_sizes_are_ignored_where_the_direction_is_all(self) -> None:
        student = randn(2, 3, 4, 4)
        assert float(patch_alignment_loss(student, 5 * student, cosine_weight=1.0)) == pytest.approx(0.0, abs=1e-12)
        assert float(patch_alignment_loss(student, 5 * student)) > 0.1

    def test_what_does_not_fit(self) -> None:
        with pytest.raises(ShapeError, match="give the student a head of the expert's width"):
            patch_alignment_loss(randn(2, 3, 4, 4), randn(2, 5, 4, 4))
        with pytest.raises(ValueError, match="cosine_weight must lie between 0.0 and 1.0, got 1.5"):
            PatchAlignmentLoss(cosine_weight=1.5)
