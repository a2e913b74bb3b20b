# MLKD on CLINC150: GPT-2 small with random weights learns from the fine-tuned one (arXiv 2211.11300).
#   limbeck train nlp/ood/clinc150_teacher --data-root DATA     (once)
#   limbeck train nlp/ood/clinc150_mlkd --data-root DATA
#   limbeck test nlp/ood/clinc150_mlkd --checkpoint work_dirs/clinc150_mlkd/student.pth --data-root DATA
# Other data, here a detector of a machine's texts (HC3):
#   --cfg-options train_dataloader.dataset.layout=hc3 train_dataloader.dataset.root=hc3 (and of val_, test_dataloader)
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller, Match, Tap, pretrained
from limbeck_core.calls import MappingCall
from limbeck_core.losses import GeneralizedJSDLoss
from limbeck_nlp.models import transformer
from limbeck_nlp.ood import NearestLayersLoss

with read_base():
    from .._base_.clinc150 import *

model = dict(
    type=Distiller,
    student=dict(type=transformer, task="causal_lm", model_type="gpt2", output_hidden_states=True),
    teacher=dict(
        type=pretrained,
        model=dict(type=transformer, task="causal_lm", model_type="gpt2", output_hidden_states=True),
        checkpoint="work_dirs/clinc150_teacher/student.pth",
    ),
    call=dict(type=MappingCall, labels=None),
    matches=dict(
        prediction=dict(
            type=Match,
            loss=dict(type=GeneralizedJSDLoss, beta=0.0, temperature=1.0),  # 0.5 for SST
            student=dict(type=Tap, path="", pick="logits"),
            teacher=dict(type=Tap, path="", pick="logits"),
            weight=1.0,
            extras=dict(mask=dict(type=Tap, path="inputs", of="batch", pick="attention_mask")),
        ),
        layers=dict(
            type=Match,
            loss=dict(type=NearestLayersLoss, student_width=768, nearest=2),
            student=[dict(type=Tap, path="", pick=("hidden_states", layer)) for layer in range(3, 10)],
            teacher=[dict(type=Tap, path="", pick=("hidden_states", layer)) for layer in range(1, 13)],
            weight=1.0,
            extras=dict(mask=dict(type=Tap, path="inputs", of="batch", pick="attention_mask")),
        ),
    ),
)

# the paper's: constant, no weight decay
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=5e-5, weight_decay=0.0))
