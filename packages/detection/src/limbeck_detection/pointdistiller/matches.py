"""The comparison as a distiller takes it, with its taps: one line in a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limbeck_core.match import Match
from limbeck_core.schedules import Schedule
from limbeck_core.tap import Tap
from limbeck_detection.pointdistiller.losses import VoxelDistillationLoss


def voxel_match(
    student_channels: int,
    teacher_channels: int,
    *,
    weight: float | Schedule | Mapping[str, Any] = 2.0,
    encoder: str = "voxel_encoder",
    loss: type[VoxelDistillationLoss] = VoxelDistillationLoss,
    **options: Any,
) -> Match:
    """Compare the pillar features of two PointPillars that were given the same pillars.

    Number of points and scene of each pillar are read where the student's encoder gets its pillars.

    Args:
        student_channels: Width of the student's pillar features.
        teacher_channels: Width of the teacher's.
        weight: Of the loss; 2 is the factor in the authors' code.
        encoder: Dotted name of the module that makes pillar features, in both networks; it takes
            :class:`~limbeck_detection.pointpillars.Pillars`.
        loss: The loss, or its control.
        options: Further arguments of :class:`~limbeck_detection.pointdistiller.VoxelDistillationLoss`.

    Raises:
        ValueError: as the loss.
    """
    return Match(
        loss(student_channels, teacher_channels, **options),
        encoder,
        encoder,
        weight=weight,
        extras={
            "importance": Tap(encoder, of="student", pick=(0, "num_points"), at="input"),
            "scenes": Tap(encoder, of="student", pick=(0, "scenes"), at="input"),
        },
    )
