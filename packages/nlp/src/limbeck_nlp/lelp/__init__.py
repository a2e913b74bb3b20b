"""LELP: pseudo-subclasses along the teacher's embeddings, for tasks of few classes."""

from limbeck_nlp.lelp.subclasses import SubclassTargets, WithSubclasses, merge_subclasses

__all__ = ["SubclassTargets", "WithSubclasses", "merge_subclasses"]
