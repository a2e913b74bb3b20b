"""Images with boxes (COCO, PASCAL VOC and YOLO files, D-FINE's augmentation) and lidar points with boxes (KITTI)."""

from __future__ import annotations

from limbeck_detection.data.batches import detection_batch, multi_scale_batch, scales_around
from limbeck_detection.data.coco import CocoDetection
from limbeck_detection.data.dataset import Annotated, DetectionDataset
from limbeck_detection.data.kitti import (
    Calibration,
    KittiFrames,
    KittiObjects,
    lidar_batch,
    read_calibration,
    read_objects,
    write_objects,
)
from limbeck_detection.data.lidar_transforms import (
    FlipScene,
    KeepInRange,
    ObjectDatabase,
    PasteObjects,
    ScaleScene,
    ShufflePoints,
    TurnScene,
    cut_objects,
)
from limbeck_detection.data.pointclouds import read_points, write_points
from limbeck_detection.data.transforms import DFINEAugmentation, StretchTo
from limbeck_detection.data.voc import VocDetection
from limbeck_detection.data.yolo import YoloDetection

__all__ = [
    "Annotated",
    "Calibration",
    "CocoDetection",
    "DFINEAugmentation",
    "DetectionDataset",
    "FlipScene",
    "KeepInRange",
    "KittiFrames",
    "KittiObjects",
    "ObjectDatabase",
    "PasteObjects",
    "ScaleScene",
    "ShufflePoints",
    "StretchTo",
    "TurnScene",
    "VocDetection",
    "YoloDetection",
    "cut_objects",
    "detection_batch",
    "lidar_batch",
    "multi_scale_batch",
    "read_calibration",
    "read_objects",
    "read_points",
    "scales_around",
    "write_objects",
    "write_points",
]
