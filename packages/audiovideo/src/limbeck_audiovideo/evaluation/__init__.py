"""How audio, video and sensor models are judged: probes of frozen features, and the measures of each field."""

from limbeck_audiovideo.evaluation.probes import Probed, linear_probe, nearest_neighbours, retrieval_recall
from limbeck_audiovideo.evaluation.subjects import SubjectProbe, leave_subjects_out, macro_f1

__all__ = [
    "Probed",
    "SubjectProbe",
    "leave_subjects_out",
    "linear_probe",
    "macro_f1",
    "nearest_neighbours",
    "retrieval_recall",
]
