# A small U-Net on MSD's hippocampus, by Dice and cross-entropy alone: the control of medical/hippocampus/unet_dsd.
#   limbeck train medical/hippocampus/unet --data-root DATA/Task04_Hippocampus
#   limbeck test medical/hippocampus/unet --data-root DATA/Task04_Hippocampus --checkpoint work_dirs/unet/student.pth
from mmengine.config import read_base
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_medical.call import SlidingWindowCall

with read_base():
    from .._base_.hippocampus import *

model = dict(
    type=Distiller,
    student=dict(type=UNet, spatial_dims=3, in_channels=1, out_channels=3, channels=(8, 16, 32, 64), strides=(2, 2, 2)),
    call=dict(type=SlidingWindowCall, window=(32, 32, 32)),
    task_loss=dict(type=DiceCELoss, softmax=True, to_onehot_y=True),
)
# of 0.01 and 0.03 the best on the validation cases of MSD's hippocampus; the same search was made for every config here
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=1e-2, weight_decay=1e-5))
