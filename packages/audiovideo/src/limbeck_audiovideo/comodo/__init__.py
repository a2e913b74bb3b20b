"""COMODO: an IMU encoder learns from the video of the same moment, without labels."""

from limbeck_audiovideo.comodo._timm import timm_frames
from limbeck_audiovideo.comodo._transformers import VideoTransformer, patchtst
from limbeck_audiovideo.comodo.hooks import FillQueue
from limbeck_audiovideo.comodo.losses import SimilarityQueueLoss, similarity_queue_loss
from limbeck_audiovideo.comodo.projections import Projection, RandomProjection
from limbeck_audiovideo.comodo.students import ChannelwiseEncoder, IMUClassifier, IMUConvNet, IMUTransformer
from limbeck_audiovideo.comodo.teachers import FrameTeacher, PixelGrid, SmallVideoNet

__all__ = [
    "ChannelwiseEncoder",
    "FillQueue",
    "FrameTeacher",
    "IMUClassifier",
    "IMUConvNet",
    "IMUTransformer",
    "PixelGrid",
    "Projection",
    "RandomProjection",
    "SimilarityQueueLoss",
    "SmallVideoNet",
    "VideoTransformer",
    "patchtst",
    "similarity_queue_loss",
    "timm_frames",
]
