"""Every installed config says what it is, reads back from its own print, and builds what its table row says."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

from limbeck_core.build import build
from limbeck_core.configs import head_comment, installed
from limbeck_core.engine.config import dump_config, load_config

# The exact match names of every config, one file a package: a stage that inherits a match by accident shows here.
MATCHES: dict[str, set[str]] = {
    name: set(matches)
    for table in sorted((Path(__file__).parent / "matches").glob("*.yml"))
    for name, matches in (yaml.safe_load(table.read_text(encoding="utf-8")) or {}).items()
}


def test_the_table_holds_every_config() -> None:
    assert installed().keys() == MATCHES.keys()


def test_each_says_what_it_is_and_how_to_run_it() -> None:
    for name, config in installed().items():
        head = head_comment(config.path.read_text(encoding="utf-8"))
        assert config.description, f"{name}: the first line of the head comment is its description"
        assert any(f"limbeck train {name}" in line for line in head), f"{name}: the head comment names its command"


def test_each_fits_a_screen() -> None:
    lengths = {name: len(config.path.read_text(encoding="utf-8").splitlines()) for name, config in installed().items()}
    assert {name: length for name, length in lengths.items() if length > 80} == {}


def test_each_reads_back_from_its_own_print(tmp_path: Path) -> None:
    for name in installed():
        config = load_config(name)
        (tmp_path / "again.py").write_text(dump_config(config), encoding="utf-8")
        assert load_config(tmp_path / "again.py").to_dict() == config.to_dict(), name


def test_each_builds_the_matches_of_its_row() -> None:
    """On the meta device: architectures, taps and signatures are checked, and no weight is drawn or read."""
    for name, matches in MATCHES.items():
        with torch.device("meta"):
            model = build(load_config(name).model)
        assert set(model.matches) == matches, name
