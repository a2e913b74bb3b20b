# COCO-WholeBody and UBody, crops of 256 by 192: ROOT/coco/{train2017,val2017,annotations} and
# ROOT/UBody/{images,annotations}; ROOT is --data-root or LIMBECK_DATA.
from limbeck_pose.data import Augmentation, People
from limbeck_pose.evaluation import KeypointAP
from limbeck_pose.predictor import PersonPredictor
from limbeck_pose.simcc import SimCC

codec = dict(type=SimCC, input_size=(256, 192))
train_dataloader = dict(
    dataset=dict(
        type=People,
        root=".",
        annotations=[
            "coco/annotations/coco_wholebody_train_v1.0.json",
            "UBody/annotations/Magic_show/train_annotations.json",
            "UBody/annotations/Entertainment/train_annotations.json",
            "UBody/annotations/ConductMusic/train_annotations.json",
            "UBody/annotations/Online_class/train_annotations.json",
            "UBody/annotations/TalkShow/train_annotations.json",
            "UBody/annotations/Speech/train_annotations.json",
            "UBody/annotations/Fitness/train_annotations.json",
            "UBody/annotations/Interview/train_annotations.json",
            "UBody/annotations/Olympic/train_annotations.json",
            "UBody/annotations/TVShow/train_annotations.json",
            "UBody/annotations/Singing/train_annotations.json",
            "UBody/annotations/SignLanguage/train_annotations.json",
            "UBody/annotations/Movie/train_annotations.json",
            "UBody/annotations/LiveVlog/train_annotations.json",
            "UBody/annotations/VideoConference/train_annotations.json",
        ],
        images=["coco/train2017"] + ["UBody/images"] * 15,
        every=[1] + [10] * 15,
        codec=codec,
        augmentation=dict(type=Augmentation),
        fine=dict(type=Augmentation, shift=0.0, scale=(0.75, 1.25), rotation=60.0, hole=0.5),
        fine_from=240,
    ),
    batch_size=64,
    num_workers=8,
)
val_dataloader = dict(
    dataset=dict(
        type=People,
        root=".",
        annotations="coco/annotations/coco_wholebody_val_v1.0.json",
        images="coco/val2017",
        boxes="coco/person_detection_results/COCO_val2017_detections_AP_H_56_person.json",
        codec=codec,
    ),
    batch_size=64,
    num_workers=8,
)
val_evaluator = dict(type=KeypointAP, codec=codec)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
predictor = dict(type=PersonPredictor, codec=codec)
