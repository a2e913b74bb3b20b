"""Data sets in the layouts of the field, the chains of MONAI's transforms, and volumes that are rendered here."""

from limbeck_medical.data.cases import Case, Cases, read_cases, split_cases
from limbeck_medical.data.dataset import SegmentationDataset
from limbeck_medical.data.rendering import Scan, render_msd, render_scan
from limbeck_medical.data.transforms import picture_preprocessing, random_crops, volume_preprocessing

__all__ = [
    "Case",
    "Cases",
    "Scan",
    "SegmentationDataset",
    "picture_preprocessing",
    "random_crops",
    "read_cases",
    "render_msd",
    "render_scan",
    "split_cases",
    "volume_preprocessing",
]
