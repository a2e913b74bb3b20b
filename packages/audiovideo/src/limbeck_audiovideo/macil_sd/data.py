"""Bags of snippet features in the layout of XD-Violence, and the average precision of frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from sklearn.metrics import auc, precision_recall_curve
from torch import Tensor
from torch.utils.data import Dataset

from limbeck_audiovideo.macil_sd.model import FRAMES_A_SNIPPET
from limbeck_core.errors import DataError

NORMAL = "label_A"  # in the name of a video in which nothing violent happens
_LISTED = 8


class FeatureBags(Dataset[dict[str, Any]]):
    """One bag a line of a list of visual feature files.

    Lists are text files with a path a line, as XD-Violence publishes them. Each video has ``crops`` visual files in a
    row (``NAME__0.npy`` to ``NAME__4.npy``) and one audio file. Paths are taken below ``root``; where they do not exist
    (lists often hold the paths of whoever wrote them) the file name is looked for in ``visual_folder`` and
    ``audio_folder``. A video is normal if its name holds ``label_A``.

    An item has ``inputs``, the mapping ``visual`` ``(T, Dv)``, ``audio`` ``(T, Da)`` and ``length``; ``targets``, 1 for
    violent; ``videos``, the number of the video; and ``ids``. Of audio and video of different length, the longer one is
    cut. ``length`` counts the snippets with any non-zero visual value.

    Args:
        visual: List of visual files, below ``root`` if relative.
        audio: List of audio files, below ``root`` if relative.
        root: Folder of the data set.
        snippets: Snippets T of an item: longer videos are sampled evenly, shorter ones padded with zeros. ``None``
            takes videos whole, for tests with a batch size of 1.
        crops: Visual files of a video.
        visual_folder: Where visual files are looked for by name.
        audio_folder: Where audio files are looked for by name.
        truth: npy file with 0 or 1 for each frame of all videos in the order of the list, below ``root`` if relative;
            its path goes with each item as ``truth``, for :class:`FrameAP`.

    Raises:
        DataError: if a list or files are missing, all missing files named together; if the lists do not fit; when an
            item is read, if a file is damaged or no table of numbers.
        ValueError: if ``snippets`` or ``crops`` is below 1.
    """

    def __init__(
        self,
        visual: str = "rgb.list",
        audio: str = "audio.list",
        *,
        root: str | Path = ".",
        snippets: int | None = 200,
        crops: int = 5,
        visual_folder: str = "i3d-features/RGB",
        audio_folder: str = "vggish-features",
        truth: str | None = None,
    ) -> None:
        if crops < 1 or (snippets is not None and snippets < 1):
            raise ValueError(f"crops and snippets must be 1 or more, got {crops} and {snippets}")
        self.snippets, self.crops = snippets, crops
        folder = Path(root)
        self.truth = None if truth is None else folder / truth
        self.visual = [_locate(folder, line, visual_folder) for line in _lines(folder / visual)]
        self.audio = [_locate(folder, line, audio_folder) for line in _lines(folder / audio)]
        if len(self.visual) != crops * len(self.audio):
            raise DataError(
                f"{folder / visual} names {len(self.visual)} files and {folder / audio} {len(self.audio)}, where each "
                f"audio file belongs to crops={crops} visual ones: set crops, or mend the lists"
            )
        lost = [str(path) for path in (*self.visual, *self.audio) if not path.is_file()]
        if lost:
            more = f" and {len(lost) - _LISTED} more" if lost[_LISTED:] else ""
            raise DataError(
                f"{len(lost)} feature files are missing: {', '.join(lost[:_LISTED])}{more}; give the data set's root "
                "with --data-root or LIMBECK_DATA, and the folders of the features"
            )

    def __len__(self) -> int:
        return len(self.visual)

    def __getitem__(self, index: int) -> dict[str, Any]:
        video = index // self.crops
        visual, audio = _features(self.visual[index]), _features(self.audio[video])
        count = min(len(visual), len(audio))
        visual, audio = visual[:count], audio[:count]
        if self.snippets is not None and count > self.snippets:
            places = np.linspace(0, count - 1, self.snippets).astype(int)
            visual, audio = visual[places], audio[places]
        length = int((visual != 0).any(1).sum())
        if self.snippets is not None and count < self.snippets:
            visual, audio = (np.pad(x, ((0, self.snippets - count), (0, 0))) for x in (visual, audio))
        inputs = {"visual": torch.from_numpy(visual), "audio": torch.from_numpy(audio), "length": length}
        item = {"inputs": inputs, "targets": self.label(index), "videos": video, "ids": index}
        return item if self.truth is None else {**item, "truth": str(self.truth)}

    def label(self, index: int) -> int:
        """1 if the video of a bag is violent, 0 otherwise."""
        return int(NORMAL not in self.visual[index].name)


class FrameAP(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """Average precision of frames, the area under the precision-recall curve, per cent.

    The truth is that of the data set. Crops of a video are averaged after the sigmoid; a snippet's score stands for its
    16 frames.

    Args:
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange scores.
        prefix: Put before each key with a slash.
    """

    default_prefix = ""

    def __init__(self, *, collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[Tensor]) -> None:
        """Take the logits ``(T,)`` of each video of one batch of whole videos.

        Raises:
            DataError: if the batch does not say where the truth is.
        """
        if "truth" not in data_batch:
            raise DataError("FrameAP needs 'truth' in the batch: give FeatureBags the file, truth='gt.npy'")
        scores = [torch.sigmoid(logits.detach().float()).cpu().numpy() for logits in data_samples]
        videos = (int(video) for video in data_batch["videos"])
        self.results += list(zip(videos, scores, data_batch["truth"], strict=True))

    def compute_metrics(self, results: list[tuple[int, Any, str]]) -> dict[str, float]:
        """Average crops, repeat snippets, compare with the truth.

        Raises:
            DataError: if the truth is missing or of another number of frames.
        """
        crops: dict[int, list[Any]] = {}
        for video, scores, _ in results:
            crops.setdefault(video, []).append(scores)
        found = np.concatenate([np.mean(crops[video], axis=0).repeat(FRAMES_A_SNIPPET) for video in sorted(crops)])
        return {"ap": frame_ap(found, _truth(Path(results[0][2]), len(found)))}


def frame_ap(scores: Any, truth: Any) -> float:
    """Area under the precision-recall curve by trapezoids, per cent, as XD-Violence's evaluation computes it.

    Args:
        scores: One number a frame.
        truth: 0 or 1 a frame.
    """
    precision, recall, _ = precision_recall_curve(truth, scores)
    return 100.0 * float(auc(recall, precision))


def _truth(path: Path, frames: int) -> Any:
    if not path.is_file():
        raise DataError(f"there is no truth {path}: give the data set's root with --data-root or LIMBECK_DATA")
    truth = np.load(path, allow_pickle=False)
    if truth.shape != (frames,):
        raise DataError(
            f"{path} must hold 0 or 1 for each of {frames} frames ({FRAMES_A_SNIPPET} a snippet), got {truth.shape}: "
            "evaluate whole videos (snippets=None) in the order of the list that the truth belongs to"
        )
    return truth


def _lines(path: Path) -> Sequence[str]:
    if not path.is_file():
        raise DataError(f"there is no list {path}: give the data set's root with --data-root or LIMBECK_DATA")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise DataError(f"the list {path} is empty")
    return lines


def _locate(root: Path, line: str, folder: str) -> Path:
    path = root / line
    return path if path.is_file() else root / folder / Path(line).name


def _features(path: Path) -> Any:
    try:
        table = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is no readable feature file ({error}): copy it again from its source") from error
    if table.ndim != 2 or not len(table) or table.dtype.kind != "f" or not np.isfinite(table).all():
        raise DataError(
            f"{path} must hold finite features (snippets, width), got {table.dtype} {table.shape}: extract them again"
        )
    return table.astype(np.float32)


__all__ = ["FeatureBags", "FrameAP", "frame_ap"]
