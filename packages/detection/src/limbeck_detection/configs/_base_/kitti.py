# KITTI's object benchmark in its own layout: ROOT/training/{velodyne,calib,label_2,image_2}, and names of frames, one a
# line, in ROOT/ImageSets/{train,val}.txt; ROOT is --data-root or LIMBECK_DATA. Training pastes objects of a database,
# which is cut out once:
#   python -m limbeck_detection.data.database ROOT --split train
from limbeck_detection.data import (
    FlipScene,
    KeepInRange,
    KittiFrames,
    PasteObjects,
    ScaleScene,
    ShufflePoints,
    TurnScene,
    lidar_batch,
)
from limbeck_detection.evaluation import KittiMetric

point_range = (0.0, -39.68, -3.0, 69.12, 39.68, 1.0)
train_dataloader = dict(
    dataset=dict(
        type=KittiFrames,
        root=".",
        split="train",
        transforms=[
            dict(type=PasteObjects, root=".", objects=dict(Pedestrian=15, Cyclist=15, Car=15)),
            dict(type=FlipScene),
            dict(type=TurnScene),
            dict(type=ScaleScene),
            dict(type=KeepInRange, point_range=point_range),
            dict(type=ShufflePoints),
        ],
    ),
    batch_size=6,
    num_workers=4,
    collate_fn=dict(type=lidar_batch),
)
val_dataloader = dict(
    dataset=dict(type=KittiFrames, root=".", split="val", truth=True),
    batch_size=4,
    num_workers=4,
    collate_fn=dict(type=lidar_batch),
)
val_evaluator = dict(type=KittiMetric)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
default_hooks = dict(checkpoint=dict(save_best="mean/3d/AP40/moderate", rule="greater"))
