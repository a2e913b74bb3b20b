"""Every golden vector in tests/golden agrees with our losses in value and gradient."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck_core.conformance import compare_case, installed_adapters, read_case

FILES = sorted((Path(__file__).parents[2] / "golden").glob("*__c*.npz"))
ADAPTERS = installed_adapters()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_vector(path: Path) -> None:
    case = read_case(path)
    verdict = compare_case(case, ADAPTERS[case.name])
    assert verdict.passed, verdict.line()
