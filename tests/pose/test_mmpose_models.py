"""Without mmpose the package imports, and what needs it says so; with it see tests/openmmlab."""

from __future__ import annotations

import sys

import pytest

from limbeck_core.errors import MissingDependency
from limbeck_pose.mmpose_models import MMPoseCall


def test_without_mmpose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mmpose.structures", None)
    with pytest.raises(MissingDependency, match=r"MMPoseCall needs mmpose .*openmmlab_models\.md"):
        MMPoseCall()
