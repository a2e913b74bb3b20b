"""What the package's README shows runs."""

from __future__ import annotations

import re
from typing import Any

from source_tree import ROOT

README = (ROOT / "packages" / "nlp" / "README.md").read_text(encoding="utf-8")


def test_the_example_teaches_the_student() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    scope: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), scope)  # noqa: S102  our own text
    assert set(scope["losses"]) == {"loss/query", "loss/key", "loss/value"}
    query = scope["student"].get_parameter("encoder.layer.1.attention.self.query.weight")
    assert query.grad.abs().sum() > 0
