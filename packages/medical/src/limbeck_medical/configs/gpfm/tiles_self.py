# GPFM without experts on rendered tiles: DINO, iBOT and KoLeo alone, the control of medical/gpfm/tiles.
#   python -m limbeck_medical.gpfm.rendering DATA/tiles
#   limbeck train medical/gpfm/tiles_self --data-root DATA/tiles
#   python tools/eval_medical_features.py --config medical/gpfm/tiles_self \
#       --checkpoint work_dirs/tiles_self/student.pth --tiles DATA/tiles --train labelled --test test
from mmengine.config import read_base

with read_base():
    from .._base_.tiles import *
