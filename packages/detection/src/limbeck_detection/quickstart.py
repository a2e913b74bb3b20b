"""``hatch run quickstart-detection``: D-FINE with and without self-distillation on drawn shapes, in a few minutes.

The package draws the images, the configs ``detection/rendered/*`` train, and the page shows average precision and
boxes; nothing here but the order of the runs and the page.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.engine.commands import train
from limbeck_core.engine.quickstart import command, text_table
from limbeck_core.report import Report, draw_curves, spread
from limbeck_detection.calls import DetectionCall
from limbeck_detection.data import CocoDetection, StretchTo, detection_batch
from limbeck_detection.evaluation import draw_detections, judge_checkpoint
from limbeck_detection.rendered import CLASSES, render

TAUGHT, PLAIN = "with self-distillation", "without (control)"
CONFIGS = {TAUGHT: "detection/rendered/dfine_tiny", PLAIN: "detection/rendered/dfine_tiny_plain"}
FOLDERS = {TAUGHT: "taught", PLAIN: "plain"}
_SHOWN = 6  # images in the picture
_COLUMNS = ("model", "AP", "AP50", "AP75", "layer 1 to last (KL)", "training (s)")


@dataclass
class Trained:
    """What was measured of one arm over its seeds."""

    results: list[dict[str, Any]] = field(default_factory=list)
    curves: list[list[float]] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    parameters: int = 0
    student: nn.Module | None = None

    def over_seeds(self, name: str) -> list[float]:
        """One number a seed; nothing found counts as 0."""
        return [float(result[name] or 0.0) for result in self.results]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the quickstart.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    return command(
        "quickstart-detection",
        "D-FINE with and without self-distillation on drawn shapes.",
        lambda options: run(options.out, seeds=options.seeds, smoke=options.smoke),
        arguments,
    )


def run(out: Path, *, seeds: int = 3, smoke: bool = False) -> Path:
    """Draw, train, judge, print the table and write the report.

    Args:
        out: Folder for data, runs and report.
        seeds: Detectors of each kind.
        smoke: A few images and steps only.

    Returns:
        The path of the page.
    """
    started = time.perf_counter()
    sizes = {"train": 8, "val": _SHOWN} if smoke else {"train": 480, "val": 120}
    data = render(out / "shapes", **sizes)
    found: dict[str, Trained] = {kind: Trained() for kind in CONFIGS}
    for seed in range(seeds):
        for kind, result in found.items():
            _train(result, kind, seed, out, data, smoke)
            ap = result.results[-1]["AP"] or 0.0
            print(f"  {kind}, seed {seed}: AP {ap:.1f} in {result.seconds[-1]:.0f} s", flush=True)
    return _report(found, out, data, seeds, sizes, time.perf_counter() - started)


def _train(result: Trained, kind: str, seed: int, out: Path, data: Path, smoke: bool) -> None:
    overrides: dict[str, Any] = {"+log_level": "ERROR"}  # the table below says what matters
    if smoke:
        overrides |= {"train_cfg.max_steps": 2, "train_cfg.val_interval": 1, "train_dataloader.batch_size": 4}
    folder = out / f"{FOLDERS[kind]}-{seed}"
    start = time.perf_counter()
    runner = train(CONFIGS[kind], work_dir=folder, seed=seed, overrides=overrides, data_root=data)
    result.seconds.append(time.perf_counter() - start)
    curve, _ = runner.message_hub.get_scalar("val/AP").data
    result.curves.append([float(value) for value in curve])
    result.results.append(judge_checkpoint(CONFIGS[kind], folder / "student.pth", data_root=data).result)
    student: nn.Module = runner.model.student
    result.distances.append(distance_of_layers(student, _batch(data, 32)))
    if result.student is None:
        result.student = student.eval()
        result.parameters = sum(p.numel() for p in student.parameters())


def _batch(data: Path, count: int) -> dict[str, Any]:
    images = CocoDetection(data, "val", "val.json", transform=StretchTo(96), truth=True)
    return detection_batch([images[index] for index in range(min(count, len(images)))])


@torch.no_grad()
def distance_of_layers(model: nn.Module, batch: Mapping[str, Any], *, temperature: float = 5.0) -> float:
    r"""How far the edges of the first decoder layer are from the last one's: what self-distillation makes smaller.

    Args:
        model: A D-FINE.
        batch: Its images under ``inputs``.
        temperature: Softness of the distributions, as in training.

    Returns: :math:`\tau^2 \, KL(last \| first)` in nats, the mean over all queries and edges.
    """
    training = model.training
    model.train()  # only then are all layers returned; statistics of BatchNorm are put back below
    state = {name: value.clone() for name, value in model.state_dict().items()}
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.eval()
    outputs = model(batch["inputs"])
    model.load_state_dict(state)
    model.train(training)
    logits = [_edges(outputs["aux_outputs"][0]["pred_corners"]), _edges(outputs["pred_corners"])]
    first, last = ((edges / temperature).log_softmax(-1) for edges in logits)
    return float((last.exp() * (last - first)).sum(-1).mean()) * temperature**2


def _edges(corners: Tensor) -> Tensor:
    return corners.reshape(*corners.shape[:-1], 4, -1).float()


def _report(
    found: Mapping[str, Trained], out: Path, data: Path, seeds: int, sizes: Mapping[str, int], seconds: float
) -> Path:
    rows = [
        [
            kind,
            *(spread(result.over_seeds(name)) for name in ("AP", "AP50", "AP75")),
            spread(result.distances, 3),
            f"{statistics.fmean(result.seconds):.0f}",
        ]
        for kind, result in found.items()
    ]
    print(f"\n{text_table(_COLUMNS, rows)}")
    taught = found[TAUGHT]
    page = Report(
        "D-FINE on drawn shapes",
        "The last decoder layer teaches the earlier ones (GO-LSD), or does not. At this size, and after so few steps, "
        "differences of average precision are those between seeds; what can be seen is the mechanism.",
    )
    page.heading("Numbers").table(
        _COLUMNS,
        rows,
        caption=f"{sizes['val']} drawn validation images; mean ± standard deviation of {seeds} seed(s); "
        f"{taught.parameters:,} parameters each. COCO's average precision in per cent.",
    )
    page.text(
        f"Setting: {sizes['train']} training images of 96 x 96 pixels with circles, squares and triangles among lines "
        "and dots, partly hidden by one another. Both arms have one architecture, the same number of steps and the "
        "same seeds; in the control the weight of `ddf` is 0. Each arm has its own learning rate, the better of the "
        "same two on 80 images held out of the training set, with one seed. Validation images decided nothing."
    )
    page.text(
        "The distance between layers is the divergence from the edges' distributions of the last decoder layer to "
        "those of the first, on validation images: what the method makes smaller, so that shallow layers already say "
        "what deep ones do."
    )
    page.heading("Learning").figure(
        "ap",
        draw_curves({kind: r.curves for kind, r in found.items()}, x_label="validation", y_label="AP (%)"),
        alt="Average precision over the validations of a run, of both arms",
        caption="Thin lines: one seed each. Bold: their mean.",
    )
    batch = _batch(data, _SHOWN)
    titles = {"truth": [{name: mark[name] for name in ("boxes", "labels")} for mark in batch["truth"]]}
    for kind, result in found.items():
        if result.student is not None:
            with torch.no_grad():
                titles[kind] = DetectionCall().predict(result.student, batch, "inputs")
    path = draw_detections(
        list(batch["inputs"]), titles, out / "pictures" / "boxes.png", classes=CLASSES, threshold=0.3
    )
    page.heading("Boxes").figure(
        "boxes",
        path,
        alt="Validation images with true boxes, and below them what each detector of seed 0 finds",
        caption="Seed 0; detections with a score of 0.3 and more.",
    )
    page.heading("Again").code(
        "hatch run quickstart-detection\npython -m limbeck_detection.rendered shapes\n"
        + "\n".join(f"limbeck train {config} --data-root shapes --seed 0" for config in CONFIGS.values())
    )
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    page.text(f"Run on {datetime.now(timezone.utc):%Y-%m-%d}, {machine}, {seconds:.0f} s in all.")
    return page.write(out)


if __name__ == "__main__":
    sys.exit(main())
