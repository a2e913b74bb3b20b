# ESP-MedSAM, stage A: SAM-H's image embedding teaches TinyViT on pictures of any kind, without labels.
#   limbeck train medical/esp_medsam/aggregator --data-root DATA/SA-1B       (pictures in DATA/SA-1B/images)
# checkpoints/sam_vit_h_4b8939.pth is Meta's file. The weights of MobileSAM (mobile_sam.pt) can stand in for this stage.
from mmengine.optim import CosineAnnealingLR
from torch.optim import AdamW

from limbeck_core import Distiller, Match
from limbeck_core.engine import EpochLoop
from limbeck_core.losses import HintLoss
from limbeck_medical.data import SegmentationDataset
from limbeck_medical.esp_medsam import SelfPromptingCall, TinyViTEncoder, sam_vit_h, square_pictures, with_weights

train_dataloader = dict(
    dataset=dict(
        type=SegmentationDataset, root=".", part="unlabelled", preprocess=dict(type=square_pictures, size=1024)
    ),
    batch_size=8,
    num_workers=8,
)
model = dict(
    type=Distiller,
    student=dict(type=TinyViTEncoder),
    teacher=dict(type=with_weights, model=dict(type=sam_vit_h), parts=dict(rest="checkpoints/sam_vit_h_4b8939.pth")),
    call=dict(type=SelfPromptingCall, modality=0),
    matches=dict(embedding=dict(type=Match, loss=dict(type=HintLoss), student="", teacher="")),
)
# the paper does not say how; these are ours
train_cfg = dict(type=EpochLoop, max_epochs=8)
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=1e-3, weight_decay=0.05))
param_scheduler = dict(type=CosineAnnealingLR, T_max=8, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
