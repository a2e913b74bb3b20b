"""Weights of D-FINE from elsewhere: released ``.pth`` files, and checkpoints of Hugging Face transformers.

Files are read as plain data and tensors; nothing in them is run. The model's own names are those of the released files,
so only checkpoints of transformers are renamed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck_core.errors import CheckpointError
from limbeck_core.weights import LoadReport, load_weights, read_file, read_weights
from limbeck_detection.dfine.model import DFINE, dfine_l, dfine_m, dfine_n, dfine_s, dfine_x

# Row of each of COCO's 80 classes among the 366 of models trained on Objects365, whose labels start at 1.
_OBJECTS365_LABELS = (
    "0 46 5 58 114 55 116 65 21 40 176 127 249 24 56 139 92 78 99 96 144 295 178 180 38 39 13 43 120 219 148 173 165 "
    "154 137 113 145 146 204 8 35 10 88 84 93 26 112 82 265 104 141 152 234 143 150 97 2 50 25 75 98 153 37 73 115 132 "
    "106 61 163 134 277 81 133 18 94 30 169 70 328 226"
)
OBJECTS365_TO_COCO: tuple[int, ...] = tuple(int(label) + 1 for label in _OBJECTS365_LABELS.split())
"""For ``class_rows``: which row of an Objects365 model's score heads stands for each class of COCO."""

_BUILDERS: dict[tuple[int, int, int], Callable[..., DFINE]] = {
    (16, 128, 3): dfine_n,
    (16, 256, 3): dfine_s,
    (24, 256, 4): dfine_m,
    (32, 256, 6): dfine_l,
    (32, 384, 6): dfine_x,
}
_DENOISING = "decoder.denoising_class_embed.weight"
_SCORES = re.compile(r"decoder\.(enc_score_head|dec_score_head\.\d+)\.(weight|bias)")
_DERIVED = ("decoder.anchors", "decoder.valid_mask")  # from the input size alone

_TRANSFORMERS = "model.backbone.model."
# Applied one after another; names of transformers 5 in memory and of its files, which keep those of version 4.
_RENAMES: tuple[tuple[str, str], ...] = (
    (r"^model\.backbone\.model\.embedder\.", "backbone.stem."),
    (r"^model\.backbone\.model\.encoder\.", "backbone."),
    (r"^(backbone\..*)\.convolution\.", r"\1.conv."),
    (r"^(backbone\..*)\.normalization\.", r"\1.bn."),
    (r"^model\.encoder_input_proj\.(\d+)\.0\.", r"encoder.input_proj.\1.conv."),
    (r"^model\.encoder_input_proj\.(\d+)\.1\.", r"encoder.input_proj.\1.norm."),
    (r"^model\.decoder_input_proj\.(\d+)\.0\.", r"decoder.input_proj.\1.conv."),
    (r"^model\.decoder_input_proj\.(\d+)\.1\.", r"decoder.input_proj.\1.norm."),
    (r"^model\.encoder\.(?:aifi|encoder)\.(\d+)\.layers\.", r"encoder.encoder.\1.layers."),
    (r"^model\.encoder\.((?:fpn|pan)_blocks\.\d+)\.conv1\.", r"encoder.\1.cv1."),
    (r"^model\.encoder\.((?:fpn|pan)_blocks\.\d+)\.csp_rep1\.", r"encoder.\1.cv2.0."),
    (r"^model\.encoder\.((?:fpn|pan)_blocks\.\d+)\.conv2\.", r"encoder.\1.cv2.1."),
    (r"^model\.encoder\.((?:fpn|pan)_blocks\.\d+)\.csp_rep2\.", r"encoder.\1.cv3.0."),
    (r"^model\.encoder\.((?:fpn|pan)_blocks\.\d+)\.conv3\.", r"encoder.\1.cv3.1."),
    (r"^model\.encoder\.((?:fpn|pan)_blocks\.\d+)\.conv4\.", r"encoder.\1.cv4."),
    (r"^model\.encoder\.(downsample_convs\.\d+)\.conv(\d)\.", r"encoder.\1.0.cv\2."),
    (r"^model\.encoder\.", "encoder."),
    (r"^model\.enc_output\.0\.", "decoder.enc_output.proj."),
    (r"^model\.enc_output\.1\.", "decoder.enc_output.norm."),
    (r"^model\.weight_embedding\.", "decoder.tgt_embed."),
    (r"^model\.(enc_score_head|enc_bbox_head|denoising_class_embed)\.", r"decoder.\1."),
    (r"^(?:model\.decoder\.)?class_embed\.", "decoder.dec_score_head."),
    (r"^(?:model\.decoder\.)?bbox_embed\.", "decoder.dec_bbox_head."),
    (r"^model\.decoder\.(query_pos_head|pre_bbox_head)\.", r"decoder.\1."),
    (r"^model\.decoder\.", "decoder.decoder."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.o_proj\.", ".out_proj."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"^(encoder\..*)\.final_layer_norm\.", r"\1.norm2."),
    (r"^(decoder\..*)\.final_layer_norm\.", r"\1.norm3."),
    (r"^((?:encoder|decoder\.decoder)\..*layers\.\d+)\.(?:mlp\.layers\.0|fc1)\.", r"\1.linear1."),
    (r"^((?:encoder|decoder\.decoder)\..*layers\.\d+)\.(?:mlp\.layers\.1|fc2)\.", r"\1.linear2."),
)
_PROJECTION = re.compile(r"(.*\.self_attn)\.([qkv])_proj\.(weight|bias)")


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the weights of ``transformers.DFineForObjectDetection`` the names of the released files.

    Queries, keys and values, which transformers keeps apart, become one tensor each layer.

    Args:
        state: State dict of the model, or the content of its ``safetensors`` file.

    Returns: State dict in the layout of :class:`~limbeck_detection.dfine.model.DFINE`, without the anchors, which
        transformers does not store.

    Raises:
        CheckpointError: if an attention layer lacks its query, key or value projection.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901
        renamed[name] = value
    for name in ("up", "reg_scale"):
        if f"decoder.decoder.{name}" in renamed:
            renamed[f"decoder.{name}"] = renamed[f"decoder.decoder.{name}"]
    parts: dict[str, dict[str, Tensor]] = {}
    for name in list(renamed):
        if match := _PROJECTION.fullmatch(name):
            parts.setdefault(f"{match[1]}.in_proj_{match[3]}", {})[match[2]] = renamed.pop(name)
    for name, found in parts.items():
        if found.keys() != {"q", "k", "v"}:
            raise CheckpointError(
                f"{name} is made of the projections q, k and v, and the checkpoint has only "
                f"{', '.join(sorted(found))}: it is incomplete, copy it again"
            )
        renamed[name] = torch.cat([found["q"], found["k"], found["v"]])
    return renamed


def read_dfine(source: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    """Read D-FINE's weights under the names of the released files.

    Args:
        source: A released ``.pth`` file, of whose weights the moving average is taken where there is one; a file of
            transformers (``safetensors`` or ``bin``); any file that :func:`limbeck_core.weights.read_weights` reads; or
            the content of one.

    Returns: The state dict.

    Raises:
        CheckpointError: as :func:`limbeck_core.weights.read_file` and :func:`from_transformers`; or if there are no
            weights of D-FINE in it.
    """
    title = str(source) if isinstance(source, (str, Path)) else "the mapping"
    content = read_file(Path(source)) if isinstance(source, (str, Path)) else source
    average = content.get("ema") if isinstance(content, Mapping) else None
    state: Any = content
    if isinstance(average, Mapping) and isinstance(average.get("module"), Mapping):
        state = average["module"]
    elif isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        state = content["model"]
    elif isinstance(source, (str, Path)):
        state = read_weights(Path(source))
    found = {
        str(name).removeprefix("module.").removeprefix("student."): value
        for name, value in (state.items() if isinstance(state, Mapping) else ())
        if isinstance(value, Tensor)
    }
    if any(name.startswith(_TRANSFORMERS) for name in found):
        found = from_transformers(found)
    if not any(name.startswith("decoder.dec_score_head.") for name in found):
        raise CheckpointError(
            f"{title} holds no weights of a D-FINE: expected names such as 'decoder.dec_score_head.0.weight', got "
            f"{', '.join(list(found)[:3]) or 'none'}"
        )
    return found


def load_dfine(
    model: DFINE,
    source: str | Path | Mapping[str, Any],
    *,
    class_rows: Sequence[int] | None = None,
    fresh_heads: bool = False,
) -> LoadReport:
    """Load D-FINE's weights into a model of the same size.

    Anchors depend on the input size alone, so the model keeps its own. The embedding of noisy labels is kept as well
    where the number of classes differs.

    Args:
        model: The model; it is left as it was if anything is refused.
        source: As for :func:`read_dfine`.
        class_rows: For each class of the model the row of its class in the checkpoint's score heads, for a model with
            other classes; :data:`OBJECTS365_TO_COCO` is one.
        fresh_heads: Keep the model's own score heads where the number of classes differs.

    Returns: What was loaded; names that the model kept as they were count as missing.

    Raises:
        CheckpointError: as :func:`read_dfine`; if the number of classes differs and neither ``class_rows`` nor
            ``fresh_heads`` is given; if ``class_rows`` do not fit; or if a name is missing or has another shape.
    """
    title = str(source) if isinstance(source, (str, Path)) else "the mapping"
    state, own = read_dfine(source), model.state_dict()
    kept = []
    for name in [name for name in own if _SCORES.fullmatch(name) and name in state]:
        rows = len(own[name])
        if class_rows is not None:
            state[name] = _rows_of(state[name], class_rows, rows, name)
        elif len(state[name]) != rows and fresh_heads:
            kept.append(name)
        elif len(state[name]) != rows:
            raise CheckpointError(
                f"{title} scores {len(state[name])} classes ({name}) and the model {rows}: say which of its rows "
                "stands for each class with class_rows, or start the score heads anew with fresh_heads=True"
            )
    if _DENOISING in own and (_DENOISING not in state or state[_DENOISING].shape != own[_DENOISING].shape):
        kept.append(_DENOISING)
    for name in (*kept, *_DERIVED):
        state[name] = own[name]
    report = load_weights(model, state, what=title)
    report.matched = [name for name in report.matched if name not in kept]
    report.missing += kept
    return report


def _rows_of(values: Tensor, rows: Sequence[int], wanted: int, name: str) -> Tensor:
    if len(rows) != wanted:
        raise CheckpointError(f"class_rows must name one row for each of the model's {wanted} classes, got {len(rows)}")
    if min(rows) < 0 or max(rows) >= len(values):
        outside = min(rows) if min(rows) < 0 else max(rows)
        raise CheckpointError(f"class_rows must lie in [0, {len(values)}), the rows of {name}, got {outside}")
    return values[torch.tensor(list(rows))]


def from_pretrained(
    source: str | Path | Mapping[str, Any],
    *,
    num_classes: int | None = None,
    class_rows: Sequence[int] | None = None,
    fresh_heads: bool = False,
    **options: Any,
) -> DFINE:
    """Build the released size that a checkpoint is of, and load it.

    Args:
        source: As for :func:`read_dfine`.
        num_classes: Number of classes of the model; that of the checkpoint by default, or of ``class_rows``.
        class_rows: As for :func:`load_dfine`.
        fresh_heads: As there.
        **options: As for :func:`limbeck_detection.dfine.model.dfine`, for example ``num_queries``.

    Returns: The model, in training mode.

    Raises:
        CheckpointError: as :func:`load_dfine`; or if the weights are of none of the released sizes.
    """
    state = read_dfine(source)
    stem, width = (
        state[name].shape[0] if name in state else 0
        for name in ("backbone.stem.stem1.conv.weight", "encoder.input_proj.0.conv.weight")
    )
    layers = sum(bool(re.fullmatch(r"decoder\.dec_score_head\.\d+\.bias", name)) for name in state)
    builder = _BUILDERS.get((stem, width, layers))
    if builder is None:
        raise CheckpointError(
            f"the weights are of none of the released sizes (stem {stem}, encoder {width} wide, {layers} decoder "
            "layers): build the model with dfine(...) and fill it with load_dfine"
        )
    classes = len(state["decoder.dec_score_head.0.bias"]) if class_rows is None else len(class_rows)
    model = builder(num_classes or classes, **options)
    load_dfine(model, state, class_rows=class_rows, fresh_heads=fresh_heads)
    return model
