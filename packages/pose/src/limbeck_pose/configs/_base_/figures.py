# Jointed figures that the package draws, in COCO's format, 64 x 64 pixels; most key points of train.json have no label.
#   python -m limbeck_pose.rendered figures        (then --data-root figures)
from mmengine.optim import CosineAnnealingLR
from torch.optim import AdamW

from limbeck_core.engine import EpochLoop
from limbeck_pose.data import People
from limbeck_pose.evaluation import CorrectKeypoints
from limbeck_pose.predictor import PersonPredictor
from limbeck_pose.rendered import CHAIN, LABELLED_POINTS, NEVER
from limbeck_pose.simcc import SimCC

codec = dict(type=SimCC, input_size=(64, 64), sigma=(3.0, 3.0))
train_dataloader = dict(
    dataset=dict(type=People, root=".", annotations="train.json", images="train", codec=codec, layout=CHAIN),
    batch_size=32,
)
val_dataloader = dict(
    dataset=dict(type=People, root=".", annotations="val.json", images="val", codec=codec, layout=CHAIN),
    batch_size=64,
)
val_evaluator = dict(
    type=CorrectKeypoints, codec=codec, pixels=4.0, groups=dict(never_labelled=NEVER, sometimes=LABELLED_POINTS)
)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
predictor = dict(type=PersonPredictor, codec=codec, layout=CHAIN)
train_cfg = dict(type=EpochLoop, max_epochs=12, val_interval=4)
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=3e-3, weight_decay=0.05), clip_grad=dict(max_norm=1.0))
param_scheduler = dict(type=CosineAnnealingLR, T_max=12, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
