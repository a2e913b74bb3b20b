"""The public face is complete, sorted and documented, and all losses have one shape of signature."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
from torch import nn

import limbeck_core
from limbeck_core import functional, losses

FACES = [limbeck_core, functional, losses]

# Exceptions, each with its reason.
HELPERS = {"reduce_loss": "reduces what a loss computed; it compares nothing"}
FUNCTION_ONLY: dict[str, str] = {}
MODULE_ONLY: dict[str, str] = {}
NOT_STUDENT_AND_TEACHER = {
    "customized_soft_label_loss": "no teacher: the student's own weak head stands in its place",
    "koleo_loss": "no teacher: the samples of a batch keep away from each other",
}


def parts(package: ModuleType) -> list[ModuleType]:
    return [import_module(f"{package.__name__}.{info.name}") for info in pkgutil.iter_modules(package.__path__)]


def defined(package: ModuleType, fits: Callable[[Any], bool], ending: str) -> dict[str, Any]:
    """Public things of one kind that the files of a package define, by name."""
    return {
        name: thing
        for module in parts(package)
        for name, thing in vars(module).items()
        if name.endswith(ending) and not name.startswith("_") and fits(thing) and thing.__module__ == module.__name__
    }


FUNCTIONS = {n: f for n, f in defined(functional, inspect.isfunction, "_loss").items() if n not in HELPERS}
MODULES = defined(losses, inspect.isclass, "Loss")
TWINS = {name: function for name in MODULES for function in FUNCTIONS if function.replace("_", "") == name.lower()}


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_all_is_sorted_and_true(face: ModuleType) -> None:
    names = list(face.__all__)
    assert names == sorted(set(names), key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert [name for name in names if not hasattr(face, name)] == []
    assert set(names) <= set(dir(face))


def test_every_loss_is_exported() -> None:
    assert sorted(FUNCTIONS.keys() - set(functional.__all__)) == []
    assert sorted(MODULES.keys() - set(losses.__all__)) == []
    assert all(issubclass(getattr(losses, name), nn.Module) for name in losses.__all__ if name.endswith("Loss"))


def test_every_function_has_its_module_and_the_other_way_round() -> None:
    assert sorted(FUNCTIONS.keys() - set(TWINS.values()) - FUNCTION_ONLY.keys()) == []
    assert sorted(MODULES.keys() - TWINS.keys() - MODULE_ONLY.keys()) == []


def test_exceptions_are_still_needed() -> None:
    assert FUNCTION_ONLY.keys() <= FUNCTIONS.keys() - set(TWINS.values())
    assert MODULE_ONLY.keys() <= MODULES.keys() - TWINS.keys()
    assert NOT_STUDENT_AND_TEACHER.keys() <= FUNCTIONS.keys()


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_function_says_what_it_takes_gives_raises_and_where_it_is_from(name: str) -> None:
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    missing = [section for section in ("Args:", "Returns:", "Raises:", "Reference:") if section not in text]
    assert missing == []
    undescribed = [p for p in inspect.signature(FUNCTIONS[name]).parameters if f"\n    {p}: " not in text]
    assert undescribed == [], "each argument has its line under Args"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_says_what_it_takes(name: str) -> None:
    text = inspect.getdoc(MODULES[name]) or ""
    parameters = [p for p in inspect.signature(MODULES[name]).parameters if p not in ("args", "kwargs")]
    assert [p for p in parameters if f"\n    {p}: " not in text] == [], "each argument has its line under Args"
    assert inspect.getdoc(MODULES[name].forward)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_student_first_teacher_second_numbers_by_name(name: str) -> None:
    parameters = list(inspect.signature(FUNCTIONS[name]).parameters.values())
    if name not in NOT_STUDENT_AND_TEACHER:
        assert parameters[0].name.startswith("student_"), parameters[0].name
        assert parameters[1].name.startswith("teacher_"), parameters[1].name
    positional = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    with_default = [p.name for p in positional if p.default is not p.empty and p.default is not None]
    assert with_default == [], "hyper-parameters are given by name"
    reduction = next((p for p in parameters if p.name == "reduction"), None)
    assert reduction is None or (reduction.default == "mean" and reduction is parameters[-1])


@pytest.mark.parametrize("name", sorted(TWINS))
def test_twins_agree_on_defaults(name: str) -> None:
    of_module = inspect.signature(MODULES[name]).parameters
    of_function = inspect.signature(FUNCTIONS[TWINS[name]]).parameters
    per_call = inspect.signature(MODULES[name].forward).parameters
    for argument, parameter in of_function.items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        # a module's own state, such as a centre, is a buffer that the class declares
        settable = argument in of_module or argument in per_call or argument in MODULES[name].__annotations__
        assert settable, f"{name} has no way to set {argument}"
        if argument in of_module:
            assert of_module[argument].default == parameter.default, argument
