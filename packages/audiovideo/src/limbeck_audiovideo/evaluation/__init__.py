"""How audio, video and sensor models are judged: probes of frozen features, and the measures of each field."""

from limbeck_audiovideo.evaluation.probes import Probed, linear_probe, nearest_neighbours, retrieval_recall

__all__ = ["Probed", "linear_probe", "nearest_neighbours", "retrieval_recall"]
