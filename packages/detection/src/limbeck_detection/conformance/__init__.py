"""Hold D-FINE against golden vectors of its reference implementation: the entry point of ``limbeck conform``."""

from __future__ import annotations

from limbeck_core.conformance.harness import Adapter
from limbeck_detection.conformance import criterion, model

ADAPTERS: dict[str, Adapter] = {**criterion.ADAPTERS, **model.ADAPTERS}
