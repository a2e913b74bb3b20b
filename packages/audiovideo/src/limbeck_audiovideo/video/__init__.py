"""Video from files and folders: reading, sampling clips by time, cropping, data sets."""

from limbeck_audiovideo.video.clips import CentreCrop, Clip, MultiScaleCrop, resized
from limbeck_audiovideo.video.dataset import Videos
from limbeck_audiovideo.video.reading import Video, find_videos, frame_times, read_frames, read_video, write_video

__all__ = [
    "CentreCrop",
    "Clip",
    "MultiScaleCrop",
    "Video",
    "Videos",
    "find_videos",
    "frame_times",
    "read_frames",
    "read_video",
    "resized",
    "write_video",
]
