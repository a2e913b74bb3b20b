# COMODO on UTD-MHAD: a wrist sensor (50 Hz) learns from a motion map of depth video, without labels.
#   python -m limbeck_audiovideo.imu.utd_mhad UTD          (folder with Depth/ and Inertial/)
#   limbeck train audiovideo/comodo/utd_mhad --data-root UTD
#   python tools/check_comodo.py UTD                       (subjects left out, random initialisation, shuffled pairs)
from mmengine.optim import CosineAnnealingLR
from torch.nn import BatchNorm1d
from torch.optim import AdamW

from limbeck_audiovideo.comodo import FrameTeacher, IMUConvNet, PixelGrid, Projection, SimilarityQueueLoss
from limbeck_audiovideo.evaluation import SubjectProbe
from limbeck_audiovideo.imu import ClipPairs
from limbeck_core import Distiller, Match
from limbeck_core.engine import EpochLoop

dataset = dict(
    type=ClipPairs,
    root=".",
    table="pairs.csv",
    rate=50.0,
    length=160,
    frames=16,
    size=(60, 80),
    value_range=(0.0, 4000.0),
    keep_video=True,
)
train_dataloader = dict(dataset=dataset, batch_size=35, drop_last=True)
val_dataloader = dict(dataset=dataset, batch_size=40)
val_evaluator = dict(type=SubjectProbe)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=150, val_interval=150)
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=1e-3, weight_decay=0.01))
param_scheduler = dict(type=CosineAnnealingLR, T_max=150, by_epoch=True, convert_to_iter_based=True)
model = dict(
    type=Distiller,
    student=dict(type=IMUConvNet, widths=(32, 64, 128)),
    teacher=dict(type=FrameTeacher, encoder=dict(type=PixelGrid, cells=12), pool="change"),
    teacher_view="video",
    matches=dict(
        comodo=dict(
            type=Match,
            loss=dict(type=SimilarityQueueLoss, embedding_dim=144, queue_size=32),
            student="",
            teacher="",
            adapter=dict(type=Projection, in_dim=128, out_dim=144, hidden_dim=256),
            teacher_adapter=dict(type=BatchNorm1d, num_features=144, affine=False),
        ),
    ),
)
