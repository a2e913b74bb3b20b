# Hands that the package draws, 64 x 64 pixels: a labelled source and another target, judged on the target.
#   python -m limbeck_pose.hand_adaptation.rendered hands        (then --data-root hands)
from torch.optim import Adam

from limbeck_core.engine import EpochLoop
from limbeck_pose.hand_adaptation import HandAugmentation, HandMetric, HandPairs, Hands
from limbeck_pose.heatmap import Heatmap

codec = dict(type=Heatmap, input_size=(64, 64), sigma=2.0, stride=2)
train_dataloader = dict(
    dataset=dict(
        type=HandPairs,
        root=".",
        source="source/train",
        target="target/train",
        codec=codec,
        augmentation=dict(type=HandAugmentation),
    ),
    batch_size=16,
)
val_dataloader = dict(dataset=dict(type=Hands, root=".", folder="target/val", codec=codec), batch_size=32)
val_evaluator = dict(type=HandMetric, codec=codec, pixels=10.0)
val_cfg = dict()
test_dataloader = dict(dataset=dict(type=Hands, root=".", folder="target/test", codec=codec), batch_size=32)
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=4, val_interval=4)
optim_wrapper = dict(optimizer=dict(type=Adam, lr=3e-4, betas=(0.5, 0.999), weight_decay=5e-4))
