"""What ``fairseq-train --user-dir`` imports: the criteria and the task of :mod:`limbeck_nlp.translation._fairseq`."""

from limbeck_nlp.translation import _fairseq

__all__ = ["_fairseq"]
