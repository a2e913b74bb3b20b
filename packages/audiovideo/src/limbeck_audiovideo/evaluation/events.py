"""Sound events in time: from scores to events, segment and event F1, and PSDS by the library ``psds_eval``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import median_filter
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from limbeck_audiovideo.audio.tables import Event
from limbeck_core.errors import DataError, MissingDependency, ShapeError

Scores = npt.NDArray[np.floating[Any]]
Found = Mapping[str, Sequence[Event]]
PSDS_SETTINGS: dict[str, dict[str, float]] = {
    "psds1": dict(dtc=0.7, gtc=0.7, alpha_ct=0.0, alpha_st=1.0),
    "psds2": dict(dtc=0.1, gtc=0.1, alpha_ct=0.5, alpha_st=1.0),
}
"""The two scenarios of DCASE task 4: react fast, and do not confuse classes."""


def events_of(
    probabilities: Scores,
    classes: Sequence[str],
    *,
    threshold: float = 0.5,
    median: int = 7,
    hop: float = 0.04,
    start: float = 0.0,
) -> list[Event]:
    """Turn probabilities over time into events: smooth, cut at a threshold, and take the runs above it.

    Args:
        probabilities: ``(times, C)`` in [0, 1].
        classes: Names of the C classes.
        threshold: An event lasts while its class has this probability or more.
        median: Width of the median filter in times, odd; 1 does not smooth.
        hop: Seconds from one time to the next.
        start: When the first time begins, in seconds.

    Returns:
        Events by onset.

    Raises:
        ShapeError: if the columns are not the classes.
        ValueError: if ``median`` is even or below 1.
    """
    if probabilities.ndim != 2 or probabilities.shape[1] != len(classes):
        raise ShapeError(f"probabilities must be (times, {len(classes)} classes), got {probabilities.shape}")
    if median < 1 or median % 2 == 0:
        raise ValueError(f"median must be odd and 1 or more, got {median}")
    smooth = smoothed(probabilities, median)
    on = np.pad(smooth >= threshold, ((1, 1), (0, 0))).astype(np.int8)
    turns = np.diff(on, axis=0)
    found = []
    for column, label in enumerate(classes):
        begins, ends = np.flatnonzero(turns[:, column] == 1), np.flatnonzero(turns[:, column] == -1)
        found += [
            Event(start + hop * float(b), start + hop * float(e), label) for b, e in zip(begins, ends, strict=True)
        ]
    return sorted(found, key=lambda event: (event.onset, event.label))


def smoothed(probabilities: Scores, median: int) -> Scores:
    """Median over time, ``(times, C)``; beyond the ends the first and last values go on."""
    smooth: Scores = median_filter(probabilities, size=(median, 1), mode="nearest")
    return smooth


def segment_f1(
    found: Found, truth: Found, durations: Mapping[str, float], classes: Sequence[str], *, length: float = 1.0
) -> dict[str, float]:
    """F1 of classes in segments of a fixed length, in per cent: a class is active in a segment that an event touches.

    Args:
        found: Events by recording; recordings that are missing have none.
        truth: True events by recording.
        durations: Length of each recording in seconds; these recordings are judged.
        classes: Names of the classes.
        length: Length of a segment in seconds.

    Returns:
        ``segment_f1_macro``, over the classes that occur in the truth or among what was found, and
        ``segment_f1_micro``.

    Raises:
        DataError: if an event has a class or recording that is not known.

    Reference:
        Mesaros, Heittola and Virtanen, Metrics for Polyphonic Sound Event Detection, Applied Sciences 2016, 3.1.
    """
    counts = np.zeros((len(classes), 3))
    for name, seconds in _known(found, truth, durations, classes).items():
        total = max(int(np.ceil(seconds / length - 1e-9)), 1)
        active = [np.zeros((total, len(classes)), dtype=bool) for _ in range(2)]
        for side, events in zip(active, (found.get(name, ()), truth.get(name, ())), strict=True):
            for event in events:
                last = int(np.ceil(event.offset / length - 1e-9))
                side[int(event.onset / length + 1e-9) : last, list(classes).index(event.label)] = True
        mine, right = active
        counts += np.stack([(mine & right).sum(0), (mine & ~right).sum(0), (~mine & right).sum(0)], 1)
    return _f1(counts, "segment_f1")


def event_f1(
    found: Found,
    truth: Found,
    durations: Mapping[str, float],
    classes: Sequence[str],
    *,
    collar: float = 0.2,
    share: float = 0.2,
) -> dict[str, float]:
    """F1 of whole events, in per cent: a pair fits if onsets and offsets lie close.

    Onsets may differ by the collar, offsets by the collar or by a share of the true event's length, whichever is more.
    Pairs are matched so that as many as possible fit, one to one.

    Args:
        found: Events by recording; recordings that are missing have none.
        truth: True events by recording.
        durations: Length of each recording in seconds; these recordings are judged.
        classes: Names of the classes.
        collar: In seconds.
        share: Of the true event's length.

    Returns:
        ``event_f1_macro``, over the classes that occur in the truth or among what was found, and ``event_f1_micro``.

    Raises:
        DataError: if an event has a class or recording that is not known.

    Reference:
        Mesaros, Heittola and Virtanen, Applied Sciences 2016, section 3.2; the collars are those of DCASE task 4.
    """
    counts = np.zeros((len(classes), 3))
    for name in _known(found, truth, durations, classes):
        for column, label in enumerate(classes):
            mine = [event for event in found.get(name, ()) if event.label == label]
            right = [event for event in truth.get(name, ()) if event.label == label]
            hits = 0
            if mine and right:
                fits = [[_fits(event, true, collar, share) for true in right] for event in mine]
                hits = int((maximum_bipartite_matching(csr_matrix(np.array(fits, dtype=np.int8))) >= 0).sum())
            counts[column] += (hits, len(mine) - hits, len(right) - hits)
    return _f1(counts, "event_f1")


def _fits(event: Event, true: Event, collar: float, share: float) -> bool:
    room = max(collar, share * (true.offset - true.onset)) + 1e-9
    return abs(event.onset - true.onset) <= collar + 1e-9 and abs(event.offset - true.offset) <= room


def _f1(counts: npt.NDArray[np.float64], name: str) -> dict[str, float]:
    occurring = counts[counts.sum(1) > 0]
    per_class = 2 * occurring[:, 0] / (2 * occurring[:, 0] + occurring[:, 1] + occurring[:, 2])
    hits, false, missed = counts.sum(0)
    micro = 2 * hits / (2 * hits + false + missed) if len(occurring) else 0.0
    macro = per_class.mean() if len(occurring) else 0.0
    return {f"{name}_macro": 100 * float(macro), f"{name}_micro": 100 * float(micro)}


def _known(found: Found, truth: Found, durations: Mapping[str, float], classes: Sequence[str]) -> Mapping[str, float]:
    for side, events in (("found", found), ("true", truth)):
        strangers = sorted(set(events) - set(durations))
        if strangers:
            raise DataError(f"{side} events of the recording {strangers[0]!r}, whose length is not given")
        labels = {event.label for each in events.values() for event in each} - set(classes)
        if labels:
            raise DataError(f"{side} events of the class {sorted(labels)[0]!r}, which is none of {', '.join(classes)}")
    return durations


def _area(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], max_x: float | None = None, decreasing_y: bool = False
) -> float:
    """Area under a curve of steps up to ``max_x``; ``y`` may fall, as penalised rates do."""
    end = float(x.max()) if max_x is None else float(max_x)
    before = x < end
    return float((y[before] * np.diff(np.append(x[before], end))).sum())


def psds(
    probabilities: Mapping[str, Scores],
    truth: Found,
    durations: Mapping[str, float],
    classes: Sequence[str],
    *,
    thresholds: int = 50,
    median: int = 7,
    hop: float = 0.04,
) -> dict[str, float]:
    """Polyphonic sound detection scores of DCASE task 4's two scenarios, in per cent.

    Args:
        probabilities: By recording, ``(times, C)``.
        truth: True events by recording.
        durations: Length of each recording in seconds; these recordings are judged.
        classes: Names of the classes.
        thresholds: Operating points, evenly in (0, 1).
        median: See :func:`events_of`.
        hop: See :func:`events_of`.

    Returns:
        ``psds1`` and ``psds2``; see :data:`PSDS_SETTINGS`. Classes without a true event are left out.

    Raises:
        MissingDependency: if ``psds_eval`` is not installed.
        DataError: if there is no true event, or one has a class or recording that is not known.

    Reference:
        Bilen et al., A Framework for the Robust Evaluation of Sound Event Detection, arXiv:1910.08440.
    """
    try:
        import pandas as pd  # noqa: PLC0415  an extra
        from psds_eval import PSDSEval  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependency("PSDS needs psds_eval: pip install 'limbeck-audiovideo[sed]'") from error
    if not any(truth.values()):
        raise DataError("PSDS needs at least one true event")
    _known({}, truth, durations, classes)
    occurring = [label for label in classes if any(e.label == label for each in truth.values() for e in each)]

    class Judge(PSDSEval):  # type: ignore[misc]  # untyped
        """The library's, where two of its steps ask pandas and NumPy for what newer versions dropped."""

        step_curve = staticmethod(_steps)
        _auc = staticmethod(_area)

    columns = ["filename", "onset", "offset", "event_label"]

    def frame(events: Found) -> Any:
        rows = [(name, e.onset, e.offset, e.label) for name, each in events.items() for e in _joined(each)]
        return pd.DataFrame(rows, columns=columns)

    right = frame(truth)
    lengths = pd.DataFrame({"filename": list(durations), "duration": list(durations.values())})
    steps = np.arange(1 / (2 * thresholds), 1, 1 / thresholds)
    smooth = {name: smoothed(values, median) for name, values in probabilities.items()}
    points = {}
    for step in steps:
        events = {
            name: [e for e in events_of(v, classes, threshold=float(step), median=1, hop=hop) if e.label in occurring]
            for name, v in smooth.items()
        }
        points[tuple((n, e) for n, each in events.items() for e in each)] = frame(
            {n: [Event(e.onset, min(e.offset, durations[n]), e.label) for e in each] for n, each in events.items()}
        )
    scores = {}
    for name, s in PSDS_SETTINGS.items():
        judge = Judge(
            dtc_threshold=s["dtc"], gtc_threshold=s["gtc"], cttc_threshold=0.3, ground_truth=right, metadata=lengths,
            class_names=occurring,
        )  # fmt: skip
        for table in points.values():  # each table once: the library warns of equal ones
            judge.add_operating_point(table)
        found = judge.psds(alpha_ct=s["alpha_ct"], alpha_st=s["alpha_st"], max_efpr=100)
        scores[name] = 100 * float(found.value)
    return scores


def _steps(x: Scores, known: Scores, values: Scores) -> Scores:
    """Steps through the points (known, values), never downwards, at every x; zero before the first point."""
    order = np.lexsort((values, known))
    heights = np.maximum.accumulate(values[order])
    place = np.searchsorted(known[order], x, side="right")
    steps: Scores = np.where(place > 0, heights[np.maximum(place - 1, 0)], 0.0)
    return steps


def _joined(events: Sequence[Event]) -> list[Event]:
    """Events with those of one class that overlap joined, since the library refuses them."""
    joined: list[Event] = []
    for event in sorted(events, key=lambda e: (e.label, e.onset)):
        last = joined[-1] if joined else None
        if last is not None and last.label == event.label and event.onset <= last.offset:
            joined[-1] = Event(last.onset, max(last.offset, event.offset), event.label)
        elif event.offset > event.onset:
            joined.append(event)
    return joined
