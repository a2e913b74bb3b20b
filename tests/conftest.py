"""Settings shared by all tests: threads, a fixed seed, and where the golden vectors stand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # tiny models; several threads fight over a busy machine


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    """A test that draws numbers draws the same ones alone and in the suite."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of golden vectors: numbers computed by the reference implementations."""
    return Path(__file__).parent / "golden"
