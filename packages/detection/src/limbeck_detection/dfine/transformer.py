"""D-FINE's decoder side: query selection among all places of the maps, denoising queries, refinement, and the outputs.

Names of parameters and buffers are those of the released D-FINE checkpoints.

Reference: Peng et al., D-FINE: Redefine Regression Task in DETRs as Fine-grained Distribution Refinement,
arXiv:2410.13842, sections 4 and 5; query selection after Zhang et al., DINO, arXiv:2203.03605, section 3.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from limbeck_core.errors import ShapeError
from limbeck_detection.dfine.attention import Sampling
from limbeck_detection.dfine.decoder import MLP, DecoderLayer, Refinement, RefinementDecoder, RefinementHeads
from limbeck_detection.dfine.denoising import Denoising, Targets, denoising_queries

QuerySelection = Literal["default", "one2many", "agnostic"]
Shapes = Sequence[tuple[int, int]]

_ANCHOR_SIDE = 0.05  # of the image, on the finest level; doubled from level to level
_ANCHOR_MARGIN = 0.01  # anchors with a coordinate nearer to 0 or 1 are left out
_UP = 0.5  # largest edge shift is twice this many widths of the reference box
_PRIOR = 0.01  # probability of a class at first


def make_anchors(
    shapes: Shapes, *, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """One box for every place of every map, before the sigmoid.

    Args:
        shapes: Heights and widths of the maps, fine to coarse.
        device: Where to.
        dtype: Floating-point type; the default dtype if ``None``.

    Returns: Logits of ``(cx, cy, w, h)``, shape ``(1, N, 4)``, infinite where a coordinate lies within 0.01 of 0 or 1,
        and the mask of the others, shape ``(1, N, 1)``.
    """
    dtype = dtype or torch.get_default_dtype()
    levels = []
    for level, (height, width) in enumerate(shapes):
        y, x = torch.meshgrid(
            torch.arange(height, device=device, dtype=dtype),
            torch.arange(width, device=device, dtype=dtype),
            indexing="ij",
        )
        side = torch.full_like(x, _ANCHOR_SIDE * 2.0**level)
        levels.append(torch.stack([(x + 0.5) / width, (y + 0.5) / height, side, side], dim=-1).reshape(1, -1, 4))
    anchors = torch.cat(levels, dim=1)
    valid = ((anchors > _ANCHOR_MARGIN) & (anchors < 1 - _ANCHOR_MARGIN)).all(dim=-1, keepdim=True)
    logits = torch.log(anchors / (1 - anchors))
    return logits.masked_fill(~valid, torch.inf), valid


class _Selected(NamedTuple):
    content: Tensor
    box_logits: Tensor
    scores: Tensor


class DFINETransformer(nn.Module):
    """Choose queries, refine them, and return everything that the criterion compares.

    Args:
        num_classes: C.
        hidden_dim: Width of a query, a multiple of ``heads``.
        in_channels: Widths of the maps, fine to coarse; a map of another width than ``hidden_dim`` is projected.
        strides: Their strides.
        num_queries: Q.
        points: Deformable points in each level.
        heads: Attention heads.
        layers: Decoder layers.
        feedforward: Width inside their feed-forward part.
        dropout: Dropout inside them.
        num_denoising: As for :func:`limbeck_detection.dfine.denoising.denoising_queries`; 0 trains without.
        label_noise_ratio: As there.
        box_noise_scale: As there.
        learn_query_content: Whether queries start from a learnt embedding instead of the chosen places' features.
        eval_idx: Layer whose output counts in evaluation; negative counts from the end.
        sampling: As for :func:`limbeck_detection.dfine.attention.deformable_attention`.
        query_select: Which places become queries: ``"default"``, those whose best class scores highest;
            ``"one2many"``, the highest scores over places and classes, so that one place may give several queries;
            ``"agnostic"``, those that one score without classes puts first.
        reg_max: Number of bins of an edge, less one.
        reg_scale: Curvature of the bins; see :func:`limbeck_detection.dfine.regression.weighting_function`.
        input_size: Height and width of the image for which anchors are stored, as the released checkpoints have them;
            for other sizes they are made when needed.

    Raises:
        ValueError: if ``query_select`` is unknown, ``eval_idx`` names no layer, or ``in_channels``, ``strides`` and
            ``points`` differ in length.
    """

    anchors: Tensor
    valid_mask: Tensor

    def __init__(
        self,
        num_classes: int = 80,
        *,
        hidden_dim: int = 256,
        in_channels: Sequence[int] = (256, 256, 256),
        strides: Sequence[int] = (8, 16, 32),
        num_queries: int = 300,
        points: Sequence[int] = (3, 6, 3),
        heads: int = 8,
        layers: int = 6,
        feedforward: int = 1024,
        dropout: float = 0.0,
        num_denoising: int = 100,
        label_noise_ratio: float = 0.5,
        box_noise_scale: float = 1.0,
        learn_query_content: bool = False,
        eval_idx: int = -1,
        sampling: Sampling = "default",
        query_select: QuerySelection = "default",
        reg_max: int = 32,
        reg_scale: float = 4.0,
        input_size: tuple[int, int] = (640, 640),
    ) -> None:
        super().__init__()
        if query_select not in get_args(QuerySelection):
            raise ValueError(f"query_select must be one of {get_args(QuerySelection)}, got {query_select!r}")
        if not -layers <= eval_idx < layers:
            raise ValueError(f"eval_idx must name one of {layers} layers, got {eval_idx}")
        if not len(in_channels) == len(strides) == len(points):
            raise ValueError(
                f"in_channels, strides and points must have one entry a map, got {len(in_channels)}, {len(strides)} "
                f"and {len(points)}"
            )
        self.num_classes = num_classes
        self.num_queries = num_queries
        self.num_denoising = num_denoising
        self.label_noise_ratio = label_noise_ratio
        self.box_noise_scale = box_noise_scale
        self.query_select = query_select
        self.eval_idx = eval_idx % layers

        self.input_proj = nn.ModuleList()
        for channels in in_channels:
            projection = nn.Sequential()
            if channels != hidden_dim:
                projection.add_module("conv", nn.Conv2d(channels, hidden_dim, 1, bias=False))
                projection.add_module("norm", nn.BatchNorm2d(hidden_dim))
            self.input_proj.append(projection)

        self.up = nn.Parameter(torch.tensor([_UP]), requires_grad=False)
        self.reg_scale = nn.Parameter(torch.tensor([float(reg_scale)]), requires_grad=False)
        self.decoder = RefinementDecoder(
            [
                DecoderLayer(
                    hidden_dim, heads=heads, feedforward=feedforward, points=points, dropout=dropout, sampling=sampling
                )
                for _ in range(layers)
            ],
            heads=heads,
            reg_max=reg_max,
            up=self.up,
            reg_scale=self.reg_scale,
            eval_idx=self.eval_idx,
        )
        if num_denoising > 0:
            self.denoising_class_embed = nn.Embedding(num_classes + 1, hidden_dim, padding_idx=num_classes)
        self.tgt_embed = nn.Embedding(num_queries, hidden_dim) if learn_query_content else None
        self.query_pos_head = MLP(4, 2 * hidden_dim, hidden_dim, 2)
        self.enc_output = nn.Sequential()
        projection_in = nn.Linear(hidden_dim, hidden_dim)
        nn.init.xavier_uniform_(projection_in.weight)
        self.enc_output.add_module("proj", projection_in)
        self.enc_output.add_module("norm", nn.LayerNorm(hidden_dim))
        self.enc_score_head = nn.Linear(hidden_dim, 1 if query_select == "agnostic" else num_classes)
        self.enc_bbox_head = MLP(hidden_dim, hidden_dim, 4, 3, zero_last=True)
        self.dec_score_head = nn.ModuleList(nn.Linear(hidden_dim, num_classes) for _ in range(layers))
        self.pre_bbox_head = MLP(hidden_dim, hidden_dim, 4, 3, zero_last=True)
        self.dec_bbox_head = nn.ModuleList(
            MLP(hidden_dim, hidden_dim, 4 * (reg_max + 1), 3, zero_last=True) for _ in range(layers)
        )
        self._stored_shapes = [(-(-input_size[0] // s), -(-input_size[1] // s)) for s in strides]
        anchors, valid = make_anchors(self._stored_shapes)
        self.register_buffer("anchors", anchors)
        self.register_buffer("valid_mask", valid)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        bias = -math.log((1 - _PRIOR) / _PRIOR)
        for head in (self.enc_score_head, *self.dec_score_head):
            nn.init.constant_(head.bias, bias)
        for parameter in self.query_pos_head.parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)
        if self.tgt_embed is not None:
            nn.init.xavier_uniform_(self.tgt_embed.weight)

    def forward(self, features: Sequence[Tensor], targets: Targets | None = None) -> dict[str, Any]:
        """Detect.

        Args:
            features: Maps ``(B, C_i, H_i, W_i)``, fine to coarse.
            targets: One mapping an image with ``labels`` ``(n,)`` and ``boxes`` ``(n, 4)``, ``(cx, cy, w, h)`` as
                fractions of the image; used in training for the denoising queries. ``None`` trains without them.

        Returns: In evaluation ``pred_logits`` ``(B, Q, C)`` and ``pred_boxes`` ``(B, Q, 4)``. In training also what
            :meth:`_training_outputs` adds.

        Raises:
            ShapeError: if the number of maps is another one, they have fewer places than there are queries, or the
                targets are for another number of images.
            TargetError: as :func:`limbeck_detection.dfine.denoising.denoising_queries`.
        """
        if len(features) != len(self.input_proj):
            raise ShapeError(f"the decoder was built for {len(self.input_proj)} maps, got {len(features)}")
        maps = [project(level) for project, level in zip(self.input_proj, features, strict=True)]
        shapes = [(int(level.shape[-2]), int(level.shape[-1])) for level in maps]
        memory = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)
        selected = self._select(memory, shapes)
        content = selected.content.detach()
        if self.tgt_embed is not None:
            content = self.tgt_embed.weight.expand(memory.shape[0], -1, -1)
        ref_logits = selected.box_logits.detach()

        denoising = self._denoise(targets, memory) if self.training else None
        if denoising is not None:
            content = torch.cat([self.denoising_class_embed(denoising.labels), content], dim=1)
            ref_logits = torch.cat([denoising.box_logits.to(ref_logits.dtype), ref_logits], dim=1)
        elif self.training and self.num_denoising > 0:
            # without a target in the batch the embedding would be a parameter without gradient, at which DDP halts
            content = content + 0.0 * self.denoising_class_embed.weight.sum()

        heads = RefinementHeads(self.dec_score_head, self.dec_bbox_head, self.pre_bbox_head, self.query_pos_head)
        blocked = denoising.blocked if denoising is not None else None
        refined = self.decoder(content, ref_logits, memory, shapes, heads, blocked)
        if not self.training:
            return {"pred_logits": refined.logits[-1], "pred_boxes": refined.boxes[-1]}
        return self._training_outputs(refined, selected, denoising)

    def _anchors(self, shapes: Shapes, memory: Tensor) -> tuple[Tensor, Tensor]:
        if list(shapes) == self._stored_shapes:
            return self.anchors, self.valid_mask
        return make_anchors(shapes, device=memory.device, dtype=self.anchors.dtype)

    def _select(self, memory: Tensor, shapes: Shapes) -> _Selected:
        places, count = memory.shape[1], self.num_queries
        anchors, valid = self._anchors(shapes, memory)
        tokens = self.enc_output(valid.to(memory.dtype) * memory)
        scores = self.enc_score_head(tokens)
        choices = places * (scores.shape[-1] if self.query_select == "one2many" else 1)
        if choices < count:
            raise ShapeError(
                f"{count} queries are chosen among the places of the maps, and maps of {list(shapes)} have only "
                f"{choices}: use larger images, or build the model with a smaller num_queries"
            )
        if self.query_select == "one2many":
            index = scores.flatten(1).topk(count, dim=1).indices // scores.shape[-1]
        else:
            index = scores.amax(dim=-1).topk(count, dim=1).indices
        content, chosen_scores = (t.gather(1, index[..., None].expand(-1, -1, t.shape[-1])) for t in (tokens, scores))
        chosen_anchors = anchors.expand(memory.shape[0], -1, -1).gather(1, index[..., None].expand(-1, -1, 4))
        return _Selected(content, self.enc_bbox_head(content) + chosen_anchors, chosen_scores)

    def _denoise(self, targets: Targets | None, memory: Tensor) -> Denoising | None:
        if targets is None or self.num_denoising <= 0:
            return None
        if len(targets) != len(memory):
            raise ShapeError(f"a batch of {len(memory)} images needs as many targets, got {len(targets)}")
        return denoising_queries(
            targets,
            num_classes=self.num_classes,
            num_queries=self.num_queries,
            num_denoising=self.num_denoising,
            label_noise_ratio=self.label_noise_ratio,
            box_noise_scale=self.box_noise_scale,
        )

    def _training_outputs(
        self, refined: Refinement, selected: _Selected, denoising: Denoising | None
    ) -> dict[str, Any]:
        """Name what the criterion compares; keys are those of the reference implementation.

        Returns: For the last layer ``pred_logits``, ``pred_boxes``, ``pred_corners`` ``(B, Q, 4 * (reg_max + 1))`` and
            ``ref_points`` ``(B, Q, 4)``; ``up`` and ``reg_scale``; ``aux_outputs``, a list with those four for each
            earlier layer and the last layer's ``teacher_corners`` and ``teacher_logits``; ``pre_outputs``,
            ``pred_logits`` and ``pred_boxes`` of the first layer's ordinary heads; ``enc_aux_outputs``, a list of one
            with those of the chosen places; ``enc_meta``. With denoising queries also ``dn_outputs``, as
            ``aux_outputs`` but of all layers, ``dn_pre_outputs`` and ``dn_meta``; these are missing when no image has a
            target.
        """
        slots = 0 if denoising is None else denoising.blocked.shape[0] - self.num_queries

        def ordinary(tensor: Tensor) -> Tensor:
            return tensor[:, slots:]

        def noisy(tensor: Tensor) -> Tensor:
            return tensor[:, :slots]

        def layers(part: Any) -> list[dict[str, Tensor]]:
            return [
                {
                    "pred_logits": part(logits),
                    "pred_boxes": part(boxes),
                    "pred_corners": part(corners),
                    "ref_points": part(refined.ref_points),
                }
                for logits, boxes, corners in zip(refined.logits, refined.boxes, refined.corners, strict=True)
            ]

        def taught(outputs: list[dict[str, Tensor]], last: dict[str, Tensor]) -> list[dict[str, Tensor]]:
            teacher = {"teacher_corners": last["pred_corners"], "teacher_logits": last["pred_logits"]}
            return [{**output, **teacher} for output in outputs]

        *early, last = layers(ordinary)
        first = {"pred_logits": refined.first_logits, "pred_boxes": refined.first_boxes}
        out: dict[str, Any] = {
            **last,
            "up": self.up,
            "reg_scale": self.reg_scale,
            "aux_outputs": taught(early, last),
            "pre_outputs": {name: ordinary(tensor) for name, tensor in first.items() if tensor is not None},
            "enc_aux_outputs": [{"pred_logits": selected.scores, "pred_boxes": torch.sigmoid(selected.box_logits)}],
            "enc_meta": {"class_agnostic": self.query_select == "agnostic"},
        }
        if denoising is not None:
            extra = layers(noisy)
            out["dn_outputs"] = taught(extra, extra[-1])
            out["dn_pre_outputs"] = {name: noisy(tensor) for name, tensor in first.items() if tensor is not None}
            out["dn_meta"] = denoising.meta
        return out
