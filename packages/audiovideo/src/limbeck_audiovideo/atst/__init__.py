"""ATST: self-distilled audio Transformers for clips and for frames, and the distillation of one into the other."""

from limbeck_audiovideo.atst.embedding import Stretch, embed_recordings, stream_frames, whole_scores
from limbeck_audiovideo.atst.encoder import (
    ClipEncoder,
    FrameEncoder,
    atst_clip_base,
    atst_clip_small,
    atst_frame_base,
    atst_frame_small,
    scene_embedding,
)
from limbeck_audiovideo.atst.pretraining import (
    ATST,
    ATSTDistiller,
    Head,
    KeywordCall,
    Network,
    SwapViews,
    load_encoder,
    pretrained_encoder,
    spread,
)
from limbeck_audiovideo.atst.tagging import (
    ClipTagger,
    FrameTagger,
    LayerDecay,
    SoftLabelBinaryLoss,
    SoundEventLoss,
    soft_label_binary_loss,
)
from limbeck_audiovideo.atst.views import (
    clip_views,
    frame_views,
    log_mixup,
    resized_crops,
    span_masks,
    tagging_views,
)

__all__ = [
    "ATST",
    "ATSTDistiller",
    "ClipEncoder",
    "ClipTagger",
    "FrameEncoder",
    "FrameTagger",
    "Head",
    "KeywordCall",
    "LayerDecay",
    "Network",
    "SoftLabelBinaryLoss",
    "SoundEventLoss",
    "Stretch",
    "SwapViews",
    "atst_clip_base",
    "atst_clip_small",
    "atst_frame_base",
    "atst_frame_small",
    "clip_views",
    "embed_recordings",
    "frame_views",
    "load_encoder",
    "log_mixup",
    "pretrained_encoder",
    "resized_crops",
    "scene_embedding",
    "soft_label_binary_loss",
    "span_masks",
    "spread",
    "stream_frames",
    "tagging_views",
    "whole_scores",
]
