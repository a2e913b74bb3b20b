"""The contract of every loss, collected from the files that test them."""

from __future__ import annotations

import importlib.util
import sys

from loss_contract import LossContract
from source_tree import ROOT

FOLDER = ROOT / "tests" / "core" / "functional"


def contracts() -> dict[str, LossContract]:
    """One contract for each loss module, from the files that test them."""
    found: dict[str, LossContract] = {}
    for path in sorted(FOLDER.glob("test_*.py")):
        name = f"ranked_{path.stem}"
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, path)
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        for value in vars(sys.modules[name]).values():
            if isinstance(value, type) and issubclass(value, LossContract) and hasattr(value, "module"):
                found.setdefault(value.module.__name__, value())
    return found
