"""Finding and copying the configs of installed packages."""

from __future__ import annotations

import subprocess
import sys

import pytest

from limbeck_core import configs
from limbeck_core.engine.config import load_config
from limbeck_core.errors import ConfigError

CONFIG = """# A small experiment.
#   limbeck train garden/rose/tiny
from mmengine.config import read_base

with read_base():
    from .._base_.soil import *
    from .._base_ . water import amount as drops  # odd spacing stays legal

from torch.nn import Linear
model = dict(type=Linear)
"""


@pytest.fixture
def garden(tmp_path, monkeypatch):
    """A package that is installed as far as metadata go, and fails when it is imported."""
    folder = tmp_path / "site" / "limbeck_garden"
    for name, text in {
        "__init__.py": "raise RuntimeError('listing configs must not import the package')",
        "configs/__init__.py": "",
        "configs/_base_/soil.py": "depth = 3",
        "configs/_base_/water.py": "amount = 1",
        "configs/rose/tiny.py": CONFIG.replace("_base_ . water", "_base_.water"),
        "configs/rose/_private.py": "x = 1",
        "configs/plain.py": "x = 1",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    metadata = tmp_path / "site" / "limbeck_garden-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: limbeck-garden\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[limbeck.configs]\ngarden = limbeck_garden.configs\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder


def test_names_paths_and_descriptions(garden):
    ours = {name: config for name, config in configs.installed().items() if name.startswith("garden/")}
    assert list(ours) == ["garden/plain", "garden/rose/tiny"]
    assert ours["garden/rose/tiny"].path == garden / "configs" / "rose" / "tiny.py"
    assert ours["garden/rose/tiny"].module == "limbeck_garden.configs.rose.tiny"
    assert ours["garden/rose/tiny"].description == "A small experiment."
    assert ours["garden/plain"].description == ""


def test_find_by_name_and_by_path(garden):
    path = garden / "configs" / "rose" / "tiny.py"
    assert configs.find("garden/rose/tiny") == path
    assert configs.find("garden/rose/tiny.py") == path
    assert configs.find(path) == path
    assert load_config("garden/rose/tiny").depth == 3


def test_find_refuses(garden, tmp_path):
    with pytest.raises(ConfigError, match="no installed config of that name: did you mean 'garden/rose/tiny'"):
        configs.find("garden/rose/tyni")
    with pytest.raises(ConfigError, match="is a folder: name one config in it"):
        configs.find(tmp_path)


def test_copy_reads_the_same_from_anywhere(garden, tmp_path):
    target = configs.copy("garden/rose/tiny", tmp_path / "mine" / "copy.py")
    text = target.read_text()
    assert "    from limbeck_garden.configs._base_.soil import *\n" in text
    assert "from limbeck_garden.configs._base_.water import amount as drops  # odd" in text
    assert text.splitlines()[:2] == CONFIG.splitlines()[:2]
    assert load_config(target).to_dict() == load_config("garden/rose/tiny").to_dict()


def test_copy_into_a_folder_and_never_over_a_file(garden, tmp_path):
    target = configs.copy("garden/rose/tiny.py", tmp_path)
    assert target == tmp_path / "tiny.py"
    target.write_text("mine = 1\n")
    with pytest.raises(ConfigError, match=r"tiny\.py exists already and is left as it is"):
        configs.copy("garden/rose/tiny", tmp_path)
    assert target.read_text() == "mine = 1\n"


def test_copy_refuses(garden, tmp_path):
    with pytest.raises(ConfigError, match="no installed config is called 'garden/rose/tyni': did you mean"):
        configs.copy("garden/rose/tyni", tmp_path)
    with pytest.raises(ConfigError, match="must be a Python file"):
        configs.copy("garden/rose/tiny", tmp_path / "copy.yaml")


def test_two_packages_of_one_name_are_refused(garden):
    entries = garden.parent / "limbeck_garden-1.0.dist-info" / "entry_points.txt"
    (garden / "others").mkdir()
    entries.write_text("[limbeck.configs]\ngarden = limbeck_garden.configs\n")
    twin = garden.parent / "limbeck_twin-1.0.dist-info"
    twin.mkdir()
    (twin / "METADATA").write_text("Metadata-Version: 2.1\nName: limbeck-twin\nVersion: 1.0\n")
    (twin / "entry_points.txt").write_text("[limbeck.configs]\ngarden = limbeck_garden.others\n")
    with pytest.raises(ConfigError, match="two packages announce configs called 'garden'"):
        configs.installed()


def test_announced_but_absent_folder_is_named(garden):
    entries = garden.parent / "limbeck_garden-1.0.dist-info" / "entry_points.txt"
    entries.write_text("[limbeck.configs]\ngarden = limbeck_garden.nowhere\n")
    with pytest.raises(ConfigError, match=r"has no folder limbeck_garden\.nowhere: reinstall it"):
        configs.installed()


def test_finding_imports_neither_torch_nor_mmengine():
    code = (
        "import sys; from limbeck_core import configs; configs.installed();"
        "sys.exit(any(m in sys.modules for m in ('torch', 'mmengine', 'limbeck_vision')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
