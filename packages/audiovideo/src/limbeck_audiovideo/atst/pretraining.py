"""ATST's pretraining: a student that predicts what a moving average of itself makes of another view."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_audiovideo.atst.encoder import ClipEncoder, FrameEncoder
from limbeck_core.build import build
from limbeck_core.calls import TensorCall
from limbeck_core.distiller import Distiller
from limbeck_core.errors import CheckpointError, ShapeError
from limbeck_core.functional import unit_vectors
from limbeck_core.weights import load_weights, read_weights

Encoder = ClipEncoder | FrameEncoder

# where an encoder stands in a file, the teacher's first: it is the one to keep
_PLACES = ("model.teacher.encoder.", "teacher.encoder.", "encoder.encoder.", "network.encoder.", "encoder.", "")


class KeywordCall(TensorCall):
    """Models that take the fields of a view as keyword arguments, such as ``waveform`` and ``length``."""

    def capture(self, model: nn.Module, batch: Mapping[str, Any], view: str) -> Any:
        """Run the model on the fields of the view, or on the view if it is a tensor."""
        fields = batch.get(view)
        return model(**fields) if isinstance(fields, Mapping) else super().capture(model, batch, view)


class Head(nn.Sequential):
    """Linear, batch norm, ReLU, linear; no bias. Projector and predictor of BYOL.

    Args:
        dim: Width of what comes in.
        hidden: Width between.
        out: Width of what goes out.
    """

    def __init__(self, dim: int, hidden: int = 4096, out: int = 256) -> None:
        super().__init__(
            nn.Linear(dim, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, out, bias=False),
        )
        self.out = out

    def forward(self, rows: Tensor) -> Tensor:
        """Project rows ``(..., dim)`` to ``(..., out)``; of no rows, nothing, with a gradient of zero."""
        flat = rows.flatten(0, -2)
        if not len(flat):
            nothing = sum((parameter.sum() for parameter in self.parameters()), rows.sum())
            return rows.new_zeros(*rows.shape[:-1], self.out) + 0 * nothing
        return super().forward(flat).unflatten(0, rows.shape[:-1])  # type: ignore[no-any-return, no-untyped-call]


class Network(nn.Module):
    """Encoder and projector: what the teacher is a moving average of.

    Args:
        encoder: :class:`ClipEncoder` or :class:`FrameEncoder`, or its config.
        hidden: Hidden width of the projector.
        out: Width of the projections.
    """

    def __init__(self, encoder: Encoder | Mapping[str, Any], *, hidden: int = 4096, out: int = 256) -> None:
        super().__init__()
        self.encoder: Encoder = build(encoder) if isinstance(encoder, Mapping) else encoder
        self.projector = Head(self.encoder.dim, hidden, out)

    def forward(
        self, views: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None, *, hide: bool = False
    ) -> Tensor:
        """Return projections of every view, ``(rows, V, out)``.

        Rows are clips for a clip encoder. For a frame encoder they are the hidden tokens that stand on a clip's own
        frames, over the whole batch; all views of a clip share its mask, so that rows correspond.

        Args:
            views: Spectrograms, ``(N, V, 1, 64, frames)``.
            lengths: Frames of each clip that are its own, ``(N,)``; default: all.
            mask: Tokens whose projections are compared, boolean ``(N, tokens)``; frame encoders need it.
            hide: Whether these tokens are hidden from the encoder: the student's way, not the teacher's.

        Raises:
            ShapeError: if the views have another form, or a frame encoder gets no mask.
        """
        if views.ndim != 5:
            raise ShapeError(f"views must be (clips, views, 1, 64, frames), got {tuple(views.shape)}")
        count = views.shape[1]
        mel = views.flatten(0, 1)
        of_views = None if lengths is None else lengths.repeat_interleave(count)
        if isinstance(self.encoder, ClipEncoder):
            rows: Tensor = self.encoder(mel, of_views).unflatten(0, (-1, count))
        else:
            if mask is None:
                raise ShapeError("a frame encoder is trained on hidden tokens: give a mask (clips, tokens)")
            hidden = mask.repeat_interleave(count, 0) if hide else None
            tokens = self.encoder(mel, of_views, hidden).unflatten(0, (-1, count))
            compared = mask.bool()
            if lengths is not None:
                own = self.encoder.tokens(lengths).unsqueeze(1)
                compared = compared & (torch.arange(mask.shape[1], device=mask.device) < own)
            rows = tokens.transpose(1, 2)[compared]
        projected: Tensor = self.projector(rows)
        return projected


class ATST(nn.Module):
    """The student: network and predictor.

    Taps of interest: ``predictor`` here, ``projector`` of the teacher, which follows ``network``.

    Args:
        encoder: :class:`ClipEncoder` or :class:`FrameEncoder`, or its config.
        hidden: Hidden width of projector and predictor.
        out: Width of projections and predictions.

    Reference:
        Li, Shao and Li, arXiv:2306.04186, section III-A and figure 1; Grill et al., Bootstrap Your Own Latent,
        arXiv:2006.07733.
    """

    def __init__(self, encoder: Encoder | Mapping[str, Any], *, hidden: int = 4096, out: int = 256) -> None:
        super().__init__()
        self.network = Network(encoder, hidden=hidden, out=out)
        self.predictor = Head(out, hidden, out)

    def forward(self, views: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return predictions of every view, ``(rows, V, out)``; as :meth:`Network.forward`, with the mask hidden."""
        predictions: Tensor = self.predictor(self.network(views, lengths, mask, hide=True))
        return predictions


class SwapViews(nn.Module):
    """Give each of two views the other's value: ``(rows, 2, D)`` with the second axis turned round."""

    def forward(self, embeddings: Tensor) -> Tensor:
        """Turn the views round.

        Raises:
            ShapeError: if there are not two views.
        """
        if embeddings.ndim < 2 or embeddings.shape[1] != 2:
            raise ShapeError(f"two views are compared crosswise, (rows, 2, D), got {tuple(embeddings.shape)}")
        return embeddings.flip(1)


@torch.no_grad()
def spread(embeddings: Tensor) -> Tensor:
    r"""Spread of unit vectors, averaged over their entries: what to watch for collapse.

    About :math:`1 / \sqrt{D}` where vectors point everywhere, and 0.001, the floor, where all are the same.

    Args:
        embeddings: ``(..., D)``.
    """
    rows = unit_vectors(embeddings.flatten(0, -2))
    variance = rows.var(0) if len(rows) > 1 else torch.zeros_like(rows).sum(0)
    return (variance + 1e-6).sqrt().mean()


class ATSTDistiller(Distiller):
    """A distiller that logs the spread of the student's predictions and of the teacher's projections beside its losses.

    ``spread/student`` and ``spread/teacher`` are of the match called ``views``; see :func:`spread`. The teacher runs
    without drop path, where the authors leave it on, and its batch norm takes the batch's statistics as theirs does.
    """

    def compute_losses(self, batch: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Return the losses, and what to watch."""
        losses = super().compute_losses(batch, weights)
        match: Any = self.matches["views"]
        for side, taps in (("student", match.student), ("teacher", match.teacher)):
            losses[f"spread/{side}"] = spread(self.read(taps[0]))
        return losses


def load_encoder(encoder: Encoder, path: str | Path) -> str:
    """Load an encoder from a run's ``teacher.pth`` or ``student.pth``, from a fine-tuned model, or the authors' files.

    Args:
        encoder: Receives the weights; every one of them must be in the file.
        path: The file. Of a file with student and teacher the teacher's encoder is taken, as the paper does.

    Returns:
        What stood before the names in the file.

    Raises:
        CheckpointError: if the file cannot be read, or holds no such encoder.
    """
    weights = read_weights(Path(path))
    names = set(encoder.state_dict())
    shares = {place: sum(place + name in weights for name in names) for place in _PLACES}
    place = max(_PLACES, key=lambda prefix: shares[prefix])
    if not shares[place]:
        raise CheckpointError(
            f"{path} holds no encoder of ATST: its names begin with {', '.join(sorted(weights)[:3])}, expected "
            f"{_PLACES[0]}, {_PLACES[3]} or encoder. before blocks.0.norm1.weight"
        )
    found = {name.removeprefix(place): value for name, value in weights.items() if name.startswith(place)}
    load_weights(encoder, {name: value for name, value in found.items() if name in names}, what=str(path))
    return place


def pretrained_encoder(encoder: Encoder | Mapping[str, Any], checkpoint: str | Path | None) -> Encoder:
    """Return an encoder with weights read from a file, for a config.

    Args:
        encoder: The encoder, or its config.
        checkpoint: See :func:`load_encoder`; ``None`` leaves the random weights. On the meta device nothing is read.
    """
    built: Encoder = build(encoder) if isinstance(encoder, Mapping) else encoder
    if checkpoint is not None and torch.get_default_device().type != "meta":
        load_encoder(built, checkpoint)
    return built
