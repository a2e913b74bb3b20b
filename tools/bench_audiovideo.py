"""Measure the audio front end against librosa, and ATST's views and step in batches against one clip at a time.

    python tools/bench_audiovideo.py                 # a few minutes on one core
    python tools/bench_audiovideo.py --quick         # the same on short clips, in seconds: that it runs
    python tools/bench_audiovideo.py --pairs 60 --json result.json

A ratio is limbeck's time over the other's, so that less than 1 is a gain. Both sides give the same numbers. Measured as
in ``bench_core.py``: one process, one thread, interleaved pairs, processor time, the median with its 95 % bootstrap
interval. The front end's throughput is given as seconds of audio a second of processor time.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from bench_core import interleaved, keep_freed_memory, processor_time, summary
from torch import Tensor

from limbeck_audiovideo.atst import ATST, ATSTDistiller, FrameEncoder, KeywordCall, SwapViews, frame_views
from limbeck_audiovideo.audio import LogMel
from limbeck_core import EMATeacher, Match, Tap
from limbeck_core.losses import NormalizedMSELoss

Run = Callable[[], object]
QUICK_PAIRS = 2


def front_end(clips: int, seconds: float) -> tuple[str, Run, Run]:
    """A batch of clips to log-mel spectrograms: one call, against librosa clip by clip."""
    waveform = 0.1 * torch.randn(clips, round(16000 * seconds), generator=torch.Generator().manual_seed(0))
    ours = LogMel()
    arrays = waveform.numpy()
    filters = librosa.filters.mel(sr=16000, n_fft=1024, n_mels=64, fmin=60, fmax=7800, htk=True, norm=None)

    def batched() -> Tensor:
        found: Tensor = ours(waveform)
        return found

    def by_librosa() -> Any:
        found = []
        for clip in arrays:
            power = np.abs(librosa.stft(clip, n_fft=1024, hop_length=160, pad_mode="reflect")) ** 2
            decibels = librosa.power_to_db(filters @ power, ref=1.0, amin=1e-10, top_db=80.0)
            found.append((decibels + 79.6482) / (50.6842 + 79.6482) * 2 - 1)
        return np.stack(found)

    difference = np.abs(batched()[:, 0].numpy() - by_librosa()).max()
    if difference > 1e-3:
        raise SystemExit(f"librosa's spectrograms differ by {difference:.1e}: nothing is compared")
    return f"LogMel against librosa, {clips} clips of {seconds:g} s", batched, by_librosa


def views(clips: int, seconds: float) -> tuple[str, Run, Run]:
    """ATST-Frame's two views of a batch: one call, against one call a clip."""
    generator = torch.Generator().manual_seed(0)
    samples = [
        {
            "inputs": {
                "waveform": 0.1 * torch.randn(round(16000 * seconds), generator=generator),
                "length": torch.tensor(round(16000 * seconds)),
            }
        }
        for _ in range(clips)
    ]
    return (
        f"frame_views against a clip at a time, {clips} clips of {seconds:g} s",
        lambda: frame_views(samples),
        lambda: [frame_views([sample]) for sample in samples],
    )


def step(clips: int, seconds: float) -> tuple[str, Run, Run]:
    """One step of ATST-Frame: both views in one pass of each network, against a pass a view written by hand."""
    torch.manual_seed(0)
    frames = round(seconds * 100) + 1
    size: dict[str, Any] = dict(dim=64, depth=3, heads=2, max_frames=frames, drop_path=0.0)
    student = ATST(FrameEncoder(**size), hidden=256, out=64)
    distiller = ATSTDistiller(
        student,
        EMATeacher(student, 0.99, mode="batch_stats", buffers="own", follows="network"),
        {"views": Match(NormalizedMSELoss(), "predictor", Tap("projector"), teacher_adapter=SwapViews())},
        call=KeywordCall(),
    ).train()
    teacher = distiller.teacher.model
    inputs = {
        "views": torch.randn(clips, 2, 1, 64, frames),
        "mask": torch.rand(clips, frames // 4) < 0.5,
        "lengths": torch.full((clips,), frames),
    }

    def ours() -> Tensor:
        distiller.zero_grad()
        loss: Tensor = distiller({"inputs": inputs})["loss/views"]
        loss.backward()
        return loss.detach()

    def by_hand() -> Tensor:
        distiller.zero_grad()
        mask, lengths = inputs["mask"], inputs["lengths"]
        first, second = inputs["views"].unbind(1)
        with torch.no_grad():
            targets = [teacher.projector(teacher.encoder(view, lengths)[mask]) for view in (second, first)]
        network = student.network
        rows = [network.encoder(view, lengths, mask)[mask] for view in (first, second)]
        predictions = [student.predictor(network.projector(row)) for row in rows]
        pairs = zip(predictions, targets, strict=True)
        loss = sum(2 - 2 * torch.cosine_similarity(mine, other, dim=-1).mean() for mine, other in pairs) / 2
        loss.backward()
        return loss.detach()  # type: ignore[no-any-return]

    return f"a step of ATST-Frame against one by hand, {clips} clips of {seconds:g} s", ours, by_hand


CASES = ((front_end, 16, 10.0), (views, 32, 2.0), (step, 32, 2.0))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short clips and few pairs: only that it runs")
    parser.add_argument("--pairs", metavar="N", type=int, help="pairs a comparison (default: 30; 2 with --quick)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parser.parse_args(arguments)
    pairs = options.pairs or (QUICK_PAIRS if options.quick else 30)
    keep_freed_memory()
    threads, rows, speed = torch.get_num_threads(), [], 0.0
    torch.set_num_threads(1)
    gc.disable()  # a collection would fall on one side of a pair
    try:
        print(f"processor time; {platform.machine()} CPU, 1 thread, torch {torch.__version__}")
        for case, count, length in CASES:
            clips, seconds = (2, 1.0) if options.quick else (count, length)
            gc.collect()
            title, ours, other = case(clips, seconds)
            row = summary(case.__name__, title, interleaved(ours, other, pairs, 0.0))
            print(f"{row.name:<66} {row.ratio:7.3f}  [{row.low:.3f}, {row.high:.3f}]  {row.pairs:3d}", flush=True)
            rows.append(asdict(row))
            if case is front_end:
                speed = clips * seconds / min(processor_time(ours, 1) for _ in range(max(pairs, 3)))
                print(f"LogMel: {speed:,.0f} times real time on one core", flush=True)
    finally:
        gc.enable()
        torch.set_num_threads(threads)
    if options.json:
        options.json.write_text(json.dumps({"ratios": rows, "real_time": speed}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
