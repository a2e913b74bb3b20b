"""mmdet and mmpose without a compiled mmcv: a stand-in for its operators.

Building ``mmcv`` from source fails with today's PyTorch, and ``mmcv-lite`` comes without compiled operators, yet
mmdet imports them all when it is imported. Most of its models use none but non-maximum suppression, which torchvision
has. So the stand-in offers that one and says, when any other is called, which operator was missing.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from torch import Tensor

from limbeck_core.errors import MissingDependency

EXTENSION = "mmcv._ext"


def use_mmcv() -> None:
    """Make ``mmcv.ops`` importable: where no compiled extension is installed, put the stand-in in its place.

    Call it before mmdet or mmpose is imported; :func:`~limbeck_core.openmmlab_models.openmmlab` does. Does nothing when
    the compiled extension is there, when it was called before, or when mmcv is not installed at all.
    """
    if EXTENSION in sys.modules or importlib.util.find_spec("mmcv") is None:
        return
    if importlib.util.find_spec(EXTENSION) is None:
        stand_in = sys.modules[EXTENSION] = Operators(EXTENSION)
        # MMEngine's runner asks for the extension's loader to learn whether mmcv is compiled: it has none
        stand_in.__spec__ = ModuleSpec(EXTENSION, loader=None)


class Operators(ModuleType):
    """The module ``mmcv._ext`` where nothing was compiled."""

    @staticmethod
    def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
        """Return the indices of the boxes that non-maximum suppression keeps, best first; ``(K,)`` integers.

        Args:
            boxes: Corners in pixels, shape ``(N, 4)``.
            scores: Shape ``(N,)``.
            iou_threshold: Boxes that overlap a better one by more than this go.
            offset: 0, or 1 for the old convention in which a box from 0 to 9 is ten pixels wide.

        Raises:
            MissingDependency: if torchvision is not installed.
        """
        try:
            from torchvision.ops import nms  # noqa: PLC0415  core does not depend on torchvision
        except ImportError as error:
            raise MissingDependency("non-maximum suppression needs torchvision: pip install torchvision") from error
        if offset:
            boxes = boxes + boxes.new_tensor([0.0, 0.0, offset, offset])
        kept: Tensor = nms(boxes, scores, iou_threshold)
        return kept

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_: Any, **__: Any) -> Any:
            raise MissingDependency(
                f"this model called mmcv's compiled operator {name!r}, and the installed mmcv has no compiled "
                "operators: choose another variant of the model (for RoIAlign: roi_layer.use_torchvision=True; "
                "deformable attention has a form in plain PyTorch on the CPU), or install a compiled mmcv"
            )

        return missing
