"""How well scores tell outliers from texts of the kind a model has learnt from, with pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from mmengine.evaluator import BaseMetric
from scipy.stats import rankdata
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score, roc_curve
from torch import Tensor

from limbeck_core.checks import check_between
from limbeck_core.errors import DataError, ShapeError, closest
from limbeck_nlp.ood.scoring import log_perplexity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scores = npt.NDArray[np.float64]
INSIDE, OUTSIDE = "#0072B2", "#D55E00"


def evaluate(scores: npt.ArrayLike, outliers: npt.ArrayLike) -> dict[str, float]:
    """Judge scores of which the higher ones should be outliers.

    Only their order matters, so infinite scores are welcome.

    Args:
        scores: One score a text, shape ``(N,)``; none is NaN.
        outliers: Whether each text is an outlier, shape ``(N,)``.

    Returns:
        In per cent, outliers being the positive ones: ``auroc``; ``aupr``, the area under precision over recall by the
        trapezoid rule; ``fpr95``, see :func:`false_alarms`. And the numbers of texts, ``inside`` and ``outside``.

    Raises:
        ShapeError: if the shapes differ or are no rows.
        DataError: if a score is NaN, or one of the two kinds is missing.
    """
    values, flags = _checked(scores, outliers)
    ranks = rankdata(values, method="dense")  # scikit-learn refuses infinity
    precision, recall, _ = precision_recall_curve(flags, ranks)
    return {
        "auroc": 100.0 * float(roc_auc_score(flags, ranks)),
        "aupr": 100.0 * float(auc(recall, precision)),
        "fpr95": false_alarms(values, flags),
        "inside": int((~flags).sum()),
        "outside": int(flags.sum()),
    }


def false_alarms(scores: npt.ArrayLike, outliers: npt.ArrayLike, *, found: float = 0.95) -> float:
    """Return the share of texts inside that are taken for outliers where so many outliers are found, in per cent.

    The threshold is the highest score at which at least that share of outliers is found; with n outliers, the
    ``floor((1 - found) n)``-th smallest of their scores, counted from 0, as in the released code of MLKD. A text with
    the very score of the threshold counts as found, inside and outside alike (there, it does not count inside).

    Args:
        scores: See :func:`evaluate`.
        outliers: See there.
        found: Share of outliers to find, above 0.

    Raises:
        ValueError: if ``found`` is no share.
        ShapeError: as :func:`evaluate`.
        DataError: likewise.
    """
    check_between(found, "found", 0.0, 1.0)
    values, flags = _checked(scores, outliers)
    outside = np.sort(values[flags])
    position = min(int((1.0 - found) * len(outside) + 1e-9), len(outside) - 1)
    return 100.0 * float((values[~flags] >= outside[position]).mean())


def _checked(scores: npt.ArrayLike, outliers: npt.ArrayLike) -> tuple[Scores, npt.NDArray[np.bool_]]:
    values, flags = np.asarray(scores, dtype=np.float64), np.asarray(outliers).astype(bool)
    if values.ndim != 1 or values.shape != flags.shape:
        raise ShapeError(f"scores and outliers must be rows of one length, got {values.shape} and {flags.shape}")
    if np.isnan(values).any():
        raise DataError(
            f"{int(np.isnan(values).sum())} of {len(values)} scores are NaN: give texts without a score infinity"
        )
    if flags.all() or not flags.any():
        raise DataError(
            f"both kinds of texts are needed, got {int((~flags).sum())} inside and {int(flags.sum())} outside: use the "
            "test part with its outliers"
        )
    return values, flags


class OodMetric(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """Outliers by the perplexity of a language model, in MMEngine's evaluator.

    Keys: those of :func:`evaluate`, and ``nll``, the mean log-perplexity of the texts inside, in nats a token.

    Args:
        results: Write the scores there, one JSON object a line: ``id``, ``score`` (log-perplexity) and ``outlier``.
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange scores.
        prefix: Put before each key with a slash.
    """

    default_prefix = ""

    def __init__(
        self, *, results: str | Path | None = None, collect_device: str = "cpu", prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.path = None if results is None else Path(results)

    def process(self, data_batch: Mapping[str, Any], data_samples: Tensor | Sequence[Tensor]) -> None:
        """Take one batch.

        Args:
            data_batch: The batch with ``targets`` ``(N, L)``, already shifted, ``outlier`` ``(N,)`` and ``ids``.
            data_samples: Logits ``(N, L, V)``, or N of ``(L, V)``.

        Raises:
            DataError: if the batch lacks one of them.
            ShapeError: if the shapes do not fit.
        """
        for name in ("targets", "outlier", "ids"):
            if name not in data_batch:
                raise DataError(
                    f"evaluation needs {name!r} in the batch, it has {', '.join(data_batch)}: "
                    "use limbeck_nlp.ood's data"
                )
        logits = data_samples if isinstance(data_samples, Tensor) else torch.stack(list(data_samples))
        scores = log_perplexity(logits, torch.as_tensor(data_batch["targets"]).to(logits.device)).tolist()
        flags = torch.as_tensor(data_batch["outlier"]).bool().tolist()
        self.results.extend(zip(torch.as_tensor(data_batch["ids"]).tolist(), scores, flags, strict=True))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Return the measures of all texts, and write their scores."""
        ids, scores, flags = (list(column) for column in zip(*results, strict=True))
        if self.path is not None:
            write_scores(self.path, scores, flags, ids)
        inside = [score for score, flag in zip(scores, flags, strict=True) if not flag and np.isfinite(score)]
        return {**evaluate(scores, flags), "nll": float(np.mean(inside)) if inside else 0.0}


def write_scores(
    path: Path, scores: Sequence[float], outliers: Sequence[bool], ids: Sequence[int] | None = None
) -> None:
    """Write scores, one JSON object a line; infinity as the word ``"inf"``, which JSON has no number for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = range(len(scores)) if ids is None else ids
    lines = [
        json.dumps({"id": int(i), "score": float(s) if np.isfinite(s) else str(float(s)), "outlier": bool(o)})
        for i, s, o in zip(names, scores, outliers, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_scores(path: Path) -> tuple[Scores, npt.NDArray[np.bool_]]:
    """Read scores of anyone: one JSON object a line with ``score`` and ``outlier`` (true or false, or 1 or 0).

    Raises:
        DataError: if the file is missing or a line is damaged, with its number.
    """
    if not path.is_file():
        siblings = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
        raise DataError(f"there is no file {path}; of {path.parent}, {closest(path.name, siblings)}")
    scores: list[float] = []
    flags: list[bool] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            scores.append(float(entry["score"]))
            flag = entry["outlier"]
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}, line {number}: expected an object with 'score' and 'outlier', {error}") from error
        if flag not in (0, 1):
            raise DataError(f"{path}, line {number}: outlier must be true or false, got {flag!r}")
        flags.append(bool(flag))
    return np.asarray(scores, dtype=np.float64), np.asarray(flags, dtype=bool)


def draw_scores(scores: npt.ArrayLike, outliers: npt.ArrayLike, *, bins: int = 40) -> Figure:
    """Draw the scores of texts inside and outside as two histograms, each of area one; infinite ones in the last bin.

    Args:
        scores: See :func:`evaluate`; log-perplexities are easier to see than perplexities.
        outliers: See there.
        bins: Number of bins.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  loaded only where pictures are made

    values, flags = _checked(scores, outliers)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    values = np.clip(values, low, high)
    figure = Figure(figsize=(7.2, 4.2))
    axes = figure.subplots()
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    for name, kind, colour in (("inside", ~flags, INSIDE), ("outliers", flags, OUTSIDE)):
        axes.hist(
            values[kind], bins=edges.tolist(), density=True, alpha=0.55, color=colour, label=f"{name} ({kind.sum()})"
        )
    axes.set(xlabel="score (log-perplexity: nats a token)", ylabel="density")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return figure


def draw_roc(runs: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]) -> Figure:
    """Draw outliers found over false alarms.

    Args:
        runs: By name, scores and outliers as in :func:`evaluate`.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(4.8, 4.6))
    axes = figure.subplots()
    colours = (INSIDE, OUTSIDE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
    for index, (name, (scores, outliers)) in enumerate(runs.items()):
        values, flags = _checked(scores, outliers)
        alarms, found, _ = roc_curve(flags, rankdata(values, method="dense"))
        label = f"{name} ({evaluate(values, flags)['auroc']:.1f})"
        axes.plot(100 * alarms, 100 * found, color=colours[index % len(colours)], linewidth=1.8, label=label)
    axes.plot([0, 100], [0, 100], color="#999999", linewidth=0.8, linestyle="--")
    axes.set(xlabel="texts inside taken for outliers (%)", ylabel="outliers found (%)", aspect="equal")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower right", title="AUROC (%)")
    return figure
