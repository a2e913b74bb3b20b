# Your own text, one line a text, UTF-8: ROOT/text/train.txt; ROOT is --data-root or LIMBECK_DATA. The tokenizer is that
# of the teacher, weights/bert-base-uncased: a local folder as save_pretrained writes it, relative to where you are.
from mmengine.optim import LinearLR

from limbeck_core.engine import EpochLoop
from limbeck_nlp.data import TextLines, pad_batch

train_dataloader = dict(
    dataset=dict(
        type=TextLines, root="text", file="train.txt", tokenizer="weights/bert-base-uncased", share=0.0, max_length=512
    ),
    batch_size=32,
    num_workers=4,
    collate_fn=dict(type=pad_batch),
)
train_cfg = dict(type=EpochLoop, max_epochs=3)
param_scheduler = dict(
    type=LinearLR, start_factor=1.0, end_factor=0.01, end=3, by_epoch=True, convert_to_iter_based=True
)
