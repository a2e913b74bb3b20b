"""Measure D-FINE against the D-FINE of transformers, with the same weights, and COCO's evaluation at full size.

    python tools/bench_detection.py               # some ten minutes on one core
    python tools/bench_detection.py --quick       # tiny images and few pairs, in seconds: that it runs
    python tools/bench_detection.py --pairs 20 --only inference

A ratio is our time over transformers' (below 1 is faster): of D-FINE-S at 640 x 640 in evaluation, of a training step
(forward, all losses with denoising queries, backward), and of the losses alone, forward and backward, at 4 images x 300
queries x 6 layers. Before anything is timed both models are held to the same detections. Measured as in
``bench_core.py``: one process, one thread, interleaved pairs, processor time, the median with its 95 % bootstrap
interval. The evaluation is of 5,000 images with 100 detections each: seconds, and mebibytes at the most.
"""

from __future__ import annotations

import argparse
import gc
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from bench_core import interleaved, keep_freed_memory, summary
from torch import Tensor, nn
from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config

from limbeck_detection.dfine import DFINECriterion, dfine_s
from limbeck_detection.dfine.checkpoints import load_dfine
from limbeck_detection.evaluation import average_precision

CLASSES, BOXES = 80, 7
QUICK_PAIRS = 2
Run = Callable[[], object]


def twins(layers: int) -> tuple[nn.Module, DFineForObjectDetection]:
    """Ours and theirs, D-FINE-S with the same weights; the number of decoder layers is free."""
    backbone = HGNetV2Config(
        stem_channels=[3, 16, 16],
        stage_in_channels=[16, 64, 256, 512],
        stage_mid_channels=[16, 32, 64, 128],
        stage_out_channels=[64, 256, 512, 1024],
        stage_num_blocks=[1, 1, 2, 1],
        stage_numb_of_layers=[3, 3, 3, 3],
        hidden_sizes=[64, 256, 512, 1024],
        depths=[1, 1, 2, 1],
        use_learnable_affine_block=True,
        out_indices=[2, 3, 4],
    )
    config = DFineConfig(
        backbone_config=backbone,
        encoder_in_channels=[256, 512, 1024],
        hidden_expansion=0.5,
        depth_mult=0.34,
        decoder_layers=layers,
        num_labels=CLASSES,
    )
    torch.manual_seed(0)
    theirs = DFineForObjectDetection(config)
    ours = dfine_s(CLASSES, layers=layers)
    load_dfine(ours, theirs.state_dict())
    return ours, theirs


def make_targets(batch: int) -> list[dict[str, Tensor]]:
    """Labels and boxes (cx, cy, w, h in [0, 1]) of every image."""
    torch.manual_seed(1)
    return [
        {"labels": torch.randint(CLASSES, (BOXES,)), "boxes": torch.rand(BOXES, 4) * 0.4 + 0.1} for _ in range(batch)
    ]


def in_their_words(targets: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The same targets under the names of transformers."""
    return [{"class_labels": target["labels"], "boxes": target["boxes"]} for target in targets]


def inference(size: int, batch: int) -> tuple[str, Run, Run]:
    """Detection in evaluation mode."""
    ours, theirs = twins(3)
    ours.eval()
    theirs.eval()
    images = torch.rand(batch, 3, size, size)
    with torch.no_grad():
        mine, other = ours(images), theirs(images)
    torch.testing.assert_close(mine["pred_logits"], other.logits, atol=1e-3, rtol=0)

    def run_ours() -> object:
        with torch.no_grad():
            return ours(images)

    def run_theirs() -> object:
        with torch.no_grad():
            return theirs(images)

    return f"inference, {size} x {size}, batch {batch}", run_ours, run_theirs


def training(size: int, batch: int) -> tuple[str, Run, Run]:
    """Forward with denoising queries, all losses, backward."""
    ours, theirs = twins(3)
    ours.train()
    theirs.train()
    images, targets, criterion = torch.rand(batch, 3, size, size), make_targets(batch), DFINECriterion()
    labels = in_their_words(targets)

    def run_ours() -> object:
        ours.zero_grad()
        losses = criterion(ours(images, targets), targets)
        torch.stack(list(losses.values())).sum().backward()
        return losses

    def run_theirs() -> object:
        theirs.zero_grad()
        output = theirs(images, labels=labels)
        output.loss.backward()
        return output

    return f"training step, {size} x {size}, batch {batch}", run_ours, run_theirs


def losses(size: int, batch: int) -> tuple[str, Run, Run]:
    """The losses alone, on what the models gave; gradients to their outputs."""
    ours, theirs = twins(6)
    images, targets, criterion = torch.rand(batch, 3, size, size), make_targets(batch), DFINECriterion()
    outputs = _leaves(ours.train()(images, targets))
    caught: list[tuple[Any, Any]] = []
    function = theirs.loss_function

    def catch(*arguments: Any, **named: Any) -> Any:
        caught.append((arguments, named))
        return function(*arguments, **named)

    theirs.loss_function = catch
    theirs.train()(images, labels=in_their_words(targets))
    arguments, named = caught[0]
    arguments, named = _leaves(list(arguments)), _leaves(named)

    def run_ours() -> object:
        return torch.stack(list(criterion(outputs, targets).values())).sum().backward()

    def run_theirs() -> object:
        return function(*arguments, **named)[0].backward()

    return f"losses, {batch} images x 300 queries x 6 layers, {BOXES} boxes each", run_ours, run_theirs


def _leaves(value: Any) -> Any:
    """The same with every floating-point tensor cut off from its graph and waiting for a gradient."""
    if isinstance(value, Tensor):
        return value.detach().requires_grad_(value.is_floating_point())
    if isinstance(value, dict) and "class_labels" in value:
        return value  # the truth, which nothing is differentiated by
    if isinstance(value, dict):
        return {name: _leaves(item) for name, item in value.items()}
    return [_leaves(item) for item in value] if isinstance(value, (list, tuple)) else value


def evaluation(images: int, found: int) -> str:
    """Seconds and peak memory of COCO's numbers."""
    generator = torch.Generator().manual_seed(0)
    marks, rows = [], []
    for image in range(1, images + 1):
        truth = torch.rand(BOXES, 4, generator=generator) * 300 + 20
        labels = torch.randint(CLASSES, (BOXES,), generator=generator)
        pairs = zip(truth.tolist(), labels.tolist(), strict=True)
        marks += [{"image_id": image, "category_id": label, "bbox": box} for box, label in pairs]
        chosen = torch.randint(BOXES, (found,), generator=generator)
        boxes = truth[chosen] + torch.randn(found, 4, generator=generator) * 6
        scores = torch.rand(found, generator=generator)
        triples = zip(boxes.clamp(min=1).tolist(), labels[chosen].tolist(), scores.tolist(), strict=True)
        rows += [{"image_id": image, "category_id": label, "bbox": b, "score": s} for b, label, s in triples]
    truth_file = {
        "images": [
            {"id": image, "width": 640, "height": 640, "file_name": str(image)} for image in range(1, images + 1)
        ],
        "categories": [{"id": label, "name": str(label)} for label in range(CLASSES)],
        "annotations": marks,
    }
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    average_precision(truth_file, rows)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    more = (after - before) / 1024
    return f"COCO evaluation, {images} images x {found} detections: {seconds:.1f} s, {more:.0f} MiB more"


CASES = {"inference": (inference, 640, 1), "training": (training, 640, 2), "losses": (losses, 320, 4)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny images and few pairs: only that it runs")
    parser.add_argument("--pairs", metavar="N", type=int, help="pairs a comparison (default: 12; 2 with --quick)")
    parser.add_argument("--only", nargs="+", choices=(*CASES, "evaluation"), help="which (default: all)")
    options = parser.parse_args(arguments)
    pairs = options.pairs or (QUICK_PAIRS if options.quick else 12)
    chosen = options.only or (*CASES, "evaluation")
    keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.disable()  # a collection would fall on one side of a pair
    try:
        print(f"ours over transformers', processor time; {platform.machine()} CPU, 1 thread, torch {torch.__version__}")
        if "evaluation" in chosen:  # first, while little memory is taken
            print(evaluation(50 if options.quick else 5000, 100), flush=True)
        for name in [name for name in CASES if name in chosen]:
            make, size, batch = CASES[name]
            title, ours, theirs = make(160 if options.quick else size, batch)
            row = summary("detection", title, interleaved(ours, theirs, pairs, 0.0))
            print(f"{row.name:<60} {row.ratio:7.3f}  [{row.low:.3f}, {row.high:.3f}]  {row.pairs:3d}", flush=True)
            gc.collect()
    finally:
        gc.enable()
        torch.set_num_threads(threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
