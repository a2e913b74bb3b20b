"""The built site: without warnings, complete, and without anything that a page would fetch from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from limbeck_core import functional, losses
from source_tree import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def html(site: Path) -> dict[str, str]:
    return {str(path.relative_to(site)): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    fetching = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=["']?(?:https?:)?//[^>]*>""")
    found = {name: fetching.findall(text) for name, text in html(site).items()}
    # the address of the page itself is no fetch
    assert {name: tags for name, tags in found.items() if [t for t in tags if "canonical" not in t]} == {}
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert styles
    assert not any(re.search(r"@import\s+url\(|url\(['\"]?https?://", style) for style in styles)
    # the theme would load mermaid from elsewhere for these
    assert not any('class="mermaid"' in text for text in html(site).values())


def test_links_work_without_a_server(site: Path) -> None:
    """Every relative link leads to a file, not to a folder that only a server turns into one."""
    broken = []
    for name, text in html(site).items():
        for link in re.findall(r'<a\b[^>]*?href="([^"#?]+)', text):
            if (
                "://" not in link
                and not link.startswith("mailto:")
                and not (site / name).parent.joinpath(link).is_file()
            ):
                broken.append((name, link))
    assert [entry for entry in broken if entry[0] != "404.html"] == []


def test_no_markup_of_another_language_is_left(site: Path) -> None:
    left = re.compile(r":(?:class|func|meth|mod|attr|math):|\.\. math::")
    assert [name for name, text in html(site).items() if left.search(text)] == []


def test_every_public_loss_has_a_place(site: Path) -> None:
    functions, modules = (html(site)[f"reference/{page}.html"] for page in ("functional", "losses"))
    assert [name for name in functional.__all__ if name.endswith("_loss") and f'.{name}"' not in functions] == []
    assert [name for name in losses.__all__ if f'.{name}"' not in modules] == []
