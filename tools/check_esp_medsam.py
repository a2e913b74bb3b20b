"""Measure ESP-MedSAM's stages on rendered blobs and rings: what a controller adds, and what a wrong one costs.

    python tools/check_esp_medsam.py --seeds 0 1 2

A small SAM learns from masks, TinyViT imitates its embedding on both modalities at once (stage A), then one controller
a modality does (stage C). Printed for each seed, on pictures that none was trained on: the squared difference of
embeddings in per cent of their variance, and Dice through the teacher's decoder. The controls are the other modality's
controller and the other modality's query. Choose a rate on other pictures: --pictures 98.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from limbeck_core import Distiller, Match
from limbeck_core.losses import HintLoss
from limbeck_medical.esp_medsam import ESPMedSAM, SAMImageEncoder, SelfPromptingCall, SelfPromptingLoss, TinyViTEncoder

SIZE, WIDTH, BATCH = 64, 32, 8


def draw(modality: int, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return pictures ``(N, 3, 64, 64)`` and masks ``(N, 1, 64, 64)``: bright blobs, or dark rings."""
    axis = torch.arange(SIZE, dtype=torch.float32)
    centre = 16 + 32 * torch.rand(number, 2, 1, 1, generator=generator)
    radius = 8 + 8 * torch.rand(number, 1, 1, generator=generator)
    distance = ((axis[:, None] - centre[:, 0]) ** 2 + (axis - centre[:, 1]) ** 2).sqrt()
    inside = (distance < radius) if modality == 0 else ((distance < radius) & (distance > radius - 7))
    picture = torch.where(inside, 1.0, -1.0) * (1.0 if modality == 0 else -1.0)
    picture = picture + 0.3 * torch.randn(number, SIZE, SIZE, generator=generator)
    return picture[:, None].repeat(1, 3, 1, 1), inside[:, None].long()


def batches(modalities: tuple[int, ...], steps: int, generator: torch.Generator) -> Iterator[dict[str, Tensor]]:
    """Yield mixed batches with ``inputs``, ``targets`` and ``modality``."""
    share = BATCH // len(modalities)
    for _ in range(steps):
        parts = [draw(modality, share, generator) for modality in modalities]
        yield {
            "inputs": torch.cat([pictures for pictures, _ in parts]),
            "targets": torch.cat([masks for _, masks in parts]),
            "modality": torch.tensor(modalities).repeat_interleave(share),
        }


def fit(distiller: Distiller, rate: float, data: Iterator[dict[str, Tensor]]) -> None:
    """Train by Adam."""
    distiller.train()
    optimizer = torch.optim.Adam([p for p in distiller.parameters() if p.requires_grad], lr=rate)
    for batch in data:
        optimizer.zero_grad()
        torch.stack(list(distiller(batch).values())).sum().backward()
        optimizer.step()


def imitate(student: nn.Module, teacher: nn.Module) -> Distiller:
    """Compare the embeddings of two encoders."""
    match = Match(HintLoss(), student="", teacher="")
    return Distiller(student, teacher, {"embedding": match}, call=SelfPromptingCall())


@torch.no_grad()
def distance(student: nn.Module, teacher: nn.Module, data: dict[str, Tensor]) -> float:
    """Return the squared difference of embeddings in per cent of the variance of the teacher's."""
    wanted = teacher(data["inputs"], data["modality"])
    found = student(data["inputs"], data["modality"])
    return 100 * float((found - wanted).square().mean() / wanted.var())


@torch.no_grad()
def dice(model: ESPMedSAM, data: dict[str, Tensor], modality: int) -> float:
    """Return Dice in per cent under the query of a modality."""
    predicted = model.eval()(data["inputs"], modality)["masks"] > 0
    overlap = (predicted & data["targets"].bool()).sum((1, 2, 3))
    return 100 * float((2 * overlap / (predicted.sum((1, 2, 3)) + data["targets"].sum((1, 2, 3)))).mean())


@torch.no_grad()
def other_query(model: ESPMedSAM, data: dict[str, Tensor]) -> float:
    """Return Dice under the other modality's query, on the embedding of the right one."""
    changed = copy.deepcopy(model)
    changed.mask_query.weight[[0, 1]] = changed.mask_query.weight[[1, 0]].clone()
    return dice(changed, data, int(data["modality"][0]))


def measure(seed: int, steps: int, rate: float, held_out: int) -> list[dict[str, float]]:
    """Run the stages; return what was measured of each modality."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    encoder = SAMImageEncoder(
        image_size=SIZE, dim=48, depth=4, heads=4, global_blocks=(1, 3), window=3, embed_dim=WIDTH, controllers=2
    )
    teacher = ESPMedSAM(encoder, modalities=2, heads=4, hidden=64)
    supervised = Distiller(teacher, None, task_loss=SelfPromptingLoss(), call=SelfPromptingCall())
    fit(supervised, 1e-3, batches((0, 1), 3 * steps, generator))
    teacher.eval()
    tiny = {"image_size": SIZE, "dims": (16, 16, 16, 32), "depths": (1, 1, 1, 1), "heads": (2, 2, 4)}
    aggregator = TinyViTEncoder(**tiny, embed_dim=WIDTH)
    fit(imitate(aggregator, encoder), 2e-3, batches((0, 1), steps, generator))
    controlled = []
    for modality in (0, 1):
        student = TinyViTEncoder(**tiny, embed_dim=WIDTH, controllers=1, controllers_only=True)
        student.load_state_dict(aggregator.state_dict(), strict=False)
        fit(imitate(student, encoder), rate, batches((modality,), steps, generator))
        controlled.append(student.eval())
    aggregator.eval()
    rows = []
    for modality in (0, 1):
        pictures, masks = draw(modality, 64, torch.Generator().manual_seed(held_out))
        data = {"inputs": pictures, "targets": masks, "modality": torch.full((64,), modality)}
        row = {"teacher_dice": dice(teacher, data, modality), "teacher_dice_other_query": other_query(teacher, data)}
        for name, student in (
            ("without", aggregator),
            ("own", controlled[modality]),
            ("other", controlled[1 - modality]),
        ):
            row[f"distance_{name}"] = distance(student, encoder, data)
            whole = copy.deepcopy(teacher)
            whole.image_encoder = student
            row[f"dice_{name}"] = dice(whole, data, modality)
        rows.append(row)
    return rows


def main() -> None:
    """Print a line a seed and modality, and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rate", type=float, default=8e-3, help="learning rate of the controllers")
    parser.add_argument("--pictures", type=int, default=99, help="seed of the held-out pictures")
    options = parser.parse_args()
    rows: list[list[dict[str, float]]] = []
    for seed in options.seeds:
        rows.append(measure(seed, options.steps, options.rate, options.pictures))
        for modality, row in enumerate(rows[-1]):
            print(f"seed {seed} modality {modality}:", *(f"{k} {v:.1f}" for k, v in row.items()), flush=True)
    for modality in (0, 1):
        for key in rows[0][modality]:
            values = [found[modality][key] for found in rows]
            print(f"modality {modality} {key}: {statistics.fmean(values):.1f} ({min(values):.1f} to {max(values):.1f})")


if __name__ == "__main__":
    main()
