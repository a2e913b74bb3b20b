"""D-FINE as it is run after training: convolutions with their norms folded in, and nothing that only training needs.

Convert after the weights have been loaded. Two models that agree to rounding may list nearly tied queries in another
order, so compare their parts on the same input, or their detections as sets.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.fusion import fuse_conv_bn_eval

from limbeck_core.errors import ExportError
from limbeck_detection.dfine.encoder import ConvNorm, RepVGGBlock
from limbeck_detection.dfine.model import DFINE
from limbeck_detection.dfine.postprocess import PostProcess
from limbeck_detection.dfine.transformer import DFINETransformer


def _folded(layer: ConvNorm) -> nn.Conv2d:
    if not isinstance(layer.norm, nn.BatchNorm2d):
        raise ExportError("the encoder's convolutions hold their norms already: give the training form of the model")
    return fuse_conv_bn_eval(copy.deepcopy(layer.conv).eval(), copy.deepcopy(layer.norm).eval())


def fold_conv_norm(layer: ConvNorm) -> ConvNorm:
    """Return a copy whose norm, with its running statistics, is part of the convolution.

    Raises:
        ExportError: if it already is.
    """
    conv = _folded(layer)
    folded = copy.copy(layer)
    folded._modules = {"conv": conv, "norm": nn.Identity(), "act": layer.act}
    return folded.eval()


def merge_repvgg(block: RepVGGBlock) -> nn.Sequential:
    """Return one 3x3 convolution and the activation that compute what the two branches did.

    Raises:
        ExportError: if the branches' norms are folded already.
    """
    wide, narrow = _folded(block.conv1), _folded(block.conv2)
    if wide.bias is None or narrow.bias is None:
        raise ExportError("a folded convolution has no bias")
    with torch.no_grad():
        wide.weight += pad(narrow.weight, (1, 1, 1, 1))
        wide.bias += narrow.bias
    merged = nn.Sequential()
    merged.add_module("conv", wide)
    merged.add_module("act", block.act)
    return merged.eval()


def _fold_all(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, RepVGGBlock):
            setattr(module, name, merge_repvgg(child))
        elif isinstance(child, ConvNorm):
            setattr(module, name, fold_conv_norm(child))
        else:
            _fold_all(child)


def _keep(modules: nn.ModuleList, last: int, *, only_last: bool) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Identity() if only_last and i < last else module for i, module in enumerate(modules) if i <= last
    )


def to_deploy(model: DFINE) -> DFINE:
    """Return the deploy form: a copy in evaluation mode, the given model is left as it is.

    In the encoder every :class:`~limbeck_detection.dfine.encoder.ConvNorm` and
    :class:`~limbeck_detection.dfine.encoder.RepVGGBlock` becomes one convolution. In the decoder, layers and box heads
    after ``eval_idx`` go, of score heads and quality estimators only that of ``eval_idx`` stays, and the shifts of the
    bins are stored. The backbone keeps its norms, as in the released deploy form.

    Raises:
        ExportError: if the model is in deploy form already, or its decoder is none of D-FINE's.
    """
    if not isinstance(model.decoder, DFINETransformer):
        raise ExportError(f"to_deploy needs a DFINETransformer as decoder, got {type(model.decoder).__name__}")
    if model.decoder.decoder.project is not None:
        raise ExportError("the model is in deploy form already: give the training form")
    deployed = copy.deepcopy(model).eval()
    _fold_all(deployed.encoder)
    head = deployed.decoder
    if isinstance(head, DFINETransformer):
        last, loop = head.eval_idx, head.decoder
        head.dec_score_head = _keep(head.dec_score_head, last, only_last=True)
        head.dec_bbox_head = _keep(head.dec_bbox_head, last, only_last=False)
        loop.layers = _keep(loop.layers, last, only_last=False)
        loop.lqe_layers = _keep(loop.lqe_layers, last, only_last=True)
        loop.project = loop.shifts().detach()
    return deployed.requires_grad_(False)


class DeployedDFINE(nn.Module):
    """The deploy form with post-processing: images and sizes in, detections out.

    Args:
        model: The training form with its weights; copied.
        num_top: As for :class:`~limbeck_detection.dfine.postprocess.PostProcess`.

    Raises:
        ExportError: as :func:`to_deploy`.
    """

    def __init__(self, model: DFINE, *, num_top: int = 300) -> None:
        super().__init__()
        self.model = to_deploy(model)
        self.postprocess = PostProcess(num_top)
        self.eval()

    def train(self, mode: bool = True) -> DeployedDFINE:
        """Stay in evaluation mode: the deploy form lacks what training needs."""
        super().train(False)
        return self

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect.

        Args:
            images: As for :class:`~limbeck_detection.dfine.model.DFINE`.
            sizes: Width and height of each original image in pixels, shape ``(B, 2)``.

        Returns: Labels ``(B, num_top)``, boxes ``(B, num_top, 4)`` and scores ``(B, num_top)``; see
            :class:`~limbeck_detection.dfine.postprocess.PostProcess`.
        """
        labels, boxes, scores = self.postprocess(self.model(images), sizes)
        return labels, boxes, scores
