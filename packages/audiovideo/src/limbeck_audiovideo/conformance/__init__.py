"""Adapters from golden items of the reference implementations to this package's public pieces, by item name."""

from __future__ import annotations

from limbeck_audiovideo.conformance import discovr
from limbeck_core.conformance import Adapter

ADAPTERS: dict[str, Adapter] = {**discovr.ADAPTERS}

__all__ = ["ADAPTERS"]
