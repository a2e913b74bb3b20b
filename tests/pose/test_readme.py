"""The example in the package's README runs as it stands."""

from __future__ import annotations

import re
from typing import Any

from source_tree import ROOT


def test_the_example_trains_the_student() -> None:
    text = (ROOT / "packages" / "pose" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    scope: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), scope)  # noqa: S102  our own text
    assert set(scope["losses"]) == {"loss/task", "loss/x", "loss/y"}
    sum(scope["losses"].values()).backward()
    assert all(parameter.grad is not None for parameter in scope["distiller"].student.parameters())
