"""What the package's README shows runs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from source_tree import ROOT


def test_the_example_trains_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "packages" / "medical" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), scope)  # noqa: S102  our own text
    assert set(scope["losses"]) == {
        "loss/task",
        "loss/deep_supervision",
        "loss/dsd_decoder",
        "loss/dsd_encoder",
        "dsd/encoder_teacher_std",
    }
    assert all(parameter.grad is not None for parameter in scope["distiller"].parameters())
    assert os.listdir(tmp_path) == ["network.pth"]
