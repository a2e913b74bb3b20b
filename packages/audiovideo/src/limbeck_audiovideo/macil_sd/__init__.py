"""MACIL-SD: which moments of a video are violent, learned from labels of whole videos with sound."""

from limbeck_audiovideo.macil_sd.calls import BagCall
from limbeck_audiovideo.macil_sd.data import FeatureBags, FrameAP, frame_ap
from limbeck_audiovideo.macil_sd.hooks import PeerAveraging
from limbeck_audiovideo.macil_sd.losses import ModalityContrastLoss, modality_contrast_loss
from limbeck_audiovideo.macil_sd.model import AudioVisualNet, BagLoss, VisualNet

__all__ = [
    "AudioVisualNet",
    "BagCall",
    "BagLoss",
    "FeatureBags",
    "FrameAP",
    "ModalityContrastLoss",
    "PeerAveraging",
    "VisualNet",
    "frame_ap",
    "modality_contrast_loss",
]
