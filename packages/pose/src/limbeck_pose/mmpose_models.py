"""Models of mmpose, by their own config files, on this package's crops. The only file that imports mmpose.

``openmmlab(config, checkpoint)`` of core builds the model; :class:`MMPoseCall` gives it crops and labels as
:class:`~limbeck_pose.data.People` makes them, so that data, losses, evaluators and taps of this package serve it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from limbeck_core.calls import OpenMMLabCall
from limbeck_core.errors import DataError, MissingDependency
from limbeck_core.mmcv_operators import use_mmcv


class MMPoseCall(OpenMMLabCall):
    """Call a top-down model of mmpose, SimCC or heatmap, student or teacher.

    Crops are RGB bytes here; mmpose's preprocessors take BGR and turn it around, so the channels are exchanged first.
    A prediction is the head's raw output, which this package's codecs decode: the model's own flip test is not run.

    Raises:
        MissingDependency: if mmpose is not installed.
    """

    def __init__(self) -> None:
        try:
            use_mmcv()
            structures = import_module("mmpose.structures")
        except ImportError as error:
            raise MissingDependency(
                f"MMPoseCall needs mmpose ({error}); docs/how-to/openmmlab_models.md says how to install it today"
            ) from error
        self._sample = structures.PoseDataSample

    def loss(self, model: nn.Module, batch: Mapping[str, Any], view: str, task_loss: nn.Module | None) -> Any:
        """Return the student's own losses.

        Raises:
            MatchError: if a task loss is given, which these models carry inside.
            DataError: if the targets are those of no codec.
        """
        return super().loss(model, self._translated(batch, view, labels=True), view, task_loss)

    def capture(self, model: nn.Module, batch: Mapping[str, Any], view: str) -> Any:
        """Return the head's raw output; no labels are needed."""
        return super().capture(model, self._translated(batch, view, labels=False), view)

    def predict(self, model: nn.Module, batch: Mapping[str, Any], view: str) -> Any:
        """Return the head's raw output: scores along x and y, or heatmaps."""
        return self.capture(model, batch, view)

    def _translated(self, batch: Mapping[str, Any], view: str, *, labels: bool) -> dict[str, Any]:
        crops: Tensor = batch[view].flip(1)
        height, width = crops.shape[2:]
        samples = []
        for number in range(len(crops)):
            sample = self._sample(metainfo={"input_size": (width, height), "img_shape": (height, width)})
            if labels:
                self._label(sample, [target[number] for target in batch["targets"]])
            samples.append(sample)
        return {view: list(crops), "data_samples": samples}

    @staticmethod
    def _label(sample: Any, targets: list[Tensor]) -> None:
        *labels, weight = targets
        # mmpose measures accuracy against these; only their number counts here
        sample.gt_instances = InstanceData(keypoints=torch.zeros(1, len(weight), 2).numpy())
        instance: dict[str, Any] = {"keypoint_weights": weight[None]}
        if len(labels) == 2:
            instance |= {"keypoint_x_labels": labels[0][None], "keypoint_y_labels": labels[1][None]}
        elif len(labels) == 1 and labels[0].ndim == 3:
            sample.gt_fields = PixelData(heatmaps=labels[0])
        else:
            raise DataError(
                "MMPoseCall takes targets of the SimCC codec (x, y, weight) or of the Heatmap codec (heatmaps, "
                f"weight), got {len(targets)} tensors"
            )
        sample.gt_instance_labels = InstanceData(**instance)
