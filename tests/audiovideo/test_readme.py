"""The examples in the package's README run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from source_tree import ROOT


def test_the_examples_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "packages" / "audiovideo" / "README.md").read_text(encoding="utf-8")
    scope: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        exec(compile(code, "README.md", "exec"), scope)  # noqa: S102  our own text
    assert set(scope["losses"]) == {"loss/views", "spread/student", "spread/teacher"}
    assert scope["losses"]["loss/views"].requires_grad
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    scope["listen"](tmp_path / "a.wav", ["dog", "cat"])
    assert capsys.readouterr().out == "0.0 (25, 2)\n"
