# COMODO on rendered pairs, without labels: a 1D CNN of the wrist sensor learns from a frozen video teacher.
#   python -m limbeck_audiovideo.rendered_pairs pairs
#   limbeck train audiovideo/comodo/rendered_teacher --data-root pairs
#   limbeck bank audiovideo/comodo/rendered --data-root pairs --bank work_dirs/rendered/bank
#   limbeck train audiovideo/comodo/rendered --data-root pairs --bank work_dirs/rendered/bank
#   limbeck test audiovideo/comodo/rendered --data-root pairs --checkpoint work_dirs/rendered/student.pth
# The control: --cfg-options +train_dataloader.dataset.shuffle_videos=0
from mmengine.config import read_base

from limbeck_audiovideo.comodo import (
    FillQueue,
    IMUConvNet,
    Projection,
    RandomProjection,
    SimilarityQueueLoss,
    SmallVideoNet,
)
from limbeck_core import Distiller, Match, pretrained

with read_base():
    from .._base_.rendered_pairs import *

model = dict(
    type=Distiller,
    student=dict(type=IMUConvNet, widths=(32, 64, 128)),
    teacher=dict(
        type=pretrained,
        model=dict(type=SmallVideoNet, num_classes=6),
        checkpoint="work_dirs/rendered_teacher/student.pth",
    ),
    teacher_view="video",
    matches=dict(
        comodo=dict(
            type=Match,
            loss=dict(type=SimilarityQueueLoss, embedding_dim=64, queue_size=256),
            student="",
            teacher="embed",
            adapter=dict(type=Projection, in_dim=128, out_dim=64, hidden_dim=256),
            teacher_adapter=dict(type=RandomProjection, in_dim=64, out_dim=64, hidden_dim=256),
        ),
    ),
)
custom_hooks = [dict(type=FillQueue, match="comodo")]
