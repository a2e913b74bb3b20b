"""Adapters from golden items to :mod:`limbeck_core.functional.contrast`."""

from __future__ import annotations

from limbeck_core.conformance.harness import Adapter

ADAPTERS: dict[str, Adapter] = {}
