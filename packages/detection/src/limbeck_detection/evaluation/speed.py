"""How fast a detector is: latency of one image and throughput of a batch, from pixels to boxes."""

from __future__ import annotations

import platform
import statistics
import time
from dataclasses import dataclass

import torch
from torch import nn

from limbeck_core.calls import Call


@dataclass(frozen=True)
class Speed:
    """What was measured.

    Args:
        latency: Median milliseconds of a batch of one.
        throughput: Images a second in batches of ``batch``.
        batch: That batch size.
        size: Height and width of the images in pixels.
        parameters: Number of parameters.
        where: Processor or accelerator, threads and PyTorch.
    """

    latency: float
    throughput: float
    batch: int
    size: int
    parameters: int
    where: str

    def text(self) -> str:
        """The card in words."""
        return (
            f"{self.parameters:,} parameters, images of {self.size} x {self.size}: {self.latency:.1f} ms an image "
            f"alone, {self.throughput:.1f} images a second in batches of {self.batch} ({self.where})"
        )


@torch.no_grad()
def measure_speed(
    model: nn.Module, call: Call, *, size: int = 640, batch: int = 8, seconds: float = 2.0, view: str = "inputs"
) -> Speed:
    """Run a detector on random images where its weights are, boxes included, until the time is over.

    Args:
        model: The detector; it is put into evaluation mode.
        call: How it is called.
        size: Height and width of the images in pixels.
        batch: Batch size of the throughput.
        seconds: Time for each of the two measurements; three runs at least.
        view: Field of the batch that the detector takes.
    """
    model.eval()
    device = next(model.parameters()).device
    latency = statistics.median(_times(model, call, torch.rand(1, 3, size, size, device=device), seconds, view))
    whole = statistics.median(_times(model, call, torch.rand(batch, 3, size, size, device=device), seconds, view))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    where = f"{name}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Speed(1000 * latency, batch / whole, batch, size, parameters, where)


def _times(model: nn.Module, call: Call, images: torch.Tensor, seconds: float, view: str) -> list[float]:
    def run() -> float:
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        start = time.perf_counter()
        call.predict(model, {view: images}, view)
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        return time.perf_counter() - start

    run()  # the first one allocates
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        times.append(run())
    return times
