"""Reports that open offline: one HTML page with everything inside, and its pictures as PNG files beside it."""

from limbeck_core.report.comparison import Difference, paired_bootstrap
from limbeck_core.report.curves import draw_curves
from limbeck_core.report.page import Report, spread

__all__ = ["Difference", "Report", "draw_curves", "paired_bootstrap", "spread"]
