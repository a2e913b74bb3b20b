# AudioSet as folders of wav or flac files, without labels; biases and norms have no weight decay.
from torch.optim import AdamW

from limbeck_audiovideo.audio import Recordings
from limbeck_core.engine import StepLoop

train_dataloader = dict(
    dataset=dict(type=Recordings, root="audioset", audio="train", labelled=False, random=True),
    num_workers=12,
    drop_last=True,
)
train_cfg = dict(type=StepLoop)
optim_wrapper = dict(
    optimizer=dict(type=AdamW, weight_decay=0.04),
    paramwise_cfg=dict(bias_decay_mult=0.0, norm_decay_mult=0.0),
)
default_hooks = dict(checkpoint=dict(every_epochs=None, every_steps=2000))
