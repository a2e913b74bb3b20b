"""Edge distributions in place of the box heads of any DETR decoder, without touching the decoder's code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from limbeck_core.checks import check_positive
from limbeck_core.errors import MatchError, ShapeError
from limbeck_core.functional.precision import at_least_float32
from limbeck_detection.dfine.decoder import MLP, inverse_sigmoid
from limbeck_detection.dfine.regression import distance2bbox, integral, weighting_function

_INSIDE = 1e-5  # detectors pass boxes through a sigmoid, which has no logits for 0 and 1


class Refined(NamedTuple):
    """What the layers of one forward predicted, centre form in units of the image.

    Args:
        first: Boxes of the ordinary head of the first layer, shape ``(B, Q, 4)``.
        corners: Logits of the edge distributions of each layer, shape ``(B, Q, 4 * bins)``.
        boxes: Boxes of each layer, shape ``(B, Q, 4)``. Widths and heights are negative where the edges crossed.
    """

    first: Tensor
    corners: list[Tensor]
    boxes: list[Tensor]


@dataclass
class _Pass:
    """One forward of the decoder."""

    reference: Tensor
    hidden: Tensor | None = None
    first: Tensor | None = None
    corners: list[Tensor] = field(default_factory=list)
    boxes: list[Tensor] = field(default_factory=list)


class EdgeRefinement(nn.Module):
    r"""D-FINE's fine-grained distribution refinement for a decoder that predicts one box a layer.

    The first layer predicts an ordinary box :math:`b_0` with the detector's own head, and no gradient passes through
    it. Every layer then adds to the logits of four distributions over edge shifts, and the expected shifts move the
    edges of :math:`b_0`:

    .. math:: z_i = MLP_i(h_i + sg(h_{i-1})) + z_{i-1}, \qquad b_i = b_0 \; moved \; by \; E_{softmax(z_i)}[W(n)]

    All layers thus speak of the same edges of the same box, so that the last can teach the others
    (:class:`~limbeck_detection.refinement.criterion.RefinementCriterion`). Distributions are uniform at first: every
    layer's box is :math:`b_0`.

    DETR decoders compute a box as ``sigmoid(head(hidden) + logit(reference))``. :meth:`branches` returns modules to put
    in the place of those heads; they answer with :math:`logit(b_i) - logit(reference)`, so the decoder arrives at
    :math:`b_i`, kept inside the image, by its own code, in training and at inference. A decoder that is called by hand
    needs no branches: call the module itself with the hidden states.

    The submodule ``result`` is called with what :meth:`take` hands over, so that a tap can read it: ``Tap("result",
    pick=("corners", -1))``.

    D-FINE's location quality estimator, which corrects class scores, is left out: class heads stay as they are.

    Args:
        first_box: Head of the first layer's ordinary box, from ``(..., width)`` to ``(..., 4)``.
        width: Width of a query.
        num_layers: Layers of the decoder.
        reg_max: Number of bins less one, even and at least 4. Paper: ``N``.
        reg_scale: Curvature of the bins; larger means finer steps near zero. Paper: ``1 / c``.
        up: Half of the largest shift, in widths or heights of :math:`b_0`. Paper: ``a``.
        iterative: Whether each layer's box is the next layer's reference; otherwise all keep the first one.
        look_forward_twice: Whether the detector asks each head a second time, with the reference of the layer before
            still attached to its graph, as DINO does.
        eps: How far from 0 and 1 the decoder keeps a reference before it takes the logit.

    Raises:
        ValueError: if ``width``, ``num_layers``, ``reg_scale`` or ``up`` is not above 0, or ``reg_max`` is odd or
            below 4.

    Reference: Peng et al., D-FINE: Redefine Regression Task in DETRs as Fine-grained Distribution Refinement,
        arXiv:2410.13842, section 4.1, eq. 1-3.
    """

    up: Tensor
    reg_scale: Tensor

    def __init__(
        self,
        first_box: nn.Module,
        width: int,
        num_layers: int,
        *,
        reg_max: int = 32,
        reg_scale: float = 4.0,
        up: float = 0.5,
        iterative: bool = True,
        look_forward_twice: bool = False,
        eps: float = _INSIDE,
    ) -> None:
        super().__init__()
        for name, value in (("width", width), ("num_layers", num_layers), ("reg_scale", reg_scale), ("up", up)):
            check_positive(value, name)
        self.first_box = first_box
        self.num_layers = num_layers
        self.reg_max = reg_max
        self.iterative = iterative
        self.look_forward_twice = look_forward_twice
        self.eps = eps
        self.register_buffer("up", torch.tensor([float(up)]))
        self.register_buffer("reg_scale", torch.tensor([float(reg_scale)]))
        weighting_function(reg_max, self.up, self.reg_scale)
        self.corner_heads = nn.ModuleList(
            MLP(width, width, 4 * (reg_max + 1), 3, zero_last=True) for _ in range(num_layers)
        )
        self.result = nn.Identity()
        self._pass: _Pass | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the forward that is under way behind: its graph cannot be copied."""
        return {**self.__dict__, "_pass": None}

    def branches(self) -> list[nn.Module]:
        """One module a layer for the place of the decoder's box heads; their parameters stay here."""
        return [RefinementBranch(self, index) for index in range(self.num_layers)]

    def begin(self, reference: Tensor) -> None:
        """Start a forward of the decoder.

        Args:
            reference: Where the queries start: points ``(cx, cy)``, shape ``(B, Q, 2)``, or boxes ``(cx, cy, w, h)``,
                shape ``(B, Q, 4)``, in units of the image.

        Raises:
            ShapeError: if the last axis holds neither 2 nor 4 numbers.
        """
        if reference.ndim != 3 or reference.shape[-1] not in (2, 4):
            raise ShapeError(f"reference must have shape (B, Q, 2) or (B, Q, 4), got {tuple(reference.shape)}")
        self._pass = _Pass(reference)

    def take(self) -> Refined:
        """Hand over what the layers predicted since :meth:`begin`, and forget it.

        Raises:
            MatchError: if not every layer was asked.
        """
        found, self._pass = self._pass, None
        if found is None or found.first is None or len(found.boxes) != self.num_layers:
            done = 0 if found is None else len(found.boxes)
            raise MatchError(
                f"{done} of {self.num_layers} layers were refined since the decoder began: the detector must be called "
                "as a whole, and what it predicted taken once after each call"
            )
        result: Refined = self.result(Refined(found.first, found.corners, found.boxes))
        return result

    def forward(self, hidden: Tensor | Sequence[Tensor], reference: Tensor) -> Refined:
        """Refine boxes from the hidden states of all layers, for a decoder whose references do not depend on them.

        Args:
            hidden: Queries after each layer, shape ``(L, B, Q, width)`` or L tensors.
            reference: As for :meth:`begin`.

        Returns: What the layers predict.

        Raises:
            ShapeError: if there are not as many hidden states as layers.
        """
        if len(hidden) != self.num_layers:
            raise ShapeError(f"hidden must hold the queries of {self.num_layers} layers, got {len(hidden)}")
        self.begin(reference)
        for index, queries in enumerate(hidden):
            self.offset(index, queries)
        return self.take()

    def offset(self, index: int, hidden: Tensor) -> Tensor:
        """What a decoder adds to the logit of a layer's reference to arrive at the refined box.

        Args:
            index: The layer.
            hidden: Queries after the layer, shape ``(B, Q, width)``. A layer that is asked again in the same forward
                gives the same box, whatever the queries.

        Returns: Shape ``(B, Q, 4)``, in the dtype of the reference. Where the reference is a point, the last two
            numbers are logits of the width and the height.

        Raises:
            MatchError: if the decoder did not begin, or a layer before this one was left out.
        """
        found = self._pass
        if found is None or index > len(found.boxes):
            raise MatchError(
                f"layer {index} was asked for its box, but "
                + ("the decoder did not begin" if found is None else f"layer {len(found.boxes)} was not")
                + ": call the detector as a whole, not its box heads"
            )
        again = index < len(found.boxes)
        if not again:
            self._refine(found, index, hidden)
        reference, eps = found.reference, self.eps
        if index and self.iterative:
            reference = found.boxes[index - 1]
            if not (again and self.look_forward_twice):
                reference = reference.detach()
        if again:
            eps = _INSIDE
        if index and self.iterative:
            # what the decoder holds is the box before, as it came out of the sigmoid
            reference = reference.clamp(_INSIDE, 1 - _INSIDE)
        offset = inverse_sigmoid(found.boxes[index])
        start = inverse_sigmoid(reference.to(offset.dtype), eps=eps)
        offset = torch.cat([offset[..., : start.shape[-1]] - start, offset[..., start.shape[-1] :]], dim=-1)
        return offset.to(found.reference.dtype)

    def _refine(self, found: _Pass, index: int, hidden: Tensor) -> None:
        if found.first is None:
            start = inverse_sigmoid(at_least_float32(found.reference), eps=self.eps)
            raw = at_least_float32(self.first_box(hidden))
            moved = raw[..., : start.shape[-1]] + start
            found.first = torch.cat([moved, raw[..., start.shape[-1] :]], dim=-1).sigmoid()
        queries = hidden if found.hidden is None else hidden + found.hidden.detach()
        corners = self.corner_heads[index](queries)
        if found.corners:
            corners = corners + found.corners[-1]
        project = weighting_function(self.reg_max, self.up, self.reg_scale)
        shifts = integral(corners, project)
        scale = self.reg_scale.to(shifts.dtype)
        found.hidden = hidden
        found.corners.append(corners)
        found.boxes.append(distance2bbox(found.first.detach(), shifts, scale))


class RefinementBranch(nn.Module):
    """Stands where a decoder has the box head of one layer, and asks :class:`EdgeRefinement`.

    Args:
        refinement: The refinement; not a submodule, so its parameters appear once in the detector.
        index: The layer.
    """

    def __init__(self, refinement: EdgeRefinement, index: int) -> None:
        super().__init__()
        object.__setattr__(self, "refinement", refinement)
        self.index = index

    def forward(self, hidden: Tensor) -> Tensor:
        """``(B, Q, width)`` to ``(B, Q, 4)``; see :meth:`EdgeRefinement.offset`."""
        refinement: EdgeRefinement = self.__dict__["refinement"]
        return refinement.offset(self.index, hidden)


class BeginRefinement:
    """Forward pre-hook of a decoder that takes ``reference_points`` by keyword.

    Args:
        refinement: What to begin.
        logits: Whether the decoder is given logits of the references, as RT-DETR's is.
    """

    def __init__(self, refinement: EdgeRefinement, *, logits: bool = False) -> None:
        self.refinement = refinement
        self.logits = logits

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin.

        Raises:
            MatchError: if the decoder was called without ``reference_points``.
        """
        reference = kwargs.get("reference_points")
        if reference is None:
            raise MatchError(
                f"{type(module).__name__} was called without the keyword argument 'reference_points', got "
                f"{', '.join(kwargs) or 'no keywords'}: this version of the library calls its decoder in another way"
            )
        self.refinement.begin(reference.sigmoid() if self.logits else reference)
