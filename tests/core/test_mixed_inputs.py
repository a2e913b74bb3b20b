"""Every loss: student and teacher in different precisions agree with one precision; on different devices a sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from contracts import contracts
from limbeck_core.errors import ShapeError

CONTRACTS = contracts()


def cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


@pytest.mark.parametrize("name", sorted(CONTRACTS))
def test_teacher_in_double_and_student_in_single_precision(name: str) -> None:
    contract = CONTRACTS[name]
    arguments = contract.inputs()
    student = contract.student_names(arguments)
    mixed = {key: cast(value, torch.float32) if key in student else value for key, value in arguments.items()}
    single = {key: cast(value, torch.float32) for key, value in arguments.items()}
    torch.testing.assert_close(contract.call(**mixed).float(), contract.call(**single).float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", sorted(CONTRACTS))
def test_teacher_on_another_device(name: str) -> None:
    contract = CONTRACTS[name]
    arguments = contract.inputs()
    teacher = contract.teacher_names(arguments)[0]
    with pytest.raises(ShapeError, match="is on cpu and .* on meta|is on meta and .* on cpu"):
        contract.call(**{**arguments, teacher: arguments[teacher].to("meta")})
