# GPFM on rendered tiles: a small transformer learns from itself and from two experts, each of which knows one property.
#   python -m limbeck_medical.gpfm.rendering DATA/tiles
#   limbeck train medical/gpfm/tiles_expert ... (twice, see there)
#   limbeck train medical/gpfm/tiles --data-root DATA/tiles
#   python tools/eval_medical_features.py --config medical/gpfm/tiles \
#       --checkpoint work_dirs/tiles/student.pth --tiles DATA/tiles --train labelled --test test
from mmengine.config import read_base

from limbeck_core import pretrained
from limbeck_medical.gpfm import Expert, timm_model

with read_base():
    from .._base_.tiles import *

_expert = dict(type=Expert, model=dict(type=timm_model, name="resnet10t"), num_classes=2)
model.update(
    experts=dict(
        size=dict(type=pretrained, model=_expert, checkpoint="work_dirs/expert_size/student.pth"),
        arrangement=dict(type=pretrained, model=_expert, checkpoint="work_dirs/expert_arrangement/student.pth"),
    ),
    weights=dict(size=(1.0, 0.25), arrangement=(1.0, 0.25)),
)
