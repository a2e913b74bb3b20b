"""What the package's README shows runs, and the configs it names exist."""

from __future__ import annotations

import re
from typing import Any

from limbeck_core.configs import installed
from source_tree import ROOT

README = (ROOT / "packages" / "detection" / "README.md").read_text(encoding="utf-8")


def test_the_example_trains_the_detector() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    scope: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), scope)  # noqa: S102  our own text
    assert set(scope["losses"]) == {f"loss/{term}" for term in ("vfl", "bbox", "giou", "fgl", "ddf")}
    # at the start all layers agree, so the only parameters without a gradient are those that nothing reads
    assert any(parameter.grad is not None for parameter in scope["distiller"].student.backbone.parameters())


def test_named_configs_exist() -> None:
    names = set(installed())
    for row in re.findall(r"^\| (`detection/.*?) \|", README, flags=re.MULTILINE):
        for named in re.findall(r"`([\w/{},]+)`", row):
            name = named if "/" in named else f"detection/rendered/{named}"
            choices = re.search(r"\{([\w,]+)\}", name)
            for size in choices.group(1).split(",") if choices else [""]:
                assert (name.replace(choices.group(0), size) if choices else name) in names
