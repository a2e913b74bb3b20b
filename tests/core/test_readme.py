"""What the README shows is what runs."""

from __future__ import annotations

import re
from typing import Any

import pytest

from limbeck_core.cli import main
from source_tree import PACKAGES, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
CORE_README = (ROOT / "shared" / "core" / "README.md").read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def run(code: str) -> dict[str, Any]:
    scope: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), scope)  # noqa: S102  our own text
    return scope


def test_the_distiller_of_the_readme_trains_the_student_alone() -> None:
    scope = run(blocks(README)[0])
    distiller = scope["distiller"]
    assert set(scope["losses"]) == {"loss/task", "loss/kd"}
    assert all(p.grad is not None for p in distiller.student.parameters())
    assert all(p.grad is None and not p.requires_grad for p in distiller.teacher.parameters())


def test_the_example_is_short() -> None:
    lines = [line for line in blocks(README)[0].splitlines() if line and not line.startswith(("import", "from"))]
    assert len(lines) <= 8


def test_the_losses_of_both_readmes() -> None:
    for code in (blocks(README)[1], blocks(CORE_README)[0]):
        assert float(run(code)["loss"]) > 0


def test_every_command_shown_exists(capsys: pytest.CaptureFixture[str]) -> None:
    shown = set(re.findall(r"^limbeck (\w+)", README, flags=re.MULTILINE))
    assert {"train", "test", "list", "show", "copy"} <= shown
    for command in shown:
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0
    capsys.readouterr()


def test_the_table_names_what_exists_and_only_that() -> None:
    rows = re.findall(r"^\| \[?`(limbeck-\w+)`(?:\]\((\S+)\))? \|.*\| (\w+) \|$", README, flags=re.MULTILINE)
    present = {name for name, _, state in rows if state != "planned"}
    assert present == {package.replace("_", "-") for package in PACKAGES}
    assert all((ROOT / link / "pyproject.toml").is_file() for _, link, state in rows if state != "planned")
    assert {name for name, link, state in rows if state == "planned" and link} == set()
