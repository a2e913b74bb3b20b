# DistilBERT: BERT-base into every second of its layers, on your own text with words hidden.
#   limbeck train nlp/compression/distilbert --data-root DATA
# weights/bert-base-uncased is your own local folder, as save_pretrained writes it.
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller, Match, Tap
from limbeck_core.calls import MappingCall
from limbeck_core.losses import GeneralizedJSDLoss, HiddenStateCosineLoss
from limbeck_nlp.encoder_compression import thinned
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.models import transformer

with read_base():
    from .._base_.lines import *

train_dataloader.dataset.update(share=0.15)

model = dict(
    type=Distiller,
    student=dict(
        type=thinned,
        task="masked_lm",
        model_type="bert",
        weights="weights/bert-base-uncased",
        layers=(0, 2, 4, 7, 9, 11),
        output_hidden_states=True,
    ),
    teacher=dict(
        type=transformer,
        task="masked_lm",
        model_type="bert",
        weights="weights/bert-base-uncased",
        output_hidden_states=True,
    ),
    call=dict(type=MappingCall),
    task_loss=dict(type=TokenCrossEntropyLoss),
    task_weight=2.0,
    matches=dict(
        logits=dict(
            type=Match,
            loss=dict(type=GeneralizedJSDLoss, beta=0.0, temperature=2.0),
            student=dict(type=Tap, path="", pick="logits"),
            teacher=dict(type=Tap, path="", pick="logits"),
            weight=20.0,  # 5, times the temperature squared
        ),
        hidden=dict(
            type=Match,
            loss=dict(type=HiddenStateCosineLoss),
            student=dict(type=Tap, path="", pick=("hidden_states", -1)),
            teacher=dict(type=Tap, path="", pick=("hidden_states", -1)),
            extras=dict(mask=dict(type=Tap, path="inputs", of="batch", pick="attention_mask")),
        ),
    ),
)

# the rate and the layers kept are those of the code released with the paper (recalled); not run here
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=5e-4, weight_decay=0.01))
