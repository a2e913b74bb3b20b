"""Hold D-FINE and PointDistiller against golden vectors of their references: the entry point of ``limbeck conform``."""

from __future__ import annotations

from limbeck_core.conformance.harness import Adapter
from limbeck_detection.conformance import criterion, model, pointdistiller

ADAPTERS: dict[str, Adapter] = {**criterion.ADAPTERS, **model.ADAPTERS, **pointdistiller.ADAPTERS}
