"""What a frozen encoder knows of classes, inside a run, and pictures of where it looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor
from torch.nn.functional import normalize

from limbeck_core.errors import DataError, ShapeError
from limbeck_core.probes import linear_probe, nearest_neighbours


class CloudProbes(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """Accuracy in per cent of a linear probe (``linear``) and of nearest neighbours (``knn``) on embeddings.

    Embeddings are brought to length 1. Clouds whose ``split`` is ``"train"`` train the probes, those of ``"test"`` are
    judged. ``per_sample`` holds whether each was right, by which ``limbeck compare`` resamples.

    Args:
        neighbours: See :func:`limbeck_core.probes.nearest_neighbours`.
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange embeddings.
        prefix: Put before each key with a slash.
    """

    default_prefix = ""

    def __init__(self, *, neighbours: int = 20, collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.neighbours = neighbours
        self.per_sample: dict[str, list[float]] = {}

    def process(self, data_batch: Mapping[str, Any], data_samples: Tensor | Sequence[Tensor]) -> None:
        """Take one batch.

        Args:
            data_batch: The batch, with ``targets`` and ``split``.
            data_samples: Embeddings, ``(N, D)``.

        Raises:
            DataError: if the batch lacks a field.
            ShapeError: if the embeddings are no vectors.
        """
        for field in ("targets", "split"):
            if field not in data_batch:
                raise DataError(f"probes need {field!r} in the batch, it has {', '.join(data_batch)}")
        embeddings = data_samples if isinstance(data_samples, Tensor) else torch.stack(list(data_samples))
        if embeddings.ndim != 2:
            raise ShapeError(f"probes take embeddings (N, D), got {tuple(embeddings.shape)}")
        rows = zip(data_batch["split"], data_batch["targets"], embeddings.detach().float().cpu(), strict=True)
        self.results += [(split, int(target), row) for split, target, row in rows]

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Train the probes and ask them.

        Raises:
            DataError: if either part is empty.
        """
        parts = {name: [row for row in results if row[0] == name] for name in ("train", "test")}
        for name, rows in parts.items():
            if not rows:
                found = ", ".join(sorted({row[0] for row in results}))
                raise DataError(f"no cloud of the evaluation data is of the part {name!r}; there are: {found}")
        embeddings = {name: normalize(torch.stack([row[2] for row in rows]), dim=1) for name, rows in parts.items()}
        known, truth = (torch.tensor([row[1] for row in parts[name]]) for name in ("train", "test"))
        classes = int(max(known.max(), truth.max())) + 1
        probed = linear_probe(embeddings["train"], known, embeddings["test"], classes=classes).probabilities
        votes = nearest_neighbours(
            embeddings["train"], known, embeddings["test"], neighbours=self.neighbours, classes=classes
        )
        self.per_sample = {
            name: (100.0 * (scores.argmax(1) == truth)).tolist()
            for name, scores in (("linear", probed), ("knn", votes))
        }
        return {name: sum(right) / len(right) for name, right in self.per_sample.items()}


def draw_attention(
    clouds: Sequence[Tensor], importance: Sequence[Tensor], path: str | Path, *, titles: Sequence[str] = ()
) -> Path:
    """Draw clouds side by side, points coloured by how much the encoder looks at them.

    Args:
        clouds: ``(n, 3)`` each.
        importance: ``(n,)`` each; see ``importance`` of the encoders.
        path: Where to; the kind of picture follows from its ending.
        titles: One for each.

    Returns:
        The path.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  a second to import, for pictures only

    figure = Figure(figsize=(2.6 * len(clouds), 2.8), layout="constrained")
    for number, (cloud, weight) in enumerate(zip(clouds, importance, strict=True)):
        axes: Any = figure.add_subplot(1, len(clouds), number + 1, projection="3d")
        x, y, z = cloud.detach().cpu().numpy().T
        axes.scatter(x, y, z, c=weight.detach().cpu().numpy(), s=5, cmap="viridis")
        axes.set_axis_off()
        axes.set_title(titles[number] if number < len(titles) else "", fontsize=8)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path
