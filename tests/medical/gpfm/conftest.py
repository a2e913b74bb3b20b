"""Rendered tiles that the tests of GPFM share."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck_medical.gpfm.rendering import render_trial


@pytest.fixture(scope="session")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All parts of a trial, a few tiles each."""
    return render_trial(tmp_path_factory.mktemp("tiles"), scale=32)
