"""timm's frame encoders as video teachers: the only file of this method that imports timm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from limbeck_audiovideo.comodo.teachers import IMAGENET, FrameTeacher, Pool
from limbeck_core.errors import MissingDependency
from limbeck_core.inspect import normalization_of
from limbeck_core.weights import load_weights


def timm_frames(name: str, *, pool: Pool = "mean", weights: str | Path | None = None, **options: Any) -> FrameTeacher:
    """Return a frame encoder of timm, without its classifier, pooled over the frames of a clip.

    Nothing is downloaded: weights are random unless a file is named.

    Args:
        name: timm's name of the model, such as ``"vit_small_patch16_224"``.
        pool: See :class:`~limbeck_audiovideo.comodo.teachers.FrameTeacher`.
        weights: File of weights in timm's own key names.
        options: Further arguments of ``timm.create_model``, such as ``img_size``.

    Raises:
        MissingDependency: if timm is not installed.
        CheckpointError: if the file does not fit.
    """
    try:
        import timm  # noqa: PLC0415  an extra
    except ImportError as error:
        raise MissingDependency("timm_frames needs timm: pip install 'limbeck-audiovideo[timm]'") from error
    encoder = timm.create_model(name, pretrained=False, num_classes=0, **options)
    if weights is not None:
        load_weights(encoder, Path(weights), partial=False)
    return FrameTeacher(encoder, pool=pool, normalization=normalization_of(encoder) or IMAGENET)


__all__ = ["timm_frames"]
