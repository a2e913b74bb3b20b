"""What the package's README shows runs, and what it names exists."""

from __future__ import annotations

import re
from typing import Any

from limbeck_vision import data, evaluation, models
from source_tree import ROOT

README = (ROOT / "packages" / "vision" / "README.md").read_text(encoding="utf-8")


def test_the_example_trains_the_student() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    scope: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), scope)  # noqa: S102  our own text
    sum(scope["losses"].values()).backward()
    assert set(scope["losses"]) == {"loss/task", "loss/kd"}
    assert all(parameter.grad is not None for parameter in scope["distiller"].student.parameters())


def test_names_in_the_text_exist() -> None:
    faces = set(models.__all__) | set(data.__all__) | set(evaluation.__all__)
    named = re.findall(r"`(\w+_model|[A-Z][A-Za-z]+\d*|mix_\w+|load_\w+|resnet\w+|wrn\w+|mobilenet\w+)[`(]", README)
    assert len(named) > 20
    assert set(named) <= faces | {"Distiller"}
