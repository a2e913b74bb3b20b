"""Images with boxes: COCO, PASCAL VOC and YOLO files, D-FINE's augmentation, and batches of changing size."""

from __future__ import annotations

from limbeck_detection.data.batches import detection_batch, multi_scale_batch, scales_around
from limbeck_detection.data.coco import CocoDetection
from limbeck_detection.data.dataset import Annotated, DetectionDataset
from limbeck_detection.data.transforms import DFINEAugmentation, StretchTo
from limbeck_detection.data.voc import VocDetection
from limbeck_detection.data.yolo import YoloDetection

__all__ = [
    "Annotated",
    "CocoDetection",
    "DFINEAugmentation",
    "DetectionDataset",
    "StretchTo",
    "VocDetection",
    "YoloDetection",
    "detection_batch",
    "multi_scale_batch",
    "scales_around",
]
