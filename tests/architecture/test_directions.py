"""Imports point downwards: tools -> domains -> core, and inside core from the command line to the ground."""

from __future__ import annotations

import sys

import pytest

from limbeck_core.engine import config as engine_config
from source_tree import PACKAGES, Module, modules

MODULES = modules()

# Each row may import the rows before it, and its own.
LAYERS = (
    {"errors"},
    {"build", "checks", "gather", "schedules"},
    {"functional"},
    {"losses"},
    # configs only finds files: the engine reads what it finds, so it stands down here
    {"adapters", "configs", "probes", "weights"},
    {"calls", "fast_teacher", "match", "tap", "teacher", "mmcv_operators", "openmmlab_models"},
    {"distiller"},
    {"bank", "engine", "inspect", "report"},
    {"suggest"},
    {"cli"},
    {"__main__"},
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
BESIDE = {"conformance": {"errors", "checks", "gather", "functional", "losses", "adapters", "schedules", "conformance"}}
GROUND = ("errors", "build", "checks", "gather", "schedules", "functional", "losses")


def part(name: str) -> str:
    """The part of core that a module belongs to; the face itself is ``""``."""
    return name.split(".")[1] if "." in name else ""


def core_arrows() -> list[tuple[Module, str, int]]:
    core = [module for module in MODULES.values() if module.package == "limbeck_core" and part(module.name)]
    return [
        (module, target, line)
        for module in core
        for target, line in module.imports(set(MODULES))
        if target.partition(".")[0] == "limbeck_core"
    ]


def test_every_part_of_core_has_a_layer() -> None:
    parts = {part(name) for name in MODULES if name.startswith("limbeck_core.")}
    assert parts - RANK.keys() - BESIDE.keys() == set(), "give the new part a row in LAYERS"


def test_core_imports_downwards() -> None:
    wrong = []
    for module, target, line in core_arrows():
        source, goal = part(module.name), part(target)
        if not goal:
            wrong.append(f"{module.name}:{line} imports the face, {target}")
        elif source in BESIDE:
            if goal not in BESIDE[source]:
                wrong.append(f"{module.name}:{line} -> {target}")
        elif goal in BESIDE:
            if source != "cli":
                wrong.append(f"{module.name}:{line} -> {target}, which only the command line may use")
        elif RANK[goal] > RANK[source]:
            wrong.append(f"{module.name}:{line} -> {target}")
    assert wrong == []


def test_core_has_arrows_to_check() -> None:
    """The test above would pass on nothing."""
    pairs = {(part(module.name), part(target)) for module, target, _ in core_arrows()}
    assert {("losses", "functional"), ("match", "tap"), ("distiller", "match"), ("cli", "engine")} <= pairs


def test_domains_know_core_and_themselves_only() -> None:
    wrong = [
        f"{module.name}:{line} -> {target}"
        for module in MODULES.values()
        for target, line in module.imports(set(MODULES))
        if (goal := target.partition(".")[0]).startswith("limbeck_") and goal not in {"limbeck_core", module.package}
    ]
    assert wrong == []


def test_the_ground_imports_torch_only() -> None:
    allowed = sys.stdlib_module_names | {"torch", "limbeck_core"}
    wrong = [
        f"{module.name}:{line} -> {target}"
        for module in MODULES.values()
        if module.package == "limbeck_core" and part(module.name) in GROUND
        for target, line in module.imports(set(MODULES))
        if target.partition(".")[0] not in allowed
    ]
    assert wrong == []


def test_no_circles() -> None:
    """What modules import while they are imported forms no circle, not even inside one package."""
    graph = {
        name: {t for t, _ in module.imports(set(MODULES), at_import_time=True) if t in MODULES and t != name}
        for name, module in MODULES.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            pytest.fail("modules import each other: " + " -> ".join([*trail[trail.index(name) :], name]))
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
    assert done == graph.keys()


def test_configs_hold_values_imports_of_components_and_read_base() -> None:
    """The reader refuses anything else by line; fragments are read on their own, too."""
    configs = [module for module in MODULES.values() if module.is_config]
    for module in configs:
        engine_config.read(module.path)
        for target, line in module.imports(set(MODULES)):
            top = target.partition(".")[0]
            assert top not in PACKAGES or top in {"limbeck_core", module.package}, f"{module.path}:{line}"
