# Sound events that the package renders: clips of 2 s with one of eight classes.
#   python -m limbeck_audiovideo.rendered_audio sounds        (then --data-root sounds)
from limbeck_audiovideo.audio import Recordings
from limbeck_audiovideo.evaluation.metric import ClipMetric

val_dataloader = dict(
    dataset=dict(type=Recordings, root=".", audio="clips/test", table="test.csv", seconds=2.0), batch_size=64
)
val_evaluator = dict(type=ClipMetric)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
