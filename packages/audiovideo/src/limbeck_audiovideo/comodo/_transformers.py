"""Video teachers and time-series students of transformers: the only file of this method that imports transformers.

Models come from a folder that ``save_pretrained`` wrote, or with random weights from a configuration; nothing is
downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_audiovideo.comodo.students import ChannelwiseEncoder, Reduction
from limbeck_audiovideo.comodo.teachers import IMAGENET, ClipModel
from limbeck_core.errors import CheckpointError, ConfigError, MissingDependency, closest

_VIDEO = {"videomae": "VideoMAEModel", "timesformer": "TimesformerModel"}


class VideoTransformer(ClipModel):
    """A video transformer, pooled as COMODO does: the mean over tokens, or token 0.

    Args:
        source: Folder of a saved model, or a mapping with ``model_type`` (``"videomae"`` or ``"timesformer"``) and
            values of its configuration.
        pool: ``"mean"`` or ``"first"``. By default the mean for VideoMAE whose configuration says ``use_mean_pooling``,
            the first token otherwise.

    Raises:
        MissingDependency: if transformers is not installed.
        CheckpointError: if the folder holds no such model.
        ConfigError: if the kind of model or of pooling is unknown.
    """

    def __init__(self, source: str | Path | Mapping[str, Any], *, pool: str | None = None) -> None:
        super().__init__(IMAGENET)
        self.encoder: nn.Module = _model(source, _VIDEO, "VideoTransformer")
        config: Any = self.encoder.config
        if pool is None:
            pool = "mean" if getattr(config, "use_mean_pooling", False) else "first"
        if pool not in ("mean", "first"):
            raise ConfigError(f"pool must be 'mean' or 'first', got {pool!r}")
        self.pool = pool
        self.out_dim: int = config.hidden_size

    def forward(self, clips: Tensor) -> Tensor:
        """Return embeddings ``(N, D)`` of clips ``(N, T, 3, H, W)``, T as the configuration says."""
        tokens: Tensor = self.encoder(pixel_values=self.normalize(clips)).last_hidden_state
        return tokens.mean(1) if self.pool == "mean" else tokens[:, 0]


class _SeriesEncoder(nn.Module):
    """PatchTST on one channel: the mean over patches."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, series: Tensor) -> Tensor:
        """Encode ``(N, 1, L)`` to ``(N, width)``."""
        states: Tensor = self.model(past_values=series.transpose(1, 2)).last_hidden_state  # (N, 1, patches, width)
        return states.mean(2).squeeze(1)


def patchtst(
    source: str | Path | Mapping[str, Any], *, channels: int = 6, reduction: Reduction = "concat"
) -> ChannelwiseEncoder:
    """Return PatchTST as a student: channels resampled to its context length and encoded one by one.

    Args:
        source: Folder of a saved model, or a mapping of values of its configuration (``context_length``,
            ``patch_length``, ``d_model``, ...). The model is one of a single channel.
        channels: Number of channels of a window.
        reduction: See :class:`~limbeck_audiovideo.comodo.students.ChannelwiseEncoder`.

    Raises:
        MissingDependency: if transformers is not installed.
        CheckpointError: if the folder holds no such model.
    """
    if isinstance(source, Mapping):
        source = {"model_type": "patchtst", "num_input_channels": 1, **source}
    model = _model(source, {"patchtst": "PatchTSTModel"}, "patchtst")
    config: Any = model.config
    return ChannelwiseEncoder(
        _SeriesEncoder(model), config.d_model, channels=channels, length=config.context_length, reduction=reduction
    )


def _model(source: str | Path | Mapping[str, Any], kinds: Mapping[str, str], who: str) -> nn.Module:
    try:
        import transformers  # noqa: PLC0415  an extra
    except ImportError as error:
        raise MissingDependency(f"{who} needs transformers: pip install 'limbeck-audiovideo[transformers]'") from error
    try:
        if isinstance(source, Mapping):
            values = dict(source)
            kind = str(values.pop("model_type", ""))
            config = transformers.AutoConfig.for_model(kind, **values) if kind in kinds else None
        else:
            config = transformers.AutoConfig.from_pretrained(str(source), local_files_only=True)
            kind = config.model_type
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{source} holds no model of transformers ({error}): name the folder that save_pretrained wrote"
        ) from error
    if kind not in kinds:
        raise ConfigError(f"{who} does not know the model_type {kind!r}: {closest(kind, kinds)}")
    maker = getattr(transformers, kinds[kind])
    if isinstance(source, Mapping) or torch.get_default_device().type == "meta":
        built: nn.Module = maker(config)
    else:
        built = maker.from_pretrained(str(source), local_files_only=True)
    return built


__all__ = ["VideoTransformer", "patchtst"]
