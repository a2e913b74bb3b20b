"""Does the last decoder layer teach the earlier ones? RT-DETR of transformers with edge distributions, on drawn shapes.

    python tools/check_refinement.py --steps 300 --seeds 0 1 2

Trains a tiny detector from random weights, with and without the self-distillation term (``ddf``), each seed with the
same first weights, images and order. Prints, on held-out images, the softened divergence of each earlier layer's edge
distributions from the last layer's (T = 5, times 25, mean over queries and edges), which the term lowers where it
works, and the mean IoU of matched boxes of the first and the last layer.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

from limbeck_core.functional import kl_divergence_loss
from limbeck_detection.boxes import box_cxcywh_to_xyxy, paired_iou
from limbeck_detection.dfine import HungarianMatcher
from limbeck_detection.refinement import EdgeRefinement, Refined, RefinementCriterion, refine_transformers
from limbeck_detection.rendered import CLASSES, draw

SIZE, BATCH, QUERIES, TEMPERATURE = 96, 8, 20, 5.0
Labels = list[dict[str, Tensor]]


def detector(seed: int, *, ddf_weight: float) -> Any:
    """RT-DETR with three decoder layers, 280 thousand parameters."""
    torch.manual_seed(seed)
    body = RTDetrResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    width = 32
    config = RTDetrConfig(
        backbone_config=body,
        freeze_backbone_batch_norms=False,
        num_labels=len(CLASSES),
        encoder_in_channels=[32, 48, 64],
        encoder_hidden_dim=width,
        encoder_ffn_dim=2 * width,
        encoder_attention_heads=4,
        hidden_expansion=0.5,
        d_model=width,
        decoder_in_channels=[width] * 3,
        decoder_ffn_dim=2 * width,
        decoder_attention_heads=4,
        decoder_layers=3,
        num_queries=QUERIES,
        num_denoising=16,
    )
    return refine_transformers(RTDetrForObjectDetection(config), RefinementCriterion(ddf_weight=ddf_weight))


def pictures(count: int, seed: int) -> tuple[Tensor, Labels]:
    """Drawn images in [0, 1] and their boxes in units of the image."""
    images, labels = [], []
    for number in range(count):
        picture, marks = draw(np.random.default_rng([seed, number]), SIZE)
        images.append(torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255)
        corners = torch.tensor([mark["bbox"] for mark in marks]).float().reshape(-1, 4) / SIZE
        boxes = torch.cat([corners[:, :2] + corners[:, 2:] / 2, corners[:, 2:]], dim=1)
        labels.append({"class_labels": torch.tensor([mark["category_id"] - 1 for mark in marks]), "boxes": boxes})
    return torch.stack(images), labels


def train(model: Any, images: Tensor, labels: Labels, *, steps: int, lr: float, seed: int) -> None:
    """AdamW with 50 steps of warm-up and gradients clipped at 0.1."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-4)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / 50, total_iters=50)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # of the denoising queries
    for _ in range(steps):
        index = torch.randint(len(images), (BATCH,), generator=generator).tolist()
        loss = model(pixel_values=images[index], labels=[labels[i] for i in index]).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        warmup.step()


@torch.no_grad()
def judge(model: Any, images: Tensor, labels: Labels) -> dict[str, float]:
    """Divergence of each earlier layer from the last, and IoU of matched boxes of the first and the last layer."""
    model.eval()
    seen: list[Refined] = []
    handle = model.refinement.result.register_forward_hook(lambda module, args, output: seen.append(output))
    output = model(pixel_values=images)
    handle.remove()
    refinement: EdgeRefinement = model.refinement
    bins = refinement.reg_max + 1
    corners = [layer.reshape(-1, bins) for layer in seen[0].corners]
    found = {
        f"divergence {i}": kl_divergence_loss(layer, corners[-1], temperature=TEMPERATURE).item()
        for i, layer in enumerate(corners[:-1])
    }
    targets = [{"labels": label["class_labels"], "boxes": label["boxes"]} for label in labels]
    for name, layer in (("IoU first", 0), ("IoU last", -1)):
        boxes = seen[0].boxes[layer]
        pairs = HungarianMatcher()({"pred_logits": output.intermediate_logits[:, layer], "pred_boxes": boxes}, targets)
        overlaps = [
            paired_iou(box_cxcywh_to_xyxy(boxes[i][p.queries]), box_cxcywh_to_xyxy(targets[i]["boxes"][p.targets]))
            for i, p in enumerate(pairs)
        ]
        found[name] = torch.cat(overlaps).mean().item()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, train, and print one line a run and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--images", type=int, default=480, help="training images (default: 480)")
    options = parser.parse_args(arguments)
    images, labels = pictures(options.images, seed=1)
    held_out = pictures(64, seed=2)
    means: dict[str, list[dict[str, float]]] = {}
    for seed in options.seeds:
        for arm, weight in (("without ddf", 0.0), ("with ddf", 1.5)):
            start = time.perf_counter()
            model = detector(seed, ddf_weight=weight)
            train(model, images, labels, steps=options.steps, lr=options.lr, seed=seed)
            found = judge(model, *held_out)
            means.setdefault(arm, []).append(found)
            figures = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
            print(f"seed {seed}, {arm}: {figures} ({time.perf_counter() - start:.0f} s)", flush=True)
    for arm, runs in means.items():
        figures = ", ".join(f"{name} {sum(run[name] for run in runs) / len(runs):.4f}" for name in runs[0])
        print(f"mean of {len(runs)}, {arm}: {figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
