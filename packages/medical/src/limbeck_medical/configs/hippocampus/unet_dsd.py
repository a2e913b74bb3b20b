# DSD on MSD's hippocampus: the U-Net of medical/hippocampus/unet at the same budget, its levels teaching each other.
#   limbeck train medical/hippocampus/unet_dsd --data-root DATA/Task04_Hippocampus
#   limbeck test medical/hippocampus/unet_dsd --data-root DATA/Task04_Hippocampus \
#       --checkpoint work_dirs/unet_dsd/student.pth
from mmengine.config import read_base
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch.optim import AdamW

from limbeck_medical.call import SlidingWindowCall
from limbeck_medical.dsd import DSDDistiller

with read_base():
    from .._base_.hippocampus import *

model = dict(
    type=DSDDistiller,
    student=dict(type=UNet, spatial_dims=3, in_channels=1, out_channels=3, channels=(8, 16, 32, 64), strides=(2, 2, 2)),
    input_shape=(1, 32, 32, 32),
    call=dict(type=SlidingWindowCall, window=(32, 32, 32)),
    task_loss=dict(type=DiceCELoss, softmax=True, to_onehot_y=True),
    temperature=3.0,
)
# of 0.01 and 0.03 the best on the validation cases of MSD's hippocampus; the same search was made for every config here
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=1e-2, weight_decay=1e-5))
