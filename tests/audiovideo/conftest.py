"""Rendered sounds that several tests share: they render in a second, and no test writes to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck_audiovideo.rendered_audio import render


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen clips to train on, as many to test, four recordings of events and two to test."""
    return render(tmp_path_factory.mktemp("sounds"), train=16, test=16, few=1, events=4, seed=0)
