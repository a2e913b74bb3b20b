"""How audio, video and sensor models are judged: probes of frozen features, and the measures of each field."""

from limbeck_audiovideo.evaluation.subjects import SubjectProbe, leave_subjects_out, macro_f1

__all__ = [
    "SubjectProbe",
    "leave_subjects_out",
    "macro_f1",
]
