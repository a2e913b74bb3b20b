"""What every distillation loss of limbeck promises, as one test class to subclass.

A subclass names the function, its module twin, hyper-parameters and how to make inputs; the contract then checks value
equality of the twins, gradients against finite differences, that the teacher receives none, half precision, an empty
batch, reductions, pickling, and the wording of the errors.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from limbeck_core.errors import LimbeckError, NonFiniteError, ShapeError


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers from a generator of their own."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def labels(batch: int, classes: int, seed: int = 0) -> Tensor:
    """Class indices from a generator of their own."""
    return torch.randint(0, classes, (batch,), generator=torch.Generator().manual_seed(seed))


class LossContract:
    """Subclass as ``TestXyzLoss``; set ``function``, ``module``, optionally ``hyper``, and define ``inputs``."""

    function: ClassVar[Callable[..., Tensor]]
    module: ClassVar[type[nn.Module]]
    hyper: ClassVar[dict[str, Any]] = {}
    has_reduction: ClassVar[bool] = True  # False: the loss does not decompose by sample, and says so
    zero_at_equality: ClassVar[bool] = True  # False: an entropy or another constant remains
    empty_batch: ClassVar[bool] = True
    student_prefix: ClassVar[str] = "student"
    teacher_prefix: ClassVar[str] = "teacher"
    sequences: ClassVar[bool] = False  # True: the inputs student_x0, student_x1, ... are passed as one list student_x
    module_hyper: ClassVar[dict[str, Any] | None] = None  # constructor arguments, where they differ from ``hyper``

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        """Return the call's arguments by name, without hyper-parameters; student and teacher must differ."""
        raise NotImplementedError(f"{type(self).__name__} must define inputs()")

    def pack(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Gather numbered inputs into lists, if the loss takes sequences."""
        if not self.sequences:
            return arguments
        packed: dict[str, Any] = {}
        for name, value in arguments.items():
            base = name.rstrip("0123456789")
            packed[base] = value if base == name else [*packed.get(base, []), value]
        return packed

    def call(self, **arguments: Any) -> Tensor:
        return type(self).function(**self.pack(arguments), **self.hyper)

    def build(self, **extra: Any) -> nn.Module:
        return type(self).module(**{**(self.hyper if self.module_hyper is None else self.module_hyper), **extra})

    def student_names(self, arguments: dict[str, Any]) -> list[str]:
        return [k for k, v in arguments.items() if k.startswith(self.student_prefix) and torch.is_tensor(v)]

    def teacher_names(self, arguments: dict[str, Any]) -> list[str]:
        return [k for k, v in arguments.items() if k.startswith(self.teacher_prefix) and torch.is_tensor(v)]

    def test_module_equals_function(self) -> None:
        arguments = self.inputs()
        torch.testing.assert_close(self.build()(**self.pack(arguments)), self.call(**arguments), rtol=0, atol=0)

    def test_student_comes_first_and_teacher_second(self) -> None:
        arguments = self.inputs()
        packed = list(self.pack(arguments).items())
        first_two, rest = [value for _, value in packed[:2]], dict(packed[2:])
        torch.testing.assert_close(self.call(**arguments), type(self).function(*first_two, **rest, **self.hyper))

    def test_gradcheck(self) -> None:
        arguments = self.inputs(batch=3)
        names = self.student_names(arguments)
        tensors = [arguments[name].clone().requires_grad_() for name in names]
        assert gradcheck(lambda *xs: self.call(**{**arguments, **dict(zip(names, xs, strict=True))}), tensors)

    def test_teacher_receives_no_gradient(self) -> None:
        arguments = self.inputs()
        leaves = {n: arguments[n].clone().requires_grad_() for n in self.teacher_names(arguments)}
        student = {n: arguments[n].clone().requires_grad_() for n in self.student_names(arguments)}
        self.call(**{**arguments, **leaves, **student}).sum().backward()
        assert all(leaf.grad is None for leaf in leaves.values())
        assert all(leaf.grad is not None for leaf in student.values())

    def test_zero_with_finite_gradient_at_equality(self) -> None:
        if not self.zero_at_equality:
            return
        arguments = self.inputs()
        student, teacher = self.student_names(arguments), self.teacher_names(arguments)
        pairs = [(s, t) for s, t in zip(student, teacher, strict=True) if arguments[s].shape == arguments[t].shape]
        assert pairs, "make inputs of equal shape, or set zero_at_equality = False and test the minimum by hand"
        leaves = {s: arguments[t].clone().requires_grad_() for s, t in pairs}
        loss = self.call(**{**arguments, **leaves}).sum()
        loss.backward()
        assert abs(float(loss.detach())) < 1e-9
        assert all(torch.isfinite(leaf.grad).all() for leaf in leaves.values())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_half_precision_is_close_to_double(self, dtype: torch.dtype) -> None:
        arguments = self.inputs(dtype=dtype)
        double = {k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in arguments.items()}
        torch.testing.assert_close(self.call(**arguments).double(), self.call(**double).double(), rtol=0.1, atol=0.02)

    def test_empty_batch_is_a_differentiable_zero(self) -> None:
        if not self.empty_batch:
            return
        arguments = self.inputs(batch=0)
        names = self.student_names(arguments)
        leaves = {n: arguments[n].clone().requires_grad_() for n in names}
        loss = self.call(**{**arguments, **leaves}).sum()
        assert float(loss.detach()) == 0.0
        loss.backward()

    def test_reductions_agree(self) -> None:
        if not self.has_reduction:
            return
        arguments = self.inputs()
        each = type(self).function(**self.pack(arguments), **{**self.hyper, "reduction": "none"})
        assert each.ndim >= 1
        mean = type(self).function(**self.pack(arguments), **{**self.hyper, "reduction": "mean"})
        total = type(self).function(**self.pack(arguments), **{**self.hyper, "reduction": "sum"})
        torch.testing.assert_close(each.mean(), mean)
        torch.testing.assert_close(each.sum(), total)

    def test_misspelt_reduction_is_refused(self) -> None:
        if not self.has_reduction:
            return
        with pytest.raises(ValueError, match="reduction must be 'none', 'mean' or 'sum', got 'avg'"):
            type(self).function(**self.pack(self.inputs()), **{**self.hyper, "reduction": "avg"})
        with pytest.raises(ValueError, match="reduction must be 'none', 'mean' or 'sum', got 'avg'"):
            self.build(reduction="avg")

    def test_shape_mismatch_names_both_shapes(self) -> None:
        arguments = self.inputs(batch=4)
        name = self.teacher_names(arguments)[0]
        wrong = arguments[name][:3]
        with pytest.raises(ShapeError) as caught:
            self.call(**{**arguments, name: wrong})
        student_shape = str(tuple(arguments[self.student_names(arguments)[0]].shape))
        assert student_shape in str(caught.value)
        assert str(tuple(wrong.shape)) in str(caught.value)

    def test_nan_is_named_not_spread(self) -> None:
        arguments = self.inputs()
        for name in (self.student_names(arguments)[0], self.teacher_names(arguments)[0]):
            bad = arguments[name].clone()
            bad[1] = float("nan")
            with pytest.raises(NonFiniteError, match=name.rstrip("0123456789")):
                self.call(**{**arguments, name: bad})

    def test_module_survives_pickle_deepcopy_and_state_dict(self) -> None:
        module = self.build()
        arguments = self.inputs()
        expected = module(**self.pack(arguments))
        for twin in (copy.deepcopy(module), pickle.load(io.BytesIO(pickle.dumps(module)))):
            twin.load_state_dict(module.state_dict())
            torch.testing.assert_close(twin(**self.pack(arguments)), expected)

    def test_errors_are_ours(self) -> None:
        """A flat vector is no batch of anything: our sentence, not torch's."""
        arguments = self.inputs()
        name = self.student_names(arguments)[0]
        with pytest.raises((LimbeckError, ValueError), match=name.rstrip("0123456789")):
            self.call(**{**arguments, name: randn(4)})
