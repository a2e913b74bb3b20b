# Knowledge Concentration at 100,000 labels: 20 specialists of 5,000 labels each, one student with FC4096-SC512.
# The paper's data (EFT) are not public: DATA/train and DATA/val hold a folder a label, sorted by vertical.
# timm has no Inception-V2: Inception-V3 stands in its place. The optimiser was not established; RMSProp is our choice.
#   limbeck train vision/knowledge_concentration/inception_100k --data-root DATA --amp --launcher slurm
#   limbeck test vision/knowledge_concentration/inception_100k --data-root DATA \
#       --checkpoint work_dirs/inception_100k/student.pth
from torch.optim import RMSprop

from limbeck_core import Distiller, Match, Tap
from limbeck_core.engine import EpochLoop
from limbeck_vision.data import ImageFolder, center_crop, random_resized_crop
from limbeck_vision.methods.knowledge_concentration import (
    ConcentratedModel,
    SpecialistCall,
    SpecialistLoss,
    VerticalPrecision,
    pretrained_specialists,
)
from limbeck_vision.models import ImageCall, timm_model

sizes = [5000, 5000, 5000, 5000, 5000, 5000, 5000, 5000, 5000, 5000] * 2

train_dataloader = dict(
    dataset=dict(type=ImageFolder, root="train", transform=dict(type=random_resized_crop, size=299)),
    batch_size=64,
    num_workers=8,
)
val_dataloader = dict(
    dataset=dict(type=ImageFolder, root="val", transform=dict(type=center_crop, size=299)), batch_size=64, num_workers=8
)
val_evaluator = dict(type=VerticalPrecision, sizes=sizes)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
model = dict(
    type=Distiller,
    student=dict(
        type=ConcentratedModel,
        backbone=dict(type=timm_model, name="inception_v3", num_classes=0),
        head=dict(sizes=sizes, first_width=4096, second_width=512, first="full", second="structured"),
        scale=dict(level="vertical"),
    ),
    teacher=dict(
        type=pretrained_specialists,
        model=dict(type=timm_model, name="inception_v3"),
        checkpoints="work_dirs/specialist-{vertical}/student.pth",
        sizes=sizes,
    ),
    call=dict(type=ImageCall),
    teacher_call=dict(type=SpecialistCall),
    matches=dict(
        specialists=dict(
            type=Match,
            loss=dict(type=SpecialistLoss),
            student="logits",
            teacher=dict(type=Tap, path="", of="teacher", pick="probabilities"),
            extras=dict(labels=dict(type=Tap, path="", of="teacher", pick="labels")),
        ),
    ),
)
train_cfg = dict(type=EpochLoop, max_epochs=5)
optim_wrapper = dict(optimizer=dict(type=RMSprop, lr=1e-3, momentum=0.9))
