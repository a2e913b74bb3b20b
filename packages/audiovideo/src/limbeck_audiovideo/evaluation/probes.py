"""The probes of core under this package's name."""

from limbeck_core.probes import STRENGTHS, Probed, linear_probe, nearest_neighbours, retrieval_recall

__all__ = ["STRENGTHS", "Probed", "linear_probe", "nearest_neighbours", "retrieval_recall"]
