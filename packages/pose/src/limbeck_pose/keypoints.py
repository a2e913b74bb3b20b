"""Sets of key points: their names' order, tolerances, mirror pairs, parts, and which are joined when drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_BODY_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
    0.089,
)  # fmt: skip
_FOOT_SIGMAS = (0.068, 0.066, 0.066, 0.092, 0.094, 0.094)
_FACE_SIGMAS = (
    0.042, 0.043, 0.044, 0.043, 0.040, 0.035, 0.031, 0.025, 0.020, 0.023, 0.029, 0.032, 0.037, 0.038, 0.043, 0.041,
    0.045, 0.013, 0.012, 0.011, 0.011, 0.012, 0.012, 0.011, 0.011, 0.013, 0.015, 0.009, 0.007, 0.007, 0.007, 0.012,
    0.009, 0.008, 0.016, 0.010, 0.017, 0.011, 0.009, 0.011, 0.009, 0.007, 0.013, 0.008, 0.011, 0.012, 0.010, 0.034,
    0.008, 0.008, 0.009, 0.008, 0.008, 0.007, 0.010, 0.008, 0.009, 0.009, 0.009, 0.007, 0.007, 0.008, 0.011, 0.008,
    0.008, 0.008, 0.010, 0.008,
)  # fmt: skip
_HAND_SIGMAS = (
    0.029, 0.022, 0.035, 0.037, 0.047, 0.026, 0.025, 0.024, 0.035, 0.018, 0.024, 0.022, 0.026, 0.017, 0.021, 0.021,
    0.032, 0.020, 0.019, 0.022, 0.031,
)  # fmt: skip
_BODY_PAIRS = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16))
# within the 68 points of a face
_FACE_PAIRS = (
    *((point, 16 - point) for point in range(8)),
    *((17 + point, 26 - point) for point in range(5)),
    (31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46), (48, 54), (49, 53), (50, 52),
    (55, 59), (56, 58), (60, 64), (61, 63), (65, 67),
)  # fmt: skip
_BODY_LINKS = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10), (1, 2),
    (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip
_FOOT_LINKS = ((15, 17), (15, 18), (15, 19), (16, 20), (16, 21), (16, 22))
_HAND_LINKS = tuple(
    (0 if joint == 0 else 4 * finger + joint, 4 * finger + joint + 1) for finger in range(5) for joint in range(4)
)


@dataclass(frozen=True)
class Layout:
    """A set of key points.

    Args:
        count: Number of key points K.
        sigmas: Tolerance of each in COCO's object key point similarity (unitless), length K.
        pairs: Left and right partners, which a mirrored image exchanges.
        parts: Named ranges that are judged on their own.
        upper: Key points of the upper body, by which half-body crops are chosen. Hands and face belong to neither half.
        lower: Key points of the lower body.
        links: Key points that are joined by a line when drawn.
    """

    count: int
    sigmas: tuple[float, ...]
    pairs: tuple[tuple[int, int], ...]
    parts: Mapping[str, range]
    upper: tuple[int, ...]
    lower: tuple[int, ...]
    links: tuple[tuple[int, int], ...]

    @property
    def mirrored(self) -> list[int]:
        """The key point that each one becomes in a mirrored image, length K."""
        order = list(range(self.count))
        for left, right in self.pairs:
            order[left], order[right] = right, left
        return order


BODY = Layout(
    count=17,
    sigmas=_BODY_SIGMAS,
    pairs=_BODY_PAIRS,
    parts={"body": range(17)},
    upper=tuple(range(11)),
    lower=tuple(range(11, 17)),
    links=_BODY_LINKS,
)
"""The 17 key points of COCO."""

WHOLE_BODY = Layout(
    count=133,
    sigmas=(*_BODY_SIGMAS, *_FOOT_SIGMAS, *_FACE_SIGMAS, *_HAND_SIGMAS, *_HAND_SIGMAS),
    pairs=(
        *_BODY_PAIRS,
        *((17 + point, 20 + point) for point in range(3)),
        *((23 + left, 23 + right) for left, right in _FACE_PAIRS),
        *((91 + point, 112 + point) for point in range(21)),
    ),
    parts={
        "body": range(17),
        "foot": range(17, 23),
        "face": range(23, 91),
        "left_hand": range(91, 112),
        "right_hand": range(112, 133),
    },
    upper=tuple(range(11)),
    lower=tuple(range(11, 23)),
    links=(
        *_BODY_LINKS,
        *_FOOT_LINKS,
        (9, 91),
        (10, 112),
        *((91 + a, 91 + b) for a, b in _HAND_LINKS),
        *((112 + a, 112 + b) for a, b in _HAND_LINKS),
    ),
)
"""The 133 key points of COCO-WholeBody (Jin et al., arXiv:2007.11858): body, feet, face, hands."""

LAYOUTS: Mapping[str, Layout] = {"whole-body": WHOLE_BODY, "body": BODY}
"""Layouts by the names that a command line gives them."""
