"""RTMPose: real-time pose models with the weights' names of mmpose."""

from limbeck_pose.rtmpose.cspnext import CSPNeXt
from limbeck_pose.rtmpose.head import SimCCHead
from limbeck_pose.rtmpose.model import (
    WHOLE_BODY,
    RTMPose,
    rtmpose_l,
    rtmpose_m,
    rtmpose_s,
    rtmpose_t,
    rtmpose_x,
)

__all__ = [
    "WHOLE_BODY",
    "CSPNeXt",
    "RTMPose",
    "SimCCHead",
    "rtmpose_l",
    "rtmpose_m",
    "rtmpose_s",
    "rtmpose_t",
    "rtmpose_x",
]
