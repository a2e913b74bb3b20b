"""Which arrays of a golden vector are inputs and which are what is compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from limbeck_core.conformance import compare_case, read_case


def test_an_input_may_be_called_like_an_output(tmp_path: Path) -> None:
    """What has a gradient in the file is an input."""
    path = tmp_path / "square__c1.npz"
    x = np.array([1.0, 2.0])
    np.savez(path, out_x=x, out_twice=2 * x, value=np.array(5.0), grad_out_x=2 * x, params=np.array("{}"))
    case = read_case(path)
    assert case.inputs.keys() == {"out_x"}
    assert case.inputs["out_x"].requires_grad
    assert case.expected.keys() == {"value", "out_twice", "grad_out_x"}

    verdict = compare_case(
        case, lambda c: {"value": c.inputs["out_x"].square().sum(), "out_twice": 2 * c.inputs["out_x"]}
    )
    assert verdict.passed, verdict.line()
