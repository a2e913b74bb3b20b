"""Adapters from golden items of the reference implementations to this package's public pieces, by item name."""

from __future__ import annotations

from limbeck_audiovideo.conformance import atst, comodo, discovr
from limbeck_core.conformance import Adapter

ADAPTERS: dict[str, Adapter] = {**atst.ADAPTERS, **comodo.ADAPTERS, **discovr.ADAPTERS}

__all__ = ["ADAPTERS"]
