"""DSD: a U-shaped network whose levels teach each other, with heads that stand outside of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core import Distiller, Tap
from limbeck_core.build import build
from limbeck_core.calls import apply_task_loss
from limbeck_core.checks import check_positive
from limbeck_core.errors import MatchError
from limbeck_core.gather import mean_scale, world_size
from limbeck_core.schedules import Progress, Schedule, as_schedule
from limbeck_core.tap import first_length
from limbeck_medical.dsd.heads import UpsamplingHead
from limbeck_medical.dsd.losses import self_distillation_loss
from limbeck_medical.dsd.networks import Level, Levels, find_levels

Weight = float | Schedule | Mapping[str, Any]
STD = "dsd/encoder_teacher_std"


class DSDDistiller(Distiller):
    """Dual self-distillation: heads on the levels of encoder and decoder, taught by labels and by one another.

    Three signals beside the task loss on the network's output: ``loss/deep_supervision``, the task loss on each decoder
    head; ``loss/dsd_decoder``, the divergence of the other decoder heads from the one next to the output (D1);
    ``loss/dsd_encoder``, that of the other encoder heads from the deepest one. Each is a sum over heads, weighted.

    The heads belong to the distiller: the student's parameters, state dict and output are those of the network alone,
    and whatever is exported has no heads.

    Decided where paper, code and card leave a choice:

    - The weights are applied. The released code swallows its ``alpha_KL``.
    - The gradient flows into the teaching heads too (``detach_teacher=False``), as in the released code.
    - ``share_heads=True`` lets encoder and decoder levels of equal channels and stride have one head, as the released
      code does for nnU-Net and SwinUNETR (and not for UNETR and V-Net). Without it no label reaches an encoder head;
      the teaching one then tends to say the same everywhere, which its students learn at no cost. That is what
      ``dsd/encoder_teacher_std`` in the log watches: the standard deviation over voxels of the class probabilities that
      the deepest encoder head gives, averaged over classes and samples. Shared heads slow the collapse and do not
      always prevent it; ``supervise_encoder=True`` does.
    - With ``detach_teacher=True`` a teaching encoder head that no label reaches would keep its random weights: refused.

    Args:
        student: A network from ``(N, C, ...)`` to class scores ``(N, K, ...)`` of the same size, or a config of it.
        input_shape: Channels and sides of the crops that it trains on, ``(1, 32, 32, 32)`` for example. Only ratios are
            taken from it: other sizes work as far as the network takes them.
        task_loss: Loss of scores ``(N, K, ...)`` against the batch's ``targets``, or a config of it. Paper: MONAI's
            ``DiceCELoss(softmax=True, to_onehot_y=True)``.
        encoder: Taps of the encoder's levels, fine to coarse; ``()`` leaves the branch out. Default: known for MONAI's
            networks, see :func:`~limbeck_medical.dsd.networks.known_taps`.
        decoder: Taps of the decoder's levels, fine to coarse, the bottom last; as ``encoder``.
        temperature: Softness of the heads' distributions (unitless). Paper: 3.
        decoder_weight: Weight of the decoder's divergences; a number or a schedule. Paper: 1.
        encoder_weight: Weight of the encoder's divergences. Paper: 1.
        supervision_weight: Weight of the deep supervision. Paper: 1.
        detach_teacher: Keep the divergences from changing the teaching heads.
        share_heads: Use one head for an encoder and a decoder level of the same channels and stride.
        supervise_encoder: Apply the task loss to the teaching encoder head as well.
        options: Further arguments of :class:`~limbeck_core.distiller.Distiller`, a teacher and matches among them.

    Raises:
        MatchError, ShapeError, TapError: as :func:`~limbeck_medical.dsd.networks.find_levels`; and MatchError without a
            task loss, with one class, or if the teaching encoder head would never learn.
        ValueError: if ``temperature`` is not above 0.

    Reference:
        Banerjee, Summerfield, Dong and Glide-Hurst, Volumetric medical image segmentation through dual
        self-distillation in U-shaped networks, arXiv:2306.03271.
    """

    def __init__(
        self,
        student: nn.Module | Mapping[str, Any],
        *,
        input_shape: Sequence[int],
        task_loss: nn.Module | Mapping[str, Any],
        encoder: Sequence[str | Tap] | None = None,
        decoder: Sequence[str | Tap] | None = None,
        temperature: float = 3.0,
        decoder_weight: Weight = 1.0,
        encoder_weight: Weight = 1.0,
        supervision_weight: Weight = 1.0,
        detach_teacher: bool = False,
        share_heads: bool = True,
        supervise_encoder: bool = False,
        **options: Any,
    ) -> None:
        check_positive(temperature, "temperature")
        network: nn.Module = build(student)
        levels = find_levels(network, input_shape, encoder, decoder)
        if levels.num_classes < 2:
            raise MatchError(
                f"the network scores {levels.num_classes} class, and self-distillation compares distributions over two "
                "or more: let it score the background as well"
            )
        places = {f"encoder{number}": level for number, level in enumerate(levels.encoder, 1)}
        places |= {f"decoder{number}": level for number, level in enumerate(levels.decoder, 1)}
        taps = {**options.pop("taps", {}), **{name: level.tap for name, level in places.items()}}
        super().__init__(network, task_loss=task_loss, taps=taps, **options)
        if self.task_loss is None:
            raise MatchError("DSD supervises its heads with the task loss: give task_loss, for example DiceCELoss")
        self.levels = levels
        self.temperature = temperature
        self.decoder_weight = as_schedule(decoder_weight)
        self.encoder_weight = as_schedule(encoder_weight)
        self.supervision_weight = as_schedule(supervision_weight)
        self.detach_teacher = detach_teacher
        self.heads = nn.ModuleDict()
        self._head_of = self._make_heads(places, share_heads)
        self._supervised = [name for name in places if name.startswith("decoder")]
        self._encoder_teacher = f"encoder{len(levels.encoder)}" if levels.encoder else None
        if supervise_encoder and self._encoder_teacher is not None:
            self._supervised.append(self._encoder_teacher)
        self._refuse_untaught_teacher(levels)

    def _make_heads(self, places: Mapping[str, Level], share: bool) -> dict[str, str]:
        """Build the heads, and return which one each level has."""
        owner: dict[tuple[int, tuple[int, ...]], str] = {}
        found = {}
        for name, level in places.items():
            key = (level.channels, level.stride)
            # a branch never shares with itself: two of its levels may well have equal shapes, as SwinUNETR's first two
            if share and key in owner and not owner[key].startswith(name.rstrip("0123456789")):
                found[name] = owner.pop(key)
                continue
            self.heads[name] = UpsamplingHead(level.channels, self.levels.num_classes, level.stride)
            owner[key] = found[name] = name
        return found

    def _refuse_untaught_teacher(self, levels: Levels) -> None:
        teacher = self._encoder_teacher
        if teacher is None or not self.detach_teacher:
            return
        if self._head_of[teacher] not in {self._head_of[name] for name in self._supervised}:
            raise MatchError(
                f"the encoder's teaching head (on '{levels.encoder[-1].tap}') would never learn: with "
                "detach_teacher=True no divergence reaches it, and no label does. Set supervise_encoder=True, or "
                "share_heads=True where a decoder level has the same channels and stride"
            )

    def compute_losses(self, batch: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Return the losses of the matches, if any, and DSD's three, weighted.

        Args:
            batch: The batch, with ``targets``.
            weights: Weight of each match at this point of the run.
        """
        losses = super().compute_losses(batch, weights)
        scores = {name: self.heads[head](self.read(name)) for name, head in self._head_of.items()}
        progress = self.progress or Progress(step=0)
        supervision = [self._supervise(scores[name], batch) for name in self._supervised]
        if supervision:
            losses["loss/deep_supervision"] = sum_of(supervision) * self.supervision_weight(progress)
        for branch, weight in (("decoder", self.decoder_weight), ("encoder", self.encoder_weight)):
            names = [name for name in scores if name.startswith(branch)]
            if names:
                teacher = names[0] if branch == "decoder" else names[-1]
                terms = [self._compare_heads(scores[name], scores[teacher]) for name in names if name != teacher]
                losses[f"loss/dsd_{branch}"] = sum_of(terms) * weight(progress)
        if self._encoder_teacher is not None:
            losses[STD] = spread_over_voxels(scores[self._encoder_teacher])
        return losses

    def _supervise(self, scores: Tensor, batch: Mapping[str, Any]) -> Tensor:
        if "targets" not in batch:
            raise MatchError(f"DSD supervises its heads with the batch's 'targets', it has {', '.join(batch)}")
        return apply_task_loss(self.task_loss, scores, batch["targets"])  # type: ignore[arg-type]  # not None: __init__

    def _compare_heads(self, student: Tensor, teacher: Tensor) -> Tensor:
        loss = self_distillation_loss(
            student, teacher, temperature=self.temperature, detach_teacher=self.detach_teacher
        )
        if world_size() == 1:
            return loss
        return loss * mean_scale(first_length(student), loss.device).to(loss.dtype)


def sum_of(losses: Sequence[Tensor]) -> Tensor:
    """Add scalars, of which there is at least one."""
    return torch.stack(list(losses)).sum()


@torch.no_grad()
def spread_over_voxels(logits: Tensor) -> Tensor:
    """Return the standard deviation over voxels of the class probabilities, averaged over classes and samples.

    Args:
        logits: Raw scores ``(N, K, ...)``. Near 0 the scores say the same of every voxel.
    """
    probabilities = logits.float().softmax(1).flatten(2)
    return probabilities.std(2, correction=0).mean() if probabilities.numel() else probabilities.sum()
