"""A rendered data set that tests of this package share."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck_medical.data import render_msd


@pytest.fixture(scope="session")
def ellipsoids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten labelled and two unlabelled cases in the layout of MSD."""
    return render_msd(tmp_path_factory.mktemp("rendered") / "Task00_Ellipsoids", 10, unlabelled=2, seed=3)
