"""Measure the parts of PointDistiller on PointPillars against the formula as one would write it down.

    python tools/bench_pointcloud.py                  # about three minutes on one core
    python tools/bench_pointcloud.py --quick          # the same on tiny inputs, in seconds: that it runs
    python tools/bench_pointcloud.py --only voxel,knn --pairs 60
    python tools/bench_pointcloud.py --json points.json

``voxel`` and ``bev`` are the whole distillation loss, forward and backward; ``knn`` the search for neighbours,
``voxelize`` a frame of 120,000 points, ``scatter`` four frames of pillars with their gradient. The plain side gathers
pairs of features, joins them and convolves; searches one matrix of distances with ``topk``; numbers pillars by
``unique``; and writes a map scene by scene. Both sides are held to the same value first. Measured as in
``bench_core.py``: one process, one thread, interleaved pairs, processor time, the median with its 95 % bootstrap
interval; the milliseconds are ours, the best of the pairs. A bar is met when the lower end of the interval is below 1.

The last line is what the search adds to the memory of a process at 20,000 voxels, in chunks and in one matrix (Linux).
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from bench_core import Ratio, interleaved, keep_freed_memory, processor_time, summary
from torch import Tensor, nn

from limbeck_detection.pointdistiller import BEVDistillationLoss, VoxelDistillationLoss, nearest_neighbors
from limbeck_detection.pointpillars import PillarGrid, scatter, voxelize

BAR = 1.0
QUICK_PAIRS = 2
VOXELS, CENTERS = 20_000, 6000
Sides = tuple[Callable[[], Tensor], Callable[[], Tensor]]


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class PlainGraph(nn.Module):
    """Pairs of features, a 1x1 convolution, batch norm, ReLU; with the weights of one of our layers."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        weight: Tensor = layer.get_submodule("linear").weight  # type: ignore[assignment]
        self.conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=False)
        self.conv.weight.data = weight.detach()[..., None, None].clone()
        self.norm = nn.BatchNorm2d(weight.shape[0])

    def forward(self, items: Tensor, centers: Tensor, neighbors: Tensor) -> Tensor:
        """Items ``(B, M, C)``, centres ``(B, n)``, neighbours ``(B, n, k)`` to codes ``(B, C, n, k)``."""
        batch = torch.arange(len(items)).view(-1, 1, 1)
        near = items[batch, neighbors]
        own = items[batch[..., 0], centers].unsqueeze(2).expand_as(near)
        codes: Tensor = torch.relu(self.norm(self.conv(torch.cat((near, own), 3).permute(0, 3, 1, 2))))
        return codes


def plain_search(items: Tensor, centers: Tensor, count: int) -> Tensor:
    """One matrix of squared distances, expanded, and its smallest entries."""
    queries = items.gather(1, centers.unsqueeze(2).expand(-1, -1, items.shape[2]))
    distances = -2 * queries @ items.transpose(1, 2)
    distances = distances + queries.square().sum(2, keepdim=True) + items.square().sum(2).unsqueeze(1)
    return distances.topk(count, dim=2, largest=False, sorted=False).indices


def _step(loss: nn.Module, run: Callable[[], Tensor], student: Tensor) -> Callable[[], Tensor]:
    def step() -> Tensor:
        student.grad = None
        loss.zero_grad()
        value = run()
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()

    return step


def voxel(quick: bool) -> Sides:
    """The loss on pillars."""
    items, centers, count = (300, 40, 8) if quick else (6000, 1000, 32)
    student, teacher = _randn(items, 16).requires_grad_(), _randn(items, 64, seed=1)
    points = torch.randperm(items, generator=torch.Generator().manual_seed(2)) % 32
    loss = VoxelDistillationLoss(16, 64, channels=16, centers=centers, neighbors=count)
    layers = nn.ModuleList([PlainGraph(loss.student_graph), PlainGraph(loss.teacher_graph)])

    def plain() -> Tensor:
        with torch.no_grad():
            chosen = torch.sort(points, descending=True, stable=True).indices[:centers]
            near = plain_search(teacher[None], chosen[None], count)
            weight = (points[chosen] / 5.0).softmax(0) * len(chosen)
        ours, theirs = (layer(x[None], chosen[None], near) for layer, x in zip(layers, (student, teacher), strict=True))
        return (weight.view(1, 1, -1, 1) * (ours - theirs).square()).mean()

    return _step(loss, lambda: loss(student, teacher, points), student), _step(layers, plain, student)


def bev(quick: bool) -> Sides:
    """The loss on maps."""
    size, centers, count = (6, 12, 8) if quick else (32, 256, 32)
    student, teacher = _randn(4, 64, size, size).requires_grad_(), _randn(4, 128, size, size, seed=1)
    loss = BEVDistillationLoss(64, 128, centers=centers, neighbors=count, weighting="uniform")
    layers = nn.ModuleList([PlainGraph(loss.student_graph), PlainGraph(loss.teacher_graph)])

    def plain() -> Tensor:
        rows = [x.flatten(2).transpose(1, 2) for x in (student, teacher)]
        with torch.no_grad():
            chosen = rows[1].amax(2).topk(centers, dim=1).indices
            near = plain_search(rows[1], chosen, count)
        ours, theirs = (layer(x, chosen, near) for layer, x in zip(layers, rows, strict=True))
        return (ours - theirs).square().mean()

    return _step(loss, lambda: loss(student, teacher), student), _step(layers, plain, student)


def knn(quick: bool) -> Sides:
    """Neighbours of 1,000 of 6,000 voxels; compared by the sum of their row numbers."""
    items, centers, count = (300, 40, 8) if quick else (6000, 1000, 32)
    features = _randn(items, 64)
    chosen = torch.arange(0, items, items // centers)[:centers]
    return (
        lambda: nearest_neighbors(features, chosen, count).sum().double(),
        lambda: plain_search(features[None], chosen[None], count).sum().double(),
    )


def frame(points: int) -> Tensor:
    """Points as dense towards the sensor as a lidar's."""
    generator = torch.Generator().manual_seed(0)
    depth = 2 + 68 * torch.rand(points, generator=generator) ** 2
    angle = (torch.rand(points, generator=generator) - 0.5) * 2.0
    height = -1.7 + 2 * torch.rand(points, generator=generator) ** 3
    shine = torch.rand(points, generator=generator)
    return torch.stack((depth * angle.cos(), depth * angle.sin(), height, shine), 1)


def by_hand(points: Tensor, grid: PillarGrid) -> Tensor:
    """Pillars numbered by ``unique``; the first points of each, as ``(M, max_points, 4)``."""
    low, high = torch.tensor(grid.point_range[:3]), torch.tensor(grid.point_range[3:])
    points = points[((points[:, :3] >= low) & (points[:, :3] < high)).all(1)]
    cells = ((points[:, :3] - low) / torch.tensor(grid.pillar_size)).floor().long()
    _, inverse, counts = torch.unique(
        cells[:, 1] * grid.cells[0] + cells[:, 0], return_inverse=True, return_counts=True
    )
    order = inverse.argsort(stable=True)
    inverse, points = inverse[order], points[order]
    rank = torch.arange(len(points)) - (counts.cumsum(0) - counts)[inverse]
    kept = rank < grid.max_points
    pillars = points.new_zeros(len(counts), grid.max_points, points.shape[1])
    pillars[inverse[kept], rank[kept]] = points[kept]
    return pillars


def voxels(quick: bool) -> Sides:
    """Pillars of a frame; compared by the sum of their points. The plain side orders them by place."""
    grid, points = PillarGrid(max_pillars=(10**6, 10**6)), frame(2000 if quick else 120_000)
    return lambda: voxelize([points], grid).points.double().sum(), lambda: by_hand(points, grid).double().sum()


def maps(quick: bool) -> Sides:
    """Maps of four frames, with the gradient of the pillars."""
    height, width, count = (16, 16, 60) if quick else (496, 432, 8000)
    features = _randn(4 * count, 64).requires_grad_()
    generator = torch.Generator().manual_seed(3)
    places = torch.stack([torch.randperm(height * width, generator=generator)[:count] for _ in range(4)])
    scene = torch.arange(4).repeat_interleave(count)
    coords = torch.stack((scene, torch.zeros_like(scene), places.flatten() // width, places.flatten() % width), 1)
    cotangent = _randn(4, 64, height, width, seed=4)

    def ours() -> Tensor:
        return (scatter(features, coords, batch_size=4, map_size=(height, width)) * cotangent).sum()

    def plain() -> Tensor:
        canvases = []
        for number in range(4):
            own = coords[:, 0] == number
            canvas = features.new_zeros(64, height * width)
            canvas[:, coords[own, 2] * width + coords[own, 3]] = features[own].t()
            canvases.append(canvas)
        return (torch.stack(canvases).view(4, 64, height, width) * cotangent).sum()

    nothing = nn.Identity()
    return _step(nothing, ours, features), _step(nothing, plain, features)


PARTS: dict[str, Callable[[bool], Sides]] = {
    "voxel": voxel,
    "bev": bev,
    "knn": knn,
    "voxelize": voxels,
    "scatter": maps,
}


def bench(name: str, pairs: int, quick: bool) -> Ratio:
    """Hold both sides to one value, then compare their times."""
    torch.manual_seed(0)
    ours, plain = PARTS[name](quick)
    torch.testing.assert_close(ours(), plain(), rtol=1e-4, atol=1e-6)
    ratios = interleaved(ours, plain, pairs, 0.0)
    best = min(processor_time(ours, 1) for _ in range(min(pairs, 10)))
    return summary("part", name, ratios, f"{1000 * best:.1f} ms")


def added_memory(chunk_size: int, items: int) -> float:
    """Megabytes that a search adds to the largest memory of a fresh process."""
    code = f"import bench_pointcloud; print(bench_pointcloud.search_memory({chunk_size}, {items}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def search_memory(chunk_size: int, items: int) -> float:
    """What :func:`added_memory` runs: 32 neighbours of each centre. Linux forgets the peak of the imports before."""
    torch.set_num_threads(1)
    features = _randn(items, 64)
    nearest_neighbors(features[:500], torch.arange(100), 32)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _peak()
    nearest_neighbors(features, torch.arange(min(items, CENTERS)), 32, chunk_size=chunk_size)
    return _peak() - before


def _peak() -> float:
    """Largest memory of this process in megabytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return float(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def verdict(row: Ratio, quick: bool) -> str:
    """Whether the bar is met; on tiny inputs nothing."""
    return "" if quick else "ok" if row.low <= BAR else f"SLOWER than the bar {BAR:g}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny inputs and few pairs: only that it runs")
    parser.add_argument("--only", metavar="NAME,...", default=",".join(PARTS), help="these instead of all")
    parser.add_argument("--pairs", metavar="N", type=int, help="pairs a comparison (default: 30; 2 with --quick)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the ratios as JSON too")
    options = parser.parse_args(arguments)
    names = options.only.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)} to measure; there are {', '.join(PARTS)}")
    pairs = options.pairs or (QUICK_PAIRS if options.quick else 30)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.disable()  # a collection would fall on one side of a pair
    rows, words = [], []
    try:
        print(f"processor time; {platform.machine()} CPU, 1 thread, torch {torch.__version__}")
        for name in names:
            gc.collect()
            row = bench(name, pairs, options.quick)
            rows.append(row)
            words.append(verdict(row, options.quick))
            print(f"{row.name:<10} {row.ratio:7.3f}  [{row.low:.3f}, {row.high:.3f}]  {row.note:>9}  {words[-1]}")
    finally:
        gc.enable()
        torch.set_num_threads(threads)
    if not options.quick:
        small, whole = added_memory(256, VOXELS), added_memory(CENTERS, VOXELS)
        print(
            f"neighbours of {CENTERS:,} of {VOXELS:,} voxels add {small:.0f} MB in chunks, {whole:.0f} MB in one matrix"
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    return int(any(word.startswith("SLOWER") for word in words))


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
