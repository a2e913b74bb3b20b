"""The documentation is true: its code runs, the files it names exist, its results are those of the metafiles."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from doc_blocks import DOCS, blocks, pages, run
from limbeck_core.cli import main
from source_tree import ROOT

# Pages whose code has a test of its own, which also looks at what it prints.
ELSEWHERE = {"from_scratch.md", "own_loop.md"}
RUNNING = [page for page in pages() if page.name not in ELSEWHERE and any(block.runs for block in blocks(page))]


@pytest.mark.parametrize("page", RUNNING, ids=lambda page: page.name)
def test_code_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(page)


@pytest.mark.parametrize("page", [*pages(), ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_files_named_in_code_font_exist(page: Path) -> None:
    named = re.findall(r"`((?:shared|packages|tests|tools|docs)/[^`\s]*)`", page.read_text(encoding="utf-8"))
    # <domain> stands for any name: there must be one at least
    missing = [name for name in named if not any(ROOT.glob(re.sub(r"<\w+>", "*", name.rstrip("/"))))]
    assert missing == []


def test_python_names_in_code_font_exist() -> None:
    named = {
        name
        for page in [*pages(), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
        for name in re.findall(r"`(limbeck_(?:core|vision)(?:\.\w+)+)`", page.read_text(encoding="utf-8"))
    }
    assert named
    assert [name for name in sorted(named) if not exists(name)] == []


def exists(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return hasattr(importlib.import_module(module), attribute)
    return True


def test_commands_shown_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """Commands and their long options, in code blocks and in code font."""
    call = r"(?:`|^|&& |srun )(?:python -m limbeck_core|torchrun [^\n]*-m limbeck_core|limbeck) (\w+)([^`\n]*)"
    shown = {found for page in pages() for found in re.findall(call, page.read_text(encoding="utf-8"), re.MULTILINE)}
    assert {"train", "test", "doctor", "compare", "copy"} <= {command for command, _ in shown}
    unknown = []
    for command, rest in sorted(shown):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        known = capsys.readouterr().out
        options = re.findall(r"--[a-z-]+", rest.split("#")[0])
        unknown += [(command, option) for option in options if stopped.value.code or option not in known]
    assert unknown == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page for page in pages() if str(page.relative_to(DOCS)) not in navigation] == []


def test_configs_on_pages_are_read(tmp_path: Path) -> None:
    from limbeck_core.engine.config import load_config

    found = [block for page in pages() for block in blocks(page) if block.note == "config"]
    assert found
    for number, block in enumerate(found):
        path = tmp_path / f"config_{number}.py"
        path.write_text(block.code, encoding="utf-8")
        load_config(path)


def test_results_are_those_of_the_metafiles() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "make_results.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
