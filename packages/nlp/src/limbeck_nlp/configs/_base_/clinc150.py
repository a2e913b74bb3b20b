# CLINC150 as it is published: ROOT/clinc150/data_full.json (or .json.gz); ROOT is --data-root or LIMBECK_DATA.
# weights/gpt2 is your own local folder with GPT-2's tokenizer (and weights), as save_pretrained writes it.
from limbeck_core.engine import EpochLoop
from limbeck_nlp.data import pad_batch
from limbeck_nlp.evaluation import OodMetric
from limbeck_nlp.ood import OodText

train_dataloader = dict(
    dataset=dict(type=OodText, root="clinc150", layout="clinc150", tokenizer="weights/gpt2", train=True),
    batch_size=8,
    num_workers=2,
    collate_fn=dict(type=pad_batch),
)
val_dataloader = dict(
    dataset=dict(type=OodText, root="clinc150", layout="clinc150", tokenizer="weights/gpt2", train=False),
    batch_size=32,
    collate_fn=dict(type=pad_batch),
)
val_evaluator = dict(type=OodMetric)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=5)
